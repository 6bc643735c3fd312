package sqlite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Accept stores all messages of a, or none.
func (s *Store) Accept(ctx context.Context, slug delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	if err := checkNew(a.Messages); err != nil {
		return store.Accepted{}, err
	}
	return write(ctx, s, len(a.Messages), func(t *tx) (out store.Accepted, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return out, err
		}
		if a.Key != nil {
			if out, found, err := t.replay(tn, a); found || err != nil {
				return out, err
			}
		}
		if out, err = t.insert(tn, a.Now, a.Messages, nil); err != nil {
			return out, err
		}
		if a.Key != nil {
			err = t.keep(tn, a, out)
		}
		return out, err
	})
}

// Replay answers a repeated request that need not be accepted again.
func (s *Store) Replay(ctx context.Context, slug delivery.TenantID, key store.IdempotencyKey, now time.Time) (store.Accepted, error) {
	return write(ctx, s, 1, func(t *tx) (out store.Accepted, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return out, err
		}
		out, found, err := t.replay(tn, store.Acceptance{Now: now, Key: &key})
		if err == nil && !found {
			err = store.ErrNotFound
		}
		return out, err
	})
}

// checkNew refuses what no caller may hand over.
func checkNew(ms []store.NewMessage) error {
	if len(ms) == 0 {
		return errors.New("accept: no message")
	}
	var last delivery.MessageID
	for i := range ms {
		m := &ms[i]
		if bytes.Compare(m.ID[:], last[:]) <= 0 {
			return fmt.Errorf("accept: message %d: ids must strictly increase", i)
		}
		last = m.ID
		if m.Channel < delivery.SMS || m.Channel > delivery.Webhook {
			return fmt.Errorf("accept: message %d: unknown channel %d", i, m.Channel)
		}
		if m.Lane < delivery.Urgent || m.Lane > delivery.Bulk {
			return fmt.Errorf("accept: message %d: unknown lane %d", i, m.Lane)
		}
		if m.To == "" {
			return fmt.Errorf("accept: message %d: no address", i)
		}
		if err := checkLabels(m); err != nil {
			return fmt.Errorf("accept: message %d: %w", i, err)
		}
		if err := checkLegs(m); err != nil {
			return fmt.Errorf("accept: message %d: %w", i, err)
		}
	}
	return nil
}

const (
	maxLabel       = 64  // characters of a category or a tag
	maxOrderingKey = 128 // characters
)

func checkLabels(m *store.NewMessage) error {
	switch {
	case utf8.RuneCountInString(m.Category) > maxLabel:
		return fmt.Errorf("a category has at most %d characters", maxLabel)
	case utf8.RuneCountInString(m.Tag) > maxLabel:
		return fmt.Errorf("a tag has at most %d characters", maxLabel)
	case utf8.RuneCountInString(m.OrderingKey) > maxOrderingKey:
		return fmt.Errorf("an ordering key has at most %d characters", maxOrderingKey)
	}
	return nil
}

// insert stores new messages within the quota. With c set they are messages of that campaign.
func (t *tx) insert(tn *tenant, now time.Time, ms []store.NewMessage, c *campaign) (out store.Accepted, err error) {
	if err := t.checkQuota(tn, now, int64(len(ms))); err != nil {
		return out, err
	}
	out.Results = make([]store.AcceptResult, len(ms))
	at := store.Millis(now)
	for i := range ms {
		m := &ms[i]
		r := row{id: m.ID, tenant: tn.n, channel: m.Channel, lane: m.Lane, to: m.To, segments: m.Segments,
			accepted: at, updated: at, expires: store.Millis(m.ExpiresAt)}
		switch {
		case c != nil:
			r.campaign = c.n
		case !m.Campaign.IsZero():
			of, err := t.campaign(tn, m.Campaign)
			if err != nil {
				return out, err
			}
			r.campaign = of.n
		}
		if r.account, err = t.account(m.Account); err != nil {
			return out, err
		}
		if r.account != 0 {
			r.flags |= flagPinned
		}
		if m.AtMostOnce {
			r.flags |= flagAtMostOnce
		}
		r.status, r.due = delivery.StatusQueued, at
		if due := store.Millis(m.DueAt); due > at {
			r.status, r.due = delivery.StatusScheduled, due
		} else if due != 0 {
			r.due = due // a past due time keeps its place in the queue
		}
		first, err := t.firstLeg(tn, &r, m)
		if err != nil {
			return out, err
		}
		if err := t.insertOne(tn, &r, m, first, now); err != nil {
			return out, err
		}
		out.Results[i] = store.AcceptResult{ID: r.id, Status: r.status, Reason: r.reason}
	}
	return out, nil
}

// insertOne writes one new message with its payload, legs, tally and first facts.
func (t *tx) insertOne(tn *tenant, r *row, m *store.NewMessage, before []skipped, now time.Time) error {
	if m.OrderingKey != "" && len(before) == 0 && r.status != delivery.StatusSuppressed {
		if err := t.joinLine(r, m.OrderingKey); err != nil {
			return err
		}
	}
	payload := m.Payload
	if len(r.legs) > 0 && r.status != delivery.StatusSuppressed {
		if r.leg() > 0 {
			payload = m.Then[r.leg()-1].Payload
		}
		r.begin(max(r.accepted, store.Millis(m.DueAt)))
		if until := r.legs[r.leg()].until; until != 0 && r.due > until {
			r.due = until
		}
	}
	if !delivery.CanMove(0, r.status, delivery.ByAccept) {
		return fmt.Errorf("message %s: accept may not store it as %s", r.id, r.status)
	}
	if err := t.recordAccepted(tn, r, m, before, now); err != nil {
		return err
	}
	t.count(r, 0, r.status)
	if err := t.insertRow(r, m); err != nil {
		return err
	}
	s, err := t.conn.Prepare(`INSERT INTO payloads (id, body) VALUES (?, ?)`)
	if err != nil {
		return err
	}
	s.BindBytes(1, r.id[:])
	s.BindBytes(2, payload)
	if _, err = s.Step(); err != nil {
		return err
	}
	if len(r.legs) > 0 {
		return t.insertLegs(r, m.Then)
	}
	return nil
}

// recordAccepted writes the first facts of a new message.
func (t *tx) recordAccepted(tn *tenant, r *row, m *store.NewMessage, before []skipped, now time.Time) error {
	err := t.recordOn(tn, r, m.Channel, delivery.Fact{Kind: delivery.FactAccepted, At: now, Code: r.status.String(),
		Until: store.FromMillis(r.due)})
	for n := 0; n < len(before) && err == nil; n++ {
		err = t.recordOn(tn, r, r.legs[n+1].channel, delivery.Fact{Kind: delivery.FactFallback, At: now,
			Code: before[n].reason, Leg: n + 1, Until: store.FromMillis(r.legs[n+1].until)})
	}
	if err == nil && r.status == delivery.StatusSuppressed {
		err = t.record(tn, r, delivery.Fact{Kind: delivery.FactEnded, At: now, Code: r.reason})
	}
	return err
}

func (t *tx) insertRow(r *row, m *store.NewMessage) error {
	if m.Category != "" || m.Tag != "" || m.OrderingKey != "" {
		r.flags |= flagLabelled
		err := t.exec(`INSERT OR IGNORE INTO labels (id, category, tag, ordering_key) VALUES (?, ?, ?, ?)`, r.id[:],
			m.Category, m.Tag, m.OrderingKey)
		if err != nil {
			return err
		}
	}
	s, err := t.conn.Prepare(`INSERT INTO messages (id, tenant, channel, lane, status, q, due, node, epoch, attempts,
		flags, account, campaign, recipient, provider_id, client_ref, reason, detail, segments, accepted, updated, expires,
		facts)
		VALUES (?, ?, ?, ?, ?, ?, ?, '', 0, 0, ?, ?, ?, ?, '', ?, ?, '', ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	s.BindBytes(1, r.id[:])
	s.BindInt64(2, r.tenant)
	s.BindInt64(3, int64(r.channel))
	s.BindInt64(4, int64(r.lane))
	s.BindInt64(5, int64(r.status))
	s.BindInt64(6, r.queue())
	if r.due != 0 {
		s.BindInt64(7, r.due)
	}
	s.BindInt64(8, r.flags)
	s.BindInt64(9, r.account)
	if r.campaign != 0 {
		s.BindInt64(10, r.campaign)
	}
	s.BindText(11, r.to)
	s.BindText(12, m.ClientRef)
	s.BindText(13, r.reason)
	s.BindInt64(14, int64(r.segments))
	s.BindInt64(15, r.accepted)
	s.BindInt64(16, r.updated)
	s.BindInt64(17, r.expires)
	s.BindBytes(18, r.facts)
	if _, err := s.Step(); err != nil {
		if sqlite.ErrCode(err) == sqlite.ResultConstraintPrimaryKey {
			return fmt.Errorf("message %s: %w", r.id, store.ErrExists)
		}
		return err
	}
	return nil
}

// checkQuota counts n messages of the day of now, or refuses.
func (t *tx) checkQuota(tn *tenant, now time.Time, n int64) error {
	d := day(now)
	if tn.day != d {
		used := t.usage[usageKey{tn.n, d}]
		if _, err := one(t.conn, `SELECT n FROM usage WHERE tenant = ? AND day = ?`, func(s *sqlite.Stmt) error {
			used += s.ColumnInt64(0)
			return nil
		}, tn.n, d); err != nil {
			return err
		}
		tn.day, tn.used = d, used
	}
	if tn.quota > 0 && tn.used+n > tn.quota {
		return &store.QuotaError{Limit: tn.quota, Used: tn.used, Asked: n, Resets: time.Unix((d+1)*86400, 0).UTC()}
	}
	t.touch(tn)
	tn.used += n
	tn.accepted += n
	t.usage[usageKey{tn.n, d}] += n
	return nil
}

// replay answers a request whose key is known.
func (t *tx) replay(tn *tenant, a store.Acceptance) (out store.Accepted, found bool, err error) {
	var same bool
	var results []byte
	found, err = one(t.conn, `SELECT fingerprint, results FROM idempotency
		WHERE tenant = ? AND route = ? AND key = ? AND expires > ?`, func(s *sqlite.Stmt) error {
		same = bytes.Equal(columnBytes(s, 0), a.Key.Fingerprint[:])
		results = columnBytes(s, 1)
		return nil
	}, tn.n, a.Key.Route, a.Key.Key, a.Now)
	switch {
	case err != nil || !found:
		return out, false, err
	case !same:
		return out, true, store.ErrKeyReused
	}
	out.Replayed = true
	out.Results, err = decodeResults(results)
	return out, true, err
}

const (
	purgeEvery = 32  // keyed accepts between two purges
	purgeRows  = 128 // at most, so that a purge is never felt
)

// keep stores the results under the key. A key that has expired is replaced.
func (t *tx) keep(tn *tenant, a store.Acceptance, out store.Accepted) error {
	t.keyed++
	if t.keyed%purgeEvery == 0 {
		err := t.exec(`DELETE FROM idempotency WHERE (tenant, route, key) IN
			(SELECT tenant, route, key FROM idempotency WHERE expires <= ? ORDER BY expires LIMIT ?)`, a.Now, purgeRows)
		if err != nil {
			return err
		}
	}
	return t.exec(`INSERT INTO idempotency (tenant, route, key, fingerprint, expires, results) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint, expires = excluded.expires, results = excluded.results
		WHERE expires <= ?`,
		tn.n, a.Key.Route, a.Key.Key, a.Key.Fingerprint[:], a.Key.Expires, encodeResults(out.Results), a.Now)
}

// encodeResults writes id, status, length of the reason and reason of each result.
func encodeResults(results []store.AcceptResult) (b []byte) {
	for _, r := range results {
		b = append(b, r.ID[:]...)
		b = append(b, byte(r.Status))
		b = binary.AppendUvarint(b, uint64(len(r.Reason)))
		b = append(b, r.Reason...)
	}
	return b
}

func decodeResults(b []byte) (results []store.AcceptResult, err error) {
	bad := errors.New("idempotency: stored results are damaged")
	for len(b) > 0 {
		if len(b) < 18 {
			return nil, bad
		}
		r := store.AcceptResult{ID: delivery.MessageID(b[:16]), Status: delivery.Status(b[16])}
		n, used := binary.Uvarint(b[17:])
		if used <= 0 || n > uint64(len(b)-17-used) {
			return nil, bad
		}
		b = b[17+used:]
		r.Reason, b = string(b[:n]), b[n:]
		results = append(results, r)
	}
	return results, nil
}
