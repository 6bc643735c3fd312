package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const suppressionColumns = `channel, recipient, reason, source, at`

func scanSuppression(rows pgx.Rows) (e store.Suppression, err error) {
	err = rows.Scan((*uint8)(&e.Channel), &e.To, &e.Reason, &e.Source, at{&e.At})
	return e, err
}

// Suppress adds or replaces entries, all or none. When an address is named twice, the last entry counts.
func (s *Store) Suppress(ctx context.Context, slug delivery.TenantID, entries []store.Suppression) error {
	for _, e := range entries {
		if e.To == "" {
			return errors.New("suppress: no address")
		}
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil || len(entries) == 0 {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		tn := &tenant{n: n, slug: slug}
		for _, e := range entries {
			t.suppress(tn, e)
		}
		return none, nil
	})
	return err
}

// Unsuppress removes an entry.
func (s *Store) Unsuppress(ctx context.Context, slug delivery.TenantID, ch delivery.Channel, to string) error {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		gone, err := t.exec(`DELETE FROM suppressions WHERE tenant = $1 AND recipient = $2 AND channel = $3`, n, to, int(ch))
		if err == nil && gone == 0 {
			err = fmt.Errorf("suppression: %w", store.ErrNotFound)
		}
		if err == nil {
			t.changed(store.SuppressChange, n, "")
		}
		return none, err
	})
	return err
}

// Suppressed returns the entry that keeps ch from to, if any. It prefers the entry of the channel over one for every
// channel.
func (s *Store) Suppressed(
	ctx context.Context, tenant delivery.TenantID, ch delivery.Channel, to string,
) (entry store.Suppression, found bool, err error) {
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil {
		return entry, false, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + suppressionColumns + ` FROM suppressions
		WHERE tenant = $1 AND recipient = $2 AND channel IN (0, $3) ORDER BY channel DESC LIMIT 1`,
		[]any{n, to, int(ch)}, func(rows pgx.Rows) (err error) {
			found = true
			entry, err = scanSuppression(rows)
			return err
		}})
	return entry, found, err
}

// SuppressionList returns a page. An address with entries for several channels is never torn between two pages: a page
// may hold a few entries more than limit.
func (s *Store) SuppressionList(
	ctx context.Context, tenant delivery.TenantID, after string, limit int,
) (page []store.Suppression, err error) {
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil || limit < 1 {
		return nil, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + suppressionColumns + ` FROM suppressions
		WHERE tenant = $1 AND recipient > $2 ORDER BY recipient, channel FETCH FIRST $3 ROWS ONLY`,
		[]any{n, after, limit + len(delivery.Channels)}, func(rows pgx.Rows) error {
			e, err := scanSuppression(rows)
			if len(page) < limit || page[len(page)-1].To == e.To {
				page = append(page, e)
			}
			return err
		}})
	return page, err
}
