package routing

import (
	"fmt"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Explanation says by which account a message would go now, and why.
type Explanation struct {
	Rule       string      // such as "rule 2: +91", or "priority" when no rule is about the message
	Account    *Account    // nil = none can take it now
	Candidates []Candidate // in the order in which they are asked; weighted ones by their weight
}

// Candidate is an account that a message might go by.
type Candidate struct {
	Connector string
	Account   *Account // nil = missing
	Weight    int
	State     string    // ready, resting, paused, unhealthy or missing
	Detail    string    // why it is not ready, safe to show
	Until     time.Time // when it is asked again; zero = not by itself
	Failing   float64   // share of the last attempts to the destination that failed, 0 to 1
}

// Explain says what Choose would do with a message, without a word to any account: nobody is probed. Message, Pinned
// and Doubted of the query do not count. Of several weighted targets that are ready, Account is the one with most
// weight; each gets its share.
func (t *Table) Explain(q *Query, now time.Time) Explanation {
	rule, n, _ := match(q)
	e := Explanation{Rule: label(rule, n)}
	s := t.snap.Load()
	if s == nil {
		return e
	}
	if rule == nil {
		for _, a := range s.candidates(q.Tenant, q.Channel) {
			e.ask(a, &delivery.RouteTarget{Connector: a.Name}, q, now)
		}
	} else {
		targets := slices.Clone(rule.Targets)
		slices.SortStableFunc(targets, func(a, b delivery.RouteTarget) int { return b.Weight - a.Weight })
		for i := range targets {
			e.ask(s.called(q.Tenant, targets[i].Connector, q.Channel), &targets[i], q, now)
		}
	}
	for _, strict := range [...]bool{true, false} {
		for _, c := range e.Candidates {
			if a := c.Account; e.Account == nil && a != nil && a.offer(q.To, now, strict, false).state == ready {
				e.Account = a
			}
		}
	}
	return e
}

// Share is the part of the messages that an account gets, above 0 and at most 1.
type Share struct {
	Account *Account
	Part    float64
}

// Shares lists who would share the messages now: the ready weighted targets of a rule, or the one account that takes
// them all.
func (e Explanation) Shares() []Share {
	var shares []Share
	sum := 0
	for _, c := range e.Candidates {
		if c.State == ready.String() {
			sum += c.Weight
		}
	}
	if sum == 0 && e.Account != nil {
		return []Share{{e.Account, 1}}
	}
	for _, c := range e.Candidates {
		if c.State == ready.String() && c.Weight > 0 {
			shares = append(shares, Share{c.Account, float64(c.Weight) / float64(sum)})
		}
	}
	return shares
}

// ask adds a candidate.
func (e *Explanation) ask(a *Account, target *delivery.RouteTarget, q *Query, now time.Time) {
	c := Candidate{Connector: target.Connector, Account: a, Weight: target.Weight}
	if a == nil {
		c.State = missing.String()
		c.Detail = "there is no connector of this name for " + q.Channel.String()
		e.Candidates = append(e.Candidates, c)
		return
	}
	o := a.offer(q.To, now, true, false)
	failed, all := a.failing(q.To)
	if all > 0 {
		c.Failing = float64(failed) / float64(all)
	}
	if o.probe { // its rest is over: the next message tries
		o.state = resting
	}
	c.State, c.Detail, c.Until = o.state.String(), o.why, o.until
	if o.state == unhealthy {
		c.Detail = fmt.Sprintf("%d of the last %d attempts to %s failed", failed, all, destinationOf(q.Channel, q.To))
	}
	e.Candidates = append(e.Candidates, c)
}

// failing returns how many of the last attempts to an address's destination failed, and how many there were since the
// first of those.
func (a *Account) failing(to string) (failed, all int) {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.places.find(a.Channel, to); d != nil {
		return d.recent.sum()
	}
	return 0, 0
}
