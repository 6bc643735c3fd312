// Package tracing writes what happens to messages as OpenTelemetry spans.
//
// A message outlives its request by hours, and its retries may happen on another node. So nothing carries its trace along:
// the trace's id is the message's id, and the id of the root span, accept, follows from it. Every node can add a span at
// any time, and whether it does follows from the id too. The trace of the request that brought the message is another
// one; spans of both are linked.
package tracing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/msgctl/msgctl/delivery"
)

const (
	// exportTime bounds one export with its repeats. Spans wait meanwhile, and are dropped when they become too many.
	exportTime = 10 * time.Second
	// flushTime bounds how long Close waits for the last exports.
	flushTime = 3 * time.Second
	// batchTime is how long a span waits at most for others to be exported with.
	batchTime = 2 * time.Second
	// defaultQueue bounds the spans that wait, about 1 KB each.
	defaultQueue = 8192
	// batchSize is how many spans are exported at once.
	batchSize = 512
)

// Options says where spans go, and of what.
type Options struct {
	// Endpoint is the URL of an OTLP receiver over HTTP, such as http://localhost:4318. Without a path, /v1/traces is
	// added. The standard OTEL_EXPORTER_OTLP_… variables apply to it: HEADERS, COMPRESSION, CERTIFICATE and so on.
	Endpoint string
	// Exporter takes spans instead of Endpoint. Close shuts it down.
	Exporter sdktrace.SpanExporter
	// Ratio is the share of messages that are traced, 0 to 1, to 1/65,536. It must be the same on all nodes: otherwise
	// some traces lack the spans of some nodes.
	Ratio   float64
	Node    string
	Version string
	Queue   int // spans that may wait to be exported; more are dropped and counted. 0 = 8,192
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time // nil = time.Now; decides how often a failure is logged, and how many callers are followed
}

// Tracer makes spans. Its methods are safe for concurrent use; none waits for the network but Close.
type Tracer struct {
	threshold uint32
	provider  *sdktrace.TracerProvider
	tracer    trace.Tracer
	queue     *queue
	budget    budget
}

// Open starts to trace. It makes no connection: a receiver that is away shows as a warning in the log and in the metric
// msgctl_spans_total, and costs nothing but spans.
func Open(ctx context.Context, opt Options) (*Tracer, error) {
	if err := CheckRatio(opt.Ratio); err != nil {
		return nil, err
	}
	opt.Log = cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	opt.Queue = cmp.Or(opt.Queue, defaultQueue)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Exporter == nil {
		u, err := Endpoint(opt.Endpoint)
		if err != nil {
			return nil, err
		}
		opt.Exporter, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u), otlptracehttp.WithRetry(
			otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second,
				MaxElapsedTime: exportTime}))
		if err != nil {
			return nil, fmt.Errorf("tracing: %w", err)
		}
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "msgctl"), attribute.String("service.version", opt.Version),
		attribute.String("service.instance.id", opt.Node),
	), resource.WithFromEnv())
	if err != nil && about == nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	if err != nil { // some of it cannot be read
		opt.Log.Warn("OTEL_RESOURCE_ATTRIBUTES cannot be read in full", "err", err)
	}
	t := &Tracer{threshold: thresholdOf(opt.Ratio), queue: newQueue(&opt), budget: budget{now: opt.Now}}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // whoever begins a span has asked Traced before
		sdktrace.WithIDGenerator(ids{}), sdktrace.WithResource(about), sdktrace.WithSpanProcessor(t.queue),
	)
	t.tracer = t.provider.Tracer("github.com/msgctl/msgctl", trace.WithInstrumentationVersion(opt.Version))
	return t, nil
}

// Close exports what waits, for 3 s at most or until ctx ends, and stops. What is left then is lost and counted as
// dropped. It is safe twice, and on nil.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	err := t.queue.Shutdown(ctx) // the provider's own leaves it running when ctx has ended already
	_ = t.provider.Shutdown(context.WithoutCancel(ctx))
	if left := t.queue.stop(); left > 0 && err != nil {
		return fmt.Errorf("tracing: %d spans could not be exported in time", left)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil // nothing is lost
	}
	return err
}

// Root is the context of the root span of a message's trace, for links.
func (t *Tracer) Root(id delivery.MessageID) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(id), SpanID: rootOf(id), TraceFlags: trace.FlagsSampled, Remote: true,
	})
}

// Accepted begins the root span of a message's trace. There is one for each message.
func (t *Tracer) Accepted(id delivery.MessageID, name string, opts ...trace.SpanStartOption) trace.Span {
	ctx := context.WithValue(context.Background(), rootKey{}, id)
	_, span := t.tracer.Start(ctx, name, opts...)
	return span
}

// Step begins another span of a message's trace, a child of the root wherever that was written.
func (t *Tracer) Step(id delivery.MessageID, name string, opts ...trace.SpanStartOption) trace.Span {
	ctx := trace.ContextWithSpanContext(context.Background(), t.Root(id))
	_, span := t.tracer.Start(ctx, name, opts...)
	return span
}

// Batch begins a span about several messages: in the trace of ctx when it has one, else in a trace of its own.
func (t *Tracer) Batch(ctx context.Context, name string, opts ...trace.SpanStartOption) trace.Span {
	_, span := t.tracer.Start(ctx, name, opts...)
	return span
}
