package pipeline

import (
	"math"
	"time"
)

// pace bounds an account's rate for a while, below whatever limit it has: while its provider asks to slow down without
// saying for how long, and after a rest. Its station's mutex guards it.
//
//  1. A "slow down" lets the rate fall to a part of what the provider took of late, each time.
//  2. After a rest the account begins with what it sent in a second before: what has waited meanwhile, and may be the
//     work of hours, does not come all at once.
//  3. From then on the rate rises by a fixed step each second.
//  4. The bound is lifted when nothing has had to wait for it for a while.
type pace struct {
	perSecond float64 // 0 = no bound
	step      float64 // a second
	raised    time.Time
	met       time.Time // when something last had to wait

	since time.Time // of the second that is being counted
	now   float64   // what the provider took in it
	was   float64   // a second's worth of the one before
	best  float64   // the most that was taken in a second, fading
}

const (
	paceDrop   = 0.7 // of the rate is left after a "slow down"
	paceSteps  = 20  // of a second until what it had of late is made up for, from nothing
	paceLeast  = 1.0 // per second: less is the business of the pause after each "slow down"
	paceUnmet  = 10 * time.Second
	bestFading = 0.98 // of best is left after a second: half after half a minute

	// A slow account begins with this after a rest, and rises as fast as one that had it.
	recoverLeast = 50.0
	recoverSteps = 10 // of a second until the rate is twice of what it began with
)

// took counts what the provider took.
func (p *pace) took(cost float64, now time.Time) {
	if d := now.Sub(p.since); d >= time.Second || d < 0 {
		seconds := max(d.Seconds(), 1)
		p.was = p.now / seconds
		if p.perSecond == 0 {
			p.best = max(p.best*bestFading, p.now) * math.Pow(bestFading, seconds-1)
		} else { // what is bounded says nothing about what there is to send
			p.best = max(p.best, p.now)
		}
		p.now, p.since = 0, now
	}
	p.now += cost
}

// slowDown lowers the rate, because the provider asked for it.
func (p *pace) slowDown(now time.Time) {
	from := p.at(now)
	if from == 0 {
		p.took(0, now)
		from = max(p.now, p.was, paceLeast)
		p.step = max(from, p.best, 1) / paceSteps
	}
	p.begin(max(from*paceDrop, paceLeast), now)
}

// rest remembers what the account sends in a second as its rest begins.
func (p *pace) rest(now time.Time) {
	p.took(0, now)
	p.best = max(p.best, p.now)
}

// recover bounds the rate after a rest. Of an account that has sent next to nothing of late, nothing is known that it
// could be bound by.
func (p *pace) recover(now time.Time) {
	if p.best < 1 {
		return
	}
	from := max(p.best, recoverLeast)
	p.step = from / recoverSteps
	p.begin(from, now)
}

func (p *pace) begin(perSecond float64, now time.Time) {
	p.perSecond, p.raised, p.met = tenths(perSecond), now, now
}

// at returns the rate that is allowed now, per second; 0 = there is no bound.
func (p *pace) at(now time.Time) float64 {
	if p.perSecond == 0 {
		return 0
	}
	if now.Sub(p.met) > paceUnmet {
		p.perSecond = 0
		return 0
	}
	if n := math.Floor(now.Sub(p.raised).Seconds()); n >= 1 {
		p.perSecond = tenths(p.perSecond + n*p.step)
		p.raised = p.raised.Add(time.Duration(n) * time.Second)
	}
	return p.perSecond
}

// wait says that something has to wait for the account's rate.
func (p *pace) wait(now time.Time) { p.met = now }

// tenths keeps a rate short enough to be shown.
func tenths(perSecond float64) float64 { return math.Round(perSecond*10) / 10 }
