package pipeline_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

func TestEverythingAcceptedIsSentOnce(t *testing.T) {
	r := newRig(t, clockwork.NewRealClock(), &fake{}, nil)
	ids := append(r.accept(1, nil), r.accept(3000, nil)...)
	r.await(ids, delivery.StatusSent)
	require.Len(t, r.fake.sends(), len(ids))
	r.audited()
}

func TestFailureClasses(t *testing.T) {
	for _, c := range []struct {
		class delivery.Class
		want  delivery.Status
	}{
		{delivery.Transient, delivery.StatusDeferred},
		{delivery.Throttled, delivery.StatusDeferred},
		{delivery.ConnectorDown, delivery.StatusHeld},
		{delivery.Rejected, delivery.StatusFailed},
		{delivery.BadRecipient, delivery.StatusFailed},
		{delivery.Consent, delivery.StatusSuppressed},
	} {
		t.Run(c.class.String(), func(t *testing.T) {
			f := &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
				return delivery.Sent{}, &delivery.Failure{Class: c.class, Code: "code7", Detail: "why", Known: true, RetryAfter: time.Minute}
			}}
			r := newRig(t, clockwork.NewFakeClock(), f, nil)
			ids := r.accept(1, nil)
			r.await(ids, c.want)
			m, err := r.store.Message(context.Background(), tenant, ids[0])
			require.NoError(t, err)
			require.NotEmpty(t, m.Reason)
			e := delivery.EffectOf(c.class)
			require.Equal(t, e.BurnsAttempt, m.Attempts == 1, "attempts %d", m.Attempts)
			_, suppressed, err := r.store.Suppressed(context.Background(), tenant, delivery.SMS, m.To)
			require.NoError(t, err)
			require.Equal(t, e.Suppresses, suppressed)
			if m.Status.Waiting() {
				require.True(t, m.DueAt.After(r.clock.Now()), "it waits for a time")
			}
			r.audited()
		})
	}
}

func TestUnknownCodeGetsFewAttempts(t *testing.T) {
	f := &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
		return delivery.Sent{}, &delivery.Failure{Class: delivery.Transient, Code: "??"}
	}}
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, f, nil)
	ids := r.accept(1, func(_ int, m *store.NewMessage) { m.ExpiresAt = m.DueAt.Add(48 * time.Hour) })
	turn(r, clock, func() bool {
		m, err := r.store.Message(context.Background(), tenant, ids[0])
		require.NoError(t, err)
		return m.Status == delivery.StatusFailed
	})
	require.Len(t, f.sends(), 3)
}

// turn advances the clock until done.
func turn(r *rig, clock *clockwork.FakeClock, done func() bool) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		if done() {
			return true
		}
		if quiet, err := r.pipe.Quiet(context.Background()); err == nil && quiet {
			clock.Advance(500 * time.Millisecond)
		}
		return false
	}, time.Minute, time.Millisecond)
}

func TestTransientIsRetriedUntilItWorks(t *testing.T) {
	f := &fake{answer: func(m *delivery.Outgoing, n int) (delivery.Sent, error) {
		if n < 3 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.Transient, Code: "451", Known: true}
		}
		return delivery.Sent{ProviderID: "p"}, nil
	}}
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, f, nil)
	ids := r.accept(1, nil)
	turn(r, clock, func() bool { return len(f.sends()) == 3 })
	r.await(ids, delivery.StatusSent)
	attempts := []int{}
	for _, m := range f.sends() {
		attempts = append(attempts, m.Attempt)
	}
	require.Equal(t, []int{1, 2, 3}, attempts)
}

func TestDoubtIsSettledByPolicy(t *testing.T) {
	lost := func(_ *delivery.Outgoing, n int) (delivery.Sent, error) {
		if n == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "reset", Known: true}
		}
		return delivery.Sent{ProviderID: "p"}, nil
	}
	for policy, want := range map[string]delivery.Status{
		"": delivery.StatusSent, "retry": delivery.StatusSent, "hold": delivery.StatusHeld, "fail": delivery.StatusFailed,
	} {
		t.Run("policy "+policy, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			r := newRig(t, clock, &fake{answer: lost}, func(r *rig) {
				r.tune = func(o *pipeline.Options) { o.Jitter = new(0.0) }
			})
			require.NoError(t, r.store.UpdateTenant(context.Background(), sys, store.Tenant{ID: tenant, OnAmbiguous: policy}))
			r.pipe.TenantChanged(tenant)
			ids := r.accept(1, nil)
			if want == delivery.StatusSent {
				r.await(ids, delivery.StatusAmbiguous)
			}
			begin := clock.Now()
			turn(r, clock, func() bool {
				m, err := r.store.Message(context.Background(), tenant, ids[0])
				require.NoError(t, err)
				return m.Status == want
			})
			if want == delivery.StatusSent {
				require.GreaterOrEqual(t, clock.Now().Sub(begin), 5*time.Second, "not at once: it may have arrived")
			}
			m, err := r.store.Message(context.Background(), tenant, ids[0])
			require.NoError(t, err)
			sends := r.fake.sends()
			if want == delivery.StatusSent {
				require.Len(t, sends, 2)
				require.True(t, m.PossibleDuplicate)
				require.True(t, sends[1].PossibleDuplicate, "the connector is told")
			} else {
				require.Len(t, sends, 1)
			}
			r.audited()
		})
	}
	t.Run("at most once", func(t *testing.T) {
		r := newRig(t, clockwork.NewRealClock(), &fake{answer: lost}, nil)
		ids := r.accept(1, func(_ int, m *store.NewMessage) { m.AtMostOnce = true })
		r.await(ids, delivery.StatusUnknown)
		require.Len(t, r.fake.sends(), 1)
	})
}

func TestAProviderThatNeverAnswersIsGivenUp(t *testing.T) {
	f := &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
		return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "reset", Known: true}
	}}
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, f, func(r *rig) {
		r.tune = func(o *pipeline.Options) { o.Jitter = new(0.0) }
	})
	ids := r.accept(1, func(_ int, m *store.NewMessage) { m.ExpiresAt = m.DueAt.Add(7 * 24 * time.Hour) })
	begin := clock.Now()
	require.Eventually(t, func() bool {
		m, err := r.store.Message(context.Background(), tenant, ids[0])
		require.NoError(t, err)
		if m.Status == delivery.StatusUnknown {
			require.Equal(t, "attempts_in_doubt", m.Reason)
			return true
		}
		if quiet, err := r.pipe.Quiet(context.Background()); err == nil && quiet {
			clock.Advance(time.Minute)
		}
		return false
	}, patience, time.Millisecond)
	require.Len(t, f.sends(), 5)
	require.Greater(t, clock.Now().Sub(begin), 30*time.Minute)
	r.audited()
}

func TestPanicEndsOneAttemptOnly(t *testing.T) {
	var first atomic.Bool
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		if first.CompareAndSwap(false, true) {
			panic("planted")
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) {
		r.tune = func(o *pipeline.Options) { o.Retry = []time.Duration{10 * time.Millisecond} }
	})
	r.await(r.accept(20, nil), delivery.StatusSent)
}

func TestDrainGivesBackWhatHasNotStarted(t *testing.T) {
	release := make(chan struct{})
	started := make(chan struct{}, 100)
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		started <- struct{}{}
		<-release
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, nil)
	ids := r.accept(100, nil)
	for range r.acct.Parallel {
		<-started
	}
	go func() { // attempts under way may end while the drain waits for them
		require.Eventually(t, func() bool {
			_, err := r.pipe.Accept(context.Background(), tenant, store.Acceptance{Now: r.clock.Now()})
			return err != nil
		}, time.Minute, time.Millisecond)
		close(release)
	}()
	r.shutdown()
	counts := map[delivery.Status]int{}
	for _, id := range ids {
		m, err := r.store.Message(context.Background(), tenant, id)
		require.NoError(t, err)
		counts[m.Status]++
	}
	require.Equal(t, counts[delivery.StatusSent], len(f.sends()), "every attempt has its outcome")
	require.Equal(t, 100, counts[delivery.StatusSent]+counts[delivery.StatusQueued], "%v", counts)
	r.audited()
	f.answer = nil
	r.acct = r.copyAccount()
	r.start()
	r.await(ids, delivery.StatusSent)
	require.Len(t, f.sends(), 100, "nobody got it twice")
}

// copyAccount makes a fresh account of the same row, as a restarted engine does.
func (r *rig) copyAccount() *routing.Account {
	a := routing.Account{
		ID: r.acct.ID, Tenant: r.acct.Tenant, Name: r.acct.Name, Channel: r.acct.Channel, Kind: r.acct.Kind,
		Connector: r.acct.Connector, Timeout: r.acct.Timeout, Parallel: r.acct.Parallel,
	}
	return &a
}
