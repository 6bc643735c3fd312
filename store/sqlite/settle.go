package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Settle applies outcomes, each guarded by status and epoch.
func (s *Store) Settle(
	ctx context.Context, sys store.System, now time.Time, outcomes []store.Outcome,
) ([]store.Settled, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	for i := range outcomes {
		if err := checkOutcome(&outcomes[i]); err != nil {
			return nil, err
		}
	}
	if len(outcomes) == 0 {
		return nil, nil
	}
	return write(ctx, s, len(outcomes), func(t *tx) ([]store.Settled, error) {
		settled := make([]store.Settled, len(outcomes))
		for i := range outcomes {
			var err error
			if settled[i], err = t.settle(&outcomes[i], now); err != nil {
				return nil, err
			}
		}
		return settled, nil
	})
}

// checkOutcome refuses what no caller may hand over.
func checkOutcome(o *store.Outcome) error {
	bad := func(what string) error { return fmt.Errorf("settle message %s as %s: %s", o.ID, o.Status, what) }
	if o.Writer != delivery.BySend && o.Writer != delivery.ByPlan {
		return bad("the writer must be send or plan, not " + o.Writer.String())
	}
	switch o.Status {
	case delivery.StatusSent:
		return nil
	case delivery.StatusQueued:
	default:
		if o.Reason == "" {
			return bad("no reason")
		}
	}
	if o.Status.Waiting() && o.Until.IsZero() {
		return bad("no due time")
	}
	return nil
}

// settle applies one outcome. A message that is not there gives the zero Settled.
func (t *tx) settle(o *store.Outcome, at time.Time) (store.Settled, error) {
	var none store.Settled
	r, err := t.load(o.ID)
	if err != nil || r == nil {
		return none, err
	}
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return none, err
	}
	open := r.epoch == o.Epoch && r.flags&flagOpen != 0
	switch {
	case open && r.status == delivery.StatusSending,
		o.Writer == delivery.ByPlan && r.status == delivery.StatusAmbiguous && r.epoch == o.Epoch:
		if err := t.move(r, store.Millis(at), step{o.Status, o.Writer}); err != nil {
			return none, err
		}
	case open && o.Status == delivery.StatusSent && r.status >= delivery.StatusSent:
		// A receipt overtook this answer. It knows better what became of the message; the rest is news.
		r.updated = store.Millis(at)
	default:
		return t.late(tn, r, o, at)
	}

	account, err := t.account(o.Account)
	if err != nil {
		return none, err
	}
	if account != 0 {
		r.account = account
	}
	if o.Attempted {
		r.attempts++
	}
	if o.Duplicate {
		r.flags |= flagDuplicate
	}
	if o.Segments > 0 {
		r.segments = o.Segments
	}
	r.flags &^= flagOpen
	r.node = ""
	if r.status == o.Status {
		r.due, r.reason, r.detail = 0, o.Reason, o.Detail
		if r.status.Waiting() {
			r.due = store.Millis(o.Until)
		}
	}
	if o.Status == delivery.StatusSent {
		r.provider = o.ProviderID
	}
	if err := t.record(tn, r, outcomeFact(r, o, at)); err != nil {
		return none, err
	}
	if o.Status == delivery.StatusSent {
		if err := t.handedOn(tn, r, o, at); err != nil {
			return none, err
		}
	}
	if o.Suppress {
		err := t.suppress(tn, store.Suppression{Channel: r.channel, To: r.to, Reason: o.Reason, Source: r.id.String(),
			At: at})
		if err != nil {
			return none, err
		}
	}
	if err := t.save(r); err != nil {
		return none, err
	}
	return store.Settled{Applied: true, Status: r.status}, nil
}

// handedOn makes a sent message findable, and applies the receipts that came before it. The row must be saved after it.
func (t *tx) handedOn(tn *tenant, r *row, o *store.Outcome, at time.Time) error {
	if o.ProviderID == "" {
		return nil
	}
	if o.IndexProviderID {
		// A provider that uses an id again means its newest message.
		err := t.exec(`INSERT OR REPLACE INTO provider_refs (account, ref, id) VALUES (?, ?, ?)`, r.account, o.ProviderID,
			r.id[:])
		if err != nil {
			return err
		}
	}
	return t.applyParked(tn, r, at)
}

// late keeps an outcome whose claim has been taken over.
func (t *tx) late(tn *tenant, r *row, o *store.Outcome, at time.Time) (store.Settled, error) {
	f := outcomeFact(r, o, at)
	f.Kind, f.Attempt, f.Until = delivery.FactLate, 0, time.Time{}
	f.Detail = "late: " + o.Status.String()
	if o.Detail != "" {
		f.Detail += ": " + o.Detail
	}
	if err := t.record(tn, r, f); err != nil {
		return store.Settled{}, err
	}
	return store.Settled{Status: r.status}, t.save(r)
}

// outcomeFact is what an outcome adds to the history of r, whose status is already the new one.
func outcomeFact(r *row, o *store.Outcome, at time.Time) delivery.Fact {
	f := delivery.Fact{At: at, Status: r.status, Epoch: o.Epoch, Account: o.Account, Code: o.Reason, Detail: o.Detail}
	if o.Attempted {
		f.Attempt = r.attempts
	}
	switch o.Status {
	case delivery.StatusSent:
		f.Kind, f.Code = delivery.FactSent, o.ProviderID
	case delivery.StatusDeferred:
		f.Kind = delivery.FactDeferred
	case delivery.StatusHeld:
		f.Kind = delivery.FactHeld
	case delivery.StatusAmbiguous:
		f.Kind = delivery.FactAmbiguous
	case delivery.StatusQueued:
		f.Kind = delivery.FactReturned
		if o.Duplicate && o.Writer == delivery.ByPlan {
			f.Kind = delivery.FactRedelivery
		}
	default:
		f.Kind = delivery.FactEnded
	}
	if o.Status.Waiting() {
		f.Until = o.Until
	}
	return f
}
