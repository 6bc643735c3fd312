package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

func TestChangeThatCommitsLateIsNotMissed(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	before, err := s.Changes(bg, sys, 0, 100)
	require.NoError(t, err)

	// A transaction of another node has written its change and has not committed yet.
	other := connect(t, db.App)
	tx, err := other.Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	_, err = tx.Exec(bg, `SELECT set_config('msgctl.tenant', '-1', true)`)
	require.NoError(t, err)
	_, err = tx.Exec(bg, postgres.WriteChanges, []string{"account"}, []int64{0}, []string{"late"})
	require.NoError(t, err)

	done := make(chan error, 1)
	go func() { done <- s.Suppress(bg, "acme", []store.Suppression{{To: "+1"}}) }()
	var waits, early []string
	require.Eventually(t, func() bool { // until it either waits for the other one or has gone past it
		waits = scoped[string](t, connect(t, db.Admin), "", `SELECT 'x' FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query LIKE '%changes_head%'`)
		early = nil
		got, err := s.Changes(bg, sys, before.Upto, 100)
		for _, c := range got.List {
			early = append(early, c.ID)
		}
		return err != nil || len(waits) > 0 || len(early) > 0
	}, patience, beat)
	middle, err := s.Changes(bg, sys, before.Upto, 100)
	require.NoError(t, err)
	require.NoError(t, tx.Commit(bg))
	require.NoError(t, <-done)

	after, err := s.Changes(bg, sys, middle.Upto, 100)
	require.NoError(t, err)
	var kinds []store.ChangeKind
	for _, c := range append(middle.List, after.List...) {
		kinds = append(kinds, c.Kind)
	}
	require.ElementsMatch(t, []store.ChangeKind{store.AccountChange, store.SuppressChange}, kinds,
		"who goes on from where an answer was complete sees both")
}

// An unrelated transaction that runs for long must not hold back the news.
func TestLongTransactionHoldsNoChangeBack(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	long := connect(t, db.Admin)
	tx, err := long.Begin(bg)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(bg) }()
	_, err = tx.Exec(bg, `CREATE TABLE elsewhere (n int)`)
	require.NoError(t, err)
	before, err := s.Roster(bg, sys)
	require.NoError(t, err)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme"}))
	after, err := s.Roster(bg, sys)
	require.NoError(t, err)
	require.Greater(t, after.Changed, before.Changed)
	got, err := s.Changes(bg, sys, before.Changed, 10)
	require.NoError(t, err)
	require.Len(t, got.List, 1)
	require.Equal(t, after.Changed, got.Upto)
}

func TestOldChangesAndNodesGoAndTheGapIsSaid(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	for i := range 5 {
		require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: delivery.TenantID(fmt.Sprint("t", i))}))
	}
	beat := func(name string) store.Roster {
		r, err := s.Beat(bg, sys, store.Beat{Name: name, Run: store.RunID{1}, TTL: time.Minute})
		require.NoError(t, err)
		return r
	}
	beat("old")
	all, err := s.Changes(bg, sys, 0, 100)
	require.NoError(t, err)
	require.Len(t, all.List, 5)
	admin := connect(t, db.Admin)
	_, err = admin.Exec(bg, `UPDATE changes SET at = at - 3601 * 1000000::bigint WHERE seq <> $1`, all.List[3].Seq)
	require.NoError(t, err)
	_, err = admin.Exec(bg, `UPDATE nodes SET until = until - 3700 * 1000000::bigint`)
	require.NoError(t, err)

	r := beat("new")
	require.Len(t, r.Nodes, 1, "who is gone for an hour is not listed")
	got, err := s.Changes(bg, sys, 0, 100)
	require.NoError(t, err)
	require.True(t, got.Gap)
	require.Equal(t, all.List[3:], got.List, "the newest stays, however old it is")
	got, err = s.Changes(bg, sys, all.List[2].Seq, 100)
	require.NoError(t, err)
	require.False(t, got.Gap, "who has seen all that is gone has missed nothing")
	require.Equal(t, all.Upto, r.Changed)
}

// The roster is asked for three times a second by every node: it must not look at messages that are not under lease.
func TestRosterReadsOnlyWhatIsUnderLease(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	manyMessages(t, s, 3000)
	admin := connect(t, db.Admin)
	_, err := admin.Exec(bg, `ANALYZE`)
	require.NoError(t, err)
	plan := scoped[string](t, admin, "", `EXPLAIN SELECT m.node, count(*) FROM messages m WHERE m.q = 0
		AND m.due IS NOT NULL AND m.status = 5 GROUP BY m.node`)
	for _, line := range plan {
		require.NotContains(t, line, "Seq Scan on messages_"+time.Now().UTC().Format("20060102"), "%v", plan)
	}
}
