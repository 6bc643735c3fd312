package pipeline_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

// BenchmarkPath takes messages from accept to a settled outcome, without any protocol: what the path itself costs.
func BenchmarkPath(b *testing.B) {
	r := newRig(b, clockwork.NewRealClock(), &fake{}, func(r *rig) { r.acct.Parallel = 64 })
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
