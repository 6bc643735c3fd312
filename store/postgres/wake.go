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
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	if !h.Campaign.IsZero() {
		return s.wakeCampaign(ctx, h.Campaign, now, h.Reason)
	}
	sql, args := heldFor, []any{clean(h.Reason)}
	and := func(column string, n int64) {
		args = append(args, n)
		sql += fmt.Sprintf(" AND %s = $%d", column, len(args))
	}
	if h.Tenant != "" {
		tenant, err := s.tenantNumber(ctx, h.Tenant)
		if err != nil {
			return 0, err
		}
		and("tenant", tenant)
	}
	if h.Account != (delivery.AccountID{}) {
		if err := s.intern(ctx, h.Account); err != nil {
			return 0, err
		}
		account, err := s.accountNumber(h.Account)
		if err != nil {
			return 0, err
		}
		and("account", account)
	}
	sql += fmt.Sprintf(" LIMIT %d", wakeChunk)
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
		if err != nil || len(ids) < wakeChunk {
			return n, err
		}
		if idle++; moved > 0 {
			idle = 0
		}
	}
	return n, nil
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
	unfinished    = `SELECT id, state FROM campaigns WHERE moving`
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

// wakeCampaign wakes a campaign's messages that are held for reason.
func (s *Store) wakeCampaign(ctx context.Context, id delivery.CampaignID, now time.Time, reason string) (int, error) {
	c, err := s.campaignByID(ctx, id)
	if err != nil {
		return 0, err
	}
	if c.state == store.CampaignPaused && reason == store.ReasonCampaignPaused {
		return 0, nil // they would be held again by the next claim
	}
	n, err := s.waiting(ctx, c, now, wakeHeld(now, reason))
	if errors.Is(err, errMovedOn) {
		err = nil
	}
	return n, err
}

func wakeHeld(now time.Time, reason string) func(*tx, *tenant, *row) (bool, error) {
	return func(t *tx, tn *tenant, r *row) (bool, error) {
		if r.status != delivery.StatusHeld || r.reason != reason {
			return false, nil
		}
		return true, t.wake(tn, r, now)
	}
}

// takeAlong brings a campaign's waiting messages to its new state. It stops when the campaign is somewhere else
// meanwhile: whoever moved it there does the rest.
//
// The move itself is one transaction, and claims obey it from then on. When the process stops in between, the campaign
// is still marked as moving: the next Open of any node goes on with it, and so does a call that asks for the same move
// again.
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
		_, err = s.waiting(ctx, c, now, wakeHeld(now, store.ReasonCampaignPaused))
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

// resume goes on with what the last process did not finish: campaigns whose messages are not in their state yet.
func (s *Store) resume(ctx context.Context) error {
	left := map[delivery.CampaignID]store.CampaignState{}
	err := s.read(ctx, everyTenant, stmt{unfinished, nil, func(rows pgx.Rows) error {
		var id [16]byte
		var state string
		err := rows.Scan(&id, &state)
		left[id] = store.CampaignState(state)
		return err
	}})
	if err != nil || len(left) == 0 {
		return err
	}
	now := s.now()
	s.background.Go(func() {
		for id, state := range left {
			if err := s.takeAlong(s.stop, id, state, now); err != nil && s.stop.Err() == nil {
				s.log.Warn("messages of a campaign cannot be taken along to its state", "campaign", id.String(),
					"state", string(state), "error", err)
			}
		}
	})
	return nil
}
