package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// batch is how many limits one call covers at most: the script takes some 10 µs for each.
const batch = 256

// request is a call of the script.
type request struct {
	op       string
	deadline int64 // in Redis' time, microseconds; 0 = none
	keys     []string
	args     []any
}

// answer is what the script says.
type answer struct {
	status       string
	now          int64 // Redis' clock, microseconds
	epoch, calls int64
	nodes        int
	present      int
	full         bool
	list         string
	names        []string
	grants       []grant
}

type grant struct {
	amount float64
	wait   time.Duration
	pause  time.Duration
}

// entry is what a call says of a bucket.
type entry struct {
	b     *bucket
	asked float64
	was   float64 // b.have when it was asked
	spent float64
	owed  bool
}

// exchange makes one call: it tells what was spent, gives back what is not used, and asks for more.
func (l *Limiter) exchange(ctx context.Context, op string) bool {
	l.mu.Lock()
	req, entries, session := l.collect(op)
	l.mu.Unlock()
	r, sent, err := l.call(ctx, l.pace.timeout, req)
	if err == nil && r.status != "ok" {
		l.mu.Lock()
		l.tells(r, sent)
		l.mu.Unlock()
		err = fmt.Errorf("redis: the session is not to be had: %s", r.status)
	}
	if err != nil {
		l.untold(entries)
		l.fail(err.Error())
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apply(op, r, sent, session, entries)
	return true
}

// untold has the debts of a call that failed told again: Redis may not have heard of them.
func (l *Limiter) untold(entries []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if e.owed {
			e.b.owes = true
			l.activate(e.b)
		}
	}
}

// collect makes a request of what is to be said, and books it as said. The lock is held.
func (l *Limiter) collect(op string) (request, []entry, int64) {
	t := l.clock()
	k := &l.link
	session := k.session
	if op == "join" {
		session = k.count
	}
	k.sent, k.under = t, true
	k.aloneFrom = t + int64(l.pace.closedFor())
	req := request{op: op, deadline: t/1000 + k.offHigh + l.pace.timeout.Microseconds()}
	if l.asking {
		req.deadline = 0
	}
	var entries []entry
	gap := l.pace.gapMost
	kept := l.active[:0]
	now := l.at(t)
	for i, b := range l.active {
		if len(entries) == batch {
			kept = append(kept, l.active[i:]...)
			break
		}
		if op != "join" {
			b.enter(session)
		}
		b.rest(t, &l.pace)
		if b.silent() {
			b.active = false
			continue
		}
		kept = append(kept, b)
		if op == "join" && !b.owes && !b.tellPause && b.ownPause.IsZero() {
			continue
		}
		e, say := l.entry(b, op, t, now, &req)
		if say {
			entries = append(entries, e)
			gap = min(gap, time.Duration(b.burst/b.rate*float64(time.Second)/4))
		}
	}
	clear(l.active[len(kept):])
	l.active = kept
	if n := len(kept); n > batch { // the others first, the next time
		l.active = append(append(make([]*bucket, 0, n), kept[batch:]...), kept[:batch]...)
	}
	k.gap = max(gap, l.pace.gapLeast) * time.Duration(max(10, k.present)) / 10
	if k.present > 1 { // nodes that keep step would always come in the same order, and the last ones get nothing
		k.gap = k.gap*3/4 + time.Duration(l.chance.Int64N(int64(k.gap/2)))
	}
	return req, entries, session
}

// idleAt is when the lease goes back.
func (b *bucket) idleAt(p *pace) int64 {
	return min(max(b.usedAt, b.from)+int64(p.giveBack), max(b.leasedAt, b.from)+int64(p.renew))
}

// rest lets go of what nobody seems to want any more, and of leases that are old: what they were measured by has changed.
func (b *bucket) rest(t int64, p *pace) {
	if b.have > 0 && p.giveBack > 0 && t >= b.idleAt(p) {
		if b.have = 0; t-b.usedAt < int64(p.giveBack) {
			b.need, b.askAt = b.cost, 0
		} else {
			b.window = 0
		}
	}
	if b.need > 0 && t-b.wantedAt > int64(2*time.Second) {
		b.need = 0
	}
}

// entry adds b to a request; false = there is nothing to say.
func (l *Limiter) entry(b *bucket, op string, t int64, now time.Time, req *request) (entry, bool) {
	e := entry{b: b, owed: b.owes && op != "leave"}
	want, cost, pause, alone := 0.0, b.cost, time.Duration(0), 0.0
	if op == "call" && l.leases(b, true) {
		want, cost = l.wish(b, t)
	}
	if op != "leave" && (b.tellPause || op == "join") {
		pause = max(0, b.ownPause.Sub(now))
		b.tellPause = false
	}
	if e.owed {
		alone = b.owed(t)
	}
	keep, spent, age := b.have, b.spent, int64(0)
	if op == "join" { // what an older session held counts as spent already
		keep, spent = 0, 0
	}
	if spent > 0 {
		age = (t - b.spentAt) / 1000
	}
	if want == 0 && spent == 0 && pause == 0 && alone == 0 && !(b.held && keep == 0) {
		b.owes = b.owes && alone > 0
		return e, false
	}
	if op != "join" {
		b.spent = 0
	}
	b.owes = false
	e.asked, e.was, e.spent = cost, keep, spent
	if want == 0 {
		e.asked = 0
	}
	req.keys = append(req.keys, b.id)
	req.args = append(req.args, number(b.rate), number(b.burst), number(spent), age, number(keep), number(cost),
		number(want), pause.Microseconds(), number(alone))
	return e, true
}

// wish is how much to ask for, and in which portions.
func (l *Limiter) wish(b *bucket, t int64) (want, portion float64) {
	part := 1 / float64(max(1, l.link.present))
	limit := max(b.rate*0.2, b.burst/4) * part
	need := b.need
	switch {
	case need > 0 && t >= b.askAt-int64(l.pace.ahead):
		if b.cost > b.burst*min(1, float64(l.link.present)*1/float64(max(1, l.link.nodes))) && b.have > 0 {
			b.have, need = 0, b.cost // such a cost goes when nothing is owed, and that is held by this node
		}
		if b.drained { // faster than it was filled
			b.window = min(max(b.window, b.cost)*4, limit)
			b.drained = false
		}
		b.window = max(b.window, limit/16)
		return max(need, b.window-b.have), need
	case l.low(b):
		b.window = min(b.window*4, limit)
		if want = b.window - b.have; want >= b.cost {
			return want, b.cost
		}
	}
	return 0, b.cost
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// apply takes what an answer brings. The lock is held.
func (l *Limiter) apply(op string, r answer, sent, session int64, entries []entry) {
	t := l.clock()
	k := &l.link
	k.under = false
	l.tells(r, sent)
	if k.stepped && op != "join" {
		l.drop("Redis' clock has jumped")
		return
	}
	if op == "join" {
		k.session, k.stepped = session, false
	}
	if op == "leave" || k.session != session {
		return
	}
	k.valid = sent + int64(l.pace.ttl)
	k.epoch, k.calls, k.nodes, k.present = r.epoch, r.calls, r.nodes, r.present
	if r.list != k.list {
		k.list, k.seen = r.list, r.names
	}
	if !r.full && (k.full || op == "join") {
		k.lackFrom = t + int64(l.pace.ttl)
		for _, b := range l.active {
			if b.burst < float64(r.nodes) {
				b.have, b.need = 0, 0
			}
		}
	}
	k.full = r.full
	for i, e := range entries {
		b, g := e.b, r.grants[i]
		b.enter(session)
		if g.pause > 0 {
			if until := l.at(t).Add(g.pause); until.After(b.paused) {
				b.paused = until
			}
		}
		b.held = e.was > 0 || g.amount > 0
		if !l.leases(b, true) || e.asked == 0 {
			continue
		}
		if g.amount > 0 {
			if b.have == 0 {
				b.leasedAt = t
			}
			b.have += g.amount
			b.usedAt, b.need, b.askAt = t, 0, 0
			if g.wait > 0 {
				b.from = t + int64(g.wait)
			}
		} else if b.need > 0 {
			b.askAt, b.askCost = t+int64(g.wait), e.asked
		}
	}
}

// call runs the script. sent is when it began.
func (l *Limiter) call(ctx context.Context, timeout time.Duration, req request) (r answer, sent int64, err error) {
	l.mu.Lock()
	k := &l.link
	sent = l.clock()
	clock := int64(0)
	if l.virtual {
		clock = l.base.UnixMicro() + sent/1000 + l.skew
	}
	args := []any{
		req.op, clock, l.opt.Node, k.sid, l.alone.told(sent), l.opt.MaxNodes, l.pace.ttl.Microseconds(), req.deadline, k.epoch,
		k.calls, l.pace.credit, l.pace.ahead.Microseconds(), oneIf(k.stepped), k.list + k.stale(),
		l.pace.settled.Microseconds(),
		oneIf(req.op == "join" && k.count > 1),
	}
	l.stats.Calls++
	l.mu.Unlock()
	keys := append([]string{"{" + l.opt.Prefix + "}:limits", "{" + l.opt.Prefix + "}:limits:nodes"}, req.keys...)
	ctx, cancel := context.WithTimeout(ctx, max(timeout, l.patience))
	defer cancel()
	raw, err := l.script.Run(ctx, l.client, keys, append(args, req.args...)...).Slice()
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v: %w", timeout, context.DeadlineExceeded)
		}
		return answer{}, sent, err
	}
	r, err = parse(raw, len(req.keys))
	return r, sent, err
}

// stale asks for the names of the nodes when those that are known come from another epoch.
func (k *link) stale() string {
	if k.session == 0 {
		return "?"
	}
	return ""
}

func oneIf(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

var errAnswer = errors.New("redis: an answer that the script does not give")

// parse reads an answer about n limits.
func parse(raw []any, n int) (r answer, err error) {
	const fixed = 9
	field := func(i int) string {
		s, ok := raw[i].(string)
		if !ok {
			err = errAnswer
		}
		return s
	}
	integer := func(i int) int64 {
		v, bad := strconv.ParseInt(field(i), 10, 64)
		if bad != nil {
			err = errAnswer
		}
		return v
	}
	if len(raw) < 2 {
		return r, errAnswer
	}
	r.status, r.now = field(0), integer(1)
	if r.status != "ok" || err != nil {
		return r, err
	}
	if len(raw) != fixed+3*n {
		return r, errAnswer
	}
	r.epoch, r.calls, r.nodes, r.present = integer(2), integer(3), int(integer(4)), int(integer(5))
	r.full, r.list = field(6) == "1", field(7)
	names, _ := raw[8].([]any)
	for _, v := range names {
		if s, ok := v.(string); ok {
			r.names = append(r.names, s)
		}
	}
	for i := fixed; i < len(raw); i += 3 {
		amount, bad := strconv.ParseFloat(field(i), 64)
		if bad != nil || !(amount >= 0) {
			return r, errAnswer
		}
		r.grants = append(r.grants, grant{
			amount: amount,
			wait:   time.Duration(min(integer(i+1), int64(century/time.Microsecond))) * time.Microsecond,
			pause:  time.Duration(min(integer(i+2), int64(century/time.Microsecond))) * time.Microsecond,
		})
	}
	return r, err
}

// newSession returns a name that no other session has.
func newSession() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
