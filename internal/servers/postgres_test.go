package servers_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
)

func connect(t *testing.T, raw string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(within(t), raw)
	require.NoError(t, err)
	t.Cleanup(func() {
		// A stalled server never answers the farewell.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func run(t *testing.T, raw string, statements ...string) {
	t.Helper()
	conn := connect(t, raw)
	for _, sql := range statements {
		_, err := conn.Exec(within(t), sql)
		require.NoError(t, err, sql)
	}
	require.NoError(t, conn.Close(within(t)))
}

func number(t *testing.T, raw, sql string) (n int) {
	t.Helper()
	require.NoError(t, connect(t, raw).QueryRow(within(t), sql).Scan(&n), sql)
	return n
}

func TestDatabasesAndRoles(t *testing.T) {
	t.Parallel()
	p := servers.Postgres(t)
	a, b := p.Database(t), p.Database(t)
	require.NotEqual(t, a.Name, b.Name)
	run(t, a.Owner, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)", "GRANT SELECT ON t TO "+a.AppRole)
	require.Equal(t, 1, number(t, a.App, "SELECT count(*) FROM t"))
	require.Zero(t, number(t, b.Owner, "SELECT count(*) FROM pg_tables WHERE tablename = 't'"))

	for sql, code := range map[string]string{
		"CREATE TABLE mine (n int)": "42501", "INSERT INTO t VALUES (2)": "42501", "DROP TABLE t": "42501",
		"CREATE DATABASE more": "42501", "SET ROLE msgctl_test_owner": "42501",
	} {
		_, err := connect(t, a.App).Exec(within(t), sql)
		var pg *pgconn.PgError
		require.ErrorAs(t, err, &pg, sql)
		require.Equal(t, code, pg.Code, sql)
	}
	for _, url := range []string{a.Owner, a.App} {
		require.Zero(t, number(t, url, "SELECT count(*) FROM pg_roles WHERE rolname = current_user AND "+
			"(rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication)"))
	}
	for parameter, want := range map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"} {
		var got string
		require.NoError(t, connect(t, a.App).QueryRow(within(t), "SELECT current_setting($1)", parameter).Scan(&got))
		require.Equal(t, want, got, parameter)
	}
}

func TestADatabaseEndsWithItsTest(t *testing.T) {
	t.Parallel()
	p := servers.Postgres(t)
	var name string
	var open *pgx.Conn
	t.Run("test", func(t *testing.T) {
		db := p.Database(t)
		name = db.Name
		var err error
		open, err = pgx.Connect(within(t), db.Owner) // stays open: the drop must not mind
		require.NoError(t, err)
	})
	defer open.Close(within(t))
	require.Zero(t, number(t, p.Admin, "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'"))
}

func TestDatabaseLikeIsPreparedOnce(t *testing.T) {
	t.Parallel()
	p := servers.Postgres(t)
	prepared := 0
	prepare := func(db *servers.DB) error {
		prepared++
		run(t, db.Owner, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)")
		return nil
	}
	var all sync.WaitGroup
	dbs := make([]*servers.DB, 4)
	for i := range dbs {
		all.Go(func() { dbs[i] = p.DatabaseLike(t, "once", prepare) })
	}
	all.Wait()
	require.Equal(t, 1, prepared)
	run(t, dbs[0].Owner, "DELETE FROM t")
	for _, db := range dbs[1:] {
		require.Equal(t, 7, number(t, db.Owner, "SELECT n FROM t"))
	}

	for range 2 { // the second caller must not get a half-made database
		message := failure(t, func(tb testing.TB) {
			p.DatabaseLike(tb, "broken", func(*servers.DB) error { return errors.New("no such column") })
		})
		require.Contains(t, message, `prepare the database "broken": no such column`)
	}
}

func TestPostgresLife(t *testing.T) {
	t.Parallel()
	p := servers.NewPostgres(t, servers.With("work_mem", "5MB"))
	db := p.Database(t)
	run(t, db.Owner, "CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	idle := connect(t, db.App)
	require.Equal(t, 5120, number(t, db.App, "SELECT setting::int FROM pg_settings WHERE name = 'work_mem'"))

	p.Kill()
	require.False(t, p.Running())
	require.Error(t, idle.Ping(within(t)), "a session outlives the server")
	_, err := pgx.Connect(within(t), db.App)
	require.Error(t, err)
	p.Start()
	require.Equal(t, 1, number(t, db.Owner, "SELECT count(*) FROM t"))

	live := connect(t, db.App)
	p.Stall()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, live.Ping(short), context.DeadlineExceeded, "a stalled session has answered")
	p.Resume()
	require.Equal(t, 1, number(t, db.Owner, "SELECT count(*) FROM t"))

	p.Stall()
	p.Kill() // also when stalled
	p.Start()
	p.Set("statement_timeout", "12345")
	require.Eventually(t, func() bool {
		return number(t, db.App, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'") == 12345
	}, 10*time.Second, 10*time.Millisecond)
	p.Stall()
	p.Stop()
	p.Start()
	require.Equal(t, 1, number(t, db.Owner, "SELECT count(*) FROM t"))
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	p := servers.NewPostgres(t, servers.Tmpfs(192<<20))
	db := p.Database(t)
	run(t, db.Owner, "CREATE TABLE t (s text)", "INSERT INTO t VALUES ('kept')")
	p.Fill()
	conn := connect(t, db.Owner)
	_, err := conn.Exec(within(t), "INSERT INTO t SELECT repeat('x', 1000) || i FROM generate_series(1, 100000) i")
	require.Error(t, err, "the disk is not full")
	p.Drain()
	p.Start() // a full log may have ended it
	require.Equal(t, 1, number(t, db.Owner, "SELECT count(*) FROM t"))
	run(t, db.Owner, "INSERT INTO t SELECT 'again' FROM generate_series(1, 1000)")

	require.Contains(t, failure(t, func(tb testing.TB) { servers.NewPostgres(tb).Fill() }), "with the option Tmpfs")
}

func TestReplica(t *testing.T) {
	t.Parallel()
	primary := servers.NewPostgres(t)
	db := primary.Database(t)
	run(t, db.Owner, "CREATE TABLE t (n int)")
	replica := servers.NewReplica(t, primary)
	run(t, db.Owner, "INSERT INTO t VALUES (1)")
	replica.CatchUp(primary)
	there := replica.Of(db)
	require.Equal(t, 1, number(t, there.Owner, "SELECT count(*) FROM t"))
	_, err := connect(t, there.Owner).Exec(within(t), "INSERT INTO t VALUES (2)")
	require.ErrorContains(t, err, "read-only")

	// Synchronous: no commit while the replica does not answer.
	primary.Set("synchronous_standby_names", "*")
	require.Eventually(t, func() bool {
		return number(t, primary.Admin, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
	}, 10*time.Second, 10*time.Millisecond)
	replica.Stall()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = connect(t, db.Owner).Exec(short, "INSERT INTO t VALUES (3)")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	replica.Resume()

	primary.Kill()
	replica.Promote()
	run(t, there.Owner, "INSERT INTO t VALUES (4)")
}

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	db := servers.Postgres(t).Database(t)
	pool := servers.PgBouncer(t, db, servers.With("default_pool_size", "1"))
	run(t, pool.DB.Owner, "CREATE TABLE t (n int)", "GRANT SELECT ON t TO "+db.AppRole)
	// Two clients, one server session: transaction mode.
	a, b := connect(t, pool.DB.App), connect(t, pool.DB.App)
	session := func(conn *pgx.Conn) (pid int) {
		require.NoError(t, conn.QueryRow(within(t), "SELECT pg_backend_pid() + $1", 0).Scan(&pid))
		return pid
	}
	require.Equal(t, session(a), session(b))
	pool.Kill()
	require.Error(t, a.Ping(within(t)))
	pool.Start()
	require.Zero(t, number(t, pool.DB.App, "SELECT count(*) FROM t"))
}

// TestPasswordsStayOut: the kit's own errors must be safe to print.
func TestPasswordsStayOut(t *testing.T) {
	message := failure(t, func(tb testing.TB) {
		p := servers.NewPostgres(tb, servers.With("no_such_parameter", "1"))
		p.Database(tb)
	})
	require.Contains(t, message, "no_such_parameter")
	require.NotContains(t, message, servers.Password)
	t.Setenv("MSGCTL_TEST_REDIS_URL", "redis://:"+servers.Password+"@[::1")
	require.NotContains(t, failure(t, func(tb testing.TB) { servers.Redis(tb) }), servers.Password)
}

// host is host:port of a URL.
func host(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	_, _, err = net.SplitHostPort(u.Host)
	require.NoError(t, err)
	return u.Host
}
