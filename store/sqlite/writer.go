package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/store"
)

// Group commit. Every write is an op: a function over the writer's transaction. The writer takes the first op that
// waits, begins a transaction, runs it and every op that has queued up by then, commits once and answers all of them.
// While it commits, the next group queues up: batches form by themselves under load, and a lone op waits for nobody.
//
// Few rows go before many: one message of a person who waits costs a batch next to nothing, while a queue of batches
// would cost it tens of milliseconds, twice or three times on its way. A group takes the small ops that wait and goes on
// with large ones; once it holds a small op it ends soon. A large op is in each group, so that it is never starved.
//
// An op that refuses (no quota, state has changed, no such row) has written nothing, so the group goes on without it.
// When an op fails after it wrote, or a commit fails for a reason that may lie in one op, the group is rolled back and
// each op runs again in a transaction of its own: one bad op cannot fail its neighbours. Ops may therefore run twice,
// and must not change anything but the transaction and their own result.
const (
	queuedOps    = 1024 // ops of each size that may wait; the next caller waits with its context
	opsPerCommit = 256
	rowsPerGroup = 1024
	smallOp      = 8   // rows; an op with more is large
	rowsBeside   = 256 // a group with a small op takes no more large ones beyond this
)

type op struct {
	ctx  context.Context
	rows int // about how many rows it writes
	run  func(*tx) error
	// state decides the race between the start of the op and a caller that gives up.
	state atomic.Int32
	err   error
	done  chan struct{}

	since         time.Time // of a waiting op; guarded by the line's lock, as its neighbours
	before, after *op
}

const (
	opWaiting = iota
	opStarted
	opGivenUp
)

type writer struct {
	conn  *sqlite.Conn
	tx    *tx
	log   *slog.Logger
	small chan *op
	large chan *op
	done  chan struct{}

	waiting line
	wal     *checkpointer
	// failing keeps a full disk from filling the log: only the first failure and the recovery are logged.
	failing bool
}

// startWriter begins to write on conn, which is open on the file at path. Its stop closes conn.
func startWriter(conn *sqlite.Conn, path string, log *slog.Logger) (*writer, error) {
	w := &writer{
		conn: conn, tx: newTx(conn), log: log, done: make(chan struct{}),
		small: make(chan *op, queuedOps), large: make(chan *op, queuedOps),
	}
	var err error
	if w.wal, err = startCheckpointer(path, log); err != nil {
		return nil, err
	}
	go w.run()
	return w, nil
}

// run commits groups until both lines are closed and empty.
func (w *writer) run() {
	defer close(w.done)
	small, large := w.small, w.large
	for small != nil || large != nil {
		select {
		case <-w.wal.rest:
			w.wal.finish(w.conn)
			continue
		default:
		}
		first, open := (*op)(nil), true
		from := &small
		select {
		case first, open = <-small:
		default:
			select {
			case first, open = <-small:
			case first, open = <-large:
				from = &large
			case <-w.wal.rest:
				w.wal.finish(w.conn)
				continue
			}
		}
		if !open {
			*from = nil
			continue
		}
		w.group(first)
		w.wal.wrote()
	}
}

// next returns the op that a group of so many rows goes on with, nil when it is to end.
func (w *writer) next(rows, small, large int) *op {
	if rows >= rowsPerGroup {
		return nil
	}
	if large > 0 || small < opsPerCommit/2 { // else there is one large op to come
		select {
		case o := <-w.small: // nil once the line is closed and empty
			if o != nil {
				return o
			}
		default:
		}
	}
	if small > 0 && large > 0 && rows >= rowsBeside {
		return nil
	}
	select {
	case o := <-w.large:
		if o != nil {
			return o
		}
	default:
	}
	select {
	case o := <-w.small:
		return o
	default:
		return nil
	}
}

// stop ends the writer after the ops that are queued, keeps the latest time seen, and closes its connection. No call
// may be running.
func (w *writer) stop(seen time.Time) error {
	close(w.small)
	close(w.large)
	<-w.done
	err := w.wal.stop()
	if !seen.IsZero() {
		if err := exec(w.conn, keepSeen, seen); err != nil {
			w.log.Warn("the latest time cannot be stored", "error", err)
		}
	}
	// Empties the log, so that the directory holds one file. A failure costs only that.
	if err := exec(w.conn, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		w.log.Warn("checkpoint at close failed", "error", err)
	}
	return errors.Join(err, w.conn.Close(), w.wal.closeIndex())
}

// write runs f in the next group and returns what it returned, once that is durable. When ctx ends before f starts,
// nothing is written; afterwards the caller waits for the result.
func write[T any](ctx context.Context, s *Store, rows int, f func(*tx) (T, error)) (out T, err error) {
	if err := s.enter(); err != nil {
		return out, err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return out, err
	}
	var result T
	o := &op{ctx: ctx, rows: rows, done: make(chan struct{}), run: func(t *tx) (err error) {
		result, err = f(t)
		return err
	}}
	line := s.writer.large
	if rows <= smallOp {
		line = s.writer.small
	}
	s.writer.waiting.join(o, s.now())
	select {
	case line <- o:
	case <-ctx.Done():
		s.writer.waiting.leave(o)
		return out, ctx.Err()
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.state.CompareAndSwap(opWaiting, opGivenUp) {
			s.writer.waiting.leave(o)
			return out, ctx.Err()
		}
		<-o.done
	}
	return result, o.err
}

// group runs ops until none waits or the group is full, and commits.
func (w *writer) group(next *op) {
	var ran []*op
	var failed error
	rows, small, large := 0, 0, 0
	for next != nil && failed == nil {
		if next.state.CompareAndSwap(opWaiting, opStarted) {
			w.waiting.leave(next)
			if len(ran) == 0 {
				if err := exec(w.conn, "BEGIN IMMEDIATE"); err != nil {
					w.answer([]*op{next}, w.unavailable(err))
					return
				}
			}
			ran = append(ran, next)
			rows += next.rows
			if next.rows <= smallOp {
				small++
			} else {
				large++
			}
			failed = w.try(next)
		}
		next = nil
		if len(ran) < opsPerCommit && failed == nil {
			next = w.next(rows, small, large)
		}
	}
	if len(ran) == 0 {
		return
	}
	if failed == nil {
		failed = w.commit()
	}
	switch {
	case failed == nil:
		w.answer(ran, nil)
	case errors.Is(failed, store.ErrUnavailable) || errors.Is(failed, store.ErrOutcomeUnknown):
		w.rollback()
		w.answer(ran, failed)
	default:
		w.rollback()
		for _, o := range ran {
			w.alone(o)
		}
	}
}

// try runs one op inside the open transaction. It returns an error only when the transaction can no longer be used;
// the op's own error is kept in the op.
func (w *writer) try(o *op) (failed error) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("panic in a write", "panic", p, "stack", string(debug.Stack()))
			o.err = fmt.Errorf("internal error in the store: %v", p)
			failed = o.err
		}
	}()
	w.tx.wrote, w.tx.ready = false, nil
	o.err = o.run(w.tx)
	switch {
	case o.err == nil:
		return nil
	case unusable(sqlite.ErrCode(o.err).ToPrimary()):
		return w.unavailable(o.err)
	case w.tx.wrote || w.conn.AutocommitEnabled():
		return o.err
	}
	return nil // it refused, and wrote nothing
}

// alone runs an op of a failed group in a transaction of its own.
func (w *writer) alone(o *op) {
	if err := exec(w.conn, "BEGIN IMMEDIATE"); err != nil {
		w.answer([]*op{o}, w.unavailable(err))
		return
	}
	failed := w.try(o)
	if failed == nil {
		failed = w.commit()
	}
	if failed != nil {
		w.rollback()
	}
	w.answer([]*op{o}, failed)
}

// commit writes what the transaction has gathered, and commits.
func (w *writer) commit() error {
	if err := w.tx.flush(); err != nil {
		if unusable(sqlite.ErrCode(err).ToPrimary()) {
			return w.unavailable(err)
		}
		return err
	}
	err := exec(w.conn, "COMMIT")
	if err == nil {
		if w.failing {
			w.failing = false
			w.log.Info("the database can be written again")
		}
		return nil
	}
	// When the sync of the log fails, the commit may be in it or not: only a restart could tell.
	if sqlite.ErrCode(err) == sqlite.ResultIOErrFsync {
		w.log.Error("commit failed", "error", err)
		return fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, err)
	}
	return w.unavailable(err)
}

// rollback drops the transaction with all that was remembered from it.
func (w *writer) rollback() {
	if !w.conn.AutocommitEnabled() { // SQLite rolls back by itself after some errors
		if err := exec(w.conn, "ROLLBACK"); err != nil {
			w.log.Error("rollback failed", "error", err)
		}
	}
	w.tx = newTx(w.conn)
}

// answer ends ops; a failure stands over the op's own error.
func (w *writer) answer(ops []*op, failed error) {
	for _, o := range ops {
		if failed != nil {
			o.err = failed
		}
		close(o.done)
	}
}

func (w *writer) unavailable(err error) error {
	if !w.failing {
		w.failing = true
		w.log.Error("the database cannot be written", "error", err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// unusable reports codes that say the medium fails, not the statement.
func unusable(code sqlite.ResultCode) bool {
	switch code {
	case sqlite.ResultFull, sqlite.ResultIOErr, sqlite.ResultReadOnly, sqlite.ResultCantOpen, sqlite.ResultNoMem,
		sqlite.ResultCorrupt, sqlite.ResultNotADB, sqlite.ResultBusy, sqlite.ResultPerm:
		return true
	}
	return false
}
