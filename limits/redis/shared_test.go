package redis

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/limitstest"
)

// cluster opens the limiters of n nodes and waits until all of them share.
func cluster(t *testing.T, url func(node int) string, n int) []limits.Limiter {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	var ls []limits.Limiter
	for i := range n {
		p := defaultPace()
		p.settled = 100 * time.Millisecond // since the start of the test
		l, err := open(background, Options{
			URL: url(i), Node: names[i], Members: func() ([]string, bool) { return names, true },
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}, p)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, l.Close()) })
		ls = append(ls, l)
	}
	require.Eventually(t, func() bool {
		for _, l := range ls {
			if !l.(*Limiter).Stats().Shared {
				return false
			}
		}
		return true
	}, time.Minute, 10*time.Millisecond)
	return ls
}

func TestShared(t *testing.T) {
	limitstest.Shared(t, []int{1, 3, 50}, func(t *testing.T, nodes int) []limits.Limiter {
		url := servers.NewRedis(t).URL
		return cluster(t, func(int) string { return url }, nodes)
	})
}
