package sqlite

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const suppressionColumns = `channel, recipient, reason, source, at`

func scanSuppression(s *sqlite.Stmt) store.Suppression {
	r := scan(s)
	return store.Suppression{Channel: delivery.Channel(r.int64()), To: r.text(), Reason: r.text(), Source: r.text(),
		At: r.time()}
}

// suppressed looks an address up inside the transaction. Most tenants have an empty list, which costs nothing.
func (t *tx) suppressed(tn *tenant, ch delivery.Channel, to string) (store.Suppression, bool, error) {
	if !tn.suppresses {
		return store.Suppression{}, false, nil
	}
	return findSuppression(t.conn, tn.n, ch, to)
}

// findSuppression prefers the entry of the channel over one for every channel. An entry always has a reason.
func findSuppression(
	c *sqlite.Conn, tenant int64, ch delivery.Channel, to string,
) (e store.Suppression, found bool, err error) {
	found, err = one(c, `SELECT `+suppressionColumns+` FROM suppressions
		WHERE tenant = ? AND recipient = ? AND channel IN (0, ?) ORDER BY channel DESC LIMIT 1`,
		func(s *sqlite.Stmt) error { e = scanSuppression(s); return nil }, tenant, to, int(ch))
	return e, found, err
}

func (t *tx) suppress(tn *tenant, e store.Suppression) error {
	if e.Reason == "" {
		e.Reason = store.ReasonSuppressed
	}
	tn.suppresses, t.refused = true, true
	return t.exec(`INSERT OR REPLACE INTO suppressions (tenant, recipient, channel, reason, source, at)
		VALUES (?, ?, ?, ?, ?, ?)`, tn.n, e.To, int(e.Channel), e.Reason, e.Source, e.At)
}

// Suppress adds or replaces entries, all or none.
func (s *Store) Suppress(ctx context.Context, slug delivery.TenantID, entries []store.Suppression) error {
	for _, e := range entries {
		if e.To == "" {
			return errors.New("suppress: no address")
		}
	}
	_, err := write(ctx, s, len(entries), func(t *tx) (none struct{}, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return none, err
		}
		for _, e := range entries {
			if err := t.suppress(tn, e); err != nil {
				return none, err
			}
		}
		return none, nil
	})
	return err
}

// Unsuppress removes an entry.
func (s *Store) Unsuppress(ctx context.Context, slug delivery.TenantID, ch delivery.Channel, to string) error {
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return none, err
		}
		found, err := one(t.conn, `SELECT 1 FROM suppressions WHERE tenant = ? AND recipient = ? AND channel = ?`,
			func(*sqlite.Stmt) error { return nil }, tn.n, to, int(ch))
		if err != nil {
			return none, err
		}
		if !found {
			return none, fmt.Errorf("suppression: %w", store.ErrNotFound)
		}
		return none, t.exec(`DELETE FROM suppressions WHERE tenant = ? AND recipient = ? AND channel = ?`, tn.n, to, int(ch))
	})
	return err
}

// Suppressed returns the entry that keeps ch from to, if any.
func (s *Store) Suppressed(
	ctx context.Context, tenant delivery.TenantID, ch delivery.Channel, to string,
) (entry store.Suppression, found bool, err error) {
	entry, err = read(ctx, s, func(c *sqlite.Conn) (e store.Suppression, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 {
			return e, err
		}
		e, found, err = findSuppression(c, n, ch, to)
		return e, err
	})
	return entry, found, err
}

// SuppressionList returns a page. An address with entries for several channels is never torn between two pages: a page
// may hold a few entries more than limit.
func (s *Store) SuppressionList(
	ctx context.Context, tenant delivery.TenantID, after string, limit int,
) ([]store.Suppression, error) {
	return read(ctx, s, func(c *sqlite.Conn) (page []store.Suppression, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 || limit < 1 {
			return nil, err
		}
		err = query(c, `SELECT `+suppressionColumns+` FROM suppressions WHERE tenant = ? AND recipient > ?
			ORDER BY recipient, channel`, func(s *sqlite.Stmt) error {
			e := scanSuppression(s)
			if len(page) >= limit && page[len(page)-1].To != e.To {
				return errEnough
			}
			page = append(page, e)
			return nil
		}, n, after)
		return page, enough(err)
	})
}

// errEnough ends a query early.
var errEnough = errors.New("enough rows")

func enough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
