package pipeline

import (
	"slices"
	"sync"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// tenantCache keeps tenants' limits and policies until they change.
type tenantCache struct {
	load  func(delivery.TenantID) (*store.Tenant, error)
	views sync.Map // delivery.TenantID → *store.Tenant; nobody changes one

	mu      sync.Mutex // of changes to views
	changes int        // counts forget: a view that was read before one must not be kept after it
}

// get returns a tenant, not to be changed, or why it cannot be read now.
func (c *tenantCache) get(id delivery.TenantID) (*store.Tenant, error) {
	if v, ok := c.views.Load(id); ok {
		return v.(*store.Tenant), nil
	}
	c.mu.Lock()
	before := c.changes
	c.mu.Unlock()
	v, err := c.load(id)
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == before {
		c.views.Store(id, v)
	}
	return v, nil
}

func (c *tenantCache) forget(id delivery.TenantID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	c.views.Delete(id)
}

func (p *Pipeline) loadTenant(id delivery.TenantID) (*store.Tenant, error) {
	t, err := p.store.Tenant(p.ctx, system, id)
	return &t, err
}

// campaignCache keeps the rate of campaigns that have messages under way, and which of them are paused.
type campaignCache struct {
	load    func(delivery.TenantID, delivery.CampaignID) (perSecond float64, err error)
	rates   sync.Map   // delivery.CampaignID → float64; a campaign's rate never changes
	resting sync.Map   // delivery.CampaignID of a paused or stopped campaign
	changes sync.Mutex // one change of resting at a time
}

func (c *campaignCache) rate(t delivery.TenantID, id delivery.CampaignID) (float64, error) {
	if id.IsZero() {
		return 0, nil
	}
	if v, ok := c.rates.Load(id); ok {
		return v.(float64), nil
	}
	v, err := c.load(t, id)
	if err == nil {
		c.rates.Store(id, v)
	}
	return v, err
}

func (c *campaignCache) paused(id delivery.CampaignID) bool {
	if id.IsZero() {
		return false
	}
	_, paused := c.resting.Load(id)
	return paused
}

func (p *Pipeline) loadCampaign(t delivery.TenantID, id delivery.CampaignID) (float64, error) {
	c, err := p.store.Campaign(p.ctx, t, id.String())
	return c.Rate, err
}

// CampaignPaused makes a pause, stop or resume that the store already knows take effect on what is claimed: of a paused
// campaign, nothing starts after this returns but the attempts that workers have begun. What was claimed goes back to
// its queue, where the next claim holds or cancels it by the campaign's state.
func (p *Pipeline) CampaignPaused(id delivery.CampaignID, paused bool) {
	p.campaigns.changes.Lock()
	defer p.campaigns.changes.Unlock()
	// Of a pause and a resume at the same time, the calls may come here in the other order than they came to the store,
	// and what the store says is what counts.
	if running, err := p.store.ActiveCampaigns(p.ctx, system); err == nil {
		paused = !slices.ContainsFunc(running, func(c store.Campaign) bool { return c.ID == id })
	}
	if !paused {
		p.campaigns.resting.Delete(id)
		p.planner.unblock()
		p.alarm.due(p.clock.Now())
		return
	}
	p.campaigns.resting.Store(id, true)
	for _, s := range p.open() {
		for _, m := range s.remove(func(m *passage) bool { return m.Campaign == id }) {
			m.giveBack(store.ReasonCampaignPaused)
			p.receipt(m)
		}
	}
	// What was held for its turn while the pause came is not to wait for that turn to learn of it.
	p.wakeLater(store.Held{Reason: ReasonRateLimited, Campaign: id})
}
