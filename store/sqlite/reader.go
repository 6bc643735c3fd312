package sqlite

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/store"
)

// readerPool is a fixed set of connections that cannot write.
type readerPool struct {
	free chan *sqlite.Conn
	size int
}

func openReaders(path string, size int) (*readerPool, error) {
	p := &readerPool{free: make(chan *sqlite.Conn, size)}
	for range size {
		// A read-only open could not make the shared-memory file of the WAL; query_only forbids the writes instead.
		conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
		if err == nil {
			conn.SetBusyTimeout(busyTimeout)
			err = sqlitex.ExecuteScript(conn,
				"PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;", nil)
			if err != nil {
				err = errors.Join(err, conn.Close())
			}
		}
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.size++
		p.free <- conn
	}
	return p, nil
}

// close closes all connections; they must all be back.
func (p *readerPool) close() error {
	var errs []error
	for range p.size {
		errs = append(errs, (<-p.free).Close())
	}
	p.size = 0
	return errors.Join(errs...)
}

// read runs f on a reading connection, in one read transaction: all statements of f see the same commit. When ctx ends,
// the running statement is interrupted.
func read[T any](ctx context.Context, s *Store, f func(*sqlite.Conn) (T, error)) (out T, err error) {
	if err := s.enter(); err != nil {
		return out, err
	}
	defer s.leave()
	if err := ctx.Err(); err != nil {
		return out, err
	}
	var conn *sqlite.Conn
	select {
	case conn = <-s.pool.free:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	defer func() { s.pool.free <- conn }()
	if ctx.Done() != nil {
		conn.SetInterrupt(ctx.Done())
	}
	defer func() {
		if ctx.Done() != nil {
			conn.SetInterrupt(nil)
		}
		if !conn.AutocommitEnabled() {
			if end := exec(conn, "ROLLBACK"); end != nil && err == nil {
				err = end
			}
		}
		err = readError(ctx, err)
	}()
	if err := exec(conn, "BEGIN"); err != nil {
		return out, err
	}
	return f(conn)
}

func readError(ctx context.Context, err error) error {
	switch code := sqlite.ErrCode(err).ToPrimary(); {
	case err == nil:
		return nil
	case code == sqlite.ResultInterrupt && ctx.Err() != nil:
		return ctx.Err()
	case unusable(code):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}
