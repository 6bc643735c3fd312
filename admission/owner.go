package admission

import (
	"math"
	"time"
)

// key names an owner: an account (a tenant or a provider's account) or a peer.
type key struct {
	kind byte
	name string
}

const (
	account byte = iota
	peer
)

// owner is what one of them holds and owes.
type owner struct {
	held  [classes]int
	bytes int64

	debt float64   // messages that were taken and are not paid off at the rate
	at   time.Time // when debt was right
	rate float64   // as of the last request
}

// owner returns the state of an owner, a fresh one when it is new. For each new one a few others are looked at, and
// those that say no more than an absent one are forgotten: memory follows the owners in use.
func (g *Gate) owner(k key, now time.Time) *owner {
	if o, ok := g.owners[k]; ok {
		return o
	}
	seen := 0
	for other, o := range g.owners {
		if o.idle(now) {
			delete(g.owners, other)
		}
		if seen++; seen == 4 {
			break
		}
	}
	o := &owner{at: now}
	g.owners[k] = o
	return o
}

func (o *owner) idle(now time.Time) bool {
	if o.bytes != 0 || o.held != [classes]int{} {
		return false
	}
	o.pay(now)
	return o.debt == 0
}

// pay brings the debt up to date. A step back of the clock pays nothing, and payment goes on from there.
func (o *owner) pay(now time.Time) {
	past := max(now.Sub(o.at), 0)
	o.debt, o.at = max(0, o.debt-o.rate*past.Seconds()), now
}

// wait returns how long a request that costs n must wait at a rate. One second's worth may come at once.
func (o *owner) wait(now time.Time, rate, n float64) time.Duration {
	if n <= 0 {
		return 0
	}
	o.pay(now)
	o.rate = rate
	if rate <= 0 {
		o.debt, o.rate = 0, 0
		return 0
	}
	over := o.debt + n - max(rate, 1)
	if over <= 1e-9 { // what is left of a debt that floating point did not pay off exactly
		return 0
	}
	return time.Duration(min(math.Ceil(over/rate*float64(time.Second)), float64(24*time.Hour)))
}

// Spend charges an owner for n more messages than its request had paid for at the door. It may run up a debt.
func (g *Gate) Spend(name string, n int) {
	if n <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.owners[key{account, name}]; o != nil && o.rate > 0 {
		o.debt += float64(n)
	}
}
