package admission

import "time"

const (
	windowLength = 100 * time.Millisecond
	sampleEvery  = 5 * time.Millisecond
	staleAfter   = time.Second
	// refusals of one window that cost next to nothing: 2,000 a second, some 50 ms of one core. More of them make the
	// refused connections rest.
	cheapRefusals = 200
	firstRest     = 5 * time.Millisecond
	longestRest   = time.Second
)

// window gathers what is seen during 100 ms. The least of the delays is that of a standing queue: a burst empties the
// queue at least once in a window.
type window struct {
	began, sampled time.Time
	pressure, took least
	refused        int
	standing       time.Duration // of the window before
}

// least is the smallest of the values noted.
type least struct {
	d     time.Duration
	noted bool
}

func (l *least) note(d time.Duration) {
	if !l.noted || d < l.d {
		l.d, l.noted = d, true
	}
}

// Observe tells how long one accept took in the store. It stands in for the pressure of a store that cannot tell, and
// adds to what one tells: a machine without a free core delays writes as well.
func (g *Gate) Observe(now time.Time, took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.window.took.note(took)
	g.look(now)
}

// look samples the store and ends the window when it is over. The caller holds the lock.
func (g *Gate) look(now time.Time) {
	w := &g.window
	if now.Before(w.began) { // the clock was set back
		w.began, w.sampled = now, now
	}
	if g.opt.Pressure != nil && now.Sub(w.sampled) >= sampleEvery {
		w.sampled = now
		w.pressure.note(g.opt.Pressure())
	}
	past := now.Sub(w.began)
	if past < windowLength {
		return
	}
	standing := max(w.pressure.d, w.took.d)
	if past > staleAfter {
		standing = 0 // what was seen then says nothing about now
	}
	g.adapt(standing, min(int(past/windowLength), 64))
	g.pace(w.refused, past)
	*w = window{began: now, sampled: w.sampled, standing: standing}
}

// adapt moves the limits of the classes by how long writes stand. n is how many windows have passed: without requests
// nobody has looked.
func (g *Gate) adapt(standing time.Duration, n int) {
	for i := range g.class {
		c, target := &g.class[i], time.Duration(bounds[i].target*float64(g.opt.Target))
		if target == 0 {
			continue
		}
		if standing > target {
			// In proportion to the excess, at most by half: the queue in front of the store shortens by as much.
			c.limit = max(c.floor, int(float64(c.limit)*max(0.5, float64(target)/float64(standing))))
			continue
		}
		for range n {
			if c.limit >= c.most {
				break
			}
			c.limit = min(c.most, c.limit+max(1, c.limit/4))
		}
	}
}

// pace finds how long refused connections rest, so that refusals stay cheap.
func (g *Gate) pace(refused int, past time.Duration) {
	if float64(refused)*float64(windowLength) > cheapRefusals*float64(past) {
		g.rest = min(max(g.rest*3/2, firstRest), longestRest)
		return
	}
	for ; past >= windowLength && g.rest > 0; past -= windowLength {
		if g.rest = g.rest * 2 / 3; g.rest < firstRest {
			g.rest = 0
		}
	}
}

// refuse makes a refusal. wait is how long the reason lasts, as far as known.
func (g *Gate) refuse(c Class, why Reason, wait time.Duration) *Refusal {
	g.window.refused++
	seconds := max(1, int64((wait+time.Second-1)/time.Second)) + int64(g.opt.Spread(5))
	r := &Refusal{Class: c, Reason: why, RetryAfter: time.Duration(seconds) * time.Second, Rest: g.rest}
	if why == Storage {
		r.Low = *g.low
	}
	return r
}

// Standing returns how long writes stood during the window before.
func (g *Gate) Standing(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look(now)
	return g.window.standing
}

// Yields reports whether work that nobody waits for, of the importance of bulk, should stand still: the store has
// more than it can do, or the disk is nearly full.
func (g *Gate) Yields(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.look(now)
	return g.low != nil || g.window.standing > time.Duration(bounds[Bulk].target*float64(g.opt.Target))
}
