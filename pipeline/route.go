package pipeline

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// unroutable is how long a message without any connector is held before the next look. A changed connector wakes it at
// once.
const unroutable = time.Minute

// goneFor is how long a message is held before the next look whose last attempt is in doubt and whose account is gone.
// It waits for one of these: the account opens again (it failed to open at a start), the tenant allows another way
// (RerouteInDoubt), somebody cancels it, or it expires. The first two wake it at once; the look is for wakes that got
// lost. To send it by another account without being told to would be to send it twice knowingly.
const goneFor = time.Hour

// batch is what the messages of one claim share on their way through route.
type batch struct {
	queue  delivery.Queue
	tenant *store.Tenant
	now    time.Time
	stuck  bool               // one of them found no account, and says so for all that are as free to choose
	scouts []*routing.Account // resting accounts that one of the batch waits for already
}

// route claims the messages of a hint and hands each to the station of the account that it goes by.
func (p *Pipeline) route(ctx context.Context, h hint) error {
	now, began := p.clock.Now(), p.elapsed()
	ways := p.planner.ways.Load()
	if p.draining.Load() || p.held() != "" {
		p.planner.failed(h.queue, len(h.ids), now)
		return nil
	}
	lease := time.Duration(p.lease.Load())
	until := now.Add(lease)
	refusals := p.refusals.of(h.queue.Tenant)
	claimed, err := p.store.Claim(ctx, system, store.Claim{IDs: h.ids, Node: p.node(), Now: now, Until: until})
	if err != nil {
		// Should the claim be in the store all the same, the sweeper takes it back when its lease runs out.
		p.planner.failed(h.queue, len(h.ids), now)
		return fmt.Errorf("claim: %w", err)
	}
	p.claims.add(claimed, began+lease)
	if len(claimed) < len(h.ids) { // what the claim itself ended may have made others due
		p.alarm.due(now)
	}
	p.planner.claimed(h.queue, len(h.ids), len(claimed))
	p.planner.elsewhere(h.queue, claimed)
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
	for i := range claimed {
		passages[i].Claimed = claimed[i]
	}
	p.trackClaimed(passages, now)
	b := batch{queue: h.queue, now: now}
	if len(claimed) > 0 {
		if b.tenant, err = p.tenants.get(h.queue.Tenant); err != nil {
			b.tenant = nil // nothing goes by routes that are not known
			p.log.Warn("a tenant's routes cannot be read", "tenant", string(h.queue.Tenant), "err", err)
		}
	}
	for i := range claimed {
		m := &passages[i]
		m.until, m.refusals, m.ways = until, refusals, ways
		to := p.choose(m, &b)
		if to == nil {
			p.receipt(m)
			continue
		}
		if to != st {
			flush()
			st = to
		}
		if m.track != nil {
			m.track.routed = p.clock.Now()
		}
		run = append(run, m)
	}
	flush()
	return nil
}

// choose returns the station of the account for m, or ends m with the reason why there is none.
func (p *Pipeline) choose(m *passage, b *batch) *station {
	if p.campaigns.paused(m.Campaign) {
		m.giveBack(store.ReasonCampaignPaused) // the next claim sees what the store says of its campaign
		return nil
	}
	if b.tenant == nil {
		until := b.now.Add(time.Second)
		m.giveBack("tenant_unreadable")
		p.planner.blockAsOf(m.ways, m.Queue, until, delivery.Standing{Reason: "tenant_unreadable", Until: until})
		return nil
	}
	q := query(m, b.tenant)
	if b.stuck && !q.Bound() && m.Queue == b.queue {
		m.giveBack("queue_blocked")
		return nil
	}
	c := p.Accounts.Choose(&q, b.now)
	m.alone = c.Alone
	if c.Account == nil && c.Reason == routing.ReasonNoSession {
		p.leaveElsewhere(m, c, b)
		return nil
	}
	if c.Account == nil {
		p.hold(m, c, b)
		return nil
	}
	m.account, m.probe, m.route = c.Account, c.Probe, c.Route
	if st := p.station(c.Account); st != nil {
		return st
	}
	m.giveBack("connector_changed")
	return nil
}

// query is what m's account is chosen by.
func query(m *passage, t *store.Tenant) routing.Query {
	return routing.Query{
		Message: m.ID, Tenant: m.Queue.Tenant, Channel: m.Queue.Channel, To: m.To, Category: m.Category, Tag: m.Tag,
		Rules: t.Routes, Pinned: m.Account, Doubted: doubted(m, t),
	}
}

// hasOtherWay reports whether m, whose account has just gone down, could go by another one now.
func (p *Pipeline) hasOtherWay(m *passage, now time.Time) bool {
	t, err := p.tenants.get(m.Queue.Tenant)
	if err != nil {
		return false
	}
	q := query(m, t)
	return !q.Bound() && p.Accounts.Explain(&q, now).Account != nil
}

// doubted is the account that m may not be tried without, because an attempt by it ended without an answer; zero =
// there is none, or nobody knows it. Last belongs to the leg that m is on: a doubt about an earlier leg is settled.
func doubted(m *passage, t *store.Tenant) delivery.AccountID {
	if !m.InDoubt || t.RerouteInDoubt {
		return delivery.AccountID{}
	}
	return m.Last
}

// hold keeps a message that has no account now, and its queue with it when the others have none either.
func (p *Pipeline) hold(m *passage, c routing.Choice, b *batch) {
	until := later(c.Until, b.now)
	switch {
	case c.Reason == routing.ReasonInDoubt:
		until = b.now.Add(goneFor)
	case c.Until.IsZero():
		until = b.now.Add(unroutable)
	}
	why := delivery.Standing{Reason: c.Reason, Until: until}
	if c.Blocked != nil {
		why.Account = c.Blocked.Name
	}
	if !c.Alone {
		b.stuck = b.stuck || m.Queue == b.queue
		p.planner.blockAsOf(m.ways, m.Queue, until, why)
	} else if c.Reason == routing.ReasonConnectorDown {
		// Only one can try the account when its rest is over. The others need not look before it has been heard of: its
		// end wakes them.
		if slices.Contains(b.scouts, c.Blocked) {
			until = until.Add(unroutable)
		}
		b.scouts = append(b.scouts, c.Blocked)
	}
	m.account = c.Blocked
	m.hold(c.Reason, c.Detail, until)
}

// ExplainRoute says by which account a message of a tenant would go now, as route would decide, and why. Tenant and
// Rules of the query are filled in here. It asks no account to prove itself. Errors are the store's.
func (p *Pipeline) ExplainRoute(
	ctx context.Context, tenant delivery.TenantID, q routing.Query,
) (routing.Explanation, error) {
	if err := ctx.Err(); err != nil {
		return routing.Explanation{}, err
	}
	t, err := p.tenants.get(tenant)
	if err != nil {
		return routing.Explanation{}, err
	}
	q.Tenant, q.Rules = tenant, t.Routes
	return p.Accounts.Explain(&q, p.clock.Now()), nil
}

// unrouted reports whether a reason says that no account could take a message.
func unrouted(reason string) bool {
	return slices.Contains(Unrouted, reason)
}

// Unrouted are the reasons of messages that wait for an account to take them. Whoever changes accounts wakes them.
var Unrouted = []string{
	routing.ReasonNoConnector, routing.ReasonConnectorPaused, routing.ReasonConnectorDown, routing.ReasonInDoubt,
}
