package pipeline

import (
	"sync"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// tenantView is what the path needs to know of a tenant.
type tenantView struct {
	rates       []store.TenantRate
	onAmbiguous string
}

// tenantCache keeps tenants' limits and policies until they change.
type tenantCache struct {
	load  func(delivery.TenantID) (tenantView, bool)
	views sync.Map // delivery.TenantID → tenantView
}

func (c *tenantCache) get(id delivery.TenantID) tenantView {
	if v, ok := c.views.Load(id); ok {
		return v.(tenantView)
	}
	v, ok := c.load(id)
	if ok {
		c.views.Store(id, v)
	}
	return v
}

func (c *tenantCache) forget(id delivery.TenantID) { c.views.Delete(id) }

func (p *Pipeline) loadTenant(id delivery.TenantID) (tenantView, bool) {
	t, err := p.store.Tenant(p.ctx, system, id)
	if err != nil {
		if p.ctx.Err() == nil {
			p.log.Warn("a tenant cannot be read; it goes without its own limits for now", "tenant", string(id), "err", err)
		}
		return tenantView{}, false
	}
	return tenantView{rates: t.Rates, onAmbiguous: t.OnAmbiguous}, true
}

// campaignCache keeps the rate of campaigns that have messages under way, and which of them are paused.
type campaignCache struct {
	load    func(delivery.TenantID, delivery.CampaignID) (perSecond float64, ok bool)
	rates   sync.Map // delivery.CampaignID → float64
	resting sync.Map // delivery.CampaignID of a paused or stopped campaign
}

func (c *campaignCache) rate(t delivery.TenantID, id delivery.CampaignID) float64 {
	if id.IsZero() {
		return 0
	}
	if v, ok := c.rates.Load(id); ok {
		return v.(float64)
	}
	v, ok := c.load(t, id)
	if ok {
		c.rates.Store(id, v)
	}
	return v
}

func (c *campaignCache) paused(id delivery.CampaignID) bool {
	if id.IsZero() {
		return false
	}
	_, paused := c.resting.Load(id)
	return paused
}

func (p *Pipeline) loadCampaign(t delivery.TenantID, id delivery.CampaignID) (float64, bool) {
	c, err := p.store.Campaign(p.ctx, t, id.String())
	if err != nil {
		if p.ctx.Err() == nil {
			p.log.Warn("a campaign cannot be read; it goes without its own limit for now", "campaign", id.String(), "err", err)
		}
		return 0, false
	}
	return c.Rate, true
}

// CampaignPaused makes a pause, stop or resume that the store already knows take effect on what is claimed: of a paused
// campaign, nothing starts after this returns but the attempts that workers have begun.
func (p *Pipeline) CampaignPaused(id delivery.CampaignID, paused bool) {
	if !paused {
		p.campaigns.resting.Delete(id)
		p.planner.unblock()
		p.alarm.due(p.clock.Now())
		return
	}
	p.campaigns.resting.Store(id, true)
	p.mu.Lock()
	stations := make([]*station, 0, len(p.stations))
	for _, s := range p.stations {
		stations = append(stations, s)
	}
	p.mu.Unlock()
	now := p.clock.Now()
	for _, s := range stations {
		for _, m := range s.remove(func(m *passage) bool { return m.Campaign == id }) {
			m.hold(store.ReasonCampaignPaused, "its campaign is paused", farOff(now))
			p.receipt(m)
		}
	}
}
