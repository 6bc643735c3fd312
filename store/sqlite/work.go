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

// The index messages_due holds every message that has something to do, by queue and due time. Queue 0 is what is under
// a lease or ambiguous. DueQueues and NextDue skip through the index from queue to queue: their cost grows with the
// number of queues, not of messages.

// nextQueue finds the first entry of the first queue after q.
const nextQueue = `SELECT q, due FROM messages WHERE due IS NOT NULL AND q > ? ORDER BY q, due LIMIT 1`

const dueInQueue = `SELECT id, due FROM messages WHERE due IS NOT NULL AND q = ? AND due <= ? AND (due, id) > (?, ?)
	ORDER BY due, id LIMIT ?`

// DueQueues lists the queues that have a due message.
func (s *Store) DueQueues(ctx context.Context, sys store.System, now time.Time) ([]store.DueQueue, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (queues []store.DueQueue, err error) {
		slugs, err := tenantSlugs(c)
		if err != nil {
			return nil, err
		}
		for q := int64(0); ; {
			var due int64
			found, err := one(c, nextQueue, func(s *sqlite.Stmt) error {
				q, due = s.ColumnInt64(0), s.ColumnInt64(1)
				return nil
			}, q)
			if err != nil || !found {
				return queues, err
			}
			if due <= store.Millis(now) {
				n, ch, lane := unpackQueue(q)
				queues = append(queues, store.DueQueue{
					Queue:  delivery.Queue{Tenant: slugs[n], Channel: ch, Lane: lane},
					Oldest: store.FromMillis(due),
				})
			}
		}
	})
}

// Due lists ids of due messages of one queue, oldest due time first.
func (s *Store) Due(
	ctx context.Context, sys store.System, q delivery.Queue, now time.Time, after store.DueMark, limit int,
) ([]delivery.MessageID, store.DueMark, error) {
	if err := checkSystem(sys); err != nil {
		return nil, after, err
	}
	mark := after
	ids, err := read(ctx, s, func(c *sqlite.Conn) (ids []delivery.MessageID, err error) {
		n, err := tenantNumber(c, q.Tenant)
		if err != nil || n == 0 || limit < 1 {
			return nil, err
		}
		err = query(c, dueInQueue, func(s *sqlite.Stmt) error {
			r := scan(s)
			mark.ID, mark.At = r.id(), r.time()
			ids = append(ids, mark.ID)
			return nil
		}, packQueue(n, q.Channel, q.Lane), now, after.At, after.ID[:], limit)
		return ids, err
	})
	if err != nil {
		return nil, after, err
	}
	return ids, mark, nil
}

// Overdue lists what a sweeper or a restarted node must settle.
func (s *Store) Overdue(
	ctx context.Context, sys store.System, now time.Time, node string, limit int,
) ([]store.Overdue, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Overdue, err error) {
		slugs, err := tenantSlugs(c)
		if err != nil || limit < 1 {
			return nil, err
		}
		const columns = `SELECT id, tenant, channel, lane, status, epoch,
			coalesce((SELECT id FROM account_ids WHERE n = account), zeroblob(16)), attempts, flags, due,
			expires FROM messages WHERE due IS NOT NULL AND q = 0`
		collect := func(s *sqlite.Stmt) error {
			r := scan(s)
			o := store.Overdue{ID: r.id()}
			o.Queue = delivery.Queue{Tenant: slugs[r.int64()], Channel: delivery.Channel(r.int64()),
				Lane: delivery.Lane(r.int64())}
			o.Status, o.Epoch, o.Account, o.Attempts = delivery.Status(r.int64()), r.int(), r.id(), r.int()
			o.AtMostOnce = r.int64()&flagAtMostOnce != 0
			o.DueAt, o.ExpiresAt = r.time(), r.time()
			list = append(list, o)
			return nil
		}
		if node != "" {
			err = query(c, columns+` AND node = ? AND status = ? ORDER BY due, id LIMIT ?`, collect,
				node, int(delivery.StatusSending), limit)
		} else {
			err = query(c, columns+` AND due <= ? ORDER BY due, id LIMIT ?`, collect, now, limit)
		}
		return list, err
	})
}

// NextDue returns the earliest time after now at which something is to be done, or the zero time.
func (s *Store) NextDue(ctx context.Context, sys store.System, now time.Time) (time.Time, error) {
	if err := checkSystem(sys); err != nil {
		return time.Time{}, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (next time.Time, err error) {
		for q := int64(-1); ; {
			found, err := one(c, nextQueue, func(s *sqlite.Stmt) error { q = s.ColumnInt64(0); return nil }, q)
			if err != nil || !found {
				return next, err
			}
			_, err = one(c, `SELECT due FROM messages WHERE due IS NOT NULL AND q = ? AND due > ? ORDER BY due LIMIT 1`,
				func(s *sqlite.Stmt) error {
					if t := store.FromMillis(s.ColumnInt64(0)); next.IsZero() || t.Before(next) {
						next = t
					}
					return nil
				}, q, now)
			if err != nil {
				return next, err
			}
		}
	})
}

const (
	wakeChunk = 512

	heldFor        = `SELECT ` + rowColumns + ` FROM messages WHERE status = 3 AND reason = ?1 LIMIT ?2`
	heldForAccount = `SELECT ` + rowColumns + ` FROM messages WHERE status = 3 AND reason = ?1 AND account = ?3 LIMIT ?2`
	waitingOf      = `SELECT ` + rowColumns + ` FROM messages WHERE campaign = ? AND id > ? AND status BETWEEN 1 AND 4
		ORDER BY id LIMIT ?`
)

// Wake puts messages held for reason back in their queues, due now. With neither campaign nor account it wakes all that
// are held for the reason.
func (s *Store) Wake(
	ctx context.Context, sys store.System, now time.Time, reason string, campaign delivery.CampaignID,
	account delivery.AccountID,
) (int, error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	if reason == "" {
		return 0, errors.New("wake: no reason")
	}
	return write(ctx, s, wakeChunk, func(t *tx) (n int, err error) {
		if !campaign.IsZero() {
			c, err := t.loadCampaign(`SELECT n, id, tenant, state FROM campaigns WHERE id = ?`, campaign[:])
			if err != nil {
				return 0, err
			}
			if c == nil {
				return 0, fmt.Errorf("campaign %s: %w", campaign, store.ErrNotFound)
			}
			if c.state == store.CampaignPaused && reason == store.ReasonCampaignPaused {
				return 0, nil // they would be held again by the next claim
			}
			return t.wakeCampaign(c, now, reason)
		}
		// Every message leaves the index of held messages as it is woken, so the first page is always the next one.
		held, args := heldFor, []any{reason, wakeChunk}
		if account != (delivery.AccountID{}) {
			nr, err := t.account(account)
			if err != nil {
				return 0, err
			}
			held, args = heldForAccount, append(args, nr)
		}
		for {
			rows, err := t.rows(held, args...)
			if err != nil || len(rows) == 0 {
				return n, err
			}
			for _, r := range rows {
				if err := t.wake(r, now); err != nil {
					return n, err
				}
			}
			n += len(rows)
		}
	})
}

// wakeCampaign wakes a campaign's messages that are held for reason.
func (t *tx) wakeCampaign(c *campaign, now time.Time, reason string) (n int, err error) {
	return t.eachWaiting(c, func(_ *tenant, r *row) (bool, error) {
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
	f := delivery.Fact{Kind: delivery.FactReturned, At: now, Code: r.reason, Until: now}
	r.due, r.reason, r.detail = store.Millis(now), "", ""
	if err := t.record(tn, r, f); err != nil {
		return err
	}
	return t.save(r)
}

// eachWaiting goes through a campaign's claimable messages in chunks, and counts those for which do says yes.
func (t *tx) eachWaiting(c *campaign, do func(*tenant, *row) (bool, error)) (n int, err error) {
	tn, err := t.tenantN(c.tenant)
	if err != nil {
		return 0, err
	}
	var last delivery.MessageID
	for {
		rows, err := t.rows(waitingOf, c.n, last[:], wakeChunk)
		if err != nil || len(rows) == 0 {
			return n, err
		}
		for _, r := range rows {
			did, err := do(tn, r)
			if err != nil {
				return n, err
			}
			if did {
				n++
			}
		}
		last = rows[len(rows)-1].id
	}
}

func (t *tx) rows(sql string, args ...any) (rows []*row, err error) {
	err = query(t.conn, sql, func(s *sqlite.Stmt) error {
		r := new(row)
		scanRow(s, r)
		rows = append(rows, r)
		return nil
	}, args...)
	return rows, err
}
