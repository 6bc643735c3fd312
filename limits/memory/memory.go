// Package memory keeps rate limits in the memory of one process.
//
// Every key has a debt: what was granted and is not yet paid off at the key's rate. A request passes when the debt plus
// its cost stays within the burst. That is the token bucket seen from the other side, and it makes a changed burst
// simple: the debt stays what it is.
package memory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/msgctl/msgctl/limits"
)

// Limiter implements limits.Limiter for one process. Reserve allocates nothing for keys that it knows; a key that owes
// nothing and is not paused is forgotten as new keys come, so memory follows the keys in use.
type Limiter struct {
	mu      sync.Mutex
	started bool
	epoch   time.Time // the first now; later ones are kept as nanoseconds since
	latest  int64     // the latest now seen
	index   map[limits.Key]int32
	slots   []slot
	free    []int32
	hand    int // where the search for idle slots goes on
}

// slot is the state of one key.
type slot struct {
	key    limits.Key
	used   bool
	debt   units
	at     int64 // when debt was computed, nanoseconds since epoch
	rate   units // per second, as of at
	paused time.Time
}

var _ limits.Limiter = (*Limiter)(nil)

// New returns a Limiter without any state.
func New() *Limiter { return &Limiter{index: map[limits.Key]int32{}} }

// Keys returns how many keys are remembered.
func (l *Limiter) Keys() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.index)
}

// Reserve implements limits.Limiter. It refuses a rate, burst or cost that is not a number or out of range, and a key
// that stands twice in bounds, because charging it twice is never meant.
func (l *Limiter) Reserve(
	_ context.Context, now time.Time, bounds []limits.Bound, cost float64,
) (limits.Decision, error) {
	if !(cost > 0 && cost <= maxUnits) {
		return limits.Decision{}, errCost
	}
	for i := range bounds {
		if r := bounds[i].Rate; !(r.PerSecond > 0 && r.Burst >= 1) || math.IsInf(r.PerSecond, 1) || math.IsInf(r.Burst, 1) {
			return limits.Decision{}, fmt.Errorf("bound %d: a rate is above 0 and a burst at least 1, both finite", i)
		}
		for j := range i {
			if bounds[j].Key == bounds[i].Key {
				return limits.Decision{}, fmt.Errorf("bound %d repeats the key of bound %d", i, j)
			}
		}
	}

	if now.IsZero() {
		return limits.Decision{}, errNow
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started {
		l.started, l.epoch = true, now
	}
	// The clock of the limiter never steps back. Sub uses the monotonic reading where both times have one, so that a
	// change of the wall clock does not stop traffic either.
	asked := int64(max(-century/2, min(now.Sub(l.epoch), century)))
	l.latest = max(l.latest, asked)

	var room [8]int32
	picked := room[:0]
	decision := limits.Decision{Go: true}
	need, known := ceilUnits(cost), len(l.index)
	for i := range bounds {
		b := &bounds[i]
		n := l.slotOf(b.Key)
		picked = append(picked, n)
		s := &l.slots[n]
		if now.Before(s.paused) {
			decision = later(decision, s.paused, -1)
		}
		// A raised rate counts from this request on, even when it is refused. At the same rate a refused request writes
		// nothing: rounding down at each of many requests would add up.
		if rate := rateUnits(b.Rate.PerSecond); rate != s.rate {
			s.debt, s.at, s.rate = s.owed(l.latest), l.latest, rate
		}
		over := s.debt + need - floorUnits(b.Rate.Burst)
		over = min(over, s.debt) // a cost above the burst passes when nothing is owed
		if over <= 0 {
			continue
		}
		if wait := s.at + int64(timeToPay(over, s.rate)) - l.latest; wait > 0 {
			decision = later(decision, now.Add(time.Duration(wait+l.latest-asked)), i)
		}
	}
	if decision.Go {
		for _, n := range picked {
			s := &l.slots[n]
			s.debt, s.at = s.owed(l.latest)+need, l.latest
		}
	}
	l.forgetIdle(now, 4*(len(l.index)-known))
	return decision, nil
}

var (
	errCost = errors.New("a cost is above 0 and at most 1e9")
	errNow  = errors.New("the time of a reservation is not set")
)

// later refuses, and keeps the later of two times.
func later(d limits.Decision, at time.Time, blocking int) limits.Decision {
	if d.Go || at.After(d.NotBefore) {
		return limits.Decision{NotBefore: at, Blocking: blocking}
	}
	return d
}

// Pause implements limits.Limiter.
func (l *Limiter) Pause(_ context.Context, key limits.Key, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.slots[l.slotOf(key)]
	if until.After(s.paused) {
		s.paused = until
	}
	return nil
}

// slotOf returns the slot of key, a fresh one when key is new.
func (l *Limiter) slotOf(key limits.Key) int32 {
	if n, ok := l.index[key]; ok {
		return n
	}
	var n int32
	if last := len(l.free) - 1; last >= 0 {
		n, l.free = l.free[last], l.free[:last]
	} else {
		n = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	l.slots[n] = slot{key: key, used: true}
	l.index[key] = n
	return n
}

// forgetIdle looks at up to n slots and frees those that say no more than an absent one. It runs for a few slots per
// new key, so that no reservation pays for a sweep over all of them.
func (l *Limiter) forgetIdle(now time.Time, n int) {
	for range min(n, len(l.slots)) {
		if l.hand++; l.hand >= len(l.slots) {
			l.hand = 0
		}
		s := &l.slots[l.hand]
		if s.used && !now.Before(s.paused) && s.owed(l.latest) == 0 {
			delete(l.index, s.key)
			*s = slot{}
			l.free = append(l.free, int32(l.hand))
		}
	}
}

// owed is the debt at a time that is not before s.at.
func (s *slot) owed(now int64) units {
	if s.debt == 0 {
		return 0
	}
	return s.debt - min(s.debt, paidIn(now-s.at, s.rate))
}
