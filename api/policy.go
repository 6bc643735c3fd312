package api

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// The bounds of a tenant's rules.
const (
	maxRules   = 100
	maxTargets = 20
	maxWeight  = 1000
	maxDelays  = 20
	minDelay   = 100 * time.Millisecond
	maxDelay   = maxLife
)

// routeRules is the form in which routing rules travel. Rules may be empty but not missing: who leaves them out has
// misspelt them.
type routeRules struct {
	Rules []sdk.Route `json:"rules"`
}

// retryRules is the same for schedules after failures.
type retryRules struct {
	Rules []sdk.RetryRule `json:"rules"`
}

// ownTenant reads the tenant that the request is about.
func (c *call) ownTenant() (store.Tenant, error) {
	return c.a.Store.Tenant(c.ctx(), system(), c.tenant)
}

// changeTries is how often a change is made anew when another node was faster. Every time one of the nodes gets through.
const changeTries = 20

// changeTenant changes a part of a tenant's row, one change at a time: a row is stored whole, and two changes at once
// must not undo each other. Those of this node take turns, those of other nodes are seen by the row's version. So change
// may be called several times.
func (c *call) changeTenant(id delivery.TenantID, change func(*store.Tenant)) (store.Tenant, error) {
	t, err := c.storeTenant(id, change)
	if err != nil {
		return t, err
	}
	c.a.rates.forget(id)
	if c.a.Operator != nil {
		c.a.Operator.TenantChanged(c.ctx(), id)
	}
	return t, nil
}

func (c *call) storeTenant(id delivery.TenantID, change func(*store.Tenant)) (store.Tenant, error) {
	c.a.tenants.Lock()
	defer c.a.tenants.Unlock()
	for range changeTries {
		t, err := c.a.Store.Tenant(c.ctx(), system(), id)
		if err != nil {
			return t, err
		}
		version := t.Version
		change(&t)
		t.Version = version
		err = c.a.Store.UpdateTenant(c.ctx(), system(), t)
		if !errors.Is(err, store.ErrConflict) {
			return t, err
		}
	}
	return store.Tenant{}, fail("conflict", "the tenant was changed by others all the time; nothing was changed: try again")
}

func getRoutes(c *call) error {
	t, err := c.ownTenant()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showRoutes(t.Routes))
}

func putRoutes(c *call) error {
	var in routeRules
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	rules, err := c.routes(in.Rules)
	if err != nil {
		return err
	}
	t, err := c.changeTenant(c.tenant, func(t *store.Tenant) { t.Routes = rules })
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showRoutes(t.Routes))
}

// ruleCount checks how many rules there are.
func ruleCount(given bool, n int) error {
	switch {
	case !given:
		return failAt("/rules", "field_required", "give all rules in their order; [] removes them")
	case n > maxRules:
		return failAt("/rules", "invalid_value", "there are at most %d rules, here are %d", maxRules, n)
	}
	return nil
}

// routes checks routing rules. Their connectors must exist: a rule whose connector is misspelt would hold messages back
// silently.
func (c *call) routes(in []sdk.Route) ([]delivery.RouteRule, error) {
	if err := ruleCount(in != nil, len(in)); err != nil {
		return nil, err
	}
	list, err := c.a.Store.AccountList(c.ctx(), c.tenant)
	if err != nil {
		return nil, err
	}
	accounts := make(map[string]store.Account, len(list))
	for _, a := range list {
		if have, taken := accounts[a.Name]; !taken || shared(have.Tenant) { // one's own goes before a shared one
			accounts[a.Name] = a
		}
	}
	var f faults
	rules := make([]delivery.RouteRule, 0, len(in))
	for i, r := range in {
		at := "/rules/" + itoa(i)
		rule := delivery.RouteRule{Category: r.Category, Tag: r.Tag, Channel: ruleChannel(r.Channel, at, &f)}
		mark(at+"/category", r.Category, maxMark, &f)
		mark(at+"/tag", r.Tag, maxMark, &f)
		rule.Prefix = prefix(r.Prefix, rule.Channel, at+"/prefix", &f)
		rule.Targets = targets(r.Targets, rule.Channel, accounts, at+"/targets", &f)
		rules = append(rules, rule)
	}
	return rules, f.problem()
}

func ruleChannel(name sdk.Channel, at string, f *faults) delivery.Channel {
	if name == "" {
		return 0
	}
	ch, err := delivery.ParseChannel(string(name))
	if err != nil {
		f.add(at+"/channel", "invalid_channel", "use sms, whatsapp, email or webhook, or leave it out for all")
	}
	return ch
}

// prefix checks what a rule asks of an address: the first digits of a phone number, the domain of a mailbox, the host
// of a URL or its beginning with the whole host. Without a channel its form says which of them it is.
func prefix(s string, ch delivery.Channel, pointer string, f *faults) string {
	switch {
	case s == "":
	case ch == delivery.SMS || ch == delivery.WhatsApp || ch == 0 && strings.HasPrefix(s, "+"):
		if len(s) < 2 || len(s) > 16 || s[0] != '+' || s[1] == '0' || strings.Trim(s[1:], "0123456789") != "" {
			f.add(pointer, "invalid_value", "use the beginning of a number in E.164: + and 1 to 15 digits, as in +91")
		}
	case ch != delivery.Email && strings.Contains(s, "://"):
		url, err := recipient.URL(s)
		if err != nil {
			f.add(pointer, "invalid_value", "use the beginning of a URL with its whole host, as in https://example.com/hooks")
			return s
		}
		return url
	case ch == delivery.Webhook:
		url, err := recipient.URL("https://" + s)
		if err != nil || strings.ContainsAny(s, "/?#@") {
			f.add(pointer, "invalid_value", "use a host, as in example.com, or the beginning of a URL with its whole host")
			return s
		}
		return strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
	default:
		box, err := recipient.Email("x@" + s)
		if err != nil {
			f.add(pointer, "invalid_value", "use the domain of a mailbox, as in example.com; for a phone number +91")
			return s
		}
		return strings.TrimPrefix(box, "x@")
	}
	return s
}

func targets(in []sdk.RouteTarget, ch delivery.Channel, accounts map[string]store.Account, at string, f *faults,
) []delivery.RouteTarget {
	switch {
	case len(in) == 0:
		f.add(at, "field_required", "name at least one connector")
	case len(in) > maxTargets:
		f.add(at, "invalid_value", "a rule has at most %d connectors, here are %d", maxTargets, len(in))
		return nil
	}
	seen := map[string]bool{}
	out := make([]delivery.RouteTarget, 0, len(in))
	for i, t := range in {
		here := at + "/" + itoa(i)
		a, known := accounts[t.Connector]
		switch {
		case t.Connector == "":
			f.add(here+"/connector", "field_required", "name the connector")
		case !known:
			f.add(here+"/connector", "unknown_connector", "there is no connector %s", quoted(t.Connector))
		case ch != 0 && a.Channel != ch:
			f.add(here+"/connector", "connector_channel", "the connector %s sends %s, the rule is for %s", a.Name, a.Channel, ch)
		case seen[t.Connector]:
			f.add(here+"/connector", "invalid_value", "the connector %s stands in this rule already", t.Connector)
		}
		seen[t.Connector] = true
		if t.Weight < 0 || t.Weight > maxWeight {
			f.add(here+"/weight", "invalid_value", "weight is 0 (a reserve) to %d", maxWeight)
		}
		out = append(out, delivery.RouteTarget{Connector: t.Connector, Weight: t.Weight})
	}
	return out
}

func showRoutes(rules []delivery.RouteRule) routeRules {
	out := routeRules{Rules: make([]sdk.Route, 0, len(rules))}
	for _, r := range rules {
		shown := sdk.Route{Channel: channel(r.Channel), Prefix: r.Prefix, Category: r.Category, Tag: r.Tag}
		for _, t := range r.Targets {
			shown.Targets = append(shown.Targets, sdk.RouteTarget{Connector: t.Connector, Weight: t.Weight})
		}
		out.Rules = append(out.Rules, shown)
	}
	return out
}

// explainRoute says where a message would go now.
func explainRoute(c *call) error {
	if c.a.Routes == nil {
		return noRoute()
	}
	var in sdk.RouteQuery
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	var f faults
	q := RouteQuestion{Category: in.Category, Tag: in.Tag}
	ch, err := delivery.ParseChannel(string(in.Channel))
	switch {
	case in.Channel == "":
		f.add("/channel", "field_required", "the channel is missing: use sms, whatsapp, email or webhook")
	case err != nil:
		f.add("/channel", "invalid_channel", "there is no channel %s: use sms, whatsapp, email or webhook",
			quoted(string(in.Channel)))
	case in.To == "":
		f.add("/to", "field_required", "the recipient is missing")
	default:
		var bad *recipient.Invalid
		if q.To, err = c.a.checker(c).normalize(ch, in.To); errors.As(err, &bad) {
			f.add("/to", bad.Code, "%s", bad.Rule)
		} else if err != nil {
			return err
		}
	}
	mark("/category", in.Category, maxMark, &f)
	mark("/tag", in.Tag, maxMark, &f)
	if err := f.problem(); err != nil {
		return err
	}
	q.Channel = ch
	r, err := c.a.Routes.ExplainRoute(c.ctx(), c.tenant, q)
	if err != nil {
		return err
	}
	out := sdk.RouteExplanation{Rule: r.Rule, Connector: r.Connector, Candidates: []sdk.RouteCandidate{}}
	for _, k := range r.Candidates {
		out.Candidates = append(out.Candidates, sdk.RouteCandidate{
			Connector: k.Connector, Weight: k.Weight, State: k.State, Detail: k.Detail, Until: when(k.Until), Failing: k.Failing,
		})
	}
	return c.json(http.StatusOK, out)
}

func getRetries(c *call) error {
	t, err := c.ownTenant()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showRetries(t.Retry))
}

func putRetries(c *call) error {
	var in retryRules
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	rules, err := retries(in.Rules)
	if err != nil {
		return err
	}
	t, err := c.changeTenant(c.tenant, func(t *store.Tenant) { t.Retry = rules })
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showRetries(t.Retry))
}

// retries checks schedules. Only failures that may pass by themselves have one: those that slow or stop a connector
// wait for the connector, and the others are for good.
func retries(in []sdk.RetryRule) ([]delivery.RetryRule, error) {
	if err := ruleCount(in != nil, len(in)); err != nil {
		return nil, err
	}
	var f faults
	rules := make([]delivery.RetryRule, 0, len(in))
	for i, r := range in {
		at := "/rules/" + itoa(i)
		rule := delivery.RetryRule{Channel: ruleChannel(r.Channel, at, &f)}
		switch r.Class {
		case "":
		case delivery.Transient.String():
			rule.Class = delivery.Transient
		case delivery.InDoubt.String():
			rule.Class = delivery.InDoubt
		default:
			f.add(at+"/class", "invalid_value", "there is no schedule for %s: use %s or %s, or leave it out for both",
				quoted(r.Class), delivery.Transient, delivery.InDoubt)
		}
		if n := len(r.Delays); n == 0 {
			f.add(at+"/delays", "field_required", "give 1 to %d delays, as in [\"5s\", \"30s\", \"5m\"]", maxDelays)
		} else if n > maxDelays {
			f.add(at+"/delays", "invalid_value", "a rule has at most %d delays, here are %d; the last one repeats", maxDelays, n)
			continue
		}
		for j, text := range r.Delays {
			d, err := time.ParseDuration(text)
			if err != nil || d < minDelay || d > maxDelay {
				f.add(at+"/delays/"+itoa(j), "invalid_time", "use a duration from 100ms to 168h, as in 30s")
			}
			rule.Delays = append(rule.Delays, d)
		}
		if r.GiveUpAfter != "" {
			d, err := time.ParseDuration(r.GiveUpAfter)
			if err != nil || d < time.Second || d > maxLife {
				f.add(at+"/give_up_after", "invalid_time", "use a duration from 1s to 168h, as in 2h")
			}
			rule.GiveUpAfter = d
		}
		rules = append(rules, rule)
	}
	return rules, f.problem()
}

func showRetries(rules []delivery.RetryRule) retryRules {
	out := retryRules{Rules: make([]sdk.RetryRule, 0, len(rules))}
	for _, r := range rules {
		shown := sdk.RetryRule{Channel: channel(r.Channel)}
		if r.Class != 0 {
			shown.Class = r.Class.String()
		}
		for _, d := range r.Delays {
			shown.Delays = append(shown.Delays, short(d))
		}
		if r.GiveUpAfter > 0 {
			shown.GiveUpAfter = short(r.GiveUpAfter)
		}
		out.Rules = append(out.Rules, shown)
	}
	return out
}
