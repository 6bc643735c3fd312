package api

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

func createCampaign(c *call) error {
	var in sdk.CampaignRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	key, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	cmp, err := c.campaignOf(in)
	if err != nil {
		return err
	}
	// The id tells of which request it is: one that is repeated, because its answer was lost, finds its own campaign.
	var request [32]byte
	if key != "" {
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		request = sha256.Sum256(slices.Concat([]byte(c.tenant), []byte{0}, []byte(key), []byte{0}, body))
		cmp.ID = c.a.IDs.CampaignOf(request)
	}
	err = c.a.Store.CreateCampaign(c.ctx(), c.tenant, cmp)
	if errors.Is(err, store.ErrExists) {
		old, lerr := c.a.Store.Campaign(c.ctx(), c.tenant, cmp.Name)
		if lerr != nil {
			return lerr
		}
		if key == "" || !old.ID.IsOf(request) {
			return fail("already_exists", "the campaign %s exists", cmp.Name)
		}
		c.w.Header()["Idempotency-Replayed"] = []string{"true"}
		cmp, err = old, nil
	}
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, showCampaign(cmp))
}

// campaignOf checks a request. What may still change before the start, such as templates and connectors, is checked by
// the dry run and at the start.
func (c *call) campaignOf(in sdk.CampaignRequest) (store.Campaign, error) {
	var f faults
	cmp := store.Campaign{
		ID: c.a.IDs.Campaign(), Tenant: c.tenant, Name: in.Name, State: store.CampaignDraft, Audience: in.Audience,
		Rate: in.Rate, CreatedAt: c.a.Now(),
	}
	if _, err := delivery.ParseCampaignID(in.Name); err == nil || !validName(in.Name) {
		f.add("/name", "invalid_name", "a name has 1 to 64 letters, digits, dots, underscores and hyphens, begins with a "+
			"letter or digit and does not look like an id")
	}
	if !(in.Rate >= 0 && in.Rate <= maxRate) {
		f.add("/rate", "invalid_value", "rate is 0 (as fast as the connectors allow) to %g per second", maxRate)
	}
	if in.TTL != "" {
		d, err := time.ParseDuration(in.TTL)
		if err != nil || d < time.Second || d > maxLife {
			f.add("/ttl", "invalid_time", "use a duration from 1s to 168h, as in 24h")
		}
		cmp.TTL = d
	}
	if err := c.campaignAudience(in.Audience, &cmp, &f); err != nil {
		return cmp, err
	}
	if err := c.campaignLegs(in, &cmp, &f); err != nil {
		return cmp, err
	}
	return cmp, f.problem()
}

func (c *call) campaignAudience(name string, cmp *store.Campaign, f *faults) error {
	if name == "" {
		f.add("/audience", "field_required", "name the audience")
		return nil
	}
	a, err := store.Audience{}, store.ErrNotFound
	if validName(name) {
		a, err = c.a.Store.Audience(c.ctx(), c.tenant, name)
	}
	if errors.Is(err, store.ErrNotFound) {
		f.add("/audience", "unknown_audience", "there is no audience %s: import it first", quoted(name))
		return nil
	}
	cmp.People = a.People
	return err
}

// campaignLegs reads the legs, or makes one of each template in the short form.
func (c *call) campaignLegs(in sdk.CampaignRequest, cmp *store.Campaign, f *faults) error {
	legs, at := in.Legs, "/legs/"
	switch {
	case len(in.Templates) > 0 && len(in.Legs) > 0:
		f.add("/templates", "field_not_allowed", "give templates or legs, not both")
		return nil
	case len(in.Templates) == 0 && len(in.Legs) == 0:
		f.add("/templates", "field_required", "name one template for each channel")
		return nil
	case len(in.Templates) > 0:
		at = "/templates/"
		for _, name := range in.Templates {
			legs = append(legs, sdk.CampaignLeg{Template: name})
		}
	}
	if len(legs) > len(delivery.Channels) {
		f.add(at[:len(at)-1], "invalid_value", "a campaign has at most one template for each channel")
		return nil
	}
	seen := map[delivery.Channel]bool{}
	for i, leg := range legs {
		here := at + itoa(i)
		row, err := store.Template{}, store.ErrNotFound
		if validName(leg.Template) && leg.Version >= 0 {
			row, err = c.a.Store.Template(c.ctx(), c.tenant, leg.Template, leg.Version)
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
			f.add(here, "unknown_template", "there is no template %s in that version", quoted(leg.Template))
			continue
		case err != nil:
			return err
		case leg.Channel != "" && string(leg.Channel) != row.Channel.String():
			f.add(here+"/channel", "template_channel", "the template %s is for %s", leg.Template, row.Channel)
			continue
		case seen[row.Channel]:
			f.add(here, "invalid_value", "there is a second template for %s: a campaign has one for each channel", row.Channel)
			continue
		}
		seen[row.Channel] = true
		if leg.Connector != "" {
			k := c.a.checker(c)
			var lf faults
			if _, err := k.connector(leg.Connector, row.Channel, &lf); err != nil {
				return err
			}
			for _, fault := range lf.list {
				f.add(here+fault.Pointer, fault.Code, "%s", fault.Detail)
			}
		}
		cmp.Legs = append(cmp.Legs, store.Leg{
			Channel: row.Channel, Template: leg.Template, Version: leg.Version, Account: leg.Connector,
		})
	}
	return nil
}

func listCampaigns(c *call) error {
	list, err := c.a.Store.CampaignList(c.ctx(), c.tenant)
	if err != nil {
		return err
	}
	return page(c, list, func(x store.Campaign) string { return x.ID.String() }, showCampaign)
}

func getCampaign(c *call) error {
	cmp, err := c.a.Store.Campaign(c.ctx(), c.tenant, c.vars[0])
	if err != nil {
		return campaignProblem(err)
	}
	return c.json(http.StatusOK, showCampaign(cmp))
}

// act does something with the campaign in the path.
func act(do func(*call, Campaigns, string) (store.Campaign, error)) func(*call) error {
	return func(c *call) error {
		if c.a.Campaigns == nil {
			return noRoute()
		}
		cmp, err := do(c, c.a.Campaigns, c.vars[0])
		if err != nil {
			return campaignProblem(err)
		}
		return c.json(http.StatusOK, showCampaign(cmp))
	}
}

func startCampaign(c *call, s Campaigns, name string) (store.Campaign, error) {
	return s.Start(c.ctx(), c.tenant, name)
}

func pauseCampaign(c *call, s Campaigns, name string) (store.Campaign, error) {
	return s.Pause(c.ctx(), c.tenant, name)
}

func resumeCampaign(c *call, s Campaigns, name string) (store.Campaign, error) {
	return s.Resume(c.ctx(), c.tenant, name)
}

func stopCampaign(c *call, s Campaigns, name string) (store.Campaign, error) {
	return s.Stop(c.ctx(), c.tenant, name)
}

// campaignProblem turns an error of the campaigns service into a problem.
func campaignProblem(err error) error {
	var state *campaigns.StateError
	var blocked *campaigns.BlockedError
	switch {
	case errors.As(err, &state):
		p := fail("conflict", "%s", state.Error())
		p.Actions = append([]string{}, state.Actions...)
		return p
	case errors.As(err, &blocked):
		p := fail("campaign_blocked", "%s", blocked.Error())
		for _, problem := range blocked.Problems {
			p.Fields = append(p.Fields, sdk.FieldError{Code: problem.Code, Detail: problem.Detail})
		}
		return p
	case errors.Is(err, store.ErrNotFound):
		return fail("not_found", "there is no such campaign")
	}
	return err
}

func checkCampaign(c *call) error {
	if c.a.Campaigns == nil {
		return noRoute()
	}
	c.extend(10 * time.Minute) // every person is rendered
	r, err := c.a.Campaigns.Check(c.ctx(), c.tenant, c.vars[0])
	if err != nil {
		return campaignProblem(err)
	}
	out := sdk.CampaignCheck{
		People: r.People, Segments: r.Segments, ByChannel: map[sdk.Channel]sdk.Count{}, Skipped: r.Skipped,
		UCS2: r.UCS2, UCS2Sample: r.UCS2Sample, Seconds: r.Seconds,
	}
	for ch, n := range r.ByChannel {
		out.ByChannel[channel(ch)] = sdk.Count{People: n.People, Segments: n.Segments}
	}
	for _, m := range r.Missing {
		out.Missing = append(out.Missing, sdk.MissingVariable{
			Template: m.Template, Variable: m.Variable, People: m.People, Examples: m.Examples,
		})
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, p.Detail)
	}
	return c.json(http.StatusOK, out)
}

// receipts reports whether providers of a channel report on messages that they took.
func (a *api) receipts(ch delivery.Channel) bool {
	for _, k := range a.Registry.Kinds() {
		if k.Channel == ch && k.Receipts {
			return true
		}
	}
	return false
}

func campaignReport(c *call) error {
	if c.a.Campaigns == nil {
		return noRoute()
	}
	r, err := c.a.Campaigns.Report(c.ctx(), c.tenant, c.vars[0])
	if err != nil {
		return campaignProblem(err)
	}
	out := sdk.CampaignReport{
		Campaign: r.Campaign.Name, State: string(r.Campaign.State), People: r.People, Accepted: r.Accepted,
		ToExpand: r.ToExpand,
		Waiting:  r.Waiting, Skipped: r.Skipped, ByStatus: byStatus(r.ByStatus),
		ByChannel: map[sdk.Channel]map[sdk.Status]int{},
		StartedAt: when(r.Campaign.StartedAt), EndedAt: when(r.Campaign.EndedAt),
	}
	for ch, counts := range r.ByChannel {
		out.ByChannel[channel(ch)] = byStatus(counts)
		if c.a.receipts(ch) {
			out.AwaitingReceipt += counts[delivery.StatusSent]
		}
	}
	return c.json(http.StatusOK, out)
}

func byStatus(counts map[delivery.Status]int) map[sdk.Status]int {
	out := make(map[sdk.Status]int, len(counts))
	for s, n := range counts {
		out[sdk.Status(s.String())] = n
	}
	return out
}

func showCampaign(x store.Campaign) sdk.Campaign {
	out := sdk.Campaign{
		ID: x.ID.String(), Name: x.Name, State: string(x.State), Audience: x.Audience, Rate: x.Rate, People: x.People,
		Expanded: int(x.Cursor), Skipped: x.Skipped, Legs: []sdk.CampaignLeg{},
		CreatedAt: when(x.CreatedAt), StartedAt: when(x.StartedAt), EndedAt: when(x.EndedAt),
		Actions: campaigns.Actions(x.State),
	}
	if x.TTL > 0 {
		out.TTL = x.TTL.String()
	}
	for _, l := range x.Legs {
		out.Legs = append(out.Legs, sdk.CampaignLeg{
			Channel: channel(l.Channel), Template: l.Template, Version: l.Version, Connector: l.Account,
		})
	}
	return out
}
