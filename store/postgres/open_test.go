package postgres_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// refused wants Open to refuse with all of these words, and without the password.
func refused(t *testing.T, to string, words ...string) {
	t.Helper()
	s, err := postgres.Open(bg, postgres.Options{URL: to, Timeout: 2 * time.Second})
	if err == nil {
		_ = s.Close()
	}
	require.Error(t, err)
	for _, word := range words {
		require.ErrorContains(t, err, word)
	}
	if u, parse := url.Parse(to); parse == nil && u.User != nil {
		if password, _ := u.User.Password(); password != "" {
			require.NotContains(t, err.Error(), password)
		}
	}
}

func run(t *testing.T, to string, statements ...string) {
	t.Helper()
	conn := connect(t, to)
	for _, sql := range statements {
		_, err := conn.Exec(bg, sql)
		require.NoError(t, err, sql)
	}
}

func TestOpenRefusesURLs(t *testing.T) {
	for _, to := range []string{"", "host=localhost", "mysql://user:s3cret@localhost/db", "postgres://user:s3cret@local host/db",
		"postgres://user:s3cret@127.0.0.1:notaport/db", "postgres://user:s3cret@127.0.0.1/db?sslmode=perhaps",
		"postgres://user:s3cret@127.0.0.1/db?pool_max_conns=none", "postgres://user:s3cret@127.0.0.1/db?pool_max_conns=1",
		"postgres://user:s3cret@127.0.0.1/db?default_query_exec_mode=simple_protocol"} {
		s, err := postgres.Open(bg, postgres.Options{URL: to})
		require.Error(t, err, to)
		require.Nil(t, s)
		require.NotContains(t, err.Error(), "s3cret")
		require.ErrorContains(t, err, "store: ")
	}
}

func TestOpenSaysThatNobodyIsThere(t *testing.T) {
	refused(t, "postgres://user:s3cret@127.0.0.1:1/db?connect_timeout=1", `database "db" at 127.0.0.1`, "refused")
}

func TestOpenRefusesRoles(t *testing.T) {
	db := smallDatabase(t)
	refused(t, db.Admin, "superuser")
	refused(t, db.Owner, "owns the tables")
	wrong, err := url.Parse(db.App)
	require.NoError(t, err)
	wrong.User = url.UserPassword(wrong.User.Username(), "wr0ng-pass")
	refused(t, wrong.String(), "the database refuses the connection")
	require.NoError(t, openAt(t, db.App).Check(bg))
}

func TestOpenRefusesAnotherSchema(t *testing.T) {
	none := servers.Postgres(t).Database(t)
	refused(t, none.App, "no schema yet", "msgctl migrate up")
	status, err := postgres.Status(bg, none.Owner)
	require.NoError(t, err)
	require.Zero(t, status.Have)
	require.EqualValues(t, status.Known, len(status.Pending))

	db := smallDatabase(t)
	status, err = postgres.Status(bg, db.Owner)
	require.NoError(t, err)
	require.Equal(t, status.Known, status.Have)
	require.Empty(t, status.Pending)
	run(t, db.Owner, "INSERT INTO schema_version (version_id, is_applied) VALUES (900, true)")
	require.NoError(t, openAt(t, db.App).Check(bg), "a newer release has only added to it")
	run(t, db.Owner, "UPDATE schema_serves SET version = 900")
	refused(t, db.App, "schema 900", "newer msgctl")
	require.ErrorContains(t, postgres.Migrate(bg, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}), "newer msgctl")
	run(t, db.Owner, "DELETE FROM schema_version WHERE version_id >= 2")
	refused(t, db.App, "schema 1, this program needs", "msgctl migrate up")
}

func TestOpenRefusesASettingThatMayForgetCommits(t *testing.T) {
	for _, setting := range []string{"off", "local", "remote_write"} {
		db := smallDatabase(t)
		run(t, db.Admin, "ALTER DATABASE "+db.Name+" SET synchronous_commit = "+setting)
		refused(t, db.App, "synchronous_commit is "+setting)
	}
}

// Somebody takes the wall down: the engine does not work without it.
func TestOpenRefusesWithoutTheWall(t *testing.T) {
	for _, hole := range []string{"ALTER TABLE messages DISABLE ROW LEVEL SECURITY",
		"ALTER TABLE legs NO FORCE ROW LEVEL SECURITY", "CREATE POLICY open ON ledger_heads USING (true)"} {
		db := smallDatabase(t)
		s := openAt(t, db.App)
		newWorld(t, s).tenant("acme")
		run(t, db.Owner, hole)
		refused(t, db.App, "row-level security does not hold")
	}
}

func TestMigrateIsForOneAtATime(t *testing.T) {
	db := servers.Postgres(t).Database(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := postgres.Migrate(bg, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}); err != nil {
				t.Errorf("migrate: %v", err)
			}
		})
	}
	wg.Wait()
	s := openAt(t, db.App)
	w := newWorld(t, s)
	w.tenant("acme")
	w.settle(sent(w.claim("node-1", w.accept("acme", w.batch(3)))))
	booksAreRight(t, s, "acme")
	owner, err := url.Parse(db.Owner)
	require.NoError(t, err)
	require.ErrorContains(t, postgres.Migrate(bg, postgres.MigrateOptions{URL: db.Owner, Role: owner.User.Username()}),
		"a role of its own")
	require.ErrorContains(t, postgres.Migrate(bg, postgres.MigrateOptions{URL: db.Owner, Role: "nobody-there"}),
		"nobody-there")
}

// Whoever waits for a lock or for a connection is told so in time, and nothing is changed.
func TestWaitsEnd(t *testing.T) {
	db := smallDatabase(t)
	s, err := postgres.Open(bg, postgres.Options{URL: db.App, Timeout: 250 * time.Millisecond, Connections: 4})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	w := newWorld(t, s)
	w.tenant("acme")
	ids := w.accept("acme", w.batch(1))
	holder, err := connect(t, db.Admin).Begin(bg)
	require.NoError(t, err)
	_, err = holder.Exec(bg, "SELECT FROM messages FOR UPDATE")
	require.NoError(t, err)
	_, err = s.Cancel(bg, "acme", ids[0], w.now)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "too long for a lock")
	got, err := s.Claim(bg, sys, store.Claim{IDs: ids, Node: "n", Now: w.now, Until: w.now.Add(time.Minute)})
	require.NoError(t, err)
	require.Empty(t, got, "a claim does not wait")
	require.NoError(t, holder.Rollback(bg))
	status, err := s.Cancel(bg, "acme", ids[0], w.now)
	require.NoError(t, err)
	require.EqualValues(t, "canceled", status.String())
	booksAreRight(t, s, "acme")
}

func TestAReadOnlyDatabaseIsUnavailable(t *testing.T) {
	db := smallDatabase(t)
	before := openAt(t, db.App)
	w := newWorld(t, before)
	w.tenant("acme")
	run(t, db.Admin, "ALTER DATABASE "+db.Name+" SET default_transaction_read_only = on")
	s := openAt(t, db.App)
	require.ErrorIs(t, s.Check(bg), store.ErrUnavailable)
	require.ErrorContains(t, s.Check(bg), "read-only")
	_, err := s.Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: w.batch(1)})
	require.ErrorIs(t, err, store.ErrUnavailable)
	list, err := s.TenantList(bg, sys)
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// What PostgreSQL cannot store as text does not stop the life of a message.
func TestTextsThatCannotBeStored(t *testing.T) {
	s := openAt(t, smallDatabase(t).App)
	w := newWorld(t, s)
	w.tenant("acme")
	bad := "a\x00b\xff"
	for what, change := range map[string]func(*store.NewMessage){
		"address":          func(m *store.NewMessage) { m.To = bad },
		"client reference": func(m *store.NewMessage) { m.ClientRef = bad },
		"tag":              func(m *store.NewMessage) { m.Tag = bad },
		"ordering key":     func(m *store.NewMessage) { m.OrderingKey = bad },
	} {
		_, err := s.Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: w.batch(1, change)})
		require.ErrorContains(t, err, what)
	}
	claimed := w.claim("node\x00", w.accept("acme", w.batch(2)))
	out := sent(claimed)
	out[0].ProviderID, out[0].Detail = bad, bad
	out[1].Status, out[1].Reason, out[1].Detail, out[1].Suppress = 21, bad, bad, true
	for _, r := range w.settle(out) {
		require.True(t, r.Applied)
	}
	facts, err := s.Facts(bg, "acme", claimed[0].ID)
	require.NoError(t, err)
	require.Equal(t, bad, facts[len(facts)-1].Code, "the history keeps it as it was")
	m, err := s.Message(bg, "acme", claimed[1].ID)
	require.NoError(t, err)
	require.Equal(t, "ab\uFFFD", m.Reason)
	_, err = s.Messages(bg, "acme", store.MessageQuery{To: bad, Limit: 1})
	require.NoError(t, err)
	booksAreRight(t, s, "acme")
}

// A call that has begun may still have to ask for a number that nobody has asked for before. It must not wait for a Close
// that waits for it.
func TestACloseAndACallThatRunsDoNotWaitForEachOther(t *testing.T) {
	account := delivery.AccountID{9}
	for name, call := range map[string]func(*postgres.Store, *world) error{
		"accept": func(s *postgres.Store, w *world) error {
			m := w.batch(1)
			m[0].Account = account
			_, err := s.Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: m})
			return err
		},
		"wake": func(s *postgres.Store, w *world) error {
			_, err := s.Wake(bg, sys, w.now, store.Held{Reason: "r", Tenant: "acme", Account: account})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := smallDatabase(t)
			w := newWorld(t, openAt(t, db.App))
			w.tenant("acme")
			s := openAt(t, db.App)
			conn := connect(t, db.Admin)
			_, err := conn.Exec(bg, `BEGIN; LOCK TABLE tenants`)
			require.NoError(t, err)
			called, closed := make(chan error, 1), make(chan error, 1)
			go func() { called <- call(s, w) }()
			require.Eventually(t, func() bool {
				var waits bool
				err := conn.QueryRow(bg, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)`).Scan(&waits)
				return err == nil && waits
			}, patience, beat)
			go func() { closed <- s.Close() }()
			require.Eventually(t, s.Closing, patience, beat)
			_, err = conn.Exec(bg, `ROLLBACK`)
			require.NoError(t, err)
			for what, end := range map[string]chan error{"the call": called, "the close": closed} {
				select {
				case err := <-end:
					if err != nil {
						require.ErrorIs(t, err, store.ErrUnavailable, what)
					}
				case <-time.After(patience):
					require.Fail(t, what+" does not end")
				}
			}
		})
	}
}

// However many people read for long, the node goes on giving signs of life and working.
func TestLongReadingsLeaveConnectionsToTheRest(t *testing.T) {
	db := smallDatabase(t)
	s := openWith(t, postgres.Options{URL: db.App, Connections: 8})
	w := newWorld(t, s)
	w.tenant("acme")
	ids := w.accept("acme", w.batch(1))
	conn := connect(t, db.Admin)
	_, err := conn.Exec(bg, `BEGIN; LOCK TABLE labels`) // whoever reads messages waits
	require.NoError(t, err)
	ctx, stop := context.WithCancel(bg)
	defer stop()
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for range 8 {
		readers.Go(func() { _, _ = s.Messages(ctx, "acme", store.MessageQuery{Limit: 10}) })
	}
	waiting := func() (n int) {
		require.NoError(t, conn.QueryRow(bg, `SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return waiting() == 2 }, patience, beat)
	_, err = s.Beat(bg, sys, store.Beat{Name: "a", Run: store.RunID{1}, TTL: time.Second})
	require.NoError(t, err)
	soon, cancel := context.WithTimeout(bg, 2*time.Second)
	defer cancel()
	_, err = s.Facts(soon, "acme", ids[0])
	require.ErrorIs(t, err, context.DeadlineExceeded, "it waits for its turn")
	require.Equal(t, 2, waiting())
	_, err = conn.Exec(bg, `ROLLBACK`)
	require.NoError(t, err)
	readers.Wait()
	facts, err := s.Facts(bg, "acme", ids[0])
	require.NoError(t, err)
	require.Len(t, facts, 1)
}
