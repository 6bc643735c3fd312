package redis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
