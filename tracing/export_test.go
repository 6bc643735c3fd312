package tracing

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/msgctl/msgctl/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keeper keeps spans after its shutdown.
type keeper struct{ *tracetest.InMemoryExporter }

func (keeper) Shutdown(context.Context) error { return nil }

// collector is an OTLP receiver that decodes what it gets.
type collector struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []string
	auth    string
	service map[string]string
}

func newCollector(t *testing.T) *collector {
	c := &collector{service: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in coltrace.ExportTraceServiceRequest
		if r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &in) != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.auth = r.Header.Get("Authorization")
		for _, of := range in.GetResourceSpans() {
			for _, a := range of.GetResource().GetAttributes() {
				c.service[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range of.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					c.spans = append(c.spans, s.GetName())
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (q *queue) counts() (exported, failed, dropped int) {
	value := func(c prometheus.Counter) int {
		var m dto.Metric
		_ = c.Write(&m)
		return int(m.GetCounter().GetValue())
	}
	return value(q.exported), value(q.failed), value(q.dropped)
}

func write(tr *Tracer, n int) {
	for i := range n {
		tr.Step(delivery.MessageID{8: 0x80, 14: byte(i >> 8), 15: byte(i)}, "send").End()
	}
}

func TestCloseExportsWhatWaits(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20quince")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off") // it is not for us: ids decide
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	tr, err := Open(t.Context(), Options{Endpoint: c.URL, Ratio: 1, Node: "eu-1", Version: "1.2", Metrics: prometheus.NewRegistry()})
	require.NoError(t, err)
	write(tr, 1200)
	require.NoError(t, tr.Close(t.Context()))
	require.NoError(t, tr.Close(t.Context()))
	require.Len(t, c.spans, 1200)
	require.Equal(t, "Bearer quince", c.auth)
	require.Equal(t, map[string]string{
		"service.name": "msgctl", "service.version": "1.2", "service.instance.id": "eu-1", "deployment.environment.name": "test",
	}, c.service)
	exported, failed, dropped := tr.queue.counts()
	require.Equal(t, []int{1200, 0, 0}, []int{exported, failed, dropped})
	write(tr, 1)
	require.Len(t, c.spans, 1200, "nothing goes out after that")
	var none *Tracer
	require.NoError(t, none.Close(t.Context()))
}

// blocked is an exporter whose receiver does not answer. It gives up when it is told to, or not even then.
type blocked struct {
	began chan struct{}
	deaf  chan struct{} // nil = it heeds its context
}

func (b *blocked) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	select {
	case b.began <- struct{}{}:
	default:
	}
	if b.deaf != nil {
		<-b.deaf
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *blocked) Shutdown(context.Context) error { return nil }

func TestAReceiverThatDoesNotAnswerHoldsUpNobody(t *testing.T) {
	for name, deaf := range map[string]chan struct{}{"and is given up": nil, "and cannot be given up": make(chan struct{})} {
		t.Run(name, func(t *testing.T) {
			b := &blocked{began: make(chan struct{}, 1), deaf: deaf}
			tr, err := Open(t.Context(), Options{Exporter: b, Ratio: 1, Queue: 1000})
			require.NoError(t, err)
			write(tr, 512)
			<-b.began
			write(tr, 19_488) // this would stand still
			_, _, dropped := tr.queue.counts()
			require.Equal(t, 19_000, dropped)
			require.Equal(t, int64(1000), tr.queue.waiting.Load(), "what waits is bounded, what is being exported included")
			over, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorContains(t, tr.Close(over), "1000 spans could not be exported in time")
			exported, failed, dropped := tr.queue.counts()
			require.Equal(t, []int{0, 0, 20_000}, []int{exported, failed, dropped}, "every span is accounted for")
			if deaf != nil {
				close(deaf)
			}
		})
	}
}

func TestAReceiverThatIsAwayIsComplainedOfNowAndThen(t *testing.T) {
	c := newCollector(t)
	url := c.URL
	c.Close()
	var log buffer
	var mu sync.Mutex
	now := time.Unix(1_790_000_000, 0)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	e := &failing{}
	tr, err := Open(t.Context(), Options{Exporter: e, Ratio: 1, Now: clock, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	for range 3 {
		write(tr, 10)
		require.NoError(t, tr.provider.ForceFlush(t.Context()))
	}
	_, failed, _ := tr.queue.counts()
	require.Equal(t, 30, failed)
	require.Zero(t, tr.queue.waiting.Load())
	require.Equal(t, 1, bytes.Count([]byte(log.String()), []byte("spans cannot be exported")))
	mu.Lock()
	now = now.Add(warnEvery)
	mu.Unlock()
	write(tr, 10)
	require.NoError(t, tr.provider.ForceFlush(t.Context()))
	require.Contains(t, log.String(), "spans=30", "with those since the last time")
	require.NoError(t, tr.Close(t.Context()))

	// A port where nobody listens: the exporter itself tries again for a while, and Close does not wait for that.
	tr, err = Open(t.Context(), Options{Endpoint: url, Ratio: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	write(tr, 512)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, tr.Close(over), "512 spans")
}

type failing struct{}

func (failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return io.ErrUnexpectedEOF
}
func (failing) Shutdown(context.Context) error { return nil }

func TestEndpoint(t *testing.T) {
	for raw, want := range map[string]string{
		"http://localhost:4318":        "http://localhost:4318/v1/traces",
		"https://otlp.example.com/":    "https://otlp.example.com/v1/traces",
		"https://x.example.com/in/v1":  "https://x.example.com/in/v1",
		"http://[::1]:4318":            "http://[::1]:4318/v1/traces",
		"":                             "error: use the URL of an OTLP receiver",
		"localhost:4318":               "error: needs http:// or https:// and a host",
		"grpc://localhost:4317":        "error: needs http:// or https:// and a host",
		"http://":                      "error: needs http:// or https:// and a host",
		"http://a:quince@host":         "error: OTEL_EXPORTER_OTLP_HEADERS",
		"http://host/?token=quince":    "error: must end after its path",
		"http://host/#quince":          "error: must end after its path",
		"ftp://a:quince@host":          "error: needs http:// or https:// and a host",
		"http://host:quince/\x7f\x00%": "error: cannot be read",
	} {
		got, err := Endpoint(raw)
		if text, bad := bytes.CutPrefix([]byte(want), []byte("error: ")); bad {
			require.ErrorContains(t, err, string(text), raw)
			require.NotContains(t, err.Error(), "quince")
			continue
		}
		require.NoError(t, err, raw)
		require.Equal(t, want, got)
	}
	_, err := Open(t.Context(), Options{Ratio: 1})
	require.ErrorContains(t, err, "OTLP receiver")
}

func TestEndpointOfTheEnvironment(t *testing.T) {
	const base, own = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	for want, env := range map[string]map[string]string{
		"":                        {},
		"http://a:4318/v1/traces": {base: "http://a:4318"},
		"http://a/x/v1/traces":    {base: "http://a/x/"},
		"http://b/y":              {base: "http://a", own: "http://b/y"},
	} {
		require.Equal(t, want, EndpointOf(func(k string) string { return env[k] }))
		env["OTEL_SDK_DISABLED"] = "TRUE"
		require.Empty(t, EndpointOf(func(k string) string { return env[k] }))
	}
}
