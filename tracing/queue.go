package tracing

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// warnEvery is how often a receiver that does not take spans is complained of.
const warnEvery = time.Minute

// cutTime is how long an export may take to come back once it has been given up.
const cutTime = time.Second

// queue stands around OpenTelemetry's batch processor, which neither counts what it drops nor gives up an export when it
// is shut down. No span waits for room: one too many is dropped.
type queue struct {
	sdktrace.SpanProcessor
	most    int64
	waiting atomic.Int64 // ended, and neither exported nor failed

	exported, failed, dropped prometheus.Counter

	ctx    context.Context // of exports
	giveUp context.CancelFunc
	once   sync.Once
	done   chan struct{} // closed: nothing is exported any more
}

func newQueue(opt *Options) *queue {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "msgctl_spans_total", Help: "Trace spans by what became of them: exported, failed (the receiver did not take " +
			"them) or dropped (too many were waiting).",
	}, []string{"result"})
	if opt.Metrics != nil {
		opt.Metrics.MustRegister(spans)
	}
	q := &queue{
		most: int64(opt.Queue), done: make(chan struct{}), exported: spans.WithLabelValues("exported"),
		failed: spans.WithLabelValues("failed"), dropped: spans.WithLabelValues("dropped"),
	}
	q.ctx, q.giveUp = context.WithCancel(context.Background())
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(
		&exporter{SpanExporter: opt.Exporter, q: q, log: opt.Log, now: opt.Now},
		sdktrace.WithMaxQueueSize(opt.Queue), sdktrace.WithMaxExportBatchSize(min(batchSize, opt.Queue)),
		sdktrace.WithBatchTimeout(batchTime), sdktrace.WithExportTimeout(exportTime),
	)
	return q
}

// OnEnd implements sdktrace.SpanProcessor.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.waiting.Add(1) > q.most || q.ctx.Err() != nil {
		q.waiting.Add(-1)
		q.dropped.Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// stop gives up the export that is under way after a shutdown, and returns how many spans were lost by that.
func (q *queue) stop() (left int64) {
	q.giveUp()
	q.once.Do(func() {
		cut := time.NewTimer(cutTime)
		defer cut.Stop()
		select { // every further export fails at once
		case <-q.done:
		case <-cut.C: // an exporter that does not heed its context is left to itself
		}
		left = q.waiting.Swap(0)
		q.dropped.Add(float64(left))
	})
	return left
}

// exporter counts what is exported and keeps errors from OpenTelemetry's process-wide handler. The processor calls it
// from one goroutine.
type exporter struct {
	sdktrace.SpanExporter
	q      *queue
	log    *slog.Logger
	now    func() time.Time
	warned time.Time
	lost   int
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.q.ctx, cancel)()
	err := e.q.ctx.Err()
	if err == nil {
		err = e.SpanExporter.ExportSpans(ctx, spans)
	}
	if e.q.ctx.Err() != nil && err != nil {
		return nil // what is left is counted by stop
	}
	e.q.waiting.Add(-int64(len(spans)))
	if err == nil {
		e.q.exported.Add(float64(len(spans)))
		return nil
	}
	e.q.failed.Add(float64(len(spans)))
	e.lost += len(spans)
	if now := e.now(); now.Sub(e.warned) >= warnEvery || now.Before(e.warned) {
		e.log.Warn("spans cannot be exported: telemetry.otlp must be a receiver of OTLP over HTTP, mostly port 4318",
			"spans", e.lost, "err", err)
		e.warned, e.lost = now, 0
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter. It is called once, after the last export.
func (e *exporter) Shutdown(ctx context.Context) error {
	defer close(e.q.done)
	return e.SpanExporter.Shutdown(ctx)
}
