package pipeline

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A message with a fallback has several legs, and the store knows all of them. What the pipeline does about them is
// little:
//
//   - a leg that is refused for good or suppressed makes way for the next one, and no wait of a leg lasts beyond its time;
//   - a leg that was handed off and whose time is over makes way, when the sweeper finds it;
//   - whatever becomes due in the store by an outcome or a receipt is hinted at: nobody waits for a sweep.
//
// A doubt never makes way by itself: it is waited for, and ends the message when it ends as failed or unknown.

// bound fits an outcome to what is left of the message's time, and to the legs that follow.
func (m *passage) bound(o *store.Outcome) {
	switch o.Status {
	case delivery.StatusFailed, delivery.StatusSuppressed:
		o.NextLeg = m.MoreLegs
	case delivery.StatusDeferred, delivery.StatusHeld:
		// It never waits beyond its own end: then it expires, with its last failure as the reason.
		if !m.ExpiresAt.IsZero() && o.Until.After(m.ExpiresAt) {
			o.Until = m.ExpiresAt
		}
		// Nor beyond its leg's time: then the claim goes on with the next leg. Not so with an attempt in doubt, which the
		// store keeps on its leg however late it is: it would be tried again and again.
		if !m.LegUntil.IsZero() && !m.PossibleDuplicate && o.Until.After(m.LegUntil) {
			o.Until = m.LegUntil
		}
	}
}

// legOver is the outcome of a leg that was handed off and had no success in its time.
func legOver(o store.Overdue, now time.Time) store.Outcome {
	return store.Outcome{
		ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: store.ReasonLegTimeout,
		Detail: "no success in its time", Until: now, NextLeg: true,
	}
}

// ready hints at messages that have just become due: a next leg, the successor of an ordered message.
func (p *Pipeline) ready(list []store.Ready) {
	for i := range list {
		p.hints.add(list[i].Queue, list[i].ID)
	}
	if len(list) > 0 {
		p.alarm.due(p.clock.Now())
	}
}
