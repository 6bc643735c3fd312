package tracing

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
)

func open(t testing.TB, ratio float64, change ...func(*Options)) (*Tracer, *tracetest.InMemoryExporter) {
	kept := &keeper{InMemoryExporter: tracetest.NewInMemoryExporter()}
	opt := Options{Exporter: kept, Ratio: ratio, Node: "a", Version: "1"}
	for _, f := range change {
		f(&opt)
	}
	tr, err := Open(t.Context(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tr.Close(t.Context()) })
	return tr, kept.InMemoryExporter
}

func drawID() *rapid.Generator[delivery.MessageID] {
	return rapid.Custom(func(t *rapid.T) delivery.MessageID {
		id := delivery.MessageID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		id[6], id[8] = id[6]&0xf|0x70, id[8]&0x3f|0x80
		return id
	})
}

func TestAllNodesAgreeAndMoreIsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := drawID().Draw(t, "message")
		low := rapid.Float64Range(0, 1).Draw(t, "low")
		high := rapid.Float64Range(low, 1).Draw(t, "high")
		a, b, c := &Tracer{threshold: thresholdOf(low)}, &Tracer{threshold: thresholdOf(low)}, &Tracer{threshold: thresholdOf(high)}
		require.Equal(t, a.Traced(id), b.Traced(id))
		if a.Traced(id) {
			require.True(t, c.Traced(id), "what a small share holds, a larger one holds too")
		}
		require.True(t, (&Tracer{threshold: thresholdOf(1)}).Traced(id))
	})
}

// The ids of the engine itself, made in one go as for a batch: their first half hardly differs.
func TestTheShareIsTheRatio(t *testing.T) {
	made := delivery.NewIDs(time.Now)
	const n = 40_000
	for _, ratio := range []float64{0, 0.01, 0.3, 0.5, 0.9, 1} {
		tr, got := &Tracer{threshold: thresholdOf(ratio)}, 0.0
		for range n {
			if tr.Traced(made.Message()) {
				got++
			}
		}
		spread := 6*math.Sqrt(ratio*(1-ratio)/n) + 0.0005 // six sigmas
		require.InDelta(t, ratio, got/n, spread)
	}
}

func TestRatiosThatAreNone(t *testing.T) {
	for _, r := range []float64{-0.01, 1.01, math.NaN(), math.Inf(1)} {
		_, err := Open(t.Context(), Options{Exporter: tracetest.NewInMemoryExporter(), Ratio: r})
		require.ErrorContains(t, err, "use a number from 0 to 1")
	}
}

func TestFollowedMessagesAreTracedWhateverTheRatio(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	tr, _ := open(t, 0, func(o *Options) { o.Now = func() time.Time { return now } })
	made := delivery.NewIDs(time.Now)
	follow := func(n int) (traced int) {
		seen := map[delivery.MessageID]bool{}
		for range n {
			was := made.Message()
			id := tr.Follow(was)
			if tr.Traced(id) {
				traced++
			} else {
				require.Equal(t, was, id)
			}
			require.Equal(t, was[:luckAt], id[:luckAt], "it is as old, and of its version")
			require.Equal(t, was[luckAt+2:], id[luckAt+2:], "the row of a batch stands there")
			seen[id] = true
		}
		require.Len(t, seen, n)
		return traced
	}
	require.InDelta(t, followed, follow(3*followed), 2, "callers do not decide about all that is traced")
	now = now.Add(time.Second)
	require.InDelta(t, followed, follow(3*followed), 2)
}

func TestRootsFollowFromMessages(t *testing.T) {
	tr, kept := open(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		id := drawID().Draw(rt, "message")
		root := tr.Root(id)
		require.True(rt, root.IsValid() && root.IsSampled())
		kept.Reset()
		tr.Step(id, "send").End() // before its root: another node may be faster to export
		tr.Accepted(id, "accept").End()
		other := tr.Batch(t.Context(), "route")
		other.End()
		require.NoError(rt, tr.provider.ForceFlush(t.Context()))
		spans := kept.GetSpans()
		require.Len(rt, spans, 3)
		require.Equal(rt, root.SpanID(), spans[0].Parent.SpanID())
		require.Equal(rt, root.TraceID(), spans[0].SpanContext.TraceID())
		require.Equal(rt, root.SpanID(), spans[1].SpanContext.SpanID())
		require.Equal(rt, root.TraceID(), spans[1].SpanContext.TraceID())
		require.False(rt, spans[1].Parent.IsValid())
		require.NotEqual(rt, root.SpanID(), spans[0].SpanContext.SpanID())
		require.NotEqual(rt, root.TraceID(), spans[2].SpanContext.TraceID())
	})
	require.True(t, tr.Root(delivery.MessageID{1}).IsValid(), "also of an id that is none of ours")
}

func TestWhatIsNotTracedCostsNothing(t *testing.T) {
	tr, _ := open(t, 0)
	id := delivery.MessageID{9: 1}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if tr.Traced(id) {
			panic("it is not")
		}
	}))
}

func BenchmarkTraced(b *testing.B) {
	tr, _ := open(b, 0.01)
	id := delivery.MessageID{9: 0xff}
	for b.Loop() {
		if tr.Traced(id) {
			b.Fatal("it is not")
		}
	}
}

// BenchmarkStep is a span with what it is described by, from its beginning until it waits to be exported.
func BenchmarkStep(b *testing.B) {
	tr, _ := open(b, 1)
	id := delivery.NewIDs(time.Now).Message()
	attrs := make([]attribute.KeyValue, 8)
	for i := range attrs {
		attrs[i] = attribute.String("msgctl.attribute", "value")
	}
	b.ReportAllocs()
	for b.Loop() {
		tr.Step(id, "send", trace.WithAttributes(attrs...)).End()
	}
}
