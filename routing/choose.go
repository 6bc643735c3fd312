package routing

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Reasons why a message has no account to go by.
const (
	ReasonNoConnector     = "no_connector"     // the tenant has none for the channel, or its rule names none that is there
	ReasonConnectorPaused = "connector_paused" // a person paused every one of them
	ReasonConnectorDown   = "connector_down"   // every one of them rests: it failed, or most of its attempts did
	ReasonNoSession       = "no_session"       // another node has the session that its account allows
	ReasonInDoubt         = "in_doubt"         // the one that may have taken it already is gone
)

// Query is what an account is chosen by. Empty fields are unknown or do not matter.
type Query struct {
	Message  delivery.MessageID // decides between weighted targets
	Tenant   delivery.TenantID
	Channel  delivery.Channel
	To       string
	Category string
	Tag      string
	Rules    []delivery.RouteRule // of the tenant
	Pinned   delivery.AccountID   // the only candidate: the sender asked for it
	// Doubted is the account that an attempt without an answer went by. It may have the message, and only it can know: it
	// is the only candidate, unless the sender pinned another one. Zero = there was none, or the tenant does not mind.
	Doubted delivery.AccountID
}

// Bound reports whether a single account is the only candidate, whatever rules say.
func (q *Query) Bound() bool {
	return q.Pinned != (delivery.AccountID{}) || q.Doubted != (delivery.AccountID{})
}

// Choice is where a message may go, or why it may not.
type Choice struct {
	Account *Account // nil = nowhere now
	Probe   bool     // the account rests and this message may try whether it works again
	Route   string   // with an Account: why this one, such as "rule 2: +91 (alpha rests)"
	Reason  string
	Detail  string
	Until   time.Time // when to look again; zero = when somebody changes something
	Blocked *Account  // with no Account: the one that would be used if it worked
	// Alone is set when the result says nothing about other messages of the tenant on the channel.
	Alone bool
}

// Choose picks the account for a message. A pinned account is the only candidate, and so is the one that may have the
// message already. Otherwise the tenant's first rule that is about the message names the candidates; without one these
// are the tenant's own accounts and then shared ones, in order of priority. Of the candidates, the first takes it that
// works and has no trouble with the destination; if all that work have, the first of them. When a message has a rule,
// it never goes by an account that the rule does not name.
func (t *Table) Choose(q *Query, now time.Time) Choice {
	s := t.snap.Load()
	if s == nil {
		return Choice{Reason: ReasonNoConnector, Detail: "no connector is open yet", Until: now.Add(time.Second)}
	}
	switch {
	case q.Pinned != (delivery.AccountID{}):
		return s.only(q, q.Pinned, "pinned", now, ReasonNoConnector, "the connector asked for is gone")
	case q.Doubted != (delivery.AccountID{}):
		return s.only(q, q.Doubted, "in doubt", now, ReasonInDoubt,
			"the connector that may have sent it is gone; another one could send it twice")
	}
	rule, n, alone := match(q)
	if rule == nil {
		c := choose(s.candidates(q.Tenant, q.Channel), q, now)
		c.Alone = alone
		return c.explained(q, nil, 0)
	}
	var few [8]seat
	var list [8]*Account
	asked := list[:0]
	for _, at := range seats(few[:0], s, q, rule) {
		if at.account != nil {
			asked = append(asked, at.account)
		}
	}
	c := choose(asked, q, now)
	c.Alone = alone
	return c.explained(q, rule, n)
}

// only is the choice with a single candidate.
func (s *snapshot) only(q *Query, id delivery.AccountID, route string, now time.Time, gone, detail string) Choice {
	a := s.open(id, q.Tenant, q.Channel)
	if a == nil {
		return Choice{Reason: gone, Detail: detail, Alone: true}
	}
	c := choose([]*Account{a}, q, now)
	c.Alone = true
	if c.Account != nil {
		c.Route = route
	}
	return c
}

// explained fills in the words of a choice: Route still holds what is to be said of the candidate that was passed over.
func (c Choice) explained(q *Query, rule *delivery.RouteRule, n int) Choice {
	switch {
	case c.Account != nil && c.Route == "":
		c.Route = label(rule, n)
	case c.Account != nil:
		c.Route = label(rule, n) + " (" + c.Route + ")"
	case c.Reason != "": // somebody is in the way, and named
	case rule != nil:
		c.Reason, c.Detail = ReasonNoConnector, label(rule, n)+" names no connector for "+q.Channel.String()+" that is there"
	default:
		c.Reason = ReasonNoConnector
		c.Detail = "no connector for " + q.Channel.String() + "; add one: msgctl connector add"
	}
	return c
}

// choose asks candidates in their order. In Route it leaves what the first of them was passed over for; "" = it was
// not.
func choose(candidates []*Account, q *Query, now time.Time) Choice {
	var c Choice
	passed := ""
	avoided := false
	for _, strict := range [...]bool{true, false} {
		for i, a := range candidates {
			o := a.offer(q.To, now, strict, true)
			switch o.state {
			case ready:
				if i == 0 {
					passed = ""
				}
				return Choice{Account: a, Probe: o.probe, Route: passed}
			case unhealthy:
				avoided = true
			case paused:
				if c.Blocked == nil {
					c = Choice{Reason: ReasonConnectorPaused, Detail: a.Name + " is paused: " + a.Why, Blocked: a}
				}
			case elsewhere: // it would be the one, as far as anybody here knows: who has the session also knows better
				return Choice{Reason: ReasonNoSession, Detail: a.Name + ": " + o.why, Blocked: a}
			case resting: // the one that comes back first
				if c.Blocked == nil || c.Reason == ReasonConnectorPaused || o.until.Before(c.Until) {
					c = Choice{Reason: ReasonConnectorDown, Detail: a.Name + ": " + o.why, Until: o.until, Blocked: a}
				}
			}
			if i == 0 && strict {
				passed = a.Name + passedOver[o.state]
			}
		}
		if !avoided { // nobody's trouble is with the destination only
			break
		}
	}
	return c
}

// state is how an account stands to a message.
type state int

const (
	ready     state = iota
	resting         // it failed, and no message may try it now
	paused          // by a person
	unhealthy       // it works, but not to this destination
	missing         // there is no such account
	elsewhere       // another node has its session
)

var stateNames = [...]string{"ready", "resting", "paused", "unhealthy", "missing", "elsewhere"}

func (s state) String() string { return stateNames[s] }

var passedOver = [...]string{resting: " rests", paused: " is paused", unhealthy: " is unhealthy", missing: "", elsewhere: ""}

// offer is an account's answer to a message.
type offer struct {
	state state
	probe bool // the account rests, and this message may try it
	why   string
	until time.Time
}

// offer asks the account whether it takes a message to an address now. A strict one is not taken when the destination
// is in trouble. With take, an account or destination that a message may try is told that this one does.
func (a *Account) offer(to string, now time.Time, strict, take bool) offer {
	if a.Paused {
		return offer{state: paused, why: a.Why}
	}
	if a.Elsewhere {
		return offer{state: elsewhere, why: "another node has its session"}
	}
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.probeReady(now) {
		return offer{state: resting, why: h.why, until: h.probeAt}
	}
	d := h.places.find(a.Channel, to)
	if strict && !d.open(now) {
		return offer{state: unhealthy, until: d.until}
	}
	if take {
		h.probe(now, a.lost())
		d.probe(now, a.lost())
	}
	if !h.down {
		return offer{}
	}
	return offer{probe: true, why: h.why, until: h.probeAt}
}
