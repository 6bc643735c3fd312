package engine_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sdk"
)

// Nodes whose clock a test turns work by it, rates included, and count as alive by the store's clock all the same.
func TestAClockThatIsTurnedByHand(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		clock := clockwork.NewFakeClockAt(time.Date(2030, 1, 1, 9, 0, 0, 0, time.UTC))
		cache := servers.Redis(t).URL
		a := r.begin("a", func(c *engine.Config) { c.Clock, c.Limits, c.Lease = clock, cache, time.Minute })
		c := r.client(a)
		_, err := c.Connectors.Put(t.Context(), "main", sdk.ConnectorRequest{Kind: "line", Rate: 1, Burst: 1})
		require.NoError(t, err)
		for range 2 {
			later := sdk.At(clock.Now().Add(time.Hour))
			_, err = c.Send(t.Context(), sdk.SMS{To: "+12025550100", Text: "Hello"}, later)
			require.NoError(t, err)
		}
		first := seenAt(t, a)
		eventually(t, "it gives signs of life", func() bool { return seenAt(t, a).Sub(first) > 2*testTTL })
		require.Equal(t, http.StatusOK, get(t, a, "/readyz").status, "the clocks are three years apart")
		require.Zero(t, r.provider.total())

		clock.Advance(time.Hour)
		eventually(t, "the first one goes", func() bool { return r.provider.total() == 1 })
		eventually(t, "the second one waits for the rate", func() bool {
			quiet, err := a.Quiet(t.Context())
			return err == nil && quiet
		})
		require.Equal(t, 1, r.provider.total())
		clock.Advance(time.Second)
		eventually(t, "and goes a second later", func() bool { return r.provider.total() == 2 })
	})
}

// seenAt is when a node gave its last sign of life, by the store's clock.
func seenAt(t *testing.T, m *member) time.Time {
	t.Helper()
	status, err := mustClient(t, m).Cluster(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{m.name + " alive"}, states(status))
	return *status.Nodes[0].Seen
}
