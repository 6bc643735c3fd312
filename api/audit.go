package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// allTenants is what an audit of everybody is called.
const allTenants = "*"

// audit recounts a tenant's books; for an operator who names no tenant, those of all.
func audit(c *call) error {
	t := c.tenant
	if named := c.param("tenant"); named != "" {
		switch {
		case !c.id.admin && named != string(t), !tenantSlug(named):
			return fail("not_found", "there is no such tenant")
		case c.id.admin:
			if _, err := c.a.Store.Tenant(c.ctx(), system(), delivery.TenantID(named)); err != nil {
				if errors.Is(err, store.ErrNotFound) {
					return fail("not_found", "there is no such tenant")
				}
				return err
			}
			t = delivery.TenantID(named)
		}
	}
	select {
	case c.a.recount <- struct{}{}:
		defer func() { <-c.a.recount }()
	case <-c.ctx().Done():
		return c.ctx().Err()
	}
	c.extend(10 * time.Minute)
	if !shared(t) {
		r, err := c.a.Store.Audit(c.ctx(), t)
		if err != nil {
			return err
		}
		return c.json(http.StatusOK, showAudit(r, ""))
	}
	list, err := c.a.Store.TenantList(c.ctx(), system())
	if err != nil {
		return err
	}
	sum := sdk.Audit{Tenant: allTenants, OK: true}
	for _, one := range list {
		r, err := c.a.Store.Audit(c.ctx(), one.ID)
		if err != nil {
			return err
		}
		a := showAudit(r, string(one.ID)+" ")
		sum.OK = sum.OK && a.OK
		sum.Accepted += a.Accepted
		sum.Live += a.Live
		sum.HandedOn += a.HandedOn
		sum.Ended += a.Ended
		sum.Facts += a.Facts
		sum.Problems = append(sum.Problems, a.Problems...)
	}
	return c.json(http.StatusOK, sum)
}

func showAudit(r store.AuditReport, prefix string) sdk.Audit {
	a := sdk.Audit{
		Tenant: string(r.Tenant), Accepted: r.Accepted, Live: r.Live, HandedOn: r.HandedOn, Ended: r.Ended, Facts: r.Facts,
		OK: len(r.Problems) == 0 && r.Accepted == r.Live+r.HandedOn+r.Ended,
	}
	for _, p := range r.Problems {
		a.Problems = append(a.Problems, sdk.AuditProblem{What: p.What, Subject: prefix + p.Subject, Detail: p.Detail})
	}
	return a
}
