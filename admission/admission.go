// Package admission decides, before a request's body is read, whether the engine takes the request on.
//
// An engine that takes everything on slows down for everybody and then breaks. A Gate refuses early what cannot be
// done in time, the least important first, and says when to come back:
//
//  1. Each class has a number of requests that may be in progress. By Little's law that bounds how long one waits:
//     640 accepts at 10,000 a second are 64 ms.
//  2. The number follows the store. When writes have waited for longer than a class's target during a whole window of
//     100 ms, the queue is a standing one and not a burst, as in CoDel (RFC 8289 §4), and the class gives way. Reads
//     have the lowest target, provider receipts the highest: that is the order of shedding.
//  3. Nobody takes it all. An owner may hold at most four times what is free, so that one alone gets 4/5, two get 4/9
//     each, and there is room for a newcomer always (dynamic thresholds of Choudhury and Hahne, 1998).
//  4. The bytes of bodies held at once are bounded.
//  5. A tenant with a rate of its own pays for each message; what a batch costs is known only after it has been read,
//     so a batch may run up a debt, which is paid off before the next request passes.
//
// The first two refuse with "come back later" for the engine's sake, the third and fifth for the owner's.
package admission

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Class says how important a request is. The order of the constants from Reads on is the order of shedding.
type Class uint8

// The classes. Free requests are not counted at all. Control is bounded in number and bytes only: what an operator
// needs to get out of trouble, such as to cancel or to pause, passes however slow the store is.
const (
	Free Class = iota
	Control
	Polls    // requests that mostly wait, such as long polls; as important as reads
	Reads    // lists, reports, audits
	Bulk     // batches, imports, starts of campaigns
	Accepts  // single messages
	Receipts // what providers report
	classes
)

func (c Class) String() string {
	return [classes]string{"free", "control", "polls", "reads", "bulk", "accepts", "receipts"}[c]
}

// Classes lists the classes that can be refused.
func Classes() []Class { return []Class{Control, Polls, Reads, Bulk, Accepts, Receipts} }

// Reason says why a request is refused. The values are labels of a metric.
type Reason string

// The reasons. Rate and Share are the owner's own limits, the others are the engine's.
const (
	Rate    Reason = "rate"    // the tenant's messages per second are used up
	Share   Reason = "share"   // the owner holds its share while others are there too
	Full    Reason = "full"    // too many requests of the class are in progress
	Delay   Reason = "delay"   // the store is slow: fewer requests of the class may be in progress than usual
	Bytes   Reason = "bytes"   // too many bytes of bodies are held
	Storage Reason = "storage" // the disk is nearly full
)

// Own reports whether the owner's own limit refuses, and not the engine's.
func (r Reason) Own() bool { return r == Rate || r == Share }

// Refusal says why a request is not taken on, and when to come back.
type Refusal struct {
	Class      Class
	Reason     Reason
	RetryAfter time.Duration // whole seconds, spread so that those who were refused together do not come back together
	// Rest is how long the connection should not be read from; 0 almost always. It is more when refusals are so many
	// that they would cost what the engine has for its work: whoever ignores RetryAfter is slowed down by it.
	Rest time.Duration
	Low  Low // of Storage
}

// Options of a Gate. Zero fields take the defaults.
type Options struct {
	// Requests is how many accepts may be in progress at once; the other classes get a share or a multiple of that.
	// Default 640, of which one tenant alone gets 512: two groups of commits, one that runs and one that waits.
	Requests int
	// Bytes of bodies that may be held at once. Default 64 MiB. Bulk gets at most 3/4 of them, accepts 7/8.
	Bytes int64
	// Target is how long writes may stand before accepts give way. Reads give way at a twentieth of it, bulk at an
	// eighth, receipts at the double. Default 1 s: 50 ms, 125 ms, 1 s and 2 s.
	Target time.Duration
	// Pressure returns how long the oldest write has been waiting for the store; nil = only what Observe is told. It is
	// called often, must not block and is called under the gate's lock.
	Pressure func() time.Duration
	// Refused is called for each refusal, under no lock; nil = nobody.
	Refused func(Class, Reason)
	// Spread returns a number from 0 to n-1, for jitter; nil = random.
	Spread func(n int) int
}

// What a class may have in progress: requests × Options.Requests. Reads and bulk need few: more of them at once are
// not done sooner. Under pressure the limit falls, but not below least × its usual one. The least of accepts and
// receipts is high because a store commits in groups: with fewer requests than a group holds, each waits for as long
// as before and less is done.
var bounds = [classes]struct {
	requests, least float64
	target          float64 // × Options.Target; 0 = never gives way
	bytes           float64 // × Options.Bytes
}{
	Control:  {0.25, 1, 0, 1},
	Polls:    {2, 1. / 64, 0.05, 0.25},
	Reads:    {0.125, 1. / 16, 0.05, 0.25},
	Bulk:     {0.125, 1. / 8, 0.125, 0.75},
	Accepts:  {1, 0.5, 1, 0.875},
	Receipts: {0.5, 0.5, 2, 1},
}

// Gate admits requests. It is safe for concurrent use. It runs nothing by itself: it looks at the store and adapts
// when requests come.
type Gate struct {
	opt Options

	mu     sync.Mutex
	class  [classes]load
	bytes  int64
	owners map[key]*owner
	window window
	rest   time.Duration
	low    *Low // nil = there is room
}

// load is what a class has in progress, may have now, at most and at least.
type load struct{ now, limit, most, floor int }

// New makes a Gate; o may be nil.
func New(o *Options) *Gate {
	g := &Gate{owners: map[key]*owner{}}
	if o != nil {
		g.opt = *o
	}
	if g.opt.Requests <= 0 {
		g.opt.Requests = 640
	}
	if g.opt.Bytes <= 0 {
		g.opt.Bytes = 64 << 20
	}
	if g.opt.Target <= 0 {
		g.opt.Target = time.Second
	}
	if g.opt.Refused == nil {
		g.opt.Refused = func(Class, Reason) {}
	}
	if g.opt.Spread == nil {
		g.opt.Spread = rand.IntN
	}
	for c, b := range bounds {
		most := max(int(b.requests*float64(g.opt.Requests)), 1)
		g.class[c] = load{limit: most, most: most, floor: max(int(b.least*float64(most)), 1)}
	}
	return g
}

// Ask is a request at the door.
type Ask struct {
	Class Class
	// Owner is whose share it counts in: a tenant, or a provider's account. Peer is a second one, such as a network
	// address, where the first is not proven; "" = none.
	Owner, Peer string
	// Messages is what it costs of Rate now, before anybody knows how many messages it has: 1 for a request that brings
	// messages, else 0.
	Messages float64
	Rate     float64 // the owner's messages per second; 0 = no bound
	Body     int64   // bytes of its body that will be held, as far as known
}

// Pass is a request in progress. Leave must be called once for each Pass that Enter filled; further calls do nothing.
// The zero Pass is that of a free request. One goroutine at a time may use it.
type Pass struct {
	gate   *Gate
	class  Class
	owners [2]*owner
	bytes  int64
}

// Enter takes a request on and fills p, or says why not.
func (g *Gate) Enter(now time.Time, a Ask, p *Pass) *Refusal {
	if a.Class == Free {
		return nil
	}
	g.mu.Lock()
	r := g.enter(now, a, p)
	g.mu.Unlock()
	if r != nil {
		g.opt.Refused(r.Class, r.Reason)
	}
	return r
}

func (g *Gate) enter(now time.Time, a Ask, p *Pass) *Refusal {
	g.look(now)
	c := &g.class[a.Class]
	if g.low != nil && (a.Class == Bulk || a.Class == Accepts) {
		return g.refuse(a.Class, Storage, 0)
	}
	busy := Full
	if c.limit < c.most {
		busy = Delay
	}
	if c.now >= c.limit {
		return g.refuse(a.Class, busy, 0)
	}
	owners := [2]*owner{g.owner(key{account, a.Owner}, now), nil}
	if a.Peer != "" {
		owners[1] = g.owner(key{peer, a.Peer}, now)
	}
	for _, o := range owners {
		if o != nil && !within(int64(o.held[a.Class]), 1, int64(c.limit-c.now)) {
			return g.refuse(a.Class, own(o.held[a.Class] < c.now, busy), 0)
		}
	}
	if r := g.room(a.Class, owners, a.Body); r != "" {
		return g.refuse(a.Class, r, 0)
	}
	if wait := owners[0].wait(now, a.Rate, a.Messages); wait > 0 {
		return g.refuse(a.Class, Rate, wait)
	}
	if a.Rate > 0 {
		owners[0].debt += a.Messages
	}
	c.now++
	g.bytes += a.Body
	for _, o := range owners {
		if o != nil {
			o.held[a.Class]++
			o.bytes += a.Body
		}
	}
	*p = Pass{g, a.Class, owners, a.Body}
	return nil
}

// room reports why n more bytes cannot be held, or "".
func (g *Gate) room(c Class, owners [2]*owner, n int64) Reason {
	if n <= 0 {
		return ""
	}
	free := int64(bounds[c].bytes*float64(g.opt.Bytes)) - g.bytes
	if n > free {
		return Bytes
	}
	for _, o := range owners {
		if o != nil && !within(o.bytes, n, free) {
			return own(o.bytes < g.bytes, Bytes)
		}
	}
	return ""
}

// within is the rule of shares: whoever has held may have n more while that is at most four times what is free.
func within(held, n, free int64) bool { return held+n <= 4*free }

// own blames the owner only when there are others, for whom its share is.
func own(others bool, otherwise Reason) Reason {
	if others {
		return Share
	}
	return otherwise
}

// Grow takes n more bytes for a body that is larger than was known at the door.
func (p *Pass) Grow(n int64) *Refusal {
	g := p.gate
	if g == nil || n <= 0 {
		return nil
	}
	g.mu.Lock()
	reason := g.room(p.class, p.owners, n)
	if reason != "" {
		r := g.refuse(p.class, reason, 0)
		g.mu.Unlock()
		g.opt.Refused(r.Class, r.Reason)
		return r
	}
	defer g.mu.Unlock()
	p.hold(n)
	return nil
}

// hold counts n more bytes. The caller holds the lock.
func (p *Pass) hold(n int64) {
	p.gate.bytes += n
	p.bytes += n
	for _, o := range p.owners {
		if o != nil {
			o.bytes += n
		}
	}
}

// Held returns how many bytes the pass has for the body.
func (p *Pass) Held() int64 { return p.bytes }

// Leave gives everything back.
func (p *Pass) Leave() {
	g := p.gate
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p.hold(-p.bytes)
	g.class[p.class].now--
	for _, o := range p.owners {
		if o != nil {
			o.held[p.class]--
		}
	}
	p.gate = nil
}

// Load is what a class has in progress, and may have.
type Load struct{ InProgress, Limit int }

// Load returns the load of a class, for metrics.
func (g *Gate) Load(c Class) Load {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Load{g.class[c].now, g.class[c].limit}
}
