package api

import (
	"errors"
	"net/http"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// A tenant has at most maxRates limits, a name of maxTitle bytes and a weight of maxShare.
const (
	maxRates = 100
	maxTitle = 200
	maxShare = 100
)

func createTenant(c *call) error {
	var in sdk.TenantRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	var f faults
	if !tenantSlug(in.ID) {
		f.add("/id", "invalid_name", "a tenant's id has 1 to 40 of a-z, 0-9 and hyphen, with no hyphen at its ends")
	}
	t, err := c.tenantOf(in, &f)
	if err != nil {
		return err
	}
	t.ID, t.CreatedAt = delivery.TenantID(in.ID), c.a.Now()
	t.DataKey = c.a.Vault.NewDataKey(in.ID)
	if err := c.a.Store.CreateTenant(c.ctx(), system(), t); err != nil {
		if errors.Is(err, store.ErrExists) {
			return fail("already_exists", "the tenant %s exists", in.ID)
		}
		return err
	}
	if c.a.Operator != nil {
		c.a.Operator.TenantChanged(c.ctx(), t.ID)
	}
	return c.showTenant(http.StatusCreated, t)
}

func updateTenant(c *call) error {
	old, err := c.pathTenant()
	if err != nil {
		return err
	}
	var in sdk.TenantRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	var f faults
	if in.ID != "" && in.ID != string(old.ID) {
		f.add("/id", "invalid_value", "a tenant's id cannot be changed")
	}
	t, err := c.tenantOf(in, &f)
	if err != nil {
		return err
	}
	t, err = c.changeTenant(old.ID, func(now *store.Tenant) {
		// The rules of routing and retrying have routes of their own: they stay.
		t.ID, t.CreatedAt, t.DataKey, t.Routes, t.Retry = now.ID, now.CreatedAt, now.DataKey, now.Routes, now.Retry
		*now = t
	})
	if err != nil {
		return err
	}
	return c.showTenant(http.StatusOK, t)
}

// pathTenant reads the tenant in the path.
func (c *call) pathTenant() (store.Tenant, error) {
	t, err := store.Tenant{}, store.ErrNotFound
	if tenantSlug(c.vars[0]) {
		t, err = c.a.Store.Tenant(c.ctx(), system(), delivery.TenantID(c.vars[0]))
	}
	if errors.Is(err, store.ErrNotFound) {
		return t, fail("not_found", "there is no such tenant")
	}
	return t, err
}

// tenantOf checks a request. Its connectors need not exist yet.
func (c *call) tenantOf(in sdk.TenantRequest, f *faults) (store.Tenant, error) {
	t := store.Tenant{
		Name: in.Name, DailyQuota: in.DailyQuota, OnAmbiguous: in.OnAmbiguous, Region: in.Region, Weight: max(in.Weight, 1),
		AcceptRate: in.AcceptRate, RerouteInDoubt: in.RerouteInDoubt,
	}
	line("/name", in.Name, maxTitle, f)
	if in.DailyQuota < 0 {
		f.add("/daily_quota", "invalid_value", "daily_quota is 0 (no bound) or more")
	}
	if in.Weight < 0 || in.Weight > maxShare {
		f.add("/weight", "invalid_value", "weight is 1 (the default) to %d", maxShare)
	}
	if !(in.AcceptRate >= 0 && in.AcceptRate <= maxRate) {
		f.add("/accept_rate", "invalid_value", "accept_rate is 0 (no bound) to %g per second", maxRate)
	}
	switch in.OnAmbiguous {
	case "", "retry", "hold", "fail":
	default:
		f.add("/on_ambiguous", "invalid_value", "use retry, hold or fail")
	}
	if in.Region != "" {
		// Any number will do: only the region is of interest.
		var bad *recipient.Invalid
		if _, err := recipient.Phone("2025550100", in.Region); errors.As(err, &bad) && bad.Code == recipient.CodeRegion {
			f.add("/region", "invalid_region", "%s", bad.Rule)
		}
	}
	if len(in.Rates) > maxRates {
		f.add("/rates", "invalid_value", "a tenant has at most %d limits", maxRates)
		return t, f.problem()
	}
	for i, r := range in.Rates {
		at := "/rates/" + itoa(i)
		rate := store.TenantRate{Account: r.Connector, PerSecond: r.PerSecond, Burst: r.Burst}
		if r.Channel != "" {
			ch, err := delivery.ParseChannel(string(r.Channel))
			if err != nil {
				f.add(at+"/channel", "invalid_channel", "use sms, whatsapp, email or webhook, or leave it out for all")
			}
			rate.Channel = ch
		}
		if r.Connector != "" && !validName(r.Connector) {
			f.add(at+"/connector", "invalid_name", "this is no connector's name")
		}
		if !(r.PerSecond > 0 && r.PerSecond <= maxRate) {
			f.add(at+"/per_second", "invalid_value", "per_second is more than 0 and at most %g", maxRate)
		}
		if !(r.Burst >= 0 && r.Burst <= maxRate) {
			f.add(at+"/burst", "invalid_value", "burst is 0 to %g", maxRate)
		}
		t.Rates = append(t.Rates, rate)
	}
	return t, f.problem()
}

func getTenant(c *call) error {
	t, err := c.pathTenant()
	if err != nil {
		return err
	}
	return c.showTenant(http.StatusOK, t)
}

func listTenants(c *call) error {
	list, err := c.a.Store.TenantList(c.ctx(), system())
	if err != nil {
		return err
	}
	var failed error
	show := func(t store.Tenant) sdk.Tenant {
		out, err := c.tenantOut(t)
		if err != nil {
			failed = err
		}
		return out
	}
	if err := page(c, list, func(t store.Tenant) string { return string(t.ID) }, show); err != nil {
		return err
	}
	if failed != nil {
		c.a.Log.Warn("a tenant's usage cannot be read", "err", failed)
	}
	return nil
}

func (c *call) showTenant(status int, t store.Tenant) error {
	out, err := c.tenantOut(t)
	if err != nil {
		return err
	}
	return c.json(status, out)
}

func (c *call) tenantOut(t store.Tenant) (sdk.Tenant, error) {
	used, err := c.a.Store.Usage(c.ctx(), t.ID, c.a.Now())
	out := sdk.Tenant{
		ID: string(t.ID), Name: t.Name, DailyQuota: t.DailyQuota, UsedToday: used, OnAmbiguous: t.OnAmbiguous,
		Region: t.Region, Weight: max(t.Weight, 1), AcceptRate: t.AcceptRate, RerouteInDoubt: t.RerouteInDoubt,
		CreatedAt: when(t.CreatedAt),
	}
	if out.OnAmbiguous == "" {
		out.OnAmbiguous = "retry"
	}
	for _, r := range t.Rates {
		out.Rates = append(out.Rates, sdk.Rate{Channel: channel(r.Channel), Connector: r.Account, PerSecond: r.PerSecond,
			Burst: r.Burst})
	}
	return out, err
}
