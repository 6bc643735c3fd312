package tracing

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

const (
	givenTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	givenSpan  = "00f067aa0ba902b7"
	sampled    = "00-" + givenTrace + "-" + givenSpan + "-01"
)

func TestJoin(t *testing.T) {
	long := "=" + strings.Repeat("x", 200) + ","
	tr, _ := open(t, 1)
	for name, c := range map[string]struct {
		headers  http.Header
		valid    bool
		followed bool
		state    string
	}{
		"none":               {http.Header{}, false, false, ""},
		"recorded":           {http.Header{"Traceparent": {sampled}}, true, true, ""},
		"not recorded":       {http.Header{"Traceparent": {"00-" + givenTrace + "-" + givenSpan + "-00"}}, true, false, ""},
		"random flag":        {http.Header{"Traceparent": {"00-" + givenTrace + "-" + givenSpan + "-03"}}, true, true, ""},
		"a later version":    {http.Header{"Traceparent": {"cc-" + givenTrace + "-" + givenSpan + "-01-what-comes"}}, true, true, ""},
		"with state":         {http.Header{"Traceparent": {sampled}, "Tracestate": {"a=1,b@c=2"}}, true, true, "a=1,b@c=2"},
		"broken state":       {http.Header{"Traceparent": {sampled}, "Tracestate": {"a=1,a=2"}}, true, true, ""},
		"long state":         {http.Header{"Traceparent": {sampled}, "Tracestate": {strings.Join([]string{"a", "b", "c"}, long) + long[:201]}}, true, true, ""},
		"two states":         {http.Header{"Traceparent": {sampled}, "Tracestate": {"a=1", "b=2"}}, true, true, ""},
		"state alone":        {http.Header{"Tracestate": {"a=1"}}, false, false, ""},
		"version ff":         {http.Header{"Traceparent": {"ff" + sampled[2:]}}, false, false, ""},
		"zero trace":         {http.Header{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-" + givenSpan + "-01"}}, false, false, ""},
		"zero span":          {http.Header{"Traceparent": {"00-" + givenTrace + "-" + strings.Repeat("0", 16) + "-01"}}, false, false, ""},
		"upper case":         {http.Header{"Traceparent": {strings.ToUpper(sampled)}}, false, false, ""},
		"too long":           {http.Header{"Traceparent": {sampled + "-00"}}, false, false, ""},
		"too short":          {http.Header{"Traceparent": {sampled[:54]}}, false, false, ""},
		"no hexadecimal":     {http.Header{"Traceparent": {"00-" + givenTrace[:31] + "g-" + givenSpan + "-01"}}, false, false, ""},
		"other separators":   {http.Header{"Traceparent": {strings.ReplaceAll(sampled, "-", "_")}}, false, false, ""},
		"unknown flags":      {http.Header{"Traceparent": {"00-" + givenTrace + "-" + givenSpan + "-ff"}}, false, false, ""},
		"empty":              {http.Header{"Traceparent": {""}}, false, false, ""},
		"twice":              {http.Header{"Traceparent": {sampled, sampled}}, false, false, ""},
		"control characters": {http.Header{"Traceparent": {sampled + "\r\nx: y"}}, false, false, ""},
		"a megabyte":         {http.Header{"Traceparent": {strings.Repeat(sampled, 20_000)}}, false, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, followed := tr.Join(t.Context(), c.headers)
			sc := trace.SpanContextFromContext(ctx)
			require.Equal(t, c.valid, sc.IsValid())
			require.Equal(t, c.followed, followed)
			require.Equal(t, c.state, sc.TraceState().String())
			if c.valid {
				require.Equal(t, givenTrace, sc.TraceID().String())
				require.Equal(t, givenSpan, sc.SpanID().String())
				require.True(t, sc.IsRemote())
			}
		})
	}
}

// A program that embeds the engine may have read the headers already.
func TestJoinKeepsTheTraceOfTheContext(t *testing.T) {
	tr, _ := open(t, 1)
	own := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1})
	ctx, followed := tr.Join(trace.ContextWithSpanContext(t.Context(), own), http.Header{"Traceparent": {sampled}})
	require.True(t, followed)
	require.Equal(t, own, trace.SpanContextFromContext(ctx))
}

func TestRequestsWithoutATraceCostNothing(t *testing.T) {
	tr, _ := open(t, 1)
	h, ctx := http.Header{"Content-Type": {"application/json"}}, context.Background()
	require.Zero(t, testing.AllocsPerRun(100, func() { tr.Join(ctx, h) }))
}

func FuzzJoin(f *testing.F) {
	tr, _ := open(f, 1)
	f.Add(sampled, "a=1")
	f.Fuzz(func(t *testing.T, parent, state string) {
		ctx, followed := tr.Join(t.Context(), http.Header{"Traceparent": {parent}, "Tracestate": {state}})
		sc := trace.SpanContextFromContext(ctx)
		require.Equal(t, sc.IsValid() && sc.IsSampled(), followed)
		if sc.IsValid() && strings.HasPrefix(parent, "00") {
			require.Len(t, parent, len(sampled))
		}
	})
}
