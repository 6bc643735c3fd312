package redis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
)

// What happens at the moments when somebody else begins to use a limit. In each case a halted node spends the lease that
// it has as late as it can.

// owned returns a limit that cannot be divided and is the given node's when Redis is away.
func owned(t *testing.T, w *world, node int, perSecond float64) limits.Bound {
	l := w.nodes[node]
	for i := range 100 {
		b := limit(byte(i), perSecond, 1)
		if first(name(l.opt.Prefix, b.Key), l.opt.Node, l.alone.members) {
			return b
		}
	}
	require.FailNow(t, "no limit is this node's")
	return limits.Bound{}
}

// leased lets a node have a permit of b, unspent; false = it gets none any more.
func (w *world) leased(i int, b limits.Bound) bool {
	w.t.Helper()
	require.False(w.t, w.reserve(i, 1, b))
	w.rates[b.Key] = b.Rate
	for range 20 {
		w.pass(time.Millisecond)
		if w.nodes[i].buckets.byKey[b.Key].have >= 1 {
			return true
		}
	}
	return false
}

// contend has node a's loop stand still while the other ones do as they like and ask for b all the time. Before each of
// a's requests, which it makes from a time on, everybody else has had his chance.
func (w *world) contend(a int, b limits.Bound, from, span time.Duration) {
	begun := w.now
	for w.now.Sub(begun) < span {
		w.pass(2*time.Millisecond, a)
		for i := range w.nodes {
			if i != a || w.now.Sub(begun) >= from {
				w.reserve(i, 1, b)
			}
		}
	}
	w.check()
}

func TestALeaseEndsBeforeRedisGivesItAway(t *testing.T) {
	for from := 200 * time.Millisecond; from < 400*time.Millisecond; from += 10 * time.Millisecond {
		w := settled(t, 2)
		b := limit(1, 20, 3)
		require.True(t, w.leased(0, b))
		w.contend(0, b, from, time.Second)
	}
}

func TestALeaseOutlivesWhatRedisForgets(t *testing.T) {
	for from := 100 * time.Millisecond; from < 300*time.Millisecond; from += 10 * time.Millisecond {
		w := settled(t, 4)
		for _, l := range w.nodes {
			l.pace.credit = 0
		}
		b := limit(1, 100, 4)
		require.False(t, w.reserve(0, 4, b)) // and so it has the whole burst
		w.rates[b.Key] = b.Rate
		w.pass(4 * time.Millisecond)
		require.Equal(t, 4.0, w.nodes[0].buckets.byKey[b.Key].have)
		flush(t, w.nodes[0].url())
		w.contend(0, b, from, time.Second)
	}
}

// The node whose limit it becomes is cut off; another one still has a lease.
func TestTheOwnerWaitsForLeases(t *testing.T) {
	for from := 100 * time.Millisecond; from < 600*time.Millisecond; from += 10 * time.Millisecond {
		w := settled(t, 2)
		w.pass(100 * time.Millisecond)
		b := owned(t, w, 0, 100)
		w.cut[0] = true
		w.pass(100 * time.Millisecond)
		require.True(t, w.leased(1, b))
		w.contend(1, b, from, time.Second)
	}
}

// The node whose limit it becomes has a session; the one that is cut off is a third one.
func TestTheOwnerInSessionWaitsForLeases(t *testing.T) {
	tried := 0
	for before := 180 * time.Millisecond; before < 260*time.Millisecond; before += 8 * time.Millisecond {
		for from := 20 * time.Millisecond; from < 300*time.Millisecond; from += 20 * time.Millisecond {
			w := settled(t, 3)
			b := owned(t, w, 0, 100)
			w.cut[2] = true
			w.pass(before)
			if w.nodes[1].link.full && w.leased(1, b) {
				w.contend(1, b, from, 700*time.Millisecond)
				tried++
			}
		}
	}
	require.Greater(t, tried, 20)
}

// changing is a cluster of n nodes whose roster the test changes. All read at once what has changed.
func changing(t *testing.T, n int) *world {
	w := newWorld(t, servers.Redis(t).URL, n, 0)
	t.Cleanup(w.close)
	w.crew.changing = true
	w.crew.late = func() time.Duration { return 0 }
	return w
}

// unsettled is the same without Redis, when each node has its share.
func unsettled(t *testing.T, n int) *world {
	w := changing(t, n)
	for i := range w.cut {
		w.cut[i] = true
	}
	w.pass(time.Duration(w.nodes[0].link.aloneFrom)) // from then on each has its share
	return w
}

// visit gives all nodes Redis for a while.
func (w *world) visit(f func()) {
	clear(w.cut)
	w.pass(70 * time.Second) // whatever Redis began with is paid off
	f()
	for i := range w.cut {
		w.cut[i] = true
	}
}

// touch makes Redis know a limit, of which little is owed.
func (w *world) touch(b limits.Bound) {
	w.reserve(0, 1, b)
	w.pass(200 * time.Millisecond)
}

// use lets nodes pass what they can for a while.
func (w *world) use(b limits.Bound, span time.Duration, nodes ...int) {
	for end := w.now.Add(span); w.now.Before(end); w.pass(time.Millisecond) {
		for _, i := range nodes {
			for w.reserve(i, 1, b) {
				continue
			}
		}
	}
}

// All have read that a node has come before they ask for it: each goes by what it has found last.
func TestWhoComesWaitsUntilAllGoByIt(t *testing.T) {
	for late := range 20 {
		w := unsettled(t, 2)
		w.crew.goes(w.now, 1, false)
		b := limit(1, 1000, 2)
		w.use(b, 2*time.Second+time.Duration(late)*4*time.Millisecond, 0)
		w.crew.comes(w.now, 1)
		before := len(w.seen[b.Key])
		for end := w.now.Add(time.Second); w.now.Before(end); w.pass(time.Millisecond, 0) { // and asks for it rarely
			for i := range 2 {
				for w.reserve(i, 1, b) {
					continue
				}
			}
		}
		require.Greater(t, len(w.seen[b.Key]), before+700, "node 0 uses its half, and soon both do")
		w.check()
	}
}

// Who is gone may have used its part of the burst just before.
func TestThePartOfWhoIsGoneBeginsInDebt(t *testing.T) {
	w := unsettled(t, 2)
	b := limit(1, 1, 20)
	w.use(b, time.Second, 0, 1)
	w.pass(21 * time.Second) // all is paid off
	w.use(b, time.Millisecond, 1)
	require.Len(t, w.seen[b.Key], 10, "its part of the burst")
	w.crew.goes(w.now, 1, true)
	w.use(b, 12*time.Second, 0)
	require.Greater(t, len(w.seen[b.Key]), 29)
	w.check()
}

// The others may have divided the share of a node that does not know who is alive, also when it is the only one that
// Redis sees.
func TestWhoDoesNotKnowTheOthersPassesNothing(t *testing.T) {
	w := unsettled(t, 2)
	w.cut[1] = false
	b := limit(1, 100, 20)
	w.use(b, time.Second, 0, 1)
	w.crew.goes(w.now, 1, false)
	w.pass(100 * time.Millisecond)
	require.NotZero(t, w.nodes[1].link.session)
	for range 1000 {
		w.pass(4 * time.Millisecond)
		require.False(t, w.reserve(1, 1, b))
		w.reserve(0, 1, b)
	}
	w.check()
}

// A node that sends nothing is no stand-in for one that is cut off.
func TestWhoSendsNothingHasNoShare(t *testing.T) {
	w := changing(t, 3)
	w.crew.goes(w.now, 2, false)
	w.pass(4 * time.Millisecond)
	w.crew.in[2] = true // it knows of the others, who do not count it
	w.crew.counts[2][2] = false
	w.cut[1] = true
	w.pass(time.Duration(w.nodes[1].link.aloneFrom))
	require.NotZero(t, w.nodes[2].link.session)
	b := limit(1, 100, 10)
	w.use(b, 3*time.Second, 0, 1)
	w.check()
	require.Greater(t, len(w.seen[b.Key]), 250, "the two have it all")
}

// Who has left does not stand in for one that is cut off, when another has come meanwhile.
func TestWhoHasLeftHasNoShare(t *testing.T) {
	w := changing(t, 4)
	w.crew.goes(w.now, 3, false)
	w.pass(3 * time.Second)
	b := limit(1, 100, 10)
	w.nodes[2].leave()
	w.crew.goes(w.now, 2, true)
	w.crew.comes(w.now, 3)
	w.cut[3], w.cut[1] = true, true
	w.use(b, 12*time.Second, 0, 1, 3)
	w.check()
}

// What a node has sent alone counts also when it is killed before Redis is back, and when its limit is new to Redis.
func TestWhatWasSentAloneCountsAfterAKill(t *testing.T) {
	for _, known := range []bool{true, false} {
		for _, replaced := range []bool{true, false} {
			w := unsettled(t, 3)
			b := limit(1, 1, 60)
			w.visit(func() {
				if known {
					w.touch(b)
				}
			})
			w.pass(70 * time.Second)
			w.use(b, time.Millisecond, 2)
			require.GreaterOrEqual(t, len(w.seen[b.Key]), 20, "its share of the burst")
			w.crew.goes(w.now, 2, true)
			w.pass(2 * time.Second)
			if replaced {
				require.NoError(t, w.nodes[2].client.Close())
				w.nodes[2] = w.process(w.nodes[0].url(), 2, 0)
				w.crew.comes(w.now, 2)
			}
			clear(w.cut)
			w.use(b, 5*time.Second, 0, 1, 2)
			w.check()
		}
	}
}

// A debt that a call took along which never came is told by the next one.
func TestADebtIsToldUntilRedisHasHeard(t *testing.T) {
	w := unsettled(t, 2)
	b := limit(1, 1, 60)
	w.visit(func() { w.touch(b) })
	w.pass(70 * time.Second)
	before := len(w.seen[b.Key])
	w.use(b, time.Millisecond, 1)
	require.Equal(t, 30, len(w.seen[b.Key])-before)
	l := w.nodes[1]
	require.True(t, l.hello(background))
	l.mu.Lock()
	_, entries, _ := l.collect("join")
	l.mu.Unlock()
	l.untold(entries) // the call has failed
	l.fail("broken")
	clear(w.cut)
	w.use(b, 5*time.Second, 0, 1)
	w.check()
}

// Two nodes go one after the other: the part of each begins in debt.
func TestEachPartThatIsAddedBeginsInDebt(t *testing.T) {
	for _, perSecond := range []float64{1, 1.0 / 60} {
		w := unsettled(t, 3)
		b := limit(1, perSecond, 2)
		for _, l := range w.nodes {
			l.pace.settled = w.crew.settled()
		}
		all := time.Duration(6 / perSecond * float64(time.Second))
		w.use(b, time.Millisecond, 0, 1, 2)
		w.pass(all)
		w.crew.goes(w.now, 2, true)
		w.use(b, 4*time.Second, 0, 1)
		w.pass(all)
		w.use(b, time.Millisecond, 1, 0)
		w.crew.goes(w.now, 1, true)
		w.use(b, 8*time.Second, 0)
		w.check()
	}
}

// While a limit was too small to be divided, one node had it all. The others divide it only when that one has heard that
// there are fewer of them now, and in debt for what it may have passed.
func TestALimitIsDividedAgainWhenItsOwnerHasHeard(t *testing.T) {
	for _, perSecond := range []float64{200, 0.2} {
		for _, shared := range []bool{true, false} { // the other one has Redis
			w := newWorld(t, servers.Redis(t).URL, 3, 0)
			t.Cleanup(w.close)
			w.crew.changing = true
			for i := range w.nodes {
				w.nodes[i].pace.settled = w.crew.settled()
				w.cut[i] = i != 1 || !shared
			}
			w.pass(time.Duration(w.nodes[0].link.aloneFrom))
			b := owned(t, w, 0, perSecond)
			b.Rate.Burst = 2
			w.use(b, time.Millisecond, 0, 1)
			w.pass(time.Duration(8 / perSecond * float64(time.Second))) // by any clock nothing is owed
			w.use(b, 100*time.Millisecond, 0, 1)
			require.GreaterOrEqual(t, len(w.seen[b.Key]), 2, "node 0 has the limit")
			hears := 0
			w.crew.late = func() time.Duration { // node 0 last
				hears++
				return beats * time.Duration(hears%2)
			}
			w.crew.goes(w.now, 2, true)
			w.use(b, 8*time.Second, 0, 1)
			w.check()
			before := len(w.seen[b.Key])
			w.use(b, time.Second, 0, 1)
			require.GreaterOrEqual(t, len(w.seen[b.Key]), before+int(0.8*perSecond), "both use it")
			w.check()
		}
	}
}

// What a node knows of the others, as Redis is told and as its own parts begin: each rule for itself.
func TestWhatANodeGoesBy(t *testing.T) {
	a := alone{here: true, count: 3}
	require.Equal(t, -3, a.told(0), "not all count it")
	a.agreed, a.from = true, 100
	require.Equal(t, -3, a.told(99), "not all go by that yet")
	require.Equal(t, 3, a.told(100))
	a.here = false
	require.Equal(t, 0, a.told(100), "it sends nothing")

	p := pace{settled: 50, spread: 10}
	a = alone{}
	a.counted(2, 100, &p)
	require.Equal(t, []int64{unseen, 150}, []int64{int64(a.high), a.fell}, "there may have been more, who are gone")
	a = alone{count: 4}
	for _, n := range []int{3, 2} {
		for at := range int64(2) {
			a.counted(n, 1000*int64(4-n)+10*at, &p)
		}
	}
	require.Equal(t, []int64{4, 2060}, []int64{int64(a.high), a.fell}, "a later fall does not hide an earlier one")

	var b bucket
	b.begin(100, 1, 5)
	b.localTake(1, 200)
	owed := b.owed(200)
	b.begin(50, 1, 5)
	require.InDelta(t, owed, b.owed(200), 1e-9, "an earlier beginning pays nothing off")
}
