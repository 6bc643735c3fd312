package postgres_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/storetest"
)

// database makes a database with the schema.
func database(t testing.TB) *servers.DB {
	t.Helper()
	return servers.Postgres(t).DatabaseLike(t, "migrated", func(db *servers.DB) error {
		return postgres.Migrate(context.Background(), postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole})
	})
}

// smallDatabase is a database whose days all lie in the default partitions: it is made in a third of the time.
func smallDatabase(t testing.TB) *servers.DB {
	t.Helper()
	return servers.Postgres(t).DatabaseLike(t, "small", func(db *servers.DB) error {
		ctx := context.Background()
		err := postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole})
		if err != nil {
			return err
		}
		conn, err := pgx.Connect(ctx, db.Owner)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, `DO $$ DECLARE t text; BEGIN
			FOR t IN SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname NOT LIKE '%_default'
			LOOP EXECUTE format('DROP TABLE %I', t); END LOOP; END $$`)
		return err
	})
}

// openAt opens a store that waits for longer than a machine with other work may take.
func openAt(t testing.TB, url string) *postgres.Store {
	t.Helper()
	return openWith(t, postgres.Options{URL: url, Connections: 8, Timeout: time.Minute})
}

func openWith(t testing.TB, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// fewerRuns makes properties quick enough for a store each of whose calls takes some milliseconds, unless the command
// line says otherwise.
func fewerRuns(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	if checks.Value.String() == checks.DefValue {
		require.NoError(t, checks.Value.Set("6"))
		t.Cleanup(func() { require.NoError(t, checks.Value.Set(checks.DefValue)) })
	}
}

// emptied takes all rows out of a database: quicker than to make another one.
func emptied(t testing.TB, db *servers.DB) string {
	t.Helper()
	conn := connect(t, db.Admin)
	_, err := conn.Exec(context.Background(), `DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
			AND relnamespace = 'public'::regnamespace AND relname NOT IN ('schema_version', 'changes_head')
		LOOP EXECUTE format('DELETE FROM %I', t); END LOOP;
		UPDATE changes_head SET last = 0, cut = 0; END $$`)
	require.NoError(t, err)
	return db.App
}

func TestStore(t *testing.T) {
	fewerRuns(t)
	db := smallDatabase(t)
	open := func(t *testing.T, url string) store.Store { return openAt(t, url) }
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) store.Store { return open(t, emptied(t, db)) },
		Reopen: func(t *testing.T, s store.Store) store.Store {
			require.NoError(t, s.Close())
			return open(t, db.App)
		},
	})
}
