// Package limitstest is the conformance kit of limits.Limiter.
//
// Each subtest is one sentence of the contract, and that sentence is what a failure prints.
package limitstest

import (
	"context"
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
)

// Run checks a Limiter. Open is called once per subtest and must return a Limiter without any state; it may call
// t.Cleanup. Time is virtual and moves in whole milliseconds, so that a limiter may keep time as coarsely as that.
func Run(t *testing.T, open func(t *testing.T) limits.Limiter) {
	for _, c := range contract {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{t: t, sentence: c.sentence, l: open(t), now: start, seen: map[limits.Key][]grant{}}
			c.run(b)
		})
	}
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type check struct {
	name     string
	sentence string
	run      func(*bench)
}

var contract = []check{
	{"burst", "a full bound grants exactly its burst at once", burst},
	{"not_before", "the same request passes at NotBefore and not earlier", notBefore},
	{"window", "over any window of w seconds at most PerSecond×w + Burst of cost passes", window},
	{"full_speed", "with a backlog at least 95 % of the tightest bound passes", fullSpeed},
	{"all_or_none", "a reservation takes cost from every bound, or from none", allOrNone},
	{"blocking", "Blocking is the index of the bound that decided NotBefore", blocking},
	{"keys", "every field of a key tells bounds apart", keys},
	{"above_burst", "a cost above the burst passes when the bound is full and is paid off before the next", aboveBurst},
	{"rate_change", "a changed rate takes effect with the next reservation", rateChange},
	{"burst_change", "a changed burst takes effect with the next reservation", burstChange},
	{"clock_back", "a clock that steps back never grants more than the rates allow", clockBack},
	{"clock_jitter", "a clock that swings back and forth never grants more than the rates allow", clockJitter},
	{"pause", "a paused key refuses until the given time, and Blocking is -1", pause},
	{"pause_longest", "a shorter pause never cuts a longer one", pauseLongest},
	{"pause_spends_nothing", "a request refused by a pause spends nothing", pauseSpendsNothing},
	{"no_bounds", "a reservation without bounds passes", noBounds},
	{"bad_input", "a rate, a burst or a cost out of range is an error and not a grant", badInput},
	{"concurrent", "concurrent reservations grant what the same ones grant one after the other", concurrent},
}

type grant struct {
	at   time.Time
	cost float64
}

// bench is a limiter with a clock, and a memory of what passed.
type bench struct {
	t        *testing.T
	sentence string
	l        limits.Limiter
	now      time.Time
	seen     map[limits.Key][]grant
}

func (b *bench) failf(format string, args ...any) {
	b.t.Helper()
	b.t.Logf(format, args...)
	b.t.Fatal(b.sentence)
}

func (b *bench) reserve(cost float64, bounds ...limits.Bound) limits.Decision {
	b.t.Helper()
	d, err := b.l.Reserve(context.Background(), b.now, bounds, cost)
	if err != nil {
		b.t.Fatalf("Reserve: %v", err)
	}
	if !d.Go && !d.NotBefore.After(b.now) {
		b.failf("refused at %v, with NotBefore %v", b.now, d.NotBefore)
	}
	if d.Go {
		for _, x := range bounds {
			b.seen[x.Key] = append(b.seen[x.Key], grant{b.now, cost})
		}
	}
	return d
}

func (b *bench) pause(k limits.Key, until time.Time) {
	b.t.Helper()
	if err := b.l.Pause(context.Background(), k, until); err != nil {
		b.t.Fatalf("Pause: %v", err)
	}
}

// drain takes cost 1 until it is refused, and returns how often it passed.
func (b *bench) drain(bounds ...limits.Bound) int {
	b.t.Helper()
	for n := 0; ; n++ {
		if n > 100_000 {
			b.failf("%d passed at one instant", n)
		}
		if !b.reserve(1, bounds...).Go {
			return n
		}
	}
}

// checkWindows counts by brute force what passed in every window that begins and ends with a grant.
func (b *bench) checkWindows(x limits.Bound) {
	b.t.Helper()
	g := b.seen[x.Key]
	for i := range g {
		sum, largest := 0.0, x.Rate.Burst
		for j := i; j < len(g); j++ {
			sum += g[j].cost
			largest = max(largest, g[j].cost) // a cost above the burst stands for the burst
			w := g[j].at.Sub(g[i].at).Seconds()
			if allowed := x.Rate.PerSecond*w + largest; sum > allowed*(1+1e-9) {
				b.failf("%+v: %v passed in %v s from %v, allowed %v", x, sum, w, g[i].at, allowed)
			}
		}
	}
}

func bound(tenant string, perSecond, burst float64) limits.Bound {
	return limits.Bound{
		Key:  limits.Key{Tenant: delivery.TenantID(tenant)},
		Rate: limits.Rate{PerSecond: perSecond, Burst: burst},
	}
}

func upToMilli(t time.Time) time.Time {
	if r := t.Truncate(time.Millisecond); r.Before(t) {
		return r.Add(time.Millisecond)
	}
	return t
}
