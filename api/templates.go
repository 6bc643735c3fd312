package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/sms"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// compiled returns the compiled form of a stored template version.
func (a *api) compiled(t delivery.TenantID, row store.Template) (*templates.Set, error) {
	return a.sets.Get(context.Background(), t, row.Name, row.Version, func(context.Context) (templates.Source, error) {
		return sourceOf(row), nil
	})
}

func sourceOf(t store.Template) templates.Source {
	return templates.Source{
		Channel: t.Channel, Text: t.Text, Subject: t.Subject, HTML: t.HTML, Approved: t.Approved, Event: t.Event,
		Data: t.Data,
	}
}

// templateProblem turns an error of the templates package into a problem.
func templateProblem(err error) error {
	var e *templates.Error
	if !errors.As(err, &e) {
		return err
	}
	code := "invalid_template"
	switch e.Code {
	case templates.CodeControl:
		code = "control_character"
	case templates.CodeNotForKind:
		code = "field_not_allowed"
		if strings.Contains(e.Reason, "needs") {
			code = "content_required"
		}
	}
	return failAt(partPointer(e.Part), code, "%s", e.Error())
}

// partPointer turns a part's name into the place of its text in a body.
func partPointer(part string) string {
	if part == "" {
		return ""
	}
	if i, ok := strings.CutPrefix(part, "params["); ok {
		return "/approved/params/" + strings.TrimSuffix(i, "]")
	}
	return "/" + part
}

// putTemplate stores the next version of a template.
func putTemplate(c *call) error {
	if err := checkName("", c.vars[0]); err != nil {
		return err
	}
	var in sdk.TemplateRequest
	if err := c.decodeBody(&in); err != nil {
		return err
	}
	ch, err := delivery.ParseChannel(string(in.Channel))
	if err != nil {
		return failAt("/channel", "invalid_channel", "use sms, whatsapp, email or webhook")
	}
	row := store.Template{
		Name: c.vars[0], Channel: ch, Text: in.Text, Subject: in.Subject, HTML: in.HTML, Event: in.Event, Data: in.Data,
		CreatedAt: c.a.Now(),
	}
	var f faults
	line("/event", in.Event, maxEvent, &f)
	if in.Approved != nil {
		row.Approved = &delivery.ProviderTemplate{Name: in.Approved.Name, Language: in.Approved.Language,
			Params: in.Approved.Params}
		approved(&approvedIn{Name: in.Approved.Name, Language: in.Approved.Language}, &f)
	}
	if err := f.problem(); err != nil {
		return err
	}
	set, err := templates.CompileSet(sourceOf(row))
	if err != nil {
		return templateProblem(err)
	}
	if row.Version, err = c.a.Store.PutTemplate(c.ctx(), c.tenant, row); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return failAt("/channel", "conflict", "the template %s is for another channel: a name keeps its channel", row.Name)
		}
		return err
	}
	return c.json(http.StatusCreated, showTemplate(row, set))
}

// storedTemplate reads a version of the template in the path, 0 = the newest.
func (c *call) storedTemplate(version int) (store.Template, error) {
	row, err := store.Template{}, store.ErrNotFound
	if validName(c.vars[0]) {
		row, err = c.a.Store.Template(c.ctx(), c.tenant, c.vars[0], version)
	}
	if errors.Is(err, store.ErrNotFound) {
		return row, fail("not_found", "there is no such template or version")
	}
	return row, err
}

func getTemplate(c *call) error {
	version, err := c.number("version", 0, 1<<31, 0)
	if err != nil {
		return err
	}
	row, err := c.storedTemplate(int(version))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, c.template(row))
}

func listTemplates(c *call) error {
	list, err := c.a.Store.TemplateList(c.ctx(), c.tenant)
	if err != nil {
		return err
	}
	return page(c, list, func(t store.Template) string { return t.Name }, c.template)
}

func templateVersions(c *call) error {
	if _, err := c.storedTemplate(0); err != nil {
		return err
	}
	list, err := c.a.Store.TemplateVersions(c.ctx(), c.tenant, c.vars[0])
	if err != nil {
		return err
	}
	return page(c, list, func(t store.Template) string { return itoa(t.Version) }, c.template)
}

func (c *call) template(row store.Template) sdk.StoredTemplate {
	set, err := c.a.compiled(c.tenant, row)
	if err != nil {
		set = nil // it was stored by an engine that knew more; its text is shown all the same
	}
	return showTemplate(row, set)
}

func showTemplate(t store.Template, set *templates.Set) sdk.StoredTemplate {
	out := sdk.StoredTemplate{
		Name: t.Name, Version: t.Version, Channel: channel(t.Channel), Text: t.Text, Subject: t.Subject, HTML: t.HTML,
		Approved: showApproved(t.Approved), Event: t.Event, Data: t.Data, CreatedAt: when(t.CreatedAt),
	}
	if set != nil {
		for _, v := range set.Variables() {
			out.Variables = append(out.Variables, sdk.Variable{Name: v.Name, Optional: v.Optional})
		}
	}
	return out
}

func showApproved(p *delivery.ProviderTemplate) *sdk.Approved {
	if p == nil {
		return nil
	}
	return &sdk.Approved{Name: p.Name, Language: p.Language, Params: p.Params}
}

// renderTemplate shows what a template makes of variables. Nothing is sent.
func renderTemplate(c *call) error {
	var in sdk.RenderRequest
	if err := c.decodeOptionalBody(&in); err != nil {
		return err
	}
	if in.Version < 0 {
		return failAt("/version", "invalid_value", "version is 0 (the newest) or more")
	}
	row, err := c.storedTemplate(in.Version)
	if err != nil {
		return err
	}
	set, err := c.a.compiled(c.tenant, row)
	if err != nil {
		return templateProblem(err)
	}
	content, err := set.Render(in.Vars)
	var e *templates.Error
	switch {
	case errors.As(err, &e) && e.Code == templates.CodeMissing:
		return failAt("/vars/"+jsonPointer(e.Variable), "missing_variable", "%s", e.Error())
	case errors.As(err, &e):
		return fail("render_failed", "%s", e.Error())
	case err != nil:
		return err
	}
	out := sdk.Rendered{
		Text: content.Text, Subject: content.Subject, HTML: content.HTML, Approved: showApproved(content.Approved),
		Event: content.Event, Data: content.Data,
	}
	if contentRules[row.Channel].segments {
		n, enc := sms.Count(content.Text)
		out.Segments, out.Encoding = n, enc.String()
	}
	return c.json(http.StatusOK, out)
}
