package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// pausedFor is how far away a message of a paused campaign is put: nothing looks at it until the campaign moves on.
const pausedFor = 365 * 24 * time.Hour

func checkSystem(sys store.System) error {
	if sys.Reason() == "" {
		return errors.New("store: a system call without a scope")
	}
	return nil
}

// Claim leases those of c.IDs that are waiting and due.
func (s *Store) Claim(ctx context.Context, sys store.System, c store.Claim) ([]store.Claimed, error) {
	switch {
	case checkSystem(sys) != nil:
		return nil, checkSystem(sys)
	case c.Node == "":
		return nil, errors.New("claim: no node")
	case !c.Until.After(c.Now):
		return nil, errors.New("claim: the lease must end after now")
	case len(c.IDs) == 0:
		return nil, nil
	}
	return write(ctx, s, len(c.IDs), func(t *tx) ([]store.Claimed, error) {
		claimed := make([]store.Claimed, 0, len(c.IDs))
		for _, id := range c.IDs {
			r, err := t.load(id)
			if err != nil {
				return nil, err
			}
			if r == nil || !claimable(r.status) || r.due > store.Millis(c.Now) {
				continue
			}
			tn, err := t.tenantN(r.tenant)
			if err != nil {
				return nil, err
			}
			stopped, err := t.stopAtClaim(tn, r, c.Now)
			if err != nil {
				return nil, err
			}
			if stopped {
				continue
			}
			out, err := t.lease(tn, r, c)
			if err != nil {
				return nil, err
			}
			claimed = append(claimed, out)
		}
		return claimed, nil
	})
}

// stopAtClaim ends or holds a message that may not go any more, and reports whether it did. The moves are those of a
// worker that takes the message and finds out at once; they are written as one.
func (t *tx) stopAtClaim(tn *tenant, r *row, at time.Time) (bool, error) {
	now := store.Millis(at)
	state := store.CampaignRunning
	if r.campaign != 0 {
		c, err := t.campaignByN(r.campaign)
		if err != nil {
			return false, err
		}
		state = c.state
	}
	taken := step{delivery.StatusSending, delivery.ByClaim}
	if state == store.CampaignStopped {
		return true, t.stop(tn, r, now, delivery.StatusCanceled, delivery.ByOperator, store.ReasonCanceled,
			"the campaign was stopped")
	}
	if r.expires != 0 && r.expires <= now {
		return true, t.stop(tn, r, now, delivery.StatusExpired, delivery.ByPlan, store.ReasonExpired, "")
	}
	timedOut := r.timedOut(now) && r.hasNext(now) && r.flags&flagDoubt == 0
	if r.blocked() {
		if timedOut {
			return true, t.timeOut(tn, r, at)
		}
		r.due = r.heldUntil(now)
		return true, t.save(r)
	}
	entry, suppressed, err := t.suppressed(tn, r.channel, r.to)
	if err != nil {
		return false, err
	}
	if suppressed && r.hasNext(now) && r.flags&flagDoubt == 0 {
		err := t.switchLeg(tn, r, at, delivery.Fact{Code: entry.Reason}, taken,
			step{delivery.StatusSuppressed, delivery.BySend}, step{delivery.StatusQueued, delivery.ByPlan})
		if err == nil {
			err = t.save(r)
		}
		return true, err
	}
	if suppressed {
		return true, t.end(tn, r, now, entry.Reason, "", taken, step{delivery.StatusSuppressed, delivery.BySend})
	}
	if state == store.CampaignPaused {
		return true, t.hold(tn, r, at, taken, step{delivery.StatusHeld, delivery.BySend})
	}
	if timedOut {
		return true, t.timeOut(tn, r, at)
	}
	return false, nil
}

// timeOut lets the next leg of a waiting message begin, because the current one's time is over.
func (t *tx) timeOut(tn *tenant, r *row, at time.Time) error {
	err := t.switchLeg(tn, r, at, delivery.Fact{Code: store.ReasonLegTimeout}, toQueued(r.status)...)
	if err != nil {
		return err
	}
	return t.save(r)
}

// hold puts a message of a paused campaign aside.
func (t *tx) hold(tn *tenant, r *row, at time.Time, steps ...step) error {
	if err := t.move(r, store.Millis(at), steps...); err != nil {
		return err
	}
	until := at.Add(pausedFor)
	r.due, r.reason, r.detail = store.Millis(until), store.ReasonCampaignPaused, ""
	err := t.record(tn, r, delivery.Fact{Kind: delivery.FactHeld, At: at, Code: r.reason, Until: until})
	if err != nil {
		return err
	}
	return t.save(r)
}

func (t *tx) lease(tn *tenant, r *row, c store.Claim) (out store.Claimed, err error) {
	if err := t.move(r, store.Millis(c.Now), step{delivery.StatusSending, delivery.ByClaim}); err != nil {
		return out, err
	}
	r.epoch++
	r.node, r.due, r.reason, r.detail = c.Node, store.Millis(c.Until), "", ""
	r.flags |= flagOpen
	if len(r.legs) > 0 {
		r.legs[r.leg()].epoch, r.legs[r.leg()].changed = r.epoch, true
	}
	err = t.record(tn, r, delivery.Fact{Kind: delivery.FactClaimed, At: c.Now, Attempt: r.attempts + 1, Epoch: r.epoch,
		Code: c.Node, Until: c.Until})
	if err != nil {
		return out, err
	}
	if err := t.save(r); err != nil {
		return out, err
	}
	out = store.Claimed{
		ID: r.id, Queue: delivery.Queue{Tenant: tn.slug, Channel: r.channel, Lane: r.lane}, To: r.to, Segments: r.segments,
		Attempts: r.attempts, Epoch: r.epoch, PossibleDuplicate: r.flags&flagDuplicate != 0, InDoubt: r.flags&flagDoubt != 0,
		AtMostOnce: r.flags&flagAtMostOnce != 0, AcceptedAt: store.FromMillis(r.accepted),
		ExpiresAt: store.FromMillis(r.expires), Leg: r.leg(), MoreLegs: r.leg() < r.lastLeg(),
	}
	if out.MoreLegs {
		out.LegUntil = store.FromMillis(r.legs[r.leg()].until)
	}
	if last := r.last(); last != 0 {
		if out.Last, err = t.accountID(last); err != nil {
			return out, err
		}
	}
	if r.flags&flagLabelled != 0 {
		if _, err := one(t.conn, `SELECT category, tag FROM labels WHERE id = ?`,
			func(s *sqlite.Stmt) error { out.Category, out.Tag = s.ColumnText(0), s.ColumnText(1); return nil },
			r.id[:]); err != nil {
			return out, err
		}
	}
	if r.flags&flagPinned != 0 {
		if out.Account, err = t.accountID(r.account); err != nil {
			return out, err
		}
	}
	if r.campaign != 0 {
		of, err := t.campaignByN(r.campaign)
		if err != nil {
			return out, err
		}
		out.Campaign = of.id
	}
	found, err := one(t.conn, `SELECT body FROM payloads WHERE id = ?`, func(s *sqlite.Stmt) error {
		out.Payload = columnBytes(s, 0)
		return nil
	}, r.id[:])
	if err == nil && !found {
		err = fmt.Errorf("message %s has no payload", r.id)
	}
	return out, err
}
