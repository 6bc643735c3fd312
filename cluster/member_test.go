package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/cluster"
	"github.com/msgctl/msgctl/cluster/clustertest"
	"github.com/msgctl/msgctl/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ttl = 600 * time.Millisecond

// node is a member with what it was told.
type node struct {
	*cluster.Member
	view *clustertest.View
	stop func()

	mu      sync.Mutex
	applied []store.Change
	gaps    int
	fail    error // of the next Apply
}

func (n *node) seen() []store.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.applied)
}

// meet makes a member; it is not known yet.
func meet(t *testing.T, s *clustertest.Shared, name string, change ...func(*cluster.Options)) *node {
	n := &node{view: s.View()}
	opt := cluster.Options{
		Nodes: n.view, Name: name, Roles: cluster.Roles(), TTL: ttl, Clock: cluster.NewClock(clockwork.NewRealClock()),
		Metrics: prometheus.NewRegistry(),
		Apply: func(_ context.Context, c store.Changes) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if err := n.fail; err != nil {
				n.fail = nil
				return err
			}
			n.applied = append(n.applied, c.List...)
			if c.Gap {
				n.gaps++
			}
			return nil
		},
	}
	for _, f := range change {
		f(&opt)
	}
	n.Member = cluster.New(opt)
	n.stop = func() {}
	return n
}

// run lets a member join and live until the test ends or it is stopped.
func (n *node) begin(t *testing.T) *node {
	require.NoError(t, n.Join(t.Context(), "127.0.0.1:1"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.stop)
	return n
}

func soon(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, time.Minute, 5*time.Millisecond, what)
}

func state(t *testing.T, n *node, name string) store.Node {
	r, err := n.Roster(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(r.Nodes, func(x store.Node) bool { return x.Name == name })
	require.GreaterOrEqual(t, i, 0, name)
	return r.Nodes[i]
}

func TestLife(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a, b := meet(t, s, "a").begin(t), meet(t, s, "b", func(o *cluster.Options) { o.Roles = []string{cluster.API} }).begin(t)
	require.Empty(t, a.Held())
	soon(t, "they know of each other", func() bool { return state(t, a, "b").Alive && state(t, b, "a").Alive })
	soon(t, "only those count that send", func() bool { return a.Live() == 1 && b.Live() == 1 })
	names, _ := b.Senders()
	require.Equal(t, []string{"a"}, names)
	require.True(t, b.Lives("a#"+a.RunText()))
	require.False(t, b.Lives("a#"+b.RunText()), "another process of its name")
	require.False(t, b.Lives("a"), "no process")
	before := state(t, b, "a").Seen
	soon(t, "it goes on giving signs", func() bool { return state(t, b, "a").Seen.After(before) })

	a.Drain(t.Context())
	require.True(t, state(t, b, "a").Draining, "the others know at once")
	a.stop()
	require.NoError(t, a.Leave(t.Context()))
	require.False(t, state(t, b, "a").Alive, "it is gone at once")
	require.NoError(t, a.Leave(t.Context()), "twice")
	soon(t, "nobody sends", func() bool { return b.Live() == 0 })
}

func TestANameHasOneRun(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	twin := meet(t, s, "a")
	err := twin.Join(t.Context(), "")
	var taken *cluster.NameTakenError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, "127.0.0.1:1", taken.Address)
	for _, says := range []string{`"a"`, "127.0.0.1:1", "--node"} {
		require.ErrorContains(t, err, says)
	}
	require.Empty(t, a.Held(), "who has the name keeps it")
	require.NoError(t, twin.Leave(t.Context()))
	require.True(t, state(t, a, "a").Alive, "and who never had it takes nothing away")
}

func TestAKilledRunComesBack(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	a.stop() // without leaving
	again := meet(t, s, "a").begin(t)
	require.Empty(t, again.Held())
	require.NotEqual(t, a.RunID(), again.RunID())
	require.NotEqual(t, a.RunText(), again.RunText())
	require.Equal(t, again.RunID(), state(t, again, "a").Run)
}

func TestWhoIsTakenOverStops(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	a.view.Cut(true)
	meet(t, s, "a").begin(t)
	a.view.Cut(false)
	soon(t, "it has lost its name", func() bool { return kindOf(a.Held()) == "another process" })
	require.Error(t, a.Join(t.Context(), ""), "and cannot have it back")
}

func kindOf(s string) string {
	if len(s) < 15 {
		return s
	}
	return s[:15]
}

func TestCutOffFromTheStore(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	told := make(chan string, 1000)
	var a *node
	a = meet(t, s, "a", func(o *cluster.Options) {
		o.Beaten = func(context.Context) {
			select {
			case told <- a.Held():
			default:
			}
		}
	})
	a.begin(t)
	b := meet(t, s, "b").begin(t)
	a.view.Cut(true)
	soon(t, "it holds back", func() bool { return a.Held() != "" })
	require.Contains(t, a.Held(), "cut off from the store")
	require.Zero(t, a.Live(), "how many there are is not known")
	soon(t, "the others find it dead", func() bool { return !state(t, b, "a").Alive })
	a.view.Cut(false)
	soon(t, "it comes back by itself", func() bool { return a.Held() == "" })
	soon(t, "and counts again", func() bool { return state(t, b, "a").Alive && b.Live() == 2 })
	held, free := false, false
	soon(t, "the engine is told of both", func() bool {
		for len(told) > 0 {
			if h := <-told; h != "" {
				held = true
			} else if held {
				free = true
			}
		}
		return free
	})
}

// What a node does after a sign of life may take as long as the store lets it: the node lives on meanwhile.
func TestANodeLivesOnWhileItIsBusy(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	var calls atomic.Int64
	a := meet(t, s, "a", func(o *cluster.Options) {
		o.Beaten = func(ctx context.Context) {
			calls.Add(1)
			<-ctx.Done()
		}
	}).begin(t)
	soon(t, "it is busy", func() bool { return calls.Load() > 0 })
	before := state(t, a, "a").Seen
	soon(t, "it goes on giving signs", func() bool { return state(t, a, "a").Seen.Sub(before) > 2*ttl })
	require.Empty(t, a.Held())
	require.EqualValues(t, 1, calls.Load(), "one at a time")
}

// Before it goes on, a node that was cut off has followed what was changed meanwhile.
func TestBackInStepMeansFollowed(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	a.view.Late(true)
	a.view.Cut(true)
	soon(t, "it holds back", func() bool { return a.Held() != "" })
	s.Note(store.TenantChange, "acme", "")
	broken := errors.New("apply")
	a.mu.Lock()
	a.fail = broken
	a.mu.Unlock()
	a.view.Late(false)
	a.view.Cut(false)
	soon(t, "it goes on", func() bool { return a.Held() == "" })
	require.NotEmpty(t, a.seen(), "with the change, which it was offered again after a failure")
}

func TestChangesAreFollowedInOrderAndOnce(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	s.Note(store.TenantChange, "old", "")
	a := meet(t, s, "a").begin(t)
	want := 1200 // more than two pages
	for i := range want {
		s.Note(store.CampaignChange, "acme", fmt.Sprint(i))
	}
	soon(t, "all of them", func() bool { return len(a.seen()) >= want })
	for i, c := range a.seen() {
		require.Equal(t, fmt.Sprint(i), c.ID, "nothing from before it joined, nothing twice")
	}
	require.Zero(t, a.gaps)
}

func TestAGapIsTold(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	a.view.Late(true)
	s.Note(store.TenantChange, "acme", "")
	s.Forget()
	a.view.Late(false)
	soon(t, "the gap", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.gaps > 0 })
}

// Once everything was read anew, a store that was put back to an earlier state is followed like any other.
func TestAStoreThatWasPutBackIsReadAnewOnce(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	for range 5 {
		s.Note(store.TenantChange, "acme", "")
	}
	soon(t, "followed", func() bool { return len(a.seen()) == 5 })
	s.Rewind(3)
	gaps := func() int { a.mu.Lock(); defer a.mu.Unlock(); return a.gaps }
	soon(t, "the gap", func() bool { a.Look(); return gaps() > 0 })
	for range 3 {
		before := len(a.seen())
		s.Note(store.TenantChange, "other", "")
		a.Look()
		soon(t, "followed", func() bool { return len(a.seen()) == before+1 })
	}
	require.Equal(t, 1, gaps())
}

func TestNewsMakeItLookAtOnce(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a := meet(t, s, "a").begin(t)
	for range 20 {
		s.Note(store.TenantChange, "acme", "")
		before := len(a.seen())
		a.Look()
		soon(t, "followed", func() bool { return len(a.seen()) > before })
	}
}

func TestSettleWaitsForTheLiving(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	a, b, c := meet(t, s, "a").begin(t), meet(t, s, "b").begin(t), meet(t, s, "c").begin(t)
	c.stop() // killed: nobody waits for it longer than it counts as alive
	var wg sync.WaitGroup
	for range 20 { // they share their looks
		wg.Go(func() {
			s.Note(store.TenantChange, "acme", "")
			r, err := a.Roster(context.Background())
			if err != nil || len(a.Settle(context.Background())) > 0 {
				t.Error("not settled", err)
			}
			if n := len(b.seen()); int64(n) < r.Changed {
				t.Errorf("settled, but b has followed only %d of %d", n, r.Changed)
			}
		})
	}
	wg.Wait()

	b.view.Late(true)
	s.Note(store.TenantChange, "acme", "")
	require.Equal(t, []string{"b"}, a.Settle(t.Context()), "bounded, and it names who has not confirmed")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.NotEmpty(t, a.Settle(gone), "a caller who has gone waits for nothing")
	b.view.Late(false)
	require.Empty(t, a.Settle(t.Context()))
	a.view.Cut(true)
	require.Equal(t, []string{"?"}, a.Settle(t.Context()))
}

func TestEachPieceOfWorkHasOneNode(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, meet(t, s, name).begin(t))
	}
	apiOnly := meet(t, s, "d", func(o *cluster.Options) { o.Roles = []string{cluster.API} }).begin(t)
	owners := func(work string) (names []string) {
		for _, n := range nodes {
			if n.Mine(cluster.Schedule, work) {
				names = append(names, n.Name())
			}
		}
		return names
	}
	const works = 300
	split := func() map[string]int {
		count := map[string]int{}
		for w := range works {
			o := owners(fmt.Sprint(w))
			if len(o) != 1 {
				return nil
			}
			count[o[0]]++
		}
		return count
	}
	soon(t, "they agree", func() bool {
		c := split()
		return len(c) == 3 && c["a"] > works/6 && c["b"] > works/6 && c["c"] > works/6
	})
	require.False(t, apiOnly.Mine(cluster.Schedule, "x"))
	before := map[string]string{}
	for w := range works {
		before[fmt.Sprint(w)] = owners(fmt.Sprint(w))[0]
	}
	nodes[2].Drain(t.Context())
	soon(t, "a draining node gives all of its work to the others", func() bool {
		c := split()
		return len(c) == 2 && c["c"] == 0
	})
	for w, was := range before {
		if was != "c" {
			require.Equal(t, []string{was}, owners(w), "nobody else's work moves")
		}
	}
}

func TestSkew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		ahead time.Duration
		held  bool
	}{
		{"right", 0, false}, {"a little", 200 * time.Millisecond, false}, {"behind by seconds", -10 * time.Second, false},
		{"ahead by seconds", 20 * time.Second, false}, {"far ahead", time.Minute, true}, {"far behind", -time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := clustertest.New(nil, func() time.Time { return time.Now().Add(-c.ahead) })
			clock := cluster.NewClock(clockwork.NewRealClock())
			n := meet(t, s, "a", func(o *cluster.Options) { o.Clock = clock }).begin(t)
			require.InDelta(t, c.ahead.Seconds(), n.Skew().Seconds(), 0.2)
			require.Equal(t, c.held, n.Held() != "", n.Held())
			off := time.Since(clock.Now()) - c.ahead
			if c.ahead.Abs() <= 250*time.Millisecond {
				off += c.ahead // it is left as it is
			}
			require.Less(t, off.Abs(), time.Second, "the node goes by the store's time")
			if c.held {
				require.Contains(t, n.Held(), "the clock is wrong")
				require.Contains(t, n.Held(), "NTP")
			}
		})
	}
}

// settable is a clock that can be set, and tells like the real one how much time has gone by.
type settable struct {
	clockwork.Clock
	set atomic.Int64 // a time.Duration
}

func (c *settable) Now() time.Time { return c.Clock.Now().Round(0).Add(time.Duration(c.set.Load())) }

func (c *settable) Since(t time.Time) time.Duration { return c.Clock.Now().Round(0).Sub(t) }

// To set a node's clock must not make it think for a moment that the leases of all others are over.
func TestAClockThatIsSetMeanwhile(t *testing.T) {
	t.Parallel()
	s := clustertest.New(nil, time.Now)
	own := &settable{Clock: clockwork.NewRealClock()}
	clock := cluster.NewClock(own)
	n := meet(t, s, "a", func(o *cluster.Options) { o.Clock = clock }).begin(t)
	right := func() {
		t.Helper()
		before := time.Now().Round(0)
		now := clock.Now()
		require.True(t, now.After(before.Add(-time.Second)) && now.Before(time.Now().Round(0).Add(time.Second)))
	}
	right()
	for _, far := range []time.Duration{10 * time.Second, -10 * time.Second} {
		own.set.Store(int64(far))
		right()
		require.Contains(t, n.Held(), "the clock was set, or the machine stood still")
		soon(t, "it goes on", func() bool { return n.Held() == "" })
		require.InDelta(t, far.Seconds(), n.Skew().Seconds(), 0.5, "which is said")
		right()
	}
	own.set.Store(int64(time.Hour))
	soon(t, "a clock that is far off stops it", func() bool { return strings.Contains(n.Held(), "the clock is wrong") })
	right()
	own.set.Store(0)
	soon(t, "until it is mended", func() bool { return n.Held() == "" })
	right()
}
