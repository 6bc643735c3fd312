package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const keyColumns = `k.id, k.name, k.mode, k.admin, k.hash, k.hint, k.created, k.revoked`

func scanKey(rows pgx.Rows, more ...any) (k store.Key, err error) {
	var hash []byte
	err = rows.Scan(append([]any{(*[16]byte)(&k.ID), &k.Name, &k.Mode, &k.Admin, &hash, &k.Hint, at{&k.CreatedAt},
		at{&k.RevokedAt}}, more...)...)
	copy(k.Hash[:], hash)
	return k, err
}

// PutKey stores a key. ErrExists when its id or its hash is taken. No other node can know of it yet: it is no change.
func (s *Store) PutKey(ctx context.Context, sys store.System, k store.Key) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	owner, err := s.ownerNumber(ctx, k.Tenant)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, everyTenant, need{}, func(t *tx) (none struct{}, err error) {
		n, err := t.exec(`INSERT INTO api_keys (id, tenant, name, mode, admin, hash, hint, created, revoked)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`, [16]byte(k.ID), owner, k.Name, k.Mode,
			k.Admin, k.Hash[:], k.Hint, store.Millis(k.CreatedAt), store.Millis(k.RevokedAt))
		if err == nil && n == 0 {
			err = fmt.Errorf("key %s: %w", k.ID, store.ErrExists)
		}
		return none, err
	})
	return err
}

// KeyByHash finds a key, revoked or not.
func (s *Store) KeyByHash(ctx context.Context, sys store.System, hash [32]byte) (k store.Key, err error) {
	if err := checkSystem(sys); err != nil {
		return k, err
	}
	found := false
	err = s.read(ctx, everyTenant, stmt{`SELECT ` + keyColumns + `, coalesce(t.slug, '') FROM api_keys k
		LEFT JOIN tenants t ON t.n = k.tenant WHERE k.hash = $1`, []any{hash[:]}, func(rows pgx.Rows) (err error) {
		found = true
		var slug string
		k, err = scanKey(rows, &slug)
		k.Tenant = delivery.TenantID(slug)
		return err
	}})
	if err == nil && !found {
		err = fmt.Errorf("key: %w", store.ErrNotFound)
	}
	return k, err
}

// KeyList returns a tenant's keys, newest first.
func (s *Store) KeyList(
	ctx context.Context, sys store.System, tenant delivery.TenantID,
) (list []store.Key, err error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	owner, err := s.ownerNumber(ctx, tenant)
	if err != nil {
		return nil, noneFor(err)
	}
	err = s.read(ctx, scope(owner), stmt{`SELECT ` + keyColumns + ` FROM api_keys k WHERE tenant = $1 ORDER BY id DESC`,
		[]any{owner}, func(rows pgx.Rows) error {
			k, err := scanKey(rows)
			k.Tenant = tenant
			list = append(list, k)
			return err
		}})
	return list, err
}

// noneFor makes an unknown tenant one that has nothing.
func noneFor(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// RevokeKey ends a key of the tenant. The time of the first revocation stays.
func (s *Store) RevokeKey(
	ctx context.Context, sys store.System, tenant delivery.TenantID, id delivery.KeyID, now time.Time,
) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	owner, err := s.ownerNumber(ctx, tenant)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(owner), need{}, func(t *tx) (none struct{}, err error) {
		var revoked int64
		found, err := t.one([]any{&revoked}, `SELECT revoked FROM api_keys WHERE id = $1 AND tenant = $2 FOR UPDATE`,
			[16]byte(id), owner)
		if err == nil && !found {
			err = fmt.Errorf("key %s: %w", id, store.ErrNotFound)
		}
		if err != nil || revoked != 0 {
			return none, err
		}
		t.later(`UPDATE api_keys SET revoked = $2 WHERE id = $1`, [16]byte(id), store.Millis(now))
		t.changed(store.KeyChange, owner, id.String())
		return none, nil
	})
	return err
}
