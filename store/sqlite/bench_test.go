package sqlite_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// The benchmarks count rows: "ns/op" is wall time for one row, "cpu-µs/row" processor time of the whole process.

var benchTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func benchStore(b *testing.B) (*sqlite.Store, *delivery.IDs) {
	b.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	if err := s.CreateTenant(context.Background(), store.AsSystem("bench"), store.Tenant{ID: "acme"}); err != nil {
		b.Fatal(err)
	}
	return s, delivery.NewIDs(func() time.Time { return benchTime })
}

func batchOf(ids *delivery.IDs, n int) []store.NewMessage {
	ms := make([]store.NewMessage, n)
	for i := range ms {
		id := ids.Message()
		ms[i] = store.NewMessage{ID: id, Channel: delivery.SMS, Lane: delivery.Bulk, Segments: 1,
			To:      fmt.Sprintf("+9198%08d", int(id[7])<<16|int(id[8])<<8|int(id[9])),
			Payload: []byte(`{"template":"diwali_offer","version":3,"vars":{"name":"Asha","city":"Pune","code":"DIW-20-XYZ"}}`),
			DueAt:   benchTime, ExpiresAt: benchTime.Add(time.Hour)}
	}
	return ms
}

func perRow(b *testing.B, rows int, f func()) {
	b.ResetTimer()
	cpu := cpuTime()
	f()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/1e3/float64(rows), "cpu-µs/row")
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkAccept(b *testing.B) {
	for _, size := range []int{1, 50, 256} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s, ids := benchStore(b)
			done := 0
			perRow(b, b.N, func() {
				for done < b.N {
					n := min(size, b.N-done)
					a := store.Acceptance{Now: benchTime, Messages: batchOf(ids, n)}
					if _, err := s.Accept(context.Background(), "acme", a); err != nil {
						b.Fatal(err)
					}
					done += n
				}
			})
		})
	}
	b.Run("1x64callers", func(b *testing.B) {
		s, ids := benchStore(b)
		b.SetParallelism(32)
		perRow(b, b.N, func() {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					a := store.Acceptance{Now: benchTime, Messages: batchOf(ids, 1)}
					if _, err := s.Accept(context.Background(), "acme", a); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	})
}

// BenchmarkLife takes messages in batches of 256 through accept, claim, settle and one receipt, timing one of them.
func BenchmarkLife(b *testing.B) {
	const size = 256
	sys := store.AsSystem("bench")
	account := delivery.AccountID{1}
	ctx := context.Background()
	for _, part := range []string{"claim", "settle", "report"} {
		b.Run(part, func(b *testing.B) {
			s, ids := benchStore(b)
			var claims []store.Claim
			for done := 0; done < b.N; done += size {
				ms := batchOf(ids, size)
				if _, err := s.Accept(ctx, "acme", store.Acceptance{Now: benchTime, Messages: ms}); err != nil {
					b.Fatal(err)
				}
				c := store.Claim{Node: "bench-node", Now: benchTime, Until: benchTime.Add(time.Minute)}
				for i := range ms {
					c.IDs = append(c.IDs, ms[i].ID)
				}
				claims = append(claims, c)
			}
			claim := func() {
				for _, c := range claims {
					if got, err := s.Claim(ctx, sys, c); err != nil || len(got) != size {
						b.Fatal(len(got), err)
					}
				}
			}
			settle := func() {
				for _, c := range claims {
					var out []store.Outcome
					for _, id := range c.IDs {
						out = append(out, store.Outcome{ID: id, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent,
							Account: account, ProviderID: id.String(), IndexProviderID: true, Attempted: true})
					}
					if _, err := s.Settle(ctx, sys, benchTime, out); err != nil {
						b.Fatal(err)
					}
				}
			}
			report := func() {
				for _, c := range claims {
					var rs []delivery.Receipt
					for _, id := range c.IDs {
						rs = append(rs, delivery.Receipt{Account: account, ProviderID: id.String(), Status: delivery.StatusDelivered,
							At: benchTime})
					}
					if _, err := s.Report(ctx, sys, benchTime, time.Hour, rs); err != nil {
						b.Fatal(err)
					}
				}
			}
			rows := len(claims) * size
			switch part {
			case "claim":
				perRow(b, rows, claim)
			case "settle":
				claim()
				perRow(b, rows, settle)
			case "report":
				claim()
				settle()
				perRow(b, rows, report)
			}
		})
	}
}
