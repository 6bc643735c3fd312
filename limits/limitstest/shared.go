package limitstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
)

// Ask is a kind of request that every node makes over and over again.
type Ask struct {
	Bounds []limits.Bound
	Cost   float64
}

// Record is what passed at all nodes together.
type Record struct {
	mu     sync.Mutex
	rates  map[limits.Key]limits.Rate
	passed map[limits.Key][]pass
	failed error
}

// pass is a grant between two moments: when it was asked for and when it was there.
type pass struct {
	from, to time.Time
	cost     float64
	node     int
}

// Drive lets every node make all asks as fast as it is allowed to, in real time, until ctx ends. Each node waits until
// NotBefore and then asks again, as an engine does.
func Drive(ctx context.Context, nodes []limits.Limiter, asks []Ask) *Record {
	r := &Record{rates: map[limits.Key]limits.Rate{}, passed: map[limits.Key][]pass{}}
	for _, a := range asks {
		for _, b := range a.Bounds {
			r.rates[b.Key] = b.Rate
		}
	}
	var wg sync.WaitGroup
	for n, l := range nodes {
		for _, a := range asks {
			wg.Go(func() { r.drive(ctx, n, l, a) })
		}
	}
	wg.Wait()
	return r
}

func (r *Record) drive(ctx context.Context, node int, l limits.Limiter, a Ask) {
	var mine []pass
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, b := range a.Bounds {
			r.passed[b.Key] = append(r.passed[b.Key], mine...)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for ctx.Err() == nil {
		from := time.Now()
		d, err := l.Reserve(ctx, from, a.Bounds, a.Cost)
		to := time.Now()
		switch {
		case err == nil && d.Go:
			mine = append(mine, pass{from, to, a.Cost, node})
			continue
		case err == nil && !d.NotBefore.After(from):
			err = fmt.Errorf("refused at %v, with NotBefore %v", from, d.NotBefore)
		case err == nil && to.Sub(from) > time.Second:
			err = fmt.Errorf("a Reserve took %v", to.Sub(from))
		}
		if err != nil {
			r.mu.Lock()
			r.failed = err
			r.mu.Unlock()
			return
		}
		timer.Reset(max(0, time.Until(d.NotBefore)))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
}

// Check fails the test for every limit that was passed in any window, and for a Reserve that failed. A grant has taken
// some time itself; the window is counted as long as it may have been.
func (r *Record) Check(t testing.TB) {
	t.Helper()
	if r.failed != nil {
		t.Fatal(r.failed)
	}
	for k, rate := range r.rates {
		ps := r.passed[k]
		slices.SortFunc(ps, func(a, b pass) int { return a.to.Compare(b.to) })
		worst, over, first := 0.0, 0.0, 0
		open, sum := 0.0, 0.0 // the window in which most has passed beyond its rate, up to here
		for i, p := range ps {
			begin := p.from.Sub(ps[0].from).Seconds()*rate.PerSecond - sum
			if i == 0 || begin > open {
				open = begin
			}
			sum += p.cost
			burst := max(rate.Burst, p.cost)
			if over = open + sum - p.to.Sub(ps[0].from).Seconds()*rate.PerSecond - burst; over > worst {
				worst, first = over, i
			}
		}
		if worst > 1e-6 {
			t.Errorf("%+v at %+v: %.3f more than rate × time + burst up to the grant at %v of node %d",
				k, rate, worst, ps[first].to.Sub(ps[0].from), ps[first].node)
		}
	}
}

// Used returns the part of a limit's rate that passed in a span that begins after from and ends before to.
func (r *Record) Used(k limits.Key, from, to time.Time) float64 {
	sum := 0.0
	for _, p := range r.passed[k] {
		if p.from.After(from) && p.to.Before(to) {
			sum += p.cost
		}
	}
	return sum / (r.rates[k].PerSecond * to.Sub(from).Seconds())
}

// Nodes returns how many nodes something passed at.
func (r *Record) Nodes(k limits.Key) int {
	seen := map[int]bool{}
	for _, p := range r.passed[k] {
		seen[p.node] = true
	}
	return len(seen)
}

// Shared checks limiters that several nodes share, in real time. Open returns the limiters of so many nodes, all over the
// same state, which is without any history. No limit is ever passed; and at least nine tenths of each are used, in one of
// three attempts. An attempt does not count when the machine is so busy with other things that timers come late.
func Shared(t *testing.T, counts []int, open func(t *testing.T, nodes int) []limits.Limiter) {
	for _, n := range counts {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			ls := open(t, n)
			for counted, attempt := 0, 0; counted < 3 && attempt < 3; attempt++ {
				unused, busy := share(t, ls)
				switch {
				case len(unused) == 0:
					return
				case !busy:
					counted++
				}
				if counted == 3 {
					t.Fatalf("too little was used of %v", unused)
				}
			}
			t.Log("the machine is too busy to tell how much can be used")
		})
	}
}

// share drives the nodes for a while and returns the limits that could have been used more.
func share(t *testing.T, ls []limits.Limiter) (unused []limits.Rate, busy bool) {
	asks := Mixed()
	ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
	defer cancel()
	began := time.Now()
	late := make(chan bool)
	go func() { late <- lateTimers(ctx) }()
	r := Drive(ctx, ls, asks)
	busy = <-late
	r.Check(t)
	for k, rate := range r.rates {
		used := r.Used(k, began.Add(500*time.Millisecond), began.Add(2500*time.Millisecond))
		t.Logf("%v per second, burst %v: %.1f %% used, at %d of %d nodes", rate.PerSecond, rate.Burst, 100*used,
			r.Nodes(k), len(ls))
		if used < 0.9 && binding(asks, k) {
			unused = append(unused, rate)
		}
	}
	return unused, busy
}

// lateTimers says whether timers come a fifth later than they should, on average, until ctx ends.
func lateTimers(ctx context.Context) bool {
	const step = 5 * time.Millisecond
	timer := time.NewTimer(step)
	defer timer.Stop()
	began, n := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return time.Since(began) > time.Duration(n+1)*step*6/5
		case <-timer.C:
			n++
			timer.Reset(step)
		}
	}
}

// Mixed is a load of several kinds: fast and slow limits, messages of more than one segment, a limit that several kinds
// of requests share, and one that another bound keeps idle for the most part.
func Mixed() []Ask {
	account := func(i byte, perSecond, burst float64) limits.Bound {
		return limits.Bound{
			Key:  limits.Key{Account: delivery.AccountID{i}},
			Rate: limits.Rate{PerSecond: perSecond, Burst: burst},
		}
	}
	return []Ask{
		{Cost: 1, Bounds: []limits.Bound{account(1, 2000, 100), bound("fast", 600, 30)}},
		{Cost: 1, Bounds: []limits.Bound{account(1, 2000, 100), bound("medium", 100, 5)}},
		{Cost: 3, Bounds: []limits.Bound{account(2, 300, 15)}},
		{Cost: 1, Bounds: []limits.Bound{account(3, 20, 1)}},
	}
}

// binding says that nothing but k keeps some ask back.
func binding(asks []Ask, k limits.Key) bool {
	for _, a := range asks {
		for _, b := range a.Bounds {
			if b.Key == k && k != (limits.Key{Account: delivery.AccountID{1}}) {
				return true
			}
		}
	}
	return false
}
