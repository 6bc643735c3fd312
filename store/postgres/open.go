// Package postgres keeps everything the engine keeps in one PostgreSQL database that any number of nodes share.
//
// Every operation is one transaction of few round trips: the first loads and locks all that the operation touches
// (tx.go), the rules run in memory, as they do in package sqlite, and the last writes all changes together with the
// COMMIT (flush.go). Acceptances of one tenant that wait at the same time share a transaction (writer.go). Nothing is
// kept in a session of the database: each transaction says its own scope and limits, so a pooler in transaction mode
// may stand in between. Package store says what each method promises.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/msgctl/msgctl/store"
)

// Options says where the database is. Only URL is required.
type Options struct {
	// URL is postgres://user:password@host:port/database?…, with the parameters of libpq and of pgx: pool_max_conns,
	// sslmode, default_query_exec_mode=exec behind a pooler that cannot keep prepared statements.
	URL string
	Log *slog.Logger     // nil = no log
	Now func() time.Time // the engine's clock; nil = time.Now
	// Timeout bounds a round trip of the usual work, the wait for a lock and the wait for a connection. A transaction
	// takes few of them. 0 = 5 seconds.
	Timeout time.Duration
	// Connections is how many connections are held at most for the work; 0 = pool_max_conns of the URL, or else 16. Two more
	// are for what a node must do to count as alive, which never waits behind the work.
	Connections int32
	// PartitionDays is how many days of messages and history lie in one partition, 1–366; they are removed together.
	// 0 = 1; less = the engine makes no partitions.
	PartitionDays int
}

const (
	defaultTimeout     = 5 * time.Second
	defaultConnections = 16
	connectTimeout     = 5 * time.Second
	pulseConnections   = 2 // one for beats, one to follow changes
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	pulse   *pgxpool.Pool // for signs of life, changes of other nodes, and sessions
	door    door          // of pool
	log     *slog.Logger
	now     func() time.Time
	timeout time.Duration
	days    int // of a partition; less than 1 = none are made
	writer  *writer
	looks   chan struct{} // a place for each call of look
	seen    latest

	tenants  interned[string]   // slug ⇄ n
	accounts interned[[16]byte] // id ⇄ n

	background sync.WaitGroup
	stop       context.Context // ends with the store
	stopping   context.CancelFunc
	closing    sync.Once
	closed     atomic.Bool
	running    sync.RWMutex // every call holds it for reading, Close for writing

	keyed atomic.Int64 // accepts with a key, to pace the purge
	trips atomic.Int64 // round trips of transactions
}

var _ store.Store = (*Store)(nil)

// Open connects to the database at o.URL. It refuses one that it must not or cannot work with, and says what to do: a
// server that may forget commits, a role for which the rows of tenants are not kept apart, another schema.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	config, err := poolConfig(o)
	if err != nil {
		return nil, err
	}
	s := &Store{log: o.Log, now: o.Now, timeout: o.Timeout, days: cmp.Or(o.PartitionDays, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	s.stop, s.stopping = context.WithCancel(context.Background())
	config.BeforeConnect = s.door.before
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		s.stopping()
		return nil, explainOpen(config.ConnConfig, err)
	}
	defer func() {
		if err != nil {
			s.stopping()
			s.pool.Close()
		}
	}()
	few := config.Copy()
	few.BeforeConnect = nil
	few.MaxConns, few.MinConns, few.MinIdleConns = pulseConnections, pulseConnections, 0
	// Both are there before they are needed, and nobody asks first whether one lives: where a round trip takes half a
	// second, that is one too many. A sign of life that fails is tried again at once.
	few.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	if s.pulse, err = pgxpool.NewWithConfig(ctx, few); err != nil {
		return nil, explainOpen(config.ConnConfig, err)
	}
	defer func() {
		if err != nil {
			s.pulse.Close()
		}
	}()
	if err := s.checkServer(ctx); err != nil {
		return nil, explainOpen(config.ConnConfig, err)
	}
	s.writer = newWriter(s)
	s.looks = make(chan struct{}, max(1, config.MaxConns/4))
	if err := s.loadSeen(ctx); err != nil {
		return nil, explainOpen(config.ConnConfig, err)
	}
	if err := s.resume(ctx); err != nil {
		return nil, explainOpen(config.ConnConfig, err)
	}
	if s.days > 0 {
		s.maintain(ctx)
	}
	return s, nil
}

func poolConfig(o Options) (*pgxpool.Config, error) {
	config, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	switch {
	case o.Connections > 0:
		config.MaxConns = o.Connections
	case !hasParameter(o.URL, "pool_max_conns"):
		config.MaxConns = defaultConnections
	}
	if config.MaxConns < 2 {
		return nil, errors.New("store: pool_max_conns must be at least 2")
	}
	return config, nil
}

// Close waits for running calls, refuses new ones with ErrUnavailable and closes the connections. Safe twice.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.stopping()
		s.background.Wait()
		s.keepLatest()
		s.closed.Store(true)
	})
	s.running.Lock()
	defer s.running.Unlock()
	s.pool.Close()
	s.pulse.Close()
	return nil
}

var errClosed = fmt.Errorf("%w: the store is closed", store.ErrUnavailable)

// enter begins a call, which leave ends. Nobody enters twice: while Close waits for the first, the second would wait for
// Close.
func (s *Store) enter() error {
	s.running.RLock()
	if s.closed.Load() {
		s.running.RUnlock()
		return errClosed
	}
	return nil
}

func (s *Store) leave() { s.running.RUnlock() }

// Check proves that the database can be written: it locks a row and commits a change of it durably.
func (s *Store) Check(ctx context.Context) error {
	_, err := write(ctx, s, everyTenant, need{}, func(t *tx) (none struct{}, err error) {
		t.later(`INSERT INTO probe (n, at) VALUES (1, $1) ON CONFLICT (n) DO UPDATE SET at = excluded.at`,
			store.Millis(s.now()))
		return none, nil
	})
	return err
}

// connection takes a connection from the pool of the work, or says in time that there is none.
func (s *Store) connection(ctx context.Context) (*pgxpool.Conn, error) { return s.acquire(ctx, s.pool) }

func (s *Store) acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, s.timeout+connectTimeout, errNoConnection)
	defer cancel()
	conn, err := pool.Acquire(waiting)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case waiting.Err() != nil:
		stat := pool.Stat()
		return nil, fmt.Errorf("%w: %w in %s, %d of %d are in use", store.ErrUnavailable, errNoConnection,
			s.timeout+connectTimeout, stat.AcquiredConns(), stat.MaxConns())
	}
	if pool == s.pool {
		s.door.refused(err)
	}
	return nil, explain(err, false)
}

// look runs what may read for long, as long as its deadline lets it. Such calls take a quarter of the connections at most,
// as acceptances take half: the work and the signs of life of this node need some too.
func (s *Store) look(ctx context.Context, f func() error) error {
	wait := time.NewTimer(s.timeout)
	defer wait.Stop()
	select {
	case s.looks <- struct{}{}:
		defer func() { <-s.looks }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return fmt.Errorf("%w: %d long readings are under way, and none has ended in %s", store.ErrUnavailable,
			cap(s.looks), s.timeout)
	}
}

var errNoConnection = errors.New("no connection to the database")

// exec mode knows the types of parameters from Go's alone.
func registerTypes(_ context.Context, c *pgx.Conn) error {
	c.TypeMap().RegisterDefaultPgType([16]byte{}, "uuid")
	c.TypeMap().RegisterDefaultPgType([][16]byte(nil), "_uuid")
	return nil
}
