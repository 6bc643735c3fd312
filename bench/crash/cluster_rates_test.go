//go:build unix

package crash

import (
	"fmt"
	"time"
)

// rates looks at every second of the paced connector, over all engines, and returns those that hold too much. The bound
// is the rate and the burst that the connector declares; an engine that gets no processor between a permit and the wire
// has to keep to it. A simulator that gets none to date what has come moves messages from one second into the next: it
// is taken to have stood still for as long as it did at worst in that second or the one before.
func (c *chaos) rates() (over []string) {
	c.t.Helper()
	var times []time.Time
	for _, e := range c.seen {
		if isPaced(e.Address) {
			times = append(times, e.At)
		}
	}
	stalls := c.sim.stalls()
	from, worst, excess := 0, 0, 0.0
	for to := range times {
		for times[to].Sub(times[from]) >= time.Second {
			from++
		}
		n := to - from + 1
		worst = max(worst, n)
		if n <= pacedRate+pacedBurst {
			continue
		}
		moved := stalled(stalls, times[from].Add(-time.Second), times[to])
		bound := pacedRate*(1+moved.Seconds()) + pacedBurst
		if more := float64(n) - bound; more > 0 {
			excess = max(excess, more)
			over = append(over, fmt.Sprintf("from %s: %d in a second, and %.1f are allowed",
				times[from].Format("15:04:05.000"), n, bound))
		}
	}
	if len(times) > 1 {
		span := times[len(times)-1].Sub(times[0])
		c.print("rate: limit=%d/s burst=%d messages=%d busiest_second=%d windows_over=%d most_over=%.1f used=%.0f%% "+
			"worst_stall_ms=%d", pacedRate, pacedBurst, len(times), worst, len(over), excess,
			100*float64(len(times))/span.Seconds()/pacedRate, stalled(stalls, times[0], times[len(times)-1]).Milliseconds())
	}
	return over
}

// stall is a time in which the simulator did not run.
type stall struct {
	end time.Time
	d   time.Duration
}

// stalled is the longest stall that touches a window.
func stalled(stalls []stall, from, to time.Time) (d time.Duration) {
	for _, s := range stalls {
		if s.end.After(from) && s.end.Add(-s.d).Before(to) {
			d = max(d, s.d)
		}
	}
	return d
}
