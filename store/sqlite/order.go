package sqlite

import (
	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Ordering keys. The unfinished messages of one (tenant, channel, address, key) stand in a line, in the order of their
// acceptance. Only the first goes; the others are held with store.ReasonOrdered, due at their expiry so that it is
// noticed. A message leaves its line when it no longer waits, whatever the reason (save sees to that), or when it goes
// on with another leg (switchLeg); the new first one then gets its own due time back. A message that left comes never
// back: a dead letter that is redriven goes when it can, without waiting for the line or holding it up.

// lineKey names a line.
const lineKey = `tenant = ?1 AND channel = ?2 AND recipient = ?3
	AND ordering_key = (SELECT ordering_key FROM labels WHERE id = ?4)`

const lineFirst = `SELECT id, due FROM ordered WHERE ` + lineKey + ` ORDER BY place LIMIT 1`

// joinLine puts a new message at the end of its line, and holds it when it is not the first. Its row is still to be
// written.
func (t *tx) joinLine(r *row, key string) error {
	place := int64(1)
	if _, err := one(t.conn, `SELECT place FROM ordered WHERE tenant = ? AND channel = ? AND recipient = ?
		AND ordering_key = ? ORDER BY place DESC LIMIT 1`, func(s *sqlite.Stmt) error {
		place = s.ColumnInt64(0) + 1
		return nil
	}, r.tenant, int(r.channel), r.to, key); err != nil {
		return err
	}
	err := t.exec(`INSERT INTO ordered (tenant, channel, recipient, ordering_key, place, id, due)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, r.tenant, int(r.channel), r.to, key, place, r.id[:], r.due)
	if err != nil {
		return err
	}
	r.flags |= flagOrdered
	if place > 1 {
		r.status, r.reason = delivery.StatusHeld, store.ReasonOrdered
		r.due = r.heldUntil(r.accepted)
	}
	return nil
}

// heldUntil is when a message that is held behind another one is looked at: when it expires.
func (r *row) heldUntil(now int64) int64 {
	if r.expires != 0 {
		return max(r.expires, 1)
	}
	return now + pausedFor.Milliseconds()
}

// blocked reports whether a message is held behind another one of its line.
func (r *row) blocked() bool {
	return r.flags&flagOrdered != 0 && r.status == delivery.StatusHeld && r.reason == store.ReasonOrdered
}

// leaveLine takes a message out of its line and lets the new first one go. The row must still have the channel and
// address of its line, and must be saved.
func (t *tx) leaveLine(r *row) error {
	r.flags &^= flagOrdered
	err := t.exec(`DELETE FROM ordered WHERE `+lineKey+` AND place = (SELECT place FROM ordered
		WHERE `+lineKey+` AND id = ?4 ORDER BY place LIMIT 1)`, r.tenant, int(r.channel), r.to, r.id[:])
	if err != nil {
		return err
	}
	var id delivery.MessageID
	var due int64
	found, err := one(t.conn, lineFirst, func(s *sqlite.Stmt) error {
		c := scan(s)
		id, due = c.id(), c.int64()
		return nil
	}, r.tenant, int(r.channel), r.to, r.id[:])
	if err != nil || !found {
		return err
	}
	next, err := t.load(id)
	if err != nil || next == nil || !next.blocked() {
		return err
	}
	tn, err := t.tenantN(next.tenant)
	if err != nil {
		return err
	}
	now := r.updated
	to := delivery.StatusQueued
	if due > now {
		to = delivery.StatusScheduled
	}
	if err := t.move(next, now, step{to, delivery.ByPlan}); err != nil {
		return err
	}
	next.due, next.reason, next.detail = due, "", ""
	err = t.record(tn, next, delivery.Fact{Kind: delivery.FactReturned, At: store.FromMillis(now),
		Code: store.ReasonOrdered, Until: store.FromMillis(due)})
	if err != nil {
		return err
	}
	if to == delivery.StatusQueued {
		t.becomesReady(tn, next)
	}
	return t.save(next)
}
