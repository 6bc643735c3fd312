package redis

import (
	"slices"
	"time"
)

// alone is what a node goes by without the others.
type alone struct {
	asked  int64 // when it was asked last who is alive
	here   bool  // this node is one of them
	agreed bool  // all others count it
	from   int64 // since when they go by that, if agreed

	count   int   // that limits are divided by; 0 = unknown
	fewer   int   // that are alive, where that is less than count
	fewerAt int64 // since when
	high    int   // the most that count was, or may have been for others
	fell    int64 // when everybody has counted anew since it became less
	grown   float64
	grownAt int64 // by how much the node's share has grown in all, and when it did last

	members []string // sorted; empty = unknown
	list    int64    // counts the changes of members
	since   int64    // of members
}

// survey asks who is alive. It is called without the lock.
func (l *Limiter) survey() {
	asked := l.clock()
	var members []string
	count, agreed := 0, true
	if l.opt.Members != nil {
		members, agreed = l.opt.Members()
		members = slices.Clone(members)
		slices.Sort(members)
		members = slices.Compact(members)
		count = len(members)
	}
	if count == 0 && l.opt.Nodes != nil {
		count = max(0, l.opt.Nodes())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := &l.alone
	if asked < a.asked { // somebody else has asked meanwhile
		return
	}
	t := l.clock()
	if a.asked = asked; agreed && !a.agreed {
		a.from = t + int64(l.pace.spread)
	}
	a.agreed, a.here = agreed, l.opt.Members == nil || slices.Contains(members, l.opt.Node)
	a.counted(count, t, &l.pace)
	if l.opt.Members == nil {
		members = l.link.seen
	}
	l.setMembers(members)
}

// counted divides limits by how many there are: by more at once, by fewer when those who are gone cannot pass anything
// any more.
func (a *alone) counted(n int, t int64, p *pace) {
	switch {
	case n > 0 && a.count == 0: // others may still count some who are gone
		a.high, a.fell = max(a.high, n, unseen), t+int64(p.settled)
		a.count, a.fewer = n, 0
	case n == 0 || n >= a.count:
		a.count, a.fewer = n, 0
	case n != a.fewer:
		a.fewer, a.fewerAt = n, t
	case t-a.fewerAt >= int64(p.spread):
		a.high, a.fell = max(a.high, a.count), t+int64(p.settled)
		a.grown, a.grownAt = a.grown+1/float64(n)-1/float64(a.count), t
		a.count, a.fewer = n, 0
	}
}

// unseen is how many nodes there may have been before this one has seen any.
const unseen = 16

// told is the number as Redis is told: negative while not all others go by a number with this node in it, 0 when none
// does because it sends nothing.
func (a *alone) told(t int64) int {
	switch {
	case !a.here:
		return 0
	case !a.agreed || t < a.from:
		return -a.count
	}
	return a.count
}

func (l *Limiter) setMembers(members []string) {
	if !slices.Equal(l.alone.members, members) {
		l.alone.members, l.alone.since = members, l.clock()
		l.alone.list++
	}
}

// old says that what is known of the others must be asked anew before this node passes anything by itself.
func (l *Limiter) old(t int64) bool {
	return l.opt.Members != nil && t-l.alone.asked >= int64(l.pace.beat)
}

// unknown says that this node is cut off from whoever knows who is alive. The others may not count it any more.
func (l *Limiter) unknown() bool { return l.opt.Members != nil && l.alone.count == 0 }

// nodes is how many the limits are divided by while this node is alone.
func (l *Limiter) nodes() int {
	switch {
	case l.alone.count > 0:
		return l.alone.count
	case l.opt.Nodes == nil && l.opt.Members == nil && l.link.nodes > 0:
		return l.link.nodes
	}
	return l.opt.MaxNodes
}

// share returns the node's own part of a limit, and since when it has it; 0 = it has none.
func (l *Limiter) share(b *bucket) (rate, burst float64, since int64) {
	a := &l.alone
	if n := float64(l.nodes()); b.burst >= n {
		if since = a.from; b.burst < float64(a.high) { // it was one node's
			since = max(since, a.fell)
		}
		return b.rate / n, b.burst / n, since
	}
	if len(a.members) == 0 {
		return 0, 0, 0
	}
	if b.owner.list != a.list {
		b.owner = ownership{a.list, first(b.id, l.opt.Node, a.members)}
	}
	if !b.owner.mine {
		return 0, 0, 0
	}
	return b.rate, b.burst, max(a.from, a.since+int64(l.pace.settled))
}

// owed is the debt that the node has made by itself.
func (b *bucket) owed(t int64) float64 {
	if b.debt == 0 {
		return 0
	}
	return max(0, b.debt-b.paying*max(0, time.Duration(t-b.debtAt).Seconds()))
}

// notMine is how long to wait for a limit that another node has: long enough for the message to go back to the queue,
// where that node finds it.
const notMine = 3 * time.Second

// begin makes a bucket alone since a time: in full debt, because the others may have used everything until then.
func (b *bucket) begin(start int64, rate, burst float64) {
	if start <= b.start {
		return
	}
	owed := b.owed(start)
	b.start, b.debt, b.debtAt, b.paying = start, max(owed, burst), start, rate
}

// localWait returns how long a cost has to wait for the node's own part, 0 = it can go.
func (l *Limiter) localWait(b *bucket, cost float64, t, start int64) int64 {
	switch {
	case t < start:
		return start - t
	case !l.alone.agreed || l.old(t):
		return int64(l.pace.beat)
	}
	rate, burst, since := l.share(b)
	if rate == 0 {
		return int64(notMine)
	}
	if start = max(start, since); t < start {
		return start - t
	}
	b.begin(start, rate, burst)
	if rate != b.paying {
		b.debt, b.debtAt, b.paying = b.owed(t), max(t, b.debtAt), rate
	}
	owed := b.owed(t)
	if a := &l.alone; b.grown != a.grown { // somebody is gone, who may have used that part of the burst
		part := b.burst*min(1, a.grown-b.grown) - rate*time.Duration(t-a.grownAt).Seconds()
		owed = max(owed, min(burst, owed+part))
		b.debt, b.debtAt, b.grown = owed, max(t, b.debtAt), a.grown
	}
	over := min(owed+cost-burst, owed)
	if over <= tiny {
		return 0
	}
	return int64(min(over/rate*1e9, float64(century))) + 1
}

// localTake books what localWait lets go.
func (b *bucket) localTake(cost float64, t int64) {
	b.debt, b.debtAt, b.owes = b.owed(t)+cost, max(t, b.debtAt), true
}

// century is the longest time that counts.
const century = 100 * 365 * 24 * time.Hour
