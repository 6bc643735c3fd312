package pipeline_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/tracing"
)

// BenchmarkPath takes messages from accept to a settled outcome, without any protocol: what the path itself costs.
func BenchmarkPath(b *testing.B) { benchmarkPath(b, nil) }

// BenchmarkTracedPath is BenchmarkPath with traces that go to a receiver of OTLP over HTTP in this process.
func BenchmarkTracedPath(b *testing.B) {
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer receiver.Close()
	for _, ratio := range []float64{0, 0.01, 1} {
		b.Run(fmt.Sprint(ratio), func(b *testing.B) {
			tracer, err := tracing.Open(b.Context(), tracing.Options{Endpoint: receiver.URL, Ratio: ratio, Queue: 1 << 16})
			require.NoError(b, err)
			defer func() { require.NoError(b, tracer.Close(context.Background())) }()
			benchmarkPath(b, func(o *pipeline.Options) { o.Tracer = tracer })
		})
	}
}

func benchmarkPath(b *testing.B, tune func(*pipeline.Options)) {
	r := newRig(b, clockwork.NewRealClock(), &fake{}, func(r *rig) { r.acct.Parallel, r.tune = 64, tune })
	start := cpu()
	b.ResetTimer()
	for done := 0; done < b.N; done += 500 {
		r.accept(min(500, b.N-done), nil)
	}
	require.Eventually(b, func() bool {
		t, err := r.store.Tally(context.Background(), tenant, delivery.CampaignID{})
		require.NoError(b, err)
		return t[delivery.SMS][delivery.StatusSent] == b.N
	}, time.Minute, 2*time.Millisecond)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric((cpu()-start).Seconds()*1e5/float64(b.N), "cpu_s/100k")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
