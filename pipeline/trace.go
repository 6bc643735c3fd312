package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A message's trace shows the seven stages as spans of the same names, all children of accept: it is read from top to
// bottom, and what one node writes never waits for what another one has. The spans of a claim are written when its
// outcome is; until then a traced message carries its times (track). What a message waits for between two claims stands
// in the receipt span before the gap, as the outcome, its reason and its time. A trace is a picture of a sample: it may
// lack spans of a node that was killed. What a message is said to have gone through is in its history.
//
// Attributes never hold addresses, contents, nor texts of providers.

// Tracer makes spans of messages. Nothing in it waits.
type Tracer interface {
	// Traced reports whether a message is traced. It is asked about every message.
	Traced(id delivery.MessageID) bool
	// Root is the context of a message's root span, whether or where that was written.
	Root(id delivery.MessageID) trace.SpanContext
	// Accepted begins the root span of a message's trace.
	Accepted(id delivery.MessageID, name string, opts ...trace.SpanStartOption) trace.Span
	// Step begins another span of it.
	Step(id delivery.MessageID, name string, opts ...trace.SpanStartOption) trace.Span
	// Batch begins a span about several messages, in the trace of ctx or in one of its own.
	Batch(ctx context.Context, name string, opts ...trace.SpanStartOption) trace.Span
}

// maxLinks bounds the links of a span, as OpenTelemetry does.
const maxLinks = 128

// track is what a traced message has gone through since its claim.
type track struct {
	claimed time.Time   // route began
	routed  time.Time   // route ended
	batch   trace.Link  // the claim that it was part of
	steps   []trackStep // render and send, as far as it came
	done    time.Time   // its outcome was decided
}

type trackStep struct {
	stage    string
	from, to time.Time
}

// traced reports whether a message is traced.
func (p *Pipeline) traced(id delivery.MessageID) bool {
	return p.opt.Tracer != nil && p.opt.Tracer.Traced(id)
}

// span writes a span that has ended. It never ends before it began: clocks are set, and those of nodes differ.
func span(s trace.Span, from, to time.Time) {
	if to.Before(from) {
		to = from
	}
	s.End(trace.WithTimestamp(to))
}

// about describes a message of a queue.
func about(id delivery.MessageID, q delivery.Queue) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.message.id", id.String()), attribute.String("msgctl.tenant", string(q.Tenant)),
		attribute.String("msgctl.channel", q.Channel.String()), attribute.String("msgctl.lane", q.Lane.String()),
	}
}

// outcomeOf describes what became of it.
func outcomeOf(s delivery.Status, reason string) []attribute.KeyValue {
	a := []attribute.KeyValue{attribute.String("msgctl.outcome", s.String())}
	if reason != "" {
		a = append(a, attribute.String("msgctl.reason", safeCode(reason)))
	}
	return a
}

// safeCode is a reason or code as it may be shown: providers write some of them, and might write anything.
func safeCode(code string) string {
	digits := 0
	for _, r := range code {
		if r >= '0' && r <= '9' {
			digits++
		} else if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("_-.", r)) {
			return "unknown"
		}
	}
	if len(code) > 40 || digits > 6 { // more could be a phone number
		return "unknown"
	}
	return code
}

// ---- accept

// traceAccept writes the root spans of messages that have been stored, and, when the request has a trace that is
// recorded, a span in that one. They are linked both ways.
func (p *Pipeline) traceAccept(
	ctx context.Context, tenant delivery.TenantID, a store.Acceptance, done store.Accepted, failed error,
) {
	from, to := a.Now.Truncate(time.Millisecond), p.clock.Now() // as the store keeps it, for the plan span
	var request trace.Span
	var back []trace.Link // to the request
	if trace.SpanContextFromContext(ctx).IsSampled() {
		request = p.opt.Tracer.Batch(ctx, "accept", trace.WithTimestamp(from), trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("msgctl.tenant", string(tenant)),
				attribute.Int("messaging.batch.message_count", len(a.Messages)),
				attribute.Bool("msgctl.replayed", done.Replayed)))
		back = []trace.Link{{SpanContext: request.SpanContext()}}
	}
	links := 0
	for i := range done.Results {
		r := &done.Results[i]
		if !p.opt.Tracer.Traced(r.ID) {
			continue
		}
		if links++; request != nil && links <= maxLinks {
			request.AddLink(trace.Link{SpanContext: p.opt.Tracer.Root(r.ID)})
		}
		if done.Replayed { // its root has been written
			continue
		}
		m := &a.Messages[i]
		p.traceAccepted(r, delivery.Queue{Tenant: tenant, Channel: m.Channel, Lane: m.Lane}, back, from, to)
	}
	if request != nil {
		if failed != nil {
			request.SetStatus(codes.Error, "nothing was stored")
		}
		span(request, from, to)
	}
}

func (p *Pipeline) traceAccepted(r *store.AcceptResult, q delivery.Queue, links []trace.Link, from, to time.Time) {
	s := p.opt.Tracer.Accepted(r.ID, "accept", trace.WithTimestamp(from), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithLinks(links...), trace.WithAttributes(append(about(r.ID, q), outcomeOf(r.Status, r.Reason)...)...))
	span(s, from, to)
}

// Expanded hints at messages of one queue that became durable as a slice of a campaign.
func (p *Pipeline) Expanded(q delivery.Queue, results []store.AcceptResult) {
	ids := make([]delivery.MessageID, 0, len(results))
	for i := range results {
		r := &results[i]
		if r.Status == delivery.StatusQueued {
			ids = append(ids, r.ID)
		}
		if p.traced(r.ID) {
			p.traceAccepted(r, q, nil, r.ID.Time(), p.clock.Now())
		}
	}
	if len(ids) > 0 {
		p.Hint(q, ids)
	}
}

// ---- plan, route

// trackClaimed makes the traced messages of a claim carry their times. The claim itself is a span of its own, unless it
// is of one message.
func (p *Pipeline) trackClaimed(claimed []passage, from time.Time) {
	if p.opt.Tracer == nil {
		return
	}
	to := p.clock.Now()
	var batch trace.Link
	if links := p.links(len(claimed), func(i int) delivery.MessageID { return claimed[i].ID }); len(links) > 0 {
		batch.SpanContext = p.traceBatch("route", len(claimed), links, from, to)
	}
	for i := range claimed {
		if m := &claimed[i]; p.opt.Tracer.Traced(m.ID) {
			m.track = &track{claimed: from, batch: batch}
		}
	}
}

// links lists the traced ones of n messages of a batch; none when it is no batch.
func (p *Pipeline) links(n int, id func(i int) delivery.MessageID) (links []trace.Link) {
	if n < 2 {
		return nil
	}
	for i := range n {
		if id := id(i); p.opt.Tracer.Traced(id) && len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: p.opt.Tracer.Root(id)})
		}
	}
	return links
}

func (p *Pipeline) traceBatch(stage string, n int, links []trace.Link, from, to time.Time) trace.SpanContext {
	s := p.opt.Tracer.Batch(context.Background(), stage, trace.WithTimestamp(from), trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("messaging.batch.message_count", n)))
	span(s, from, to)
	return s.SpanContext()
}

// ---- limit, render, send

// step books a stage that a worker has taken the message through.
func (t *track) step(stage string, from, to time.Time) {
	t.steps = append(t.steps, trackStep{stage, from, to})
}

// ---- receipt

// traceSettled writes the spans of a batch of claims whose outcomes have been written between two times.
func (p *Pipeline) traceSettled(batch []*passage, settled []store.Settled, from, to time.Time) {
	links := p.links(len(batch), func(i int) delivery.MessageID { return batch[i].ID })
	if len(links) > 0 {
		p.traceBatch("receipt", len(batch), links, from, to)
	}
	for i, m := range batch {
		if m.track != nil {
			p.traceClaim(m, settled[i], to)
		}
	}
}

// traceClaim writes the spans of one claim.
func (p *Pipeline) traceClaim(m *passage, settled store.Settled, to time.Time) {
	t := m.track
	attrs := append(about(m.ID, m.Queue), attribute.Int("msgctl.claim", m.Epoch))
	if m.account != nil {
		attrs = append(attrs, attribute.String("msgctl.connector", m.account.Name),
			attribute.String("msgctl.connector.kind", m.account.Kind.Name))
	}
	attrs = slices.Clip(attrs)
	write := func(stage string, from, to time.Time, kind trace.SpanKind, more []attribute.KeyValue, links ...trace.Link) {
		s := p.opt.Tracer.Step(m.ID, stage, trace.WithTimestamp(from), trace.WithSpanKind(kind), trace.WithLinks(links...),
			trace.WithAttributes(append(attrs, more...)...))
		if f := m.failure; f != nil && stage == "send" {
			s.SetStatus(codes.Error, f.Class.String())
		}
		span(s, from, to)
	}
	if m.Epoch == 1 { // when a later claim became due is not known
		write("plan", m.AcceptedAt, t.claimed, trace.SpanKindInternal, nil)
	}
	var of []trace.Link
	if t.batch.SpanContext.IsValid() {
		of = []trace.Link{t.batch}
	}
	routed := t.routed
	if routed.IsZero() { // it had nowhere to go
		routed = t.done
	}
	write("route", t.claimed, routed, trace.SpanKindInternal, nil, of...)
	switch {
	case !m.began.IsZero():
		write("limit", routed, m.began, trace.SpanKindInternal, nil)
	case !t.routed.IsZero():
		write("limit", routed, t.done, trace.SpanKindInternal, nil)
	}
	for _, s := range t.steps {
		if s.stage != "send" {
			write(s.stage, s.from, s.to, trace.SpanKindInternal, nil)
			continue
		}
		if m.journal == nil { // no attempt was made
			continue
		}
		attempt := []attribute.KeyValue{attribute.Int("msgctl.attempt", m.Attempts+1)}
		if f := m.failure; f != nil {
			attempt = append(attempt, attribute.String("error.type", f.Class.String()),
				attribute.String("msgctl.reason", safeCode(knownCode(f))))
		}
		write(s.stage, s.from, s.to, trace.SpanKindClient, attempt)
	}
	what := outcomeOf(m.outcome.Status, m.outcome.Reason)
	if m.failure != nil && !m.failure.Known && m.outcome.Reason == m.failure.Code {
		what = outcomeOf(m.outcome.Status, "unknown")
	}
	if settled.Status != 0 && settled.Status != m.outcome.Status { // a report was there before, or somebody else
		what = append(what, attribute.String("msgctl.status", settled.Status.String()))
	}
	if !m.outcome.Until.IsZero() {
		what = append(what, attribute.String("msgctl.until", m.outcome.Until.UTC().Format(time.RFC3339Nano)))
	}
	write("receipt", t.done, to, trace.SpanKindInternal, append(what, attribute.Bool("msgctl.applied", settled.Applied)))
}

// traceReport writes the span of a provider's report on a message.
func (p *Pipeline) traceReport(r store.Reported, said delivery.Receipt, connector string, from time.Time) {
	if r.Message.IsZero() || !p.traced(r.Message) {
		return
	}
	attrs := append(outcomeOf(said.Status, said.Code), attribute.String("messaging.message.id", r.Message.String()),
		attribute.String("msgctl.tenant", string(r.Tenant)), attribute.String("msgctl.connector", connector),
		attribute.String("msgctl.status", r.Status.String()), attribute.Bool("msgctl.applied", r.Changed))
	s := p.opt.Tracer.Step(r.Message, "receipt", trace.WithTimestamp(from), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attrs...))
	span(s, from, p.clock.Now())
}

// tracePlan writes the span of what the sweeper has decided about an overdue message: from when it was due until now.
func (p *Pipeline) tracePlan(o store.Overdue, out store.Outcome, now time.Time) {
	if !p.traced(o.ID) {
		return
	}
	attrs := append(about(o.ID, o.Queue), attribute.Int("msgctl.claim", o.Epoch))
	s := p.opt.Tracer.Step(o.ID, "plan", trace.WithTimestamp(o.DueAt),
		trace.WithAttributes(append(attrs, outcomeOf(out.Status, out.Reason)...)...))
	span(s, o.DueAt, now)
}
