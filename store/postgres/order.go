package postgres

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Ordering keys. The unfinished messages of one (tenant, channel, address, key) stand in a line, in the order of their
// acceptance. Only the first goes; the others are held with store.ReasonOrdered, due at their expiry so that it is
// noticed. A message leaves its line when it no longer waits, whatever the reason (save sees to that), or when it goes
// on with another leg (switchLeg); the new first one then gets its own due time back. A message that left comes never
// back: a dead letter that is redriven goes when it can, without waiting for the line or holding it up.
//
// Who works on an ordered message holds the lock of its line from before it locks the row, and so has the row of
// whoever comes next without a wait; who joins a line holds it too. A transaction knows of a line those of its own
// messages that stand in it, and the first of the others: that one may become the first of all, and as it does not
// leave in this transaction, nobody behind it can.

// lineKey names a line.
type lineKey struct {
	tenant  int64
	channel delivery.Channel
	to, key string
}

// stripes is how many locks the lines of a tenant share.
const stripes = 64

// stripe is the number of the lock of a line: of a few per tenant, so that a large batch does not take many locks.
func (k lineKey) stripe() int32 {
	h := sha256.New()
	h.Write([]byte{byte(k.channel)})
	h.Write([]byte(k.to))
	h.Write([]byte{0})
	h.Write([]byte(k.key))
	return int32(k.tenant*stripes + int64(binary.BigEndian.Uint64(h.Sum(nil))%stripes)) //nolint:gosec // wraps: a name
}

// line is what a transaction knows of a line.
type line struct {
	places []place // in order
	end    int64   // the last place that is taken; known when messages join
}

type place struct {
	n   int64
	id  delivery.MessageID
	due int64 // the message's own due time
}

// joined is a message that has joined a line, to be written.
type joined struct {
	lineKey
	place
}

func (t *tx) keepPlace(rows pgx.Rows) error {
	var k lineKey
	var p place
	var ch int16
	if err := rows.Scan(&k.tenant, &ch, &k.to, &k.key, &p.n, (*[16]byte)(&p.id), &p.due); err != nil {
		return err
	}
	k.channel = delivery.Channel(ch)
	l := t.lines[k]
	if l == nil {
		l = &line{}
		t.lines[k] = l
	}
	l.places = append(l.places, p)
	t.places[p.id] = l
	return nil
}

const lineEnds = `SELECT u.channel, u.recipient, u.ordering_key, coalesce((SELECT o.place FROM ordered o
	WHERE o.tenant = $1 AND o.channel = u.channel AND o.recipient = u.recipient AND o.ordering_key = u.ordering_key
	ORDER BY o.place DESC LIMIT 1), 0)
	FROM unnest($2::smallint[], $3::text[], $4::text[]) AS u (channel, recipient, ordering_key)`

// loadLineEnds finds the ends of the lines that new messages of a tenant join.
func (t *tx) loadLineEnds(tenant int64, keys []lineKey) stmt {
	channels, tos, names := make([]int16, len(keys)), make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		channels[i], tos[i], names[i] = int16(k.channel), k.to, k.key
	}
	return stmt{lineEnds, []any{tenant, channels, tos, names}, func(rows pgx.Rows) error {
		k := lineKey{tenant: tenant}
		l := &line{}
		var ch int16
		err := rows.Scan(&ch, &k.to, &k.key, &l.end)
		k.channel = delivery.Channel(ch)
		t.lines[k] = l
		return err
	}}
}

// joinLine puts a new message at the end of its line, and holds it when it is not the first. Its row is still to be
// written.
func (t *tx) joinLine(r *row, key string) {
	k := lineKey{r.tenant, r.channel, r.to, key}
	l := t.lines[k]
	l.end++
	t.joined = append(t.joined, joined{k, place{l.end, r.id, r.due}})
	r.flags |= flagOrdered
	if l.end > 1 {
		r.status, r.reason = delivery.StatusHeld, store.ReasonOrdered
		r.due = r.heldUntil(r.accepted)
	}
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

// leaveLine takes a message out of its line and lets the new first one go. The row must be saved.
func (t *tx) leaveLine(r *row) error {
	r.flags &^= flagOrdered
	t.left = append(t.left, r.id)
	l := t.places[r.id]
	if l == nil {
		return nil
	}
	l.places = slices.DeleteFunc(l.places, func(p place) bool { return p.id == r.id })
	if len(l.places) == 0 {
		return nil
	}
	first := slices.MinFunc(l.places, func(a, b place) int { return cmp.Compare(a.n, b.n) })
	next := t.load(first.id)
	if next == nil || !next.blocked() {
		return nil
	}
	tn, err := t.tenantN(next.tenant)
	if err != nil {
		return err
	}
	now := r.updated
	to := delivery.StatusQueued
	if first.due > now {
		to = delivery.StatusScheduled
	}
	if err := t.move(next, now, step{to, delivery.ByPlan}); err != nil {
		return err
	}
	next.due, next.reason, next.detail = first.due, "", ""
	t.record(tn, next, delivery.Fact{Kind: delivery.FactReturned, At: store.FromMillis(now), Code: store.ReasonOrdered,
		Until: store.FromMillis(first.due)})
	if to == delivery.StatusQueued {
		t.becomesReady(tn, next)
	}
	return t.save(next)
}
