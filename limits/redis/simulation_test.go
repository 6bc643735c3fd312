package redis

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
)

// world is a cluster whose clock the test turns: the nodes' loops run when it says so, and Redis goes by the same clock.
type world struct {
	t     testing.TB
	now   time.Time
	nodes []*Limiter
	cut   []bool // from Redis
	turns int    // taken; each time another node is first
	crew  crew
	name  string
	seen  map[limits.Key][]sent
	rates map[limits.Key]limits.Rate
}

type sent struct {
	at   time.Time
	cost float64
}

func newWorld(t testing.TB, url string, n int, credit int64) *world {
	w := &world{
		t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), cut: make([]bool, n),
		seen: map[limits.Key][]sent{}, rates: map[limits.Key]limits.Rate{},
	}
	w.crew = newCrew(n)
	for i := range n {
		w.nodes = append(w.nodes, w.process(url, i, credit))
	}
	return w
}

// process is a new process of a node.
func (w *world) process(url string, i int, credit int64) *Limiter {
	p := defaultPace()
	p.settled, p.credit = w.crew.settled(), credit
	p.timeout, p.dial = 5*time.Second, 5*time.Second // of real time
	l, err := prepare(Options{
		URL: url, Node: nodeName(i), Members: func() ([]string, bool) { return w.crew.members(i) },
		Now: func() time.Time { return w.now },
	}, p)
	require.NoError(w.t, err)
	l.pace.timeout = 100 * time.Millisecond // of the protocol
	l.patience = 5 * time.Second
	l.virtual = true
	return l
}

func nodeName(i int) string { return fmt.Sprint("node-", i) }

func (w *world) close() {
	for _, l := range w.nodes {
		require.NoError(w.t, l.client.Close())
	}
}

// pass turns the clock, and lets each node do what its loop would have done by then.
// Halted ones do nothing.
func (w *world) pass(d time.Duration, halted ...int) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(4*time.Millisecond, end.Sub(w.now)))
		w.turns++
		w.crew.hear(w.now)
		for i := range w.nodes {
			if i = (i + w.turns) % len(w.nodes); !slices.Contains(halted, i) && !w.crew.dead[i] {
				w.turn(i, w.nodes[i])
			}
		}
	}
}

func (w *world) turn(i int, l *Limiter) {
	l.survey()
	if !w.cut[i] {
		l.step(background)
		return
	}
	l.mu.Lock()
	t := l.clock()
	due := l.link.session != 0 && l.due(t) <= t
	if due {
		l.collect("call") // what it would have said is lost
	}
	l.mu.Unlock()
	if due {
		l.fail("cut")
	}
}

func (w *world) reserve(i int, cost float64, bounds ...limits.Bound) bool {
	if w.crew.dead[i] {
		return false
	}
	d, err := w.nodes[i].Reserve(background, w.now, bounds, cost)
	require.NoError(w.t, err)
	if !d.Go {
		require.True(w.t, d.NotBefore.After(w.now), "refused with NotBefore in the past")
		return false
	}
	for _, b := range bounds {
		w.seen[b.Key] = append(w.seen[b.Key], sent{w.now, cost})
		w.rates[b.Key] = b.Rate
	}
	return true
}

// check counts every window that begins and ends with a grant.
func (w *world) check() {
	for k, rate := range w.rates {
		g := w.seen[k]
		for i := range g {
			sum := 0.0
			for j := i; j < len(g); j++ {
				sum += g[j].cost
				span := g[j].at.Sub(g[i].at)
				if allowed := rate.PerSecond*span.Seconds() + rate.Burst; sum > allowed+1e-6 {
					require.FailNow(w.t, "a limit was passed", "%s: %+v at %+v: %v in %v from %v on", w.name, k, rate, sum, span,
						g[i].at.Format("05.000"))
				}
			}
		}
	}
}

func flush(t testing.TB, url string) {
	ro, err := goredis.ParseURL(url)
	require.NoError(t, err)
	c := goredis.NewClient(ro)
	defer c.Close()
	require.NoError(t, c.FlushDB(background).Err())
}

// Nodes are cut off and come back, halt, or are slow; Redis forgets everything; load comes and goes; in every second run
// nodes join and go, by a roster that each reads at another time: no limit is ever passed.
func TestNoWindowIsEverPassed(t *testing.T) {
	url := servers.Redis(t).URL
	passed := 0
	for seed := range *seeds {
		flush(t, url)
		w := simulate(t, url, rand.New(rand.NewPCG(seed, 7)), seed%2 == 1)
		w.name = fmt.Sprintf("seed %d", seed)
		w.check()
		for _, g := range w.seen {
			passed += len(g)
		}
	}
	t.Logf("%d messages", passed)
	require.Greater(t, passed, int(*seeds)*50)
}

var seeds = flag.Uint64("seeds", 60, "how many random runs of the simulation")

func simulate(t *testing.T, url string, r *rand.Rand, changing bool) *world {
	n := 1 + r.IntN(4)
	w := newWorld(t, url, n, 0)
	defer w.close()
	kinds := 8
	if changing {
		kinds = 13
		w.crew.changing = true
		w.crew.late = func() time.Duration { return time.Duration(r.Int64N(int64(beats))) }
		for _, l := range w.nodes {
			l.pace.settled = w.crew.settled()
		}
	}
	var bounds []limits.Bound
	for i := range 3 {
		bounds = append(bounds, limits.Bound{
			Key:  limits.Key{Account: delivery.AccountID{byte(i)}},
			Rate: limits.Rate{PerSecond: math.Exp(r.Float64() * 6), Burst: float64(1 + r.IntN(1+r.IntN(20)))},
		})
	}
	for range 8 {
		i := r.IntN(n)
		switch r.IntN(kinds) {
		case 0, 1, 2:
			w.cut[i] = !w.cut[i]
		case 3:
			clear(w.cut)
		case 4:
			flush(t, url)
		case 5: // all are busy
			w.now = w.now.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
		case 8, 9, 10: // a process dies, or leaves, or its sign of life does not reach the store any more
			how := r.IntN(3)
			if !w.crew.in[i] {
				break
			}
			if how == 1 && !w.cut[i] {
				w.nodes[i].leave()
			}
			w.crew.goes(w.now, i, how < 2)
		default:
			if w.crew.in[i] {
				break
			}
			if w.crew.dead[i] {
				require.NoError(t, w.nodes[i].client.Close())
				w.nodes[i] = w.process(url, i, 0)
			}
			w.crew.comes(w.now, i)
		}
		asks := make([]int, n) // for which bounds
		for i := range asks {
			asks[i] = r.IntN(7)
		}
		halted := r.IntN(4*n) - 3*n // spends what it has, but its loop stands still
		every, ticks, patient := 1+r.IntN(10), r.IntN(200), r.IntN(3) == 0
		for tick := range ticks {
			w.pass(time.Duration(every)*time.Millisecond, halted)
			for i := range n {
				i = (i + tick) % n
				if asks[i] > 5 || patient && tick%17 < 16 && r.IntN(10) > 0 {
					continue
				}
				ask := [][]limits.Bound{bounds[:1], bounds[1:2], bounds[2:], bounds[:2], bounds[1:], bounds}[asks[i]]
				for range 100 {
					if !w.reserve(i, 1, ask...) {
						break
					}
				}
			}
		}
	}
	return w
}
