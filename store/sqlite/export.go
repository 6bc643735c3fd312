package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Export reads a whole database that no engine has open. It changes nothing.
type Export struct {
	s       *Store
	unclean bool
}

// OpenExport opens the database in a directory to be read. It keeps everybody else out until Close: *InUseError names a
// process that has it open. A database of an older schema is refused: an engine that starts on it brings it up.
func OpenExport(ctx context.Context, dir string) (_ *Export, err error) {
	if dir == "" {
		return nil, errors.New("no directory of the database")
	}
	path := filepath.Join(dir, databaseName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) { // before the lock makes a file there
		return nil, fmt.Errorf("there is no database in %s", dir)
	}
	lock, unclean, err := acquire(filepath.Join(dir, lockName))
	if err != nil {
		return nil, openError(dir, err)
	}
	e := &Export{s: &Store{path: path, log: slog.New(slog.DiscardHandler), lock: lock}, unclean: unclean}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.s.pool, err = openReaders(path, 1); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, explain(err))
	}
	version, err := read(ctx, e.s, func(c *sqlite.Conn) (n int, err error) {
		app := 0
		_, err = one(c, "PRAGMA application_id", func(s *sqlite.Stmt) error { app = s.ColumnInt(0); return nil })
		if err != nil {
			return 0, explain(err)
		}
		if app != applicationID {
			return 0, errors.New("it is a database of another program")
		}
		_, err = one(c, "PRAGMA user_version", func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil })
		return n, explain(err)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	files, err := schemaFiles.ReadDir("schema")
	if err != nil {
		return nil, err
	}
	switch {
	case version > len(files):
		return nil, fmt.Errorf("open %s: it has schema %d, this program knows up to %d: use a newer msgctl", path, version,
			len(files))
	case version < len(files):
		return nil, fmt.Errorf("open %s: it has schema %d and is to be brought up to %d first: start the engine of this "+
			"version on it once", path, version, len(files))
	}
	return e, nil
}

// Close lets others in again. It is safe to call twice.
func (e *Export) Close() error {
	if e.s.closed.Swap(true) {
		return nil
	}
	var err error
	if e.s.pool != nil {
		err = e.s.pool.close()
	}
	if e.unclean { // the next start still looks for damage
		return errors.Join(err, e.s.lock.abandon())
	}
	return errors.Join(err, e.s.lock.release())
}

// Tenants lists the tenants' ids, in order.
func (e *Export) Tenants(ctx context.Context) ([]delivery.TenantID, error) {
	list, err := e.s.TenantList(ctx, store.AsSystem("export"))
	ids := make([]delivery.TenantID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, err
}

// Audit is that of a Store.
func (e *Export) Audit(ctx context.Context, tenant delivery.TenantID) (store.AuditReport, error) {
	return e.s.Audit(ctx, tenant)
}

// Rows counts the rows of a table.
func (e *Export) Rows(ctx context.Context, table string) (n int64, err error) {
	return read(ctx, e.s, func(c *sqlite.Conn) (n int64, err error) {
		_, err = one(c, "SELECT count(*) FROM "+quoted(table), func(s *sqlite.Stmt) error {
			n = s.ColumnInt64(0)
			return nil
		})
		return n, err
	})
}

// Table calls each with every row of a table, in the order of its key. Values are as SQLite has them: nil, int64,
// float64, string or []byte; each may keep them, but not the slice that holds them.
func (e *Export) Table(ctx context.Context, table string, columns []string, each func([]any) error) error {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoted(c)
	}
	_, err := read(ctx, e.s, func(c *sqlite.Conn) (none struct{}, err error) {
		key, err := keyOf(c, table)
		if err != nil {
			return none, err
		}
		values := make([]any, len(columns))
		return none, query(c, "SELECT "+strings.Join(names, ", ")+" FROM "+quoted(table)+" ORDER BY "+key,
			func(s *sqlite.Stmt) error {
				for i := range values {
					values[i] = value(s, i)
				}
				return each(values)
			})
	})
	return err
}

// keyOf lists the columns of a table's primary key.
func keyOf(c *sqlite.Conn, table string) (string, error) {
	var key []string
	err := query(c, "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", func(s *sqlite.Stmt) error {
		key = append(key, quoted(s.ColumnText(0)))
		return nil
	}, table)
	if err == nil && len(key) == 0 {
		err = fmt.Errorf("no table %q", table)
	}
	return strings.Join(key, ", "), err
}

// Tables lists the tables there are, so that a copy can tell that it knows them all.
func (e *Export) Tables(ctx context.Context) ([]string, error) {
	return read(ctx, e.s, func(c *sqlite.Conn) (names []string, err error) {
		err = query(c, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
			func(s *sqlite.Stmt) error {
				names = append(names, s.ColumnText(0))
				return nil
			})
		return names, err
	})
}

func value(s *sqlite.Stmt, i int) any {
	switch s.ColumnType(i) {
	case sqlite.TypeInteger:
		return s.ColumnInt64(i)
	case sqlite.TypeFloat:
		return s.ColumnFloat(i)
	case sqlite.TypeText:
		return s.ColumnText(i)
	case sqlite.TypeBlob:
		b := make([]byte, s.ColumnLen(i)) // not nil: an empty blob is not NULL
		s.ColumnBytes(i, b)
		return b
	}
	return nil
}

// quoted makes a name of the schema safe to stand in a statement.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
