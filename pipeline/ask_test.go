package pipeline_test

import (
	"context"
	"errors"
	"sync"
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

// askable is a connector whose first attempt for each message has no answer, and whose provider can be asked about it.
type askable struct {
	fake
	says func(ctx context.Context, d connectors.Doubt, nth int) (delivery.Sent, error)

	asked sync.Map // delivery.MessageID → int
}

func newAskable(says func(ctx context.Context, d connectors.Doubt, nth int) (delivery.Sent, error)) *askable {
	a := &askable{says: says}
	a.answer = func(m *delivery.Outgoing, nth int) (delivery.Sent, error) {
		if nth == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Known: true}
		}
		return delivery.Sent{ProviderID: "second"}, nil
	}
	return a
}

func (a *askable) Query(ctx context.Context, d connectors.Doubt) (delivery.Sent, error) {
	a.mu.Lock()
	n, _ := a.asked.Load(d.Message)
	nth, _ := n.(int)
	nth++
	a.asked.Store(d.Message, nth)
	a.mu.Unlock()
	return a.says(ctx, d, nth)
}

func (a *askable) questions(id delivery.MessageID) int {
	n, _ := a.asked.Load(id)
	nth, _ := n.(int)
	return nth
}

var errBusy = errors.New("ask again later")

// askRig is a rig whose account can be asked, for a tenant with a policy.
func askRig(t *testing.T, a *askable, policy string, change func(*rig)) (*rig, *clockwork.FakeClock) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &a.fake, func(r *rig) {
		r.kind.Ambiguity = connectors.Query
		r.acct.Connector = a
		r.tune = func(o *pipeline.Options) { o.Jitter = new(0.0) }
		if change != nil {
			change(r)
		}
	})
	require.NoError(t, r.store.UpdateTenant(context.Background(), sys, store.Tenant{ID: tenant, OnAmbiguous: policy}))
	r.pipe.TenantChanged(tenant)
	return r, clock
}

func TestAProviderIsAskedAboutADoubt(t *testing.T) {
	took, never, busy := []error{nil}, []error{connectors.ErrNotTaken}, []error{errBusy}
	third, panics := []error{errBusy, errBusy, nil}, []error{context.Canceled}
	const soon, late = 3 * time.Second, 92 * time.Second
	for name, c := range map[string]struct {
		policy    string
		once      bool
		says      []error // the nth answer; nil = it has the message; the last repeats
		want      delivery.Status
		within    time.Duration // of the doubt's beginning
		sends     int
		asked     int
		duplicate bool
	}{
		"it has it":                 {says: took, want: delivery.StatusSent, within: soon, sends: 1, asked: 1},
		"it has it, at most once":   {once: true, says: took, want: delivery.StatusSent, within: soon, sends: 1, asked: 1},
		"it never took it":          {says: never, want: delivery.StatusSent, within: soon, sends: 2, asked: 1},
		"never took it, fail":       {policy: "fail", says: never, want: delivery.StatusSent, within: soon, sends: 2, asked: 1},
		"never took it, once":       {once: true, says: never, want: delivery.StatusSent, within: soon, sends: 2, asked: 1},
		"it knows the third time":   {says: third, want: delivery.StatusSent, within: 15 * time.Second, sends: 1, asked: 3},
		"it never knows":            {says: busy, want: delivery.StatusSent, within: late, sends: 2, asked: 6, duplicate: true},
		"it never knows, hold":      {policy: "hold", says: busy, want: delivery.StatusHeld, within: late, sends: 1, asked: 6, duplicate: true},
		"it never knows, fail":      {policy: "fail", says: busy, want: delivery.StatusFailed, within: late, sends: 1, asked: 6},
		"it never knows, once":      {once: true, says: busy, want: delivery.StatusUnknown, within: late, sends: 1, asked: 6},
		"it breaks down, then fail": {policy: "fail", says: panics, want: delivery.StatusFailed, within: late, sends: 1, asked: 6},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAskable(func(_ context.Context, d connectors.Doubt, nth int) (delivery.Sent, error) {
				err := c.says[min(nth, len(c.says))-1]
				if errors.Is(err, context.Canceled) {
					panic("planted")
				}
				require.Equal(t, tenant, d.Tenant)
				require.False(t, d.Since.IsZero())
				return delivery.Sent{ProviderID: "found"}, err
			})
			r, clock := askRig(t, a, c.policy, nil)
			ids := r.accept(1, func(_ int, m *store.NewMessage) { m.AtMostOnce = c.once })
			r.await(ids, delivery.StatusAmbiguous)
			begin := clock.Now()
			turn(r, clock, func() bool { return r.message(ids[0]).Status == c.want })
			require.LessOrEqual(t, clock.Since(begin), c.within)
			if c.asked == 6 {
				require.GreaterOrEqual(t, clock.Since(begin), 90*time.Second, "its window is not cut short")
			}
			require.Len(t, a.sends(), c.sends)
			require.Equal(t, c.asked, a.questions(ids[0]))
			m := r.message(ids[0])
			require.Equal(t, c.duplicate, m.PossibleDuplicate)
			if c.want == delivery.StatusSent && c.sends == 1 {
				require.Equal(t, "found", m.ProviderID)
			}
			if c.sends == 2 {
				require.Equal(t, c.duplicate, a.sends()[1].PossibleDuplicate)
			}
			quiet(r) // nothing is left to ask about
			r.audited()
		})
	}
}

// A provider that takes for ever to say anything holds up neither the sweeper nor the doubts of other accounts, and is
// asked few questions at a time.
func TestASlowProviderHoldsUpNobodyElse(t *testing.T) {
	gate, quick := make(chan struct{}), newAskable(func(context.Context, connectors.Doubt, int) (delivery.Sent, error) {
		return delivery.Sent{ProviderID: "quick"}, nil
	})
	var once sync.Once
	open := func() { once.Do(func() { close(gate) }) }
	var mu sync.Mutex
	under, most := 0, 0
	slow := newAskable(func(context.Context, connectors.Doubt, int) (delivery.Sent, error) {
		mu.Lock()
		under++
		most = max(most, under)
		mu.Unlock()
		<-gate // whatever its context says
		mu.Lock()
		under--
		mu.Unlock()
		return delivery.Sent{}, errBusy
	})
	r, clock := askRig(t, quick, "fail", func(r *rig) {
		b := *r.copyAccount()
		b.ID, b.Name, b.Priority, b.Connector, b.Parallel = r.ids.Account(), "slow", 2, slow, 64
		b.Timeout = time.Hour
		r.more = []*routing.Account{&b}
	})
	t.Cleanup(open)
	stuck := inDoubt(r, 600, r.more[0].ID) // more than a batch
	begin := clock.Now()
	require.Eventually(t, func() bool {
		clock.Advance(time.Second)
		mu.Lock()
		defer mu.Unlock()
		return under == 4
	}, patience, tick)
	require.GreaterOrEqual(t, clock.Since(begin), 89*time.Second)
	ids := r.accept(20, nil)
	require.Eventually(t, func() bool {
		clock.Advance(100 * time.Millisecond)
		return r.count(delivery.StatusSent) == len(ids)
	}, patience, tick)
	require.Equal(t, delivery.StatusAmbiguous, r.message(stuck[0]).Status)
	require.Equal(t, 4, most)
	for range 9 { // twice the account's timeout is the most that anybody waits for an answer
		clock.Advance(15 * time.Minute)
	}
	require.Eventually(t, func() bool {
		clock.Advance(100 * time.Millisecond)
		return r.count(delivery.StatusFailed) >= len(stuck)-4
	}, patience, tick)
	open()
	turn(r, clock, func() bool { return r.count(delivery.StatusFailed) == len(stuck) })
	require.Empty(t, slow.sends())
	r.audited()
}

// inDoubt leaves n messages behind that an earlier process handed to an account without hearing of them any more.
func inDoubt(r *rig, n int, by delivery.AccountID) []delivery.MessageID {
	r.t.Helper()
	r.shutdown()
	ctx, now := context.Background(), r.clock.Now()
	ids := r.acceptBy(r.store, n, nil)
	for from := 0; from < n; from += 200 {
		batch := ids[from:min(from+200, n)]
		claimed, err := r.store.Claim(ctx, sys, store.Claim{IDs: batch, Node: "test", Now: now, Until: now.Add(time.Minute)})
		require.NoError(r.t, err)
		require.Len(r.t, claimed, len(batch))
		outcomes := make([]store.Outcome, len(batch))
		for i, c := range claimed {
			outcomes[i] = store.Outcome{
				ID: c.ID, Epoch: c.Epoch, Writer: delivery.BySend, Status: delivery.StatusAmbiguous, Account: by, Reason: "timeout",
				Until: now.Add(90 * time.Second), Attempted: true,
			}
		}
		_, err = r.store.Settle(ctx, sys, now, outcomes)
		require.NoError(r.t, err)
	}
	r.acct = r.copyAccount()
	r.start()
	return ids
}

// A shutdown does not wait for a provider that does not come back.
func TestAShutdownWhileAProviderIsAsked(t *testing.T) {
	gate, asked := make(chan struct{}), make(chan struct{}, 10)
	a := newAskable(func(context.Context, connectors.Doubt, int) (delivery.Sent, error) {
		asked <- struct{}{}
		<-gate
		return delivery.Sent{}, errBusy
	})
	r, clock := askRig(t, a, "", nil)
	t.Cleanup(func() { close(gate) })
	ids := r.accept(1, nil)
	r.await(ids, delivery.StatusAmbiguous)
	clock.Advance(3 * time.Second)
	<-asked
	r.shutdown()
	require.Equal(t, delivery.StatusAmbiguous, r.message(ids[0]).Status)
}

// After a restart nobody remembers the question: it is asked once, when the doubt's window ends.
func TestADoubtOfAnEarlierProcessIsAskedAboutOnce(t *testing.T) {
	for name, c := range map[string]struct {
		says error
		want delivery.Status
	}{"taken": {nil, delivery.StatusSent}, "cannot tell": {errBusy, delivery.StatusFailed}} {
		t.Run(name, func(t *testing.T) {
			a := newAskable(func(context.Context, connectors.Doubt, int) (delivery.Sent, error) {
				return delivery.Sent{ProviderID: "found"}, c.says
			})
			r, clock := askRig(t, a, "fail", nil)
			ids := r.accept(1, nil)
			r.await(ids, delivery.StatusAmbiguous)
			r.shutdown()
			r.acct = r.copyAccount()
			r.start()
			begin := clock.Now()
			turn(r, clock, func() bool { return r.message(ids[0]).Status == c.want })
			require.GreaterOrEqual(t, clock.Since(begin), 90*time.Second)
			require.Equal(t, 1, a.questions(ids[0]))
			require.Len(t, a.sends(), 1)
			r.audited()
		})
	}
}

// A receipt that comes first settles the doubt: nobody is asked any more, and a late answer changes nothing.
func TestAReceiptComesBeforeTheAnswer(t *testing.T) {
	a := newAskable(func(context.Context, connectors.Doubt, int) (delivery.Sent, error) {
		return delivery.Sent{}, connectors.ErrNotTaken
	})
	r, clock := askRig(t, a, "", nil)
	ids := r.accept(1, nil)
	r.await(ids, delivery.StatusAmbiguous)
	require.NoError(t, r.pipe.Report(context.Background(), r.acct, []delivery.Receipt{{
		Message: ids[0], Status: delivery.StatusDelivered, At: clock.Now(),
	}}))
	r.await(ids, delivery.StatusDelivered)
	for range 60 {
		clock.Advance(2 * time.Second)
		quiet(r)
	}
	require.Zero(t, a.questions(ids[0]))
	require.Equal(t, delivery.StatusDelivered, r.message(ids[0]).Status)
	require.Len(t, a.sends(), 1)
	r.audited()
}

// quiet waits until nothing is under way.
func quiet(r *rig) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		quiet, err := r.pipe.Quiet(context.Background())
		return err == nil && quiet
	}, patience, time.Millisecond)
}
