package pipeline_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
)

// times is a connector that notes when each tenant's messages come.
type times struct {
	clock clockwork.Clock
	mu    sync.Mutex
	at    map[delivery.TenantID][]time.Time
}

func (c *times) answer(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[m.Tenant] = append(c.at[m.Tenant], c.clock.Now())
	return delivery.Sent{ProviderID: "p"}, nil
}

// of returns when a tenant's messages came.
func (c *times) of(t delivery.TenantID) []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.at[t])
}

// most is the largest number of times within any window.
func most(at []time.Time, window time.Duration) int {
	best := 0
	for i := range at {
		n := 0
		for _, t := range at[i:] {
			if d := t.Sub(at[i]); d >= 0 && d < window {
				n++
			}
		}
		best = max(best, n)
	}
	return best
}

func TestTwoTenantsOnOneConnectorKeepTheirLimits(t *testing.T) {
	clock := clockwork.NewFakeClock()
	seen := &times{clock: clock, at: map[delivery.TenantID][]time.Time{}}
	r := newRig(t, clock, &fake{answer: seen.answer}, func(r *rig) { r.acct.Tenant = delivery.Shared })
	ctx := context.Background()
	rates := map[delivery.TenantID]float64{"slow": 50, "fast": 200}
	for id, perSecond := range rates {
		require.NoError(t, r.store.CreateTenant(ctx, sys, store.Tenant{
			ID: id, CreatedAt: clock.Now(), Rates: []store.TenantRate{{PerSecond: perSecond, Burst: 5}},
		}))
		now := clock.Now()
		a := store.Acceptance{Now: now}
		for i := range int(perSecond) * 6 {
			a.Messages = append(a.Messages, store.NewMessage{
				ID: r.ids.Message(), Channel: delivery.SMS, Lane: delivery.Bulk, To: fmt.Sprintf("+1202%07d", i+6000000),
				Segments: 1, Payload: []byte(`{"content":{"text":"x"}}`), DueAt: now, ExpiresAt: now.Add(time.Hour),
			})
		}
		_, err := r.pipe.Accept(ctx, id, a)
		require.NoError(t, err)
	}
	begin := clock.Now()
	total := 6 * 250
	require.Eventually(t, func() bool {
		if len(seen.of("slow"))+len(seen.of("fast")) == total {
			return true
		}
		clock.Advance(2 * time.Millisecond)
		return false
	}, time.Minute, 200*time.Microsecond)
	for id, perSecond := range rates {
		at := seen.of(id)
		// The connector reads the clock a turn or two after the permit was given: 10 ms cover that.
		require.LessOrEqual(t, most(at, 990*time.Millisecond), int(perSecond)+5, "%s in one second", id)
		took := at[len(at)-1].Sub(begin)
		require.Less(t, took, 9*time.Second, "%s is not held back further than its limit asks", id)
	}
}

// Workers that stand still between their permits and the provider do not go together when they can: what the provider
// sees keeps to the rate too.
func TestAPermitIsNotKept(t *testing.T) {
	const perSecond, burst, workers, all = 20, 2, 16, 60
	clock := clockwork.NewFakeClock()
	seen := &times{clock: clock, at: map[delivery.TenantID][]time.Time{}}
	r := newRig(t, clock, &fake{answer: seen.answer}, func(r *rig) {
		r.acct.PerSecond, r.acct.Burst, r.acct.Parallel = perSecond, burst, workers
		began := clock.Now()
		r.tune = func(o *pipeline.Options) { o.Elapsed = func() time.Duration { return clock.Since(began) } }
	})
	release := sync.OnceFunc(r.pipe.HoldJournal())
	defer release()
	ids := r.accept(all, nil)
	require.Eventually(t, func() bool {
		clock.Advance(2 * time.Millisecond)
		return r.pipe.Permitted(r.acct) == workers
	}, patience, tick, "every worker has a permit")
	release()
	require.Eventually(t, func() bool {
		clock.Advance(2 * time.Millisecond)
		return len(seen.of(tenant)) == all
	}, patience, 200*time.Microsecond)
	// The connector reads the clock a turn or two after the last look.
	require.LessOrEqual(t, most(seen.of(tenant), 980*time.Millisecond), perSecond+burst)
	r.await(ids, delivery.StatusSent)
	r.audited()
}

// session is a connector whose messages wait while it is not up.
type session struct {
	*fake
	up   atomic.Bool
	gate chan struct{} // closed when it is up
}

func (s *session) Ready() bool { return s.up.Load() }

func (s *session) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	<-s.gate
	return s.fake.Send(ctx, m)
}

// What a connector without a session would make wait waits for its permit too: it does not come all at once afterwards.
func TestNobodyWaitsForASessionWithAPermit(t *testing.T) {
	const perSecond, burst, all = 20, 2, 60
	clock := clockwork.NewFakeClock()
	seen := &times{clock: clock, at: map[delivery.TenantID][]time.Time{}}
	conn := &session{fake: &fake{answer: seen.answer}, gate: make(chan struct{})}
	open := sync.OnceFunc(func() { conn.up.Store(true); close(conn.gate) })
	r := newRig(t, clock, conn.fake, func(r *rig) {
		r.acct.PerSecond, r.acct.Burst, r.acct.Parallel, r.acct.Connector = perSecond, burst, 16, conn
	})
	defer open()
	ids := r.accept(all, nil)
	for range 1000 {
		clock.Advance(2 * time.Millisecond)
		time.Sleep(50 * time.Microsecond)
		require.LessOrEqual(t, r.pipe.Permitted(r.acct), 2, "one waits, and the next worker for its turn")
	}
	open()
	require.Eventually(t, func() bool {
		clock.Advance(2 * time.Millisecond)
		return len(seen.of(tenant)) == all
	}, patience, 200*time.Microsecond)
	require.LessOrEqual(t, most(seen.of(tenant), 980*time.Millisecond), perSecond+burst)
	r.await(ids, delivery.StatusSent)
	r.audited()
}

func TestHeldByARateSaysSo(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, func(r *rig) { r.acct.PerSecond, r.acct.Burst = 1, 1 })
	ids := r.accept(50, nil)
	require.Eventually(t, func() bool {
		quiet, err := r.pipe.Quiet(context.Background())
		return err == nil && quiet && len(r.fake.sends()) == 1
	}, patience, tick)
	m, err := r.store.Message(context.Background(), tenant, ids[49])
	require.NoError(t, err)
	require.Equal(t, delivery.StatusQueued, m.Status, "it keeps its place")
	s, known := r.pipe.Standing(delivery.Queue{Tenant: tenant, Channel: delivery.SMS, Lane: delivery.Normal})
	require.True(t, known)
	require.Equal(t, "rate_limited", s.Reason)
	require.InDelta(t, 1, s.PerSecond, 0)
	require.True(t, s.Until.After(clock.Now()))
}

func TestACostlyMessageCountsItsSegments(t *testing.T) {
	clock := clockwork.NewFakeClock()
	seen := &times{clock: clock, at: map[delivery.TenantID][]time.Time{}}
	r := newRig(t, clock, &fake{answer: seen.answer}, func(r *rig) { r.acct.PerSecond, r.acct.Burst = 10, 1 })
	r.accept(10, func(_ int, m *store.NewMessage) { m.Segments = 5 })
	turn(r, clock, func() bool { return len(seen.of(tenant)) >= 3 })
	at := seen.of(tenant)
	require.GreaterOrEqual(t, at[2].Sub(at[0]), 900*time.Millisecond, "three messages of five segments at ten per second")
}
