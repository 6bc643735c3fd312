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

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// second opens an account beside the first, which goes after it by priority.
func (r *rig) second(name string, priority int, f *fake) *routing.Account {
	a := r.copyAccount()
	a.ID, a.Name, a.Priority, a.Connector = r.ids.Account(), name, priority, f
	r.more = append(r.more, a)
	return a
}

// tenantIs changes the tenant, as an operator does.
func (r *rig) tenantIs(t store.Tenant) {
	t.ID = tenant
	require.NoError(r.t, r.store.UpdateTenant(context.Background(), sys, t))
	r.pipe.TenantChanged(tenant)
}

// routes are the Route of every fact about messages that says why an account was chosen.
func (r *rig) routes(ids []delivery.MessageID) map[string]int {
	all := map[string]int{}
	for _, id := range ids {
		facts, err := r.store.Facts(context.Background(), tenant, id)
		require.NoError(r.t, err)
		for _, f := range facts {
			if f.Route != "" {
				all[f.Route]++
			}
		}
	}
	return all
}

func rule(ch delivery.Channel, prefix string, targets ...delivery.RouteTarget) delivery.RouteRule {
	return delivery.RouteRule{Channel: ch, Prefix: prefix, Targets: targets}
}

// switched is a fake that fails while it is told to.
func switched(fails *atomic.Bool, f *delivery.Failure) *fake {
	return &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		if fails.Load() {
			return delivery.Sent{}, f
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
}

// A provider that answers 5xx or not at all is rested; the other account takes over, and gives back once it works.
func TestFailoverAndBack(t *testing.T) {
	for name, f := range map[string]*delivery.Failure{
		"answers of 5xx": {Class: delivery.Transient, Code: "503", Known: true},
		"no answers":     {Class: delivery.InDoubt, Code: "timeout", Known: true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			var fails atomic.Bool
			fails.Store(true)
			main, spare := switched(&fails, f), &fake{}
			r := newRig(t, clock, main, func(r *rig) {
				r.kind.Ambiguity = connectors.DedupeKey
				r.second("spare", 1, spare)
			})
			r.tenantIs(store.Tenant{RerouteInDoubt: true})
			long := func(_ int, m *store.NewMessage) { m.ExpiresAt = m.DueAt.Add(24 * time.Hour) }
			ids := r.accept(500, long)
			turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
			begin := clock.Now()
			tried := len(main.sends())
			require.GreaterOrEqual(t, tried, 20)
			require.LessOrEqual(t, tried, 20+r.acct.Parallel+8, "from then on one message at a time")
			require.Len(t, spare.sends(), len(ids))
			why := r.routes(ids)
			require.Positive(t, why["priority (fake rests)"], "%v", why)

			for range 20 { // while it fails on, probes are few
				ids = append(ids, r.accept(20, long)...)
				turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
				clock.Advance(10 * time.Second)
			}
			require.LessOrEqual(t, len(main.sends()), tried+2+int(clock.Since(begin)/(20*time.Second)))

			fails.Store(false)
			clock.Advance(time.Minute)
			later := r.accept(1, long) // tries
			turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids)+1 })
			before := len(spare.sends())
			more := r.accept(200, long)
			turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids)+201 })
			require.Len(t, spare.sends(), before, "everything goes by the first one again")
			require.Equal(t, map[string]int{"priority": 200}, r.routes(more))
			require.Equal(t, map[string]int{"priority": 1}, r.routes(later))
			r.audited()
		})
	}
}

func TestShareAndReserve(t *testing.T) {
	clock := clockwork.NewFakeClock()
	var fails atomic.Bool
	a := switched(&fails, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true})
	b := switched(&fails, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true})
	c := &fake{}
	r := newRig(t, clock, a, func(r *rig) { r.second("b", 1, b); r.second("c", 0, c) })
	r.tenantIs(store.Tenant{Routes: []delivery.RouteRule{rule(delivery.SMS, "+1",
		delivery.RouteTarget{Connector: "fake", Weight: 3}, delivery.RouteTarget{Connector: "b", Weight: 1},
		delivery.RouteTarget{Connector: "c"})}})
	ids := r.accept(800, nil)
	r.await(ids, delivery.StatusSent)
	require.InDelta(t, 600, len(a.sends()), 60)
	require.Len(t, b.sends(), 800-len(a.sends()))
	require.Empty(t, c.sends(), "a reserve waits")
	require.Equal(t, map[string]int{"rule 1: +1": 800}, r.routes(ids))

	fails.Store(true)
	ids = r.accept(200, nil)
	turn(r, clock, func() bool { return r.count(delivery.StatusSent) == 1000 })
	require.Len(t, c.sends(), 200)
	why := r.routes(ids)
	require.Positive(t, why["rule 1: +1 (fake rests)"], "%v", why)
	require.Positive(t, why["rule 1: +1 (b rests)"], "%v", why)
	r.audited()
}

// What one rule's accounts cannot take holds up nobody whose rule names others.
func TestARuleHoldsUpNobodyElse(t *testing.T) {
	const india = 300
	to := func(i int, m *store.NewMessage) {
		m.ExpiresAt = m.DueAt.Add(24 * time.Hour)
		if i < india {
			m.To = fmt.Sprintf("+9198765%05d", i)
		}
	}
	rules := []delivery.RouteRule{rule(delivery.SMS, "+91", delivery.RouteTarget{Connector: "india", Weight: 1})}
	t.Run("a slow account", func(t *testing.T) {
		clock := clockwork.NewFakeClock()
		slow := &fake{}
		r := newRig(t, clock, &fake{}, func(r *rig) {
			a := r.second("india", 0, slow)
			a.PerSecond, a.Burst = 10, 10
		})
		r.tenantIs(store.Tenant{Routes: rules})
		begin := clock.Now()
		ids := r.accept(2*india, to)
		turn(r, clock, func() bool { return len(r.fake.sends()) == india })
		require.LessOrEqual(t, clock.Since(begin), 2*time.Second, "they waited for a limit that is not theirs")
		turn(r, clock, func() bool { return len(slow.sends()) == india })
		require.LessOrEqual(t, clock.Since(begin), 33*time.Second)
		require.Zero(t, displaced(ids[:india], slow.order(), 16), "each in its turn")
		r.audited()
	})
	t.Run("an account that rests", func(t *testing.T) {
		clock := clockwork.NewFakeClock()
		var fails atomic.Bool
		fails.Store(true)
		out := switched(&fails, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true})
		r := newRig(t, clock, &fake{}, func(r *rig) { r.second("india", 0, out) })
		r.tenantIs(store.Tenant{Routes: rules})
		begin := clock.Now()
		ids := r.accept(2*india, to)
		turn(r, clock, func() bool { return len(r.fake.sends()) == india })
		require.LessOrEqual(t, clock.Since(begin), 2*time.Second)
		turn(r, clock, func() bool { return clock.Since(begin) >= time.Minute })
		require.Equal(t, india, r.count(delivery.StatusHeld)+r.count(delivery.StatusQueued), "never by another account")
		claims := 0
		for _, id := range ids[:india] {
			claims += r.message(id).Epoch
		}
		require.LessOrEqual(t, claims, 5*india, "not each of them looks each time")
		fails.Store(false)
		turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
		require.LessOrEqual(t, clock.Since(begin), 2*time.Minute+5*time.Second, "one finds out for all")
		r.audited()
	})
	t.Run("no account", func(t *testing.T) {
		clock := clockwork.NewFakeClock()
		r := newRig(t, clock, &fake{}, nil)
		r.tenantIs(store.Tenant{Routes: rules})
		ids := r.accept(20+india, func(i int, m *store.NewMessage) { to(i+india-20, m) })
		r.await(ids[20:], delivery.StatusSent)
		r.await(ids[:20], delivery.StatusHeld)
		require.Equal(t, routing.ReasonNoConnector, r.message(ids[0]).Reason)
		require.Equal(t, "rule 1: +91 names no connector for sms that is there", r.message(ids[0]).Detail)
		r.tenantIs(store.Tenant{})
		require.NoError(t, r.pipe.Wake(context.Background(), routing.ReasonNoConnector))
		r.await(ids, delivery.StatusSent)
	})
}

// When a rule is about everything in the queue, nothing of it is claimed to no purpose.
func TestARuleForAllThatRestsBlocksTheQueue(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f := &fake{answer: func(*delivery.Outgoing, int) (delivery.Sent, error) {
		return delivery.Sent{}, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true}
	}}
	r := newRig(t, clock, f, func(r *rig) { r.second("other", 0, &fake{}) })
	r.tenantIs(store.Tenant{Routes: []delivery.RouteRule{rule(0, "", delivery.RouteTarget{Connector: "fake", Weight: 1})}})
	ids := r.accept(1500, nil)
	begin := clock.Now()
	turn(r, clock, func() bool { return clock.Since(begin) >= 20*time.Second })
	require.GreaterOrEqual(t, r.count(delivery.StatusQueued), 1300, "they keep their places")
	s, known := r.pipe.Standing(delivery.Queue{Tenant: tenant, Channel: delivery.SMS, Lane: delivery.Normal})
	require.True(t, known)
	require.Equal(t, "fake", s.Account)
	require.Zero(t, r.routes(ids)["priority"])
}

// lostOnce is a fake whose first answer for each message is lost.
func lostOnce() *fake {
	return &fake{answer: func(m *delivery.Outgoing, n int) (delivery.Sent, error) {
		if n == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "reset", Known: true}
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
}

func TestADoubtStaysWithItsAccount(t *testing.T) {
	doubt := func(t *testing.T, policy store.Tenant) (*rig, *clockwork.FakeClock, *fake, []delivery.MessageID) {
		clock := clockwork.NewFakeClock()
		other := &fake{}
		r := newRig(t, clock, lostOnce(), func(r *rig) {
			r.second("other", 1, other)
			r.tune = func(o *pipeline.Options) { o.Retry = []time.Duration{5 * time.Second} }
		})
		r.tenantIs(policy)
		ids := r.accept(3, func(_ int, m *store.NewMessage) { m.ExpiresAt = m.DueAt.Add(24 * time.Hour) })
		r.await(ids, delivery.StatusAmbiguous)
		return r, clock, other, ids
	}
	t.Run("which rests", func(t *testing.T) {
		r, clock, other, ids := doubt(t, store.Tenant{})
		until := r.acct.Down(clock.Now(), "refused", false)
		for range 4 {
			until = r.acct.Down(clock.Now(), "refused", true)
		}
		turn(r, clock, func() bool { return r.count(delivery.StatusHeld) == len(ids) })
		require.Equal(t, routing.ReasonConnectorDown, r.message(ids[0]).Reason)
		free := r.accept(5, nil)
		r.await(free, delivery.StatusSent)
		require.Len(t, other.sends(), 5, "it says nothing about the rest of the queue")
		turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids)+5 })
		require.Len(t, other.sends(), 5)
		require.False(t, clock.Now().Before(until))
		require.Equal(t, len(ids), r.routes(ids)["in doubt"])
		r.audited()
	})
	t.Run("which rests, and nobody comes to try it", func(t *testing.T) {
		r, clock, _, ids := doubt(t, store.Tenant{})
		until := r.acct.Down(clock.Now(), "refused", false)
		for range 4 {
			until = r.acct.Down(clock.Now(), "refused", true)
		}
		turn(r, clock, func() bool { return r.count(delivery.StatusHeld) == len(ids) })
		// Looked at together, the first of them is to try it. Somebody cancels it, or another node sends it.
		require.NoError(t, r.pipe.Wake(context.Background(), routing.ReasonConnectorDown))
		turn(r, clock, func() bool {
			return r.count(delivery.StatusHeld) == len(ids) && r.message(ids[0]).Epoch == r.message(ids[2]).Epoch &&
				r.message(ids[0]).Epoch > 2
		})
		slices.SortFunc(ids, func(a, b delivery.MessageID) int { return r.message(a).DueAt.Compare(r.message(b).DueAt) })
		require.Greater(t, r.message(ids[1]).DueAt.Sub(r.message(ids[0]).DueAt), 50*time.Second)
		_, _ = r.store.Cancel(context.Background(), tenant, ids[0], clock.Now())
		require.Equal(t, delivery.StatusUnknown, r.message(ids[0]).Status, "it may have been sent")
		turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids)-1 })
		require.Less(t, clock.Now().Sub(until), 20*time.Second, "the account calls for others itself")
		r.audited()
	})
	t.Run("which is gone and comes back", func(t *testing.T) {
		r, clock, other, ids := doubt(t, store.Tenant{})
		r.pipe.SetAccounts(r.more)
		turn(r, clock, func() bool { return r.count(delivery.StatusHeld) == len(ids) })
		m := r.message(ids[0])
		require.Equal(t, routing.ReasonInDoubt, m.Reason)
		require.Equal(t, "the connector that may have sent it is gone; another one could send it twice", m.Detail)
		require.Equal(t, time.Hour, m.DueAt.Sub(m.UpdatedAt).Round(time.Second))
		r.acct = r.copyAccount()
		r.pipe.SetAccounts(append(r.more, r.acct))
		require.NoError(t, r.pipe.Wake(context.Background(), routing.ReasonInDoubt))
		r.await(ids, delivery.StatusSent)
		require.Empty(t, other.sends())
		r.audited()
	})
	t.Run("which is gone until the message ends", func(t *testing.T) {
		r, clock, other, ids := doubt(t, store.Tenant{})
		r.pipe.SetAccounts(r.more)
		turn(r, clock, func() bool { return r.count(delivery.StatusHeld) == len(ids) })
		require.Eventually(t, func() bool {
			clock.Advance(10 * time.Minute)
			return r.count(delivery.StatusExpired)+r.count(delivery.StatusUnknown) == len(ids)
		}, patience, tick)
		require.Empty(t, other.sends())
		require.LessOrEqual(t, r.message(ids[0]).Epoch, 30, "it looks once an hour")
	})
	t.Run("unless the tenant does not mind", func(t *testing.T) {
		r, clock, other, ids := doubt(t, store.Tenant{})
		r.pipe.SetAccounts(r.more)
		turn(r, clock, func() bool { return r.count(delivery.StatusHeld) == len(ids) })
		r.tenantIs(store.Tenant{RerouteInDoubt: true})
		require.NoError(t, r.pipe.Wake(context.Background(), routing.ReasonInDoubt))
		r.await(ids, delivery.StatusSent)
		require.Len(t, other.sends(), len(ids))
		require.True(t, other.sends()[0].PossibleDuplicate)
		r.audited()
	})
}

// A doubt about one leg does not bind the next one, which goes by an account of its own channel.
func TestADoubtAboutAnEarlierLegBindsNobody(t *testing.T) {
	clock := clockwork.NewFakeClock()
	first := &fake{answer: func(_ *delivery.Outgoing, n int) (delivery.Sent, error) {
		if n == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "reset", Known: true}
		}
		return delivery.Sent{}, &delivery.Failure{Class: delivery.Rejected, Code: "no", Known: true}
	}}
	mail := &fake{}
	r := newRig(t, clock, first, func(r *rig) {
		a := r.second("mail", 0, mail)
		a.Channel = delivery.Email
	})
	ids := r.accept(1, func(_ int, m *store.NewMessage) {
		m.ExpiresAt, m.Success = m.DueAt.Add(24*time.Hour), delivery.StatusDelivered
		m.Then = []store.NewLeg{{
			Channel: delivery.Email, To: "a@example.com", Segments: 1, Success: delivery.StatusSent,
			Payload: []byte(`{"content":{"text":"hello"}}`),
		}}
	})
	turn(r, clock, func() bool { return len(mail.sends()) == 1 })
	require.Len(t, first.sends(), 2)
	r.await(ids, delivery.StatusSent)
	require.Equal(t, map[string]int{"priority": 2, "in doubt": 1}, r.routes(ids))
}

func TestRoutesThatCannotBeReadSendNothing(t *testing.T) {
	clock := clockwork.NewFakeClock()
	ruled := &fake{}
	r := newRig(t, clock, &fake{}, func(r *rig) {
		r.fault = &faulty{}
		r.second("ruled", 1, ruled)
	})
	r.fault.reads.Store(true)
	all := rule(0, "", delivery.RouteTarget{Connector: "ruled", Weight: 1})
	r.tenantIs(store.Tenant{Routes: []delivery.RouteRule{all}})
	ids := r.accept(300, nil)
	begin := clock.Now()
	turn(r, clock, func() bool { return clock.Since(begin) >= 5*time.Second })
	require.LessOrEqual(t, r.fault.claims.Load(), int64(2+2*6), "it tries once a second")
	r.fault.reads.Store(false)
	turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
	require.Empty(t, r.fake.sends(), "nothing went by a route that nobody knew")
	require.Len(t, ruled.sends(), len(ids))
}

func TestExplainRoute(t *testing.T) {
	r := newRig(t, clockwork.NewFakeClock(), &fake{}, func(r *rig) { r.second("india", 0, &fake{}) })
	r.tenantIs(store.Tenant{Routes: []delivery.RouteRule{
		rule(delivery.SMS, "+91", delivery.RouteTarget{Connector: "india", Weight: 1},
			delivery.RouteTarget{Connector: "gone"}),
	}})
	ask := func(to string) routing.Explanation {
		e, err := r.pipe.ExplainRoute(context.Background(), tenant, routing.Query{Channel: delivery.SMS, To: to})
		require.NoError(t, err)
		return e
	}
	e := ask("+919876543210")
	require.Equal(t, "rule 1: +91", e.Rule)
	require.Equal(t, "india", e.Account.Name)
	require.Equal(t, "missing", e.Candidates[1].State)
	require.Equal(t, "fake", ask("+12025550100").Account.Name)
	require.Equal(t, "priority", ask("+12025550100").Rule)

	_, err := r.pipe.ExplainRoute(context.Background(), "nobody", routing.Query{Channel: delivery.SMS})
	require.ErrorIs(t, err, store.ErrNotFound)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = r.pipe.ExplainRoute(ctx, tenant, routing.Query{Channel: delivery.SMS})
	require.ErrorIs(t, err, context.Canceled)
}

// holdingUp stops the first outcome that holds a message for its account, until it is let go.
type holdingUp struct {
	pipeline.Store
	once  sync.Once
	there chan struct{}
	let   chan struct{}
}

func (h *holdingUp) Settle(
	ctx context.Context, sys store.System, now time.Time, list []store.Outcome,
) ([]store.Settled, error) {
	if slices.ContainsFunc(list, func(o store.Outcome) bool { return o.Reason == routing.ReasonConnectorDown }) {
		h.once.Do(func() {
			close(h.there)
			<-h.let
		})
	}
	return h.Store.Settle(ctx, sys, now, list)
}

// A message is decided to wait for its account, the account comes back, and only then the decision is written: the wake
// of the account's return has come too early for it.
func TestAnAccountComesBackWhileAMessageIsOnItsWayToWait(t *testing.T) {
	clock := clockwork.NewFakeClock()
	h := &holdingUp{there: make(chan struct{}), let: make(chan struct{})}
	r := newRig(t, clock, &fake{}, func(r *rig) {
		r.tune = func(o *pipeline.Options) { h.Store, o.Store = o.Store, h }
	})
	for range 6 {
		r.acct.Down(clock.Now(), "refused", true)
	}
	ids := r.accept(3, func(_ int, m *store.NewMessage) { m.Account = r.acct.ID })
	select {
	case <-h.there:
	case <-time.After(patience):
		t.Fatal("nothing was held")
	}
	clock.Advance(16 * time.Second)                                                               // its rest is over,
	ids = append(ids, r.accept(1, func(_ int, m *store.NewMessage) { m.Account = r.acct.ID })...) // and this one tries
	require.Eventually(t, func() bool { return works(r.acct) }, patience, tick)
	began := clock.Now()
	close(h.let)
	r.await(ids, delivery.StatusSent)
	require.Less(t, clock.Since(began), time.Second)
	r.audited()
}

func works(a *routing.Account) bool {
	_, _, rests := a.Resting()
	return !rests
}

// Between a claim and the choice of an account something changes that may have been what stood in the way, and the
// choice still goes by what was before: the queue is not blocked for what has been unblocked.
func TestAChangeBetweenClaimAndChoiceBlocksNothing(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"another tenant's rules": func(r *rig) { r.pipe.TenantChanged("somebody") },
		"its tenant's rules":     func(r *rig) { r.pipe.TenantChanged(tenant) },
		"accounts":               func(r *rig) { r.pipe.SetAccounts([]*routing.Account{r.acct}) },
	} {
		t.Run(name, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			f := &faulty{}
			r := newRig(t, clock, &fake{}, func(r *rig) {
				r.fault, r.acct.Paused = f, true
			})
			var once sync.Once
			f.claimed = func() { once.Do(func() { change(r) }) }
			ids := r.accept(1, nil) // the first says for all that there is no account; the others stay queued behind it
			r.await(ids, delivery.StatusHeld)
			again := r.copyAccount()
			r.pipe.SetAccounts([]*routing.Account{again})
			require.NoError(t, r.pipe.Wake(t.Context(), routing.ReasonConnectorPaused))
			r.await(ids, delivery.StatusSent)
			r.audited()
		})
	}
}
