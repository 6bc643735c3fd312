package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/tracing"
)

// spans keeps what a tracer writes, also after its end.
type spans struct{ *tracetest.InMemoryExporter }

func (spans) Shutdown(context.Context) error { return nil }

// tracedRig is a rig that traces a share of its messages. all ends the pipeline and returns what was written, in the
// order in which it began.
func tracedRig(t *testing.T, ratio float64, f *fake, change func(*rig)) (r *rig, all func() tracetest.SpanStubs) {
	kept := spans{tracetest.NewInMemoryExporter()}
	tracer, err := tracing.Open(t.Context(), tracing.Options{Exporter: kept, Ratio: ratio})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tracer.Close(context.Background())) })
	r = newRig(t, clockwork.NewRealClock(), f, func(r *rig) {
		r.tune = func(o *pipeline.Options) {
			o.Tracer = tracer
			o.Retry = []time.Duration{10 * time.Millisecond}
		}
		if change != nil {
			change(r)
		}
	})
	return r, func() tracetest.SpanStubs {
		r.shutdown()
		require.NoError(t, tracer.Close(context.Background()))
		list := kept.GetSpans()
		slices.SortStableFunc(list, func(a, b tracetest.SpanStub) int {
			if c := a.StartTime.Compare(b.StartTime); c != 0 {
				return c
			}
			return a.EndTime.Compare(b.EndTime)
		})
		return list
	}
}

// of are the spans of a message's trace.
func of(all tracetest.SpanStubs, id delivery.MessageID) (list tracetest.SpanStubs) {
	for _, s := range all {
		if s.SpanContext.TraceID() == trace.TraceID(id) {
			list = append(list, s)
		}
	}
	return list
}

func names(list tracetest.SpanStubs) (names []string) {
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

// attr is an attribute in text form; "" = it is not there.
func attr(s tracetest.SpanStub, key string) string {
	for _, a := range s.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// rootOf is where a message's trace begins. Others may begin in the same moment: clocks have steps.
func rootOf(t *testing.T, list tracetest.SpanStubs) tracetest.SpanStub {
	t.Helper()
	i := slices.IndexFunc(list, func(s tracetest.SpanStub) bool { return s.Name == "accept" })
	require.GreaterOrEqual(t, i, 0)
	require.False(t, list[i].Parent.IsValid())
	return list[i]
}

// requireTree checks that accept is the root of all other spans, and that each ends after it began.
func requireTree(t *testing.T, list tracetest.SpanStubs) {
	t.Helper()
	root := rootOf(t, list)
	for _, s := range list {
		require.False(t, s.EndTime.Before(s.StartTime), s.Name)
		if s.SpanContext.SpanID() != root.SpanContext.SpanID() {
			require.Equal(t, root.SpanContext.SpanID(), s.Parent.SpanID(), s.Name)
		}
	}
}

func TestATraceShowsTheSevenStages(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, nil)
	id := r.accept(1, nil)[0]
	r.await([]delivery.MessageID{id}, delivery.StatusSent)
	require.NoError(t, r.pipe.Report(t.Context(), r.acct, []delivery.Receipt{
		{Message: id, Status: delivery.StatusDelivered, Code: "000", At: r.clock.Now()},
	}))
	got := of(all(), id)
	require.Equal(t, []string{"accept", "plan", "route", "limit", "render", "send", "receipt", "receipt"}, sortedByPath(got))
	requireTree(t, got)
	byName := map[string]tracetest.SpanStub{}
	for _, s := range got {
		if _, ok := byName[s.Name]; !ok {
			byName[s.Name] = s
		}
		require.Equal(t, id.String(), attr(s, "messaging.message.id"))
		require.Equal(t, "acme", attr(s, "msgctl.tenant"))
	}
	send, accept, report := byName["send"], byName["accept"], got[len(got)-1]
	require.Equal(t, trace.SpanKindClient, send.SpanKind)
	require.Equal(t, []string{"fake", "fake", "1", "1", "sms", "normal"}, []string{
		attr(send, "msgctl.connector"), attr(send, "msgctl.connector.kind"), attr(send, "msgctl.attempt"),
		attr(send, "msgctl.claim"), attr(send, "msgctl.channel"), attr(send, "msgctl.lane"),
	})
	require.Equal(t, "queued", attr(accept, "msgctl.outcome"))
	require.Equal(t, "sent", attr(byName["receipt"], "msgctl.outcome"))
	require.Equal(t, "delivered", attr(report, "msgctl.outcome"))
	require.Equal(t, trace.SpanKindConsumer, report.SpanKind)
	require.False(t, report.StartTime.Before(byName["receipt"].StartTime))
	for _, step := range [][2]string{{"plan", "route"}, {"route", "limit"}, {"limit", "render"}, {"render", "send"}, {"send", "receipt"}} {
		require.False(t, byName[step[1]].StartTime.Before(byName[step[0]].EndTime), "%s begins when %s has ended", step[1], step[0])
	}
}

// sortedByPath are the names of spans in the order in which they begin; those that begin at once, as on the path.
func sortedByPath(list tracetest.SpanStubs) []string {
	path := []string{"accept", "plan", "route", "limit", "render", "send", "receipt"}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b tracetest.SpanStub) int {
		if c := a.StartTime.Compare(b.StartTime); c != 0 {
			return c
		}
		return slices.Index(path, a.Name) - slices.Index(path, b.Name)
	})
	return names(list)
}

func TestEveryAttemptIsInTheTrace(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{answer: func(m *delivery.Outgoing, nth int) (delivery.Sent, error) {
		if nth == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.Transient, Code: "busy", Known: true}
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}, nil)
	id := r.accept(1, nil)[0]
	r.await([]delivery.MessageID{id}, delivery.StatusSent)
	got := of(all(), id)
	require.Equal(t, []string{"accept", "plan", "route", "limit", "render", "send", "receipt",
		"route", "limit", "render", "send", "receipt"}, sortedByPath(got))
	requireTree(t, got)
	var sends, receipts tracetest.SpanStubs
	for _, s := range got {
		switch s.Name {
		case "send":
			sends = append(sends, s)
		case "receipt":
			receipts = append(receipts, s)
		}
	}
	require.Equal(t, []string{"1", "2"}, []string{attr(sends[0], "msgctl.attempt"), attr(sends[1], "msgctl.attempt")})
	require.Equal(t, codes.Error, sends[0].Status.Code)
	require.Equal(t, []string{"transient", "busy"}, []string{attr(sends[0], "error.type"), attr(sends[0], "msgctl.reason")})
	require.Equal(t, codes.Unset, sends[1].Status.Code)
	require.Equal(t, []string{"deferred", "busy"}, []string{attr(receipts[0], "msgctl.outcome"), attr(receipts[0], "msgctl.reason")})
	require.NotEmpty(t, attr(receipts[0], "msgctl.until"))
}

func TestWhereATraceEndsEarly(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, nil)
	r.pipe.SetAccounts(nil)
	held := r.accept(1, nil)[0]
	r.await([]delivery.MessageID{held}, delivery.StatusHeld)
	list := all()
	require.Equal(t, []string{"accept", "plan", "route", "receipt"}, sortedByPath(of(list, held)))
	receipt := of(list, held)[3]
	require.Equal(t, []string{"held", "no_connector"}, []string{attr(receipt, "msgctl.outcome"), attr(receipt, "msgctl.reason")})
	requireTree(t, of(list, held))
}

func TestARequestAndItsMessagesAreLinked(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, nil)
	caller := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	ids := r.acceptBy(joined{r.pipe, caller}, 200, nil)
	unrecorded := r.acceptBy(joined{r.pipe, caller.WithTraceFlags(0)}, 1, nil)
	r.await(append(slices.Clone(ids), unrecorded...), delivery.StatusSent)
	list := all()
	var request tracetest.SpanStub
	for _, s := range list {
		if s.SpanContext.TraceID() == caller.TraceID() {
			require.False(t, request.SpanContext.IsValid(), "there is one span of the request, and none where none is recorded")
			request = s
		}
	}
	require.Equal(t, "accept", request.Name)
	require.Equal(t, caller.SpanID(), request.Parent.SpanID())
	require.Equal(t, trace.SpanKindServer, request.SpanKind)
	require.Equal(t, "200", attr(request, "messaging.batch.message_count"))
	require.Len(t, request.Links, 128)
	for i, id := range ids {
		root := rootOf(t, of(list, id))
		require.Len(t, root.Links, 1)
		require.Equal(t, request.SpanContext.SpanID(), root.Links[0].SpanContext.SpanID())
		require.Equal(t, request.SpanContext.TraceID(), root.Links[0].SpanContext.TraceID())
		if i < 128 {
			require.Equal(t, root.SpanContext.SpanID(), request.Links[i].SpanContext.SpanID())
			require.Equal(t, root.SpanContext.TraceID(), request.Links[i].SpanContext.TraceID())
		}
	}
	require.Empty(t, rootOf(t, of(list, unrecorded[0])).Links)

	// Claims and outcomes of several messages are spans of their own, linked to those messages.
	batches := map[string]int{}
	linked := 0
	for _, s := range list {
		if n := attr(s, "messaging.batch.message_count"); n != "" && s.Name != "accept" {
			batches[s.Name]++
			require.False(t, s.Parent.IsValid())
			require.NotEmpty(t, s.Links)
			require.NotEqual(t, "1", n)
			for _, l := range s.Links {
				require.NotEmpty(t, of(list, delivery.MessageID(l.SpanContext.TraceID())))
			}
		} else if s.Name == "route" {
			linked += len(s.Links)
		}
	}
	require.Positive(t, batches["route"])
	require.Positive(t, linked, "and from the message to its claim")
}

// joined accepts on behalf of a caller with a trace.
type joined struct {
	pipe   *pipeline.Pipeline
	caller trace.SpanContext
}

func (j joined) Accept(ctx context.Context, t delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	return j.pipe.Accept(trace.ContextWithRemoteSpanContext(ctx, j.caller), t, a)
}

func TestARequestThatFailsShowsInItsOwnTrace(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, func(r *rig) { r.fault = &faulty{} })
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1})
	_, err := joined{r.pipe, caller}.Accept(t.Context(), "nobody", store.Acceptance{
		Now: r.clock.Now(), Messages: []store.NewMessage{{ID: r.ids.Message()}},
	})
	require.Error(t, err)
	list := all()
	require.Equal(t, []string{"accept"}, names(list))
	require.Equal(t, codes.Error, list[0].Status.Code)
	require.NotContains(t, list[0].Status.Description, "nobody")
}

func TestARepeatedRequestWritesNoSecondRoot(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, nil)
	now := r.clock.Now()
	a := store.Acceptance{Now: now, Key: &store.IdempotencyKey{Route: "r", Key: "k", Expires: now.Add(time.Hour)}}
	var first delivery.MessageID
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1})
	for i := range 2 {
		a.Messages = []store.NewMessage{{
			ID: r.ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal, To: "+12026000000", Segments: 1,
			Payload: []byte(`{"content":{"text":"hello"}}`), DueAt: now, ExpiresAt: now.Add(time.Hour),
		}}
		done, err := joined{r.pipe, caller}.Accept(t.Context(), tenant, a)
		require.NoError(t, err)
		require.Equal(t, i == 1, done.Replayed)
		if i == 0 {
			first = done.Results[0].ID
		}
	}
	r.await([]delivery.MessageID{first}, delivery.StatusSent)
	roots, links := 0, 0
	for _, s := range all() {
		if s.Name == "accept" && s.SpanContext.TraceID() == trace.TraceID(first) {
			roots++
		}
		if s.SpanContext.TraceID() == caller.TraceID() {
			require.Len(t, s.Links, 1)
			require.Equal(t, trace.TraceID(first), s.Links[0].SpanContext.TraceID())
			links++
		}
	}
	require.Equal(t, []int{1, 2}, []int{roots, links})
}

func TestWhatThePlanDecidesIsInTheTrace(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{answer: func(_ *delivery.Outgoing, nth int) (delivery.Sent, error) {
		if nth == 1 {
			return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Known: true}
		}
		return delivery.Sent{}, nil
	}}, nil)
	id := r.accept(1, nil)[0]
	r.await([]delivery.MessageID{id}, delivery.StatusSent)
	got := of(all(), id)
	requireTree(t, got)
	i := slices.IndexFunc(got, func(s tracetest.SpanStub) bool { return s.Name == "plan" && attr(s, "msgctl.outcome") != "" })
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, []string{"queued", "retry_after_doubt"}, []string{attr(got[i], "msgctl.outcome"), attr(got[i], "msgctl.reason")})
}

func TestOnlyTheShareIsTraced(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 0.25, &fake{}, nil)
	ids := r.accept(400, nil)
	r.await(ids, delivery.StatusSent)
	list := all()
	whole := 0
	for _, id := range ids {
		switch got := of(list, id); len(got) {
		case 0:
		default:
			require.Equal(t, []string{"accept", "plan", "route", "limit", "render", "send", "receipt"}, sortedByPath(got),
				"a trace is whole or not there")
			whole++
		}
	}
	require.InDelta(t, 100, whole, 60) // 7 sigmas
	for _, s := range list {
		for _, l := range s.Links {
			require.True(t, len(of(list, delivery.MessageID(l.SpanContext.TraceID()))) > 0 || s.Name == "route", "a link leads nowhere")
		}
	}
}

func TestWhatIsNotTracedAllocatesNothing(t *testing.T) {
	r, _ := tracedRig(t, 0, &fake{}, nil)
	r.shutdown() // so that nothing else allocates
	untraced := func() delivery.MessageID {
		id := r.ids.Message()
		id[9] |= 1 // not the lot that always is
		return id
	}
	batch := r.pipe.TraceBatch(untraced, 256)
	require.Zero(t, testing.AllocsPerRun(10, batch))
}

func TestACampaignsMessagesHaveARoot(t *testing.T) {
	t.Parallel()
	r, all := tracedRig(t, 1, &fake{}, nil)
	ids := r.acceptBy(r.store, 3, nil)
	results := make([]store.AcceptResult, len(ids))
	for i, id := range ids {
		results[i] = store.AcceptResult{ID: id, Status: delivery.StatusQueued}
	}
	r.pipe.Expanded(delivery.Queue{Tenant: tenant, Channel: delivery.SMS, Lane: delivery.Normal}, results)
	r.await(ids, delivery.StatusSent)
	list := all()
	for _, id := range ids {
		requireTree(t, of(list, id))
		require.Len(t, of(list, id), 7)
	}
}

// TestNothingPrivateIsTraced marks all that people and providers may write, and looks for it in the spans.
func TestNothingPrivateIsTraced(t *testing.T) {
	t.Parallel()
	marks := []string{"12026000000", "mirabelle", "quince", "8315550100", "medlar", "persimmon"}
	fail := func(class delivery.Class, code string, known bool) func() (delivery.Sent, error) {
		return func() (delivery.Sent, error) {
			return delivery.Sent{}, &delivery.Failure{
				Class: class, Code: code, Known: known, Detail: "persimmon", Err: errors.New("medlar"), RetryAfter: time.Millisecond,
			}
		}
	}
	answers := []func() (delivery.Sent, error){
		func() (delivery.Sent, error) { return delivery.Sent{ProviderID: "quince", Detail: "persimmon"}, nil },
		fail(delivery.Rejected, "no such user quince", false), fail(delivery.BadRecipient, "8315550100", false),
		fail(delivery.Rejected, "8315550100", true), fail(delivery.Rejected, "quince@medlar", true),
		fail(delivery.Transient, "quince", false), fail(delivery.InDoubt, "quince", false), fail(delivery.Throttled, "quince", false),
		func() (delivery.Sent, error) { panic("medlar") },
	}
	r, all := tracedRig(t, 1, &fake{answer: func(m *delivery.Outgoing, nth int) (delivery.Sent, error) {
		if nth > 1 {
			return delivery.Sent{}, nil
		}
		return answers[int(m.To[len(m.To)-1]-'0')]()
	}}, nil)
	ids := r.accept(len(answers), func(_ int, m *store.NewMessage) {
		m.Payload = []byte(`{"content":{"text":"mirabelle"},"from":"quince"}`)
	})
	r.await(ids, delivery.StatusSent, delivery.StatusFailed, delivery.StatusUndelivered, delivery.StatusSuppressed)
	for _, code := range []string{"8315550100", "quince medlar", "https://quince"} {
		require.NoError(t, r.pipe.Report(t.Context(), r.acct, []delivery.Receipt{
			{Message: ids[0], ProviderID: "quince", Status: delivery.StatusDelivered, Code: code, Detail: "persimmon", At: r.clock.Now()},
		}))
	}
	list := all()
	require.Greater(t, len(list), 7*len(answers))
	for _, s := range list {
		var attrs []attribute.KeyValue
		attrs = append(attrs, s.Attributes...)
		for _, l := range s.Links {
			attrs = append(attrs, l.Attributes...)
		}
		for _, e := range s.Events {
			attrs = append(attrs, e.Attributes...)
		}
		text, err := json.Marshal([]any{s.Name, s.Status, attrs, s.SpanContext.TraceState().String()})
		require.NoError(t, err)
		for _, mark := range marks {
			require.NotContains(t, string(text), mark, s.Name)
		}
	}
}
