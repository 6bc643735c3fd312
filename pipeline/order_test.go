package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

func TestUnderALimitTheOldestGoFirst(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, func(r *rig) { r.acct.PerSecond, r.acct.Burst, r.acct.Parallel = 500, 250, 1 })
	ids := append(r.accept(2500, nil), r.accept(500, nil)...)
	turn(r, clock, func() bool { return len(r.fake.sends()) == len(ids) })
	require.LessOrEqual(t, displaced(ids, r.fake.order(), 100), len(ids)/20)
}

// displaced counts the ids that went more than by places away from their own.
func displaced(ids, order []delivery.MessageID, by int) (n int) {
	place := map[delivery.MessageID]int{}
	for i, id := range ids {
		place[id] = i
	}
	for i, id := range order {
		if d := i - place[id]; d > by || d < -by {
			n++
		}
	}
	return n
}

// A message that is pinned to a slow account waits for it; those of the same queue that are not go by the other one.
func TestAPinnedMessageHoldsUpNobodyElse(t *testing.T) {
	clock := clockwork.NewFakeClock()
	slow := &fake{}
	r := newRig(t, clock, &fake{}, func(r *rig) {
		r.acct.Priority = 1
		b := *r.copyAccount()
		b.ID, b.Name, b.Priority, b.PerSecond, b.Burst, b.Connector = r.ids.Account(), "slow", 2, 1, 1, slow
		r.more = []*routing.Account{&b}
	})
	pinned := r.accept(20, func(_ int, m *store.NewMessage) { m.Account = r.more[0].ID })
	require.Eventually(t, func() bool { return r.count(delivery.StatusHeld) >= 15 }, patience, tick)
	begin := clock.Now()
	free := r.accept(3000, nil)
	turn(r, clock, func() bool { return len(r.fake.sends()) == len(free) })
	require.LessOrEqual(t, clock.Since(begin), time.Second, "they waited for a limit that is not theirs")
	turn(r, clock, func() bool { return len(slow.sends()) == len(pinned) })
	require.Equal(t, pinned, slow.order(), "each is held until its own turn")
	require.LessOrEqual(t, clock.Since(begin), 23*time.Second)
	for _, id := range pinned {
		m := r.message(id)
		require.LessOrEqual(t, m.Epoch, 3, "a message is not taken up again and again")
	}
}

func TestAHigherLimitTakesEffectAtOnce(t *testing.T) {
	clock := clockwork.NewFakeClock()
	r := newRig(t, clock, &fake{}, nil)
	ctx := context.Background()
	set := func(perSecond float64) {
		// The same limit twice is the tighter of the two.
		rates := []store.TenantRate{{PerSecond: perSecond + 1, Burst: 1}, {PerSecond: perSecond, Burst: max(1, perSecond)}}
		require.NoError(t, r.store.UpdateTenant(ctx, sys, store.Tenant{ID: tenant, Rates: rates}))
		r.pipe.TenantChanged(tenant)
	}
	set(0.01)
	ids := r.accept(200, func(i int, m *store.NewMessage) {
		if i%2 == 0 {
			m.Account = r.acct.ID // these are held, those keep their place in the queue
		}
	})
	require.Eventually(t, func() bool {
		quiet, err := r.pipe.Quiet(ctx)
		return err == nil && quiet && len(r.fake.sends()) == 1 && r.count(delivery.StatusHeld) > 50
	}, patience, tick)
	set(1000)
	begin := clock.Now()
	turn(r, clock, func() bool { return len(r.fake.sends()) == len(ids) })
	require.LessOrEqual(t, clock.Since(begin), 3*time.Second)
}

func TestUrgentFirstUnderASlowConnector(t *testing.T) {
	step := make(chan struct{})
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		<-step
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.acct.Parallel = 1 })
	lane := func(l delivery.Lane) []delivery.MessageID {
		return r.accept(5, func(_ int, m *store.NewMessage) { m.Lane = l })
	}
	bulk, normal, urgent := lane(delivery.Bulk), lane(delivery.Normal), lane(delivery.Urgent)
	require.Eventually(t, func() bool { return r.pipe.Before() == 14 && len(f.sends()) == 1 }, patience, tick)
	first := f.order()[0]
	close(step)
	all := slices.Concat(urgent, normal, bulk)
	r.await(all, delivery.StatusSent)
	want := slices.DeleteFunc(all, func(id delivery.MessageID) bool { return id == first })
	require.Equal(t, append([]delivery.MessageID{first}, want...), f.order())
}

// However many queues stand before a connector that hangs, there is room for a queue that can go.
func TestAHangingConnectorLeavesRoomForOthers(t *testing.T) {
	gate := make(chan struct{})
	stuck := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		<-gate
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), &fake{}, func(r *rig) {
		b := *r.copyAccount()
		b.ID, b.Name, b.Tenant, b.Connector, b.Parallel = r.ids.Account(), "stuck", delivery.Shared, stuck, 3 // of which bulk may use two
		r.more = []*routing.Account{&b}
		r.tune = func(o *pipeline.Options) { o.InFlight = 256 }
	})
	t.Cleanup(func() { close(gate) })
	ctx := context.Background()
	for i := range 8 {
		id := delivery.TenantID(fmt.Sprintf("t%d", i))
		require.NoError(t, r.store.CreateTenant(ctx, sys, store.Tenant{ID: id, CreatedAt: r.clock.Now()}))
		a := store.Acceptance{Now: r.clock.Now()}
		for j := range 500 {
			a.Messages = append(a.Messages, store.NewMessage{
				ID: r.ids.Message(), Channel: delivery.SMS, Lane: delivery.Bulk, To: fmt.Sprintf("+1202%07d", j+6000000),
				Segments: 1, Payload: []byte(`{"content":{"text":"x"}}`), DueAt: a.Now, ExpiresAt: a.Now.Add(time.Hour),
			})
		}
		_, err := r.pipe.Accept(ctx, id, a)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return len(stuck.sends()) == 2 }, patience, tick)
	r.await(r.accept(100, nil), delivery.StatusSent)
}

func TestAPauseReachesWhatIsClaimed(t *testing.T) {
	for name, c := range map[string]struct {
		state store.CampaignState
		want  delivery.Status
	}{
		"pause": {store.CampaignPaused, delivery.StatusHeld},
		"stop":  {store.CampaignStopped, delivery.StatusCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			f, open := gated(t)
			r := newRig(t, clockwork.NewFakeClock(), f, func(r *rig) { r.acct.Parallel = 3 }) // of which bulk may use two
			ctx := context.Background()
			id := r.ids.Campaign()
			campaign := store.Campaign{ID: id, Name: "c", Legs: []store.Leg{}, CreatedAt: r.clock.Now()}
			require.NoError(t, r.store.CreateCampaign(ctx, tenant, campaign))
			move := func(from, to store.CampaignState) {
				_, err := r.store.MoveCampaign(ctx, tenant, campaign, []store.CampaignState{from}, to, r.clock.Now())
				require.NoError(t, err)
			}
			move(store.CampaignDraft, store.CampaignRunning)
			ids := r.accept(500, func(_ int, m *store.NewMessage) { m.Campaign, m.Lane = id, delivery.Bulk })
			require.Eventually(t, func() bool { return len(f.sends()) == 2 && r.count(delivery.StatusSending) == 500 }, patience, tick)
			move(store.CampaignRunning, c.state)
			r.pipe.CampaignPaused(id, true)
			open()
			require.Eventually(t, func() bool { return r.count(c.want) == 498 && r.count(delivery.StatusSent) == 2 }, patience, tick)
			require.Len(t, f.sends(), 2)
			if c.state == store.CampaignStopped {
				return
			}
			// Paused and resumed at once, told in the wrong order: the store knows better.
			for range 5 {
				move(store.CampaignPaused, store.CampaignRunning)
				move(store.CampaignRunning, store.CampaignPaused)
				move(store.CampaignPaused, store.CampaignRunning)
				r.pipe.CampaignPaused(id, false)
				r.pipe.CampaignPaused(id, true)
				move(store.CampaignRunning, store.CampaignPaused)
			}
			move(store.CampaignPaused, store.CampaignRunning)
			r.pipe.CampaignPaused(id, false)
			r.await(ids, delivery.StatusSent)
			require.Len(t, f.sends(), 500)
		})
	}
}

// down is a connector that cannot work until somebody mends it.
type down struct {
	fake
	mended bool
}

func TestAnAccountThatComesBack(t *testing.T) {
	clock := clockwork.NewFakeClock()
	d := &down{}
	d.answer = func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.mended {
			return delivery.Sent{ProviderID: m.ID.String()}, nil
		}
		return delivery.Sent{}, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true}
	}
	r := newRig(t, clock, &d.fake, func(r *rig) { r.acct.Parallel = 4 })
	ids := r.accept(2000, nil)
	begin := clock.Now()
	turn(r, clock, func() bool { return clock.Since(begin) >= time.Minute })
	tries := len(d.sends())
	require.LessOrEqual(t, tries, 4+6, "while it is down, one message tries at a time: after 2, 4, 8, 16, 32 seconds")
	require.GreaterOrEqual(t, tries, 5)
	s, known := r.pipe.Standing(delivery.Queue{Tenant: tenant, Channel: delivery.SMS, Lane: delivery.Normal})
	require.True(t, known)
	require.Equal(t, routing.ReasonConnectorDown, s.Reason)
	d.mu.Lock()
	d.mended = true
	d.mu.Unlock()
	turn(r, clock, func() bool { return len(d.sends()) == tries+len(ids) })
	require.LessOrEqual(t, clock.Since(begin), 2*time.Minute+2*time.Second, "the longest rest is a minute")
	r.await(ids, delivery.StatusSent)
	// What was given back has kept its place. Those that tried while it was down may come later.
	require.LessOrEqual(t, displaced(ids, d.order()[tries:], 100), 60, "oldest first, but for a few")
	r.audited()
}

// A probe whose answer never comes must neither end the rest nor keep the next probe from trying.
func TestAProbeWithoutAnAnswer(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f := &fake{}
	f.answer = func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		switch len(f.sends()) {
		case 1:
			return delivery.Sent{}, &delivery.Failure{Class: delivery.ConnectorDown, Code: "refused", Known: true}
		case 2:
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Known: true}
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}
	r := newRig(t, clock, f, func(r *rig) { r.kind.Ambiguity, r.acct.Parallel = connectors.Correlate, 1 })
	ids := r.accept(50, nil)
	turn(r, clock, func() bool { return len(f.sends()) == 2 })
	second := clock.Now()
	turn(r, clock, func() bool { return len(f.sends()) > 2 })
	require.GreaterOrEqual(t, clock.Since(second), 3*time.Second, "no answer is no sign of life")
	turn(r, clock, func() bool { return r.count(delivery.StatusSent) == len(ids) })
}

func TestAnAccountThatGoesWithMessagesWaiting(t *testing.T) {
	f, open := gated(t)
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.acct.Parallel = 3 })
	free := r.accept(50, nil)
	pinned := r.accept(50, func(_ int, m *store.NewMessage) { m.Account = r.acct.ID })
	require.Eventually(t, func() bool { return len(f.sends()) == 3 && r.count(delivery.StatusSending) == 100 }, patience, tick)
	next := &fake{}
	b := *r.copyAccount()
	b.ID, b.Name, b.Connector = r.ids.Account(), "next", next
	r.pipe.SetAccounts([]*routing.Account{&b})
	open()
	r.await(free, delivery.StatusSent)
	r.await(pinned, delivery.StatusSent, delivery.StatusHeld)
	for _, id := range pinned {
		if m := r.message(id); m.Status == delivery.StatusHeld {
			require.Equal(t, routing.ReasonNoConnector, m.Reason)
		}
	}
	require.Equal(t, 100, len(f.sends())+len(next.sends())+r.count(delivery.StatusHeld), "nobody twice, nobody lost")
	r.audited()
}

func TestAnAccountThatGoesJustBeforeAShutdown(t *testing.T) {
	f, open := gated(t)
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.acct.Parallel = 3 })
	r.accept(2000, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 3 && r.count(delivery.StatusSending) == 2000 }, patience, tick)
	r.pipe.SetAccounts(nil)
	done := make(chan struct{})
	go func() { defer close(done); r.shutdown() }()
	open()
	<-done
	require.Zero(t, r.count(delivery.StatusSending), "every outcome is written before the end")
	require.Equal(t, 3, r.count(delivery.StatusSent))
}

func TestAProviderCannotMakeUsWaitForEver(t *testing.T) {
	clock := clockwork.NewFakeClock()
	f := &fake{answer: func(m *delivery.Outgoing, n int) (delivery.Sent, error) {
		if n == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.Throttled, Code: "429", Known: true, RetryAfter: 1e9 * time.Second}
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clock, f, nil)
	ids := r.accept(1, func(_ int, m *store.NewMessage) { m.ExpiresAt = m.DueAt.Add(48 * time.Hour) })
	r.await(ids, delivery.StatusDeferred)
	require.WithinDuration(t, r.clock.Now().Add(time.Hour), r.message(ids[0]).DueAt, time.Millisecond) // as the store keeps it
	clock.Advance(time.Hour + time.Millisecond)
	r.await(ids, delivery.StatusSent)
}

// broken is a connector whose report session and whose end break down.
type broken struct {
	fake
	streams chan struct{}
}

func (b *broken) Stream(ctx context.Context, _ connectors.Sink) error {
	select {
	case b.streams <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if len(b.streams)%2 == 0 {
		panic("planted")
	}
	return errors.New("planted")
}

func (b *broken) Close() error { panic("planted") }

func TestAReportSessionThatEndsIsBegunAnew(t *testing.T) {
	clock := clockwork.NewFakeClock()
	b := &broken{streams: make(chan struct{}, 4)}
	newRig(t, clock, &b.fake, func(r *rig) { r.acct.Connector = b })
	require.Eventually(t, func() bool { clock.Advance(time.Second); return len(b.streams) == 4 }, patience, time.Millisecond)
}

// A connector that does not even heed the end of its context cannot keep the program from ending.
func TestAConnectorThatNeverComesBack(t *testing.T) {
	f, open := gated(t)
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.acct.Parallel = 5 })
	t.Cleanup(open)
	ids := r.accept(2, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 2 }, patience, tick)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := r.pipe.Shutdown(ctx)
	require.ErrorIs(t, err, pipeline.ErrUnanswered)
	require.ErrorContains(t, err, ": 2")
	require.Equal(t, err, r.pipe.Shutdown(context.Background()), "a second call says the same")
	require.ErrorIs(t, r.pipe.Start(context.Background()), pipeline.ErrShutDown)
	r.stop()
	r.once.Do(func() { require.NoError(t, r.broker.Close()) })
	for _, id := range ids {
		require.Equal(t, delivery.StatusSending, r.message(id).Status, "the journal settles it at the next start")
	}
}
