package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// newPlan returns a planner without a pipeline around it.
func newPlan(inFlight int) (*planner, *clockwork.FakeClock) {
	clock := clockwork.NewFakeClock()
	p := &Pipeline{clock: clock, opt: Options{InFlight: inFlight, Metrics: prometheus.NewRegistry()}}
	return newPlanner(p), clock
}

func someIDs(n int) []delivery.MessageID {
	list := make([]delivery.MessageID, n)
	for i := range list {
		list[i] = delivery.MessageID{0: 1, 14: byte(i >> 8), 15: byte(i)}
	}
	return list
}

func TestRoomIsKeptForWhatIsUrgent(t *testing.T) {
	pl, clock := newPlan(1024)
	now := clock.Now()
	drain := func(l delivery.Lane) int {
		for i := range 40 {
			pl.add(hint{smsQueue(delivery.TenantID(fmt.Sprint("t", i)), l), someIDs(1024)})
		}
		n := 0
		for q, ids, _ := pl.next(now, bandUrgent, bandBulk); q != nil; q, ids, _ = pl.next(now, bandUrgent, bandBulk) {
			pl.finished(q)
			pl.claimed(q.id, len(ids), len(ids))
			n += len(ids)
		}
		return n
	}
	bulk := drain(delivery.Bulk)
	require.LessOrEqual(t, bulk, 512)
	require.GreaterOrEqual(t, bulk, 512-16)
	normal := drain(delivery.Normal)
	require.LessOrEqual(t, bulk+normal, 768)
	require.GreaterOrEqual(t, bulk+normal, 768-16)
	urgent := drain(delivery.Urgent)
	require.Equal(t, 1024, bulk+normal+urgent)
}

func TestLaneCountHasRoomForEveryLaneHoweverSmall(t *testing.T) {
	for all := 1; all < 10; all++ {
		for _, l := range []delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk} {
			var c laneCount
			require.Positive(t, c.room(l, all), "%s of %d", l, all)
			c.add(l, c.room(l, all))
			require.Zero(t, c.room(l, all))
			require.LessOrEqual(t, c.total(), all)
		}
	}
}

func TestClaimsAreSharedByWeight(t *testing.T) {
	pl, clock := newPlan(8192)
	now := clock.Now()
	weights := map[delivery.TenantID]int{"a": 1, "b": 3, "c": 0}
	for id, w := range weights {
		pl.p.tenants.views.Store(id, &store.Tenant{Weight: w})
	}
	got := map[delivery.TenantID]int{}
	for range 1000 {
		for id := range weights {
			pl.add(hint{smsQueue(id, delivery.Bulk), someIDs(maxHint)})
		}
		q, ids, _ := pl.next(now, bandUrgent, bandBulk)
		pl.finished(q)
		pl.claimed(q.id, len(ids), len(ids))
		pl.settled(q.id, len(ids), now)
		got[q.id.Tenant] += len(ids)
		for _, st := range pl.queues { // they never run out
			st.ids, st.behind = st.ids[:min(len(st.ids), 2*maxHint)], false
		}
	}
	all := float64(got["a"] + got["b"] + got["c"])
	for id, w := range weights {
		require.InDelta(t, all*float64(max(w, 1))/5, got[id], 2*maxHint, id)
	}
}

// Messages that are woken take their old places, beside those that the list holds already: when it is used up, there is
// one more look.
func TestWhatIsWokenIsLookedForThoughTheListIsNotEmpty(t *testing.T) {
	for _, woken := range []bool{false, true} {
		pl, clock := newPlan(8192)
		now := clock.Now()
		id := smsQueue("t", delivery.Bulk)
		pl.add(hint{id, someIDs(3)})
		pl.overdue(id, now, woken)
		q, ids, _ := pl.next(now, bandUrgent, bandBulk)
		require.Len(t, ids, 3)
		pl.finished(q)
		q, ids, _ = pl.next(now, bandUrgent, bandBulk)
		require.Equal(t, woken, q != nil, "a look into the store")
		require.Empty(t, ids)
	}
}

func TestAQueueThatCannotBeReadDoesNotHoldUpOthers(t *testing.T) {
	pl, clock := newPlan(8192)
	now := clock.Now()
	pl.overdue(smsQueue("far behind", delivery.Bulk), now, false)
	pl.add(hint{smsQueue("t", delivery.Bulk), someIDs(3 * maxHint)})
	turns := map[delivery.TenantID]int{}
	for range 4 {
		q, _, _ := pl.next(now, bandUrgent, bandBulk)
		pl.finished(q)
		turns[q.id.Tenant]++
		if q.id.Tenant != "t" {
			pl.block(q.id, now.Add(time.Second), 0, delivery.Standing{})
		}
	}
	require.Equal(t, map[delivery.TenantID]int{"far behind": 1, "t": 3}, turns)
	q, _, at := pl.next(now, bandUrgent, bandBulk)
	require.Nil(t, q)
	require.Equal(t, now.Add(time.Second), at, "then it is looked at again")
}

func TestClaimsAreSharedByLane(t *testing.T) {
	pl, clock := newPlan(1 << 20)
	now := clock.Now()
	got := map[delivery.Lane]int{}
	lanes := []delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk}
	for range 420 {
		for _, l := range lanes {
			st := pl.queue(smsQueue("t", l))
			st.ids = someIDs(maxHint)
			pl.list(st)
		}
		q, ids, _ := pl.next(now, bandUrgent, bandBulk)
		pl.finished(q)
		pl.claimed(q.id, len(ids), len(ids))
		pl.settled(q.id, len(ids), now)
		got[q.id.Lane]++
	}
	for i, parts := range []float64{16, 4, 1} {
		require.InDelta(t, 420*parts/21, got[lanes[i]], parts, lanes[i].String())
	}
}

// Two claim at the same time, one of them what is urgent and the other one the rest: who is first changes nothing.
func TestWhoClaimsWhat(t *testing.T) {
	pl, clock := newPlan(8192)
	now := clock.Now()
	bulk, urgent := smsQueue("t", delivery.Bulk), smsQueue("t", delivery.Urgent)
	pl.add(hint{bulk, someIDs(2 * maxHint)})
	q, _, _ := pl.next(now, bandUrgent, bandUrgent)
	require.Nil(t, q, "that is not urgent")
	first, _, _ := pl.next(now, bandUrgent+1, bandBulk)
	require.Equal(t, bulk, first.id)
	pl.add(hint{urgent, someIDs(2 * maxHint)})
	second, ids, _ := pl.next(now, bandUrgent, bandUrgent)
	require.Equal(t, urgent, second.id, "it does not wait for the other batch")
	require.Len(t, ids, maxHint)
	for _, bands := range [][2]band{{bandUrgent, bandUrgent}, {bandUrgent + 1, bandBulk}, {bandUrgent, bandBulk}} {
		q, _, _ := pl.next(now, bands[0], bands[1])
		require.Nil(t, q, "the second batch must not overtake the first")
	}
	pl.finished(second)
	q, _, _ = pl.next(now, bandUrgent+1, bandBulk)
	require.Nil(t, q, "that is urgent")
	q, _, _ = pl.next(now, bandUrgent, bandUrgent)
	require.Equal(t, urgent, q.id)
	pl.finished(q)
	pl.finished(first)
	q, _, _ = pl.next(now, bandUrgent+1, bandBulk)
	require.Equal(t, bulk, q.id)
}
