// Package routing chooses the connector account for a message and knows when an account must rest.
package routing

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// Reasons why a message has no account to go by.
const (
	ReasonNoConnector     = "no_connector"     // the tenant has none for the channel
	ReasonConnectorPaused = "connector_paused" // a person paused every one of them
	ReasonConnectorDown   = "connector_down"   // every one of them failed in a way that only its owner or provider can mend
)

// Account is an open connector account. Its exported fields do not change; a changed account is a new Account.
type Account struct {
	ID        delivery.AccountID
	Tenant    delivery.TenantID // delivery.Shared = every tenant may use it
	Name      string
	Channel   delivery.Channel
	Kind      *connectors.Kind
	Connector connectors.Connector
	Priority  int
	PerSecond float64 // cost per second for all who use it; 0 = no bound
	Burst     float64
	Timeout   time.Duration // of one Send
	Parallel  int           // simultaneous Sends
	Paused    bool          // by a person
	Why       string        // why it is paused

	health health
}

// health is the state of an account's breaker: closed, or open until a probe.
type health struct {
	mu      sync.Mutex
	down    bool
	why     string
	probeAt time.Time
	backoff time.Duration
	probing bool      // a message is out to try
	lostAt  time.Time // with probing: when nothing has been heard of it for so long that another may try
}

// How long an account rests after it went down: doubled with every failed probe.
const (
	firstRest = 2 * time.Second
	longRest  = time.Minute
)

// Down reports that a Send found the account unable to work; probe says whether it was the message that Probe let
// through. It returns until when the account rests. Other attempts that end while it rests say nothing new.
func (a *Account) Down(now time.Time, why string, probe bool) time.Time {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down && !probe {
		return h.probeAt
	}
	h.backoff = min(max(2*h.backoff, firstRest), longRest)
	h.down, h.probing, h.why, h.probeAt = true, false, why, now.Add(h.backoff)
	return h.probeAt
}

// Up reports that the Send of a probe worked, or failed for a reason that is not the account's. It returns true when
// that ended a rest: messages held for the account can go again. Only a probe ends a rest, because an attempt that was
// under way when the account went down may end well after it.
func (a *Account) Up() bool {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.down
	h.down, h.probing, h.why, h.backoff = false, false, "", 0
	return was
}

// Resting returns whether the account rests, why and until when. While it does, Probe lets single messages through.
func (a *Account) Resting() (why string, until time.Time, resting bool) {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why, h.probeAt, h.down
}

// Probe reports whether a message may try the account now. A resting account lets exactly one message through once its
// rest is over; the others wait for what becomes of it. A probe that is not heard of for long makes way for the next.
func (a *Account) Probe(now time.Time) bool {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down {
		return true
	}
	if now.Before(h.probeAt) || h.probing && now.Before(h.lostAt) {
		return false
	}
	h.probing, h.lostAt = true, now.Add(2*a.Timeout+longRest)
	return true
}

// Unprobe takes back a Probe whose message was not sent after all.
func (a *Account) Unprobe() {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probing = false
}

// Table holds the open accounts. It is safe for concurrent use; readers never wait.
type Table struct {
	snap atomic.Pointer[snapshot]
}

type snapshot struct {
	byID    map[delivery.AccountID]*Account
	byOwner map[owner][]*Account
}

type owner struct {
	tenant  delivery.TenantID
	channel delivery.Channel
}

// Set replaces the whole table.
func (t *Table) Set(accounts []*Account) {
	s := &snapshot{byID: map[delivery.AccountID]*Account{}, byOwner: map[owner][]*Account{}}
	for _, a := range accounts {
		s.byID[a.ID] = a
		k := owner{a.Tenant, a.Channel}
		s.byOwner[k] = append(s.byOwner[k], a)
	}
	for _, list := range s.byOwner {
		slices.SortFunc(list, func(a, b *Account) int {
			return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
		})
	}
	t.snap.Store(s)
}

// Account returns an open account by id.
func (t *Table) Account(id delivery.AccountID) (*Account, bool) {
	s := t.snap.Load()
	if s == nil {
		return nil, false
	}
	a, ok := s.byID[id]
	return a, ok
}

// All calls f for every account until it returns false.
func (t *Table) All(f func(*Account) bool) {
	s := t.snap.Load()
	if s == nil {
		return
	}
	for _, a := range s.byID {
		if !f(a) {
			return
		}
	}
}

// Choice is where a message may go, or why it may not.
type Choice struct {
	Account *Account // nil = nowhere now
	Probe   bool     // the account rests and this message may try whether it works again
	Reason  string
	Detail  string
	Until   time.Time // when to look again; zero = when somebody changes something
	Blocked *Account  // with no Account: the one that would be used if it worked
}

// Choose picks the account for a message of tenant on ch. A pinned account is the only candidate. Otherwise the tenant's
// own accounts come before shared ones, each in order of priority; paused and resting ones are passed over.
func (t *Table) Choose(tenant delivery.TenantID, ch delivery.Channel, pinned delivery.AccountID, now time.Time) Choice {
	s := t.snap.Load()
	if s == nil {
		return Choice{Reason: ReasonNoConnector, Detail: "no connector is open yet", Until: now.Add(time.Second)}
	}
	best := Choice{Reason: ReasonNoConnector, Detail: "no connector for " + ch.String() + "; add one: msgctl connector add"}
	try := func(a *Account) bool {
		if a.Paused {
			if best.Blocked == nil {
				best = Choice{Reason: ReasonConnectorPaused, Detail: a.Name + " is paused: " + a.Why, Blocked: a}
			}
			return false
		}
		why, until, resting := a.Resting()
		if resting && !a.Probe(now) {
			if best.Blocked == nil || best.Reason == ReasonConnectorPaused {
				best = Choice{Reason: ReasonConnectorDown, Detail: a.Name + ": " + why, Until: until, Blocked: a}
			}
			return false
		}
		best = Choice{Account: a, Probe: resting}
		return true
	}
	if pinned != (delivery.AccountID{}) {
		if a, ok := s.byID[pinned]; ok && a.Channel == ch && (a.Tenant == tenant || a.Tenant == delivery.Shared) {
			try(a)
		} else {
			best.Detail = "the connector asked for is gone"
		}
		return best
	}
	if slices.ContainsFunc(s.byOwner[owner{tenant, ch}], try) {
		return best
	}
	if tenant != delivery.Shared && slices.ContainsFunc(s.byOwner[owner{delivery.Shared, ch}], try) {
		return best
	}
	return best
}
