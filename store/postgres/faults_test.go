package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// What a store does when its database fails: it says so in time, as unavailable or as an unknown outcome and as nothing
// else; it goes on by itself when the database is back; and what it has acknowledged is there.

var (
	faultSys  = store.AsSystem("fault test")
	faultTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

const (
	patience = 60 * time.Second // for what is to happen at some time
	beat     = 20 * time.Millisecond

	// theCommit is how a COMMIT looks on the wire: the whole statement, unlike READ COMMITTED.
	theCommit = "\x00commit\x00"
)

// openFault opens a store with short deadlines.
func openFault(t *testing.T, url string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Options{URL: url, Timeout: 500 * time.Millisecond,
		Now: func() time.Time { return faultTime }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// ownServer starts a server that may be broken, with a database that has the tenant acme.
func ownServer(t *testing.T, opts ...servers.Option) (*servers.PG, *servers.DB) {
	t.Helper()
	pg := servers.NewPostgres(t, opts...)
	db := pg.Database(t)
	withAcme(t, db)
	return pg, db
}

func withAcme(t *testing.T, db *servers.DB) {
	t.Helper()
	require.NoError(t, postgres.Migrate(t.Context(), postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}))
	s := openFault(t, db.App)
	require.NoError(t, s.CreateTenant(t.Context(), faultSys, store.Tenant{ID: "acme", CreatedAt: faultTime}))
	require.NoError(t, s.Close())
}

// client makes acceptances as a client does: with a key, and under new ids whenever it asks again.
type client struct {
	ids *delivery.IDs
	n   int
}

func newClient(number int) *client {
	at := faultTime.Add(time.Duration(number) * time.Minute) // no two clients make the same ids
	return &client{ids: delivery.NewIDs(func() time.Time { return at }), n: number}
}

func (c *client) ask(s store.Store, request, messages int) (store.Accepted, error) {
	a := store.Acceptance{Now: faultTime, Key: &store.IdempotencyKey{Route: "POST /v1/messages",
		Key: fmt.Sprintf("%d-%d", c.n, request), Fingerprint: [32]byte{byte(c.n), byte(request)},
		Expires: faultTime.Add(time.Hour)}}
	for range messages {
		a.Messages = append(a.Messages, store.NewMessage{ID: c.ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal,
			To: "+15550100", Payload: []byte("{}"), Segments: 1, DueAt: faultTime, ExpiresAt: faultTime.Add(time.Hour)})
	}
	return s.Accept(context.Background(), "acme", a)
}

// known reports errors that a fault of the database may cause.
func known(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrOutcomeUnknown)
}

func sentOutcome(c store.Claimed) store.Outcome {
	return store.Outcome{ID: c.ID, Epoch: c.Epoch, Writer: delivery.BySend, Status: delivery.StatusSent,
		Account: delivery.AccountID{7}, ProviderID: c.ID.String(), IndexProviderID: true, Attempted: true}
}

// tour takes one message through its life.
func tour(t *testing.T, s store.Store, c *client, request int) {
	t.Helper()
	ctx := context.Background()
	out, err := c.ask(s, request, 1)
	require.NoError(t, err)
	id := out.Results[0].ID
	claimed, err := s.Claim(ctx, faultSys, store.Claim{IDs: []delivery.MessageID{id}, Node: "tour", Now: faultTime,
		Until: faultTime.Add(time.Minute)})
	require.NoError(t, err)
	require.Len(t, claimed, 1)
	early, err := s.Report(ctx, faultSys, faultTime, time.Hour, []delivery.Receipt{{Account: delivery.AccountID{7},
		ProviderID: id.String(), Status: delivery.StatusDelivered}})
	require.NoError(t, err)
	require.True(t, early[0].Message.IsZero(), "parked")
	settled, err := s.Settle(ctx, faultSys, faultTime, []store.Outcome{sentOutcome(claimed[0])})
	require.NoError(t, err)
	require.Equal(t, store.Settled{Applied: true, Status: delivery.StatusDelivered}, settled[0])
	again, err := c.ask(s, request, 1)
	require.NoError(t, err)
	require.True(t, again.Replayed)
	right(t, s)
}

// right recounts the books.
func right(t *testing.T, s store.Store) store.AuditReport {
	t.Helper()
	r, err := s.Audit(context.Background(), "acme")
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)
	return r
}

// load is work of several clients and nodes that goes on through every fault.
type load struct {
	t      *testing.T
	stores []*postgres.Store
	ended  atomic.Bool
	work   sync.WaitGroup

	mu      sync.Mutex
	acked   map[delivery.MessageID]bool
	applied map[delivery.MessageID]bool
	heard   map[delivery.MessageID]bool // their receipts are acknowledged
	doubled int
	unknown int
	refused int
}

func (l *load) count(what *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*what++
}

func (l *load) fault(err error) {
	switch {
	case errors.Is(err, store.ErrOutcomeUnknown):
		l.count(&l.unknown)
	case errors.Is(err, store.ErrUnavailable):
		l.count(&l.refused)
	default:
		l.t.Errorf("neither unavailable nor unknown: %v", err)
	}
}

// accepting asks for one request after the other, each until it is answered.
func (l *load) accepting(n int) {
	c, s := newClient(n), l.stores[n%len(l.stores)]
	for request := 0; !l.ended.Load(); request++ {
		for {
			out, err := c.ask(s, request, 3)
			if err != nil {
				l.fault(err)
				continue
			}
			l.mu.Lock()
			for _, r := range out.Results {
				if l.acked[r.ID] {
					l.doubled++
				}
				l.acked[r.ID] = true
			}
			l.mu.Unlock()
			break
		}
	}
}

// sending claims what is due and settles it, as a node does.
func (l *load) sending(n int) {
	ctx, s := context.Background(), l.stores[n%len(l.stores)]
	q := delivery.Queue{Tenant: "acme", Channel: delivery.SMS, Lane: delivery.Normal}
	for !l.ended.Load() {
		ids, _, err := s.Due(ctx, faultSys, q, faultTime, store.DueMark{}, 32)
		if err != nil {
			l.fault(err)
			continue
		}
		claimed, err := s.Claim(ctx, faultSys, store.Claim{IDs: ids, Node: fmt.Sprint("node-", n), Now: faultTime,
			Until: faultTime.Add(time.Hour)})
		if err != nil {
			l.fault(err)
			continue
		}
		if len(claimed) == 0 {
			continue
		}
		outcomes := make([]store.Outcome, len(claimed))
		for i := range claimed {
			outcomes[i] = sentOutcome(claimed[i])
		}
		early := n%2 == 0 // the receipts come before the answers
		if early {
			l.report(s, claimed)
		}
		settled, err := s.Settle(ctx, faultSys, faultTime, outcomes)
		if err != nil {
			l.fault(err)
			continue
		}
		l.mu.Lock()
		for i := range settled {
			if settled[i].Applied {
				l.applied[claimed[i].ID] = true
			}
		}
		l.mu.Unlock()
		if !early {
			l.report(s, claimed)
		}
	}
}

func (l *load) report(s store.Store, claimed []store.Claimed) {
	receipts := make([]delivery.Receipt, len(claimed))
	for i := range claimed {
		receipts[i] = delivery.Receipt{Account: delivery.AccountID{7}, ProviderID: claimed[i].ID.String(),
			Status: delivery.StatusDelivered}
	}
	if _, err := s.Report(context.Background(), faultSys, faultTime, time.Hour, receipts); err != nil {
		l.fault(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range claimed {
		l.heard[claimed[i].ID] = true
	}
}

func startLoad(t *testing.T, stores ...*postgres.Store) *load {
	l := &load{t: t, stores: stores, acked: map[delivery.MessageID]bool{}, applied: map[delivery.MessageID]bool{},
		heard: map[delivery.MessageID]bool{}}
	for n := range 4 {
		l.work.Go(func() { l.accepting(n) })
	}
	for n := range 2 {
		l.work.Go(func() { l.sending(n) })
	}
	return l
}

// more waits until so many more messages have been acknowledged and handed on.
func (l *load) more(n int) {
	l.t.Helper()
	l.mu.Lock()
	acked, applied := len(l.acked)+n, len(l.applied)+n
	l.mu.Unlock()
	require.Eventually(l.t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked) >= acked && len(l.applied) >= applied
	}, patience, beat, "the work goes on")
}

// failing causes a fault, which may pass at once, until a call has failed by it.
func (l *load) failing(fault func()) {
	l.t.Helper()
	l.mu.Lock()
	before := l.refused + l.unknown
	l.mu.Unlock()
	require.Eventually(l.t, func() bool {
		fault()
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.refused+l.unknown > before
	}, patience, beat, "the fault is noticed")
}

// once makes a fault that lasts.
func once(fault func()) func() { return sync.OnceFunc(fault) }

// end stops the work and joins what the clients know with what the store has.
func (l *load) end() {
	l.t.Helper()
	l.ended.Store(true)
	done := make(chan struct{})
	go func() { l.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		l.t.Fatal("a call hangs")
	}
	s := l.stores[0]
	r := right(l.t, s)
	require.Zero(l.t, l.doubled, "one answer per request")
	require.Equal(l.t, int64(len(l.acked)), r.Accepted, "every acknowledged message is there, and no other one")
	for id := range l.acked {
		m, err := s.Message(l.t.Context(), "acme", id)
		require.NoError(l.t, err)
		switch {
		case l.applied[id] && l.heard[id]:
			require.Equal(l.t, delivery.StatusDelivered, m.Status)
		case l.applied[id]:
			require.Contains(l.t, []delivery.Status{delivery.StatusSent, delivery.StatusDelivered}, m.Status)
		}
		require.LessOrEqual(l.t, m.Epoch, 1, "nobody claims what is under lease")
	}
	l.t.Logf("%d acknowledged, %d handed on, %d refused, %d with an unknown outcome", len(l.acked), len(l.applied),
		l.refused, l.unknown)
}

func TestAKilledDatabase(t *testing.T) {
	t.Parallel()
	pg, db := ownServer(t)
	l := startLoad(t, openFault(t, db.App), openFault(t, db.App))
	for range 2 {
		l.more(40)
		l.failing(once(pg.Kill))
		pg.Start()
	}
	l.more(30)
	l.end()
}

// A database that stops in good order ends its sessions one by one, each where it is.
func TestADatabaseThatShutsDown(t *testing.T) {
	t.Parallel()
	pg, db := ownServer(t)
	l := startLoad(t, openFault(t, db.App))
	l.more(30)
	l.failing(once(pg.Stop))
	pg.Start()
	l.more(30)
	l.end()
}

func TestADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	pg, db := ownServer(t)
	l := startLoad(t, openFault(t, db.App), openFault(t, db.App))
	l.more(30)
	l.failing(once(pg.Stall))
	pg.Resume()
	l.more(30)
	l.end()
}

// The network to one of two nodes breaks, in every way there is.
func TestABrokenNetwork(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t)
	link, url := servers.ProxyURL(t, db.App)
	l := startLoad(t, openFault(t, url), openFault(t, db.App))
	for name, fault := range map[string]func(){
		"cut":        once(link.Cut),
		"reset":      link.Reset,
		"hang":       once(func() { link.Hang() }),
		"no answer":  once(func() { link.Hang(servers.ToClient) }),
		"no request": once(func() { link.Hang(servers.ToServer) }),
		"torn":       once(func() { link.LimitData(servers.ToServer, 9_000) }),
		"half heard": once(func() { link.LimitData(servers.ToClient, 5_000) }),
	} {
		t.Run(name, func(*testing.T) {
			l.failing(fault)
			link.Heal()
			l.more(15)
		})
	}
	l.end()
}

// When the answer to a COMMIT is lost, nobody here knows, and nobody claims to. The key tells.
func TestTheAnswerToACommitIsLost(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t)
	// Without prepared statements, so that the word can be seen on the wire each time.
	link, url := servers.ProxyURL(t, db.App+"&default_query_exec_mode=exec")
	s, c := openFault(t, url), newClient(0)
	tour(t, s, newClient(1), 0) // so that nothing is read for the first time below, which ends with a COMMIT too
	for request, lose := range []func(string) <-chan struct{}{link.LoseAnswer, link.LoseRequest} {
		was := right(t, s).Accepted
		lost := lose(theCommit)
		_, err := c.ask(s, request, 2)
		require.ErrorIs(t, err, store.ErrOutcomeUnknown)
		<-lost
		link.Heal()
		var out store.Accepted
		require.Eventually(t, func() bool {
			out, err = c.ask(s, request, 2)
			return err == nil
		}, patience, beat)
		require.Equal(t, request == 0, out.Replayed, "done where the request got through")
		require.Equal(t, was+2, right(t, s).Accepted, "never two")
	}
	// A settlement whose answer was lost is there, and a second one is late.
	out, err := c.ask(s, 2, 1)
	require.NoError(t, err)
	claimed, err := s.Claim(t.Context(), faultSys, store.Claim{IDs: []delivery.MessageID{out.Results[0].ID}, Node: "n",
		Now: faultTime, Until: faultTime.Add(time.Minute)})
	require.NoError(t, err)
	lost := link.LoseAnswer(theCommit)
	_, err = s.Settle(t.Context(), faultSys, faultTime, []store.Outcome{sentOutcome(claimed[0])})
	require.ErrorIs(t, err, store.ErrOutcomeUnknown)
	<-lost
	link.Heal()
	var settled []store.Settled
	require.Eventually(t, func() bool {
		settled, err = s.Settle(t.Context(), faultSys, faultTime, []store.Outcome{sentOutcome(claimed[0])})
		return err == nil
	}, patience, beat)
	require.Equal(t, store.Settled{Status: delivery.StatusSent}, settled[0])
	right(t, s)
}

// A node that the network has cut off holds locks in the database. They go away by themselves.
func TestLocksOfALostNodeGoAway(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t)
	link, url := servers.ProxyURL(t, db.App)
	lost, other := openFault(t, url), openFault(t, db.App)
	tour(t, lost, newClient(0), 0)
	admin, err := pgx.Connect(t.Context(), db.Admin)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close(context.Background())) }()
	idle := func() (n int) {
		require.NoError(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND state = 'idle in transaction'`).Scan(&n))
		return n
	}
	// The node's transaction begins and takes its locks. Then nothing gets through any more, also not that it gives up.
	link.Hang(servers.ToClient)
	failed := make(chan error, 1)
	go func() {
		_, err := newClient(1).ask(lost, 0, 1)
		failed <- err
	}()
	require.Eventually(t, func() bool { return idle() == 1 }, patience, time.Millisecond)
	link.Hang()
	c := newClient(2)
	require.Eventually(t, func() bool {
		_, err := c.ask(other, 0, 1)
		return err == nil
	}, patience, beat)
	require.Zero(t, idle())
	err = <-failed
	require.True(t, known(err), "%v", err)
	tour(t, other, c, 1)
	link.Heal()
}

func TestAFullDisk(t *testing.T) {
	t.Parallel()
	pg, db := ownServer(t, servers.Tmpfs(192<<20))
	s, c := openFault(t, db.App), newClient(0)
	tour(t, s, c, 0)
	pg.Fill()
	request := 1
	require.Eventually(t, func() bool {
		_, err := c.ask(s, request, 200)
		if err == nil {
			request++
			return false
		}
		require.True(t, known(err), "%v", err)
		return true
	}, patience, time.Millisecond, "the disk is full at some time")
	pg.Drain()
	pg.Start() // a server that could not write its log has ended
	require.Eventually(t, func() bool {
		_, err := c.ask(s, request, 200)
		return err == nil
	}, patience, beat, "it goes on by itself")
	require.Equal(t, int64(200*request+1), right(t, s).Accepted,
		"what was refused is not there, what was unknown is there once")
	tour(t, s, c, request+1)
}

// Somebody has left a transaction open. Rows that it has locked are left alone, and everything else goes on.
func TestAForeignSessionIdleInATransaction(t *testing.T) {
	t.Parallel()
	db := servers.Postgres(t).Database(t)
	withAcme(t, db)
	s, c := openFault(t, db.App), newClient(0)
	out, err := c.ask(s, 0, 3)
	require.NoError(t, err)
	locked := out.Results[0].ID
	foreign, err := pgx.Connect(t.Context(), db.Admin)
	require.NoError(t, err)
	defer func() { require.NoError(t, foreign.Close(context.Background())) }()
	_, err = foreign.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ`)
	require.NoError(t, err)
	var n int
	require.NoError(t, foreign.QueryRow(t.Context(), `SELECT count(*) FROM messages`).Scan(&n))
	_, err = foreign.Exec(t.Context(), `SELECT id FROM messages WHERE id = $1 FOR UPDATE`, [16]byte(locked))
	require.NoError(t, err)

	claimed, err := s.Claim(t.Context(), faultSys, store.Claim{IDs: []delivery.MessageID{locked, out.Results[1].ID},
		Node: "n", Now: faultTime, Until: faultTime.Add(time.Minute)})
	require.NoError(t, err)
	require.Len(t, claimed, 1, "a locked message is somebody else's")
	require.Equal(t, out.Results[1].ID, claimed[0].ID)
	_, err = s.Cancel(t.Context(), "acme", locked, faultTime)
	require.ErrorIs(t, err, store.ErrUnavailable, "nobody waits for ever")
	require.ErrorContains(t, err, "too long")
	tour(t, s, c, 1)
	_, err = foreign.Exec(t.Context(), `ROLLBACK`)
	require.NoError(t, err)
	status, err := s.Cancel(t.Context(), "acme", locked, faultTime)
	require.NoError(t, err)
	require.Equal(t, delivery.StatusCanceled, status)
	right(t, s)
}

// A node that is stopped within a transaction keeps the others waiting for less long than they wait for a lock.
func TestANodeThatStandsStillFailsNobodyElse(t *testing.T) {
	t.Parallel()
	db := smallDatabase(t)
	open := func() *postgres.Store {
		return openWith(t, postgres.Options{URL: db.App, Timeout: 5 * time.Second, Now: func() time.Time { return faultTime }})
	}
	still, other := open(), open()
	require.NoError(t, still.CreateTenant(t.Context(), faultSys, store.Tenant{ID: "acme", CreatedAt: faultTime}))
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- still.StandStill(t.Context(), "acme", began, 4500*time.Millisecond) }()
	<-began
	_, err := newClient(0).ask(other, 0, 1)
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, store.ErrUnavailable, "it has lost its transaction")
	right(t, other)
}

// Behind PgBouncer each transaction may have another session.
func TestBehindPgBouncer(t *testing.T) {
	t.Parallel()
	db := servers.Postgres(t).Database(t)
	withAcme(t, db)
	pooled := servers.PgBouncer(t, db, servers.With("default_pool_size", "3"))
	a, b := openFault(t, pooled.DB.App), openFault(t, pooled.DB.App)
	tour(t, a, newClient(0), 0)
	tour(t, b, newClient(1), 0)
	l := startLoad(t, a, b)
	l.more(30)
	l.ended.Store(true)
	l.work.Wait()
	require.Zero(t, l.refused+l.unknown)
	right(t, a)
}
