package postgres_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// nodes opens several stores on one database.
func nodes(t *testing.T, n int) (list []store.Store) {
	url := smallDatabase(t).App
	for range n {
		list = append(list, openAt(t, url))
	}
	return list
}

func booksAreRight(t *testing.T, s store.Store, tenants ...delivery.TenantID) {
	t.Helper()
	for _, tenant := range tenants {
		r, err := s.Audit(bg, tenant)
		require.NoError(t, err)
		require.Empty(t, r.Problems)
		require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)
	}
}

// lockWaits counts the transactions of a database that wait for a lock; -1 = the database did not say.
func lockWaits(conn *pgx.Conn) (n int) {
	if err := conn.QueryRow(bg, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n); err != nil {
		return -1
	}
	return n
}

// at runs f in n goroutines at once and waits for them.
func at(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func TestTwoNodesClaimEachMessageOnce(t *testing.T) {
	list := nodes(t, 2)
	w := newWorld(t, list[0])
	w.tenant("acme")
	ids := w.accept("acme", w.batch(400))
	var mu sync.Mutex
	claims := map[delivery.MessageID][]string{}
	at(8, func(i int) {
		name := fmt.Sprintf("node-%d", i%2)
		mine := append([]delivery.MessageID{}, ids...)
		rand.Shuffle(len(mine), func(a, b int) { mine[a], mine[b] = mine[b], mine[a] })
		for len(mine) > 0 {
			n := min(37, len(mine))
			got, err := list[i%2].Claim(bg, sys, store.Claim{IDs: mine[:n], Node: name, Now: w.now,
				Until: w.now.Add(time.Minute)})
			mine = mine[n:]
			mu.Lock()
			for _, c := range got {
				claims[c.ID] = append(claims[c.ID], name)
				if c.Epoch != 1 {
					t.Errorf("the first claim of %s has epoch %d", c.ID, c.Epoch)
				}
			}
			if err != nil {
				t.Errorf("a claim has failed: %v", err)
			}
			mu.Unlock()
		}
	})
	// What a claim skipped, because the other one had it locked, is the other's: nothing is left over.
	left := w.claim("node-2", ids)
	require.Empty(t, left)
	require.Len(t, claims, len(ids))
	for id, by := range claims {
		require.Len(t, by, 1, "%s was claimed by %v", id, by)
	}
	booksAreRight(t, list[0], "acme")
}

func TestAnOldEpochIsFenced(t *testing.T) {
	list := nodes(t, 2)
	w := newWorld(t, list[0])
	w.tenant("acme")
	ids := w.accept("acme", w.batch(1))
	old := w.claim("node-1", ids)
	later := w.now.Add(time.Hour)
	// The other node takes it over: the lease has run out.
	got, err := list[1].Settle(bg, sys, later, []store.Outcome{{ID: ids[0], Epoch: 1, Writer: delivery.ByPlan,
		Status: delivery.StatusQueued, Reason: "lease", Until: later}})
	require.NoError(t, err)
	require.True(t, got[0].Applied)
	next, err := list[1].Claim(bg, sys, store.Claim{IDs: ids, Node: "node-2", Now: later, Until: later.Add(time.Minute)})
	require.NoError(t, err)
	require.Equal(t, 2, next[0].Epoch)
	got, err = list[0].Settle(bg, sys, later, sent(old))
	require.NoError(t, err)
	require.False(t, got[0].Applied, "an outcome of a lease that was taken over")
	require.Equal(t, delivery.StatusSending, got[0].Status)
	got, err = list[1].Settle(bg, sys, later, sent(next))
	require.NoError(t, err)
	require.True(t, got[0].Applied)
	booksAreRight(t, list[0], "acme")
}

func TestTheSameKeyFromManyNodesIsAcceptedOnce(t *testing.T) {
	list := nodes(t, 3)
	w := newWorld(t, list[0])
	w.tenant("acme")
	for round := range 4 {
		requests := make([][]store.NewMessage, 16)
		for i := range requests {
			requests[i] = w.batch(2)
		}
		var first atomic.Int32
		results := make([]store.Accepted, len(requests))
		at(len(requests), func(i int) {
			key := &store.IdempotencyKey{Route: "POST /v1/messages", Key: fmt.Sprint("key-", round),
				Fingerprint: [32]byte{byte(round)}, Expires: w.now.Add(time.Hour)}
			out, err := list[i%3].Accept(bg, "acme", store.Acceptance{Now: w.now, Key: key, Messages: requests[i]})
			if err != nil {
				t.Errorf("accept: %v", err)
				return
			}
			if !out.Replayed {
				first.Add(1)
			}
			results[i] = out
		})
		require.EqualValues(t, 1, first.Load(), "accepted once, else replayed")
		for i := range results {
			require.Equal(t, results[0].Results, results[i].Results)
		}
	}
	r, err := list[0].Audit(bg, "acme")
	require.NoError(t, err)
	require.EqualValues(t, 8, r.Accepted)
	booksAreRight(t, list[0], "acme")
}

func TestQuotaIsExactAcrossNodes(t *testing.T) {
	list := nodes(t, 3)
	w := newWorld(t, list[0])
	require.NoError(t, list[0].CreateTenant(bg, sys, store.Tenant{ID: "acme", DailyQuota: 50, CreatedAt: w.now}))
	requests := make([][]store.NewMessage, 30)
	for i := range requests {
		requests[i] = w.batch(3)
	}
	var accepted, refused atomic.Int32
	at(len(requests), func(i int) {
		_, err := list[i%3].Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: requests[i]})
		var quota *store.QuotaError
		switch {
		case err == nil:
			accepted.Add(1)
		case errors.As(err, &quota):
			refused.Add(1)
		default:
			t.Errorf("accept: %v", err)
		}
	})
	require.EqualValues(t, 16, accepted.Load(), "16 × 3 of 50")
	require.EqualValues(t, 14, refused.Load())
	booksAreRight(t, list[0], "acme")
}

// A storm: two tenants' messages, some in lines and some with a fallback, are claimed, settled, reported, canceled and
// woken by three nodes at once. No call fails, every message is somewhere, the books are right.
func TestStorm(t *testing.T) {
	list := nodes(t, 3)
	w := newWorld(t, list[0])
	tenants := []delivery.TenantID{"acme", "other"}
	var ids []delivery.MessageID
	for _, tenant := range tenants {
		w.tenant(tenant)
		n := 0
		ids = append(ids, w.accept(tenant, w.batch(150, func(m *store.NewMessage) {
			switch n++; n % 3 {
			case 0:
				m.OrderingKey, m.To = fmt.Sprint("line-", n%2), "+919800000001"
			case 1:
				m.Within = time.Minute
				m.Then = []store.NewLeg{{Channel: delivery.Email, To: fmt.Sprintf("p%d@example.com", n),
					Payload: []byte(`{"content":{"text":"mail"}}`)}}
			}
		}))...)
	}
	var clock atomic.Int64
	var calls atomic.Int64
	tick := func() time.Time { return w.now.Add(time.Duration(clock.Add(1)) * time.Second) }
	until := time.Now().Add(2 * time.Second)
	at(9, func(i int) {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		s := list[i%3]
		some := func() (out []delivery.MessageID) {
			for range 1 + r.IntN(20) {
				out = append(out, ids[r.IntN(len(ids))])
			}
			return out
		}
		check := func(what string, err error) {
			calls.Add(1)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for round := 0; time.Now().Before(until) && !t.Failed(); round++ {
			now := tick()
			switch i % 9 {
			case 0, 1, 2, 3:
				got, err := s.Claim(bg, sys, store.Claim{IDs: some(), Node: fmt.Sprint("node-", i), Now: now,
					Until: now.Add(time.Hour)})
				check("claim", err)
				out := sent(got)
				for k := range out {
					switch r.IntN(5) {
					case 0:
						out[k].Status, out[k].Reason, out[k].Until = delivery.StatusDeferred, "busy", now.Add(time.Second)
					case 1:
						out[k].Status, out[k].Reason, out[k].NextLeg = delivery.StatusFailed, "550", r.IntN(2) == 0
					case 2:
						out[k].Status, out[k].Reason, out[k].Until = delivery.StatusHeld, "hold", now.Add(time.Hour)
					}
				}
				_, err = s.Settle(bg, sys, now, out)
				check("settle", err)
			case 4, 5:
				var receipts []delivery.Receipt
				for _, id := range some() {
					receipts = append(receipts, delivery.Receipt{Account: provider, ProviderID: id.String(), At: now,
						Status: []delivery.Status{delivery.StatusDelivered, delivery.StatusUndelivered,
							delivery.StatusRead}[r.IntN(3)]})
				}
				_, err := s.Report(bg, sys, now, time.Hour, receipts)
				check("report", err)
			case 6:
				tenant := 0
				n := r.IntN(len(ids))
				if n >= 150 {
					tenant = 1
				}
				if r.IntN(4) == 0 {
					_, err := s.Cancel(bg, tenants[tenant], ids[n], now)
					check("cancel", err)
				}
			case 7:
				_, err := s.Wake(bg, sys, now, store.Held{Reason: "hold"})
				check("wake", err)
			case 8:
				overdue, err := s.Overdue(bg, sys, now, "", 20)
				check("overdue", err)
				var out []store.Outcome
				for _, o := range overdue {
					out = append(out, store.Outcome{ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan,
						Status: delivery.StatusQueued, Reason: "late", Until: now, NextLeg: o.Status == delivery.StatusSent,
						From: o.Status})
				}
				_, err = s.Settle(bg, sys, now, out)
				check("sweep", err)
			}
		}
	})
	t.Logf("%d calls", calls.Load())
	booksAreRight(t, list[0], tenants...)
}

// Transactions of the engine take locks in one order, but somebody else may not: what the database ends runs again.
func TestADeadlockRunsAgain(t *testing.T) {
	db := smallDatabase(t)
	s := openAt(t, db.App)
	w := newWorld(t, s)
	w.tenant("acme")
	ids := w.accept("acme", w.batch(1))
	admin, watch := connect(t, db.Admin), connect(t, db.Admin)
	holder, err := admin.Begin(bg)
	require.NoError(t, err)
	_, err = holder.Exec(bg, "SELECT set_config('deadlock_timeout', '1h', true) FROM ledger_heads FOR UPDATE")
	require.NoError(t, err)
	canceled := make(chan error, 1)
	go func() { // it takes the row of the message and waits for the head
		_, err := s.Cancel(bg, "acme", ids[0], w.now)
		canceled <- err
	}()
	require.Eventually(t, func() bool { return lockWaits(watch) == 1 }, patience, beat)
	_, err = holder.Exec(bg, "SELECT FROM messages FOR UPDATE") // a circle: the engine's transaction is ended
	require.NoError(t, err)
	require.NoError(t, holder.Rollback(bg))
	require.NoError(t, <-canceled)
	booksAreRight(t, s, "acme")
}

// Messages join lines on one node while those before them leave on another: each goes in its turn, and none waits for
// somebody who has gone.
func TestLinesDoNotStall(t *testing.T) {
	list := nodes(t, 3)
	w := newWorld(t, list[0])
	w.tenant("acme")
	const each = 25
	var mu sync.Mutex
	var went []delivery.MessageID
	q := delivery.Queue{Tenant: "acme", Channel: delivery.SMS, Lane: delivery.Normal}
	end := time.Now().Add(2 * patience)
	at(6, func(i int) {
		s := list[i%3]
		for n := 0; i < 3 && n < each; n++ {
			m := w.batch(1, func(m *store.NewMessage) {
				m.OrderingKey, m.To = fmt.Sprint(n%4), "+919800000001"
			})
			if _, err := s.Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: m}); err != nil {
				t.Errorf("accept: %v", err)
			}
		}
		for i >= 3 && time.Now().Before(end) && !t.Failed() {
			ids, _, err := s.Due(bg, sys, q, w.now, store.DueMark{}, 3)
			if err != nil {
				t.Errorf("due: %v", err)
			}
			got, err := s.Claim(bg, sys, store.Claim{IDs: ids, Node: fmt.Sprint(i), Now: w.now, Until: w.now.Add(time.Hour)})
			if err != nil {
				t.Errorf("claim: %v", err)
			}
			mu.Lock()
			for _, c := range got {
				went = append(went, c.ID)
			}
			all := len(went) == 3*each
			mu.Unlock()
			if _, err := s.Settle(bg, sys, w.now, sent(got)); err != nil {
				t.Errorf("settle: %v", err)
			}
			if all {
				return
			}
		}
	})
	require.Equal(t, 3*each, len(went), "every message went")
	booksAreRight(t, list[0], "acme")
}

// Acceptances of one tenant that wait share a transaction, and one that fails does not disturb its neighbours.
func TestAcceptancesShareTransactions(t *testing.T) {
	db := smallDatabase(t)
	s := openAt(t, db.App)
	w := newWorld(t, s)
	w.tenant("acme")
	const n = 200
	requests := make([][]store.NewMessage, n)
	for i := range requests {
		requests[i] = w.batch(1)
	}
	requests[7] = requests[3] // an id that is taken
	w.accept("acme", w.batch(1))
	admin := connect(t, db.Admin)
	// Somebody else has the tenant's head: the first acceptance waits for it, and the others for the first.
	holder, err := connect(t, db.Admin).Begin(bg)
	require.NoError(t, err)
	_, err = holder.Exec(bg, "SELECT FROM ledger_heads FOR UPDATE")
	require.NoError(t, err)
	before := s.Trips()
	errs := make([]error, n)
	var wg sync.WaitGroup
	accept := func(i int) {
		wg.Go(func() {
			_, errs[i] = s.Accept(bg, "acme", store.Acceptance{Now: w.now, Messages: requests[i]})
		})
	}
	accept(0)
	require.Eventually(t, func() bool { return lockWaits(admin) == 1 }, patience, beat, "the first waits for the head")
	for i := 1; i < n; i++ {
		accept(i)
	}
	require.Eventually(t, func() bool { return s.Waiting() == n-1 }, patience, beat, "the others wait for the first")
	require.NoError(t, holder.Rollback(bg))
	wg.Wait()
	exists := 0
	for _, err := range errs {
		if errors.Is(err, store.ErrExists) {
			exists++
			continue
		}
		require.NoError(t, err)
	}
	require.Equal(t, 1, exists)
	require.LessOrEqual(t, s.Trips()-before, int64(60), "round trips: a group of one, the others, and halves of those")
	r, err := s.Audit(bg, "acme")
	require.NoError(t, err)
	require.EqualValues(t, n, r.Accepted)
	booksAreRight(t, s, "acme")
}

// A single operation on a batch takes a begin and a commit, however large the batch is.
func TestRoundTripsDoNotGrowWithTheBatch(t *testing.T) {
	s := openAt(t, smallDatabase(t).App)
	w := newWorld(t, s)
	w.tenant("acme")
	w.settle(sent(w.claim("node-1", w.accept("acme", w.batch(1))))) // caches
	trips := func(what string, f func()) {
		was := s.Trips()
		f()
		require.EqualValues(t, 2, s.Trips()-was, what)
	}
	var ids []delivery.MessageID
	var claimed []store.Claimed
	line := func(m *store.NewMessage) { m.OrderingKey, m.To = "line", "+919800000009" }
	trips("accept", func() { ids = w.accept("acme", append(w.batch(240), w.batch(16, line)...)) })
	trips("claim", func() { claimed = w.claim("node-1", ids) })
	require.Len(t, claimed, 241)
	trips("settle", func() { w.settle(sent(claimed)) })
	booksAreRight(t, s, "acme")
}
