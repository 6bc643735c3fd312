package sqlite

import (
	"context"
	"sync"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/store"
)

// seenEvery is how far the latest time may run ahead of what is stored of it. After a kill that much may be forgotten.
const seenEvery = 3 * time.Second

// latest is the latest time that anybody has told.
type latest struct {
	mu     sync.Mutex
	at     time.Time
	stored time.Time // of it, what is stored or being stored
}

const keepSeen = `INSERT INTO clock (n, seen) VALUES (1, ?) ON CONFLICT DO UPDATE SET seen = max(seen, excluded.seen)`

func (l *latest) load(c *sqlite.Conn) error {
	_, err := one(c, `SELECT seen FROM clock WHERE n = 1`, func(s *sqlite.Stmt) error {
		l.at = store.FromMillis(s.ColumnInt64(0))
		l.stored = l.at
		return nil
	})
	return err
}

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

// last is the latest.
func (l *latest) last() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// Seen returns the latest time that anybody has told it. It is stored every few seconds of it, and at Close. When that
// fails the time is returned with the error.
func (s *Store) Seen(ctx context.Context, sys store.System, now time.Time) (time.Time, error) {
	if err := checkSystem(sys); err != nil {
		return time.Time{}, err
	}
	if err := s.enter(); err != nil {
		return time.Time{}, err
	}
	at, keep := s.seen.tell(now)
	s.leave()
	if !keep {
		return at, nil
	}
	_, err := write(ctx, s, 1, func(t *tx) (struct{}, error) { return struct{}{}, t.exec(keepSeen, at) })
	if err != nil {
		s.seen.mu.Lock()
		s.seen.stored = time.Time{} // the next call tries again
		s.seen.mu.Unlock()
	}
	return at, err
}
