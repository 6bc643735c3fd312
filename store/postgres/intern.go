package postgres

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// interned remembers names and their numbers. Neither ever changes or goes, so nothing is ever forgotten; a number is
// remembered only once it is committed.
type interned[K comparable] struct {
	mu      sync.RWMutex
	numbers map[K]int64
	names   map[int64]K
}

func (i *interned[K]) number(k K) (int64, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	n, ok := i.numbers[k]
	return n, ok
}

func (i *interned[K]) name(n int64) (K, bool) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	k, ok := i.names[n]
	return k, ok
}

func (i *interned[K]) keep(k K, n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.numbers == nil {
		i.numbers, i.names = map[K]int64{}, map[int64]K{}
	}
	i.numbers[k], i.names[n] = n, k
}

// tenantNumber is a tenant's number, or ErrNotFound.
func (s *Store) tenantNumber(ctx context.Context, slug delivery.TenantID) (int64, error) {
	if n, ok := s.tenants.number(string(slug)); ok {
		return n, nil
	}
	var n int64
	err := s.read(ctx, everyTenant, stmt{`SELECT n FROM tenants WHERE slug = $1`, []any{string(slug)}, into(&n)})
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("tenant %s: %w", slug, store.ErrNotFound)
	}
	s.tenants.keep(string(slug), n)
	return n, nil
}

// ownerNumber is the number of a tenant, or 0 for delivery.Shared.
func (s *Store) ownerNumber(ctx context.Context, slug delivery.TenantID) (int64, error) {
	if slug == delivery.Shared {
		return 0, nil
	}
	return s.tenantNumber(ctx, slug)
}

// slugs makes sure that the slugs of these tenants are known to slug. 0 is delivery.Shared.
func (s *Store) slugs(ctx context.Context, numbers []int64) error {
	var missing []int64
	for _, n := range numbers {
		if _, ok := s.tenants.name(n); !ok && n != 0 {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.read(ctx, everyTenant, stmt{`SELECT slug, n FROM tenants WHERE n = ANY ($1)`, []any{missing}, s.keepTenant})
}

func (s *Store) keepTenant(rows pgx.Rows) error {
	var slug string
	var n int64
	err := rows.Scan(&slug, &n)
	if err == nil {
		s.tenants.keep(slug, n)
	}
	return err
}

// slug is the inverse of tenantNumber for a tenant that has been seen before; "" for any other and for 0.
func (s *Store) slug(n int64) delivery.TenantID {
	slug, _ := s.tenants.name(n)
	return delivery.TenantID(slug)
}

// intern gives accounts their numbers, outside of any transaction: a number that nobody uses does no harm. The zero id
// is 0. Afterwards accountNumber knows them.
func (s *Store) intern(ctx context.Context, ids ...delivery.AccountID) error {
	var missing [][16]byte
	seen := map[delivery.AccountID]bool{}
	for _, id := range ids {
		if _, ok := s.accounts.number(id); !ok && id != (delivery.AccountID{}) && !seen[id] {
			seen[id] = true
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	find := stmt{`SELECT id, n FROM account_ids WHERE id = ANY ($1)`, []any{missing}, s.keepAccount}
	if err := s.read(ctx, everyTenant, find); err != nil {
		return err
	}
	left := missing[:0]
	for _, id := range missing {
		if _, ok := s.accounts.number(id); !ok {
			left = append(left, id)
		}
	}
	if len(left) == 0 {
		return nil
	}
	_, err := write(ctx, s, everyTenant, need{}, func(t *tx) (none struct{}, err error) {
		t.later(`INSERT INTO account_ids (id) SELECT id FROM unnest($1::uuid[]) AS u (id) ORDER BY id
			ON CONFLICT DO NOTHING`, left)
		return none, nil
	})
	if err != nil {
		return err
	}
	find.args = []any{left}
	return s.read(ctx, everyTenant, find)
}

func (s *Store) keepAccount(rows pgx.Rows) error {
	var id [16]byte
	var n int64
	err := rows.Scan(&id, &n)
	if err == nil {
		s.accounts.keep(id, n)
	}
	return err
}

// accountNumber is the number of an account that intern has been asked for; the zero id is 0.
func (s *Store) accountNumber(id delivery.AccountID) (int64, error) {
	if id == (delivery.AccountID{}) {
		return 0, nil
	}
	if n, ok := s.accounts.number(id); ok {
		return n, nil
	}
	return 0, fmt.Errorf("account %s has no number", id)
}

// accountIDs makes sure that the ids of these accounts are known to accountID.
func (s *Store) accountIDs(ctx context.Context, numbers []int64) error {
	var missing []int64
	for _, n := range numbers {
		if _, ok := s.accounts.name(n); !ok && n != 0 {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.read(ctx, everyTenant,
		stmt{`SELECT id, n FROM account_ids WHERE n = ANY ($1)`, []any{missing}, s.keepAccount})
}

// accountID is the inverse of accountNumber for an account that has been seen before; the zero id for any other.
func (s *Store) accountID(n int64) delivery.AccountID {
	id, _ := s.accounts.name(n)
	return id
}
