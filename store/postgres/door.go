package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// doorTime is how long nobody knocks again at a database that has just refused a connection. Each knock costs a server
// that is starting a process, at the time at which it has the least to spare.
const doorTime = 50 * time.Millisecond

// door keeps those who need a connection from all trying to make one while the database takes none.
type door struct {
	mu    sync.Mutex
	since time.Time // of the last refusal, on the clock that nobody sets
	err   error
}

// closedError repeats the last refusal without having asked again.
type closedError struct{ err error }

func (e *closedError) Error() string { return e.err.Error() }
func (e *closedError) Unwrap() error { return e.err }

// refused notes why no connection was made, if that is what an error says.
func (d *door) refused(err error) {
	var closed *closedError
	var connect *pgconn.ConnectError
	if errors.As(err, &closed) || !errors.As(err, &connect) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since, d.err = time.Now(), err
}

// before is asked before a connection is made.
func (d *door) before(context.Context, *pgx.ConnConfig) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil && time.Since(d.since) < doorTime {
		return &closedError{d.err}
	}
	d.err = nil
	return nil
}
