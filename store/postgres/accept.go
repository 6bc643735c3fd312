package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Accept stores all messages of a, or none.
func (s *Store) Accept(ctx context.Context, slug delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	if err := checkNew(a.Messages); err != nil {
		return store.Accepted{}, err
	}
	n, err := s.tenantNumber(ctx, slug)
	if err == nil {
		err = s.intern(ctx, pinned(a.Messages)...)
	}
	if err == nil {
		err = s.enter()
	}
	if err != nil {
		return store.Accepted{}, err
	}
	defer s.leave()
	return s.writer.accept(ctx, n, a)
}

// Replay answers a repeated request that need not be accepted again.
func (s *Store) Replay(
	ctx context.Context, slug delivery.TenantID, key store.IdempotencyKey, now time.Time,
) (store.Accepted, error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return store.Accepted{}, err
	}
	in := newIntake(n)
	in.add(store.Acceptance{Now: now, Key: &key})
	if err := s.read(ctx, scope(n), in.loadKeys()); err != nil {
		return store.Accepted{}, err
	}
	out, found, err := in.replay(store.Acceptance{Now: now, Key: &key})
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return out, err
}

// pinned lists the accounts that new messages name.
func pinned(ms []store.NewMessage) (ids []delivery.AccountID) {
	for i := range ms {
		ids = append(ids, ms[i].Account)
		for l := range ms[i].Then {
			ids = append(ids, ms[i].Then[l].Account)
		}
	}
	return ids
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
		if err := checkTexts(m); err != nil {
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

// checkTexts refuses what PostgreSQL cannot store as text.
func checkTexts(m *store.NewMessage) error {
	texts := []struct{ what, text string }{{"address", m.To}, {"client reference", m.ClientRef},
		{"category", m.Category}, {"tag", m.Tag}, {"ordering key", m.OrderingKey}}
	for i := range m.Then {
		texts = append(texts, struct{ what, text string }{"address of a further leg", m.Then[i].To})
	}
	for _, t := range texts {
		if strings.IndexByte(t.text, 0) >= 0 || !utf8.ValidString(t.text) {
			return fmt.Errorf("the %s holds a character that cannot be stored: NUL or no UTF-8", t.what)
		}
	}
	return nil
}

// insert stores new messages that t.in knows, within the quota. With c set they are messages of that campaign.
func (t *tx) insert(tn *tenant, now time.Time, ms []store.NewMessage, c *campaign) (out store.Accepted, err error) {
	if err := t.checkQuota(tn, now, int64(len(ms))); err != nil {
		return out, err
	}
	out.Results = make([]store.AcceptResult, len(ms))
	at := store.Millis(now)
	for i := range ms {
		m := &ms[i]
		r := &row{id: m.ID, tenant: tn.n, channel: m.Channel, lane: m.Lane, to: m.To, segments: m.Segments,
			accepted: at, updated: at, expires: store.Millis(m.ExpiresAt)}
		switch {
		case c != nil:
			r.campaign = c.n
		case !m.Campaign.IsZero():
			n, ok := t.in.campaigns[m.Campaign]
			if !ok {
				return out, fmt.Errorf("campaign %s: %w", m.Campaign, store.ErrNotFound)
			}
			r.campaign = n
		}
		if r.account, err = t.s.accountNumber(m.Account); err != nil {
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
		first, err := t.firstLeg(tn, r, m)
		if err != nil {
			return out, err
		}
		if err := t.insertOne(tn, r, m, first, now); err != nil {
			return out, err
		}
		out.Results[i] = store.AcceptResult{ID: r.id, Status: r.status, Reason: r.reason}
	}
	return out, nil
}

// insertOne gathers one new message with its payload, legs, tally and first facts.
func (t *tx) insertOne(tn *tenant, r *row, m *store.NewMessage, before []skipped, now time.Time) error {
	if m.OrderingKey != "" && len(before) == 0 && r.status != delivery.StatusSuppressed {
		t.joinLine(r, m.OrderingKey)
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
	t.recordAccepted(tn, r, m, before, now)
	t.count(r, 0, r.status)
	if m.Category != "" || m.Tag != "" || m.OrderingKey != "" {
		r.flags |= flagLabelled
	}
	if len(r.legs) > 0 {
		r.follow()
	}
	t.created = append(t.created, created{r, m, payload})
	return nil
}

// recordAccepted writes the first facts of a new message.
func (t *tx) recordAccepted(tn *tenant, r *row, m *store.NewMessage, before []skipped, now time.Time) {
	t.recordOn(tn, r, m.Channel, delivery.Fact{Kind: delivery.FactAccepted, At: now, Code: r.status.String(),
		Until: store.FromMillis(r.due)})
	for n := range before {
		t.recordOn(tn, r, r.legs[n+1].channel, delivery.Fact{Kind: delivery.FactFallback, At: now,
			Code: before[n].reason, Leg: n + 1, Until: store.FromMillis(r.legs[n+1].until)})
	}
	if r.status == delivery.StatusSuppressed {
		t.record(tn, r, delivery.Fact{Kind: delivery.FactEnded, At: now, Code: r.reason})
	}
}

// checkQuota counts n messages of the day of now, or refuses.
func (t *tx) checkQuota(tn *tenant, now time.Time, n int64) error {
	d := day(now)
	used := t.in.used[d]
	if tn.quota > 0 && used+n > tn.quota {
		return &store.QuotaError{Limit: tn.quota, Used: used, Asked: n, Resets: time.Unix((d+1)*86400, 0).UTC()}
	}
	t.wrote, tn.moved = true, true
	t.in.used[d] += n
	t.accepted[tn.n] += n
	t.usage[usageKey{tn.n, d}] += n
	return nil
}

// created is a new message, to be written.
type created struct {
	r       *row
	m       *store.NewMessage
	payload []byte
}

const (
	insertRows = `INSERT INTO messages (id, tenant, channel, lane, status, q, due, node, epoch, attempts, flags, account,
		campaign, recipient, provider_id, client_ref, reason, detail, segments, accepted, updated, expires, facts)
		SELECT u.id, $2, u.channel, u.lane, u.status, u.q, nullif(u.due, 0), '', 0, 0, u.flags, u.account,
		nullif(u.campaign, 0), u.recipient, '', u.client_ref, u.reason, '', u.segments, u.accepted, u.accepted, u.expires,
		u.facts FROM unnest($1::uuid[], $3::smallint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[],
		$8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::integer[], $15::bigint[],
		$16::bigint[], $17::bytea[]) AS u (id, channel, lane, status, q, due, flags, account, campaign, recipient,
		client_ref, reason, segments, accepted, expires, facts)`
	insertPayloads = `INSERT INTO payloads (id, tenant, body)
		SELECT u.id, $2, u.body FROM unnest($1::uuid[], $3::bytea[]) AS u (id, body)`
	insertLabels = `INSERT INTO labels (id, tenant, category, tag, ordering_key)
		SELECT u.id, $2, u.category, u.tag, u.key
		FROM unnest($1::uuid[], $3::text[], $4::text[], $5::text[]) AS u (id, category, tag, key)`
	insertLegs = `INSERT INTO legs (id, n, ` + legColumns + `, body, tenant)
		SELECT u.*, $1 FROM unnest($2::uuid[], $3::smallint[], $4::smallint[], $5::text[], $6::integer[], $7::bigint[],
		$8::boolean[], $9::bigint[], $10::smallint[], $11::smallint[], $12::text[], $13::text[], $14::bigint[],
		$15::integer[], $16::boolean[], $17::bytea[]) AS u`
)

// flushCreated writes the new messages, which are all of one tenant.
func (t *tx) flushCreated() []stmt {
	n := len(t.created)
	if n == 0 {
		return nil
	}
	var (
		ids                                                 = make([][16]byte, n)
		channel, lane, status                               = make([]int16, n), make([]int16, n), make([]int16, n)
		q, due, flags, account, campaign, accepted, expires = int64s(n), int64s(n), int64s(n), int64s(n), int64s(n),
			int64s(n), int64s(n)
		recipient, clientRef, reason = texts(n), texts(n), texts(n)
		segments                     = make([]int32, n)
		facts, bodies                = make([][]byte, n), make([][]byte, n)

		labelled           [][16]byte
		category, tag, key []string
	)
	for i := range t.created {
		r, m := t.created[i].r, t.created[i].m
		ids[i], channel[i], lane[i], status[i] = r.id, int16(r.channel), int16(r.lane), int16(r.status)
		q[i], due[i], flags[i], account[i], campaign[i] = r.queue(), r.due, r.flags, r.account, r.campaign
		accepted[i], expires[i], segments[i] = r.accepted, r.expires, int32(r.segments)
		recipient[i], clientRef[i], reason[i] = r.to, m.ClientRef, clean(r.reason)
		facts[i], bodies[i] = r.facts, nonNil(t.created[i].payload)
		if r.flags&flagLabelled != 0 {
			labelled = append(labelled, r.id)
			category, tag, key = append(category, m.Category), append(tag, m.Tag), append(key, m.OrderingKey)
		}
	}
	tenant := t.created[0].r.tenant
	stmts := []stmt{
		{sql: insertRows, args: []any{ids, tenant, channel, lane, status, q, due, flags, account, campaign, recipient,
			clientRef, reason, segments, accepted, expires, facts}},
		{sql: insertPayloads, args: []any{ids, tenant, bodies}},
	}
	if len(labelled) > 0 {
		stmts = append(stmts, stmt{sql: insertLabels, args: []any{labelled, tenant, category, tag, key}})
	}
	return append(stmts, t.flushNewLegs(tenant)...)
}

func (t *tx) flushNewLegs(tenant int64) []stmt {
	var (
		ids                         [][16]byte
		n, channel, success, status []int16
		to, reason, provider        []string
		segments, epoch             []int32
		account, within, until      []int64
		pinned, winner              []bool
		bodies                      [][]byte
	)
	for i := range t.created {
		r, m := t.created[i].r, t.created[i].m
		for k := range r.legs {
			l := &r.legs[k]
			var body []byte
			if k > r.leg() {
				body = m.Then[k-1].Payload
			}
			ids, n, channel = append(ids, r.id), append(n, int16(k)), append(channel, int16(l.channel))
			success, status = append(success, int16(l.success)), append(status, int16(l.status))
			to, reason, provider = append(to, l.to), append(reason, clean(l.reason)), append(provider, l.provider)
			segments, epoch = append(segments, int32(l.segments)), append(epoch, int32(l.epoch))
			account, within, until = append(account, l.account), append(within, l.within), append(until, l.until)
			pinned, winner, bodies = append(pinned, l.pinned), append(winner, l.winner), append(bodies, nonNil(body))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return []stmt{{sql: insertLegs, args: []any{tenant, ids, n, channel, to, segments, account, pinned, within, success,
		status, reason, provider, until, epoch, winner, bodies}}}
}

// nonNil keeps an empty payload from being stored as NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
