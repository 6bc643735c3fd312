package campaigns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// defaultTTL is how long a campaign's message may wait when the campaign does not say.
const defaultTTL = 24 * time.Hour

// The reasons for which a person gets no message. They are part of the API: never change one. A skipped person counts
// in a check or a report, a person left out of the audience counts in the audience.
const (
	skipNoAddress  = reasonNoAddress  // no leg reaches the person
	skipSuppressed = reasonSuppressed // check only: an expansion stores the message as suppressed
	skipMissing    = "missing_variable"
	skipRender     = "render_failed"
)

// legFor chooses how a person is reached: by the channel the person asks for when the campaign has it, else by the
// first leg for which there is an address. ok is false when there is none.
func legFor(p *store.Person, legs []store.Leg) (leg int, to string, ok bool) {
	if p.Channel != 0 {
		for i := range legs {
			if legs[i].Channel == p.Channel {
				if to := address(*p, p.Channel); to != "" {
					return i, to, true
				}
			}
		}
	}
	for i := range legs {
		if to := address(*p, legs[i].Channel); to != "" {
			return i, to, true
		}
	}
	return 0, "", false
}

// The codes of Problem.
const (
	ProblemNoLegs           = "no_legs"
	ProblemTwoLegs          = "channel_twice"
	ProblemTemplateMissing  = "template_missing"
	ProblemTemplateChannel  = "template_channel"
	ProblemTemplateInvalid  = "template_invalid"
	ProblemAccountMissing   = "account_missing"
	ProblemAccountChannel   = "account_channel"
	ProblemAudienceMissing  = "audience_missing"
	ProblemAudienceNotReady = "audience_not_ready"
	ProblemAudienceEmpty    = "audience_empty"
	ProblemMissingVariable  = "missing_variable"
	ProblemRender           = "render_failed"
	ProblemNobody           = "nobody_reached"
)

// plan is a campaign with everything it refers to looked up.
type plan struct {
	legs      []store.Leg      // with pinned versions
	templates []*templates.Set // of legs; nil where there is a problem
	required  [][]string       // variables that each of templates needs
	audience  store.Audience
	problems  []Problem
}

func (p *plan) problem(code, format string, args ...any) {
	p.problems = append(p.problems, Problem{code, fmt.Sprintf(format, args...)})
}

// lookUp finds every problem that can be seen without looking at each person.
func (s *Service) lookUp(ctx context.Context, tenant delivery.TenantID, c store.Campaign) (*plan, error) {
	p := &plan{}
	accounts, err := s.Store.AccountList(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if len(c.Legs) == 0 {
		p.problem(ProblemNoLegs, "the campaign has no template: give it one per channel")
	}
	seen := map[delivery.Channel]bool{}
	for _, leg := range c.Legs {
		if seen[leg.Channel] {
			p.problem(ProblemTwoLegs, "the campaign has two templates for %v: give it one per channel", leg.Channel)
		}
		seen[leg.Channel] = true
		t, err := s.Store.Template(ctx, tenant, leg.Template, leg.Version)
		var compiled *templates.Set
		switch {
		case errors.Is(err, store.ErrNotFound) && leg.Version > 0:
			p.problem(ProblemTemplateMissing, "template %q has no version %d", leg.Template, leg.Version)
		case errors.Is(err, store.ErrNotFound):
			p.problem(ProblemTemplateMissing, "there is no template %q", leg.Template)
		case err != nil:
			return nil, err
		case t.Channel != leg.Channel:
			p.problem(ProblemTemplateChannel, "template %q is for %v, not for %v", leg.Template, t.Channel, leg.Channel)
		default:
			leg.Version = t.Version
			if compiled, err = compile(t); err != nil {
				compiled = nil
				p.problem(ProblemTemplateInvalid, "template %q version %d: %v", t.Name, t.Version, err)
			}
		}
		p.legs = append(p.legs, leg)
		p.templates = append(p.templates, compiled)
		p.required = append(p.required, nil)
		if compiled != nil {
			p.required[len(p.required)-1] = compiled.Required()
		}
		checkAccount(p, leg, accounts)
	}
	a, err := s.Store.Audience(ctx, tenant, c.Audience)
	switch {
	case errors.Is(err, store.ErrNotFound):
		p.problem(ProblemAudienceMissing, "there is no audience %q: import it first", c.Audience)
	case err != nil:
		return nil, err
	case !a.Ready:
		p.problem(ProblemAudienceNotReady,
			"the import of audience %q has not ended: wait for it, or import the file again", c.Audience)
	case a.People == 0:
		p.problem(ProblemAudienceEmpty, "audience %q has no people", c.Audience)
	}
	p.audience = a
	return p, nil
}

// checkAccount looks for a connector. A paused one is none of its business: messages wait for it.
func checkAccount(p *plan, leg store.Leg, accounts []store.Account) {
	if leg.Account != "" {
		a, ok := findAccount(accounts, leg.Account)
		switch {
		case !ok:
			p.problem(ProblemAccountMissing, "there is no connector %q for %v", leg.Account, leg.Channel)
		case a.Channel != leg.Channel:
			p.problem(ProblemAccountChannel, "connector %q is for %v, not for %v", leg.Account, a.Channel, leg.Channel)
		}
		return
	}
	for _, a := range accounts {
		if a.Channel == leg.Channel {
			return
		}
	}
	p.problem(ProblemAccountMissing, "there is no connector for %v: add one", leg.Channel)
}

// findAccount returns an account by name; the tenant's own goes before a shared one.
func findAccount(accounts []store.Account, name string) (found store.Account, ok bool) {
	for _, a := range accounts {
		if a.Name == name && (!ok || a.Tenant != delivery.Shared) {
			found, ok = a, true
		}
	}
	return found, ok
}

func compile(t store.Template) (*templates.Set, error) {
	return templates.CompileSet(source(t))
}

func source(t store.Template) templates.Source {
	return templates.Source{Channel: t.Channel, Text: t.Text, Subject: t.Subject, HTML: t.HTML,
		Approved: t.Approved, Event: t.Event, Data: t.Data}
}
