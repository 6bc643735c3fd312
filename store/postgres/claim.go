package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// pausedFor is how far away a message of a paused campaign is put: nothing looks at it until the campaign moves on.
const pausedFor = 365 * 24 * time.Hour

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
	w := &claimWork{bodies: map[delivery.MessageID][]byte{}, labels: map[delivery.MessageID][2]string{}}
	claimed, err := write(ctx, s, everyTenant, need{now: c.Now, ids: c.IDs, skip: true, more: w.stmts},
		func(t *tx) ([]store.Claimed, error) { return t.claim(c, w) })
	if err != nil {
		return nil, err
	}
	return claimed, s.nameAccounts(ctx, claimed, w)
}

// claimWork is what a claim reads beside the rows: everything that a worker needs.
type claimWork struct {
	bodies map[delivery.MessageID][]byte
	labels map[delivery.MessageID][2]string // category and tag

	accounts [][2]int64 // of the claimed: pinned and last
}

const (
	bodiesOf = `SELECT p.id, p.body FROM unnest($1::uuid[]) AS u (id) JOIN payloads p ON p.id = u.id`
	labelsOf = `SELECT l.id, l.category, l.tag FROM unnest($1::uuid[]) AS u (id) JOIN labels l ON l.id = u.id`
)

// stmts read it. The rows are locked, so none of it changes any more.
func (w *claimWork) stmts(t *tx, ids [][16]byte) []stmt {
	args := []any{ids}
	return []stmt{
		{suppressedOf, args, t.keepSuppressed},
		{bodiesOf, args, func(rows pgx.Rows) error {
			var id [16]byte
			var body []byte
			err := rows.Scan(&id, &body)
			w.bodies[id] = body
			return err
		}},
		{labelsOf, args, func(rows pgx.Rows) error {
			var id [16]byte
			var l [2]string
			err := rows.Scan(&id, &l[0], &l[1])
			w.labels[id] = l
			return err
		}},
	}
}

// claim leases what may go, and ends or holds what may not.
func (t *tx) claim(c store.Claim, w *claimWork) ([]store.Claimed, error) {
	claimed := make([]store.Claimed, 0, len(c.IDs))
	w.accounts = nil
	for _, id := range c.IDs {
		r := t.load(id)
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
		out, err := t.lease(tn, r, c, w)
		if err != nil {
			return nil, err
		}
		claimed = append(claimed, out)
	}
	return claimed, nil
}

// nameAccounts fills in the accounts of claimed messages, which rows name by number.
func (s *Store) nameAccounts(ctx context.Context, claimed []store.Claimed, w *claimWork) error {
	numbers := make([]int64, 0, 2*len(w.accounts))
	for _, pair := range w.accounts {
		numbers = append(numbers, pair[0], pair[1])
	}
	if err := s.accountIDs(ctx, numbers); err != nil {
		return err
	}
	for i, pair := range w.accounts {
		claimed[i].Account, claimed[i].Last = s.accountID(pair[0]), s.accountID(pair[1])
	}
	return nil
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
	entry, suppressed := t.suppressed(tn, r.channel, r.to)
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
	t.record(tn, r, delivery.Fact{Kind: delivery.FactHeld, At: at, Code: r.reason, Until: until})
	return t.save(r)
}

func (t *tx) lease(tn *tenant, r *row, c store.Claim, w *claimWork) (out store.Claimed, err error) {
	body, found := w.bodies[r.id]
	if !found {
		return out, fmt.Errorf("message %s has no payload", r.id)
	}
	if err := t.move(r, store.Millis(c.Now), step{delivery.StatusSending, delivery.ByClaim}); err != nil {
		return out, err
	}
	r.epoch++
	r.node, r.due, r.reason, r.detail = c.Node, store.Millis(c.Until), "", ""
	r.flags |= flagOpen
	if len(r.legs) > 0 {
		r.legs[r.leg()].epoch, r.legs[r.leg()].changed = r.epoch, true
	}
	t.record(tn, r, delivery.Fact{Kind: delivery.FactClaimed, At: c.Now, Attempt: r.attempts + 1, Epoch: r.epoch,
		Code: c.Node, Until: c.Until})
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
	accounts := [2]int64{0, r.last()}
	if r.flags&flagPinned != 0 {
		accounts[0] = r.account
	}
	w.accounts = append(w.accounts, accounts)
	if r.flags&flagLabelled != 0 {
		out.Category, out.Tag = w.labels[r.id][0], w.labels[r.id][1]
	}
	if r.campaign != 0 {
		of, err := t.campaignByN(r.campaign)
		if err != nil {
			return out, err
		}
		out.Campaign = of.id
	}
	out.Payload = body
	return out, nil
}
