package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/msgctl/msgctl/limits"
)

var (
	errCost   = errors.New("a cost is above 0 and at most 1e9")
	errNow    = errors.New("the time of a reservation is not set")
	errClosed = errors.New("the limits are closed")
)

// check refuses what limits.Limiter calls bad input.
func checkRequest(now time.Time, bounds []limits.Bound, cost float64) error {
	if !(cost > 0 && cost <= most) {
		return errCost
	}
	if now.IsZero() {
		return errNow
	}
	for i := range bounds {
		if r := bounds[i].Rate; !(r.PerSecond > 0 && r.Burst >= 1) || math.IsInf(r.PerSecond, 1) || math.IsInf(r.Burst, 1) {
			return fmt.Errorf("bound %d: a rate is above 0 and a burst at least 1, both finite", i)
		}
		for j := range i {
			if bounds[j].Key == bounds[i].Key {
				return fmt.Errorf("bound %d repeats the key of bound %d", i, j)
			}
		}
	}
	return nil
}

// Reserve implements limits.Limiter: it spends what this node has leased of every bound, or of none. What is missing is
// asked for in the background; NotBefore says when it is expected, a few milliseconds ahead, or when the limits have a
// permit again. now says only how NotBefore is to be understood and when pauses end: leases go by the limiter's clock.
// A Reserve allocates nothing for keys that are known.
func (l *Limiter) Reserve(
	ctx context.Context, now time.Time, bounds []limits.Bound, cost float64,
) (limits.Decision, error) {
	if err := checkRequest(now, bounds, cost); err != nil {
		return limits.Decision{}, err
	}
	if l.asking {
		l.turns.Lock()
		defer l.turns.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return limits.Decision{}, errClosed
	}
	var behind time.Duration
	if l.asking {
		behind = l.advance(now)
	}
	t := l.clock()
	if (l.link.session == 0 || !l.link.full || l.unknown()) && l.old(t) {
		l.mu.Unlock()
		l.survey()
		l.mu.Lock()
		t = l.clock()
	}
	if l.unknown() {
		return limits.Decision{NotBefore: now.Add(l.pace.beat), Blocking: 0}, nil
	}
	var room [8]*bucket
	picked := room[:0]
	for i := range bounds {
		b := l.buckets.of(bounds[i].Key, l.opt.Prefix)
		b.set(bounds[i].Rate)
		b.used = t
		picked = append(picked, b)
	}
	d, missing := l.decide(now, t, behind, picked, cost)
	if d.Go || !missing {
		return d, nil
	}
	if l.asking {
		return l.decideAsking(ctx, now, t, behind, picked, cost)
	}
	l.wake()
	return d, nil
}

// decide spends cost from every bucket or from none. missing says that asking Redis could change the answer soon.
func (l *Limiter) decide(
	now time.Time, t int64, behind time.Duration, picked []*bucket, cost float64,
) (d limits.Decision, missing bool) {
	d = limits.Decision{Go: true}
	shared := l.link.session != 0 && t < l.link.valid
	latest := int64(0) // of the waits, in nanoseconds
	for i, b := range picked {
		b.cost = cost
		if now.Before(b.paused) {
			d = later(d, b.paused, -1)
			latest = max(latest, int64(b.paused.Sub(now)))
			continue
		}
		wait := l.wait(b, cost, t, shared)
		if wait <= 0 {
			continue
		}
		missing = missing || l.lacks(b, cost, t, shared)
		latest = max(latest, wait)
		d = later(d, now.Add(time.Duration(wait)+behind), i)
	}
	if d.Go {
		for _, b := range picked {
			l.take(b, cost, t, shared)
		}
		return d, false
	}
	// Nothing is leased of the others while one bound cannot give for long: it would only be kept from other nodes.
	if !missing || latest > int64(l.pace.ahead+l.pace.gapMost*4) {
		if d.Blocking >= 0 && l.lacks(picked[d.Blocking], cost, t, shared) {
			l.want(picked[d.Blocking], cost, t)
			return d, true
		}
		return d, false
	}
	for _, b := range picked {
		if l.lacks(b, cost, t, shared) {
			l.want(b, cost, t)
		}
	}
	return d, true
}

// later refuses, and keeps the later of two times.
func later(d limits.Decision, at time.Time, blocking int) limits.Decision {
	if d.Go || at.After(d.NotBefore) {
		return limits.Decision{NotBefore: at, Blocking: blocking}
	}
	return d
}

// leases says whether b goes by leases; else by what the node has alone.
func (l *Limiter) leases(b *bucket, shared bool) bool {
	return shared && (l.link.full || b.burst >= float64(l.link.nodes))
}

// lacks says whether b needs more of Redis for cost.
func (l *Limiter) lacks(b *bucket, cost float64, t int64, shared bool) bool {
	if !shared {
		return l.asking
	}
	return l.leases(b, shared) && (b.session != l.link.session || !b.has(cost))
}

// has says that the lease is enough for cost. A lease above the burst was made for one request whose cost is: smaller ones
// could spend it at another time each.
func (b *bucket) has(cost float64) bool {
	return b.have >= cost-tiny && (b.have <= b.burst+tiny || b.have <= cost+tiny)
}

// wait returns in how many nanoseconds cost can go as far as b is concerned, 0 = now.
func (l *Limiter) wait(b *bucket, cost float64, t int64, shared bool) int64 {
	switch {
	case l.leases(b, shared):
		b.enter(l.link.session)
		switch {
		case b.has(cost) && t >= b.from:
			return 0
		case b.has(cost):
			return b.from - t
		case b.askAt > t && b.askCost == cost-b.have:
			return b.askAt - t
		}
		return l.expected(t) - t
	case shared: // a burst that cannot be divided, while a node is cut off
		return l.localWait(b, cost, t, l.link.lackFrom)
	}
	return l.localWait(b, cost, t, l.link.aloneFrom)
}

// expected is when the next answer from Redis may be here. Many nodes call less often; a caller may ask more often than
// that, because what is leased and waits for it is kept from the others.
func (l *Limiter) expected(t int64) int64 {
	at := max(t, l.link.sent+int64(l.link.gap))
	if l.link.under { // what is asked for now goes with the call after it
		at += int64(l.link.trip)
	}
	return min(at+int64(l.link.trip)*3/2+int64(300*time.Microsecond), t+int64(5*time.Millisecond))
}

// take spends from b what wait let go.
func (l *Limiter) take(b *bucket, cost float64, t int64, shared bool) {
	if !l.leases(b, shared) {
		b.localTake(cost, t)
		l.activate(b)
		return
	}
	b.have = max(0, b.have-cost)
	b.spent += cost
	b.spentAt, b.usedAt, b.wantedAt = t, t, t
	l.activate(b)
	if b.have < cost-tiny {
		b.drained = true
		l.wake()
	} else if b.have < b.window/2 && b.window >= 2*cost {
		l.wake()
	}
}

// want notes that the next call to Redis should ask for cost.
func (l *Limiter) want(b *bucket, cost float64, t int64) {
	b.enter(l.link.session)
	if b.have > b.burst+tiny {
		b.have = 0
	}
	missing := cost - b.have
	if b.askCost != missing {
		b.askAt = 0
	}
	b.need, b.wantedAt = missing, t
	l.activate(b)
}

// activate puts b among those that Redis should hear of. The lock is held.
func (l *Limiter) activate(b *bucket) {
	if !b.active {
		b.active = true
		l.active = append(l.active, b)
	}
}
