package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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

// tenantJSON is what of a tenant is kept as JSON.
func tenantJSON(t *store.Tenant) (rates, rest string, err error) {
	if rates, err = asJSON(t.Rates); err == nil {
		rest, err = asJSON(policy{t.Weight, t.AcceptRate, t.Retry, t.Routes, t.RerouteInDoubt})
	}
	return rates, rest, err
}

func scanTenant(rows pgx.Rows) (t store.Tenant, err error) {
	var rates, rest string
	var p policy
	err = rows.Scan((*string)(&t.ID), &t.Name, &t.DailyQuota, &rates, &t.OnAmbiguous, &t.DataKey, &t.Region,
		at{&t.CreatedAt}, &rest, &t.Version)
	if err == nil {
		err = errors.Join(fromJSON(rates, &t.Rates), fromJSON(rest, &p))
	}
	t.Weight, t.AcceptRate, t.Retry, t.Routes, t.RerouteInDoubt = p.Weight, p.AcceptRate, p.Retry, p.Routes,
		p.RerouteInDoubt
	return t, err
}

// at scans Unix milliseconds into a time.
type at struct{ t *time.Time }

// ScanInt64 is called by the driver.
func (a at) ScanInt64(v pgtype.Int8) error {
	*a.t = store.FromMillis(v.Int64)
	return nil
}

// asJSON encodes values that always encode: maps, slices and structs of plain fields.
func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// fromJSON decodes what the store wrote; "" leaves v as it is.
func fromJSON(text string, v any) error {
	if text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), v)
}

// CreateTenant stores a tenant.
func (s *Store) CreateTenant(ctx context.Context, sys store.System, tn store.Tenant) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	if tn.ID == delivery.Shared {
		return errors.New("tenant: no id")
	}
	rates, rest, err := tenantJSON(&tn)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, everyTenant, need{}, func(t *tx) (none struct{}, err error) {
		var n int64
		found, err := t.one([]any{&n}, `INSERT INTO tenants (`+tenantWritten+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (slug) DO NOTHING RETURNING n`, string(tn.ID), tn.Name, tn.DailyQuota, rates, tn.OnAmbiguous,
			tn.DataKey, tn.Region, store.Millis(tn.CreatedAt), rest)
		if err == nil && !found {
			err = fmt.Errorf("tenant %q: %w", tn.ID, store.ErrExists)
		}
		if err != nil {
			return none, err
		}
		t.later(`INSERT INTO ledger_heads (tenant) VALUES ($1)`, n)
		t.changed(store.TenantChange, n, "")
		return none, nil
	})
	return err
}

// UpdateTenant replaces everything but ID, CreatedAt and DataKey. A new quota holds from the next acceptance on.
// ErrConflict when the row has another version than tn says.
func (s *Store) UpdateTenant(ctx context.Context, sys store.System, tn store.Tenant) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	rates, rest, err := tenantJSON(&tn)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, everyTenant, need{}, func(t *tx) (none struct{}, err error) {
		var n, version int64
		found, err := t.one([]any{&n, &version}, `SELECT n, version FROM tenants WHERE slug = $1 FOR UPDATE`, string(tn.ID))
		switch {
		case err != nil:
		case !found:
			err = fmt.Errorf("tenant %q: %w", tn.ID, store.ErrNotFound)
		case tn.Version != 0 && tn.Version != version:
			err = fmt.Errorf("tenant %q has version %d, not %d: %w", tn.ID, version, tn.Version, store.ErrConflict)
		default:
			t.later(`UPDATE tenants SET name = $2, daily_quota = $3, rates = $4, on_ambiguous = $5, region = $6, policy = $7,
				version = version + 1 WHERE n = $1`, n, tn.Name, tn.DailyQuota, rates, tn.OnAmbiguous, tn.Region, rest)
		}
		if err == nil {
			t.changed(store.TenantChange, n, "")
		}
		return none, err
	})
	return err
}

// Tenant returns one.
func (s *Store) Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (t store.Tenant, err error) {
	if err := checkSystem(sys); err != nil {
		return t, err
	}
	found := false
	err = s.read(ctx, everyTenant, stmt{`SELECT ` + tenantColumns + ` FROM tenants WHERE slug = $1`, []any{string(id)},
		func(rows pgx.Rows) (err error) {
			found = true
			t, err = scanTenant(rows)
			return err
		}})
	if err == nil && !found {
		err = fmt.Errorf("tenant %q: %w", id, store.ErrNotFound)
	}
	return t, err
}

// TenantList returns all, by id.
func (s *Store) TenantList(ctx context.Context, sys store.System) (list []store.Tenant, err error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	err = s.read(ctx, everyTenant, stmt{`SELECT ` + tenantColumns + ` FROM tenants ORDER BY slug`, nil,
		func(rows pgx.Rows) error {
			t, err := scanTenant(rows)
			list = append(list, t)
			return err
		}})
	return list, err
}
