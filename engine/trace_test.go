package engine_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/msgctl/msgctl/cluster"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// spans keeps what an engine writes, also after its end.
type spans struct{ *tracetest.InMemoryExporter }

func newSpans() spans { return spans{tracetest.NewInMemoryExporter()} }

func (spans) Shutdown(context.Context) error { return nil }

// of are the spans of a trace by name; the last of several counts.
func (s spans) of(id string) (by map[string]tracetest.SpanStub, n int) {
	by = map[string]tracetest.SpanStub{}
	for _, one := range s.GetSpans() {
		if one.SpanContext.TraceID().String() == id {
			by[one.Name] = one
			n++
		}
	}
	return by, n
}

func traced(s spans, sample float64) engine.TelemetryConfig {
	return engine.TelemetryConfig{Exporter: s, Sample: &sample}
}

// TestTheTraceFromTheCallToTheReceipt follows messages of a program with OpenTelemetry of its own, through an engine that
// traces nothing by itself.
func TestTheTraceFromTheCallToTheReceipt(t *testing.T) {
	t.Parallel()
	kept := newSpans()
	b := newBox(t, func(o *sandbox.Options) {
		o.ReceiptDelay = 100 * time.Millisecond
		o.Engine = func(c *engine.Config) { c.Telemetry = traced(kept, 0) }
	})
	own := sdktrace.NewTracerProvider().Tracer("shop")
	client := sdk.New(sdk.WithURL(b.URL), sdk.WithKey(b.Key), sdk.WithTracing(func(ctx context.Context, h http.Header) {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
		h.Set("Authorization", "nobody")
		h.Set("Baggage", "quince=1")
	}))
	defer client.Close()
	ctx, call := own.Start(t.Context(), "order shipped")
	sent := map[string]*sdk.Message{}
	for _, m := range []sdk.Sendable{
		sdk.SMS{To: "+1" + canaryPhone + "00", Text: canaryText}, sdk.WhatsApp{To: "+1" + canaryPhone + "00", Text: canaryText},
		sdk.Email{To: "delivered+" + canaryEmail + "@sim.test", Subject: canaryText, Text: canaryText},
		sdk.Hook{URL: b.Sim.URL() + "/sim/hook/200/" + canaryHook, Event: "a", Data: canaryText},
	} {
		got, err := client.Send(ctx, m)
		require.NoError(t, err)
		sent[string(got.Channel)] = got
	}
	call.End()
	quiet, err := client.Send(t.Context(), sdk.SMS{To: "+1" + canaryPhone + "00", Text: canaryText})
	require.NoError(t, err)
	for _, m := range sent {
		b.until("it is delivered", func() bool {
			m, err := client.Messages.Get(b.ctx, m.ID)
			return err == nil && (m.Status == sdk.Delivered || m.Status == sdk.Read || m.Channel != sdk.ChannelSMS && m.Status == sdk.Sent)
		})
	}
	require.NoError(t, b.Engine.Close())

	for channel, m := range sent {
		by, n := kept.of(m.TraceID())
		require.GreaterOrEqual(t, n, 7, channel)
		root := by["accept"]
		for _, stage := range []string{"plan", "route", "limit", "render", "send", "receipt"} {
			require.Equal(t, root.SpanContext.SpanID(), by[stage].Parent.SpanID(), "%s: %s", channel, stage)
		}
		require.Len(t, root.Links, 1)
		require.Equal(t, call.SpanContext().TraceID(), root.Links[0].SpanContext.TraceID(), "the message leads to its request")
		found := false
		for _, s := range kept.GetSpans() {
			if s.SpanContext.SpanID() == root.Links[0].SpanContext.SpanID() {
				found = true
				require.Equal(t, call.SpanContext().SpanID(), s.Parent.SpanID(), "the request is part of the call")
				require.Equal(t, root.SpanContext.TraceID(), s.Links[0].SpanContext.TraceID(), "and leads to the message")
			}
		}
		require.True(t, found)
	}
	reported := false
	for _, s := range kept.GetSpans() {
		if s.SpanContext.TraceID().String() != sent["sms"].TraceID() {
			continue
		}
		reported = reported || s.SpanKind == trace.SpanKindConsumer
		for _, a := range s.Attributes { // a report that was faster than the store is part of the settlement
			reported = reported || a.Key == "msgctl.status" && a.Value.AsString() == "delivered"
		}
	}
	require.True(t, reported, "the report of the provider is in it")
	if quiet.TraceID()[18:22] != "0000" { // the one lot in 65,536 that always is
		_, n := kept.of(quiet.TraceID())
		require.Zero(t, n, "nobody follows this one, and the share is none")
	}
	for _, s := range kept.GetSpans() {
		text, err := json.Marshal([]any{s.Name, s.Status, s.Attributes, s.Events, s.Resource.Attributes()})
		require.NoError(t, err)
		for _, mark := range []string{canaryPhone, canaryEmail, canaryHook, canaryText, "quince"} {
			require.NotContains(t, string(text), mark)
		}
	}
}

func TestTheMessagesOfACampaignAreTraced(t *testing.T) {
	t.Parallel()
	kept := newSpans()
	b := newBox(t, func(o *sandbox.Options) {
		o.Engine = func(c *engine.Config) { c.Telemetry = traced(kept, 1) }
	})
	csv := "phone\n+12025550100\n+12025550102\n"
	require.Equal(t, 201, b.do("POST", "/v1/audiences/a/import", "text/csv", strings.NewReader(csv), nil).status)
	_, err := b.Client.Templates.Put(b.ctx, "t", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hi"})
	require.NoError(t, err)
	_, err = b.Client.Campaigns.Create(b.ctx, sdk.CampaignRequest{Name: "c", Audience: "a", Templates: []string{"t"}})
	require.NoError(t, err)
	_, err = b.Client.Campaigns.Start(b.ctx, "c")
	require.NoError(t, err)
	var ids []string
	b.until("all have been sent", func() bool {
		ids = nil
		for m, err := range b.Client.Messages.All(b.ctx, sdk.MessageQuery{}) {
			if err != nil || m.Status == sdk.Queued || m.Status == sdk.Sending {
				return false
			}
			ids = append(ids, m.TraceID())
		}
		return len(ids) == 2
	})
	require.NoError(t, b.Engine.Close())
	for _, id := range ids {
		by, _ := kept.of(id)
		require.Contains(t, by, "send")
		require.Equal(t, by["accept"].SpanContext.SpanID(), by["send"].Parent.SpanID())
	}
}

func TestTwoEnginesWriteOneTrace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := map[string]spans{"a": newSpans(), "b": newSpans()}
	with := func(name string, roles ...string) *member {
		return r.begin(name, func(c *engine.Config) { c.Telemetry = traced(at[name], 1) }, withRoles(roles...))
	}
	a, b := with("a", cluster.API), with("b", cluster.API, cluster.Deliver, cluster.Schedule, cluster.Webhook)
	r.connect(r.client(a), nil)
	m, err := r.client(a).Send(t.Context(), sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	eventually(t, "it is sent", func() bool { return r.provider.total() == 1 })
	eventually(t, "and settled", func() bool {
		got, err := r.client(a).Messages.Get(t.Context(), m.ID)
		return err == nil && got.Status == sdk.Sent
	})
	require.NoError(t, b.Close())
	require.NoError(t, a.Close())
	accepted, n := at["a"].of(m.TraceID())
	require.Equal(t, 1, n)
	delivered, n := at["b"].of(m.TraceID())
	require.Equal(t, 6, n)
	for stage, s := range delivered {
		require.Equal(t, accepted["accept"].SpanContext.SpanID(), s.Parent.SpanID(), stage)
		require.Contains(t, s.Resource.String(), "service.instance.id=b")
	}
}

func TestHostileTraceHeadersChangeNothing(t *testing.T) {
	t.Parallel()
	kept := newSpans()
	b := newBox(t, func(o *sandbox.Options) {
		o.Engine = func(c *engine.Config) { c.Telemetry = traced(kept, 0) }
	})
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, header := range []http.Header{
		{"Traceparent": {"ff" + good[2:]}}, {"Traceparent": {strings.ToUpper(good)}}, {"Traceparent": {good, good}},
		{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}}, {"Traceparent": {good + "-1"}},
		{"Traceparent": {strings.Repeat("0", 4000)}}, {"Traceparent": {""}}, {"Tracestate": {"a=1"}},
	} {
		header.Set("Authorization", "Bearer "+b.Key)
		got := b.do("POST", "/v1/messages", "application/json", strings.NewReader(`{"channel":"sms","to":"+12025550100","text":"hi"}`), header)
		require.Equal(t, http.StatusAccepted, got.status, header)
	}
	// And one that is good, with a batch: what is wrong about the others is not that nobody looks.
	header := http.Header{"Traceparent": {good}, "Authorization": {"Bearer " + b.Key}}
	rows := strings.Repeat(`{"channel":"sms","to":"+12025550100","text":"hi"}`+"\n", 3)
	got := b.do("POST", "/v1/messages/batch", "application/x-ndjson", strings.NewReader(rows), header)
	require.Equal(t, http.StatusOK, got.status)
	b.settle()
	require.NoError(t, b.Engine.Close())
	by, n := kept.of("4bf92f3577b34da6a3ce929d0e0e4736")
	require.Equal(t, 1, n)
	require.Len(t, by["accept"].Links, 3)
}

func TestTelemetryThatCannotBe(t *testing.T) {
	t.Parallel()
	share := func(f float64) *float64 { return &f }
	for want, c := range map[string]engine.TelemetryConfig{
		"telemetry.otlp: the URL needs http:// or https://": {OTLP: "localhost:4318"},
		"telemetry.otlp: the URL holds a user":              {OTLP: "http://a:b@host:4318"},
		"telemetry.sample: 1.5 is not a share":              {Sample: share(1.5)},
		"telemetry.sample: -1 is not a share":               {Sample: share(-1)},
	} {
		_, err := engine.New(engine.Config{Dir: t.TempDir(), Telemetry: c})
		require.ErrorContains(t, err, want)
	}
}

// TestAReceiverThatIsAwayHoldsUpNothing: messages go, and the engine ends in its time.
func TestAReceiverThatIsAwayHoldsUpNothing(t *testing.T) {
	t.Parallel()
	e, err := engine.New(engine.Config{Dir: t.TempDir(), Telemetry: engine.TelemetryConfig{OTLP: "http://127.0.0.1:1"}}, kind())
	require.NoError(t, err)
	require.NoError(t, e.Start(t.Context()))
	c, err := e.Client("acme")
	require.NoError(t, err)
	_, err = c.Connectors.Put(t.Context(), "main", sdk.ConnectorRequest{Kind: "taker"})
	require.NoError(t, err)
	m, err := c.Send(t.Context(), sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		got, err := c.Messages.Get(t.Context(), m.ID)
		return err == nil && got.Status == sdk.Sent
	}, patience, time.Millisecond)
	require.NoError(t, e.Close())
}
