package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/msgctl/msgctl/store"
)

// Group commit. Acceptances of one tenant need the lock of the same row of ledger_heads, so that one goes after the
// other whatever one does. Therefore those of one tenant that wait share the next transaction: while one commits, the
// next group gathers, and a lone acceptance waits for nobody. The transactions of different tenants overlap, as do those
// of other nodes up to that lock.
//
// An acceptance that refuses (no quota, key reused) has written nothing, so the group goes on without it. When one fails
// after it wrote, or the transaction fails for a reason that may lie in one of them, the group is halved until the one is
// alone: it fails, and its neighbours do not.
const (
	opsPerGroup  = 256
	rowsPerGroup = 4096
	purgeEvery   = 32 // groups with a key between two purges of old keys
)

// op is an acceptance that waits for its group.
type op struct {
	a     store.Acceptance
	state atomic.Int32 // decides the race between the start of the op and a caller that gives up
	out   store.Accepted
	err   error
	done  chan struct{}
}

const (
	opWaiting = iota
	opStarted
	opGivenUp
)

type writer struct {
	s     *Store
	slots chan struct{} // acceptances never take all connections

	mu      sync.Mutex
	waiting map[int64][]*op // of tenants for which a goroutine is at work
}

func newWriter(s *Store) *writer {
	return &writer{s: s, slots: make(chan struct{}, max(1, s.pool.Config().MaxConns/2)), waiting: map[int64][]*op{}}
}

// accept runs an acceptance in the next group of its tenant. When ctx ends before it starts, nothing is written.
func (w *writer) accept(ctx context.Context, tenant int64, a store.Acceptance) (store.Accepted, error) {
	if err := ctx.Err(); err != nil {
		return store.Accepted{}, err
	}
	o := &op{a: a, done: make(chan struct{})}
	w.mu.Lock()
	_, working := w.waiting[tenant]
	w.waiting[tenant] = append(w.waiting[tenant], o)
	w.mu.Unlock()
	if !working {
		go w.work(tenant) // ends when nobody waits; Close waits for the callers
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.state.CompareAndSwap(opWaiting, opGivenUp) {
			return store.Accepted{}, ctx.Err()
		}
		<-o.done
	}
	return o.out, o.err
}

// work runs groups of a tenant until nobody waits.
func (w *writer) work(tenant int64) {
	for {
		w.slots <- struct{}{} // a slot is kept for the time of a transaction, and that is bounded
		group, more := w.take(tenant)
		if len(group) > 0 {
			w.run(tenant, group)
		}
		<-w.slots
		if !more {
			return
		}
	}
}

// take removes the next group from those who wait. Without one the tenant is forgotten, and the worker must end.
func (w *writer) take(tenant int64) (group []*op, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ops, rows := w.waiting[tenant], 0
	if len(ops) == 0 {
		delete(w.waiting, tenant)
		return nil, false
	}
	for len(ops) > 0 && len(group) < opsPerGroup && (rows == 0 || rows+len(ops[0].a.Messages) <= rowsPerGroup) {
		if o := ops[0]; o.state.CompareAndSwap(opWaiting, opStarted) {
			group = append(group, o)
			rows += len(o.a.Messages)
		}
		ops = ops[1:]
	}
	w.waiting[tenant] = ops
	return group, true
}

// errGroup: an op of the group has failed after it wrote.
var errGroup = errors.New("an acceptance has failed")

// run stores a group and answers it.
func (w *writer) run(tenant int64, group []*op) {
	err := w.transact(tenant, group)
	if err != nil && len(group) > 1 && !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOutcomeUnknown) {
		half := len(group) / 2
		w.run(tenant, group[:half])
		w.run(tenant, group[half:])
		return
	}
	for _, o := range group {
		if err != nil && !errors.Is(err, errGroup) { // else it says itself what is wrong
			o.out, o.err = store.Accepted{}, existsError(err)
		}
		close(o.done)
	}
}

func (w *writer) transact(tenant int64, group []*op) error {
	in := newIntake(tenant)
	for _, o := range group {
		in.add(o.a)
	}
	if len(in.keys) > 0 && w.s.keyed.Add(1)%purgeEvery == 0 {
		in.purgeAny, in.purge = true, group[0].a.Now
	}
	return w.s.transact(context.Background(), scope(tenant), in.need(), func(t *tx) error {
		tn, err := t.tenantN(tenant)
		if err != nil {
			return err
		}
		any := false
		for _, o := range group {
			t.wrote = false
			if o.out, o.err = t.accept(tn, o.a); o.err != nil && t.wrote {
				return errGroup
			}
			any = any || t.wrote
		}
		t.wrote = any
		return nil
	})
}

// accept stores one acceptance, or answers that it was stored before.
func (t *tx) accept(tn *tenant, a store.Acceptance) (out store.Accepted, err error) {
	if a.Key != nil {
		if out, found, err := t.in.replay(a); found || err != nil {
			return out, err
		}
	}
	if out, err = t.insert(tn, a.Now, a.Messages, nil); err != nil {
		return store.Accepted{}, err
	}
	if a.Key != nil {
		t.keep(a, out)
	}
	return out, nil
}

// existsError says that a message's id is taken.
func existsError(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "23505" || len(pg.TableName) < len("messages") ||
		pg.TableName[:len("messages")] != "messages" {
		return err
	}
	return fmt.Errorf("a message of the request: %w (%s)", store.ErrExists, pg.Detail)
}
