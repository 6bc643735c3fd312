package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.CreateTenant(t.Context(), store.AsSystem("test"), store.Tenant{ID: "acme"}))
	return s
}

func message(ids *delivery.IDs) store.NewMessage {
	return store.NewMessage{ID: ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal, To: "+1",
		Payload: []byte("{}")}
}

func acceptOne(s *Store, m store.NewMessage) error {
	_, err := s.Accept(context.Background(), "acme", store.Acceptance{Now: m.ID.Time(), Messages: []store.NewMessage{m}})
	return err
}

// stall holds the writer inside an op until the returned function is called, so that a test can fill the next group.
func stall(t *testing.T, s *Store) (release func()) {
	t.Helper()
	inside, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := write(context.Background(), s, rowsPerGroup, func(*tx) (struct{}, error) {
			close(inside)
			<-gate
			return struct{}{}, nil
		})
		done <- err
	}()
	<-inside
	return func() {
		close(gate)
		require.NoError(t, <-done)
	}
}

// queued counts the ops that wait for the next groups.
func (w *writer) queued() int { return len(w.small) + len(w.large) }

// queue starts calls that end up in one group behind a stalled writer, in order.
func queue(s *Store, calls ...func() error) (wait func() []error) {
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		before := s.writer.queued()
		wg.Go(func() { errs[i] = call() })
		for s.writer.queued() == before {
			runtime.Gosched()
		}
	}
	return func() []error { wg.Wait(); return errs }
}

func TestOneBadOpFailsNobodyElse(t *testing.T) {
	for name, bad := range map[string]func(*tx) (struct{}, error){
		"an error after a write": func(t *tx) (struct{}, error) {
			if err := t.exec(`UPDATE tenants SET name = 'spoilt'`); err != nil {
				return struct{}{}, err
			}
			return struct{}{}, errors.New("planted")
		},
		"a statement that fails": func(t *tx) (struct{}, error) {
			return struct{}{}, t.exec(`INSERT INTO tenants (n, slug) VALUES (1, 'twice')`)
		},
		"a panic": func(t *tx) (struct{}, error) {
			_ = t.exec(`UPDATE tenants SET name = 'spoilt'`)
			panic("planted")
		},
		"a refusal without a write": func(*tx) (struct{}, error) { return struct{}{}, store.ErrConflict },
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			ids := delivery.NewIDs(func() time.Time { return time.UnixMilli(1_780_000_000_000) })
			ms := []store.NewMessage{message(ids), message(ids)}
			release := stall(t, s)
			wait := queue(s,
				func() error { return acceptOne(s, ms[0]) },
				func() error { _, err := write(context.Background(), s, 1, bad); return err },
				func() error { return acceptOne(s, ms[1]) },
			)
			release()
			errs := wait()
			require.NoError(t, errs[0])
			require.Error(t, errs[1])
			require.NoError(t, errs[2])
			for _, m := range ms {
				_, err := s.Message(t.Context(), "acme", m.ID)
				require.NoError(t, err)
			}
			r, err := s.Audit(t.Context(), "acme")
			require.NoError(t, err)
			require.Empty(t, r.Problems)
			require.EqualValues(t, 2, r.Accepted)
			tenant, err := s.Tenant(t.Context(), store.AsSystem("test"), "acme")
			require.NoError(t, err)
			require.Empty(t, tenant.Name, "the bad op left something behind")
		})
	}
}

func TestACallThatGivesUpBeforeItsTurnWritesNothing(t *testing.T) {
	s := testStore(t)
	ids := delivery.NewIDs(func() time.Time { return time.UnixMilli(1_780_000_000_000) })
	m := message(ids)
	ctx, cancel := context.WithCancel(t.Context())
	release := stall(t, s)
	wait := queue(s, func() error {
		_, err := s.Accept(ctx, "acme", store.Acceptance{Now: m.ID.Time(), Messages: []store.NewMessage{m}})
		return err
	})
	cancel()
	require.ErrorIs(t, wait()[0], context.Canceled)
	release()
	_, err := s.Message(t.Context(), "acme", m.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
}

// A full disk, as SQLite reports it: the whole group is refused, nothing of it is stored, and writing goes on by itself
// once there is room.
func TestFullDisk(t *testing.T) {
	s := testStore(t)
	ids := delivery.NewIDs(func() time.Time { return time.UnixMilli(1_780_000_000_000) })
	kept := message(ids)
	require.NoError(t, acceptOne(s, kept))
	limit := func(pages int) {
		release := stall(t, s) // the connection belongs to the writer: touch it only while that waits
		require.NoError(t, exec(s.writer.conn, fmt.Sprintf("PRAGMA max_page_count = %d", pages)))
		release()
	}
	limit(1) // rounded up to what the file has
	big := message(ids)
	big.Payload = make([]byte, 1<<20)
	err := acceptOne(s, big)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, "full")
	_, err = s.Message(t.Context(), "acme", big.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
	limit(1 << 30)
	require.NoError(t, s.Check(t.Context()))
	require.NoError(t, acceptOne(s, big))
	r, err := s.Audit(t.Context(), "acme")
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.EqualValues(t, 2, r.Accepted)
}

// Without these two a power cut may take acknowledged messages along, and no other test would see it.
func TestTheWriterSyncsEveryCommit(t *testing.T) {
	s := testStore(t)
	release := stall(t, s)
	defer release()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "page_size": "8192"} {
		require.NoError(t, query(s.writer.conn, "PRAGMA "+pragma, func(st *sqlite.Stmt) error {
			require.Equal(t, want, st.ColumnText(0), pragma)
			return nil
		}))
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s := testStore(t)
	conn := <-s.pool.free
	defer func() { s.pool.free <- conn }()
	require.Error(t, exec(conn, `UPDATE tenants SET name = 'x'`))
}

// A message that is deferred for ever keeps a bounded list of facts, and its books stay right.
func TestHistoryIsBounded(t *testing.T) {
	s := testStore(t)
	ids := delivery.NewIDs(func() time.Time { return time.UnixMilli(1_780_000_000_000) })
	m, sys := message(ids), store.AsSystem("test")
	require.NoError(t, acceptOne(s, m))
	now := m.ID.Time()
	var longest int
	for i := range 150 {
		now = now.Add(time.Minute)
		got, err := s.Claim(t.Context(), sys, store.Claim{IDs: []delivery.MessageID{m.ID}, Node: "n", Now: now,
			Until: now.Add(time.Minute)})
		require.NoError(t, err)
		require.Len(t, got, 1, "claim %d", i)
		_, err = s.Settle(t.Context(), sys, now, []store.Outcome{{ID: m.ID, Epoch: got[0].Epoch, Writer: delivery.BySend,
			Status: delivery.StatusDeferred, Reason: "busy", Until: now.Add(time.Minute)}})
		require.NoError(t, err)
		fs, err := s.Facts(t.Context(), "acme", m.ID)
		require.NoError(t, err)
		longest = max(longest, len(fs))
		require.Equal(t, delivery.FactAccepted, fs[0].Kind)
		require.Equal(t, now, fs[len(fs)-1].At)
	}
	require.Equal(t, maxSeqs-1, longest, "seen after every second fact")
	r, err := s.Audit(t.Context(), "acme")
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.EqualValues(t, 301, r.Facts, "the ledger itself forgets nothing")
}

func TestExpiredKeysArePurged(t *testing.T) {
	s := testStore(t)
	ids := delivery.NewIDs(func() time.Time { return time.UnixMilli(1_780_000_000_000) })
	for i := range 4 * purgeEvery {
		m := message(ids)
		now := m.ID.Time().Add(time.Duration(i) * time.Minute)
		_, err := s.Accept(t.Context(), "acme", store.Acceptance{Now: now, Messages: []store.NewMessage{m},
			Key: &store.IdempotencyKey{Route: "r", Key: fmt.Sprint(i), Expires: now.Add(time.Minute)}})
		require.NoError(t, err)
	}
	conn := <-s.pool.free
	defer func() { s.pool.free <- conn }()
	var left int
	_, err := one(conn, `SELECT count(*) FROM idempotency`,
		func(st *sqlite.Stmt) error { left = st.ColumnInt(0); return nil })
	require.NoError(t, err)
	require.LessOrEqual(t, left, purgeEvery+1)
}

// Every hot statement must be served by an index: a plan that scans a table is a plan that stops at a million rows.
func TestHotStatementsUseIndexes(t *testing.T) {
	s := testStore(t)
	conn := <-s.pool.free
	defer func() { s.pool.free <- conn }()
	for sql, index := range map[string]string{
		nextQueue:                            "messages_due (q>?)",
		dueInQueue:                           "messages_due (q=? AND (due,id)>(?,?) AND due<?)",
		aheadInQueue:                         "messages_due (q=? AND due>? AND (due,id)<(?,?))",
		waitingOf:                            "messages_campaign (campaign=? AND id>?)",
		heldFor + " LIMIT ?":                 "messages_held",
		heldFor + " AND tenant = ? LIMIT ?":  "messages_held_tenant (reason=? AND tenant=?)",
		heldFor + " AND account = ? LIMIT ?": "messages_held (reason=? AND account=?)",
		ledgerFrom:                           "ledger_tenant (tenant=? AND seq>?)",
		unmatchedOf:                          "parked USING PRIMARY KEY (account=? AND (ref,digest)>(?,?))",
		lineFirst:                            "ordered USING PRIMARY KEY (tenant=? AND channel=? AND recipient=? AND ordering_key=?)",
		pageQuery(byDead, "d.tenant = ?", "d.id < ?", "m.status = ?"):     "d USING PRIMARY KEY (tenant=? AND id<?)",
		pageQuery(byMessages, "m.tenant = ?", "m.id < ?", "m.status = ?"): "messages_tenant (tenant=? AND id<?)",
		pageQuery(byMessages, "+m.tenant = ?",
			"m.campaign = (SELECT n FROM campaigns WHERE id = ?)"): "messages_campaign (campaign=?)",
	} {
		plan := ""
		require.NoError(t, query(conn, "EXPLAIN QUERY PLAN "+sql, func(st *sqlite.Stmt) error {
			plan += st.ColumnText(3) + "\n"
			return nil
		}))
		require.Contains(t, plan, index, sql)
		require.NotContains(t, plan, "TEMP B-TREE", sql)
	}
}

// A message of a person who waits goes before batches that came first, and no batch is starved by such messages.
func TestFewRowsGoBeforeMany(t *testing.T) {
	s := testStore(t)
	release := stall(t, s)
	var order []string
	note := func(what string, rows int) func() error {
		return func() error {
			_, err := write(context.Background(), s, rows, func(*tx) (struct{}, error) {
				order = append(order, what)
				return struct{}{}, nil
			})
			return err
		}
	}
	wait := queue(s, note("batch", 256), note("batch", 256), note("batch", 256), note("batch", 256), note("one", 1), note("one", 1))
	release()
	for _, err := range wait() {
		require.NoError(t, err)
	}
	require.Equal(t, []string{"one", "one", "batch", "batch", "batch", "batch"}, order)

	release = stall(t, s)
	order = nil
	calls := []func() error{note("batch", 256)}
	for range 3 * opsPerCommit {
		calls = append(calls, note("one", 1))
	}
	wait = queue(s, calls...)
	release()
	for _, err := range wait() {
		require.NoError(t, err)
	}
	require.Less(t, slices.Index(order, "batch"), opsPerCommit, "a batch waits for one group at most")
}

// The log is moved into the database while commits go on, and begins anew.
func TestTheLogDoesNotGrowWithoutBound(t *testing.T) {
	s := testStore(t)
	wal := s.writer.wal
	_, err := write(t.Context(), s, 1, func(x *tx) (struct{}, error) { return struct{}{}, x.exec(`CREATE TABLE big (b BLOB)`) })
	require.NoError(t, err)
	page := make([]byte, 8000)
	most, anew, last := 0, 0, 0
	fill := func(n int) {
		for range n {
			_, err := write(t.Context(), s, 100, func(x *tx) (none struct{}, err error) {
				for range 100 {
					err = errors.Join(err, x.exec(`INSERT INTO big (b) VALUES (?)`, page))
				}
				return none, err
			})
			require.NoError(t, err)
		}
	}
	for range 400 {
		fill(1)
		n := wal.frames()
		most = max(most, n)
		if n < last {
			anew++
		}
		last = n
	}
	require.Positive(t, anew, "the log never began anew")
	require.Less(t, most, 20_000, "of 40,000 frames")

	// A reader that stays keeps it from beginning anew; when it has gone, it does.
	conn := <-s.pool.free
	require.NoError(t, exec(conn, "BEGIN"))
	require.NoError(t, query(conn, "SELECT count(*) FROM tenants", nil))
	fill(100)
	require.Greater(t, wal.frames(), 9000)
	require.NoError(t, exec(conn, "ROLLBACK"))
	s.pool.free <- conn
	require.Eventually(t, func() bool { fill(5); return wal.frames() < 5000 }, time.Minute, time.Millisecond)
}
