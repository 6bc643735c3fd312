package tracing

import (
	"context"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	// followed bounds how many messages a second are traced because their callers are. It is the callers who decide about
	// these: none of them may use up what the others' spans need.
	followed = 100
	// maxState bounds a tracestate that is taken over: W3C Trace Context §3.3.1.5 asks for 512 characters at least.
	maxState = 512
)

// Join returns a context that names the trace of a request's caller, as its headers do (W3C Trace Context). followed
// says that the caller records that trace. A context that has a trace already keeps it: whoever put it there has read
// the headers. Headers that are malformed are as good as none.
func (t *Tracer) Join(ctx context.Context, h http.Header) (joined context.Context, followed bool) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		return ctx, sc.IsSampled()
	}
	// A second traceparent leaves open which one is meant.
	if given := h["Traceparent"]; len(given) != 1 {
		return ctx, false
	}
	own := http.Header{"Traceparent": h["Traceparent"]}
	if s := h["Tracestate"]; len(s) == 1 && len(s[0]) <= maxState {
		own["Tracestate"] = s
	}
	joined = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(own))
	return joined, trace.SpanContextFromContext(joined).IsSampled()
}

// budget counts what is followed in a second.
type budget struct {
	now func() time.Time

	mu     sync.Mutex
	second int64
	used   int
}

func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.now().Unix(); s != b.second {
		b.second, b.used = s, 0
	}
	b.used++
	return b.used <= followed
}
