package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/msgctl/msgctl/cluster"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/news"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// An engine whose store is shared is a member of a cluster: it says that it lives, follows what other nodes change, and
// claims nothing while it cannot know what they do. An engine with a store of its own has no member, and pays nothing.

// openMember makes the engine a member when its store is shared.
func (e *Engine) openMember(clock *cluster.Clock) {
	nodes, ok := e.store.(store.Nodes)
	if !ok {
		return
	}
	e.member = cluster.New(cluster.Options{
		Nodes: nodes, Name: e.cfg.Node, Roles: append(e.cfg.roles(), keyTag+e.vault.ID()), Version: e.cfg.Version,
		TTL: e.cfg.Heartbeat, Clock: clock, Log: e.log, Metrics: e.metrics,
		Apply: e.follow, Beaten: e.renewSessions,
	})
}

// join makes the node known, and refuses to go on beside nodes that could not read its secrets.
func (e *Engine) join(ctx context.Context, address string) error {
	if e.member == nil {
		return nil
	}
	if err := e.member.Join(ctx, address); err != nil {
		return err
	}
	roster, err := e.member.Roster(ctx)
	if err != nil {
		return err
	}
	own := keyTag + e.vault.ID()
	for _, n := range roster.Nodes {
		if tag := tagOf(n.Roles); n.Alive && tag != "" && tag != own {
			return fmt.Errorf("the node %s has another master key: copy its %s into %s, readable by its owner only, and start "+
				"again", n.Name, masterKeyFile, e.cfg.Dir)
		}
	}
	return nil
}

// heldBack says why nothing may be claimed; "" = it may.
func (e *Engine) heldBack() string {
	if e.member == nil {
		return ""
	}
	return e.member.Held()
}

// senders are the nodes that share the rate limits; none = that is not known now. agreed says that they all count this
// one.
func (e *Engine) senders() (names []string, agreed bool) {
	if e.member == nil {
		return nil, false
	}
	return e.member.Senders()
}

// mine reports whether this node is to expand a campaign.
func (e *Engine) mine(id delivery.CampaignID) bool {
	return e.member == nil || e.member.Mine(cluster.Schedule, id.String())
}

// settle waits until the other nodes go by what has just been changed, so that whoever is told of a change finds it in
// force everywhere. The wait is bounded: a node that does not follow is named in the log, and counted.
func (e *Engine) settle(ctx context.Context) {
	if e.member != nil {
		e.news.Publish(ctx, newsOfChanges, nil)
		e.member.Settle(ctx)
	}
}

// newsOfChanges is the topic of the news that something has been changed.
const newsOfChanges = "changes"

// hear makes the member look when there are news, until they end.
func (e *Engine) hear(s *news.Subscription) {
	for range s.C() {
		e.member.Look()
	}
}

// follow makes this node go by changes that any node has stored.
func (e *Engine) follow(ctx context.Context, c store.Changes) error {
	if c.Gap {
		return e.followAll(ctx)
	}
	accounts := false
	done := map[store.Change]bool{} // a change that is listed twice is one: what counts is what the store says now
	for _, x := range c.List {
		x.Seq = 0
		if done[x] {
			continue
		}
		done[x] = true
		switch x.Kind {
		case store.TenantChange:
			e.handler.ForgetTenant(x.Tenant)
			e.pipeline.TenantChanged(x.Tenant)
		case store.AccountChange:
			accounts = true
		case store.SuppressChange:
			e.pipeline.Suppressed(x.Tenant)
		case store.KeyChange:
			id, err := delivery.ParseKeyID(x.ID)
			if err != nil {
				e.handler.ForgetAll()
				continue
			}
			e.handler.ForgetKey(id)
		case store.CampaignChange:
			if err := e.followCampaign(ctx, x.Tenant, x.ID); err != nil {
				return err
			}
		case store.TemplateChange:
			// Nothing remembers which version is the newest, and a version never changes.
		}
	}
	if accounts {
		return e.loadAccounts(ctx)
	}
	return nil
}

// followCampaign goes by what the store says of a campaign.
func (e *Engine) followCampaign(ctx context.Context, tenant delivery.TenantID, id string) error {
	c, err := e.store.Campaign(ctx, tenant, id)
	switch {
	case errors.Is(err, store.ErrNotFound): // the store was put back to a time before it
		return nil
	case err != nil:
		return err
	}
	switch c.State {
	case store.CampaignRunning:
		e.pipeline.CampaignPaused(c.ID, false)
		e.campaigns.Kick()
	case store.CampaignPaused, store.CampaignStopped:
		e.pipeline.CampaignPaused(c.ID, true)
	}
	return nil
}

// followAll goes by whatever may have been changed.
func (e *Engine) followAll(ctx context.Context) error {
	e.log.Warn("changes of other nodes were missed; everything is read anew")
	e.handler.ForgetAll()
	tenants, err := e.store.TenantList(ctx, system)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		e.pipeline.TenantChanged(t.ID)
		e.pipeline.Suppressed(t.ID)
		list, err := e.store.CampaignList(ctx, t.ID)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.State == store.CampaignRunning || c.State == store.CampaignPaused || c.State == store.CampaignStopped {
				e.pipeline.CampaignPaused(c.ID, c.State != store.CampaignRunning)
			}
		}
	}
	e.campaigns.Kick()
	return e.loadAccounts(ctx)
}

// campaignPaused makes a pause, stop or resume take effect on all nodes.
func (e *Engine) campaignPaused(id delivery.CampaignID, paused bool) {
	e.pipeline.CampaignPaused(id, paused)
	e.settle(context.Background())
}

// KeyRevoked makes a revocation take effect on all nodes.
func (e *Engine) KeyRevoked(ctx context.Context) { e.settle(ctx) }

// missing says to people that this node does not have a role that what they asked for needs.
func (e *Engine) missing(role, what string) string {
	if e.cfg.has(role) {
		return ""
	}
	return fmt.Sprintf("this node does not %s: it has not the role %s, only %s; ask another node of the cluster", what, role,
		strings.Join(e.cfg.roles(), ", "))
}

// aids says of what the engine works without, only slower, how it is.
func (e *Engine) aids(context.Context) map[string]string {
	aids := map[string]string{}
	if s := scheme(e.cfg.Broker); s != "" && s != "memory" {
		aids["broker"] = e.wires.state()
	}
	if s := limitsState(e.limiter); s != "" {
		aids["limits"] = s
	}
	return aids
}

// allParts says how everything is that the engine stands on, what it needs and what only helps it.
func (e *Engine) allParts(ctx context.Context) map[string]string {
	all := map[string]string{"store": partOK}
	if err := e.store.Check(ctx); err != nil {
		all["store"] = "cannot be written"
	}
	maps.Copy(all, e.parts(ctx))
	maps.Copy(all, e.aids(ctx))
	return all
}

// Cluster says which engines work together and how they are. An engine with a store of its own names itself.
func (e *Engine) Cluster(ctx context.Context) (sdk.Cluster, error) {
	out := sdk.Cluster{Answered: e.cfg.Node, Parts: e.allParts(ctx)}
	if e.member == nil {
		out.Embedded = true
		now := e.cfg.Clock.Now().UTC()
		out.Nodes = []sdk.Node{{
			Name: e.cfg.Node, State: sdk.NodeAlive, Roles: e.cfg.roles(), Version: e.cfg.Version, Address: e.Addr(),
			Started: &e.began, Seen: &now,
		}}
		return out, nil
	}
	roster, err := e.member.Roster(ctx)
	if err != nil {
		return out, err
	}
	claims, err := e.member.Claims(ctx)
	if err != nil {
		return out, err
	}
	out.Changed = roster.Changed
	for _, n := range roster.Nodes {
		out.Nodes = append(out.Nodes, e.showNode(&n, claims[n.Name], roster.Changed))
	}
	return out, nil
}

func (e *Engine) showNode(n *store.Node, claims int, changed int64) sdk.Node {
	started, seen := n.Started.UTC(), n.Seen.UTC()
	out := sdk.Node{
		Name: n.Name, State: sdk.NodeGone, Version: n.Version, Address: n.Address, Started: &started, Seen: &seen,
		Claims: claims, Applied: n.Applied,
		Roles: slices.DeleteFunc(slices.Clone(n.Roles), func(r string) bool { return strings.HasPrefix(r, keyTag) }),
	}
	switch {
	case n.Alive && n.Draining:
		out.State = sdk.NodeDraining
	case n.Alive:
		out.State = sdk.NodeAlive
	}
	if n.Alive {
		out.Behind = max(0, changed-n.Applied)
	}
	if n.Name == e.cfg.Node {
		ahead := e.member.Skew().Round(time.Millisecond).Seconds()
		out.Skew = &ahead
	}
	return out
}
