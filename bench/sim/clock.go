package sim

import (
	"slices"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// clock is the clock that the engine sees: the bubble's time plus what the wall clock was turned by. Its timers never
// fire by themselves. The driver fires them, one at a time, and may let much time pass at once while nothing happens:
// to the engine that looks like a process that was suspended for a while.
type clock struct {
	clockwork.Clock // what the engine does not use

	mu     sync.Mutex
	turned time.Duration
	made   int
	timers []*timer
}

func newClock() *clock { return &clock{Clock: clockwork.NewRealClock()} }

type timer struct {
	c    *clock
	nth  int
	at   time.Time // of the bubble
	fire chan time.Time
}

// Now has no monotonic part: when the wall clock is turned, everything that reads it is turned.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.turned).UTC().Round(0)
}

func (c *clock) Since(t time.Time) time.Duration        { return c.Now().Sub(t) }
func (c *clock) Until(t time.Time) time.Duration        { return t.Sub(c.Now()) }
func (c *clock) After(d time.Duration) <-chan time.Time { return c.NewTimer(d).Chan() }
func (c *clock) Sleep(d time.Duration)                  { <-c.After(d) }

func (c *clock) NewTimer(d time.Duration) clockwork.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c: c, nth: c.made, at: time.Now().Add(d), fire: make(chan time.Time, 1)}
	c.made++
	c.timers = append(c.timers, t)
	return t
}

func (t *timer) Chan() <-chan time.Time { return t.fire }

func (t *timer) Stop() bool {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	i := slices.Index(t.c.timers, t)
	if i >= 0 {
		t.c.timers = slices.Delete(t.c.timers, i, i+1)
	}
	return i >= 0
}

func (t *timer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.at = time.Now().Add(d)
	t.c.timers = append(t.c.timers, t)
	return was
}

// turn moves the wall clock, and says where it stands now.
func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	c.turned += d
	c.mu.Unlock()
}

// due returns the first timer whose time has come, or nil.
func (c *clock) due() *timer {
	if t := c.first(); t != nil && !t.at.After(time.Now()) {
		return t
	}
	return nil
}

// first returns the timer that is due before all others; of two at the same time, the one that was set first.
func (c *clock) first() *timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first *timer
	for _, t := range c.timers {
		if first == nil || t.at.Before(first.at) || t.at.Equal(first.at) && t.nth < first.nth {
			first = t
		}
	}
	return first
}

// ring fires t.
func (c *clock) ring(t *timer) {
	if t.Stop() {
		t.fire <- c.Now()
	}
}

// forget drops the timers of a process that was killed: whoever waits for them has been told to go.
func (c *clock) forget() {
	c.mu.Lock()
	c.timers = nil
	c.mu.Unlock()
}
