package pipeline

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

func TestAClaimIsBegunOrTakenBackButNotBoth(t *testing.T) {
	var c claims
	for i := range 1000 {
		k := attemptKey{delivery.MessageID{15: byte(i)}, i}
		c.add([]store.Claimed{{ID: k.id, Epoch: k.epoch}}, time.Minute)
		var begun, taken bool
		var wg sync.WaitGroup
		wg.Go(func() { begun = c.begin(k, delivery.AccountID{1}, 0) })
		wg.Go(func() { taken = c.takeBack(k) })
		wg.Wait()
		require.NotEqual(t, begun, taken)
		require.Equal(t, taken, c.takeBack(k), "it stays as it was decided")
		require.Equal(t, begun, c.begin(k, delivery.AccountID{1}, 0))
		c.end(k)
	}
	require.Empty(t, c.open)
	require.Zero(t, c.running())
	require.False(t, c.begin(attemptKey{epoch: 1}, delivery.AccountID{1}, 0), "nobody claimed it")
}

// A tenant that changes while its old row is being read must not be kept as it was.
func TestAChangedTenantIsNotKeptAsItWas(t *testing.T) {
	policy := "retry"
	var c tenantCache
	c.load = func(delivery.TenantID) (*store.Tenant, error) {
		v := &store.Tenant{OnAmbiguous: policy}
		if policy == "retry" {
			policy = "fail"
			c.forget("acme")
		}
		return v, nil
	}
	for _, want := range []string{"retry", "fail", "fail"} {
		v, err := c.get("acme")
		require.NoError(t, err)
		require.Equal(t, want, v.OnAmbiguous)
	}
	c.load = func(delivery.TenantID) (*store.Tenant, error) { return nil, errors.New("away") }
	c.forget("acme")
	_, err := c.get("acme")
	require.Error(t, err)
	_, kept := c.views.Load("acme")
	require.False(t, kept, "what could not be read is not kept")
}

// A mistake of ours in one message ends that message, not the process.
func TestAStageThatPanicsEndsOneMessage(t *testing.T) {
	for name, c := range map[string]struct {
		begun bool
		want  delivery.Status
	}{
		"before the attempt": {false, delivery.StatusFailed},
		"after it began":     {true, delivery.StatusAmbiguous},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Pipeline{
				log: slog.New(slog.DiscardHandler), clock: clockwork.NewFakeClock(), metrics: newMetrics(prometheus.NewRegistry()),
				opt: Options{
					Retry: []time.Duration{time.Second}, Jitter: new(1.0), Chance: func(delivery.MessageID, int) float64 { return 0 },
				},
			}
			p.tenants.load = func(delivery.TenantID) (*store.Tenant, error) { return &store.Tenant{}, nil }
			p.recorder = newRecorder(p)
			p.attempt = []stage{{name: "planted", onClaim: func(m *passage, _ time.Time) {
				if c.begun {
					m.journal = &segment{}
				}
				panic("planted")
			}}}
			m := &passage{account: &routing.Account{Kind: &connectors.Kind{Name: "fake"}}}
			(&station{p: p}).attempt(m)
			require.Same(t, m, <-p.recorder.in)
			require.Equal(t, c.want, m.outcome.Status)
			require.NotEmpty(t, m.outcome.Reason)
		})
	}
}
