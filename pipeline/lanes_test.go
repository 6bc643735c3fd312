package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/memory"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// counting is a limiter that counts the permits that it gives.
type counting struct {
	limits.Limiter
	given float64
	asked int
}

func (c *counting) Reserve(
	ctx context.Context, now time.Time, b []limits.Bound, cost float64,
) (limits.Decision, error) {
	d, err := c.Limiter.Reserve(ctx, now, b, cost)
	c.asked++
	if d.Go {
		c.given += cost
	}
	return d, err
}

// bay is a station without workers, before which a test puts messages and from which it takes them.
type bay struct {
	*station
	clock   *clockwork.FakeClock
	limiter *counting
	ids     *delivery.IDs
	weights map[delivery.TenantID]int
}

func newBay(parallel int, change func(a *routing.Account)) *bay {
	b := &bay{
		clock: clockwork.NewFakeClock(), limiter: &counting{Limiter: memory.New()}, weights: map[delivery.TenantID]int{},
	}
	b.ids = delivery.NewIDs(b.clock.Now)
	p := &Pipeline{
		clock: b.clock, log: slog.New(slog.DiscardHandler), ctx: context.Background(),
		opt: Options{Limiter: b.limiter, InFlight: 8192}, elapsed: func() time.Duration { return 0 },
	}
	p.tenants.load = func(id delivery.TenantID) (*store.Tenant, error) {
		return &store.Tenant{ID: id, Weight: b.weights[id]}, nil
	}
	p.campaigns.load = func(delivery.TenantID, delivery.CampaignID) (float64, error) { return 0, nil }
	p.planner = newPlanner(p)
	p.recorder = newRecorder(p)
	p.recorder.in = make(chan *passage, 1<<16) // nobody reads it
	a := &routing.Account{
		ID: b.ids.Account(), Name: "a", Parallel: parallel, Kind: &connectors.Kind{Name: "fake"}, Timeout: time.Second,
	}
	if change != nil {
		change(a)
	}
	b.station = newStation(p, a)
	return b
}

func smsQueue(t delivery.TenantID, l delivery.Lane) delivery.Queue {
	return delivery.Queue{Tenant: t, Channel: delivery.SMS, Lane: l}
}

// queue puts n messages before the station.
func (b *bay) queue(n int, t delivery.TenantID, l delivery.Lane, change func(m *passage)) []*passage {
	var list []*passage
	for range n {
		m := &passage{account: b.acct, until: b.clock.Now().Add(time.Hour)}
		m.ID, m.Queue, m.Segments, m.AcceptedAt = b.ids.Message(), smsQueue(t, l), 1, b.clock.Now()
		if change != nil {
			change(m)
		}
		list = append(list, m)
	}
	b.put(list)
	return list
}

// take gives the next message that may go to a worker; nil = there is none.
func (b *bay) take() *passage {
	m, _ := b.p.limit(b.station, b.clock.Now())
	return m
}

// pass lets the next message go and come back taken; nil = there is none.
func (b *bay) pass() *passage {
	m := b.take()
	if m != nil {
		b.done(m)
	}
	return m
}

func (b *bay) done(m *passage) {
	m.outcome.Status = delivery.StatusSent
	b.ended(m)
}

func (b *bay) fails(m *passage, f delivery.Failure) {
	m.failure = &f
	b.ended(m)
}

func TestUrgentFindsAWorkerAtOnce(t *testing.T) {
	for parallel, urgent := range map[int]int{1: 0, 2: 1, 4: 1, 8: 2, 16: 4} {
		t.Run(fmt.Sprint(parallel, " workers"), func(t *testing.T) {
			b := newBay(parallel, nil)
			b.queue(100, "blast", delivery.Bulk, nil)
			var bulk []*passage
			for m := b.take(); m != nil; m = b.take() {
				bulk = append(bulk, m)
			}
			require.Len(t, bulk, parallel-urgent)
			asked := b.limiter.asked
			require.Nil(t, b.take())
			require.Equal(t, asked, b.limiter.asked, "no permit is asked for what finds no worker")
			b.queue(100, "bank", delivery.Urgent, nil)
			for range urgent {
				require.Equal(t, delivery.Urgent, b.take().Queue.Lane)
			}
			require.Nil(t, b.take(), "every worker has something to do")
			b.done(bulk[0])
			require.Len(t, b.wake, 1, "who waits for the end of an attempt hears of it")
			require.Equal(t, delivery.Urgent, b.take().Queue.Lane)
		})
	}
}

func TestLanesBeforeAnAccount(t *testing.T) {
	b := newBay(1, nil)
	sent := map[delivery.Lane][]*passage{}
	put := map[delivery.Lane][]*passage{}
	for _, l := range []delivery.Lane{delivery.Bulk, delivery.Normal, delivery.Urgent} {
		put[l] = b.queue(2000, "t", l, nil)
	}
	for range 1000 {
		m := b.pass()
		sent[m.Queue.Lane] = append(sent[m.Queue.Lane], m)
	}
	require.InDelta(t, 1000*16.0/21, len(sent[delivery.Urgent]), 16*laneQuantum)
	require.InDelta(t, 1000*4.0/21, len(sent[delivery.Normal]), 4*laneQuantum)
	require.InDelta(t, 1000*1.0/21, len(sent[delivery.Bulk]), laneQuantum)
	for l, list := range sent {
		require.Equal(t, put[l][:len(list)], list, "first in, first out")
	}
	require.InDelta(t, 1000, b.limiter.given, 0)
}

// Tenants share an account by weight, in segments, and a tenant's campaigns share what is the tenant's.
func TestTenantsBeforeAnAccount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBay(1, nil)
		list := make([]delivery.TenantID, rapid.IntRange(2, 5).Draw(t, "tenants"))
		const dearest, n = 6, 400
		total := 0.0
		for i := range list {
			id := delivery.TenantID(fmt.Sprint("t", i))
			list[i] = id
			b.weights[id] = rapid.IntRange(0, 20).Draw(t, "weight")
			total += float64(max(b.weights[id], 1))
			campaigns := []delivery.CampaignID{{}}
			for range rapid.IntRange(0, 20).Draw(t, "campaigns") {
				campaigns = append(campaigns, b.ids.Campaign())
			}
			segments := rapid.IntRange(0, dearest).Draw(t, "segments")
			for j := range n {
				b.queue(1, id, delivery.Bulk, func(m *passage) {
					m.Campaign, m.Segments = campaigns[j%len(campaigns)], segments
				})
			}
		}
		got := map[delivery.TenantID]float64{}
		all := 0.0
		for range n { // as many as the first of them has: nobody runs out
			m := b.pass()
			got[m.Queue.Tenant] += m.cost()
			all += m.cost()
		}
		for _, id := range list {
			w := float64(max(b.weights[id], 1))
			require.InDelta(t, all*w/total, got[id], dearest*(w+float64(len(list))), "%s of %v", id, b.weights)
		}
		require.InDelta(t, all, b.limiter.given, 0, "permits are spent for what goes")
	})
}

// A costly urgent message is not overtaken by cheap ones that an account's rate would let through sooner.
func TestNobodyOvertakesByBeingCheaper(t *testing.T) {
	b := newBay(4, func(a *routing.Account) { a.PerSecond, a.Burst = 10, 2 })
	b.queue(10, "blast", delivery.Bulk, nil)
	require.NotNil(t, b.pass())
	require.NotNil(t, b.pass())
	b.queue(1, "bank", delivery.Urgent, func(m *passage) { m.Segments = 5 })
	for range 4 {
		require.Nil(t, b.pass(), "after half of this time, a cheap one could go")
		b.clock.Advance(50 * time.Millisecond)
	}
	m := b.pass()
	require.NotNil(t, m, "it goes as soon as what went before is paid for")
	require.Equal(t, delivery.Urgent, m.Queue.Lane)
}

func TestAQueueThatHasWaitedGetsALargerShare(t *testing.T) {
	b := newBay(1, nil)
	old := smsQueue("old", delivery.Bulk)
	share := func() map[delivery.Lane]int {
		n := map[delivery.Lane]int{}
		for range 2100 {
			n[b.pass().Queue.Lane]++
		}
		return n
	}
	fill := func() {
		for _, l := range []delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk} {
			b.queue(2200, "old", l, nil)
		}
	}
	fill()
	require.InDelta(t, 100, share()[delivery.Bulk], laneQuantum)
	fill()
	b.p.planner.overdue(old, b.clock.Now().Add(-agedAfter), false)
	b.p.planner.giveUpLost(b.clock.Now())
	b.giveBackShort(b.clock.Now())
	n := share()
	require.InDelta(t, 2100*4.0/24, n[delivery.Bulk], 4*laneQuantum, "as much as normal has")
	require.InDelta(t, 2100*4.0/24, n[delivery.Normal], 4*laneQuantum)
	require.InDelta(t, 2100*16.0/24, n[delivery.Urgent], 16*laneQuantum)
	b.clock.Advance(seenFor + time.Second) // nobody says any more that it waits
	b.p.planner.giveUpLost(b.clock.Now())
	fill()
	require.InDelta(t, 100, share()[delivery.Bulk], laneQuantum)
}

func TestACrowdBeginsAnewAfterARest(t *testing.T) {
	b := newBay(16, nil)
	b.queue(100, "t", delivery.Normal, nil)
	m := b.take()
	b.acct.Down(b.clock.Now(), "refused", false)
	b.fails(m, delivery.Failure{Class: delivery.ConnectorDown})
	require.Nil(t, b.take())
	require.Empty(t, b.lanes, "what waits goes back: another account may have room")
	b.clock.Advance(time.Minute)
	require.True(t, b.acct.Probe(b.clock.Now()))
	b.queue(1, "t", delivery.Normal, func(m *passage) { m.probe = true })
	probe := b.take()
	require.NotNil(t, probe)
	require.True(t, b.acct.Up())
	b.done(probe)
	b.queue(100, "t", delivery.Normal, nil)
	for _, want := range []int{1, 2, 3, 4} {
		var out []*passage
		for m := b.take(); m != nil; m = b.take() {
			out = append(out, m)
		}
		require.Len(t, out, want)
		for _, m := range out {
			b.done(m)
		}
	}
}

// What has waited while an account rested does not come all at once.
func TestNoHerdAfterARest(t *testing.T) {
	b := newBay(64, nil)
	second := func(n int) (sent int) { // offers n a second, and as many as are left over
		for range 20 {
			if b.waitingNow() < 1000 {
				b.queue(n/20, "t", delivery.Normal, nil)
			}
			for b.pass() != nil {
				sent++
			}
			for len(b.p.recorder.in) > 0 {
				<-b.p.recorder.in
			}
			b.clock.Advance(50 * time.Millisecond)
		}
		return sent
	}
	for range 5 {
		require.Equal(t, 200, second(200))
	}
	b.queue(1, "t", delivery.Normal, nil)
	m := b.take()
	b.acct.Down(b.clock.Now(), "refused", false)
	b.fails(m, delivery.Failure{Class: delivery.ConnectorDown})
	require.Nil(t, b.take())
	b.clock.Advance(time.Hour)
	require.True(t, b.acct.Probe(b.clock.Now()))
	require.True(t, b.acct.Up())
	for i := range 20 {
		require.InDelta(t, 200+20*i, second(5000), 25, "second %d", i)
	}
	b.clock.Advance(paceUnmet + time.Second)
	require.Greater(t, second(5000), 4000, "nobody had to wait for long: there is no bound any more")
}

// What an account sent counts up to the moment at which its rest began, and fades while it sends nothing.
func TestWhatAnAccountSentBeforeItsRest(t *testing.T) {
	for idle, want := range map[time.Duration]float64{0: 300, 34 * time.Second: 150, 10 * time.Minute: 0} {
		b := newBay(16, nil)
		b.queue(300, "t", delivery.Normal, nil)
		for b.pass() != nil {
		}
		b.clock.Advance(idle)
		b.acct.Down(b.clock.Now(), "refused", false)
		require.Nil(t, b.take())
		b.clock.Advance(time.Hour)
		require.True(t, b.acct.Up())
		require.Nil(t, b.take())
		require.InDelta(t, want, b.pace.at(b.clock.Now()), 5, "idle for %s", idle)
	}
}

// A probe goes although as many attempts are under way as the account may have now.
func TestAProbeFindsRoom(t *testing.T) {
	b := newBay(16, nil)
	b.queue(8, "t", delivery.Normal, nil)
	for range 8 {
		require.NotNil(t, b.take(), "they hang")
	}
	b.crowd.size = 4
	b.queue(1, "t", delivery.Normal, nil)
	require.Nil(t, b.take())
	b.acct.Down(b.clock.Now(), "refused", false)
	require.Nil(t, b.take())
	b.queue(1, "t", delivery.Normal, func(m *passage) { m.probe = true })
	require.NotNil(t, b.take())
}

// Where each recipient is a server of its own, failures of some say nothing about the account.
func TestOneServerOfManyDoesNotShrinkTheCrowd(t *testing.T) {
	for _, peers := range []bool{false, true} {
		b := newBay(16, func(a *routing.Account) { a.Kind.Peers = peers })
		b.queue(200, "t", delivery.Normal, nil)
		for _, f := range []delivery.Class{delivery.Throttled, delivery.InDoubt, delivery.ConnectorDown} {
			var out []*passage
			for m := b.take(); m != nil; m = b.take() {
				out = append(out, m)
			}
			for _, m := range out {
				b.fails(m, delivery.Failure{Class: f})
			}
		}
		require.Equal(t, peers, b.crowd.size == 16)
		require.Equal(t, peers, b.pace.perSecond == 0)
	}
}

// A provider that asks to slow down gets less until it takes what it gets.
func TestAThrottledAccountFindsItsRate(t *testing.T) {
	const takes = 40.0 // a second
	b := newBay(64, nil)
	provider := memory.New()
	bound := []limits.Bound{{Rate: limits.Rate{PerSecond: takes, Burst: takes}}}
	refused, taken := map[int]int{}, map[int]int{}
	begin := b.clock.Now()
	for b.clock.Since(begin) < 2*time.Minute {
		now := b.clock.Now()
		minute := int(now.Sub(begin) / time.Minute)
		for m := b.take(); m != nil; m = b.take() {
			d, err := provider.Reserve(context.Background(), now, bound, 1)
			require.NoError(t, err)
			if d.Go {
				taken[minute]++
				b.done(m)
			} else {
				refused[minute]++
				b.fails(m, delivery.Failure{Class: delivery.Throttled})
				b.p.slowDown(b.acct, now.Add(time.Second))
			}
		}
		if b.waitingNow() < 20 {
			b.queue(100, "t", delivery.Bulk, nil)
		}
		for len(b.p.recorder.in) > 0 { // what went back to the store
			<-b.p.recorder.in
		}
		b.clock.Advance(5 * time.Millisecond)
	}
	require.LessOrEqual(t, refused[1], 20, "in a minute")
	require.GreaterOrEqual(t, refused[1], 1, "it tries now and then whether the provider takes more")
	require.GreaterOrEqual(t, float64(taken[1]), 0.7*60*takes)
}

// waitingNow is how many messages wait for their turn.
func (s *station) waitingNow() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.turn {
		n += len(l.waiting)
	}
	return n
}

// Before is how many messages wait before the accounts.
func (p *Pipeline) Before() (n int) {
	for _, s := range p.open() {
		n += s.waitingNow()
	}
	return n
}

// A part of the burst is left for messages that are on their way for longer than others.
func TestABurstLeavesRoomForWhatIsOnTheWay(t *testing.T) {
	for _, c := range []struct{ perSecond, burst, atOnce float64 }{
		{100, 10, 5}, {100, 40, 35}, {10, 2, 2}, {20, 1, 1}, {1000, 0, 25}, {1, 0, 1},
	} {
		b := newBay(4, func(a *routing.Account) { a.PerSecond, a.Burst = c.perSecond, c.burst })
		b.queue(200, "t", delivery.Normal, nil)
		n := 0
		for b.pass() != nil {
			n++
		}
		require.InDelta(t, c.atOnce, n, 0, "%g a second and a burst of %g", c.perSecond, c.burst)
	}
}
