package postgres_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

var (
	sys = store.AsSystem("test")
	bg  = context.Background()
)

// connect opens a connection of its own, beside the store.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(bg, url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	return conn
}

// scoped runs a query in a transaction of the given scope and returns its rows' first columns.
func scoped[T any](t testing.TB, conn *pgx.Conn, scope, sql string, args ...any) []T {
	t.Helper()
	tx, err := conn.Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	if scope != "" {
		_, err = tx.Exec(bg, `SELECT set_config('msgctl.tenant', $1, true)`, scope)
		require.NoError(t, err)
	}
	rows, err := tx.Query(bg, sql, args...)
	require.NoError(t, err, sql)
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	require.NoError(t, err, sql)
	return list
}

// ids makes message ids of a time.
func idsAt(at time.Time) *delivery.IDs { return delivery.NewIDs(func() time.Time { return at }) }

func newMessages(ids *delivery.IDs, now time.Time, n int, change ...func(int, *store.NewMessage)) []store.NewMessage {
	ms := make([]store.NewMessage, n)
	for i := range ms {
		ms[i] = store.NewMessage{ID: ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal,
			To: fmt.Sprintf("+91980%07d", i), Payload: []byte(`{"content":{"text":"hello"}}`), Segments: 1, DueAt: now,
			ExpiresAt: now.Add(24 * time.Hour)}
		for _, f := range change {
			f(i, &ms[i])
		}
	}
	return ms
}

func clean(t testing.TB, s store.Store, tenants ...delivery.TenantID) {
	t.Helper()
	for _, tenant := range tenants {
		r, err := s.Audit(bg, tenant)
		require.NoError(t, err)
		require.Empty(t, r.Problems)
		require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)
	}
}

// fill gives a tenant rows in every table that holds rows of tenants.
func fill(t *testing.T, s *postgres.Store, tenant delivery.TenantID, now time.Time) {
	t.Helper()
	ids := idsAt(now)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: tenant, CreatedAt: now}))
	require.NoError(t, s.PutKey(bg, sys, store.Key{ID: ids.Key(), Tenant: tenant, Hash: sha256.Sum256([]byte(tenant))}))
	account := store.Account{ID: ids.Account(), Name: "smsc", Kind: "smpp", Channel: delivery.SMS}
	require.NoError(t, s.PutAccount(bg, tenant, account))
	_, err := s.PutTemplate(bg, tenant, store.Template{Name: "t", Channel: delivery.SMS})
	require.NoError(t, err)
	require.NoError(t, s.CreateAudience(bg, tenant, store.Audience{Name: "all"}))
	_, err = s.AddPeople(bg, tenant, "all", []store.Person{{Phone: "+1"}})
	require.NoError(t, err)
	require.NoError(t, s.CreateCampaign(bg, tenant, store.Campaign{ID: ids.Campaign(), Name: "c", Audience: "all"}))
	require.NoError(t, s.Suppress(bg, tenant, []store.Suppression{{To: "+1999"}}))
	ms := newMessages(ids, now, 4, func(i int, m *store.NewMessage) {
		m.To, m.Tag = "+1", "tag"
		switch i {
		case 0:
			m.Then = []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("{}")}}
		case 1, 2:
			m.OrderingKey = "k"
		}
	})
	_, err = s.Accept(bg, tenant, store.Acceptance{Now: now, Messages: ms,
		Key: &store.IdempotencyKey{Route: "r", Key: "k", Expires: now.Add(time.Hour)}})
	require.NoError(t, err)
	claimed, err := s.Claim(bg, sys, store.Claim{IDs: []delivery.MessageID{ms[0].ID, ms[3].ID}, Node: "n", Now: now,
		Until: now.Add(time.Minute)})
	require.NoError(t, err)
	require.Len(t, claimed, 2)
	_, err = s.Settle(bg, sys, now, []store.Outcome{
		{ID: ms[0].ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent, Account: account.ID,
			ProviderID: "p-" + string(tenant), IndexProviderID: true, Attempted: true},
		{ID: ms[3].ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusFailed, Reason: "r"}})
	require.NoError(t, err)
	_, err = s.Report(bg, sys, now, time.Hour, []delivery.Receipt{{Account: account.ID, ProviderID: "parked",
		Status: delivery.StatusDelivered, At: now}})
	require.NoError(t, err)
}

// Every table that a tenant's rows may lie in is found in the catalogue, so that a new one cannot be forgotten. The
// statements have no WHERE: what keeps the tenants apart here is row-level security alone.
func TestScopeShowsOneTenantWithoutAnyWhere(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	now := time.Now()
	fill(t, s, "acme", now)
	fill(t, s, "other", now)
	require.NoError(t, s.PutAccount(bg, delivery.Shared, store.Account{ID: delivery.AccountID{1}, Name: "pool"}))
	_, err := s.Seen(bg, sys, now)
	require.NoError(t, err)
	_, err = s.Beat(bg, sys, store.Beat{Name: "n", Run: store.RunID{1}, TTL: time.Hour})
	require.NoError(t, err)
	_, err = s.Session(bg, sys, delivery.AccountID{1}, "n", store.RunID{1}, 1)
	require.NoError(t, err)
	admin, app := connect(t, db.Admin), connect(t, db.App)
	for _, sql := range []string{
		`INSERT INTO cuts SELECT n, 0, '', 0, '00000000-0000-0000-0000-000000000000' FROM tenants`,
		`INSERT INTO cut_tally SELECT n, 0, 1, 1, 1 FROM tenants`,
		`INSERT INTO retired VALUES (0, 0, '{}')`} {
		_, err := admin.Exec(bg, sql)
		require.NoError(t, err)
	}

	// Of no tenant: nothing of them says anything about one, or a tenant's scope must not see them at all.
	anyScope := map[string]bool{"account_ids": true, "changes_head": true, "retired": true, "probe": true,
		"schema_version": true, "schema_serves": true}
	systemOnly := map[string]bool{"nodes": true, "sessions": true, "provider_refs": true, "parked_counts": true,
		"clock": true}

	// The engine's role may not change what these say.
	history := map[string]bool{"ledger": true, "cuts": true, "cut_tally": true}

	tables := scoped[string](t, admin, "", `SELECT c.relname::text FROM pg_class c
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace ORDER BY 1`)
	require.Greater(t, len(tables), 25)
	numbers := map[string]string{}
	for _, slug := range []string{"acme", "other"} {
		numbers[slug] = scoped[string](t, admin, "", `SELECT n::text FROM tenants WHERE slug = $1`, slug)[0]
	}
	for _, table := range tables {
		name := pgx.Identifier{table}.Sanitize()
		all := scoped[int](t, admin, "", `SELECT count(*)::int FROM `+name)[0]
		if table != "probe" {
			require.Positive(t, all, "%s: the test must have rows in every table", table)
		}
		if anyScope[table] {
			continue
		}
		require.Zero(t, scoped[int](t, app, "", `SELECT count(*)::int FROM `+name)[0], "%s: no scope", table)
		require.Zero(t, scoped[int](t, app, "999999", `SELECT count(*)::int FROM `+name)[0]-shared(table),
			"%s: the scope of a tenant without rows", table)
		require.Equal(t, all, scoped[int](t, app, "-1", `SELECT count(*)::int FROM `+name)[0], "%s: all tenants", table)
		if systemOnly[table] {
			require.Zero(t, scoped[int](t, app, numbers["acme"], `SELECT count(*)::int FROM `+name)[0], table)
			continue
		}
		column := "tenant"
		switch table {
		case "tenants":
			column = "n"
		case "parked": // its rows are of the tenant that has configured the account
			require.Equal(t, 1, scoped[int](t, app, numbers["acme"], `SELECT count(*)::int FROM parked`)[0])
			continue
		}
		seen := scoped[string](t, app, numbers["acme"], `SELECT DISTINCT `+column+`::text FROM `+name+` ORDER BY 1 DESC`)
		want := []string{numbers["acme"]}
		if shared(table) > 0 {
			want = append(want, "0")
		}
		require.Equal(t, want, seen, "%s: what acme sees", table)

		// It cannot write into another tenant either, nor make a row of its own another's.
		tx, err := app.Begin(bg)
		require.NoError(t, err)
		_, err = tx.Exec(bg, `SELECT set_config('msgctl.tenant', $1, true)`, numbers["acme"])
		require.NoError(t, err)
		tag, err := tx.Exec(bg, `UPDATE `+name+` SET `+column+` = `+column+` WHERE `+column+` = `+numbers["other"])
		if history[table] {
			require.ErrorContains(t, err, "42501", "%s: history is only added to", table)
			require.NoError(t, tx.Rollback(bg))
			continue
		}
		require.NoError(t, err, table)
		require.Zero(t, tag.RowsAffected(), "%s: an update of other's rows", table)
		_, err = tx.Exec(bg, `UPDATE `+name+` SET `+column+` = `+numbers["other"])
		require.Error(t, err, "%s: a row that is given to another tenant", table)
		require.NoError(t, tx.Rollback(bg))
	}
}

func shared(table string) int {
	if table == "accounts" {
		return 1
	}
	return 0
}

// A scope of the transaction before must not live on in the connection, nor one that is empty let everything through.
func TestScopeEndsWithItsTransaction(t *testing.T) {
	db := database(t)
	fill(t, openAt(t, db.App), "acme", time.Now())
	app := connect(t, db.App)
	require.NotZero(t, scoped[int](t, app, "-1", `SELECT count(*)::int FROM messages`)[0])
	require.Zero(t, scoped[int](t, app, "", `SELECT count(*)::int FROM messages`)[0])
	require.Zero(t, scoped[int](t, app, "", `SELECT count(*)::int FROM nodes`)[0])
}

func TestEnginesRoleCannotTouchPartitionsOrSchema(t *testing.T) {
	db := database(t)
	openAt(t, db.App)
	app := connect(t, db.App)
	partitions := scoped[string](t, app, "", `SELECT inhrelid::regclass::text FROM pg_inherits i
		JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'`)
	require.Greater(t, len(partitions), 20)
	for _, p := range partitions {
		_, err := app.Exec(bg, `SELECT FROM `+p)
		require.ErrorContains(t, err, "42501", p)
	}
	for _, sql := range []string{`DROP TABLE messages_default`, `ALTER TABLE messages DISABLE ROW LEVEL SECURITY`,
		`CREATE POLICY p ON messages USING (true)`, `ALTER TABLE messages NO FORCE ROW LEVEL SECURITY`,
		`TRUNCATE ledger`, `DELETE FROM ledger`, `UPDATE ledger SET at = 0`, `SET ROLE postgres`} {
		_, err := app.Exec(bg, sql)
		require.Error(t, err, sql)
	}
}

// Several nodes do at once what a single process does one after the other.
func TestRecordsOfSeveralNodesAtOnce(t *testing.T) {
	db := database(t)
	stores := []*postgres.Store{openAt(t, db.App), openAt(t, db.App), openAt(t, db.App)}
	require.NoError(t, stores[0].CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	require.NoError(t, stores[0].CreateAudience(bg, "acme", store.Audience{Name: "all"}))
	const each = 8
	versions := make(chan int, 100)
	added := make(chan int, 100)
	made := make(chan error, 100)
	var wg sync.WaitGroup
	ok := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for n, s := range stores {
		for i := range each {
			wg.Go(func() {
				v, err := s.PutTemplate(bg, "acme", store.Template{Name: "t", Channel: delivery.SMS})
				ok(err)
				versions <- v
			})
			wg.Go(func() {
				people := []store.Person{{Phone: fmt.Sprint("+", i)}, {Phone: fmt.Sprint("+", i, "-", n)}}
				got, err := s.AddPeople(bg, "acme", "all", people)
				ok(err)
				for _, is := range got {
					if is {
						added <- 1
					}
				}
			})
			wg.Go(func() { made <- s.CreateTenant(bg, sys, store.Tenant{ID: delivery.TenantID(fmt.Sprint("t", i))}) })
			wg.Go(func() {
				ok(s.PutAccount(bg, "acme", store.Account{ID: delivery.AccountID{byte(i + 1)}, Name: fmt.Sprint("a", i),
					Kind: "x", Channel: delivery.SMS}))
			})
		}
	}
	wg.Wait()
	close(versions)
	close(added)
	close(made)
	seen := map[int]bool{}
	for v := range versions {
		seen[v] = true
	}
	require.Len(t, seen, len(stores)*each, "every call has a version of its own")
	require.True(t, seen[1] && seen[len(stores)*each], "without a gap")
	people, err := stores[1].People(bg, "acme", "all", 0, 1000)
	require.NoError(t, err)
	require.Len(t, people, each+len(stores)*each)
	require.Len(t, added, len(people))
	require.EqualValues(t, len(people), people[len(people)-1].Seq, "sequences have no gap")
	won := 0
	for err := range made {
		if err == nil {
			won++
		} else {
			require.ErrorIs(t, err, store.ErrExists)
		}
	}
	require.Equal(t, each, won)
	list, err := stores[2].AccountList(bg, "acme")
	require.NoError(t, err)
	require.Len(t, list, each)
}

func TestLargeAudienceGoesAtOnceAndItsPeopleInParts(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	admin := connect(t, db.Admin)
	fillIn := func(name string) {
		require.NoError(t, s.CreateAudience(bg, "acme", store.Audience{Name: name}))
		_, err := admin.Exec(bg, `INSERT INTO people (audience, seq, tenant, address, phone, email, url, channel, vars)
			SELECT n, g, tenant, g::text, g::text, '', '', 0, '{}' FROM audiences, generate_series(1, 12001) g
			WHERE name = $1 AND NOT gone`,
			name)
		require.NoError(t, err)
	}
	fillIn("first")
	require.NoError(t, s.DeleteAudience(bg, "acme", "first"))
	require.Empty(t, scoped[int64](t, admin, "", `SELECT seq FROM people`))
	require.Empty(t, scoped[string](t, admin, "", `SELECT name FROM audiences`))

	// A process that was killed in between leaves people that nobody sees; the next deletion removes them.
	fillIn("second")
	_, err := admin.Exec(bg, `UPDATE audiences SET gone = true`)
	require.NoError(t, err)
	_, err = s.Audience(bg, "acme", "second")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.People(bg, "acme", "second", 0, 1)
	require.ErrorIs(t, err, store.ErrNotFound)
	list, err := s.AudienceList(bg, "acme")
	require.NoError(t, err)
	require.Empty(t, list)
	fillIn("second")
	require.NoError(t, s.DeleteAudience(bg, "acme", "second"))
	require.Empty(t, scoped[int64](t, admin, "", `SELECT seq FROM people`))
}

// PostgreSQL stores no NUL in a text. Whoever sends one must learn it, and nothing of it must be stored.
func TestTextThatCannotBeStoredIsRefused(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	for what, err := range map[string]error{
		"tenant":   s.UpdateTenant(bg, sys, store.Tenant{ID: "acme", Name: "a\x00b"}),
		"key":      s.PutKey(bg, sys, store.Key{ID: delivery.KeyID{1}, Tenant: "acme", Name: "a\x00"}),
		"account":  s.PutAccount(bg, "acme", store.Account{ID: delivery.AccountID{1}, Name: "\x00"}),
		"audience": s.CreateAudience(bg, "acme", store.Audience{Name: "\xff"}),
		"campaign": s.CreateCampaign(bg, "acme", store.Campaign{ID: delivery.CampaignID{1}, Name: "\x00"}),
	} {
		require.ErrorContains(t, err, "cannot be stored", what)
		require.NotErrorIs(t, err, store.ErrUnavailable, what)
	}
	_, err := s.PutTemplate(bg, "acme", store.Template{Name: "t", Channel: delivery.SMS, Text: "a\x00b"})
	require.ErrorContains(t, err, "cannot be stored")
	require.NoError(t, s.Suppress(bg, "acme", []store.Suppression{{To: "+1", Reason: "a\x00b"}}))
	clean(t, s, "acme")
}

// A change that waits for another node's change of the same tenant sees it once that has committed.
func TestATenantChangedByTwoNodesAtOnce(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	read, err := s.Tenant(bg, sys, "acme")
	require.NoError(t, err)

	tx, err := connect(t, db.Admin).Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	_, err = tx.Exec(bg, `UPDATE tenants SET name = 'theirs', version = version + 1 WHERE slug = 'acme'`)
	require.NoError(t, err)
	done := make(chan error, 1)
	read.Name = "ours"
	go func() { done <- s.UpdateTenant(bg, sys, read) }()
	watch := connect(t, db.Admin)
	require.Eventually(t, func() bool {
		return len(scoped[string](t, watch, "", `SELECT 'x' FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query LIKE '%tenants%'`)) > 0
	}, patience, beat)
	require.NoError(t, tx.Commit(bg))
	require.ErrorIs(t, <-done, store.ErrConflict)
	now, err := s.Tenant(bg, sys, "acme")
	require.NoError(t, err)
	require.Equal(t, "theirs", now.Name)
}
