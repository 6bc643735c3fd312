package transfer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	zombie "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/store/transfer"
)

var (
	ctx  = context.Background()
	sys  = store.AsSystem("transfer test")
	noon = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5).Add(12 * time.Hour)
	own  = delivery.AccountID{1}
	all  = delivery.AccountID{2} // a shared one
)

func clock() time.Time { return noon }

func database(t *testing.T) *servers.DB {
	t.Helper()
	return servers.Postgres(t).DatabaseLike(t, "migrated", func(db *servers.DB) error {
		return postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole})
	})
}

func openTarget(t *testing.T, db *servers.DB) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(ctx, postgres.Options{URL: db.App, Now: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// text is what PostgreSQL keeps of a text.
func text(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD") }

// everything reads a store as its callers see it.
func (k *source) everything(s store.Store) map[string]any {
	k.Helper()
	out := map[string]any{}
	put := func(name string, v any, err error) {
		k.Helper()
		require.NoError(k, err, name)
		out[name] = v
	}
	tenants, err := s.TenantList(ctx, sys)
	put("tenants", tenants, err)
	accounts, err := s.AllAccounts(ctx, sys)
	put("accounts", accounts, err)
	for _, id := range []delivery.TenantID{"gone-before", "acme", "other", delivery.Shared} {
		keys, err := s.KeyList(ctx, sys, id)
		put("keys of "+string(id), keys, err)
		unmatched, err := s.Unmatched(ctx, id, "", 10)
		put("unmatched of "+string(id), unmatched, err)
		if id == delivery.Shared {
			continue
		}
		r, err := s.Audit(ctx, id)
		put("audit of "+string(id), r, err)
		require.Empty(k, r.Problems)
		tally, err := s.Tally(ctx, id, delivery.CampaignID{})
		put("tally of "+string(id), tally, err)
		usage, err := s.Usage(ctx, id, noon)
		put("usage of "+string(id), usage, err)
		events, latest, err := s.Events(ctx, id, 0, 1000)
		put("events of "+string(id), []any{events, latest}, err)
	}
	versions, err := s.TemplateVersions(ctx, "acme", "otp")
	put("templates", versions, err)
	audiences, err := s.AudienceList(ctx, "acme")
	put("audiences", audiences, err)
	people, err := s.People(ctx, "acme", "people", 0, 10)
	put("people", people, err)
	campaign, err := s.Campaign(ctx, "acme", "spring")
	put("campaign", campaign, err)
	tally, err := s.Tally(ctx, "acme", delivery.CampaignID{5})
	put("tally of the campaign", tally, err)
	suppressions, err := s.SuppressionList(ctx, "acme", "", 10)
	put("suppressions", suppressions, err)
	dead, err := s.DeadLetters(ctx, "acme", store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 10}})
	for i := range dead {
		dead[i].Detail = text(dead[i].Detail)
	}
	put("dead letters", dead, err)
	overdue, err := s.Overdue(ctx, sys, noon.Add(time.Hour), "", 100)
	put("overdue", overdue, err)
	queues, err := s.DueQueues(ctx, sys, noon)
	put("due queues", queues, err)
	parked, err := s.Parked(ctx, sys)
	put("parked", parked, err)
	for name, id := range k.is {
		tenant := delivery.TenantID("acme")
		if name == "keyed other" {
			tenant = "other"
		}
		m, err := s.Message(ctx, tenant, id)
		m.ProviderID, m.Detail = text(m.ProviderID), text(m.Detail)
		put("message "+name, m, err)
		facts, err := s.Facts(ctx, tenant, id)
		put("facts of "+name, facts, err)
	}
	return out
}

// files is what lies in the directory.
func (k *source) files() map[string]string {
	out := map[string]string{}
	list, err := os.ReadDir(k.dir)
	k.ok(err)
	for _, f := range list {
		b, err := os.ReadFile(filepath.Join(k.dir, f.Name()))
		k.ok(err)
		out[f.Name()] = string(b)
	}
	return out
}

// closed fills the source, reads it and closes it.
func (k *source) closed() (everything map[string]any) {
	k.fill()
	everything = k.everything(k.s)
	k.ok(k.s.Close())
	return everything
}

type ledgerRow struct {
	tenant, seq, at   int64
	prev, hash, facts string
}

func TestEverythingIsThereAndLifeGoesOn(t *testing.T) {
	k, db := newSource(t), database(t)
	want := k.closed()
	before := k.files()
	var told []transfer.Progress
	result, err := transfer.Run(ctx, transfer.Options{From: k.dir, To: db.App, Now: clock,
		Progress: func(p transfer.Progress) { told = append(told, p) }})
	require.NoError(t, err)
	require.Equal(t, before, k.files(), "the source is only read")
	require.Equal(t, int64(len(k.is)), result.Messages)
	require.Equal(t, int64(3), result.Tenants)
	require.Positive(t, result.Facts)
	for i, p := range told {
		require.LessOrEqual(t, p.Done, p.Total)
		require.True(t, i == 0 || p.Done >= told[i-1].Done)
	}
	require.Equal(t, told[len(told)-1].Done, told[len(told)-1].Total)

	s := openTarget(t, db)
	got := k.everything(s)
	for name := range want {
		assert.Equal(t, want[name], got[name], name)
	}
	k.sameLedger(db)
	k.sameLine(s, db)
	k.goesOn(s)

	_, err = transfer.Run(ctx, transfer.Options{From: k.dir, To: db.App})
	require.ErrorIs(t, err, store.ErrConflict)
	require.ErrorContains(t, err, "the database is not empty: there are rows in tenants, api_keys,")
	again, err := sqlite.Open(ctx, sqlite.Options{Dir: k.dir})
	require.NoError(t, err, "the directory is still a store")
	require.NoError(t, again.Close())
}

// sameLedger compares the rows of both ledgers without the code that has copied them.
func (k *source) sameLedger(db *servers.DB) {
	k.Helper()
	var want, got []ledgerRow
	e, err := sqlite.OpenExport(ctx, k.dir)
	k.ok(err)
	k.ok(e.Table(ctx, "ledger", []string{"tenant", "seq", "at", "prev", "hash", "facts"}, func(r []any) error {
		want = append(want, ledgerRow{r[0].(int64), r[1].(int64), r[2].(int64), string(r[3].([]byte)), string(r[4].([]byte)),
			string(r[5].([]byte))})
		return nil
	}))
	k.ok(e.Close())
	conn, err := pgx.Connect(ctx, db.Admin)
	k.ok(err)
	defer func() { k.ok(conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT tenant, seq, at, prev, hash, facts FROM ledger ORDER BY seq`)
	k.ok(err)
	for rows.Next() {
		var r ledgerRow
		var prev, hash, facts []byte
		k.ok(rows.Scan(&r.tenant, &r.seq, &r.at, &prev, &hash, &facts))
		r.prev, r.hash, r.facts = string(prev), string(hash), string(facts)
		got = append(got, r)
	}
	k.ok(rows.Err())
	require.NotEmpty(k, want)
	require.Equal(k, want, got)
	var strays int
	k.ok(conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM messages_default) + (SELECT count(*) FROM ledger_default)
		+ (SELECT count(*) FROM payloads_default)`).Scan(&strays))
	require.Zero(k, strays, "old messages and their history have partitions, so that they can be dropped one day")
}

// sameLine lets a message join a line that was moved: all of the line must have the same lock.
func (k *source) sameLine(s *postgres.Store, db *servers.DB) {
	k.Helper()
	m := k.message(func(m *store.NewMessage) { m.OrderingKey = "k" })
	out, err := s.Accept(ctx, "acme", store.Acceptance{Now: noon, Messages: []store.NewMessage{m}})
	k.ok(err)
	require.Equal(k, store.ReasonOrdered, out.Results[0].Reason)
	conn, err := pgx.Connect(ctx, db.Admin)
	k.ok(err)
	defer func() { k.ok(conn.Close(ctx)) }()
	var messages, locks int
	k.ok(conn.QueryRow(ctx, `SELECT count(*), count(DISTINCT stripe) FROM ordered`).Scan(&messages, &locks))
	require.Equal(k, []int{4, 1}, []int{messages, locks})
}

// goesOn lives on where the embedded store stopped.
func (k *source) goesOn(s *postgres.Store) {
	k.Helper()
	out, err := s.Accept(ctx, "acme", store.Acceptance{Now: noon, Key: key(), Messages: []store.NewMessage{k.message()}})
	k.ok(err)
	require.True(k, out.Replayed)
	require.Equal(k, k.is["keyed acme"], out.Results[0].ID)

	// What was on its way when the embedded engine stopped, with a receipt that had come before its answer.
	settled, err := s.Settle(ctx, sys, noon, []store.Outcome{{ID: k.is["sending"], Epoch: 1, Writer: delivery.BySend,
		Status: delivery.StatusSent, Account: own, ProviderID: "early \xfe", Attempted: true}})
	k.ok(err)
	require.Equal(k, store.Settled{Applied: true, Status: delivery.StatusDelivered}, settled[0])
	reported, err := s.Report(ctx, sys, noon, time.Hour, []delivery.Receipt{{Account: own, ProviderID: "p-leg",
		Status: delivery.StatusUndelivered}})
	k.ok(err)
	require.Equal(k, k.is["two legs"], reported[0].Message)
	require.Len(k, reported[0].Ready, 1, "its second leg begins")

	claimed, err := s.Claim(ctx, sys, store.Claim{IDs: []delivery.MessageID{k.is["queued"], k.is["first"], k.is["second"],
		k.is["second leg"]}, Node: "node-2", Now: noon, Until: noon.Add(time.Minute)})
	k.ok(err)
	require.Len(k, claimed, 3, "the second of a line waits")
	for _, c := range claimed {
		if c.ID == k.is["second leg"] {
			require.Equal(k, "second", string(c.Payload))
			require.Equal(k, all, c.Account)
		}
		if c.ID == k.is["first"] {
			settled, err := s.Settle(ctx, sys, noon, []store.Outcome{{ID: c.ID, Epoch: c.Epoch, Writer: delivery.BySend,
				Status: delivery.StatusSent, Account: own, ProviderID: "x", Attempted: true}})
			k.ok(err)
			require.Equal(k, k.is["second"], settled[0].Ready[0].ID)
		}
	}
	// New numbers do not meet old ones.
	k.ok(s.CreateTenant(ctx, sys, store.Tenant{ID: "new", CreatedAt: noon}))
	k.ok(s.CreateCampaign(ctx, "new", store.Campaign{ID: delivery.CampaignID{6}, Name: "spring",
		State: store.CampaignDraft, CreatedAt: noon}))
	k.ok(s.CreateAudience(ctx, "new", store.Audience{Name: "people", CreatedAt: noon}))
	_, err = s.Accept(ctx, "new", store.Acceptance{Now: noon, Messages: []store.NewMessage{
		k.message(func(m *store.NewMessage) { m.Account = delivery.AccountID{77} })}})
	k.ok(err)
	n, err := s.DropParked(ctx, sys, noon.Add(2*time.Hour))
	k.ok(err)
	require.Zero(k, n)
	ids := []delivery.MessageID{k.is["failed"], k.is["dropped"]}
	redriven, err := s.Redrive(ctx, "acme", ids, noon, noon.Add(time.Hour))
	k.ok(err)
	require.Equal(k, []bool{true, false}, []bool{redriven[0].Done, redriven[1].Done})
	_, err = s.MoveCampaign(ctx, "acme", store.Campaign{ID: delivery.CampaignID{5}, Name: "spring"},
		[]store.CampaignState{store.CampaignRunning}, store.CampaignPaused, noon)
	k.ok(err)
	for _, id := range []delivery.TenantID{"acme", "other", "new"} {
		r, err := s.Audit(ctx, id)
		k.ok(err)
		require.Empty(k, r.Problems)
	}
}

// A transfer that is stopped leaves nothing behind, and can be begun again.
func TestAllOrNothing(t *testing.T) {
	k, db := newSource(t), database(t)
	k.closed()
	for _, table := range []string{"tenants", "payloads", "clock", ""} {
		stopped, cancel := context.WithCancel(ctx)
		stop := func(p transfer.Progress) {
			if p.Table == table {
				cancel()
			}
		}
		_, err := transfer.Run(stopped, transfer.Options{From: k.dir, To: db.App, Now: clock, Progress: stop})
		require.ErrorIs(t, err, context.Canceled, "stopped at %q", table)
		tenants, err := openTarget(t, db).TenantList(ctx, sys)
		require.NoError(t, err)
		require.Empty(t, tenants)
	}
	_, err := transfer.Run(ctx, transfer.Options{From: k.dir, To: db.App, Now: clock})
	require.NoError(t, err)
}

func TestRefused(t *testing.T) {
	k, db := newSource(t), database(t)
	k.fill()
	refused := func(from, to, want string) {
		t.Helper()
		_, err := transfer.Run(ctx, transfer.Options{From: from, To: to, Now: clock})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), servers.Password)
	}
	refused("", db.App, "a directory and a URL are needed")
	refused(k.dir, "", "a directory and a URL are needed")
	refused(k.dir, db.App, fmt.Sprintf("database in use by process %d", os.Getpid()))
	k.ok(k.s.Close())
	refused(t.TempDir(), db.App, "there is no database in")
	refused(k.dir, "mysql://u:"+servers.Password+"@h/d", "must look like postgres://")
	refused(k.dir, strings.Replace(db.App, db.Name, "nothing_like_it", 1), "nothing_like_it")
	refused(k.dir, servers.Postgres(t).Database(t).App, "msgctl migrate up")
	refused(k.dir, db.Owner, "role")

	s := openTarget(t, db)
	node := store.Beat{Name: "node-7", Run: store.RunID{1}, TTL: time.Hour, Started: noon}
	_, err := s.Beat(ctx, sys, node)
	k.ok(err)
	refused(k.dir, db.App, "stop node-7 first")
	k.ok(s.Leave(ctx, sys, node.Name, node.Run))
	k.ok(s.CreateTenant(ctx, sys, store.Tenant{ID: "mine", CreatedAt: noon}))
	refused(k.dir, db.App, "not empty: there are rows in tenants")
}

// What was wrong in the embedded store is carried along, and is still found.
func TestDamageStays(t *testing.T) {
	k, db := newSource(t), database(t)
	k.fill()
	k.ok(k.s.Close())
	conn, err := zombie.OpenConn(filepath.Join(k.dir, "msgctl.db"), zombie.OpenReadWrite)
	k.ok(err)
	k.ok(sqlitex.ExecuteTransient(conn, `UPDATE ledger SET at = at + 1 WHERE seq = 2`, nil))
	k.ok(conn.Close())
	_, err = transfer.Run(ctx, transfer.Options{From: k.dir, To: db.App, Now: clock})
	k.ok(err)
	r, err := openTarget(t, db).Audit(ctx, "acme")
	k.ok(err)
	require.NotEmpty(t, r.Problems)
	require.Equal(t, "ledger row was changed", r.Problems[0].What)
}
