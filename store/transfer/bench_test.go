package transfer_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/store/transfer"
)

// BenchmarkRun moves a store of 20,000 messages, half of them handed on.
func BenchmarkRun(b *testing.B) {
	const messages, batch = 20_000, 250
	dir := b.TempDir()
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: dir, Now: clock})
	require.NoError(b, err)
	require.NoError(b, s.CreateTenant(ctx, sys, store.Tenant{ID: "acme", CreatedAt: noon}))
	ids := delivery.NewIDs(clock)
	for n := range messages / batch {
		a := store.Acceptance{Now: noon}
		c := store.Claim{Node: "n", Now: noon, Until: noon.Add(time.Hour)}
		for range batch {
			a.Messages = append(a.Messages, store.NewMessage{ID: ids.Message(), Channel: delivery.SMS, Lane: delivery.Bulk,
				To: "+15550100", Payload: []byte(`{"content":{"text":"hello, this is a message of usual length"}}`),
				DueAt: noon, ExpiresAt: noon.Add(time.Hour)})
			c.IDs = append(c.IDs, a.Messages[len(a.Messages)-1].ID)
		}
		_, err := s.Accept(ctx, "acme", a)
		require.NoError(b, err)
		if n%2 == 0 {
			continue
		}
		claimed, err := s.Claim(ctx, sys, c)
		require.NoError(b, err)
		outcomes := make([]store.Outcome, len(claimed))
		for i := range claimed {
			outcomes[i] = store.Outcome{ID: claimed[i].ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent,
				Account: own, ProviderID: claimed[i].ID.String(), IndexProviderID: true, Attempted: true}
		}
		_, err = s.Settle(ctx, sys, noon, outcomes)
		require.NoError(b, err)
	}
	require.NoError(b, s.Close())
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		db := servers.Postgres(b).Database(b)
		require.NoError(b, postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}))
		b.StartTimer()
		_, err := transfer.Run(ctx, transfer.Options{From: dir, To: db.App, Now: clock})
		require.NoError(b, err)
	}
	b.ReportMetric(messages*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
