package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// What moves many messages at once, such as a wake or the pause of a campaign, does so in transactions of bounded size,
// so that acceptances get their turn in between. Each chunk is looked up first and without a lock; the transaction
// locks those messages and looks at them again.
const (
	wakeChunk = 512
	maxIdle   = 5 // chunks in a row of which nothing was left to do

	heldFor   = `SELECT id FROM messages WHERE status = 3 AND reason = $1`
	waitingOf = `SELECT id FROM messages WHERE campaign = $1 AND id > $2 AND status BETWEEN 1 AND 4 ORDER BY id LIMIT $3`
)

// ids runs a look-up.
func (s *Store) ids(ctx context.Context, sql string, args ...any) (ids []delivery.MessageID, err error) {
	err = s.readOpen(ctx, everyTenant, byIndex, stmt{sql, args, func(rows pgx.Rows) error {
		var id [16]byte
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}})
	return ids, err
}

// Wake puts messages held for reason back in their queues, at the place that the time of their acceptance gives them.
// When it fails, what it has counted is awake; the next call goes on.
func (s *Store) Wake(ctx context.Context, sys store.System, now time.Time, h store.Held) (n int, err error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	switch h.Reason {
	case "":
		return 0, errors.New("wake: no reason")
	case store.ReasonOrdered:
		return 0, errors.New("wake: a message that waits for the one before it is woken by that one alone")
	}
	if !h.Campaign.IsZero() && h.Reason == store.ReasonCampaignPaused {
		return s.wakePaused(ctx, h.Campaign, now)
	}
	sql, args, err := s.heldBy(ctx, h)
	if err == nil {
		err = s.enter()
	}
	if err != nil {
		return 0, err
	}
	defer s.leave()
	// Every message leaves the index of held messages as it is woken, so the first page is always the next one. Where
	// others hold and wake the same messages all the time, they do this work too.
	for idle := 0; idle < maxIdle; {
		ids, err := s.ids(ctx, sql, args...)
		if err != nil {
			return n, err
		}
		moved, err := s.each(ctx, now, ids, nil, func(t *tx, tn *tenant, r *row) (bool, error) {
			if r.status != delivery.StatusHeld || r.reason != h.Reason {
				return false, nil // somebody was faster
			}
			return true, t.wake(tn, r, now)
		})
		n += moved
		if err != nil || len(ids) < wakeChunk || h.Limit > 0 {
			return n, err
		}
		if idle++; moved > 0 {
			idle = 0
		}
	}
	return n, nil
}

// heldBy is the look-up of what h names.
func (s *Store) heldBy(ctx context.Context, h store.Held) (sql string, args []any, err error) {
	sql, args = heldFor, []any{clean(h.Reason)}
	most := wakeChunk
	if h.Limit > 0 {
		most = min(h.Limit, wakeChunk)
	}
	and := func(column string, n int64) {
		args = append(args, n)
		sql += fmt.Sprintf(" AND %s = $%d", column, len(args))
	}
	if !h.Campaign.IsZero() {
		c, err := s.campaignByID(ctx, h.Campaign)
		if err != nil {
			return "", nil, err
		}
		// The + 0 keeps the planner from going through all that waits of a large campaign.
		and("campaign + 0", c.n)
		return sql + fmt.Sprintf(" LIMIT %d", wakeChunk), args, nil
	}
	if h.Tenant != "" {
		tenant, err := s.tenantNumber(ctx, h.Tenant)
		if err != nil {
			return "", nil, err
		}
		and("tenant", tenant)
	}
	if h.Account != (delivery.AccountID{}) {
		if err := s.intern(ctx, h.Account); err != nil {
			return "", nil, err
		}
		account, err := s.accountNumber(h.Account)
		if err != nil {
			return "", nil, err
		}
		and("account", account)
	}
	return sql + fmt.Sprintf(" LIMIT %d", most), args, nil
}

func (t *tx) wake(tn *tenant, r *row, now time.Time) error {
	if err := t.move(r, store.Millis(now), step{delivery.StatusQueued, delivery.ByPlan}); err != nil {
		return err
	}
	r.due = min(store.Millis(now), r.accepted)
	f := delivery.Fact{Kind: delivery.FactReturned, At: now, Code: r.reason, Until: store.FromMillis(r.due)}
	r.reason, r.detail = "", ""
	t.record(tn, r, f)
	return t.save(r)
}

// each locks messages in one transaction, does something to each and counts those for which do says yes. With of set it
// first locks that campaign, and does nothing unless it is in the given state.
func (s *Store) each(ctx context.Context, now time.Time, ids []delivery.MessageID, of *campaign,
	do func(*tx, *tenant, *row) (bool, error)) (moved int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	n := need{now: now, ids: ids}
	var state string
	if of != nil {
		n.first = []stmt{{lockCampaign, []any{of.n}, into(&state)}}
	}
	err = s.transact(ctx, everyTenant, n, func(t *tx) error {
		moved = 0
		if of != nil && store.CampaignState(state) != of.state {
			return errMovedOn
		}
		for _, id := range ids {
			r := t.load(id)
			if r == nil {
				continue
			}
			tn, err := t.tenantN(r.tenant)
			if err != nil {
				return err
			}
			did, err := do(t, tn, r)
			if err != nil {
				return err
			}
			if did {
				moved++
			}
		}
		return nil
	})
	if err != nil {
		moved = 0
	}
	return moved, err
}

// errMovedOn: a campaign is in another state meanwhile. Whoever moved it there does the rest.
var errMovedOn = errors.New("the campaign has moved on")

const (
	lockCampaign  = `SELECT state FROM campaigns WHERE n = $1 FOR SHARE`
	campaignState = `SELECT n, tenant, state FROM campaigns WHERE id = $1`
	endMove       = `UPDATE campaigns SET moving = false WHERE n = $1 AND state = $2`
	movesLeft     = `SELECT id, state FROM campaigns WHERE moving`
)

// campaignByID finds a campaign of any tenant, or gives ErrNotFound.
func (s *Store) campaignByID(ctx context.Context, id delivery.CampaignID) (*campaign, error) {
	c := &campaign{id: id}
	err := s.readOpen(ctx, everyTenant,
		stmt{campaignState, []any{[16]byte(id)}, into(&c.n, &c.tenant, (*string)(&c.state))})
	if err == nil && c.n == 0 {
		err = fmt.Errorf("campaign %s: %w", id, store.ErrNotFound)
	}
	return c, err
}

// waiting goes through the claimable messages of a campaign, as long as it is in the state that c says, and counts those
// for which do says yes.
func (s *Store) waiting(ctx context.Context, c *campaign, now time.Time,
	do func(*tx, *tenant, *row) (bool, error)) (n int, err error) {
	var last delivery.MessageID
	for {
		ids, err := s.ids(ctx, waitingOf, c.n, [16]byte(last), wakeChunk)
		if err != nil {
			return n, err
		}
		moved, err := s.each(ctx, now, ids, c, func(t *tx, tn *tenant, r *row) (bool, error) {
			if !claimable(r.status) {
				return false, nil
			}
			return do(t, tn, r)
		})
		n += moved
		if err != nil || len(ids) < wakeChunk {
			return n, err
		}
		last = ids[len(ids)-1]
	}
}

// wakePaused wakes a campaign's messages that were held for its pause. It looks at all that wait: a claim which saw the
// campaign as it was before may be about to hold some of them.
func (s *Store) wakePaused(ctx context.Context, id delivery.CampaignID, now time.Time) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	c, err := s.campaignByID(ctx, id)
	if err != nil {
		return 0, err
	}
	if c.state == store.CampaignPaused {
		return 0, nil // they would be held again by the next claim
	}
	n, err := s.waiting(ctx, c, now, wakePausedRow(now))
	if errors.Is(err, errMovedOn) {
		err = nil
	}
	return n, err
}

func wakePausedRow(now time.Time) func(*tx, *tenant, *row) (bool, error) {
	return func(t *tx, tn *tenant, r *row) (bool, error) {
		if r.status != delivery.StatusHeld || r.reason != store.ReasonCampaignPaused {
			return false, nil
		}
		return true, t.wake(tn, r, now)
	}
}

// takeAlong brings a campaign's waiting messages to its new state. It stops when the campaign is somewhere else
// meanwhile: whoever moved it there does the rest.
//
// The move itself is one transaction, and claims obey it from then on. When the process stops in between, the campaign
// is still marked as moving: every node looks for such campaigns when it opens the store and from time to time, and a
// call that asks for the same move again goes on with it too.
func (s *Store) takeAlong(ctx context.Context, id delivery.CampaignID, to store.CampaignState, now time.Time) error {
	c, err := s.campaignByID(ctx, id)
	if err != nil || c.state != to {
		return err
	}
	switch to {
	case store.CampaignPaused:
		_, err = s.waiting(ctx, c, now, func(t *tx, tn *tenant, r *row) (bool, error) {
			if r.status != delivery.StatusQueued && r.status != delivery.StatusDeferred {
				return false, nil
			}
			return true, t.hold(tn, r, now, step{delivery.StatusHeld, delivery.ByOperator})
		})
	case store.CampaignRunning:
		_, err = s.waiting(ctx, c, now, wakePausedRow(now))
	case store.CampaignStopped:
		_, err = s.waiting(ctx, c, now, func(t *tx, tn *tenant, r *row) (bool, error) {
			return true, t.stop(tn, r, store.Millis(now), delivery.StatusCanceled, delivery.ByOperator,
				store.ReasonCanceled, "the campaign was stopped")
		})
	}
	switch {
	case errors.Is(err, errMovedOn):
		return nil
	case err != nil:
		return err
	}
	return s.transact(ctx, everyTenant, need{}, func(t *tx) error {
		t.later(endMove, c.n, string(to))
		return nil
	})
}

// resumeEvery is about how often a node looks for moves that nobody has finished: their node has died, or could not reach
// the database. Those of a node that is still at work are done twice then, which is only work.
const resumeEvery = 5 * time.Minute

// resume goes on in the background with such moves, now and from time to time until the store is closed.
func (s *Store) resume(ctx context.Context) error {
	left, err := s.unfinished(ctx)
	if err != nil {
		return err
	}
	s.background.Go(func() {
		s.finish(left)
		for {
			timer := time.NewTimer(resumeEvery/2 + rand.N(resumeEvery)) // not all nodes at once
			select {
			case <-s.stop.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			if left, err := s.unfinished(s.stop); err == nil { // else the next look finds them
				s.finish(left)
			}
		}
	})
	return nil
}

// unfinished lists campaigns whose messages are not in their state yet.
func (s *Store) unfinished(ctx context.Context) (map[delivery.CampaignID]store.CampaignState, error) {
	left := map[delivery.CampaignID]store.CampaignState{}
	err := s.read(ctx, everyTenant, stmt{movesLeft, nil, func(rows pgx.Rows) error {
		var id [16]byte
		var state string
		err := rows.Scan(&id, &state)
		left[id] = store.CampaignState(state)
		return err
	}})
	return left, err
}

// finish brings the messages of campaigns to their states.
func (s *Store) finish(left map[delivery.CampaignID]store.CampaignState) {
	now := s.now()
	for id, state := range left {
		if err := s.takeAlong(s.stop, id, state, now); err != nil && s.stop.Err() == nil {
			s.log.Warn("messages of a campaign cannot be taken along to its state", "campaign", id.String(),
				"state", string(state), "error", err)
		}
	}
}
