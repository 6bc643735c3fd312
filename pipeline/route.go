package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// unroutable is how long a message without any connector is held before the next look. A changed connector wakes it at
// once.
const unroutable = time.Minute

// route claims the messages of a hint and hands each to the station of the account that it goes by.
func (p *Pipeline) route(ctx context.Context, h hint) error {
	if p.draining.Load() {
		p.planner.done(h.queue, len(h.ids))
		return nil
	}
	now := p.clock.Now()
	until := now.Add(p.opt.Lease)
	claimed, err := p.store.Claim(ctx, system, store.Claim{IDs: h.ids, Node: p.opt.Node, Now: now, Until: until})
	p.planner.done(h.queue, len(h.ids)-len(claimed))
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	p.metrics.claims.Observe(float64(len(claimed)))
	var st *station
	var run []*passage
	flush := func() {
		if len(run) > 0 && !st.put(run) {
			for _, m := range run {
				m.giveBack("connector_changed", now)
				p.receipt(m)
			}
		}
		run = run[:0]
	}
	passages := make([]passage, len(claimed))
	for i := range claimed {
		m := &passages[i]
		m.Claimed, m.until = claimed[i], until
		to := p.choose(m, now)
		if to == nil {
			p.receipt(m)
			continue
		}
		if to != st {
			flush()
			st = to
		}
		run = append(run, m)
	}
	flush()
	return nil
}

// choose returns the station of the account for m, or ends m with the reason why there is none.
func (p *Pipeline) choose(m *passage, now time.Time) *station {
	if paused := p.campaigns.paused(m.Campaign); paused {
		m.hold(store.ReasonCampaignPaused, "its campaign is paused", farOff(now))
		return nil
	}
	c := p.Accounts.Choose(m.Queue.Tenant, m.Queue.Channel, m.Account, now)
	if c.Account == nil {
		p.hold(m, c, now)
		return nil
	}
	if st := p.station(c.Account); st != nil {
		m.account, m.probe = c.Account, c.Probe
		return st
	}
	m.giveBack("connector_changed", now)
	return nil
}

// hold keeps a message that has no account now, and its queue with it.
func (p *Pipeline) hold(m *passage, c routing.Choice, now time.Time) {
	until := later(c.Until, now)
	if c.Until.IsZero() {
		until = now.Add(unroutable)
	}
	m.account = c.Blocked
	m.hold(c.Reason, c.Detail, until)
	why := delivery.Standing{Reason: c.Reason, Until: until}
	if c.Blocked != nil {
		why.Account = c.Blocked.Name
	}
	if m.Account == (delivery.AccountID{}) { // a pinned account says nothing about the rest of the queue
		p.planner.block(m.Queue, until, 0, why)
	}
}

// farOff is the due time of what waits for a person: paused campaigns. It is looked at again at some time in any case.
func farOff(now time.Time) time.Time { return now.AddDate(1, 0, 0) }
