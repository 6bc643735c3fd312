package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The index messages_due holds every message that has something to do, by queue and due time. Queue 0 is what is under
// a lease, ambiguous, or handed off with a leg's deadline. DueQueues and NextDue skip through the index from queue to
// queue: their cost grows with the number of queues and of partitions, not of messages.

// queues goes from queue to queue: the first entry of each, from above $1 on.
const queues = `WITH RECURSIVE queue AS (
		(SELECT q, due FROM messages WHERE due IS NOT NULL AND q > $1 ORDER BY q, due LIMIT 1)
		UNION ALL
		SELECT next.q, next.due FROM queue CROSS JOIN LATERAL (SELECT m.q, m.due FROM messages m
			WHERE m.due IS NOT NULL AND m.q > queue.q ORDER BY m.q, m.due LIMIT 1) AS next)`

const (
	dueQueues = queues + ` SELECT q, due FROM queue WHERE due <= $2 ORDER BY q`
	// The first entry of each queue, or the first after now where that is due already.
	nextDue = queues + ` SELECT coalesce(min(CASE WHEN due > $2 THEN due ELSE (SELECT m.due FROM messages m
		WHERE m.due IS NOT NULL AND m.q = queue.q AND m.due > $2 ORDER BY m.q, m.due LIMIT 1) END), 0) FROM queue`

	dueInQueue = `SELECT id, due FROM messages WHERE due IS NOT NULL AND q = $1 AND due <= $2 AND (due, id) > ($3, $4)
		ORDER BY q, due, id LIMIT $5`

	overdueColumns = `SELECT m.id, m.tenant, m.channel, m.lane, m.status, m.epoch, a.id, m.attempts, m.flags, m.due,
		m.expires, m.node FROM messages m LEFT JOIN account_ids a ON a.n = m.account WHERE m.due IS NOT NULL AND m.q = 0`
	overdueNow = overdueColumns + ` AND m.due <= $1 ORDER BY m.q, m.due, m.id LIMIT $2`
	leasesOf   = overdueColumns + ` AND m.node = $1 AND m.status = $3 ORDER BY m.q, m.due, m.id LIMIT $2`
)

// byIndex keeps the planner to the index of due times, whatever it knows of a table that fills up.
var byIndex = stmt{sql: `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)`}

// DueQueues lists the queues that have a due message.
func (s *Store) DueQueues(ctx context.Context, sys store.System, now time.Time) (list []store.DueQueue, err error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	var tenants []int64
	err = s.read(ctx, everyTenant, byIndex, stmt{dueQueues, []any{int64(0), store.Millis(now)},
		func(rows pgx.Rows) error {
			var q, due int64
			if err := rows.Scan(&q, &due); err != nil {
				return err
			}
			n, ch, lane := unpackQueue(q)
			tenants = append(tenants, n)
			list = append(list, store.DueQueue{Queue: delivery.Queue{Channel: ch, Lane: lane},
				Oldest: store.FromMillis(due)})
			return nil
		}})
	if err == nil {
		err = s.slugs(ctx, tenants)
	}
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Queue.Tenant = s.slug(tenants[i])
	}
	return list, nil
}

// Due lists ids of due messages of one queue, oldest due time first.
func (s *Store) Due(
	ctx context.Context, sys store.System, q delivery.Queue, now time.Time, after store.DueMark, limit int,
) ([]delivery.MessageID, store.DueMark, error) {
	if err := checkSystem(sys); err != nil {
		return nil, after, err
	}
	n, err := s.tenantNumber(ctx, q.Tenant)
	if err != nil || limit < 1 {
		return nil, after, noneFor(err)
	}
	var ids []delivery.MessageID
	mark := after
	err = s.read(ctx, scope(n), byIndex, stmt{dueInQueue, []any{packQueue(n, q.Channel, q.Lane), store.Millis(now),
		store.Millis(after.At), [16]byte(after.ID), limit}, func(rows pgx.Rows) error {
		var due int64
		err := rows.Scan((*[16]byte)(&mark.ID), &due)
		mark.At = store.FromMillis(due)
		ids = append(ids, mark.ID)
		return err
	}})
	if err != nil {
		return nil, after, err
	}
	return ids, mark, nil
}

// Overdue lists what a sweeper or a restarted node must settle.
func (s *Store) Overdue(
	ctx context.Context, sys store.System, now time.Time, node string, limit int,
) (list []store.Overdue, err error) {
	if err := checkSystem(sys); err != nil || limit < 1 {
		return nil, err
	}
	var tenants []int64
	collect := func(rows pgx.Rows) error {
		var o store.Overdue
		var ch, lane, status int16
		var tenant, flags, due, expires int64
		var account *[16]byte
		err := rows.Scan((*[16]byte)(&o.ID), &tenant, &ch, &lane, &status, &o.Epoch, &account, &o.Attempts, &flags, &due,
			&expires, &o.Node)
		o.Queue.Channel, o.Queue.Lane, o.Status = delivery.Channel(ch), delivery.Lane(lane), delivery.Status(status)
		o.AtMostOnce, o.Pinned = flags&flagAtMostOnce != 0, flags&flagPinned != 0
		o.DueAt, o.ExpiresAt = store.FromMillis(due), store.FromMillis(expires)
		if account != nil {
			o.Account = *account
		}
		tenants, list = append(tenants, tenant), append(list, o)
		return err
	}
	find := stmt{overdueNow, []any{store.Millis(now), limit}, collect}
	if node != "" {
		find = stmt{leasesOf, []any{clean(node), limit, int16(delivery.StatusSending)}, collect}
	}
	if err = s.read(ctx, everyTenant, byIndex, find); err == nil {
		err = s.slugs(ctx, tenants)
	}
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Queue.Tenant = s.slug(tenants[i])
	}
	return list, nil
}

// NextDue returns the earliest time after now at which something is to be done, or the zero time.
func (s *Store) NextDue(ctx context.Context, sys store.System, now time.Time) (time.Time, error) {
	if err := checkSystem(sys); err != nil {
		return time.Time{}, err
	}
	var due int64
	err := s.read(ctx, everyTenant, byIndex, stmt{nextDue, []any{int64(-1), store.Millis(now)}, into(&due)})
	return store.FromMillis(due), err
}
