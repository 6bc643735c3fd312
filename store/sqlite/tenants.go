package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	tenantWritten = `slug, name, daily_quota, rates, on_ambiguous, data_key, region, created, policy`
	tenantColumns = tenantWritten + `, version`
)

// policy is the part of a tenant that the store only keeps.
type policy struct {
	Weight         int                  `json:"weight,omitempty"`
	AcceptRate     float64              `json:"accept_rate,omitempty"`
	Retry          []delivery.RetryRule `json:"retry,omitempty"`
	Routes         []delivery.RouteRule `json:"routes,omitempty"`
	RerouteInDoubt bool                 `json:"reroute_in_doubt,omitempty"`
}

func policyOf(t *store.Tenant) (string, error) {
	return asJSON(policy{t.Weight, t.AcceptRate, t.Retry, t.Routes, t.RerouteInDoubt})
}

func scanTenant(s *sqlite.Stmt) (t store.Tenant, err error) {
	r := scan(s)
	t.ID, t.Name, t.DailyQuota = delivery.TenantID(r.text()), r.text(), r.int64()
	r.json(&t.Rates)
	t.OnAmbiguous, t.DataKey, t.Region, t.CreatedAt = r.text(), r.bytes(), r.text(), r.time()
	var p policy
	r.json(&p)
	t.Version = r.int64()
	t.Weight, t.AcceptRate, t.Retry, t.Routes, t.RerouteInDoubt = p.Weight, p.AcceptRate, p.Retry, p.Routes,
		p.RerouteInDoubt
	return t, r.err
}

// CreateTenant stores a tenant.
func (s *Store) CreateTenant(ctx context.Context, sys store.System, tn store.Tenant) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	if tn.ID == delivery.Shared {
		return errors.New("tenant: no id")
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		if _, err := t.tenant(tn.ID); !errors.Is(err, store.ErrNotFound) {
			if err == nil {
				err = fmt.Errorf("tenant %q: %w", tn.ID, store.ErrExists)
			}
			return none, err
		}
		rates, err := asJSON(tn.Rates)
		if err != nil {
			return none, err
		}
		policy, err := policyOf(&tn)
		if err != nil {
			return none, err
		}
		return none, t.exec(`INSERT INTO tenants (`+tenantWritten+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, string(tn.ID),
			tn.Name, tn.DailyQuota, rates, tn.OnAmbiguous, tn.DataKey, tn.Region, tn.CreatedAt, policy)
	})
	return err
}

// UpdateTenant replaces everything but ID, CreatedAt and DataKey. A new quota holds from the next acceptance on.
// ErrConflict when the row has another version than tn says.
func (s *Store) UpdateTenant(ctx context.Context, sys store.System, tn store.Tenant) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		is, err := t.tenant(tn.ID)
		if err != nil {
			return none, err
		}
		rates, err := asJSON(tn.Rates)
		if err != nil {
			return none, err
		}
		policy, err := policyOf(&tn)
		if err != nil {
			return none, err
		}
		var version int64
		if _, err := one(t.conn, `SELECT version FROM tenants WHERE n = ?`, func(s *sqlite.Stmt) error {
			version = s.ColumnInt64(0)
			return nil
		}, is.n); err != nil {
			return none, err
		}
		if tn.Version != 0 && tn.Version != version {
			return none, fmt.Errorf("tenant %q has version %d, not %d: %w", tn.ID, version, tn.Version, store.ErrConflict)
		}
		is.quota = tn.DailyQuota
		return none, t.exec(`UPDATE tenants SET name = ?, daily_quota = ?, rates = ?, on_ambiguous = ?, region = ?, policy = ?,
			version = ? WHERE n = ?`, tn.Name, tn.DailyQuota, rates, tn.OnAmbiguous, tn.Region, policy, version+1, is.n)
	})
	return err
}

// Tenant returns one.
func (s *Store) Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error) {
	if err := checkSystem(sys); err != nil {
		return store.Tenant{}, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (t store.Tenant, err error) {
		found, err := one(c, `SELECT `+tenantColumns+` FROM tenants WHERE slug = ?`,
			func(s *sqlite.Stmt) (err error) { t, err = scanTenant(s); return err }, string(id))
		if err == nil && !found {
			err = fmt.Errorf("tenant %q: %w", id, store.ErrNotFound)
		}
		return t, err
	})
}

// TenantList returns all, by id.
func (s *Store) TenantList(ctx context.Context, sys store.System) ([]store.Tenant, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Tenant, err error) {
		err = query(c, `SELECT `+tenantColumns+` FROM tenants ORDER BY slug`, func(s *sqlite.Stmt) error {
			t, err := scanTenant(s)
			list = append(list, t)
			return err
		})
		return list, err
	})
}

const keyColumns = `id, tenant, name, mode, admin, hash, hint, created, revoked`

func scanKey(s *sqlite.Stmt, slugs map[int64]delivery.TenantID) (k store.Key) {
	r := scan(s)
	k.ID, k.Tenant, k.Name, k.Mode, k.Admin = r.id(), slugs[r.int64()], r.text(), r.text(), r.bool()
	copy(k.Hash[:], r.bytes())
	k.Hint, k.CreatedAt, k.RevokedAt = r.text(), r.time(), r.time()
	return k
}

// PutKey stores a key. ErrExists when its id or its hash is taken.
func (s *Store) PutKey(ctx context.Context, sys store.System, k store.Key) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		owner, err := t.owner(k.Tenant)
		if err != nil {
			return none, err
		}
		taken, err := one(t.conn, `SELECT 1 FROM api_keys WHERE id = ? OR hash = ? LIMIT 1`,
			func(*sqlite.Stmt) error { return nil }, k.ID[:], k.Hash[:])
		if err != nil {
			return none, err
		}
		if taken {
			return none, fmt.Errorf("key %s: %w", k.ID, store.ErrExists)
		}
		return none, t.exec(`INSERT INTO api_keys (`+keyColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			k.ID[:], owner, k.Name, k.Mode, k.Admin, k.Hash[:], k.Hint, k.CreatedAt, k.RevokedAt)
	})
	return err
}

// KeyByHash finds a key, revoked or not.
func (s *Store) KeyByHash(ctx context.Context, sys store.System, hash [32]byte) (store.Key, error) {
	if err := checkSystem(sys); err != nil {
		return store.Key{}, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (k store.Key, err error) {
		var slug string
		found, err := one(c, `SELECT `+keyColumns+`, coalesce((SELECT slug FROM tenants t WHERE t.n = k.tenant), '')
			FROM api_keys k WHERE hash = ?`, func(s *sqlite.Stmt) error {
			k, slug = scanKey(s, nil), s.ColumnText(9)
			return nil
		}, hash[:])
		k.Tenant = delivery.TenantID(slug)
		if err == nil && !found {
			err = fmt.Errorf("key: %w", store.ErrNotFound)
		}
		return k, err
	})
}

// KeyList returns a tenant's keys, newest first.
func (s *Store) KeyList(ctx context.Context, sys store.System, tenant delivery.TenantID) ([]store.Key, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Key, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || (n == 0 && tenant != delivery.Shared) {
			return nil, err
		}
		err = query(c, `SELECT `+keyColumns+` FROM api_keys WHERE tenant = ? ORDER BY id DESC`, func(s *sqlite.Stmt) error {
			list = append(list, scanKey(s, map[int64]delivery.TenantID{n: tenant}))
			return nil
		}, n)
		return list, err
	})
}

// RevokeKey ends a key of the tenant. The time of the first revocation stays.
func (s *Store) RevokeKey(
	ctx context.Context, sys store.System, tenant delivery.TenantID, id delivery.KeyID, now time.Time,
) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		owner, err := t.owner(tenant)
		if err != nil {
			return none, err
		}
		found, err := one(t.conn, `SELECT 1 FROM api_keys WHERE id = ? AND tenant = ?`,
			func(*sqlite.Stmt) error { return nil }, id[:], owner)
		if err != nil {
			return none, err
		}
		if !found {
			return none, fmt.Errorf("key %s: %w", id, store.ErrNotFound)
		}
		return none, t.exec(`UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked = 0`, now, id[:])
	})
	return err
}
