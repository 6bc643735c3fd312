package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// The days of a message that waits for ever, and of those before it: the first are removed, the rest is kept.
func TestRetain(t *testing.T) {
	ctx, sys := t.Context(), store.AsSystem("test")
	db := servers.Postgres(t).Database(t)
	require.NoError(t, postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}))
	s, err := postgres.Open(ctx, postgres.Options{URL: db.App, Now: time.Now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateTenant(ctx, sys, store.Tenant{ID: "acme"}))
	sent := func(daysAgo int) delivery.MessageID {
		at := time.Now().AddDate(0, 0, -daysAgo)
		id := delivery.NewIDs(func() time.Time { return at }).Message()
		_, err := s.Accept(ctx, "acme", store.Acceptance{Now: at, Messages: []store.NewMessage{{
			ID: id, Channel: delivery.SMS, Lane: delivery.Normal, To: "+12025550100", Payload: []byte("{}"), DueAt: at, ExpiresAt: at.Add(time.Hour),
		}}})
		require.NoError(t, err)
		return id
	}
	old, waits := sent(30), sent(20)
	_, err = s.Cancel(ctx, "acme", old, time.Now().AddDate(0, 0, -30))
	require.NoError(t, err)

	retain := func(args ...string) (code int, out, errs string) {
		var o, e bytes.Buffer
		env := func(k string) string { return map[string]string{"MSGCTL_STORE": db.Owner, "HOME": t.TempDir()}[k] }
		code = run(ctx, append([]string{"retain"}, args...), strings.NewReader(""), &o, &e, env)
		return code, o.String(), e.String()
	}
	for range 2 { // the first changes nothing
		code, out, errs := retain("--keep", "7d", "--dry-run", "-o", "json")
		require.Equal(t, exitPartly, code, errs)
		require.Contains(t, out, `"messages": 1,`)
		require.Contains(t, out, `"dry_run": true`)
		require.Contains(t, errs, "have not ended")
	}
	code, _, errs := retain("--keep", "7d")
	require.Equal(t, exitUsage, code, "nobody is there to be asked")
	require.Contains(t, errs, "--yes")
	code, out, errs := retain("--keep", "25d", "--yes", "-o", "json")
	require.Equal(t, exitOK, code, errs)
	require.Contains(t, out, `"messages": 1,`)
	_, err = s.Message(ctx, "acme", old)
	require.ErrorIs(t, err, store.ErrNotFound)
	code, out, errs = retain("--keep", "7d", "-o", "json")
	require.Equal(t, exitPartly, code, "there is nothing to be asked about")
	require.Contains(t, out, `"messages": 0,`)
	require.Contains(t, errs, "the rest was kept: messages of ")
	_, err = s.Message(ctx, "acme", waits)
	require.NoError(t, err)
	code, _, errs = retain("--keep", "7d", "--store", db.App)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "does not own the tables")
}
