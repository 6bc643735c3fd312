//go:build faults && unix

package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stalls notes when this process, and so the simulator, got no processor: what is read then is dated too late, and a
// second seems to hold more than was sent in it.
type stalls struct {
	mu   sync.Mutex
	list []span
}

const (
	stallTick    = time.Millisecond
	worthTelling = 5 * time.Millisecond
)

func watchStalls(t *testing.T) *stalls {
	s, stop, done := &stalls{}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(stallTick)
		defer tick.Stop()
		for {
			select {
			case last := <-tick.C:
				// The channel keeps one tick: how late it is read is how long nothing here ran.
				if now := time.Now(); now.Sub(last) > worthTelling {
					s.mu.Lock()
					s.list = append(s.list, span{last, now})
					s.mu.Unlock()
				}
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return s
}

// longest is the longest stall that touches a span.
func (s *stalls) longest(of span) (d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.list {
		if x.to.After(of.from) && x.from.Before(of.to) {
			d = max(d, x.to.Sub(x.from))
		}
	}
	return d
}

// busiest looks at every second of a series and returns how much the busiest holds, and those that hold more than rate
// and burst allow.
func busiest(times []time.Time, rate, burst float64, late func(span) time.Duration) (worst int, over []string) {
	slices.SortFunc(times, func(a, b time.Time) int { return a.Compare(b) })
	from := 0
	for to := range times {
		for times[to].Sub(times[from]) >= time.Second {
			from++
		}
		n := to - from + 1
		worst = max(worst, n)
		bound := rate*(1+late(span{times[from], times[to]}).Seconds()) + burst
		if float64(n) > bound {
			over = append(over, fmt.Sprintf("from %s: %d, and %.1f are allowed", times[from].Format("15:04:05.000"), n, bound))
		}
	}
	return worst, over
}

// paced are the times at which the provider with a rate was given something, taken or not.
func (l *lab) paced() (times []time.Time) {
	for _, e := range l.sim.Ledger().Entries(0) {
		if e.Channel == "sms" {
			times = append(times, e.At)
		}
	}
	return times
}

// rates checks the rate at the provider over the whole row.
func (l *lab) rates() {
	l.t.Helper()
	worst, over := busiest(l.paced(), pacedRate, pacedBurst, l.stalls.longest)
	l.note("the busiest second of all had %d of %d + %d", worst, pacedRate, pacedBurst)
	if len(over) > 5 {
		over = append(over[:5], fmt.Sprintf("and %d more", len(over)-5))
	}
	l.Empty(over, "seconds with more than the rate and the burst")
}

// TestRatesCatch looks that the judge of rates can fail.
func TestRatesCatch(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	never := func(span) time.Duration { return 0 }
	var times []time.Time
	for i := range 200 {
		times = append(times, at.Add(time.Duration(i)*25*time.Millisecond)) // 40 a second
	}
	worst, over := busiest(times, 40, 8, never)
	require.Equal(t, 40, worst)
	require.Empty(t, over)
	for range 9 {
		times = append(times, at.Add(2*time.Second+10*time.Millisecond))
	}
	worst, over = busiest(times, 40, 8, never)
	require.Equal(t, 49, worst)
	require.NotEmpty(t, over)
	_, over = busiest(times, 40, 8, func(span) time.Duration { return 25 * time.Millisecond })
	require.Empty(t, over, "a stall of 25 ms explains one more")
}
