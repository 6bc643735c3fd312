package sqlite

import (
	"context"
	"errors"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// What moves many messages at once, such as a wake or the pause of a campaign, does so in transactions of bounded size,
// so that acceptances get their turn in between.
const (
	wakeChunk = 512

	heldFor   = `SELECT ` + rowColumns + ` FROM messages WHERE status = 3 AND reason = ?`
	waitingOf = `SELECT ` + rowColumns + ` FROM messages WHERE campaign = ? AND id > ? AND status BETWEEN 1 AND 4
		ORDER BY id LIMIT ?`
)

// chunk is what one transaction of many has done.
type chunk struct {
	moved int
	last  delivery.MessageID // where the next one continues
	done  bool
}

// inChunks runs f in transaction after transaction until it says that it is done, and counts what was moved.
func (s *Store) inChunks(ctx context.Context, f func(t *tx, after delivery.MessageID) (chunk, error)) (n int,
	err error) {
	var last delivery.MessageID
	for {
		c, err := write(ctx, s, wakeChunk, func(t *tx) (chunk, error) { return f(t, last) })
		n += c.moved
		if err != nil || c.done {
			return n, err
		}
		last = c.last
	}
}

// Wake puts messages held for reason back in their queues, at the place that the time of their acceptance gives them.
// When it fails, what it has counted is awake; the next call goes on.
func (s *Store) Wake(ctx context.Context, sys store.System, now time.Time, h store.Held) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	switch h.Reason {
	case "":
		return 0, errors.New("wake: no reason")
	case store.ReasonOrdered:
		return 0, errors.New("wake: a message that waits for the one before it is woken by that one alone")
	}
	if !h.Campaign.IsZero() {
		return s.inChunks(ctx, func(t *tx, after delivery.MessageID) (chunk, error) {
			c, err := t.campaignByID(h.Campaign)
			if err != nil {
				return chunk{}, err
			}
			if c.state == store.CampaignPaused && h.Reason == store.ReasonCampaignPaused {
				return chunk{done: true}, nil // they would be held again by the next claim
			}
			return t.wakeCampaign(c, after, now, h.Reason)
		})
	}
	most := wakeChunk
	if h.Limit > 0 {
		most = min(h.Limit, wakeChunk)
	}
	return s.inChunks(ctx, func(t *tx, _ delivery.MessageID) (out chunk, err error) {
		// Every message leaves the index of held messages as it is woken, so the first page is always the next one.
		held, args := heldFor, []any{h.Reason}
		if h.Tenant != "" {
			tn, err := t.tenant(h.Tenant)
			if err != nil {
				return out, err
			}
			held, args = held+` AND tenant = ?`, append(args, tn.n)
		}
		if h.Account != (delivery.AccountID{}) {
			nr, err := t.account(h.Account)
			if err != nil {
				return out, err
			}
			held, args = held+` AND account = ?`, append(args, nr)
		}
		rows, err := t.rows(held+` LIMIT ?`, append(args, most)...)
		if err != nil {
			return out, err
		}
		for _, r := range rows {
			if err := t.wake(r, now); err != nil {
				return out, err
			}
		}
		return chunk{moved: len(rows), done: h.Limit > 0 || len(rows) < wakeChunk}, nil
	})
}

// wakeCampaign wakes a campaign's messages that are held for reason.
func (t *tx) wakeCampaign(c *campaign, after delivery.MessageID, now time.Time, reason string) (chunk, error) {
	return t.waiting(c, after, func(_ *tenant, r *row) (bool, error) {
		if r.status != delivery.StatusHeld || r.reason != reason {
			return false, nil
		}
		return true, t.wake(r, now)
	})
}

func (t *tx) wake(r *row, now time.Time) error {
	tn, err := t.tenantN(r.tenant)
	if err != nil {
		return err
	}
	if err := t.move(r, store.Millis(now), step{delivery.StatusQueued, delivery.ByPlan}); err != nil {
		return err
	}
	r.due = min(store.Millis(now), r.accepted)
	f := delivery.Fact{Kind: delivery.FactReturned, At: now, Code: r.reason, Until: store.FromMillis(r.due)}
	r.reason, r.detail = "", ""
	if err := t.record(tn, r, f); err != nil {
		return err
	}
	return t.save(r)
}

// waiting goes through the next claimable messages of a campaign, and counts those for which do says yes.
func (t *tx) waiting(c *campaign, after delivery.MessageID, do func(*tenant, *row) (bool, error)) (out chunk,
	err error) {
	tn, err := t.tenantN(c.tenant)
	if err != nil {
		return out, err
	}
	rows, err := t.rows(waitingOf, c.n, after[:], wakeChunk)
	if err != nil {
		return out, err
	}
	for _, r := range rows {
		out.last = r.id
		if r.flags&flagOrdered != 0 { // one of the rows before it may have let it go
			if r, err = t.load(r.id); err != nil {
				return out, err
			}
		}
		did, err := do(tn, r)
		if err != nil {
			return out, err
		}
		if did {
			out.moved++
		}
	}
	out.done = len(rows) < wakeChunk
	return out, nil
}

// rows reads rows with their legs.
func (t *tx) rows(sql string, args ...any) (rows []*row, err error) {
	err = query(t.conn, sql, func(s *sqlite.Stmt) error {
		r := new(row)
		scanRow(s, r)
		rows = append(rows, r)
		return nil
	}, args...)
	for _, r := range rows {
		if err == nil && r.lastLeg() > 0 {
			err = t.loadLegs(r)
		}
	}
	return rows, err
}

// takeAlong brings the rest of a campaign's waiting messages to its new state. It stops when the campaign is somewhere
// else meanwhile: whoever moved it there does the rest.
//
// The move itself is one transaction, and claims obey it from then on. When the process stops in between, the campaign
// is still marked as moving: the next Open goes on with it, and so does a call that asks for the same move again.
func (s *Store) takeAlong(
	ctx context.Context, id delivery.CampaignID, to store.CampaignState, after delivery.MessageID, now time.Time,
) error {
	_, err := s.inChunks(ctx, func(t *tx, last delivery.MessageID) (chunk, error) {
		if last.IsZero() {
			last = after
		}
		c, err := t.campaignByID(id)
		if err != nil || c.state != to {
			return chunk{done: true}, err
		}
		return t.moveSome(c, last, now)
	})
	return err
}

// moveSome takes the next of a campaign's waiting messages along to its state, and marks whether that was all.
func (t *tx) moveSome(c *campaign, after delivery.MessageID, now time.Time) (out chunk, err error) {
	switch c.state {
	case store.CampaignPaused:
		out, err = t.waiting(c, after, func(tn *tenant, r *row) (bool, error) {
			if r.status != delivery.StatusQueued && r.status != delivery.StatusDeferred {
				return false, nil
			}
			return true, t.hold(tn, r, now, step{delivery.StatusHeld, delivery.ByOperator})
		})
	case store.CampaignRunning:
		out, err = t.wakeCampaign(c, after, now, store.ReasonCampaignPaused)
	case store.CampaignStopped:
		out, err = t.waiting(c, after, func(tn *tenant, r *row) (bool, error) {
			return true, t.stop(tn, r, store.Millis(now), delivery.StatusCanceled, delivery.ByOperator, store.ReasonCanceled,
				"the campaign was stopped")
		})
	default:
		out.done = true
	}
	if err != nil {
		return out, err
	}
	return out, t.exec(`UPDATE campaigns SET moving = ? WHERE n = ?`, !out.done, c.n)
}

// unfinishedMoves lists the campaigns whose messages the last process did not bring to their state.
func unfinishedMoves(conn *sqlite.Conn) (map[delivery.CampaignID]store.CampaignState, error) {
	left := map[delivery.CampaignID]store.CampaignState{}
	err := query(conn, `SELECT id, state FROM campaigns WHERE moving = 1`, func(s *sqlite.Stmt) error {
		r := scan(s)
		left[r.id()] = store.CampaignState(r.text())
		return nil
	})
	return left, err
}

// finishMoves goes on with them in the background.
func (s *Store) finishMoves(left map[delivery.CampaignID]store.CampaignState) {
	if len(left) == 0 {
		return
	}
	now := s.now()
	s.background.Go(func() {
		for id, state := range left {
			err := s.takeAlong(context.Background(), id, state, delivery.MessageID{}, now)
			if err != nil && !s.closed.Load() {
				s.log.Warn("messages of a campaign cannot be taken along to its state", "campaign", id.String(),
					"state", string(state), "error", err)
			}
		}
	})
}
