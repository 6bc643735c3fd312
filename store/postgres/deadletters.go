package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const maxRedriven = 1000

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
	return s.eachDead(ctx, slug, "redrive", ids, now, func(t *tx, tn *tenant, r *row) (out store.Redriven, err error) {
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
		out.Queue = delivery.Queue{Tenant: tn.slug, Channel: r.channel, Lane: r.lane}
		t.record(tn, r, delivery.Fact{Kind: delivery.FactRedriven, At: now, Code: r.reason, Until: expires})
		return out, nil
	})
}

// Drop puts dead letters away.
func (s *Store) Drop(
	ctx context.Context, slug delivery.TenantID, ids []delivery.MessageID, now time.Time,
) ([]store.Redriven, error) {
	return s.eachDead(ctx, slug, "drop", ids, now, func(t *tx, tn *tenant, r *row) (out store.Redriven, err error) {
		r.flags |= flagDropped
		r.updated = store.Millis(now)
		t.record(tn, r, delivery.Fact{Kind: delivery.FactDropped, At: now})
		return out, nil
	})
}

// eachDead does something to those of ids that are dead letters of the tenant, all in one transaction.
func (s *Store) eachDead(
	ctx context.Context, slug delivery.TenantID, what string, ids []delivery.MessageID, now time.Time,
	do func(*tx, *tenant, *row) (store.Redriven, error),
) ([]store.Redriven, error) {
	if len(ids) > maxRedriven {
		return nil, fmt.Errorf("%s: %d messages, at most %d", what, len(ids), maxRedriven)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, err
	}
	// The scope hides other tenants' messages: their ids are as good as unknown.
	return write(ctx, s, scope(n), need{now: now, ids: ids}, func(t *tx) ([]store.Redriven, error) {
		out := make([]store.Redriven, len(ids))
		for i, id := range ids {
			r := t.load(id)
			if r == nil || r.tenant != n {
				continue
			}
			if dead(r) {
				tn, err := t.tenantN(n)
				if err != nil {
					return nil, err
				}
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
