package api

import (
	"errors"
	"net/http"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// createKey makes a key and shows it, once.
func createKey(c *call) error {
	var in sdk.KeyRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	var f faults
	line("/name", in.Name, maxTitle, &f)
	mode := apikey.Test
	switch in.Mode {
	case "", "test":
	case "live":
		mode = apikey.Live
	default:
		f.add("/mode", "invalid_value", "use live or test")
	}
	if err := f.problem(); err != nil {
		return err
	}
	owner, err := c.keyOwner(in)
	if err != nil {
		return err
	}
	if mode == apikey.Live && c.id.mode != string(apikey.Live) {
		return failAt("/mode", "forbidden", "a test key makes test keys only")
	}
	key := apikey.New(mode)
	row := store.Key{
		ID: c.a.IDs.Key(), Tenant: owner, Name: in.Name, Mode: string(mode), Admin: in.Admin,
		Hash: apikey.Hash(c.a.Vault.Pepper(), key), Hint: key.Hint(), CreatedAt: c.a.Now(),
	}
	if err := c.a.Store.PutKey(c.ctx(), system(), row); err != nil {
		return err
	}
	out := showKey(row)
	out.Secret = key.Reveal()
	return c.json(http.StatusCreated, out)
}

// keyOwner returns whose key is made. A tenant's key makes keys of its own tenant, an operator's key those of the
// tenant that it names, or an operator's when it asks for one.
func (c *call) keyOwner(in sdk.KeyRequest) (delivery.TenantID, error) {
	if !c.id.admin {
		switch {
		case in.Admin:
			return "", failAt("/admin", "forbidden", "only an operator makes operators' keys")
		case in.Tenant != "" && in.Tenant != string(c.tenant):
			return "", fail("not_found", "there is no such tenant")
		}
		return c.tenant, nil
	}
	if in.Admin {
		if in.Tenant != "" || !shared(c.tenant) {
			return "", failAt("/admin", "invalid_value", "an operator's key belongs to no tenant: name none")
		}
		return delivery.Shared, nil
	}
	owner := c.tenant
	if in.Tenant != "" {
		if !shared(owner) && in.Tenant != string(owner) {
			return "", failAt("/tenant", "invalid_value", "the body and the %s header name two tenants", TenantHeader)
		}
		owner = delivery.TenantID(in.Tenant)
		if !tenantSlug(in.Tenant) {
			return "", fail("not_found", "there is no such tenant")
		}
	}
	if shared(owner) {
		return "", failAt("/tenant", "tenant_required", "name the tenant, or set admin for an operator's key")
	}
	if _, err := c.a.Store.Tenant(c.ctx(), system(), owner); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return "", fail("not_found", "there is no such tenant")
		}
		return "", err
	}
	return owner, nil
}

func listKeys(c *call) error {
	list, err := c.a.Store.KeyList(c.ctx(), system(), c.tenant)
	if err != nil {
		return err
	}
	return page(c, list, func(k store.Key) string { return k.ID.String() }, showKey)
}

// revokeKey ends a key. An operator who names no tenant may name the key of any.
func revokeKey(c *call) error {
	id, err := delivery.ParseKeyID(c.vars[0])
	if err != nil {
		return noKey()
	}
	owners := []delivery.TenantID{c.tenant}
	if shared(c.tenant) {
		all, err := c.a.Store.TenantList(c.ctx(), system())
		if err != nil {
			return err
		}
		for _, t := range all {
			owners = append(owners, t.ID)
		}
	}
	for _, owner := range owners {
		err := c.a.Store.RevokeKey(c.ctx(), system(), owner, id, c.a.Now())
		if err == nil {
			c.a.keys.forget(id)
			if o, ok := c.a.Operator.(KeyOperator); ok {
				o.KeyRevoked(c.ctx())
			}
			return c.empty()
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return noKey()
}

func noKey() error { return fail("not_found", "there is no such key") }

func showKey(k store.Key) sdk.Key {
	return sdk.Key{
		ID: k.ID.String(), Name: k.Name, Tenant: string(k.Tenant), Mode: k.Mode, Admin: k.Admin, Hint: k.Hint,
		CreatedAt: when(k.CreatedAt), RevokedAt: when(k.RevokedAt),
	}
}

func whoami(c *call) error {
	return c.json(http.StatusOK, sdk.Identity{
		Tenant: string(c.tenant), Mode: c.id.mode, Admin: c.id.admin, Key: c.id.key.String(),
	})
}
