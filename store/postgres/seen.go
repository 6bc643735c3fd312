package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/msgctl/msgctl/store"
)

// seenEvery is how far the latest time may run ahead of what is stored of it. After a kill that much may be forgotten.
const seenEvery = 3 * time.Second

// latest is the latest time that anybody has told this node, or had told another one when this node last stored it.
type latest struct {
	mu     sync.Mutex
	at     time.Time
	stored time.Time // of it, what is stored or being stored
}

const keepSeen = `INSERT INTO clock AS c (n, seen) VALUES (1, $1)
	ON CONFLICT (n) DO UPDATE SET seen = greatest(c.seen, excluded.seen) RETURNING seen`

// tell keeps now if it is the latest, and returns the latest and whether it is time to store it.
func (l *latest) tell(now time.Time) (at time.Time, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.After(l.at) {
		l.at = store.FromMillis(store.Millis(now))
	}
	if keep = l.at.Sub(l.stored) >= seenEvery; keep {
		l.stored = l.at
	}
	return l.at, keep
}

// heard joins what is stored with what is known here.
func (l *latest) heard(stored time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stored.After(l.at) {
		l.at = stored
	}
	if stored.After(l.stored) {
		l.stored = stored
	}
	return l.at
}

// failed makes the next call store again.
func (l *latest) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stored = time.Time{}
}

// unstored is the latest time if it is not stored yet, else zero.
func (l *latest) unstored() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.After(l.stored) {
		return l.at
	}
	return time.Time{}
}

// loadSeen reads the latest time that anybody has told; Open calls it.
func (s *Store) loadSeen(ctx context.Context) error {
	var seen int64
	err := s.readOpen(ctx, everyTenant, stmt{sql: `SELECT seen FROM clock WHERE n = 1`, each: into(&seen)})
	if err == nil {
		s.seen.heard(store.FromMillis(seen))
	}
	return err
}

// Seen returns the latest time that anybody has told any node. It is stored every few seconds of it, and at Close. When
// that fails the time is returned with the error.
func (s *Store) Seen(ctx context.Context, sys store.System, now time.Time) (time.Time, error) {
	if err := checkSystem(sys); err != nil {
		return time.Time{}, err
	}
	if s.closed.Load() {
		return time.Time{}, errClosed
	}
	at, keep := s.seen.tell(now)
	if !keep {
		return at, nil
	}
	return s.storeSeen(ctx, at)
}

func (s *Store) storeSeen(ctx context.Context, at time.Time) (time.Time, error) {
	stored, err := write(ctx, s, everyTenant, need{}, func(t *tx) (seen int64, err error) {
		t.wrote = true
		_, err = t.one([]any{&seen}, keepSeen, store.Millis(at))
		return seen, err
	})
	if err != nil {
		s.seen.failed()
		return at, err
	}
	return s.seen.heard(store.FromMillis(stored)), nil
}

// keepLatest stores the latest time, best effort; Close calls it while calls are still allowed.
func (s *Store) keepLatest() {
	at := s.seen.unstored()
	if at.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := s.storeSeen(ctx, at); err != nil {
		s.log.Warn("the latest time cannot be stored", "error", err)
	}
}
