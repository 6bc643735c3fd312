package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// past is a store with a history of days.
type past struct {
	t     *testing.T
	db    *servers.DB
	s     *postgres.Store
	today time.Time
	n     int
	// planned says that what is removed is what a plan has counted.
	planned bool
}

func newPast(t *testing.T) *past {
	p := &past{t: t, db: database(t), today: time.Now().UTC().Truncate(24 * time.Hour)}
	p.s = openAt(t, p.db.App)
	for _, slug := range []delivery.TenantID{"acme", "other", "idle"} {
		require.NoError(t, p.s.CreateTenant(bg, sys, store.Tenant{ID: slug, CreatedAt: p.today}))
	}
	return p
}

// back is the noon of so many days ago.
func (p *past) back(days int) time.Time {
	return p.today.AddDate(0, 0, -days).Add(12 * time.Hour)
}

// lived accepts messages of a time that end in different ways.
func (p *past) lived(tenant delivery.TenantID, at time.Time) []delivery.MessageID {
	p.t.Helper()
	ms := newMessages(idsAt(at), at, 6, func(i int, m *store.NewMessage) {
		if i == 0 {
			m.Tag, m.Then = "old", []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("{}")}}
		}
	})
	_, err := p.s.Accept(bg, tenant, store.Acceptance{Now: at, Messages: ms})
	require.NoError(p.t, err)
	var list []delivery.MessageID
	for _, m := range ms {
		list = append(list, m.ID)
	}
	_, err = p.s.Cancel(bg, tenant, list[5], at)
	require.NoError(p.t, err)
	claimed, err := p.s.Claim(bg, sys, store.Claim{IDs: list[:5], Node: "n", Now: at, Until: at.Add(time.Minute)})
	require.NoError(p.t, err)
	require.Len(p.t, claimed, 5)
	var outcomes []store.Outcome
	for i, id := range list[:5] {
		p.n++
		o := store.Outcome{ID: id, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusSent,
			Account: delivery.AccountID{9}, ProviderID: fmt.Sprint("p", p.n), IndexProviderID: true, Attempted: true}
		if i == 4 {
			o.Status, o.Reason = delivery.StatusFailed, "r"
		}
		outcomes = append(outcomes, o)
	}
	_, err = p.s.Settle(bg, sys, at, outcomes)
	require.NoError(p.t, err)
	var receipts []delivery.Receipt
	for _, o := range outcomes[:3] {
		receipts = append(receipts, delivery.Receipt{Account: o.Account, ProviderID: o.ProviderID, At: at,
			Status: delivery.StatusDelivered})
	}
	_, err = p.s.Report(bg, sys, at, time.Hour, receipts)
	require.NoError(p.t, err)
	return list
}

func (p *past) retain(before time.Time) postgres.Removed {
	p.t.Helper()
	plan, err := postgres.Retain(bg, p.db.Owner, postgres.Retention{Before: before, DryRun: true})
	require.NoError(p.t, err)
	again, err := postgres.Retain(bg, p.db.Owner, postgres.Retention{Before: before, DryRun: true})
	require.NoError(p.t, err)
	require.Equal(p.t, plan, again, "a plan changes nothing")
	out, err := postgres.Retain(bg, p.db.Owner, postgres.Retention{Before: before})
	require.NoError(p.t, err)
	if p.planned {
		require.Equal(p.t, plan, out, "what was planned")
	}
	return out
}

func (p *past) audit(tenant delivery.TenantID) store.AuditReport {
	p.t.Helper()
	clean(p.t, p.s, tenant)
	r, err := p.s.Audit(bg, tenant)
	require.NoError(p.t, err)
	return r
}

func (p *past) exec(sql string, args ...any) {
	p.t.Helper()
	_, err := connect(p.t, p.db.Admin).Exec(bg, sql, args...)
	require.NoError(p.t, err)
}

func TestRetentionKeepsTheBooksProvable(t *testing.T) {
	p := newPast(t)
	p.planned = true
	day := func(n int) int { return int(p.back(n).Unix() / 86400) }
	// Some days have partitions of their own, the older ones lie in the default partition.
	p.exec(`SELECT msgctl_make_partitions($1, $2, 1)`, day(6), day(0))
	acme := map[int][]delivery.MessageID{}
	for days := 9; days >= 1; days-- {
		acme[days] = p.lived("acme", p.back(days))
	}
	p.lived("other", p.back(8))
	before := p.audit("acme")
	require.True(t, before.Since.IsZero())
	require.EqualValues(t, 54, before.Accepted)
	tally, err := p.s.Tally(bg, "acme", delivery.CampaignID{})
	require.NoError(t, err)

	out := p.retain(p.today.AddDate(0, 0, -4))
	require.Empty(t, out.Kept)
	require.EqualValues(t, 36, out.Messages, "five days of acme and one of other")
	require.Positive(t, out.Ledger)
	after := p.audit("acme")
	require.Equal(t, p.today.AddDate(0, 0, -5), after.Since, "the ledger is kept a day longer than messages")
	require.Equal(t, []int64{before.Accepted, before.Live, before.HandedOn, before.Ended},
		[]int64{after.Accepted, after.Live, after.HandedOn, after.Ended})
	require.Less(t, after.Facts, before.Facts)
	require.False(t, p.audit("other").Since.IsZero())
	require.True(t, p.audit("idle").Since.IsZero(), "nothing of it was removed")
	same, err := p.s.Tally(bg, "acme", delivery.CampaignID{})
	require.NoError(t, err)
	require.Equal(t, tally, same, "how messages ended stays known")

	for days, ids := range acme {
		_, err := p.s.Message(bg, "acme", ids[0])
		facts, _ := p.s.Facts(bg, "acme", ids[0])
		if days > 4 {
			require.ErrorIs(t, err, store.ErrNotFound, "%d days ago", days)
			continue
		}
		require.NoError(t, err, "%d days ago", days)
		require.Len(t, facts, 4)
	}
	dead, err := p.s.DeadLetters(bg, "acme", store.DeadLetterQuery{MessageQuery: store.MessageQuery{Limit: 100}})
	require.NoError(t, err)
	require.Len(t, dead, 4)
	require.Equal(t, []int{16}, scoped[int](t, connect(t, p.db.Admin), "", `SELECT count(*)::int FROM provider_refs`))
	for _, table := range []string{"payloads", "labels", "legs"} {
		require.Empty(t, scoped[string](t, connect(t, p.db.Admin), "", `SELECT x.id::text FROM `+table+` x
			WHERE NOT EXISTS (SELECT FROM messages m WHERE m.id = x.id)`), table)
	}

	require.Zero(t, p.retain(p.today.AddDate(0, 0, -4)).Partitions, "again")
	p.lived("acme", p.back(0))
	require.Equal(t, before.Accepted+6, p.audit("acme").Accepted)
	p.retain(p.today)
	last := p.audit("acme")
	require.Equal(t, before.Accepted+6, last.Accepted)

	// The chain still proves what is left of it, and where it begins.
	tampered := func(sql, what string) {
		t.Helper()
		admin := connect(t, p.db.Admin)
		_, err := admin.Exec(bg, sql)
		require.NoError(t, err)
		r, err := p.s.Audit(bg, "acme")
		require.NoError(t, err)
		require.NotEmpty(t, r.Problems, what)
	}
	tampered(`UPDATE cuts SET hash = sha256(hash)`, "another beginning")
	p.exec(`DELETE FROM cuts`)
	tampered(`SELECT 1`, "no beginning")
}

func TestRetentionStopsAtWhatHasNotEnded(t *testing.T) {
	p := newPast(t)
	p.planned = true
	p.lived("acme", p.back(9))
	at := p.back(8)
	waiting := newMessages(idsAt(at), at, 1)
	_, err := p.s.Accept(bg, "acme", store.Acceptance{Now: at, Messages: waiting})
	require.NoError(t, err)
	p.lived("acme", p.back(3))
	p.exec(`SELECT msgctl_make_partitions($1, $2, 1)`, p.back(9).Unix()/86400, p.back(0).Unix()/86400)
	out := p.retain(p.today.AddDate(0, 0, -1))
	require.Equal(t, 1, out.Partitions)
	require.Contains(t, out.Kept, "have not ended")
	require.Contains(t, out.Kept, at.Format(time.DateOnly))
	p.audit("acme")

	_, err = p.s.Cancel(bg, "acme", waiting[0].ID, p.today)
	require.NoError(t, err)
	require.Contains(t, p.retain(p.today.AddDate(0, 0, -1)).Kept, "has changed", "it ended only now")
	require.Empty(t, p.retain(p.today.Add(time.Hour)).Kept)
	require.EqualValues(t, 13, p.audit("acme").Accepted)
}

// A node with a slow clock writes rows of yesterday after those of today.
func TestRetentionCutsTheChainAtItsEndWhateverTheClocks(t *testing.T) {
	p := newPast(t)
	p.exec(`SELECT msgctl_make_partitions($1, $2, 1)`, p.back(9).Unix()/86400, p.back(0).Unix()/86400)
	p.lived("acme", p.back(6))
	p.lived("acme", p.back(4))
	p.lived("acme", p.back(5))
	p.lived("acme", p.back(3))
	for days := 5; days >= 0; days-- {
		p.retain(p.today.AddDate(0, 0, -days))
		p.audit("acme")
	}
}

// What was stopped half-way is finished by the next one; meanwhile nobody claims that the books are wrong.
func TestRetentionIsTakenUpWhereItWasStopped(t *testing.T) {
	p := newPast(t)
	p.lived("acme", p.back(5))
	p.lived("acme", p.back(2))
	before := p.audit("acme")
	admin := connect(t, p.db.Admin)
	tx, err := admin.Begin(bg)
	require.NoError(t, err)
	_, err = tx.Exec(bg, `LOCK TABLE provider_refs IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := postgres.Retain(ctx, p.db.Owner, postgres.Retention{Before: p.today.AddDate(0, 0, -3)})
		done <- err
	}()
	watch := connect(t, p.db.Admin)
	require.Eventually(t, func() bool {
		return len(scoped[int](t, watch, "", `SELECT first FROM retired`)) > 0
	}, patience, beat)
	_, err = p.s.Audit(bg, "acme")
	require.ErrorIs(t, err, store.ErrUnavailable)
	cancel()
	require.Error(t, <-done)
	require.NoError(t, tx.Rollback(bg))

	p.retain(p.today.AddDate(0, 0, -3))
	after := p.audit("acme")
	require.Equal(t, []int64{before.Accepted, before.HandedOn, before.Ended},
		[]int64{after.Accepted, after.HandedOn, after.Ended})
	require.False(t, after.Since.IsZero())
}

func TestRetentionWhileNodesWork(t *testing.T) {
	p := newPast(t)
	for days := 8; days >= 4; days-- {
		p.lived("acme", p.back(days))
	}
	p.exec(`SELECT msgctl_make_partitions($1, $2, 1)`, p.back(9).Unix()/86400, p.back(0).Unix()/86400)
	now := p.back(0)
	ids := idsAt(now)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				ms := newMessages(ids, now, 1)
				_, err := p.s.Accept(bg, "acme", store.Acceptance{Now: now, Messages: ms})
				if err == nil {
					_, err = p.s.Claim(bg, sys, store.Claim{IDs: []delivery.MessageID{ms[0].ID}, Node: "n", Now: now,
						Until: now.Add(time.Minute)})
				}
				if err == nil {
					_, err = p.s.Settle(bg, sys, now, []store.Outcome{{ID: ms[0].ID, Epoch: 1, Writer: delivery.BySend,
						Status: delivery.StatusFailed, Reason: "r"}})
				}
				if err != nil {
					t.Errorf("while old partitions go: %v", err)
					return
				}
			}
		})
	}
	out := p.retain(p.today.AddDate(0, 0, -3))
	close(stop)
	wg.Wait()
	require.Empty(t, out.Kept)
	require.EqualValues(t, 30, out.Messages)
	p.audit("acme")
}

func TestRetentionIsForOneAtATime(t *testing.T) {
	p := newPast(t)
	p.lived("acme", p.back(5))
	tx, err := connect(t, p.db.Owner).Begin(bg)
	require.NoError(t, err)
	_, err = tx.Exec(bg, `SELECT pg_advisory_xact_lock(77206, 0)`) // as another one holds it
	require.NoError(t, err)
	_, err = postgres.Retain(bg, p.db.Owner, postgres.Retention{Before: p.today})
	require.ErrorIs(t, err, store.ErrConflict)
	_, err = postgres.Retain(bg, p.db.Owner, postgres.Retention{Before: p.today, DryRun: true})
	require.NoError(t, err, "who only counts disturbs nobody")
	require.NoError(t, tx.Rollback(bg))
	require.EqualValues(t, 6, p.retain(p.today).Messages)
	require.Empty(t, p.retain(p.today).Kept, "the lock goes with its connection")
}

func TestRetentionRefuses(t *testing.T) {
	p := newPast(t)
	_, err := postgres.Retain(bg, p.db.App, postgres.Retention{Before: p.today})
	require.ErrorContains(t, err, "does not own the tables")
	_, err = postgres.Retain(bg, p.db.Owner, postgres.Retention{})
	require.ErrorContains(t, err, "no time")
	out, err := postgres.Retain(bg, p.db.Owner, postgres.Retention{Keep: 3 * 24 * time.Hour, DryRun: true})
	require.NoError(t, err)
	require.WithinDuration(t, p.today.AddDate(0, 0, -3), out.Before, 24*time.Hour, "by the database's clock")
	_, err = postgres.Retain(bg, p.db.App, postgres.Retention{Before: p.today, DryRun: true})
	require.ErrorContains(t, err, "does not own the tables")
	_, err = postgres.Retain(bg, servers.Postgres(t).Database(t).Owner, postgres.Retention{Before: p.today})
	require.ErrorContains(t, err, "msgctl migrate up")
	_, err = postgres.Retain(bg, "postgres://u:secret@127.0.0.1:1/db", postgres.Retention{Before: p.today})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestPartitionsAreMadeAheadAndTakeInWhatCameBefore(t *testing.T) {
	p := newPast(t)
	spans := func() (list []string) {
		t.Helper()
		got, err := p.s.Partitions(bg, sys)
		require.NoError(t, err)
		for i, s := range got {
			if i > 0 {
				require.Equal(t, got[i-1].Until, s.First, "no day is left out")
			}
			list = append(list, s.First.Format(time.DateOnly))
		}
		return list
	}
	have := spans()
	require.Equal(t, p.today.Format(time.DateOnly), have[0], "from today on")
	require.Len(t, have, 4)
	made, err := p.s.MakePartitions(bg, sys, 4, 1)
	require.NoError(t, err)
	require.Zero(t, made)
	made, err = p.s.MakePartitions(bg, sys, 30, 7)
	require.NoError(t, err)
	require.Positive(t, made)
	require.Greater(t, len(spans()), 4)

	// A message of a day without a partition is as safe as any other, and moves when there is one.
	at := p.today.AddDate(0, 0, 200)
	ms := newMessages(idsAt(at), at, 3)
	_, err = p.s.Accept(bg, "acme", store.Acceptance{Now: at, Messages: ms})
	require.NoError(t, err)
	in := func() []string {
		return scoped[string](t, connect(t, p.db.Admin), "", `SELECT DISTINCT tableoid::regclass::text FROM messages`)
	}
	require.Equal(t, []string{"messages_default"}, in())
	_, err = p.s.MakePartitions(bg, sys, 210, 7)
	require.NoError(t, err)
	require.NotContains(t, in(), "messages_default")
	require.Empty(t, scoped[int](t, connect(t, p.db.Admin), "", `SELECT 1 FROM ledger_default`))
	p.audit("acme")
	got, err := p.s.Message(bg, "acme", ms[1].ID)
	require.NoError(t, err)
	require.Equal(t, delivery.StatusQueued, got.Status)
	for _, bad := range [][2]int{{0, 1}, {1, 0}, {900, 1}, {30, 400}} {
		_, err := p.s.MakePartitions(bg, sys, bad[0], bad[1])
		require.Error(t, err, bad)
	}
}

// An audit may use the default partition for long. Whoever makes partitions meanwhile must not make the others wait
// behind it.
func TestPartitionsAreNotMadeAtTheCostOfOthers(t *testing.T) {
	p := newPast(t)
	long := connect(t, p.db.App)
	tx, err := long.Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	_, err = tx.Exec(bg, `LOCK TABLE messages IN ACCESS SHARE MODE`)
	require.NoError(t, err)
	_, err = p.s.MakePartitions(bg, sys, 10, 1)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "lock")
	p.lived("acme", p.back(0))
	require.NoError(t, tx.Rollback(bg))
	made, err := p.s.MakePartitions(bg, sys, 10, 1)
	require.NoError(t, err)
	require.Equal(t, 30, made)
}

func TestManyNodesMakePartitionsAtOnce(t *testing.T) {
	p := newPast(t)
	made, errs := make([]int, 4), make([]error, 4)
	var wg sync.WaitGroup
	for i := range made {
		s := openAt(t, p.db.App)
		wg.Go(func() { made[i], errs[i] = s.MakePartitions(bg, sys, 9, 1) })
	}
	wg.Wait()
	all := 0
	for i := range made {
		require.NoError(t, errs[i])
		all += made[i]
	}
	require.Equal(t, 25, all)
}
