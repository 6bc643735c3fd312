// Package sqlite keeps everything the engine keeps in one SQLite file.
//
// One goroutine owns the only connection that writes. Writes that queue up while a commit runs share the next one, so a
// single write waits for nobody and many writes cost one fsync (writer.go). Reads go through a few connections that
// cannot write, and see the last commit. Package store says what each method promises; the files here say how:
// accept.go, claim.go, settle.go and receipts.go are the life of a message, ledger.go its history.
//
// In batches of 256 on one core, accept, claim, settle and one receipt cost 7–9 µs of processor time a message each
// (go test -bench .); an acceptance of one message is one fsync.
package sqlite

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/store"
)

const (
	databaseName = "msgctl.db"
	lockName     = "msgctl.lock"
	// applicationID marks the file as ours (PRAGMA application_id): the letters "msgc".
	applicationID = 0x6d736763
	// quickCheckBytes bounds the check after an unclean stop: it reads the whole file, and a start must not take long.
	quickCheckBytes = 256 << 20
	readers         = 4
	busyTimeout     = 5 * time.Second // how long another program that looks into the file may block a commit
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// Options says where the store lives. Only Dir is required.
type Options struct {
	Dir string           // made with mode 0700 when it is not there; the file in it has mode 0600
	Log *slog.Logger     // nil = no log
	Now func() time.Time // stamps the write of Check; nil = time.Now
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	path   string
	log    *slog.Logger
	now    func() time.Time
	lock   *lockFile
	writer *writer
	pool   *readerPool
	seen   latest

	background sync.WaitGroup

	closed  atomic.Bool
	running sync.RWMutex // every call holds it for reading, Close for writing
}

var _ store.Store = (*Store)(nil)

// Open opens the database in o.Dir, and makes or upgrades it where needed. A directory is open in one process at a
// time: *InUseError names the other. A file that a newer program wrote, that is damaged or that is not ours is left
// untouched.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Dir == "" {
		return nil, errors.New("no directory for the database")
	}
	s := &Store{path: filepath.Join(o.Dir, databaseName), log: o.Log, now: o.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, err
	}
	lock, unclean, err := acquire(filepath.Join(o.Dir, lockName))
	if err != nil {
		return nil, openError(o.Dir, err)
	}
	s.lock = lock
	var conn *sqlite.Conn
	defer func() {
		if err == nil {
			return
		}
		if s.pool != nil {
			_ = s.pool.close()
		}
		if conn != nil {
			_ = conn.Close()
		}
		if unclean {
			_ = lock.abandon()
		} else {
			_ = lock.release()
		}
	}()
	if err := makeFile(s.path); err != nil {
		return nil, openError(o.Dir, err)
	}
	if conn, err = openWriter(s.path); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	if unclean {
		if err := s.checkAfterCrash(ctx, conn); err != nil {
			return nil, err
		}
	}
	if err := migrate(conn); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	if err := s.seen.load(conn); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	left, err := unfinishedMoves(conn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	if s.pool, err = openReaders(s.path, readers); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	if s.writer, err = startWriter(conn, s.path, s.log); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	s.finishMoves(left)
	return s, nil
}

// makeDir makes the directory with all its parents.
func makeDir(dir string) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return fmt.Errorf("%s is a file: the database needs a directory", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return openError(dir, err)
	}
	return nil
}

// makeFile makes an empty file of mode 0600 when there is none; SQLite gives its -wal and -shm files the same mode.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func openError(dir string, err error) error {
	var inUse *InUseError
	switch {
	case errors.As(err, &inUse):
		return err
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("cannot write in %s: the file system is read-only", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("cannot write in %s: permission denied", dir)
	}
	return fmt.Errorf("cannot use %s for the database: %w", dir, err)
}

// openWriter opens the connection that writes. Durability: WAL with synchronous=FULL syncs the log in every commit
// (sqlite.org/pragma.html#pragma_synchronous), so an answered write survives power loss.
func openWriter(path string) (*sqlite.Conn, error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, err
	}
	conn.SetBusyTimeout(busyTimeout)
	for _, p := range []string{
		"PRAGMA page_size = 8192", // before the first table; no effect afterwards
		"PRAGMA synchronous = FULL",
		"PRAGMA wal_autocheckpoint = 0", // see checkpointer
		"PRAGMA journal_size_limit = 67108864",
		"PRAGMA cache_size = -24576", // 24 MB: more costs memory and gains nothing measurable
		"PRAGMA temp_store = MEMORY",
		"PRAGMA foreign_keys = OFF",
		"PRAGMA journal_mode = WAL",
	} {
		mode := ""
		err := sqlitex.ExecuteTransient(conn, p, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			mode = s.ColumnText(0)
			return nil
		}})
		if err == nil && p == "PRAGMA journal_mode = WAL" && mode != "wal" {
			err = errors.New("the file system does not support write-ahead logging; a network file system never does")
		}
		if err != nil {
			_ = conn.Close()
			return nil, explain(err)
		}
	}
	return conn, nil
}

// explain turns what SQLite says about a foreign or damaged file into a sentence.
func explain(err error) error {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultNotADB:
		return errors.New("the file is not a database")
	case sqlite.ResultCorrupt:
		return fmt.Errorf("the database is damaged, restore a backup: %w", err)
	}
	return err
}

// checkAfterCrash looks for damage. A crash leaves none that SQLite does not repair by itself; failing disks do.
func (s *Store) checkAfterCrash(ctx context.Context, conn *sqlite.Conn) error {
	st, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	if st.Size() > quickCheckBytes {
		s.log.Warn("the last stop was not clean; the database is too large to be checked at start",
			"bytes", st.Size())
		return nil
	}
	s.log.Info("the last stop was not clean: checking the database", "bytes", st.Size())
	conn.SetInterrupt(ctx.Done())
	defer conn.SetInterrupt(nil)
	var verdict string
	err = query(conn, "PRAGMA quick_check(1)", func(st *sqlite.Stmt) error {
		verdict = st.ColumnText(0)
		return nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", s.path, explain(err))
	}
	if verdict != "ok" {
		return fmt.Errorf("open %s: the database is damaged, restore a backup: %s", s.path, verdict)
	}
	return nil
}

// Close waits for running calls and leaves one clean file. It is safe to call twice.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.running.Lock()
	defer s.running.Unlock()
	s.background.Wait() // its next write is refused
	err := errors.Join(s.pool.close(), s.writer.stop(s.seen.last()))
	if err != nil {
		return errors.Join(err, s.lock.abandon())
	}
	return s.lock.release()
}

// enter begins a call; leave ends it. A call never enters twice.
func (s *Store) enter() error {
	if s.closed.Load() {
		return fmt.Errorf("%w: closed", store.ErrUnavailable)
	}
	s.running.RLock()
	if s.closed.Load() {
		s.running.RUnlock()
		return fmt.Errorf("%w: closed", store.ErrUnavailable)
	}
	return nil
}

func (s *Store) leave() { s.running.RUnlock() }

// Check proves in one small commit that the database takes writes.
func (s *Store) Check(ctx context.Context) error {
	now := s.now()
	_, err := write(ctx, s, 1, func(t *tx) (struct{}, error) {
		return struct{}{}, t.exec(`INSERT INTO probe (n, at) VALUES (1, ?) ON CONFLICT DO UPDATE SET at = excluded.at`, now)
	})
	return err
}
