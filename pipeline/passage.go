package pipeline

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// passage is one claimed message on its way from route to receipt. One goroutine has it at a time.
type passage struct {
	store.Claimed
	account   *routing.Account
	until     time.Time // the lease's end
	draft     delivery.Draft
	out       delivery.Outgoing
	probe     bool              // the one message that may try a resting account
	route     string            // why this account was chosen
	alone     bool              // its account is its own matter and says nothing about the rest of its queue: see route
	refusals  int64             // of its tenant, as counted before its claim
	ways      int64             // as counted before its account was chosen
	content   string            // what was rendered, such as "otp v3"; "" = literal content
	began     time.Time         // when a worker took it
	permitted time.Duration     // when it got its permit, as a reading of Pipeline.elapsed
	limited   bool              // a rate had to permit it
	track     *track            // what it goes through; nil = it is not traced
	journal   *segment          // where its attempt was begun; nil = it was not
	failure   *delivery.Failure // of the attempt; nil = it had none
	ended     bool              // outcome is decided
	outcome   store.Outcome
}

func (m *passage) key() attemptKey { return attemptKey{m.ID, m.Epoch} }

// leaseShort reports whether the lease may end before an attempt that starts now.
func (m *passage) leaseShort(now time.Time) bool { return m.until.Sub(now) < m.account.Timeout }

// cost is what the message takes from a rate: SMS by segments, the others one each.
func (m *passage) cost() float64 { return float64(max(m.Segments, 1)) }

// end decides what becomes of the message. The first decision stands.
func (m *passage) end(o store.Outcome) {
	if m.ended {
		return
	}
	o.ID, o.Epoch, o.Writer = m.ID, m.Epoch, delivery.BySend
	if m.account != nil {
		o.Account = m.account.ID
	}
	o.Route, o.Content = m.route, m.content
	o.Until = upToMilli(o.Until)
	m.bound(&o)
	m.outcome, m.ended = o, true
}

// hold makes the message wait in the store, with a reason and the time of the next look.
func (m *passage) hold(reason, detail string, until time.Time) {
	m.end(store.Outcome{Status: delivery.StatusHeld, Reason: reason, Detail: detail, Until: until})
}

// giveBack returns the message to its queue as it was: nothing has been tried. It takes its old place, before everything
// that was accepted later.
func (m *passage) giveBack(why string) {
	m.end(store.Outcome{Status: delivery.StatusQueued, Reason: why, Until: m.AcceptedAt})
}

// upToMilli is the first whole millisecond at or after t. The store keeps no finer times and cuts them: a message whose
// account rests until a moment within this millisecond would be due at once, and held again, until the moment has come.
func upToMilli(t time.Time) time.Time {
	if cut := t.Truncate(time.Millisecond); cut.Before(t) {
		return cut.Add(time.Millisecond)
	}
	return t
}
