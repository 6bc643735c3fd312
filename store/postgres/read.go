package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// missing is the error of a look-up whose tenant may not exist: then the thing does not exist either.
func missing(err, not error) error {
	if errors.Is(err, store.ErrNotFound) {
		return not
	}
	return err
}

const messageColumns = `m.id, m.channel, m.lane, m.status, m.reason, m.detail, m.recipient, p.body, m.segments,
	m.provider_id, m.client_ref, m.attempts, m.epoch, m.flags, m.accepted, m.updated, coalesce(m.due, 0), m.expires,
	coalesce(l.category, ''), coalesce(l.tag, ''), coalesce(l.ordering_key, ''),
	(SELECT a.id FROM account_ids a WHERE a.n = m.account), (SELECT c.id FROM campaigns c WHERE c.n = m.campaign)`

const messageSides = ` LEFT JOIN payloads p ON p.id = m.id LEFT JOIN labels l ON l.id = m.id`

func scanMessage(rows pgx.Rows, tenant delivery.TenantID) (m store.Message, err error) {
	var ch, lane, status int16
	var flags, accepted, updated, due, expires int64
	var account, campaign *[16]byte
	err = rows.Scan((*[16]byte)(&m.ID), &ch, &lane, &status, &m.Reason, &m.Detail, &m.To, &m.Payload, &m.Segments,
		&m.ProviderID, &m.ClientRef, &m.Attempts, &m.Epoch, &flags, &accepted, &updated, &due, &expires, &m.Category,
		&m.Tag, &m.OrderingKey, &account, &campaign)
	m.Tenant = tenant
	m.Channel, m.Lane, m.Status = delivery.Channel(ch), delivery.Lane(lane), delivery.Status(status)
	m.AcceptedAt, m.UpdatedAt = store.FromMillis(accepted), store.FromMillis(updated)
	m.DueAt, m.ExpiresAt = store.FromMillis(due), store.FromMillis(expires)
	m.PossibleDuplicate, m.AtMostOnce = flags&flagDuplicate != 0, flags&flagAtMostOnce != 0
	m.Dropped = flags&flagDropped != 0
	m.Leg = int(flags >> legShift & legMask)
	if len(m.Payload) == 0 {
		m.Payload = nil
	}
	if account != nil {
		m.Account = *account
	}
	if campaign != nil {
		m.Campaign = *campaign
	}
	return m, err
}

// Message returns one message.
func (s *Store) Message(ctx context.Context, slug delivery.TenantID, id delivery.MessageID) (m store.Message,
	err error) {
	none := fmt.Errorf("message %s: %w", id, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return m, missing(err, none)
	}
	found := false
	err = s.read(ctx, scope(n),
		stmt{`SELECT ` + messageColumns + ` FROM messages m` + messageSides + ` WHERE m.id = $1 AND m.tenant = $2`,
			[]any{[16]byte(id), n}, func(rows pgx.Rows) (err error) {
				found = true
				m, err = scanMessage(rows, slug)
				return err
			}},
		stmt{`SELECT (SELECT a.id FROM account_ids a WHERE a.n = account), ` + legColumns + `
			FROM legs WHERE id = $1 ORDER BY n`, []any{[16]byte(id)}, func(rows pgx.Rows) error {
			var account *[16]byte
			l, err := scanLeg(rows, &account)
			out := store.MessageLeg{Channel: l.channel, To: l.to, Status: l.status, Reason: l.reason,
				ProviderID: l.provider, Within: time.Duration(l.within) * time.Millisecond, Success: l.success,
				Until: store.FromMillis(l.until), Winner: l.winner}
			if account != nil {
				out.Account = *account
			}
			m.Legs = append(m.Legs, out)
			return err
		}})
	if err == nil && !found {
		err = none
	}
	if err != nil {
		return store.Message{}, err
	}
	return m, nil
}

// Whose tenant and order a page follows: the messages', or those of the dead among them.
const (
	byMessages = "m"
	byDead     = "d"
)

const (
	maxPage = 1000
	// An id carries the time at which it was made, a little before its message is accepted. A search by time of
	// acceptance goes back this much further in the order of ids.
	sinceSlack = 24 * time.Hour
)

// Messages returns a page, newest first. A search by campaign or by nothing reads only its page; a filter by status,
// channel, address or account goes through the tenant's messages, newest first, until the page is full or ctx ends.
// There is no index by address on purpose: addresses come in no order, and keeping one would cost every acceptance.
func (s *Store) Messages(ctx context.Context, tenant delivery.TenantID, q store.MessageQuery) ([]store.Message, error) {
	if q.Limit < 1 || q.Limit > maxPage {
		return nil, fmt.Errorf("messages: limit %d is not between 1 and %d", q.Limit, maxPage)
	}
	return s.page(ctx, tenant, byMessages, q)
}

// condition is a part of a WHERE; each ? stands for the next of its arguments.
type condition struct {
	clause string
	args   []any
}

// page reads a page of what matches q and the further conditions.
func (s *Store) page(
	ctx context.Context, slug delivery.TenantID, by string, q store.MessageQuery, further ...condition,
) (page []store.Message, err error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, noneFor(err)
	}
	var where []string
	var args []any
	and := func(clause string, a ...any) {
		for _, arg := range a {
			args = append(args, arg)
			clause = strings.Replace(clause, "?", fmt.Sprintf("$%d", len(args)), 1)
		}
		where = append(where, clause)
	}
	// The + 0 keeps the planner from taking the tenant's index when the campaign's is the narrower one.
	if !q.Campaign.IsZero() && by == byMessages {
		and("m.tenant + 0 = ?", n)
	} else {
		and(by+".tenant = ?", n)
	}
	for _, f := range further {
		and(f.clause, f.args...)
	}
	if !q.Campaign.IsZero() {
		and("m.campaign = (SELECT n FROM campaigns WHERE id = ?)", [16]byte(q.Campaign))
	}
	if !q.Before.IsZero() {
		and(by+".id < ?", [16]byte(q.Before))
	}
	if q.Status != 0 {
		and("m.status = ?", int16(q.Status))
	}
	if q.Channel != 0 {
		and("m.channel = ?", int16(q.Channel))
	}
	if q.To != "" {
		and("m.recipient = ?", clean(q.To))
	}
	if q.Tag != "" {
		and("l.tag = ?", clean(q.Tag))
	}
	if q.Account != (delivery.AccountID{}) {
		and("m.account = (SELECT n FROM account_ids WHERE id = ?)", [16]byte(q.Account))
	}
	if !q.Since.IsZero() {
		and("m.accepted >= ?", store.Millis(q.Since))
		if from := q.Since.Add(-sinceSlack).UnixMilli(); from > 0 {
			id := [16]byte{byte(from >> 40), byte(from >> 32), byte(from >> 24), byte(from >> 16), byte(from >> 8),
				byte(from)}
			and(by+".id >= ?", id)
		}
	}
	from := "messages m"
	if by == byDead {
		from = "dead d JOIN messages m ON m.id = d.id"
	}
	args = append(args, q.Limit)
	sql := `SELECT ` + messageColumns + ` FROM ` + from + messageSides + ` WHERE ` + strings.Join(where, " AND ") +
		` ORDER BY ` + by + `.id DESC LIMIT $` + fmt.Sprint(len(args))
	err = s.look(ctx, func() error {
		return s.read(ctx, scope(n), stmt{sql, args, func(rows pgx.Rows) error {
			m, err := scanMessage(rows, slug)
			page = append(page, m)
			return err
		}})
	})
	return page, err
}

const aheadInQueue = `SELECT count(*) FROM (SELECT 1 FROM messages
	WHERE due IS NOT NULL AND q = $1 AND (due, id) < ($2, $3) LIMIT $4) AS ahead`

// Ahead counts the waiting messages of the same queue that are due before the message, at most limit.
func (s *Store) Ahead(ctx context.Context, slug delivery.TenantID, id delivery.MessageID, limit int) (ahead int,
	err error) {
	none := fmt.Errorf("message %s: %w", id, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return 0, missing(err, none)
	}
	q, due := int64(-1), int64(0)
	err = s.read(ctx, scope(n), stmt{`SELECT q, coalesce(due, 0) FROM messages WHERE id = $1 AND tenant = $2`,
		[]any{[16]byte(id), n}, into(&q, &due)})
	if err == nil && q < 0 {
		err = none
	}
	if err != nil || q == 0 || due == 0 || limit < 1 {
		return 0, err
	}
	err = s.read(ctx, scope(n), byIndex, stmt{aheadInQueue, []any{q, due, [16]byte(id), limit}, into(&ahead)})
	return ahead, err
}

// Usage returns how many messages the tenant had accepted on the UTC day of now.
func (s *Store) Usage(ctx context.Context, slug delivery.TenantID, now time.Time) (used int64, err error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return 0, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT n FROM usage WHERE tenant = $1 AND day = $2`, []any{n, day(now)},
		into(&used)})
	return used, err
}

// Cancel moves a waiting message to canceled. A message that is canceled already stays so without an error. One that is
// in doubt, or of which an earlier leg was handed off, is stopped too: but as what it is then, with ErrConflict.
func (s *Store) Cancel(
	ctx context.Context, slug delivery.TenantID, id delivery.MessageID, now time.Time,
) (delivery.Status, error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return 0, err
	}
	status, err := write(ctx, s, scope(n), need{now: now, ids: []delivery.MessageID{id}}, func(t *tx) (delivery.Status,
		error) {
		r := t.load(id)
		if r == nil || r.tenant != n {
			return 0, fmt.Errorf("message %s: %w", id, store.ErrNotFound)
		}
		if !delivery.CanMove(r.status, delivery.StatusCanceled, delivery.ByOperator) {
			return r.status, nil
		}
		tn, err := t.tenantN(n)
		if err != nil {
			return 0, err
		}
		err = t.stop(tn, r, store.Millis(now), delivery.StatusCanceled, delivery.ByOperator, store.ReasonCanceled, "")
		return r.status, err
	})
	if err == nil && status != delivery.StatusCanceled {
		err = fmt.Errorf("message %s is %s: %w", id, status, store.ErrConflict)
	}
	return status, err
}
