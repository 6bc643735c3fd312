package pipeline

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// How often the sweeper looks, at least and at most. In between it wakes when the next due time comes.
const (
	sweepAtMost  = time.Second
	sweepAtLeast = 5 * time.Millisecond
	tidyEvery    = 5 * time.Second

	// hintGrace is how long a due message is left to its hint while hints flow.
	hintGrace = 100 * time.Millisecond
)

// sweep finds due work that no hint tells of: due times that have come, hints that were lost, leases that have run out,
// doubts that are to be settled. It only ever returns work.
func (p *Pipeline) sweep(ctx context.Context) {
	var tidied, counted time.Time
	for ctx.Err() == nil {
		now := p.clock.Now()
		p.alarm.set(now) // while the sweeper looks, whatever becomes due makes it look again
		left := p.sweepQueues(ctx, now)
		if now.Sub(counted) >= sweepAtMost {
			counted = now
			p.planner.giveUpLost(now)
			for _, s := range p.open() {
				s.giveBackShort(now)
			}
		}
		if err := p.settleOverdue(ctx, now); err != nil && ctx.Err() == nil {
			p.log.Warn("overdue claims cannot be settled", "err", err)
		}
		if now.Sub(tidied) >= tidyEvery {
			tidied = now
			p.tidy(ctx, now)
		}
		wait := sweepAtMost
		if left {
			wait = hintGrace
		}
		if next, err := p.store.NextDue(ctx, system, now); err == nil && !next.IsZero() {
			wait = min(max(next.Sub(now), sweepAtLeast), wait)
		}
		p.alarm.arm(now.Add(wait))
		p.alarm.wait(ctx, p.clock)
	}
}

// alarm is when the sweeper looks next; whoever writes an earlier due time moves it forward.
type alarm struct {
	early chan struct{}

	mu     sync.Mutex
	at     time.Time // of the next look; while one is under way, when it began
	sooner time.Time // the earliest due time written meanwhile; zero = none
}

func newAlarm() *alarm { return &alarm{early: make(chan struct{}, 1)} }

// set says that a look begins.
func (a *alarm) set(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.sooner = now, time.Time{}
	select {
	case <-a.early:
	default:
	}
}

// arm says when the next look is to be, unless something was written during this one that is due before.
func (a *alarm) arm(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = at
	if !a.sooner.IsZero() {
		a.at = sooner(at, a.sooner)
	}
}

// wait returns when it is time to look, or ctx ends. An earlier due time makes it wait for that one: it does not look
// before there is something to see.
func (a *alarm) wait(ctx context.Context, clock clockwork.Clock) {
	for {
		a.mu.Lock()
		at := a.at
		a.mu.Unlock()
		t, ok := timerAt(clock, at)
		if !ok {
			return
		}
		select {
		case <-t.Chan():
			return
		case <-a.early:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// due tells of a due time that has been written. It costs nothing while the sweeper looks soon enough.
func (a *alarm) due(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sooner.IsZero() || at.Before(a.sooner) {
		a.sooner = at
	}
	if at.Before(a.at) {
		a.at = at
		select {
		case a.early <- struct{}{}:
		default:
		}
	}
}

// sweepQueues tells the planner which queues have due messages. It returns true when some of them were left to hints
// that are under way.
func (p *Pipeline) sweepQueues(ctx context.Context, now time.Time) (left bool) {
	due, err := p.store.DueQueues(ctx, system, now)
	if err != nil {
		if ctx.Err() == nil {
			p.log.Warn("due queues cannot be read", "err", err)
		}
		return false
	}
	quiet := p.hints.idle()
	for _, q := range due {
		// While hints flow, what became due a moment ago is most likely named by one of them.
		if quiet || now.Sub(q.Oldest) > hintGrace {
			p.planner.overdue(q.Queue, q.Oldest)
		} else {
			left = true
		}
	}
	return left
}

// tidy does what needs doing now and then: parked receipts that nobody claimed.
func (p *Pipeline) tidy(ctx context.Context, now time.Time) {
	if n, err := p.store.DropParked(ctx, system, now); err == nil && n > 0 {
		p.log.Warn("receipts for unknown messages were dropped after their time", "receipts", n)
	}
}

// settleOverdue decides about claims whose lease has run out and doubts whose time has come, a batch at a time.
func (p *Pipeline) settleOverdue(ctx context.Context, now time.Time) error {
	overdue, err := p.store.Overdue(ctx, system, now, "", maxHint)
	if err != nil || len(overdue) == 0 {
		return err
	}
	ours := map[attemptKey]bool{}
	if slices.ContainsFunc(overdue, func(o store.Overdue) bool { return o.Status == delivery.StatusSending }) {
		// Both lists are in the order of their times, so that what of this list is ours stands at the head of that one.
		own, err := p.store.Overdue(ctx, system, now, p.opt.Node, maxHint)
		if err != nil {
			return err
		}
		for _, o := range own {
			ours[attemptKey{o.ID, o.Epoch}] = true
		}
	}
	outcomes, of := make([]store.Outcome, 0, len(overdue)), make([]store.Overdue, 0, len(overdue))
	for _, o := range overdue {
		key := attemptKey{o.ID, o.Epoch}
		of = append(of, o)
		switch {
		case o.Status != delivery.StatusSending:
			out, err := p.resolve(o, now)
			if err != nil { // its tenant cannot be read now: the next look decides
				of = of[:len(of)-1]
				continue
			}
			outcomes = append(outcomes, out)
		case ours[key] && p.claims.takeBack(key):
			outcomes = append(outcomes, notBegun(o, "lease_ended"))
		default:
			outcomes = append(outcomes, p.inDoubt(o, "lease_ended", "its worker did not come back in time", now))
		}
	}
	settled, err := p.store.Settle(ctx, system, now, outcomes)
	if err != nil {
		return err
	}
	for i := range settled {
		if !settled[i].Applied {
			continue
		}
		if outcomes[i].Status == delivery.StatusQueued {
			p.hints.add(of[i].Queue, of[i].ID)
		} else if !outcomes[i].Until.IsZero() {
			p.alarm.due(outcomes[i].Until)
		}
		p.claims.end(attemptKey{of[i].ID, of[i].Epoch})
	}
	return nil
}

// notBegun is the outcome of a claim whose attempt is known not to have begun: back to its old place in the queue.
func notBegun(o store.Overdue, reason string) store.Outcome {
	return store.Outcome{
		ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: reason, Until: o.ID.Time(),
	}
}

// inDoubt is the outcome of an attempt of which nobody knows how it ended.
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

// What a tenant may want done with an attempt without an answer.
const (
	onAmbiguousRetry = "retry"
	onAmbiguousHold  = "hold"
	onAmbiguousFail  = "fail"
)

// doubtfulAttempts bounds how often a message is handed over that might have arrived each time: a provider which takes
// everything and acknowledges nothing must not reach a person without end.
const doubtfulAttempts = 5

// deduplicates reports whether a second hand-over to the account's provider does no harm.
func (p *Pipeline) deduplicates(id delivery.AccountID) bool {
	a, ok := p.Accounts.Account(id)
	return ok && a.Kind.Ambiguity == connectors.DedupeKey
}

// resolve decides a doubt that no receipt has settled, by the message's own wish and then the tenant's policy.
func (p *Pipeline) resolve(o store.Overdue, now time.Time) (store.Outcome, error) {
	out := store.Outcome{ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Account: o.Account}
	tenant, err := p.tenants.get(o.Queue.Tenant)
	if err != nil {
		return out, err
	}
	switch policy := tenant.onAmbiguous; {
	case o.AtMostOnce:
		out.Status, out.Reason = delivery.StatusUnknown, "at_most_once"
		out.Detail = "the one attempt ended without an answer"
	case !o.ExpiresAt.After(now):
		out.Status, out.Reason = delivery.StatusExpired, store.ReasonExpired
		out.Detail = "its time ran out while an attempt was in doubt"
	case policy == onAmbiguousHold:
		out.Status, out.Reason, out.Until = delivery.StatusHeld, "ambiguous", o.ExpiresAt
		out.Detail, out.Duplicate = "an attempt ended without an answer; the tenant's policy is to hold", true
	case policy == onAmbiguousFail:
		out.Status, out.Reason = delivery.StatusFailed, "ambiguous"
		out.Detail = "an attempt ended without an answer; the tenant's policy is to fail"
	case o.Attempts >= doubtfulAttempts && !p.deduplicates(o.Account):
		out.Status, out.Reason = delivery.StatusUnknown, "attempts_in_doubt"
		out.Detail = fmt.Sprintf("given up after %d attempts, the last without an answer: the person may have it", o.Attempts)
	default:
		out.Status, out.Reason, out.Until, out.Duplicate = delivery.StatusQueued, "retry_after_doubt", now, true
	}
	return out, nil
}

// recoverClaims settles what this node had under lease when it last stopped, with the help of its attempt journal.
func (p *Pipeline) recoverClaims(ctx context.Context) error {
	past, err := p.journal.read()
	if err != nil {
		return err
	}
	var queued, answered, doubted int
	for {
		now := p.clock.Now()
		left, err := p.store.Overdue(ctx, system, now, p.opt.Node, 4*maxHint)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		outcomes := make([]store.Outcome, len(left))
		for i, o := range left {
			key := attemptKey{o.ID, o.Epoch}
			out, ended := past.ended[key]
			by, begun := past.begun[key]
			switch {
			case ended:
				answered++
				outcomes[i] = out
			case begun || past.torn:
				doubted++
				if begun { // how long to wait for a receipt depends on the account
					o.Account = by
				}
				outcomes[i] = p.inDoubt(o, "process_stopped", "the process stopped while the attempt was under way", now)
			default:
				queued++
				outcomes[i] = notBegun(o, "process_stopped")
			}
		}
		settled, err := p.store.Settle(ctx, system, now, outcomes)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(settled, func(s store.Settled) bool { return s.Applied }) {
			return fmt.Errorf("message %s and %d more are claimed, and the store does not let go of them", left[0].ID, len(left)-1)
		}
	}
	if queued+answered+doubted > 0 {
		p.log.Info("claims of the stopped process are settled", "not_started", queued, "answered", answered, "in_doubt", doubted)
	}
	return past.forget()
}
