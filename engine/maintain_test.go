package engine_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sdk"
)

// One engine grows into a cluster: its messages, keys and secrets come along.
func TestFromOneEngineToACluster(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)
	p := newProvider()
	dir := t.TempDir()
	e, err := engine.New(engine.Config{Dir: dir}, p.kindAt("alone"))
	require.NoError(t, err)
	require.NoError(t, e.Start(ctx))
	c, err := e.Client("acme")
	require.NoError(t, err)
	_, err = c.Connectors.Put(ctx, "main", sdk.ConnectorRequest{Kind: "line", Settings: map[string]string{"password": "x"}})
	require.NoError(t, err)
	_, err = c.Connectors.Pause(ctx, "main")
	require.NoError(t, err)
	m, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)

	op, err := e.Client("")
	require.NoError(t, err)
	b, err := op.Backup(ctx)
	require.NoError(t, err)
	require.FileExists(t, b.Path)
	require.EqualValues(t, 1, b.Messages)
	_, err = engine.Backup(ctx, dir, filepath.Join(t.TempDir(), "b.db"), quiet)
	require.True(t, engine.InUse(err), "%v", err)
	require.NoError(t, e.Close())
	_, err = engine.Backup(ctx, dir, filepath.Join(t.TempDir(), "b.db"), quiet)
	require.NoError(t, err)
	restored, err := engine.Restore(ctx, b.Path, filepath.Join(t.TempDir(), "new"), quiet)
	require.NoError(t, err)
	require.EqualValues(t, 1, restored.Messages)

	db := servers.Postgres(t).Database(t)
	s, err := engine.MigrationStatus(ctx, db.Owner)
	require.NoError(t, err)
	require.Zero(t, s.Have)
	require.NotEmpty(t, s.Pending)
	_, err = engine.New(engine.Config{Dir: t.TempDir(), Store: db.App, Node: "n"})
	require.Error(t, err, "without a schema there is nothing to work on")
	require.NoError(t, engine.Migrate(ctx, db.Owner, db.AppRole, quiet))
	require.NoError(t, engine.Migrate(ctx, db.Owner, db.AppRole, quiet), "twice")
	s, err = engine.MigrationStatus(ctx, db.App)
	require.NoError(t, err)
	require.Equal(t, s.Known, s.Have)
	moved, err := engine.ToCluster(ctx, dir, db.App, quiet, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, moved.Messages)

	_, err = engine.New(engine.Config{Dir: t.TempDir(), Store: db.App, Node: "n"})
	require.ErrorContains(t, err, "master.key is missing")
	nodeDir := t.TempDir()
	copyKey(t, filepath.Join(dir, "master.key"), nodeDir)
	e, err = engine.New(engine.Config{Dir: nodeDir, Store: db.App, Node: "n"}, p.kindAt("n"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	require.NoError(t, e.Start(ctx))
	c, err = e.Client("acme")
	require.NoError(t, err)
	_, err = c.Connectors.Resume(ctx, "main")
	require.NoError(t, err)
	got, err := c.Messages.Wait(ctx, m.ID, sdk.Sent)
	require.NoError(t, err)
	require.Equal(t, "main", got.Connector)
	_, err = os.Stat(filepath.Join(dir, "msgctl.db"))
	require.NoError(t, err, "the directory stays as it was")
}

func TestMaintenanceRefuses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "none")
	_, err := engine.Backup(ctx, dir, filepath.Join(t.TempDir(), "b.db"), quiet)
	require.ErrorContains(t, err, "holds no database")
	require.NoDirExists(t, dir)
	for _, url := range []string{"", "sqlite:", "mysql://u:hunter2@h/x", "postgres://u:hunter2%zz@h/x"} {
		require.Error(t, engine.Migrate(ctx, url, "", quiet), url)
		_, err := engine.MigrationStatus(ctx, url)
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "hunter2")
		_, err = engine.Retain(ctx, url, engine.RetainOptions{Keep: engine.MinKeep, DryRun: true})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "hunter2")
		_, err = engine.ToCluster(ctx, dir, url, quiet, nil)
		require.Error(t, err, url)
	}
	_, err = engine.Retain(ctx, "postgres://127.0.0.1:1/x", engine.RetainOptions{Keep: engine.MinKeep - 1})
	require.ErrorContains(t, err, "at least 1d")
}
