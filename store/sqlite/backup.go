package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/store"
)

// Backup is a copy of a database in one file, as of one moment.
//
// It holds everything but two things that lie beside the database. The master key (master.key) opens the secrets of
// connectors and tenants: without it a restored engine sends nothing, so keep a copy of it, and keep it somewhere else.
// The attempt journal says what the last process had under way; Restore does without it.
type Backup struct {
	Path     string
	Bytes    int64
	Taken    time.Time // by the clock of the store that wrote it
	Messages int64     // ever accepted, over all tenants
}

// partSuffix is what a file is called that is not complete yet.
const partSuffix = ".part"

// Backup writes a copy of the database to a file that must not be there yet, while everything goes on. The file is
// complete and on the disk when the call returns; a call that fails leaves none. Meanwhile the log of the database
// grows by what is written: a backup needs free space for that beside its own.
func (s *Store) Backup(ctx context.Context, path string) (Backup, error) {
	if err := s.enter(); err != nil {
		return Backup{}, err
	}
	defer s.leave()
	b, err := s.backup(ctx, path)
	if err != nil {
		return Backup{}, fmt.Errorf("backup to %s: %w", path, err)
	}
	return b, nil
}

func (s *Store) backup(ctx context.Context, path string) (b Backup, err error) {
	if err := absent(path); err != nil {
		return b, err
	}
	part := path + partSuffix
	// The copy holds addresses and texts: nobody else may read it, from its first byte on.
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return b, fmt.Errorf("%s is there already: another backup runs, or one was cut off; remove it then", part)
	}
	if err != nil {
		return b, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDatabase(part))
		}
	}()
	if err := f.Close(); err != nil {
		return b, err
	}
	if err := s.copyTo(ctx, part); err != nil {
		return b, err
	}
	b = Backup{Path: path, Taken: store.FromMillis(store.Millis(s.now()))}
	if b.Messages, err = stamp(part, b.Taken); err != nil {
		return b, err
	}
	st, err := os.Stat(part)
	if err != nil {
		return b, err
	}
	b.Bytes = st.Size()
	return b, moveIn(part, path)
}

// copyTo writes what the database holds at this moment. A connection of its own, so that a long copy takes no reader
// away from the engine.
func (s *Store) copyTo(ctx context.Context, to string) (err error) {
	conn, err := sqlite.OpenConn(s.path, sqlite.OpenReadWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	conn.SetBusyTimeout(busyTimeout)
	conn.SetInterrupt(ctx.Done())
	err = exec(conn, "VACUUM INTO ?", to)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// stamp writes into a copy when it was taken, and counts what it holds.
func stamp(path string, taken time.Time) (messages int64, err error) {
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := exec(conn, keepSeen, taken); err != nil {
		return 0, err
	}
	_, err = one(conn, `SELECT coalesce(sum(accepted), 0) FROM tenants`, func(s *sqlite.Stmt) error {
		messages = s.ColumnInt64(0)
		return nil
	})
	return messages, err
}

// absent refuses a path where something is.
func absent(path string) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s is there already, and is not overwritten", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// moveIn gives a complete file its name, so that it is there whole or not at all, also after a power cut.
func moveIn(part, path string) error {
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := absent(path); err != nil { // a rename would replace what came there meanwhile
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// removeDatabase removes a file with what SQLite puts beside it.
func removeDatabase(path string) error {
	var errs []error
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// syncDir makes a new name durable. Some file systems cannot sync a folder; that is no reason to stop.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
