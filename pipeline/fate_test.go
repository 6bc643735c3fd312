package pipeline_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
)

// What the table of effects says is what happens: to the message, its attempts, the account and the address.
func TestTheTableOfEffectsIsWhatHappens(t *testing.T) {
	for _, class := range append([]delivery.Class{99}, delivery.Classes...) {
		t.Run(class.String(), func(t *testing.T) {
			e := delivery.EffectOf(class)
			f := &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
				return delivery.Sent{}, &delivery.Failure{Class: class, Code: "c", Known: true, RetryAfter: 10 * time.Minute}
			}}
			var limiter limits.Limiter
			r := newRig(t, clockwork.NewFakeClock(), f, func(r *rig) {
				r.tune = func(o *pipeline.Options) { limiter = o.Limiter }
			})
			ids := r.accept(1, nil)
			r.await(ids, e.Status)
			m := r.message(ids[0])
			require.Equal(t, e.BurnsAttempt, m.Attempts == 1)
			_, suppressed, err := r.store.Suppressed(context.Background(), tenant, delivery.SMS, m.To)
			require.NoError(t, err)
			require.Equal(t, e.Suppresses, suppressed)
			_, _, resting := r.acct.Resting()
			require.Equal(t, e.PausesRoute, resting, "the account rests")
			bound := limits.Bound{Key: limits.Key{Account: r.acct.ID}, Rate: limits.Rate{PerSecond: 1000, Burst: 1000}}
			d, err := limiter.Reserve(context.Background(), r.clock.Now(), []limits.Bound{bound}, 1)
			require.NoError(t, err)
			require.Equal(t, e.SlowsAccount, !d.Go, "everybody who uses the account waits")
			if e.SlowsAccount {
				require.Equal(t, 10*time.Minute, d.NotBefore.Sub(r.clock.Now()))
			}
		})
	}
}

// setBack is a store that keeps the latest time it was told, whatever the real one does.
type setBack struct {
	pipeline.Store
	mu     sync.Mutex
	latest time.Time
	looks  atomic.Int64
}

func (s *setBack) Overdue(ctx context.Context, sys store.System, now time.Time, node string, limit int) ([]store.Overdue, error) {
	s.looks.Add(1)
	return s.Store.Overdue(ctx, sys, now, node, limit)
}

func (s *setBack) Seen(_ context.Context, _ store.System, now time.Time) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.After(s.latest) {
		s.latest = now
	}
	return s.latest, nil
}

// wall is a clock that can be set without time going by: a fake clock goes on, shifted.
type wall struct {
	*clockwork.FakeClock
	mu    sync.Mutex
	shift time.Duration
}

func (w *wall) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.FakeClock.Now().Add(w.shift)
}

func (w *wall) Since(t time.Time) time.Duration { return w.Now().Sub(t) }
func (w *wall) Until(t time.Time) time.Duration { return t.Sub(w.Now()) }

func (w *wall) set(by time.Duration) {
	w.mu.Lock()
	w.shift += by
	w.mu.Unlock()
}

// The wall clock is set by an hour while attempts are under way: nothing goes twice, no attempt is declared in doubt
// whose time has not really passed, and somebody is told.
func TestAClockThatIsSet(t *testing.T) {
	for name, jump := range map[string]time.Duration{"back": -time.Hour, "forward": time.Hour} {
		t.Run(name, func(t *testing.T) {
			clock := &wall{FakeClock: clockwork.NewFakeClock()}
			began := clock.FakeClock.Now()
			f, open := gated(t)
			seen := &setBack{}
			r := newRig(t, clock, f, func(r *rig) {
				r.acct.Parallel = 4
				r.tune = func(o *pipeline.Options) {
					seen.Store = o.Store
					o.Store = seen
					o.Elapsed = func() time.Duration { return clock.FakeClock.Since(began) }
				}
			})
			ids := r.accept(100, func(_ int, m *store.NewMessage) { m.AtMostOnce, m.ExpiresAt = true, m.DueAt.Add(24*time.Hour) })
			later := r.accept(1, func(_ int, m *store.NewMessage) {
				m.DueAt, m.ExpiresAt = m.DueAt.Add(30*time.Minute), m.DueAt.Add(24*time.Hour)
			})
			require.Eventually(t, func() bool { return len(f.sends()) == 4 && r.count(delivery.StatusSending) == 100 }, patience, tick)
			require.Equal(t, map[string]string{"clock": "ok", "journal": "ok"}, r.pipe.Health())
			clock.set(jump)
			before := seen.looks.Load()
			require.Eventually(t, func() bool { // the sweeper has looked
				clock.Advance(100 * time.Millisecond)
				return seen.looks.Load() >= before+4
			}, patience, tick)
			for range 30 { // half a lease
				clock.Advance(time.Second)
				require.NoError(t, r.store.Check(context.Background())) // something else runs meanwhile
				require.Zero(t, r.count(delivery.StatusAmbiguous)+r.count(delivery.StatusUnknown))
			}
			if jump < 0 {
				require.Eventually(t, func() bool { clock.Advance(time.Second); return r.pipe.Health()["clock"] != "ok" }, patience, tick)
				require.Contains(t, r.pipe.Health()["clock"], "behind")
			}
			open()
			all := len(ids)
			if jump > 0 { // the later one is due
				all++
			}
			require.Eventually(t, func() bool {
				clock.Advance(50 * time.Millisecond)
				return r.count(delivery.StatusSent) >= all
			}, patience, tick)
			require.Zero(t, r.count(delivery.StatusUnknown), "what was under way has its answer")
			if jump > 0 {
				r.await(later, delivery.StatusSent)
				require.Len(t, f.sends(), 101)
			} else {
				require.Equal(t, delivery.StatusScheduled, r.message(later[0]).Status, "it waits until its time comes")
				require.Len(t, f.sends(), 100, "nobody got it twice")
				clock.set(2 * time.Hour)
				require.Eventually(t, func() bool {
					clock.Advance(50 * time.Millisecond)
					return r.message(later[0]).Status == delivery.StatusSent && r.pipe.Health()["clock"] == "ok"
				}, patience, tick)
				require.Len(t, f.sends(), 101)
			}
			r.audited()
		})
	}
}

// An attempt that does not come back is in doubt, and its provider has its time to report on it: the process knows by
// which account it went, though the store does not yet.
func TestADeadAttemptWaitsForItsReceipt(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f, open := gated(t)
	r := newRig(t, clock, f, func(r *rig) { r.kind.Ambiguity = connectors.Correlate })
	ids := r.accept(1, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 1 }, patience, tick)
	require.Eventually(t, func() bool {
		clock.Advance(time.Second)
		return r.message(ids[0]).Status == delivery.StatusAmbiguous
	}, patience, tick)
	m := r.message(ids[0])
	require.Equal(t, r.acct.ID, m.Account)
	require.InDelta(t, 90, m.DueAt.Sub(m.UpdatedAt).Seconds(), 2)
	open()
	quiet(r)
	require.Len(t, f.sends(), 1)
	r.audited()
}

// Doubts that end together are decided together, however many they are.
func TestManyDoubtsEndTogether(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, nil)
	require.NoError(t, r.store.UpdateTenant(context.Background(), sys, store.Tenant{ID: tenant, OnAmbiguous: "fail"}))
	ids := inDoubt(r, 2000, r.acct.ID)
	begin := clock.Now()
	turn(r, clock, func() bool { return r.count(delivery.StatusFailed) == len(ids) })
	require.LessOrEqual(t, clock.Since(begin), 92*time.Second)
	require.Empty(t, r.fake.sends())
	r.audited()
}

// A lease ends by the time that goes by: a wall clock that has been set back does not keep a dead attempt alive.
func TestALeaseEndsThoughTheClockWasSetBack(t *testing.T) {
	clock := &wall{FakeClock: clockwork.NewFakeClock()}
	began := clock.FakeClock.Now()
	f, open := gated(t)
	r := newRig(t, clock, f, func(r *rig) {
		r.acct.Parallel = 1
		r.tune = func(o *pipeline.Options) {
			o.Elapsed = func() time.Duration { return clock.FakeClock.Since(began) }
		}
	})
	ids := r.accept(2, func(_ int, m *store.NewMessage) { m.AtMostOnce = true })
	require.Eventually(t, func() bool { return len(f.sends()) == 1 && r.count(delivery.StatusSending) == 2 }, patience, tick)
	clock.set(-time.Hour)
	passed := time.Duration(0)
	require.Eventually(t, func() bool {
		clock.Advance(time.Second)
		passed += time.Second
		return r.message(ids[0]).Status == delivery.StatusUnknown
	}, patience, tick)
	require.GreaterOrEqual(t, passed, 59*time.Second)
	open()
	require.Eventually(t, func() bool {
		clock.Advance(100 * time.Millisecond)
		return r.message(ids[1]).Status == delivery.StatusSent
	}, patience, tick, "its claim was taken back, and it has gone all the same")
	require.Len(t, f.sends(), 2)
	r.audited()
}
