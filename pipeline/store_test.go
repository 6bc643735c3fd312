package pipeline_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
)

// faulty is a store that does not work while told so.
type faulty struct {
	pipeline.Store
	writes, reads atomic.Bool // fail
	claims        atomic.Int64
	// lostClaims makes that many claims take effect without the caller hearing of it.
	lostClaims atomic.Int64
	settles    []int // outcomes in each call; guarded by mu
	mu         sync.Mutex
	claimed    func() // is called after each claim that took something; nil = nothing is. Set before there is work.
}

func (f *faulty) Claim(ctx context.Context, sys store.System, c store.Claim) ([]store.Claimed, error) {
	f.claims.Add(1)
	if f.writes.Load() {
		return nil, store.ErrUnavailable
	}
	got, err := f.Store.Claim(ctx, sys, c)
	if err == nil && f.lostClaims.Add(-1) >= 0 {
		return nil, store.ErrOutcomeUnknown
	}
	if f.claimed != nil && len(got) > 0 {
		f.claimed()
	}
	return got, err
}

func (f *faulty) Settle(ctx context.Context, sys store.System, now time.Time, o []store.Outcome) ([]store.Settled, error) {
	if f.writes.Load() {
		return nil, store.ErrUnavailable
	}
	f.mu.Lock()
	f.settles = append(f.settles, len(o))
	f.mu.Unlock()
	return f.Store.Settle(ctx, sys, now, o)
}

// sizes is how many outcomes each call of Settle had.
func (f *faulty) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settles)
}

func (f *faulty) Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error) {
	if f.reads.Load() {
		return store.Tenant{}, store.ErrUnavailable
	}
	return f.Store.Tenant(ctx, sys, id)
}

// dropping is a publisher that loses what lose says.
type dropping struct {
	message.Publisher
	lose func(topic string) bool
}

func (d dropping) Publish(topic string, m ...*message.Message) error {
	if d.lose(topic) {
		return nil
	}
	return d.Publisher.Publish(topic, m...)
}

func TestAStoreThatIsAwayForAWhileCostsNothingButTime(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, func(r *rig) { r.fault = &faulty{}; r.acct.PerSecond, r.acct.Burst = 100, 1 })
	ids := r.accept(300, nil)
	turn(r, clock, func() bool { return len(r.fake.sends()) > 20 })
	r.fault.writes.Store(true)
	r.fault.claims.Store(0)
	for range 40 { // ten seconds
		clock.Advance(250 * time.Millisecond)
		require.NoError(t, r.store.Check(context.Background())) // something else runs meanwhile
	}
	require.Less(t, r.fault.claims.Load(), int64(100), "it asks in a busy loop")
	r.fault.writes.Store(false)
	require.Eventually(t, func() bool {
		clock.Advance(100 * time.Millisecond)
		return r.count(delivery.StatusSent) == len(ids)
	}, patience, time.Millisecond)
	require.Len(t, r.fake.sends(), len(ids), "nobody got it twice")
	r.audited()
}

func TestShutdownWhileTheStoreIsAway(t *testing.T) {
	f := &fake{}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.fault = &faulty{}; r.acct.Parallel = 16 })
	ids := r.accept(1, nil)
	r.await(ids, delivery.StatusSent)
	gate := make(chan struct{})
	f.answer = func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		<-gate
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}
	ids = r.accept(3000, nil) // more than the recorder can hold
	require.Eventually(t, func() bool { return len(f.sends()) == 17 && r.count(delivery.StatusSending) > 1500 }, patience, tick)
	r.fault.writes.Store(true)
	close(gate)
	require.Eventually(t, func() bool { return len(f.sends()) > 1000 }, patience, tick)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, drop(r.pipe.Shutdown(ctx)), "a shutdown ends")
	r.stop()
	sent := len(f.sends())

	// What was heard is in the journal: the next process knows it, and sends only the others.
	r.once.Do(func() { require.NoError(t, r.broker.Close()) })
	r.fault.writes.Store(false)
	f.answer = nil
	r.acct = r.copyAccount()
	r.start()
	r.await(ids, delivery.StatusSent)
	require.Len(t, f.sends(), len(ids)+1, "%d were sent before", sent)
	r.audited()
}

// gated is a connector that takes everything, but only once it is opened.
func gated(t *testing.T) (f *fake, open func()) {
	gate := make(chan struct{})
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	return &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		<-gate
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}, open
}

// drop forgets that attempts were cut: it is not what is looked at.
func drop(error) error { return nil }

func TestAClaimNobodyHeardOfIsTakenBack(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, func(r *rig) { r.fault = &faulty{}; r.fault.lostClaims.Store(1) })
	ids := r.accept(20, func(_ int, m *store.NewMessage) { m.AtMostOnce = true })
	require.Eventually(t, func() bool { return r.count(delivery.StatusSending) == 20 }, patience, tick)
	turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
	require.LessOrEqual(t, clock.Since(r.message(ids[0]).AcceptedAt), 62*time.Second, "a lease and a look")
	require.Len(t, r.fake.sends(), len(ids))
	require.False(t, r.message(ids[0]).PossibleDuplicate)
}

func TestAllHintsLost(t *testing.T) {
	for name, lose := range map[string]func() func(string) bool{
		"to plan": func() func(string) bool { return func(topic string) bool { return topic == "msgctl.plan" } },
		"half of those to route": func() func(string) bool {
			var n atomic.Int64
			return func(topic string) bool { return topic == "msgctl.route" && n.Add(1)%2 == 0 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			r := newRig(t, clock, &fake{}, func(r *rig) {
				r.tune = func(o *pipeline.Options) { o.Publish, o.InFlight = dropping{o.Publish, lose()}, 1000 }
			})
			n := 5000
			if testing.Short() { // as under the race detector
				n = 1000
			}
			ids := r.accept(n, nil)
			require.Eventually(t, func() bool {
				clock.Advance(200 * time.Millisecond)
				return r.count(delivery.StatusSent) == len(ids)
			}, patience, time.Millisecond)
			require.Len(t, r.fake.sends(), len(ids))
		})
	}
}

func TestALimitThatCannotBeReadLetsNothingThrough(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, func(r *rig) { r.fault = &faulty{}; r.fault.reads.Store(true) })
	ids := r.accept(3, nil)
	require.Eventually(t, func() bool {
		quiet, err := r.pipe.Quiet(context.Background())
		return err == nil && quiet && len(r.fake.sends()) == 0
	}, patience, tick)
	r.fault.reads.Store(false)
	turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
}

// A hundred thousand messages of which nobody hears: the store is read in order, a list at a time.
func TestABacklogGoesOldestFirst(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 6_000
	}
	r := newRig(t, clockwork.NewRealClock(), &fake{}, func(r *rig) { r.acct.Parallel = 1 })
	r.shutdown()
	var ids []delivery.MessageID
	for len(ids) < n {
		ids = append(ids, r.acceptBy(r.store, 1000, nil)...)
	}
	r.acct = r.copyAccount()
	r.start()
	require.Eventually(t, func() bool { return len(r.fake.order()) == n }, 3*time.Minute, 50*time.Millisecond)
	require.Equal(t, ids, r.fake.order())
	require.Eventually(t, func() bool { return r.count(delivery.StatusSent) == n }, patience, tick)
}

func TestAMessageThatWaitsForAWorkerIsNoDoubt(t *testing.T) {
	for name, step := range map[string]time.Duration{"bit by bit": time.Second, "at one jump": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			clock := clockwork.NewFakeClock()
			f, open := gated(t)
			r := newRig(t, clock, f, func(r *rig) { r.acct.Parallel = 1 })
			ids := r.accept(400, func(_ int, m *store.NewMessage) { m.AtMostOnce, m.ExpiresAt = true, m.DueAt.Add(24*time.Hour) })
			require.Eventually(t, func() bool { return len(f.sends()) == 1 && r.count(delivery.StatusSending) == 400 }, patience, tick)
			first := f.sends()[0].ID
			for passed := time.Duration(0); passed < 10*time.Minute; passed += step {
				clock.Advance(step)
			}
			require.Eventually(t, func() bool { return r.message(first).Status == delivery.StatusUnknown }, patience, tick,
				"the one that was under way is in doubt")
			open()
			turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids)-1 })
			require.Len(t, f.sends(), len(ids), "and only that one")
			require.Equal(t, 1, r.count(delivery.StatusUnknown))
			facts, err := r.store.Facts(context.Background(), tenant, first)
			require.NoError(t, err)
			require.Equal(t, delivery.FactLate, facts[len(facts)-1].Kind, "its late answer is kept")
			r.audited()
		})
	}
}

// An account that may take longer for an attempt than a lease lasts gets longer leases: no doubt while its time runs.
func TestASlowAccountKeepsItsLease(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f, open := gated(t)
	r := newRig(t, clock, f, func(r *rig) { r.acct.Timeout = 2 * time.Minute })
	ids := r.accept(3, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 3 }, patience, tick)
	for range 110 {
		clock.Advance(time.Second)
		overdue, err := r.store.Overdue(context.Background(), sys, clock.Now(), "", 1)
		require.NoError(t, err)
		require.Empty(t, overdue, "its lease ran out while its time was running")
	}
	open()
	r.await(ids, delivery.StatusSent)
	require.False(t, r.message(ids[0]).PossibleDuplicate)
}
