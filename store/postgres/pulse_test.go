package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// What a node must do to count as alive comes through while the work stands: otherwise a database that is slow would
// have no nodes at all, and whatever they have under lease would be in doubt.

func TestSignsOfLifeDoNotWaitBehindTheWork(t *testing.T) {
	ctx, db := t.Context(), smallDatabase(t)
	s := openWith(t, postgres.Options{URL: db.App, Connections: 2, Timeout: 10 * time.Second, PartitionDays: -1})
	admin, err := pgx.Connect(ctx, db.Admin)
	require.NoError(t, err)
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	lock, err := admin.Begin(ctx)
	require.NoError(t, err)
	_, err = lock.Exec(ctx, "LOCK TABLE probe")
	require.NoError(t, err)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() { require.NoError(t, s.Check(ctx)) })
	}
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, admin.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
			(SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting))
		return waiting == 2
	}, patience, beat, "all connections for the work are in use")

	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	run, account := store.RunID{1}, delivery.AccountID{2}
	_, err = s.Beat(soon, faultSys, store.Beat{Name: "n1", Run: run, TTL: time.Minute, Started: faultTime})
	require.NoError(t, err)
	_, err = s.Changes(soon, faultSys, 0, 10)
	require.NoError(t, err)
	has, err := s.Session(soon, faultSys, account, "n1", run, 1)
	require.NoError(t, err)
	require.True(t, has)
	require.NoError(t, s.EndSession(soon, faultSys, account, "n1", run))
	require.NoError(t, s.Leave(soon, faultSys, "n1", run))
	require.NoError(t, lock.Rollback(ctx))
	work.Wait()
}

func TestABeatIsTwoRoundTrips(t *testing.T) {
	s := openAt(t, smallDatabase(t).App)
	for i, name := range []string{"a", "a", "b"} {
		before := s.Trips()
		r, err := s.Beat(t.Context(), faultSys, store.Beat{Name: name, Run: store.RunID{name[0]}, TTL: time.Minute,
			Started: faultTime})
		require.NoError(t, err)
		require.Len(t, r.Nodes, max(1, i))
		require.EqualValues(t, 2, s.Trips()-before)
	}
	_, err := s.Beat(t.Context(), faultSys, store.Beat{Name: "a", Run: store.RunID{7}, TTL: time.Minute, Started: faultTime})
	require.ErrorIs(t, err, store.ErrConflict)
	r, err := s.Roster(t.Context(), faultSys)
	require.NoError(t, err)
	require.Equal(t, "a b", fmt.Sprintf("%s %s", r.Nodes[0].Name, r.Nodes[1].Name))
	require.Equal(t, store.RunID{'a'}, r.Nodes[0].Run, "who is refused changes nothing")
}

// TestOpenWarnsOfReplicasThatLag: a failover to one that follows asynchronously may lose what was acknowledged.
func TestOpenWarnsOfReplicasThatLag(t *testing.T) {
	pg, db := ownServer(t)
	open := func() string {
		var log bytes.Buffer
		s, err := postgres.Open(t.Context(), postgres.Options{URL: db.App, Log: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		return log.String()
	}
	const warning = "replicas follow asynchronously"
	require.NotContains(t, open(), warning, "there is none")
	servers.NewReplica(t, pg)
	require.Contains(t, open(), warning)
	pg.Set("synchronous_standby_names", "*")
	t.Cleanup(func() { pg.Set("synchronous_standby_names", "") }) // nothing commits without a replica
	require.Eventually(t, func() bool { return !strings.Contains(open(), warning) }, patience, beat)
}
