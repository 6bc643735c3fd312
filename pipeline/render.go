package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sms"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// ReasonRenderFailed is why a message fails whose template cannot be rendered with its variables.
const ReasonRenderFailed = "render_failed"

// maxSegments bounds the parts of one SMS, as accept does for texts that it can see.
const maxSegments = 10

// render turns what the sender asked for into what the channel carries. Its result depends on nothing but the stored
// draft and the pinned template version: a second attempt carries the same content.
func (p *Pipeline) render(m *passage, _ time.Time) {
	fail := func(code, detail string) {
		m.end(store.Outcome{Status: delivery.StatusFailed, Reason: code, Detail: detail})
	}
	if err := json.Unmarshal(m.Payload, &m.draft); err != nil {
		p.log.Error("a stored draft cannot be read", "message", m.ID.String(), "err", err)
		fail("internal_error", "the stored draft cannot be read")
		return
	}
	m.out = delivery.Outgoing{
		ID: m.ID, Tenant: m.Queue.Tenant, Channel: m.Queue.Channel, Attempt: m.Attempts + 1,
		PossibleDuplicate: m.PossibleDuplicate, To: m.To, From: m.draft.From, Segments: 1, ExpiresAt: m.ExpiresAt,
	}
	if m.draft.Template == "" && m.draft.Content != nil {
		m.out.Content = *m.draft.Content
	} else {
		content, err := p.rendered(m)
		var wrong *templates.Error
		if errors.As(err, &wrong) {
			fail(ReasonRenderFailed, clip(m.draft.Template+": "+wrong.Error()))
			return
		}
		if err != nil {
			p.log.Warn("a template cannot be read", "template", m.draft.Template, "err", err)
			m.hold("template_unavailable", "the template cannot be read now", p.clock.Now().Add(5*time.Second))
			return
		}
		if x := m.draft.Content; x != nil { // what a template does not have
			content.ReplyTo, content.Headers, content.UnsubscribeURL = x.ReplyTo, x.Headers, x.UnsubscribeURL
		}
		m.out.Content = content
		m.content = m.draft.Template + " v" + strconv.Itoa(m.draft.Version)
	}
	if m.Queue.Channel == delivery.SMS {
		var enc sms.Encoding
		if m.out.Segments, enc = sms.Count(m.out.Content.Text); m.out.Segments > maxSegments {
			fail("too_many_segments", fmt.Sprintf("the text needs %d segments in %s; %d is the most", m.out.Segments, enc, maxSegments))
		}
	}
}

// rendered renders the passage's template.
func (p *Pipeline) rendered(m *passage) (delivery.Content, error) {
	tenant, name, version := m.Queue.Tenant, m.draft.Template, m.draft.Version
	set, err := p.opt.Templates.Get(p.ctx, tenant, name, version, func(ctx context.Context) (templates.Source, error) {
		t, err := p.store.Template(ctx, tenant, name, version)
		return templates.Source{
			Channel: t.Channel, Text: t.Text, Subject: t.Subject, HTML: t.HTML, Approved: t.Approved, Event: t.Event, Data: t.Data,
		}, err
	})
	if errors.Is(err, store.ErrNotFound) {
		return delivery.Content{}, &templates.Error{Code: "not_found", Reason: fmt.Sprintf("version %d is gone", version)}
	}
	if err != nil {
		return delivery.Content{}, err
	}
	return set.Render(m.draft.Vars)
}

// clip bounds a text that is kept with a message.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xc0 == 0x80 { // not inside a character
		cut--
	}
	return s[:cut] + "…"
}
