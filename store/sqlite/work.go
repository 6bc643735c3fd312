package sqlite

import (
	"context"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The index messages_due holds every message that has something to do, by queue and due time. Queue 0 is what is under
// a lease, ambiguous, or handed off with a leg's deadline. DueQueues and NextDue skip through the index from queue to queue: their cost grows with the
// number of queues, not of messages.

// nextQueue finds the first entry of the first queue after q.
const nextQueue = `SELECT q, due FROM messages WHERE due IS NOT NULL AND q > ? ORDER BY q, due LIMIT 1`

// nextAfter finds the first entry after a place. A comparison of rows: SQLite prepares q = ? AND due > ? anew each time.
const nextAfter = `SELECT q, due FROM messages WHERE due IS NOT NULL AND (q, due) > (?, ?) ORDER BY q, due LIMIT 1`

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
			expires, node FROM messages WHERE due IS NOT NULL AND q = 0`
		collect := func(s *sqlite.Stmt) error {
			r := scan(s)
			o := store.Overdue{ID: r.id()}
			o.Queue = delivery.Queue{Tenant: slugs[r.int64()], Channel: delivery.Channel(r.int64()),
				Lane: delivery.Lane(r.int64())}
			o.Status, o.Epoch, o.Account, o.Attempts = delivery.Status(r.int64()), r.int(), r.id(), r.int()
			flags := r.int64()
			o.AtMostOnce, o.Pinned = flags&flagAtMostOnce != 0, flags&flagPinned != 0
			o.DueAt, o.ExpiresAt, o.Node = r.time(), r.time(), r.text()
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
			var due int64
			found, err := one(c, nextQueue, func(s *sqlite.Stmt) error {
				q, due = s.ColumnInt64(0), s.ColumnInt64(1)
				return nil
			}, q)
			if err != nil || !found {
				return next, err
			}
			note := func(due int64) {
				if t := store.FromMillis(due); next.IsZero() || t.Before(next) {
					next = t
				}
			}
			if due > store.Millis(now) {
				note(due)
				continue
			}
			_, err = one(c, nextAfter, func(s *sqlite.Stmt) error {
				if s.ColumnInt64(0) == q {
					note(s.ColumnInt64(1))
				}
				return nil
			}, q, now)
			if err != nil {
				return next, err
			}
		}
	})
}
