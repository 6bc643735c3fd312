package redis

import (
	"context"
	"time"
)

// link is the connection with Redis and what came over it.
type link struct {
	session int64  // counts; 0 = none
	sid     string // of the session, in Redis
	count   int64  // of all sessions
	valid   int64  // leases may be spent until then
	// aloneFrom is when this node may go by its own share: no call of it can make Redis count on it any more.
	aloneFrom int64

	sent  int64         // when the latest call began
	under bool          // a call is under way
	gap   time.Duration // between two calls, at present
	trip  time.Duration // of a call, of late

	epoch, calls int64  // the latest that Redis has told
	list         string // of nodes, as Redis counts them
	seen         []string
	nodes        int   // that the limits are divided by, as Redis knows it
	full         bool  // all of them have a session
	lackFrom     int64 // when not: limits that cannot be divided are one node's from then on
	present      int

	// Redis' clock minus ours is between these, in microseconds, at a time.
	offLow, offHigh, offAt int64
	stepped                bool // Redis' clock has jumped

	retryAt  int64
	failures int // since the last session
	away     bool
	lastErr  string
}

// loop is the only one that talks to Redis. It ends when ctx does.
func (l *Limiter) loop(ctx context.Context) {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	surveyed := int64(-1 << 62)
	for {
		if t := l.clock(); t-surveyed >= int64(l.pace.beat) {
			l.survey()
			l.tidy(t)
			surveyed = t
		}
		wait := l.step(ctx)
		timer.Reset(max(0, wait))
		select {
		case <-ctx.Done():
			l.leave()
			return
		case <-timer.C:
		case <-l.kick:
		}
		l.mu.Lock()
		l.kicked = false
		l.mu.Unlock()
	}
}

// tidy forgets limits that are not used.
func (l *Limiter) tidy(t int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buckets.forget(1+len(l.buckets.all)/100, l.at(t), t, time.Minute)
}

// step does what is due and returns when to look again.
func (l *Limiter) step(ctx context.Context) time.Duration {
	l.mu.Lock()
	t := l.clock()
	if l.link.session != 0 && t >= l.link.valid {
		l.drop("the session has ended: no call has been answered in time")
	}
	if l.link.session == 0 {
		l.sayAway(t)
		wait := l.link.retryAt - t
		l.mu.Unlock()
		if wait <= 0 {
			l.join(ctx)
			return 0
		}
		return time.Duration(wait)
	}
	due := l.due(t)
	l.mu.Unlock()
	if due <= t {
		l.exchange(ctx, "call")
		return 0
	}
	return time.Duration(due - t)
}

// due is when the next call has to be made. What can wait for the next beat does. The lock is held.
func (l *Limiter) due(t int64) int64 {
	due := l.link.sent + int64(l.pace.beat)
	soon, sooner := l.link.sent+int64(l.link.gap), l.link.sent+int64(l.pace.gapLeast)
	for _, b := range l.active {
		if l.tight(b) {
			due = min(due, sooner)
		} else if at := l.dueOf(b, t); at < due {
			due = max(at, soon)
		}
	}
	return due
}

// tight says that other nodes wait for what this one has spent: until Redis hears of it, it counts as held and is not
// paid off. There is one such call for a lease at most, so it need not keep the distance that the calls of many nodes
// have to keep.
func (l *Limiter) tight(b *bucket) bool {
	return l.link.present > 1 && b.session == l.link.session && b.spent > 0 && b.have < b.cost-tiny &&
		(b.burst < 2*b.cost*float64(l.link.present) || l.link.gap.Seconds() > b.burst/b.rate/4)
}

// dueOf is when Redis should hear of b.
func (l *Limiter) dueOf(b *bucket, t int64) int64 {
	due := int64(1 << 62)
	if b.tellPause || b.owes && l.leases(b, true) {
		return t
	}
	if b.session != l.link.session {
		return due
	}
	if b.need > 0 {
		due = max(t, b.askAt-int64(l.pace.ahead))
	}
	if b.have < b.cost-tiny && b.spent > 0 || l.low(b) {
		return t
	}
	if b.have > 0 || b.held && b.spent == 0 {
		due = min(due, max(t, b.idleAt(&l.pace)))
	}
	return due
}

// low says that b has been used up fast and should be filled before it is empty.
func (l *Limiter) low(b *bucket) bool {
	return b.spent > 0 && b.have < b.window/2 && b.window >= 2*b.cost
}

// drop ends the session. The lock is held.
func (l *Limiter) drop(why string) {
	l.link.session, l.link.valid = 0, 0
	l.link.lastErr = why
	l.link.retryAt = 0
}

// fail notes a call without a usable answer, and when to try again: soon after the first, then with growing
// distances, of which chance takes a part, so that nodes do not come back all at one time.
func (l *Limiter) fail(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(why)
	l.stats.Failures++
	l.stats.Err = why
	l.link.failures++
	wait := min(10*time.Millisecond<<min(l.link.failures, 20), l.pace.retry)
	if l.link.failures > 20 {
		wait = 2 * l.pace.retry
	}
	l.link.retryAt = l.clock() + int64(wait/2) + l.chance.Int64N(int64(wait))
}

// sayAway tells once that the node goes by its share. The lock is held.
func (l *Limiter) sayAway(t int64) {
	if l.link.away || t < l.link.aloneFrom || l.link.failures == 0 {
		return
	}
	l.link.away = true
	l.stats.Since = l.opt.Now()
	l.log.Warn("Redis is away: this node goes by its own share of the rate limits",
		"nodes", l.nodes(), "err", l.link.lastErr)
}

// join begins a session. A first call learns Redis' clock; only the second one makes Redis count on this node.
func (l *Limiter) join(ctx context.Context) {
	if !l.hello(ctx) {
		return
	}
	l.mu.Lock()
	l.link.sid = newSession()
	l.link.count++
	l.mu.Unlock()
	if !l.exchange(ctx, "join") {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link.failures = 0
	if l.link.away {
		l.log.Info("Redis is back: the rate limits are shared again", "epoch", l.link.epoch)
	}
	if l.link.away || l.stats.Since.IsZero() {
		l.stats.Since = l.opt.Now()
	}
	l.link.away = false
}

// hello asks for Redis' clock. It may take as long as a connection takes: it changes nothing.
func (l *Limiter) hello(ctx context.Context) bool {
	for _, timeout := range []time.Duration{l.pace.dial, l.pace.timeout} { // the second one with a connection
		r, sent, err := l.call(ctx, timeout, request{op: "hello"})
		if err != nil {
			l.fail(err.Error())
			return false
		}
		l.mu.Lock()
		l.tells(r, sent)
		l.mu.Unlock()
	}
	return true
}

// tells learns Redis' clock from an answer, and whether it has jumped since the last one. The lock is held.
func (l *Limiter) tells(r answer, sent int64) {
	t := l.clock()
	low, high := r.now-t/1000, r.now-sent/1000
	if k := &l.link; k.offAt != 0 && !l.asking {
		slack := int64(50_000) + (t-k.offAt)/1000/1000 // a clock may be wrong by a thousandth
		k.stepped = k.stepped || low > k.offHigh+slack || high < k.offLow-slack
	}
	l.link.offLow, l.link.offHigh, l.link.offAt = low, high, t
	trip := max(time.Duration(t-sent), 50*time.Microsecond)
	if l.link.trip == 0 {
		l.link.trip = trip
	}
	l.link.trip = min((7*l.link.trip+trip)/8, 20*time.Millisecond)
}

// leave gives back what is held and ends the session.
func (l *Limiter) leave() {
	l.mu.Lock()
	in := l.link.session != 0
	for _, b := range l.active {
		b.have = 0
	}
	l.mu.Unlock()
	if in {
		l.exchange(context.Background(), "leave")
	}
	l.mu.Lock()
	l.drop("closed")
	l.mu.Unlock()
}
