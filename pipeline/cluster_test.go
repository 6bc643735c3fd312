package pipeline_test

import (
	"context"
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

// A process that the others count as gone may not know of a pause or an opt-out that they have answered for. What it has
// claimed and not begun goes back.
func TestNothingBeginsOutOfStep(t *testing.T) {
	var out atomic.Bool
	release := make(chan struct{})
	var once sync.Once
	let := func() { once.Do(func() { close(release) }) }
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		<-release
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) {
		r.acct.Parallel = 1
		r.tune = func(o *pipeline.Options) {
			o.Run = "one"
			o.Held = func() string {
				if out.Load() {
					return "cut off"
				}
				return ""
			}
		}
	})
	t.Cleanup(let)
	ids := r.accept(5, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 1 && r.count(delivery.StatusSending) == 5 }, patience, tick)
	out.Store(true)
	let()
	require.Eventually(t, func() bool { return r.count(delivery.StatusQueued) == 4 }, patience, tick)
	require.Len(t, f.sends(), 1)
	out.Store(false)
	r.await(ids, delivery.StatusSent)
	require.Len(t, f.sends(), 5)
	r.audited()
}

// comingBack is what a process leaves behind that is killed during ten attempts: a directory, and a rig over it that does
// not run yet. With heard set it had heard the answers, and could not write them down.
func comingBack(t *testing.T, heard bool) (next *rig, ids []delivery.MessageID) {
	fault := &faulty{}
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		fault.writes.Store(true)
		if !heard {
			<-t.Context().Done() // the cleanups begin
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) {
		r.fault = fault
		r.acct.Parallel = 10
		r.tune = func(o *pipeline.Options) { o.Run = "one" }
	})
	t.Cleanup(func() { fault.writes.Store(false) })
	ids = r.accept(10, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 10 }, patience, tick)
	var image string
	require.Eventually(t, func() bool { // until the journal has all answers
		image = crashImage(t, r.dir)
		n, err := pipeline.Answers(image + "/journal")
		return err == nil && (n == 10 || !heard)
	}, patience, tick)
	next = &rig{t: t, dir: image, clock: r.clock, ids: r.ids, fake: &fake{}, kind: r.kind}
	next.acct = r.copyAccount()
	next.acct.Connector = next.fake
	next.tune = func(o *pipeline.Options) { o.Run = "two" }
	next.open()
	return next, ids
}

// doubts is what another process says of claims whose node did not come back in time.
func doubts(r *rig, until time.Time) {
	now := r.clock.Now()
	left, err := r.store.Overdue(context.Background(), sys, now, "test#one", 100)
	require.NoError(r.t, err)
	var outcomes []store.Outcome
	for _, o := range left {
		outcomes = append(outcomes, store.Outcome{ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Attempted: true,
			Status: delivery.StatusAmbiguous, Reason: "lease_ended", Until: until})
	}
	_, err = r.store.Settle(context.Background(), sys, now, outcomes)
	require.NoError(r.t, err)
}

func TestAnAnswerHeardBeforeAKillCountsThoughOthersCalledItADoubt(t *testing.T) {
	next, ids := comingBack(t, true)
	doubts(next, next.clock.Now().Add(time.Hour))
	require.Equal(t, len(ids), next.count(delivery.StatusAmbiguous))
	next.start()
	t.Cleanup(next.close)
	next.await(ids, delivery.StatusSent)
	require.Empty(t, next.fake.sends(), "what was answered is not sent again")
	next.audited()
}

// A start goes on once the store has time for it, where others keep it busy; alone, it says at once that it cannot.
func TestAStartWaitsForAStoreThatOthersUse(t *testing.T) {
	next, ids := comingBack(t, true)
	next.fault = &faulty{}
	next.fault.writes.Store(true)
	time.AfterFunc(300*time.Millisecond, func() { next.fault.writes.Store(false) })
	next.start()
	t.Cleanup(next.close)
	next.await(ids, delivery.StatusSent)
	require.Empty(t, next.fake.sends(), "what was answered is not sent again")
	next.audited()
}

// overtaken is a store in which somebody else settles the claims that are listed, before the caller can.
type overtaken struct {
	pipeline.Store
	once sync.Once
	by   func()
}

func (o *overtaken) Overdue(
	ctx context.Context, s store.System, now time.Time, node string, limit int,
) ([]store.Overdue, error) {
	list, err := o.Store.Overdue(ctx, s, now, node, limit)
	if node == "test#one" {
		o.once.Do(o.by)
	}
	return list, err
}

func TestAStartGoesOnWhereOthersCameFirst(t *testing.T) {
	next, ids := comingBack(t, false)
	next.tune = func(o *pipeline.Options) {
		o.Run = "two"
		o.Store = &overtaken{Store: o.Store, by: func() { doubts(next, next.clock.Now().Add(time.Hour)) }}
	}
	next.start()
	t.Cleanup(next.close)
	require.Equal(t, len(ids), next.count(delivery.StatusAmbiguous))
	next.audited()
}

// Whoever is told that we have heard a stop is not written to by another process either.
func TestAnOptOutIsAnsweredWhenAllGoByIt(t *testing.T) {
	settled := 0
	r := newRig(t, clockwork.NewRealClock(), &fake{}, func(r *rig) {
		r.tune = func(o *pipeline.Options) {
			o.Run = "one"
			o.Settle = func(ctx context.Context) {
				settled++
				_, found, err := r.store.Suppressed(ctx, tenant, delivery.SMS, "+12025550100")
				require.NoError(t, err)
				require.True(t, found, "it is in the store")
			}
		}
	})
	hear := func(text string) {
		in := []delivery.Inbound{{From: "+12025550100", Text: text}}
		require.NoError(t, r.pipe.Heard(context.Background(), r.acct, in))
	}
	hear("hello")
	require.Zero(t, settled)
	hear("STOP")
	require.Equal(t, 1, settled)
}
