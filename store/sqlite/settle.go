package sqlite

import (
	"context"
	"fmt"
	"slices"
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
			t.refused = false
			if settled[i], err = t.settle(&outcomes[i], now); err != nil {
				return nil, err
			}
			settled[i].Ready, settled[i].Suppressed = t.takeReady(), t.refused
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
	if o.NextLeg {
		switch o.Status {
		case delivery.StatusFailed, delivery.StatusSuppressed:
		case delivery.StatusQueued:
			return nil
		default:
			return bad("a next leg follows on failed, suppressed or queued only")
		}
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
	if o.From != 0 && r.status != o.From {
		return store.Settled{Status: r.status}, nil // somebody else was first, and the decision is about what was
	}
	now := store.Millis(at)
	open := r.epoch == o.Epoch && r.flags&flagOpen != 0
	inDoubt := o.Writer == delivery.ByPlan && r.status == delivery.StatusAmbiguous && r.epoch == o.Epoch
	// A doubt that ends as failed ends the message, whatever legs it has: the person may have it.
	stopped := o.Status == delivery.StatusExpired || o.Status == delivery.StatusCanceled
	next := o.NextLeg && r.hasNext(now) && (o.Status == delivery.StatusQueued || !inDoubt)
	// A worker whose lease had run out may bring the answer after all, while nobody has claimed the message again.
	answered := o.Writer == delivery.BySend && r.status == delivery.StatusAmbiguous && r.epoch == o.Epoch &&
		delivery.CanMove(r.status, o.Status, delivery.BySend)
	steps := []step{{o.Status, o.Writer}}
	switch {
	case open && r.status == delivery.StatusSending, inDoubt, answered:
		if next { // switchLeg moves it
			break
		}
		if stopped {
			steps = r.stopSteps(o.Status, o.Writer)
		}
		if err := t.move(r, now, steps...); err != nil {
			return none, err
		}
	case open && o.Status == delivery.StatusSent && r.status >= delivery.StatusSent:
		// A receipt overtook this answer. It knows better what became of the message; the rest is news.
		r.updated = now
	case o.NextLeg && o.Writer == delivery.ByPlan && r.status == delivery.StatusSent && r.epoch == o.Epoch &&
		r.due != 0 && r.due <= now:
		return t.handedOffTimeOut(tn, r, o, at)
	case r.repeats(o):
		return store.Settled{Status: r.status}, nil
	default:
		return t.late(tn, r, o, at)
	}

	account, err := t.account(o.Account)
	if err != nil {
		return none, err
	}
	if account != 0 {
		r.account = account
		if o.Attempted {
			r.setLast(account)
		}
	} else if o.Status == delivery.StatusAmbiguous && r.flags&flagPinned == 0 {
		r.account = 0 // that of an attempt before: nobody knows by which this one was made
		r.setLast(0)
	}
	if o.Attempted && !answered { // it was counted when it came in doubt
		r.attempts++
	}
	if o.Duplicate {
		r.flags |= flagDuplicate
	}
	if o.Segments > 0 {
		r.segments = o.Segments
	}
	r.noteDoubt(o, inDoubt || answered)
	r.flags &^= flagOpen
	r.node = ""
	if o.Suppress {
		err := t.suppress(tn, store.Suppression{Channel: r.channel, To: r.to, Reason: o.Reason, Source: r.id.String(),
			At: at})
		if err != nil {
			return none, err
		}
	}
	if next {
		f := outcomeFact(r, o, at)
		if f.Code == "" {
			f.Code = store.ReasonLegTimeout
		}
		if o.Status != delivery.StatusQueued {
			steps = append(steps, step{delivery.StatusQueued, delivery.ByPlan})
		}
		if err := t.switchLeg(tn, r, at, f, steps...); err != nil {
			return none, err
		}
		return store.Settled{Applied: true, Status: r.status}, t.save(r)
	}
	if r.status == o.Status || stopped {
		r.due, r.reason, r.detail = 0, o.Reason, o.Detail
		if r.status.Waiting() {
			r.due = store.Millis(o.Until)
		}
	}
	if o.Status == delivery.StatusSent {
		r.provider = o.ProviderID
		t.legSent(r)
	}
	if err := t.record(tn, r, outcomeFact(r, o, at)); err != nil {
		return none, err
	}
	if o.Status == delivery.StatusSent {
		if err := t.handedOn(tn, r, r.account, o, at); err != nil {
			return none, err
		}
	}
	if over, err := t.timeIsOver(r, now); over && err == nil {
		if err := t.switchLeg(tn, r, at, delivery.Fact{Code: store.ReasonLegTimeout}, toQueued(r.status)...); err != nil {
			return none, err
		}
	} else if err != nil {
		return none, err
	}
	return store.Settled{Applied: true, Status: r.status}, t.save(r)
}

// repeats reports whether an outcome says once more what the message's last attempt has come to: whoever was told that
// nobody knows whether it was written, writes it again. That is nothing new, and not late.
func (r *row) repeats(o *store.Outcome) bool {
	switch {
	case o.Writer != delivery.BySend || r.epoch != o.Epoch || r.flags&flagOpen != 0:
		return false
	case o.Status == delivery.StatusSent:
		return o.ProviderID != "" && r.provider == o.ProviderID
	}
	return r.status == o.Status && r.reason == o.Reason
}

// noteDoubt keeps whether the current leg is in doubt. That the provider took the message or refuses it for good
// settles every attempt; a failure for now, or that it never had the message, only the one it is about (was: it was in doubt).
func (r *row) noteDoubt(o *store.Outcome, was bool) {
	switch o.Status {
	case delivery.StatusAmbiguous:
		r.flags |= flagDoubt | flagDoubted
	case delivery.StatusSent:
		r.flags &^= flagDoubt
	case delivery.StatusFailed, delivery.StatusSuppressed:
		if o.Writer == delivery.BySend {
			r.flags &^= flagDoubt
		}
	case delivery.StatusDeferred, delivery.StatusQueued:
		if was && !o.Duplicate && r.flags&flagDuplicate == 0 {
			r.flags &^= flagDoubt
		}
	}
}

// timeIsOver reports whether the time of a waiting message's leg was over when its attempt was settled, so that the
// next one begins at once.
func (t *tx) timeIsOver(r *row, now int64) (bool, error) {
	if !claimable(r.status) || !r.timedOut(now) || !r.hasNext(now) || !r.mayTimeOut() {
		return false, nil
	}
	if r.campaign == 0 {
		return true, nil
	}
	c, err := t.campaignByN(r.campaign)
	return err == nil && c.state == store.CampaignRunning, err
}

// handedOffTimeOut lets the next leg begin after one that was handed off and had no success in its time. Without a next
// one, the message only loses its deadline.
func (t *tx) handedOffTimeOut(tn *tenant, r *row, o *store.Outcome, at time.Time) (store.Settled, error) {
	if r.hasNext(store.Millis(at)) {
		f := outcomeFact(r, o, at)
		if f.Code == "" {
			f.Code = store.ReasonLegTimeout
		}
		if err := t.switchLeg(tn, r, at, f, step{delivery.StatusQueued, delivery.ByPlan}); err != nil {
			return store.Settled{}, err
		}
	} else {
		r.due, r.updated = 0, store.Millis(at)
	}
	return store.Settled{Applied: true, Status: r.status}, t.save(r)
}

// legSent keeps that the current leg was handed off, and waits for its success.
func (t *tx) legSent(r *row) {
	if len(r.legs) == 0 {
		return
	}
	r.follow()
	if l := &r.legs[r.leg()]; r.flags&flagOvertaken != 0 && l.status.Waiting() {
		l.status, l.changed = delivery.StatusSent, true
	}
	r.win(r.leg())
	r.watch()
}

// handedOn makes a message findable that the account's provider has taken, and applies the receipts that came before.
// The row must be saved after it.
func (t *tx) handedOn(tn *tenant, r *row, account int64, o *store.Outcome, at time.Time) error {
	if o.ProviderID == "" {
		return nil
	}
	if o.IndexProviderID {
		// A provider that uses an id again means its newest message.
		err := t.exec(`INSERT OR REPLACE INTO provider_refs (account, ref, id) VALUES (?, ?, ?)`, account, o.ProviderID,
			r.id[:])
		if err != nil {
			return err
		}
	}
	return t.applyParked(tn, r, account, o.ProviderID, at)
}

// late keeps an outcome whose claim has been taken over.
func (t *tx) late(tn *tenant, r *row, o *store.Outcome, at time.Time) (store.Settled, error) {
	f := outcomeFact(r, o, at)
	f.Kind, f.Attempt, f.Until = delivery.FactLate, 0, time.Time{}
	f.Detail = lateDetail + o.Status.String()
	if o.Detail != "" {
		f.Detail += ": " + o.Detail
	}
	ch := r.channel
	f.Leg = r.leg()
	of := slices.IndexFunc(r.legs, func(l leg) bool { return l.epoch >= o.Epoch }) // epochs grow from leg to leg
	if of >= 0 {
		f.Leg, ch = of, r.legs[of].channel
	}
	if err := t.recordOn(tn, r, ch, f); err != nil {
		return store.Settled{}, err
	}
	if len(r.legs) == 0 && o.Status == delivery.StatusSent {
		account, err := t.account(o.Account)
		if err == nil { // its receipts must find the message
			err = t.handedOn(tn, r, account, o, at)
		}
		if err != nil {
			return store.Settled{}, err
		}
	}
	if of >= 0 {
		if err := t.lateLeg(tn, r, of, o, at); err != nil {
			return store.Settled{}, err
		}
	}
	return store.Settled{Status: r.status}, t.save(r)
}

// lateLeg keeps at a leg what came of an attempt after a receipt had moved the message on: a hand-off with its provider
// id, so that its receipts are found.
func (t *tx) lateLeg(tn *tenant, r *row, n int, o *store.Outcome, at time.Time) error {
	l := &r.legs[n]
	switch {
	case o.Status == delivery.StatusSent && n < r.leg():
		account, err := t.account(o.Account)
		if err != nil {
			return err
		}
		if account != 0 {
			l.account = account
		}
		l.provider, l.changed = o.ProviderID, true
		switch l.status {
		case delivery.StatusUnknown, delivery.StatusExpired, delivery.StatusFailed, delivery.StatusSuppressed:
			l.status = delivery.StatusSent
			r.win(n)
		}
		return t.handedOn(tn, r, l.account, o, at)
	case l.epoch == o.Epoch && n == r.leg() && r.flags&flagOvertaken != 0 && l.status == delivery.StatusSending:
		r.flags &^= flagOpen
		l.status, l.reason, l.changed = afterOvertaken(o.Status), o.Reason, true
	}
	return nil
}

// afterOvertaken is what a leg comes to whose attempt ends as asked, after an earlier leg has had its success.
func afterOvertaken(asked delivery.Status) delivery.Status {
	switch {
	case asked == delivery.StatusAmbiguous:
		return delivery.StatusUnknown
	case asked.Waiting():
		return delivery.StatusCanceled
	}
	return asked
}

// outcomeFact is what an outcome adds to the history of r, whose status is already the new one.
func outcomeFact(r *row, o *store.Outcome, at time.Time) delivery.Fact {
	f := delivery.Fact{At: at, Status: r.status, Epoch: o.Epoch, Account: o.Account, Code: o.Reason, Detail: o.Detail,
		Route: o.Route, Content: o.Content}
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
