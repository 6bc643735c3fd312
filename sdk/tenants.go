package sdk

import (
	"context"
	"net/http"
)

// Tenants is for operators.
type Tenants struct{ c *Client }

// Create makes a tenant. ErrConflict when the id is taken.
func (s Tenants) Create(ctx context.Context, r TenantRequest) (*Tenant, error) {
	return send[Tenant](ctx, s.c, http.MethodPost, nil, r, "tenants")
}

// Set replaces a tenant's settings.
func (s Tenants) Set(ctx context.Context, id string, r TenantRequest) (*Tenant, error) {
	return send[Tenant](ctx, s.c, http.MethodPut, nil, r, "tenants", id)
}

// List returns all, by id.
func (s Tenants) List(ctx context.Context) ([]Tenant, error) {
	return listAll[Tenant](ctx, s.c, "tenants")
}

// Get returns one.
func (s Tenants) Get(ctx context.Context, id string) (*Tenant, error) {
	return send[Tenant](ctx, s.c, http.MethodGet, nil, nil, "tenants", id)
}

// Keys holds API keys.
type Keys struct{ c *Client }

// Create makes a key. Its Secret is in this answer and nowhere else.
func (s Keys) Create(ctx context.Context, r KeyRequest) (*Key, error) {
	return send[Key](ctx, s.c, http.MethodPost, nil, r, "keys")
}

// List returns all, newest first, without their secrets.
func (s Keys) List(ctx context.Context) ([]Key, error) { return listAll[Key](ctx, s.c, "keys") }

// Revoke ends a key. Again is no error.
func (s Keys) Revoke(ctx context.Context, id string) error { return s.c.delete(ctx, nil, "keys", id) }
