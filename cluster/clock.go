package cluster

import (
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
)

// Clock is a node's clock, set by the store's where the two differ by more than can be measured. All times that nodes
// compare with each other (due times, ends of leases, expiry) are then those of one clock. Waits are the node's own.
//
// It runs on when somebody sets the node's own clock: for a moment, until the next comparison, everything that is
// scheduled would be due, and what all other nodes have under lease would be over.
type Clock struct {
	clockwork.Clock
	base  time.Time    // of the node's own clock, once
	ahead atomic.Int64 // how far steady is ahead, as far as it is corrected; a time.Duration
}

// NewClock returns a clock that agrees with own until it is told that own is wrong.
func NewClock(own clockwork.Clock) *Clock { return &Clock{Clock: own, base: own.Now()} }

// steady is the node's own clock as if nobody had ever set it.
func (c *Clock) steady() time.Time { return c.base.Add(c.Clock.Since(c.base)) }

// stepped is how far the node's own clock has been set forward by now, or has run on while the machine stood still.
func (c *Clock) stepped() time.Duration { return c.Clock.Now().Round(0).Sub(c.steady().Round(0)) }

// Now returns the time of the store's clock, as well as it is known.
func (c *Clock) Now() time.Time { return c.steady().Add(-time.Duration(c.ahead.Load())) }

// Since returns how long ago a time of this clock was.
func (c *Clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// Until returns how far away a time of this clock is.
func (c *Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

const (
	// fine is how exact the nodes' times have to agree. Clocks that are kept by NTP never differ by more, so that they
	// are never touched.
	fine = 250 * time.Millisecond
	// samples is how many readings of the store's clock are remembered: the quickest answer is the most exact.
	samples = 8
)

// reading is one comparison with the store's clock: steady is ahead by a time, give or take half a round trip.
type reading struct{ ahead, slack time.Duration }

// read compares clocks: the store said that it was now, between two readings of steady.
func read(before, now, after time.Time) reading {
	trip := after.Sub(before)
	return reading{ahead: before.Add(trip / 2).Sub(now), slack: max(trip/2, 0)}
}

// skew estimates by how much steady is ahead of the store's clock. One goroutine at a time.
type skew struct{ last []reading }

// add takes a reading and returns the best there is. A reading that contradicts it says that the store's clock has been
// set, or that this machine stood still: then only the new one counts.
func (s *skew) add(r reading) reading {
	if best, ok := s.best(); ok && (r.ahead-best.ahead).Abs() > r.slack+best.slack+fine {
		s.last = s.last[:0]
	}
	if len(s.last) == samples {
		copy(s.last, s.last[1:])
		s.last = s.last[:samples-1]
	}
	s.last = append(s.last, r)
	best, _ := s.best()
	return best
}

func (s *skew) best() (best reading, ok bool) {
	for i, r := range s.last {
		if i == 0 || r.slack <= best.slack {
			best = r
		}
	}
	return best, len(s.last) > 0
}

// set corrects the clock by a reading that shows more than could be an error of measurement.
func (c *Clock) set(r reading) {
	if now := time.Duration(c.ahead.Load()); (r.ahead - now).Abs() > fine+r.slack {
		c.ahead.Store(int64(r.ahead))
	}
}
