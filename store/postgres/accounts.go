package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const accountColumns = `id, tenant, name, kind, channel, settings, sealed, secret_names, priority, rate, burst, paused,
	pause_reason, created, updated, version`

func scanAccount(rows pgx.Rows) (a store.Account, tenant int64, err error) {
	var settings, secrets string
	err = rows.Scan((*[16]byte)(&a.ID), &tenant, &a.Name, &a.Kind, (*uint8)(&a.Channel), &settings, &a.Sealed, &secrets,
		&a.Priority, &a.Rate, &a.Burst, &a.Paused, &a.PauseReason, at{&a.CreatedAt}, at{&a.UpdatedAt}, &a.Version)
	if err == nil {
		err = errors.Join(fromJSON(settings, &a.Settings), fromJSON(secrets, &a.SecretNames))
	}
	return a, tenant, err
}

// PutAccount creates an account, or replaces the one with the same ID. An ID of another tenant is ErrExists. With a Version
// it only replaces the row of just that version, else ErrConflict.
func (s *Store) PutAccount(ctx context.Context, slug delivery.TenantID, a store.Account) error {
	if a.ID == (delivery.AccountID{}) || a.Name == "" {
		return errors.New("connector account: an id and a name are needed")
	}
	settings, err := asJSON(a.Settings)
	if err != nil {
		return err
	}
	secrets, err := asJSON(a.SecretNames)
	if err != nil {
		return err
	}
	owner, err := s.ownerNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(owner), need{}, func(t *tx) (none struct{}, err error) {
		taken := fmt.Errorf("connector account %q: %w", a.Name, store.ErrExists)
		args := []any{[16]byte(a.ID), owner, a.Name, a.Kind, int(a.Channel), settings, a.Sealed, secrets, a.Priority, a.Rate,
			a.Burst, a.Paused, a.PauseReason, store.Millis(a.CreatedAt), store.Millis(a.UpdatedAt)}
		sql := putAccount
		if a.Version != 0 {
			sql, args = replaceAccount, append(args, a.Version)
		}
		n, err := t.exec(sql, args...)
		switch {
		case err == nil && n == 0 && a.Version != 0:
			return none, fmt.Errorf("connector account %q does not have version %d any more: %w", a.Name, a.Version,
				store.ErrConflict)
		case isCode(err, uniqueViolation, forbiddenRow) || (err == nil && n == 0):
			return none, taken
		}
		if err == nil {
			t.changed(store.AccountChange, owner, a.ID.String())
		}
		return none, err
	})
	return err
}

const (
	// putAccount makes an account or replaces one. An id of another tenant cannot be seen from here: row-level security
	// makes it an error.
	putAccount = `INSERT INTO accounts AS a (` + accountColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, channel = excluded.channel,
		settings = excluded.settings, sealed = excluded.sealed, secret_names = excluded.secret_names,
		priority = excluded.priority, rate = excluded.rate, burst = excluded.burst, paused = excluded.paused,
		pause_reason = excluded.pause_reason, created = excluded.created, updated = excluded.updated,
		version = a.version + 1
		WHERE a.tenant = excluded.tenant`
	// replaceAccount replaces an account of a version.
	replaceAccount = `UPDATE accounts SET name = $3, kind = $4, channel = $5, settings = $6, sealed = $7, secret_names = $8,
		priority = $9, rate = $10, burst = $11, paused = $12, pause_reason = $13, created = $14, updated = $15,
		version = version + 1
		WHERE id = $1 AND tenant = $2 AND version = $16`

	uniqueViolation = "23505"
	forbiddenRow    = "42501" // row-level security
)

// accountList reads accounts of tenant number n and the shared ones, or all with everyTenant.
func (s *Store) accountList(ctx context.Context, n scope, name string) (list []store.Account, err error) {
	var numbers []int64
	err = s.read(ctx, n, stmt{`SELECT ` + accountColumns + ` FROM accounts
		WHERE ($1 < 0 OR tenant IN (0, $1)) AND ($2 = '' OR name = $2) ORDER BY channel, priority, name, tenant DESC`,
		[]any{int64(n), name}, func(rows pgx.Rows) error {
			a, tenant, err := scanAccount(rows)
			list, numbers = append(list, a), append(numbers, tenant)
			return err
		}})
	if err == nil {
		err = s.slugs(ctx, numbers)
	}
	for i := range list {
		list[i].Tenant = s.slug(numbers[i])
	}
	return list, err
}

// accountScope is the scope in which a tenant sees its accounts; an unknown one sees the shared ones.
func (s *Store) accountScope(ctx context.Context, tenant delivery.TenantID) (scope, error) {
	n, err := s.ownerNumber(ctx, tenant)
	return scope(n), noneFor(err)
}

// Account returns one of the tenant's own accounts by name, else a shared one.
func (s *Store) Account(ctx context.Context, tenant delivery.TenantID, name string) (found store.Account, err error) {
	missing := fmt.Errorf("connector account %q: %w", name, store.ErrNotFound)
	if name == "" {
		return found, missing
	}
	n, err := s.accountScope(ctx, tenant)
	if err != nil {
		return found, err
	}
	list, err := s.accountList(ctx, n, name)
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
	n, err := s.accountScope(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return s.accountList(ctx, n, "")
}

// AllAccounts returns every account of every tenant.
func (s *Store) AllAccounts(ctx context.Context, sys store.System) ([]store.Account, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return s.accountList(ctx, everyTenant, "")
}

// DeleteAccount removes one of the tenant's own accounts. Messages keep naming it.
func (s *Store) DeleteAccount(ctx context.Context, slug delivery.TenantID, name string) error {
	owner, err := s.ownerNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(owner), need{}, func(t *tx) (none struct{}, err error) {
		var id delivery.AccountID
		found, err := t.one([]any{(*[16]byte)(&id)}, `DELETE FROM accounts WHERE tenant = $1 AND name = $2 RETURNING id`,
			owner, name)
		if err == nil && !found {
			err = fmt.Errorf("connector account %q: %w", name, store.ErrNotFound)
		}
		if err == nil {
			t.changed(store.AccountChange, owner, id.String())
		}
		return none, err
	})
	return err
}
