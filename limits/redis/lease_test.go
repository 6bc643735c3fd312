package redis

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
)

func limit(i byte, perSecond, burst float64) limits.Bound {
	return limits.Bound{
		Key: limits.Key{Account: delivery.AccountID{i}}, Rate: limits.Rate{PerSecond: perSecond, Burst: burst},
	}
}

// settled is a cluster of n nodes that all have a session, and owe nothing.
func settled(t *testing.T, n int) *world {
	w := newWorld(t, servers.Redis(t).URL, n, 1e15)
	t.Cleanup(w.close)
	w.pass(500 * time.Millisecond)
	for _, l := range w.nodes {
		require.True(t, l.link.full)
	}
	return w
}

// drain asks for 1 until nothing comes any more, at most for a second.
func (w *world) drain(i int, bounds ...limits.Bound) (n int) {
	for idle := 0; idle < 50; idle++ {
		for w.reserve(i, 1, bounds...) {
			n++
			idle = 0
		}
		w.pass(2 * time.Millisecond)
	}
	return n
}

// A permit of a slow limit that one node has leased and not used is there for another one, undiminished.
func TestUnusedPermitsAreGivenBack(t *testing.T) {
	w := settled(t, 3)
	slow, blocked := limit(1, 1.0/3600, 5), limit(2, 1.0/3600, 3)
	require.Equal(t, 3, w.drain(0, blocked))
	for range 20 { // wants both, gets one
		for i := range w.nodes {
			require.False(t, w.reserve(i, 1, slow, blocked))
			w.pass(10 * time.Millisecond)
		}
	}
	w.pass(200 * time.Millisecond)
	require.Equal(t, 5, w.drain(1, slow), "some were lost")
	require.Equal(t, 0, w.drain(2, slow), "some came from nowhere")
}

// The same when nodes say goodbye with permits in hand.
func TestLeavingGivesBack(t *testing.T) {
	w := settled(t, 2)
	slow := limit(1, 1.0/3600, 4)
	require.False(t, w.reserve(0, 3, slow))
	w.pass(4 * time.Millisecond)
	require.Greater(t, w.nodes[0].buckets.all[0].have, 0.0)
	w.nodes[0].leave()
	require.Equal(t, 4, w.drain(1, slow))
}

// What a node held that is gone without a word counts as sent: it may have been.
func TestWhatALostNodeHeldCountsAsSent(t *testing.T) {
	w := settled(t, 1)
	slow := limit(1, 1.0/3600, 4)
	require.False(t, w.reserve(0, 3, slow))
	w.pass(4 * time.Millisecond)
	require.Equal(t, 3.0, w.nodes[0].buckets.all[0].have)
	w.nodes[0].fail("lost")
	for range 10 { // it is back before it would give anything back
		if w.pass(4 * time.Millisecond); w.nodes[0].link.session != 0 {
			break
		}
	}
	require.NotZero(t, w.nodes[0].link.session)
	require.Equal(t, 1, w.drain(0, slow))
}

// While one of three nodes is cut off, the others have two thirds of a burst that can be divided, and it has the last.
func TestShares(t *testing.T) {
	w := settled(t, 3)
	wide, narrow := limit(1, 30, 30), limit(2, 2, 2)
	w.cut[2] = true
	w.pass(20 * time.Second)
	require.False(t, w.nodes[0].link.full)
	require.InDelta(t, 20, w.burst(0, wide), 0.1)
	require.InDelta(t, 0, w.burst(1, wide), 0.1)
	require.InDelta(t, 10, w.burst(2, wide), 0.1)
	// A limit that cannot be divided is one node's.
	all := 0
	for i := range w.nodes {
		got := w.burst(i, narrow)
		require.Contains(t, []int{0, 2}, got)
		all += got
	}
	w.check()
	require.Equal(t, 2, all)
	// What was sent alone is debt when the node comes back.
	w.cut[2] = false
	w.pass(time.Second)
	require.Less(t, w.burst(0, wide), 31)
	w.check()
}

// burst is what passes within a few milliseconds.
func (w *world) burst(i int, bounds ...limits.Bound) (n int) {
	for range 12 {
		for w.reserve(i, 1, bounds...) {
			n++
		}
		w.now = w.now.Add(time.Millisecond)
		if !w.cut[i] {
			l := w.nodes[i]
			l.mu.Lock()
			l.link.sent -= int64(time.Second)
			l.mu.Unlock()
			w.turn(i, l)
		}
	}
	return n
}

// A provider's "slow down" holds on the node that heard it at once, and on the others with their next call; it survives
// a Redis that forgets, and a shorter one does not cut it.
func TestPauseIsShared(t *testing.T) {
	w := settled(t, 3)
	b := limit(1, 1000, 100)
	for i := range w.nodes {
		require.Positive(t, w.burst(i, b))
	}
	until := w.now.Add(10 * time.Second)
	require.NoError(t, w.nodes[0].Pause(background, b.Key, until))
	require.False(t, w.reserve(0, 1, b))
	w.pass(100 * time.Millisecond)
	require.NoError(t, w.nodes[1].Pause(background, b.Key, w.now.Add(time.Second)))
	for i, l := range w.nodes {
		w.pass(20 * time.Millisecond)
		require.False(t, w.reserve(i, 1, b))
		w.pass(20 * time.Millisecond)
		d, err := l.Reserve(background, w.now, []limits.Bound{b}, 1)
		require.NoError(t, err)
		require.False(t, d.Go)
		require.Equal(t, -1, d.Blocking)
		require.WithinDuration(t, until, d.NotBefore, 2*time.Millisecond)
	}
	flush(t, w.nodes[0].url())
	w.pass(5 * time.Second)
	for i := range w.nodes {
		require.Zero(t, w.drain(i, b))
	}
	w.now = until.Add(5 * time.Millisecond)
	w.pass(500 * time.Millisecond)
	require.Positive(t, w.burst(2, b))
}

func (l *Limiter) url() string {
	o := l.client.Options()
	return fmt.Sprintf("redis://%s:%s@%s/%d", o.Username, o.Password, o.Addr, o.DB)
}

// A clock of Redis that jumps forward must not pay anything off.
func TestRedisClockJumps(t *testing.T) {
	w := settled(t, 1)
	slow := limit(1, 1.0/3600, 4)
	require.Equal(t, 4, w.drain(0, slow))
	w.nodes[0].pace.credit = 0
	for _, jump := range []time.Duration{5 * time.Hour, -3 * time.Hour} {
		w.nodes[0].skew += jump.Microseconds()
		w.pass(2 * time.Second)
		require.NotZero(t, w.nodes[0].link.session, "the session does not come back after %v", jump)
		require.Zero(t, w.drain(0, slow), "after %v", jump)
	}
}

func TestForgetsUnusedLimits(t *testing.T) {
	w := settled(t, 1)
	for i := range 100 {
		w.reserve(0, 1, limit(byte(i), 1000, 100))
	}
	l := w.nodes[0]
	require.NoError(t, l.Pause(background, limit(200, 1, 1).Key, w.now.Add(time.Hour)))
	w.pass(2 * time.Second)
	require.Empty(t, l.active)
	w.pass(60 * time.Second)
	for range 500 {
		l.tidy(l.clock())
	}
	require.Equal(t, 1, l.Stats().Keys, "all but the one that is paused")
}

func reserve(t *testing.T, l *Limiter, bounds ...limits.Bound) bool {
	d, err := l.Reserve(background, time.Now(), bounds, 1)
	require.NoError(t, err)
	return d.Go
}

func TestReserveAllocatesNothing(t *testing.T) {
	w := settled(t, 1)
	bounds := []limits.Bound{limit(1, 1e9, 1e9), limit(2, 1e9, 1e9), limit(3, 1e9, 1e9)}
	for !w.reserve(0, 1, bounds...) {
		w.pass(5 * time.Millisecond)
	}
	for _, b := range w.nodes[0].buckets.all {
		b.have = 1e6
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		d, _ := w.nodes[0].Reserve(background, w.now, bounds, 1)
		require.True(t, d.Go)
	}))
}

func BenchmarkReserveThreeBounds(b *testing.B) {
	server := servers.NewRedis(b)
	l, err := Open(background, Options{URL: server.URL, Nodes: func() int { return 1 }})
	require.NoError(b, err)
	defer l.Close()
	bounds := []limits.Bound{limit(1, 1e9, 1e9), limit(2, 1e9, 1e9), limit(3, 1e9, 1e9)}
	refused := 0
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := l.Reserve(background, time.Now(), bounds, 1); !d.Go {
			refused++
		}
	}
	b.ReportMetric(float64(refused)/float64(b.N), "refused/op")
	b.ReportMetric(float64(l.Stats().Calls)/b.Elapsed().Seconds(), "calls/s")
}

// One call for many limits.
func BenchmarkCall(b *testing.B) {
	for _, keys := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			w := newWorld(b, servers.Redis(b).URL, 1, 1e15)
			defer w.close()
			w.pass(100 * time.Millisecond)
			for b.Loop() {
				for i := range keys {
					w.reserve(0, 1, limit(byte(i), 1e6, 1e6))
				}
				w.now = w.now.Add(60 * time.Millisecond)
				w.nodes[0].exchange(background, "call")
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*keys), "µs/limit")
		})
	}
}

// With demand at every node nothing of a limit stays unused, however many nodes there are, and they all get some.
func TestFullSpeed(t *testing.T) {
	for n, span := range map[int]time.Duration{1: 3 * time.Second, 3: 3 * time.Second, 20: 2 * time.Second} {
		w := settled(t, n)
		bounds := []limits.Bound{limit(1, 500, 25), limit(2, 20, 1), limit(3, 150, 150)}
		next := make([][3]time.Time, n)
		served := map[[2]int]bool{}
		began := w.now
		for w.now.Sub(began) < span {
			w.pass(2 * time.Millisecond)
			for i, l := range w.nodes {
				for j, b := range bounds {
					for !w.now.Before(next[i][j]) {
						d, err := l.Reserve(background, w.now, []limits.Bound{b}, 1)
						require.NoError(t, err)
						if next[i][j] = d.NotBefore; d.Go {
							w.seen[b.Key], w.rates[b.Key] = append(w.seen[b.Key], sent{w.now, 1}), b.Rate
							served[[2]int{i, j}] = true
						}
					}
				}
			}
		}
		w.check()
		for j, b := range bounds {
			passed, possible := len(w.seen[b.Key]), b.Rate.PerSecond*span.Seconds()
			t.Logf("%d nodes, %+v: %d of %v", n, b.Rate, passed, possible)
			require.GreaterOrEqual(t, float64(passed), 0.9*possible)
			if j == 0 {
				for i := range n {
					require.True(t, served[[2]int{i, j}], "node %d got nothing", i)
				}
			}
		}
	}
}
