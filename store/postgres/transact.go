package postgres

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/msgctl/msgctl/store"
)

// scope is what a transaction may see and write: a tenant's number, 0 for the operator's own, or everyTenant. Row-level
// security holds it to that.
type scope int64

const everyTenant scope = -1

// stmt is a statement with what is to be done with each of its rows; a nil each wants none.
type stmt struct {
	sql  string
	args []any
	each func(pgx.Rows) error
}

// into reads the one row that a statement has, if any.
func into(dest ...any) func(pgx.Rows) error {
	return func(rows pgx.Rows) error { return rows.Scan(dest...) }
}

const (
	maxRuns = 6 // of a transaction that the database ends to resolve a wait in a circle

	// Limits and the scope hold for the transaction alone. Plans are made for tables that will be large while they are
	// still small, and are kept: nothing that a transaction writes by may ever be a scan of a whole table.
	beginWrite = `BEGIN ISOLATION LEVEL READ COMMITTED`
	beginRead  = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
	setLimits  = `SELECT set_config('msgctl.tenant', $1, true), set_config('statement_timeout', $2, true),
		set_config('lock_timeout', $3, true), set_config('idle_in_transaction_session_timeout', $4, true),
		set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
		set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
		set_config('plan_cache_mode', 'force_generic_plan', true)`
	setReadLimits = `SELECT set_config('msgctl.tenant', $1, true), set_config('statement_timeout', $2, true),
		set_config('jit', 'off', true)`
)

func millis(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

// write runs f in a transaction that has loaded what n names, and returns what f returned once that is durable. The
// transaction may run more than once: f must not change anything but the transaction and its own result. When ctx ends
// before the transaction begins, nothing is written; afterwards the caller waits, at most for the store's own deadline.
func write[T any](ctx context.Context, s *Store, sc scope, n need, f func(*tx) (T, error)) (out T, err error) {
	if err := s.enter(); err != nil {
		return out, err
	}
	defer s.leave()
	var result T
	err = s.transact(ctx, sc, n, func(t *tx) (err error) {
		result, err = f(t)
		return err
	})
	if err == nil {
		out = result
	}
	return out, err
}

// transact runs f in a transaction, again and again while it is worth it.
func (s *Store) transact(ctx context.Context, sc scope, n need, f func(*tx) error) error {
	var err error
	for range maxRuns {
		if err = s.transactOnce(ctx, sc, n, f); err == nil || !again(err) {
			break
		}
		s.log.Debug("a transaction runs again", "error", err)
	}
	if errors.Is(err, errAgain) {
		return fmt.Errorf("%w: transactions kept getting in each other's way", store.ErrUnavailable)
	}
	return explain(err, false)
}

func (s *Store) transactOnce(ctx context.Context, sc scope, n need, f func(*tx) error) (err error) {
	pool := s.pool
	if n.vital {
		pool = s.pulse
	}
	conn, err := s.acquire(ctx, pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	deadline := 4 * s.timeout // begin, commit and some more
	inner, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), deadline, errNoAnswer)
	defer cancel()
	t := newTx(inner, s, conn, sc)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a write", "panic", p, "stack", string(debug.Stack()))
			t.rollback()
			err = fmt.Errorf("internal error in the store: %v", p)
		}
	}()
	if err = t.begin(&n); err == nil {
		err = f(t)
	}
	if err != nil {
		t.rollback()
		return withCause(inner, err)
	}
	return withCause(inner, t.commit())
}

// withCause says why a transaction was cut off.
func withCause(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// trip sends statements in one round trip. The first that fails ends it, and the transaction.
func (t *tx) trip(stmts ...stmt) error {
	if len(stmts) == 0 {
		return nil
	}
	t.s.trips.Add(1)
	return trip(t.ctx, t.conn, stmts)
}

func trip(ctx context.Context, conn *pgxpool.Conn, stmts []stmt) (err error) {
	_, err = tripTo(ctx, conn, stmts)
	return err
}

// tripTo is trip that also says at which statement it failed.
func tripTo(ctx context.Context, conn *pgxpool.Conn, stmts []stmt) (at int, err error) {
	b := &pgx.Batch{}
	for i := range stmts {
		b.Queue(stmts[i].sql, stmts[i].args...)
	}
	results := conn.SendBatch(ctx, b)
	defer func() {
		if closing := results.Close(); err == nil {
			err = closing
		}
	}()
	for i := range stmts {
		rows, err := results.Query()
		if err != nil {
			return i, err
		}
		for stmts[i].each != nil && rows.Next() {
			if err := stmts[i].each(rows); err != nil {
				rows.Close()
				return i, err
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return i, err
		}
		if stmts[i].sql == commitSQL && rows.CommandTag().String() != commitSQL {
			return i, fmt.Errorf("%w: the transaction was rolled back", errAgain)
		}
	}
	return len(stmts), nil
}

const commitSQL = "COMMIT"

// read runs statements that only read, in one round trip and as of one moment.
func (s *Store) read(ctx context.Context, sc scope, stmts ...stmt) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.readOpen(ctx, sc, stmts...)
}

// readOpen is read for callers that have entered.
func (s *Store) readOpen(ctx context.Context, sc scope, stmts ...stmt) error {
	return s.readFrom(ctx, s.pool, sc, stmts...)
}

// readVital is read for what a node must know to count as alive.
func (s *Store) readVital(ctx context.Context, sc scope, stmts ...stmt) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.readFrom(ctx, s.pulse, sc, stmts...)
}

func (s *Store) readFrom(ctx context.Context, pool *pgxpool.Pool, sc scope, stmts ...stmt) error {
	conn, err := s.acquire(ctx, pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	inner, cancel := context.WithTimeoutCause(ctx, 2*s.timeout, errNoAnswer)
	defer cancel()
	s.trips.Add(1)
	all := append([]stmt{{sql: beginRead}, s.readLimits(sc, s.timeout)}, stmts...)
	err = trip(inner, conn, append(all, stmt{sql: commitSQL}))
	if err == nil {
		return nil
	}
	s.rollback(conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return explain(withCause(inner, err), false)
}

func (s *Store) readLimits(sc scope, timeout time.Duration) stmt {
	return stmt{sql: setReadLimits, args: []any{strconv.FormatInt(int64(sc), 10), millis(timeout)}}
}

// reader reads in several round trips as of one moment.
type reader struct {
	ctx  context.Context
	s    *Store
	conn *pgxpool.Conn
}

// query runs statements in one round trip. An each must not call query.
func (r *reader) query(stmts ...stmt) error {
	r.s.trips.Add(1)
	return trip(r.ctx, r.conn, stmts)
}

// reading runs f with a reader. It may go on for long, as long as ctx does; a single statement at most a minute.
func (s *Store) reading(ctx context.Context, sc scope, f func(*reader) error) error {
	return s.look(ctx, func() error { return s.readLong(ctx, sc, f) })
}

func (s *Store) readLong(ctx context.Context, sc scope, f func(*reader) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stop, func() { cancel(errClosed) })()
	r := &reader{inner, s, conn}
	if err = r.query(stmt{sql: beginRead}, s.readLimits(sc, time.Minute)); err == nil {
		err = f(r)
	}
	s.rollback(conn)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case inner.Err() != nil:
		return errClosed
	}
	return explain(err, false)
}

// rollback ends a transaction that is open. A connection on which that fails is thrown away by the pool.
func (s *Store) rollback(conn *pgxpool.Conn) {
	c := conn.Conn()
	if c.IsClosed() || c.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
		_ = c.Close(ctx)
	}
}

// checkSystem refuses the zero System.
func checkSystem(sys store.System) error {
	if sys.Reason() == "" {
		return errors.New("store: a system call without a scope")
	}
	return nil
}

// uuids is ids as the driver takes them.
func uuids[T ~[16]byte](ids []T) [][16]byte {
	out := make([][16]byte, len(ids))
	for i, id := range ids {
		out[i] = id
	}
	return out
}
