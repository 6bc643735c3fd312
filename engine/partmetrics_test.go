package engine_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
)

// partsOf reads the metric of the parts: part → "1" or "0".
func partsOf(t *testing.T, m *member) map[string]string {
	t.Helper()
	parts := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^msgctl_part_ok\{part="(\w+)"\} (\S+)$`).FindAllStringSubmatch(metricsOf(t, m), -1) {
		parts[line[1]] = line[2]
	}
	return parts
}

func TestPartsAreMeasured(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.begin("a")
	all := map[string]string{"store": "1", "clock": "1", "journal": "1", "disk": "1", "cluster": "1"}
	require.Equal(t, all, partsOf(t, m))
	m.cut(true)
	eventually(t, "the store and the cluster are away", func() bool {
		now := partsOf(t, m)
		return now["store"] == "0" && now["cluster"] == "0" && now["journal"] == "1"
	})
	m.cut(false)
	eventually(t, "all is well again", func() bool { return len(partsOf(t, m)) == len(all) && partsOf(t, m)["store"] == "1" })

	alone, err := engine.New(engine.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, alone.Close()) }()
	require.Equal(t, map[string]string{"store": "1", "clock": "1", "journal": "1", "disk": "1"},
		partsOf(t, &member{Engine: alone}), "an engine that has not started; it has no cluster")
}
