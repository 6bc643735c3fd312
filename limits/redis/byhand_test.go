package redis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/limitstest"
)

func byHand(t *testing.T, url, node string) *ByHand {
	t.Helper()
	h, err := OpenByHand(t.Context(), Options{URL: url, Node: node, Now: func() time.Time { return time.Unix(1e9, 0) }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func TestByHandConforms(t *testing.T) {
	limitstest.Run(t, func(t *testing.T) limits.Limiter { return byHand(t, servers.Redis(t).URL, "a") })
}

// What one node has not spent is there for the next one at the same time, and together they pass what one would.
func TestNodesByHandShareALimit(t *testing.T) {
	url := servers.Redis(t).URL
	nodes := []*ByHand{byHand(t, url, "a"), byHand(t, url, "b"), byHand(t, url, "c")}
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for tenant, rate := range map[delivery.TenantID]limits.Rate{
		"few": {PerSecond: 5, Burst: 1}, "many": {PerSecond: 100, Burst: 20},
	} {
		bound := []limits.Bound{{Key: limits.Key{Tenant: tenant}, Rate: rate}}
		passed := 0
		for end := now.Add(10 * time.Second); now.Before(end); {
			next := end
			for _, n := range nodes {
				for {
					d, err := n.Reserve(t.Context(), now, bound, 1)
					require.NoError(t, err)
					if !d.Go {
						require.True(t, d.NotBefore.After(now), "it would be asked for ever")
						if d.NotBefore.Before(next) {
							next = d.NotBefore
						}
						break
					}
					passed++
				}
			}
			now = next
		}
		want := 10*rate.PerSecond + rate.Burst
		require.InDelta(t, want, passed, 1, "%v", rate)
	}
}

// A node keeps nothing that it has not spent: there would be no time for it to give it back.
func TestByHandKeepsNothing(t *testing.T) {
	url := servers.Redis(t).URL
	a, b := byHand(t, url, "a"), byHand(t, url, "b")
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	pass := func(h *ByHand, bounds []limits.Bound, most int) (n int) {
		for n < most {
			d, err := h.Reserve(t.Context(), now, bounds, 1)
			require.NoError(t, err)
			if !d.Go {
				break
			}
			n++
		}
		return n
	}
	wide := limits.Bound{Key: limits.Key{Tenant: "wide"}, Rate: limits.Rate{PerSecond: 100, Burst: 20}}
	narrow := limits.Bound{Key: limits.Key{Tenant: "narrow"}, Rate: limits.Rate{PerSecond: 1, Burst: 1}}
	require.Equal(t, 8, pass(a, []limits.Bound{wide}, 8))
	require.Equal(t, 1, pass(a, []limits.Bound{wide, narrow}, 5), "the narrow one stops it")
	require.Equal(t, 11, pass(b, []limits.Bound{wide}, 20), "what a has not spent is there")
}
