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
	now := p.clock.Now()
	if p.draining.Load() {
		p.planner.failed(h.queue, len(h.ids), now)
		return nil
	}
	until := now.Add(time.Duration(p.lease.Load()))
	claimed, err := p.store.Claim(ctx, system, store.Claim{IDs: h.ids, Node: p.opt.Node, Now: now, Until: until})
	if err != nil {
		// Should the claim be in the store all the same, the sweeper takes it back when its lease runs out.
		p.planner.failed(h.queue, len(h.ids), now)
		return fmt.Errorf("claim: %w", err)
	}
	p.claims.add(claimed)
	p.planner.claimed(h.queue, len(h.ids), len(claimed))
	p.metrics.claims.Observe(float64(len(claimed)))
	var st *station
	var run []*passage
	flush := func() {
		if len(run) > 0 && !st.put(run) {
			for _, m := range run {
				m.giveBack("connector_changed")
				p.receipt(m)
			}
		}
		run = run[:0]
	}
	passages := make([]passage, len(claimed))
	stuck := false // one message of this batch found no account, and says so for the others
	for i := range claimed {
		m := &passages[i]
		m.Claimed, m.until = claimed[i], until
		to := p.choose(m, now, &stuck)
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
func (p *Pipeline) choose(m *passage, now time.Time, stuck *bool) *station {
	if p.campaigns.paused(m.Campaign) {
		m.giveBack(store.ReasonCampaignPaused) // the next claim sees what the store says of its campaign
		return nil
	}
	pinned := m.Account != (delivery.AccountID{})
	if *stuck && !pinned {
		m.giveBack("queue_blocked")
		return nil
	}
	c := p.Accounts.Choose(m.Queue.Tenant, m.Queue.Channel, m.Account, now)
	if c.Account == nil {
		p.hold(m, c, now)
		*stuck = *stuck || !pinned
		return nil
	}
	m.account, m.probe = c.Account, c.Probe
	if st := p.station(c.Account); st != nil {
		return st
	}
	m.giveBack("connector_changed")
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
		p.planner.block(m.Queue, until, windowMin, why)
	}
}
