package sqlite

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const accountColumns = `id, tenant, name, kind, channel, settings, sealed, secret_names, priority, rate, burst, paused,
	pause_reason, created, updated, version`

func scanAccount(s *sqlite.Stmt, slugs map[int64]delivery.TenantID) (a store.Account, err error) {
	r := scan(s)
	a.ID, a.Tenant, a.Name, a.Kind, a.Channel = r.id(), slugs[r.int64()], r.text(), r.text(), delivery.Channel(r.int64())
	r.json(&a.Settings)
	a.Sealed = r.bytes()
	r.json(&a.SecretNames)
	a.Priority, a.Rate, a.Burst, a.Paused, a.PauseReason = r.int(), r.float(), r.float(), r.bool(), r.text()
	a.CreatedAt, a.UpdatedAt, a.Version = r.time(), r.time(), r.int64()
	return a, r.err
}

// PutAccount creates an account, or replaces the one with the same ID. An ID of another tenant is ErrExists. With a Version
// it only replaces the row of just that version, else ErrConflict.
func (s *Store) PutAccount(ctx context.Context, slug delivery.TenantID, a store.Account) error {
	if a.ID == (delivery.AccountID{}) || a.Name == "" {
		return errors.New("connector account: an id and a name are needed")
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		owner, err := t.owner(slug)
		if err != nil {
			return none, err
		}
		taken, err := one(t.conn, `SELECT 1 FROM accounts
			WHERE (tenant = ?1 AND name = ?2 AND id != ?3) OR (id = ?3 AND tenant != ?1) LIMIT 1`,
			func(*sqlite.Stmt) error { return nil }, owner, a.Name, a.ID[:])
		if err != nil {
			return none, err
		}
		if taken {
			return none, fmt.Errorf("connector account %q: %w", a.Name, store.ErrExists)
		}
		var version int64 // 0 = it is not there
		if _, err := one(t.conn, `SELECT version FROM accounts WHERE id = ?`, func(s *sqlite.Stmt) error {
			version = s.ColumnInt64(0)
			return nil
		}, a.ID[:]); err != nil {
			return none, err
		}
		if a.Version != 0 && a.Version != version {
			return none, fmt.Errorf("connector account %q does not have version %d any more: %w", a.Name, a.Version,
				store.ErrConflict)
		}
		settings, err := asJSON(a.Settings)
		if err != nil {
			return none, err
		}
		secrets, err := asJSON(a.SecretNames)
		if err != nil {
			return none, err
		}
		delete(t.owners, a.ID)
		return none, t.exec(`INSERT OR REPLACE INTO accounts (`+accountColumns+`)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			a.ID[:], owner, a.Name, a.Kind, int(a.Channel), settings, a.Sealed, secrets, a.Priority, a.Rate, a.Burst, a.Paused,
			a.PauseReason, a.CreatedAt, a.UpdatedAt, version+1)
	})
	return err
}

// accounts reads accounts of tenant number n and the shared ones, or all with n < 0.
func (s *Store) accounts(
	ctx context.Context, number func(*sqlite.Conn) (int64, error), name string,
) ([]store.Account, error) {
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Account, err error) {
		slugs, err := tenantSlugs(c)
		if err != nil {
			return nil, err
		}
		n, err := number(c)
		if err != nil {
			return nil, err
		}
		err = query(c, `SELECT `+accountColumns+` FROM accounts WHERE (?1 < 0 OR tenant IN (0, ?1)) AND (?2 = '' OR name = ?2)
			ORDER BY channel, priority, name, tenant DESC`, func(s *sqlite.Stmt) error {
			a, err := scanAccount(s, slugs)
			list = append(list, a)
			return err
		}, n, name)
		return list, err
	})
}

// Account returns one of the tenant's own accounts by name, else a shared one.
func (s *Store) Account(ctx context.Context, tenant delivery.TenantID, name string) (found store.Account, err error) {
	missing := fmt.Errorf("connector account %q: %w", name, store.ErrNotFound)
	if name == "" {
		return found, missing
	}
	list, err := s.accounts(ctx, func(c *sqlite.Conn) (int64, error) { return tenantNumber(c, tenant) }, name)
	if err != nil {
		return found, err
	}
	for _, a := range list {
		if a.Tenant == tenant {
			return a, nil
		}
		found = a
	}
	if len(list) == 0 {
		return found, missing
	}
	return found, nil
}

// AccountList returns the tenant's own and the shared accounts, by channel, priority and name.
func (s *Store) AccountList(ctx context.Context, tenant delivery.TenantID) ([]store.Account, error) {
	return s.accounts(ctx, func(c *sqlite.Conn) (int64, error) { return tenantNumber(c, tenant) }, "")
}

// AllAccounts returns every account of every tenant.
func (s *Store) AllAccounts(ctx context.Context, sys store.System) ([]store.Account, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return s.accounts(ctx, func(*sqlite.Conn) (int64, error) { return -1, nil }, "")
}

// DeleteAccount removes one of the tenant's own accounts. Messages keep naming it.
func (s *Store) DeleteAccount(ctx context.Context, slug delivery.TenantID, name string) error {
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		owner, err := t.owner(slug)
		if err != nil {
			return none, err
		}
		var id delivery.AccountID
		found, err := one(t.conn, `SELECT id FROM accounts WHERE tenant = ? AND name = ?`,
			func(s *sqlite.Stmt) error { s.ColumnBytes(0, id[:]); return nil }, owner, name)
		if err != nil {
			return none, err
		}
		if !found {
			return none, fmt.Errorf("connector account %q: %w", name, store.ErrNotFound)
		}
		delete(t.owners, id)
		return none, t.exec(`DELETE FROM accounts WHERE id = ?`, id[:])
	})
	return err
}
