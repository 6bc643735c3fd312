package redis

import (
	"slices"
	"time"
)

// alone is what a node goes by without the others.
type alone struct {
	count   int      // of live nodes; 0 = unknown
	members []string // sorted; empty = unknown
	list    int64    // counts the changes of members
	since   int64    // of members
}

// survey asks who is alive. It is called without the lock.
func (l *Limiter) survey() {
	var members []string
	count := 0
	if l.opt.Members != nil {
		members = slices.Clone(l.opt.Members())
		slices.Sort(members)
		members = slices.Compact(members)
		count = len(members)
	}
	if count == 0 && l.opt.Nodes != nil {
		count = max(0, l.opt.Nodes())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alone.count = count
	if l.opt.Members == nil {
		members = l.link.seen
	}
	l.setMembers(members)
}

func (l *Limiter) setMembers(members []string) {
	if !slices.Equal(l.alone.members, members) {
		l.alone.members, l.alone.since = members, l.clock()
		l.alone.list++
	}
}

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

// share returns the node's own part of a limit; 0 = it has none.
func (l *Limiter) share(b *bucket, t int64) (rate, burst float64) {
	n := l.nodes()
	if n <= 1 {
		return b.rate, b.burst
	}
	if b.burst >= float64(n) {
		return b.rate / float64(n), b.burst / float64(n)
	}
	if len(l.alone.members) == 0 || t-l.alone.since < int64(l.pace.settled) {
		return 0, 0
	}
	if b.owner.list != l.alone.list {
		b.owner = ownership{l.alone.list, first(b.id, l.opt.Node, l.alone.members)}
	}
	if !b.owner.mine {
		return 0, 0
	}
	return b.rate, b.burst
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
	if b.start == start {
		return
	}
	owed := b.owed(start)
	b.start, b.debt, b.debtAt, b.paying = start, max(owed, burst), start, rate
}

// localWait returns how long a cost has to wait for the node's own part, 0 = it can go.
func (l *Limiter) localWait(b *bucket, cost float64, t, start int64) int64 {
	rate, burst := l.share(b, t)
	if rate == 0 {
		return int64(notMine)
	}
	b.begin(start, rate, burst)
	if rate != b.paying {
		b.debt, b.debtAt, b.paying = b.owed(t), max(t, b.debtAt), rate
	}
	owed := b.owed(t)
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
