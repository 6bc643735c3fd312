package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const maxRedriven = 1000

// dead reports whether a message is a dead letter: it stands in the table dead then, which save sees to.
func dead(r *row) bool {
	switch r.status {
	case delivery.StatusFailed, delivery.StatusExpired, delivery.StatusUnknown:
		return r.flags&flagDropped == 0
	}
	return false
}

func (t *tx) noteDead(r *row) error {
	sql := `DELETE FROM dead WHERE tenant = ? AND id = ?`
	if r.wasDead = dead(r); r.wasDead {
		sql = `INSERT INTO dead (tenant, id) VALUES (?, ?)`
	}
	return t.exec(sql, r.tenant, r.id[:])
}

// DeadLetters returns a page of dead letters, newest first.
func (s *Store) DeadLetters(
	ctx context.Context, tenant delivery.TenantID, q store.DeadLetterQuery,
) ([]store.Message, error) {
	if q.Limit < 1 || q.Limit > maxPage {
		return nil, fmt.Errorf("dead letters: limit %d is not between 1 and %d", q.Limit, maxPage)
	}
	switch q.Status {
	case 0, delivery.StatusFailed, delivery.StatusExpired, delivery.StatusUnknown:
	default:
		return nil, fmt.Errorf("dead letters: none is ever %s: ask for failed, expired or unknown", q.Status)
	}
	further := []condition{}
	if q.Reason != "" {
		further = append(further, condition{"m.reason = ?", []any{q.Reason}})
	}
	return s.page(ctx, tenant, byDead, q.MessageQuery, further...)
}

// Redrive puts dead letters back into their queues. A leg begins its time anew.
func (s *Store) Redrive(
	ctx context.Context, slug delivery.TenantID, ids []delivery.MessageID, now, expires time.Time,
) ([]store.Redriven, error) {
	if !expires.After(now) {
		return nil, fmt.Errorf("redrive: the messages would expire at %s, before they can go",
			expires.UTC().Format(time.RFC3339))
	}
	return s.eachDead(ctx, slug, "redrive", ids, func(t *tx, tn *tenant, r *row) (out store.Redriven, err error) {
		if r.status == delivery.StatusUnknown || r.flags&flagDoubted != 0 {
			r.flags |= flagDuplicate
		}
		if err := t.move(r, store.Millis(now), step{delivery.StatusQueued, delivery.ByOperator}); err != nil {
			return out, err
		}
		r.due, r.expires, r.attempts, r.node = store.Millis(now), store.Millis(expires), 0, ""
		r.reason, r.detail = store.ReasonRedriven, ""
		if len(r.legs) > 0 {
			r.begin(r.due)
		}
		if err := t.exec(`UPDATE messages SET expires = ? WHERE id = ?`, r.expires, r.id[:]); err != nil {
			return out, err
		}
		out.Queue = delivery.Queue{Tenant: tn.slug, Channel: r.channel, Lane: r.lane}
		return out, t.record(tn, r, delivery.Fact{Kind: delivery.FactRedriven, At: now, Code: r.reason, Until: expires})
	})
}

// Drop puts dead letters away.
func (s *Store) Drop(
	ctx context.Context, slug delivery.TenantID, ids []delivery.MessageID, now time.Time,
) ([]store.Redriven, error) {
	return s.eachDead(ctx, slug, "drop", ids, func(t *tx, tn *tenant, r *row) (out store.Redriven, err error) {
		r.flags |= flagDropped
		r.updated = store.Millis(now)
		return out, t.record(tn, r, delivery.Fact{Kind: delivery.FactDropped, At: now})
	})
}

// eachDead does something to those of ids that are dead letters of the tenant, all in one transaction.
func (s *Store) eachDead(
	ctx context.Context, slug delivery.TenantID, what string, ids []delivery.MessageID,
	do func(*tx, *tenant, *row) (store.Redriven, error),
) ([]store.Redriven, error) {
	if len(ids) > maxRedriven {
		return nil, fmt.Errorf("%s: %d messages, at most %d", what, len(ids), maxRedriven)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return write(ctx, s, len(ids), func(t *tx) ([]store.Redriven, error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return nil, err
		}
		out := make([]store.Redriven, len(ids))
		for i, id := range ids {
			r, err := t.load(id)
			if err != nil {
				return nil, err
			}
			if r == nil || r.tenant != tn.n {
				continue
			}
			if dead(r) {
				if out[i], err = do(t, tn, r); err == nil {
					err = t.save(r)
				}
				if err != nil {
					return nil, err
				}
				out[i].Done = true
			}
			out[i].Status = r.status
		}
		return out, nil
	})
}
