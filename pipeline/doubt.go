package pipeline

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// An attempt without a decisive answer is in doubt: the provider may have the message or not. A doubt is settled in two
// steps. First the account's kind has its say, for as long as its window lasts: a receipt names the message
// (correlate), the provider is asked (query). What is still in doubt then is decided here, by decideDoubt and nowhere
// else.

// What a tenant may want done with an attempt without an answer.
const (
	onAmbiguousRetry = "retry"
	onAmbiguousHold  = "hold"
	onAmbiguousFail  = "fail"
)

// doubtfulAttempts bounds how often a message is handed over that might have arrived each time: a provider which takes
// everything and acknowledges nothing must not reach a person without end.
const doubtfulAttempts = 5

// Reasons of messages that a doubt has moved.
const (
	reasonDoubt       = "ambiguous"         // the tenant's policy
	reasonAtMostOnce  = "at_most_once"      // the sender's wish
	reasonDoubtsEnd   = "attempts_in_doubt" // doubtfulAttempts
	reasonDoubtRetry  = "retry_after_doubt" // tried again, as a possible duplicate
	reasonNotTaken    = "not_taken"         // tried again: the provider says that it never took it
	reasonLeaseEnded  = "lease_ended"       // the worker did not come back
	reasonProcessDied = "process_stopped"   // the process did not
	detailMayHaveIt   = "the person may have it"
)

// answer is what a provider says when it is asked about a doubt.
type answer uint8

const (
	noAnswer  answer = 0 // it was not asked, or could not tell
	taken     answer = 1 // it has the message
	neverTook answer = 2 // it is certain that it never took it
)

// doubt is all that counts for the decision about an attempt without an answer.
type doubt struct {
	kind       connectors.Ambiguity // of the account; "" = the account is gone
	answer     answer               // the provider's, where it can be asked
	policy     string               // the tenant's; "" = retry
	atMostOnce bool
	expired    bool // no hand-off may start any more
	gaveUp     bool // nor by the tenant's retry rule
	attempts   int  // counted ones of this leg, with the one in doubt
}

// decideDoubt is the one table of what becomes of a doubt when its time is over, or its provider has answered. The
// argument, in order:
//
//  1. What the provider says counts more than anybody's wish: it is not a doubt any more. A message that was never
//     taken goes back as if nothing had been tried, so that a second attempt is no possible duplicate.
//  2. At most once means one attempt.
//  3. With a deduplication key the next attempt itself settles the doubt, so that there is nothing to decide; otherwise
//     a tenant may want the message to fail.
//  4. After its end a message is not tried again. It is unknown and not expired: expired says that nothing was handed
//     off, and a late receipt still tells.
//  5. The tenant's policy, with a bound on how often a person may get the same.
//
// The outcome lacks only ID, Epoch, Account and Until.
func decideDoubt(d doubt) store.Outcome {
	safe := d.kind == connectors.DedupeKey
	unknown := func(reason, detail string) store.Outcome {
		return store.Outcome{Status: delivery.StatusUnknown, Reason: reason, Detail: detail + ": " + detailMayHaveIt}
	}
	switch {
	case d.answer == taken:
		return store.Outcome{Status: delivery.StatusSent}
	case d.answer == neverTook:
		return store.Outcome{Status: delivery.StatusQueued, Reason: reasonNotTaken}
	case d.atMostOnce:
		return unknown(reasonAtMostOnce, "the one attempt ended without an answer")
	case d.policy == onAmbiguousFail && !safe:
		return store.Outcome{Status: delivery.StatusFailed, Reason: reasonDoubt,
			Detail: "an attempt ended without an answer; the tenant's policy is to fail"}
	case d.expired:
		return unknown(store.ReasonExpired, "its time ran out while an attempt was in doubt")
	case d.gaveUp:
		return unknown(ReasonRetriesExhausted,
			"given up after "+plural(d.attempts, "attempt")+", the last without an answer")
	case d.policy == onAmbiguousHold && !safe:
		return store.Outcome{Status: delivery.StatusHeld, Reason: reasonDoubt, Duplicate: true,
			Detail: "an attempt ended without an answer; the tenant's policy is to hold"}
	case d.attempts >= doubtfulAttempts && !safe:
		return unknown(reasonDoubtsEnd, fmt.Sprintf("given up after %d attempts, the last without an answer", d.attempts))
	}
	return store.Outcome{Status: delivery.StatusQueued, Reason: reasonDoubtRetry, Duplicate: true}
}

// resolve decides a doubt whose time is over, unless its provider is being asked about it at this moment: then decided is
// false, and the answer or its deadline brings the message back.
func (p *Pipeline) resolve(o store.Overdue, now time.Time) (out store.Outcome, decided bool, err error) {
	tenant, err := p.tenants.get(o.Queue.Tenant)
	if err != nil {
		return out, false, err
	}
	d := doubt{
		policy: tenant.OnAmbiguous, atMostOnce: o.AtMostOnce, expired: !o.ExpiresAt.After(now), attempts: o.Attempts,
	}
	a, open := p.Accounts.Account(o.Account)
	if open {
		d.kind = a.Kind.Ambiguity
		if asks(a) && !p.asker.heard(o, a, now) {
			return out, false, nil
		}
	}
	s := pickSchedule(tenant.Retry, p.opt.Retry, o.Queue.Channel, delivery.InDoubt)
	end := s.deadline(o.ID.Time())
	d.gaveUp = !end.IsZero() && !now.Before(end)
	return doubtOutcome(o, d, now), true, nil
}

// doubtOutcome is decideDoubt for a message.
func doubtOutcome(o store.Overdue, d doubt, now time.Time) store.Outcome {
	out := decideDoubt(d)
	out.ID, out.Epoch, out.Writer, out.Account = o.ID, o.Epoch, delivery.ByPlan, o.Account
	switch out.Status {
	case delivery.StatusQueued:
		out.Until = now
	case delivery.StatusHeld:
		out.Until = o.ExpiresAt
	}
	return out
}

// newDoubtCounter counts doubts that have been decided.
func newDoubtCounter(reg prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "msgctl_doubts_total", Help: "Attempts without an answer, " +
		"by how their account settles doubts and what was decided; queued = sent again as a possible duplicate.",
	}, []string{"ambiguity", "verdict"})
	reg.MustRegister(c)
	return c
}

// countDoubt counts the decision about a doubt.
func (p *Pipeline) countDoubt(o store.Outcome) {
	kind, verdict := "gone", o.Status.String()
	if a, ok := p.Accounts.Account(o.Account); ok {
		kind = string(a.Kind.Ambiguity)
	}
	if o.Reason == reasonNotTaken {
		verdict = reasonNotTaken
	}
	p.doubts.WithLabelValues(kind, verdict).Inc()
}

// doubtUntil is when the doubt about m, whose attempt has just ended without an answer, is to be decided: when its kind
// has had its say, and not sooner than any other failure is tried again. Its expiry does not cut that short: a receipt
// counts whenever it comes.
func (p *Pipeline) doubtUntil(m *passage, f *delivery.Failure, now time.Time) time.Time {
	until := now.Add(resolveWindow(m.account.Kind))
	if !p.triesAgain(m) {
		return until
	}
	next, _ := p.nextTry(m, f.Class, f.RetryAfter, now)
	if next.After(m.ExpiresAt) { // nothing is to be tried again: no need to wait for it
		next = m.ExpiresAt
	}
	if next.After(until) {
		return next
	}
	return until
}

// triesAgain reports whether a doubtful attempt of m will be followed by another one, as far as is known now.
func (p *Pipeline) triesAgain(m *passage) bool {
	if m.AtMostOnce {
		return false
	}
	t, err := p.tenants.get(m.Queue.Tenant)
	return err != nil || t.OnAmbiguous == "" || t.OnAmbiguous == onAmbiguousRetry ||
		m.account.Kind.Ambiguity == connectors.DedupeKey
}

// resolveWindow is how long an attempt without an answer may still be settled by its provider.
func resolveWindow(k *connectors.Kind) time.Duration {
	switch {
	case k.ResolveWindow > 0:
		return k.ResolveWindow
	case k.Ambiguity == connectors.Correlate || k.Ambiguity == connectors.Query:
		return 90 * time.Second
	}
	return 0
}

// inDoubt is the outcome of an attempt of which nobody here knows how it ended; o.Account is the one that made it.
func (p *Pipeline) inDoubt(o store.Overdue, reason, detail string, now time.Time) store.Outcome {
	out := store.Outcome{
		ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusAmbiguous, Account: o.Account,
		Reason: reason, Detail: detail, Attempted: true, Until: now,
	}
	if a, ok := p.Accounts.Account(o.Account); ok {
		out.Until = now.Add(resolveWindow(a.Kind))
	}
	return out
}

// askAbout lets the provider of a doubt that has just been recorded be asked, where it can be.
func (p *Pipeline) askAbout(o store.Outcome, q delivery.Queue, now time.Time) {
	if o.Status != delivery.StatusAmbiguous {
		return
	}
	if a, ok := p.Accounts.Account(o.Account); ok && asks(a) {
		of := store.Overdue{ID: o.ID, Epoch: o.Epoch, Queue: q, Account: a.ID, Status: o.Status}
		p.asker.add(of, a, now, now.Add(askFirst), o.Until)
		p.alarm.due(now.Add(askFirst))
	}
}

// asks reports whether an account's provider can be asked about doubts.
func asks(a *routing.Account) bool {
	_, can := a.Connector.(connectors.Querier)
	return can && a.Kind.Ambiguity == connectors.Query
}
