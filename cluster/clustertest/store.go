package clustertest

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The calls of a store that matter to a cluster: those that change what others remember, and those that stop when the
// store is away.

// CreateTenant implements store.Tenants.
func (v *View) CreateTenant(ctx context.Context, sys store.System, t store.Tenant) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.CreateTenant(ctx, sys, t), store.TenantChange, t.ID, "")
}

// UpdateTenant implements store.Tenants.
func (v *View) UpdateTenant(ctx context.Context, sys store.System, t store.Tenant) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.UpdateTenant(ctx, sys, t), store.TenantChange, t.ID, "")
}

// Tenant implements store.Tenants.
func (v *View) Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error) {
	if err := v.there(); err != nil {
		return store.Tenant{}, err
	}
	return v.Store.Tenant(ctx, sys, id)
}

// PutAccount implements store.Accounts.
func (v *View) PutAccount(ctx context.Context, tenant delivery.TenantID, a store.Account) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.PutAccount(ctx, tenant, a), store.AccountChange, tenant, a.ID.String())
}

// DeleteAccount implements store.Accounts.
func (v *View) DeleteAccount(ctx context.Context, tenant delivery.TenantID, name string) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.DeleteAccount(ctx, tenant, name), store.AccountChange, tenant, "")
}

// AllAccounts implements store.Accounts.
func (v *View) AllAccounts(ctx context.Context, sys store.System) ([]store.Account, error) {
	if err := v.there(); err != nil {
		return nil, err
	}
	return v.Store.AllAccounts(ctx, sys)
}

// RevokeKey implements store.Keys.
func (v *View) RevokeKey(
	ctx context.Context, sys store.System, tenant delivery.TenantID, id delivery.KeyID, now time.Time,
) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.RevokeKey(ctx, sys, tenant, id, now), store.KeyChange, tenant, id.String())
}

// Suppress implements store.Suppressions.
func (v *View) Suppress(ctx context.Context, tenant delivery.TenantID, entries []store.Suppression) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.note(v.Store.Suppress(ctx, tenant, entries), store.SuppressChange, tenant, "")
}

// MoveCampaign implements store.Campaigns.
func (v *View) MoveCampaign(
	ctx context.Context, tenant delivery.TenantID, c store.Campaign, from []store.CampaignState, to store.CampaignState,
	now time.Time,
) (store.Campaign, error) {
	if err := v.there(); err != nil {
		return store.Campaign{}, err
	}
	moved, err := v.Store.MoveCampaign(ctx, tenant, c, from, to, now)
	return moved, v.note(err, store.CampaignChange, tenant, c.ID.String())
}

// Expand implements store.Campaigns.
func (v *View) Expand(
	ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID, s store.Slice,
) (store.Accepted, error) {
	if err := v.there(); err != nil {
		return store.Accepted{}, err
	}
	return v.Store.Expand(ctx, tenant, id, s)
}

// Accept implements store.Accepter.
func (v *View) Accept(ctx context.Context, tenant delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	if err := v.there(); err != nil {
		return store.Accepted{}, err
	}
	return v.Store.Accept(ctx, tenant, a)
}

// DueQueues implements store.Work.
func (v *View) DueQueues(ctx context.Context, sys store.System, now time.Time) ([]store.DueQueue, error) {
	if err := v.there(); err != nil {
		return nil, err
	}
	return v.Store.DueQueues(ctx, sys, now)
}

// Due implements store.Work.
func (v *View) Due(
	ctx context.Context, sys store.System, q delivery.Queue, now time.Time, after store.DueMark, limit int,
) ([]delivery.MessageID, store.DueMark, error) {
	if err := v.there(); err != nil {
		return nil, store.DueMark{}, err
	}
	return v.Store.Due(ctx, sys, q, now, after, limit)
}

// Claim implements store.Work.
func (v *View) Claim(ctx context.Context, sys store.System, c store.Claim) ([]store.Claimed, error) {
	if err := v.there(); err != nil {
		return nil, err
	}
	return v.Store.Claim(ctx, sys, c)
}

// Settle implements store.Work.
func (v *View) Settle(
	ctx context.Context, sys store.System, now time.Time, outcomes []store.Outcome,
) ([]store.Settled, error) {
	if err := v.there(); err != nil {
		return nil, err
	}
	return v.Store.Settle(ctx, sys, now, outcomes)
}

// Overdue implements store.Work.
func (v *View) Overdue(
	ctx context.Context, sys store.System, now time.Time, node string, limit int,
) ([]store.Overdue, error) {
	if err := v.there(); err != nil {
		return nil, err
	}
	return v.Store.Overdue(ctx, sys, now, node, limit)
}

// Check implements store.Store.
func (v *View) Check(ctx context.Context) error {
	if err := v.there(); err != nil {
		return err
	}
	return v.Store.Check(ctx)
}
