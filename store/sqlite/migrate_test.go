package sqlite_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A file that the first schema's program wrote (testdata/schema1.db.gz: a tenant, a paused campaign of two, and a
// message in every status it could be in) opens with right books, and everything in it can go on.
func TestADatabaseOfTheFirstSchemaGoesOn(t *testing.T) {
	dir := t.TempDir()
	packed, err := os.Open("testdata/schema1.db.gz")
	require.NoError(t, err)
	defer func() { _ = packed.Close() }()
	z, err := gzip.NewReader(packed)
	require.NoError(t, err)
	file, err := io.ReadAll(z)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "msgctl.db"), file, 0o600))

	ctx, sys := t.Context(), store.AsSystem("test")
	s := openAt(t, dir)
	audit := func() {
		t.Helper()
		r, err := s.Audit(ctx, "acme")
		require.NoError(t, err)
		require.Empty(t, r.Problems)
		require.EqualValues(t, 11, r.Accepted)
		require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)
	}
	audit()
	tenant, err := s.Tenant(ctx, sys, "acme")
	require.NoError(t, err)
	require.Equal(t, store.Tenant{ID: "acme", Name: "Acme", OnAmbiguous: "hold", Region: "IN", CreatedAt: benchTime,
		Version: 1,
		Rates:   []store.TenantRate{{Channel: delivery.SMS, PerSecond: 2}}}, tenant)

	list, err := s.Messages(ctx, "acme", store.MessageQuery{Limit: 100})
	require.NoError(t, err)
	by := map[string]store.Message{}
	for _, m := range list {
		if m.ClientRef != "" {
			by[m.ClientRef] = m
			require.Equal(t, m.ClientRef, m.Status.String())
		}
	}
	require.Len(t, by, 9)
	one, err := s.Message(ctx, "acme", by["sent"].ID)
	require.NoError(t, err)
	require.Equal(t, []any{0, 0, "", "", ""}, []any{one.Leg, len(one.Legs), one.Category, one.Tag, one.OrderingKey})

	dead, err := s.DeadLetters(ctx, "acme", store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 10}})
	require.NoError(t, err)
	require.Len(t, dead, 2, "failed and unknown")
	_, err = s.Redrive(ctx, "acme", []delivery.MessageID{by["failed"].ID}, benchTime, benchTime.Add(time.Hour))
	require.NoError(t, err)
	got, err := s.Claim(ctx, sys, store.Claim{IDs: []delivery.MessageID{by["failed"].ID, by["queued"].ID}, Node: "n",
		Now: benchTime, Until: benchTime.Add(time.Minute)})
	require.NoError(t, err)
	require.Len(t, got, 2)
	waiting, err := s.Unmatched(ctx, "acme", "", 10)
	require.NoError(t, err)
	require.Len(t, waiting, 1)
	c, err := s.Campaign(ctx, "acme", "diwali")
	require.NoError(t, err)
	_, err = s.MoveCampaign(ctx, "acme", c, []store.CampaignState{store.CampaignPaused}, store.CampaignRunning, benchTime)
	require.NoError(t, err)
	audit()
	require.NoError(t, s.Close())
	s = openAt(t, dir)
	audit()
}
