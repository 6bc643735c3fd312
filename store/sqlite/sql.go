package sqlite

import (
	"encoding/json"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/store"
)

// exec runs a statement that returns no rows. Statements are prepared once per connection.
func exec(c *sqlite.Conn, sql string, args ...any) error {
	return query(c, sql, nil, args...)
}

// query runs a statement and calls each for every row; a nil each ignores them. Nothing of the row may be kept without
// copying. When each fails the statement is reset, so that it never holds a transaction open.
func query(c *sqlite.Conn, sql string, each func(*sqlite.Stmt) error, args ...any) error {
	s, err := c.Prepare(sql)
	if err != nil {
		return err
	}
	for i, a := range args {
		bind(s, i+1, a)
	}
	for {
		row, err := s.Step()
		if err != nil {
			return err
		}
		if !row {
			return s.Reset()
		}
		if each == nil {
			continue
		}
		if err := each(s); err != nil {
			_ = s.Reset() // repeats the error of the last step, and there was none
			return err
		}
	}
}

// one runs a statement of at most one row and reports whether there was one.
func one(c *sqlite.Conn, sql string, scan func(*sqlite.Stmt) error, args ...any) (bool, error) {
	found := false
	err := query(c, sql, func(s *sqlite.Stmt) error {
		found = true
		return scan(s)
	}, args...)
	return found, err
}

func bind(s *sqlite.Stmt, i int, a any) {
	switch v := a.(type) {
	case nil:
		s.BindNull(i)
	case int64:
		s.BindInt64(i, v)
	case int:
		s.BindInt64(i, int64(v))
	case bool:
		s.BindBool(i, v)
	case float64:
		s.BindFloat(i, v)
	case string:
		s.BindText(i, v)
	case []byte:
		s.BindBytes(i, v)
	case time.Time:
		s.BindInt64(i, store.Millis(v))
	default:
		panic(fmt.Sprintf("sqlite: cannot bind a %T", a))
	}
}

// scanner reads the columns of a row from left to right.
type scanner struct {
	s   *sqlite.Stmt
	col int
	err error
}

func scan(s *sqlite.Stmt) *scanner { return &scanner{s: s} }

func (r *scanner) next() int { r.col++; return r.col - 1 }

func (r *scanner) int64() int64      { return r.s.ColumnInt64(r.next()) }
func (r *scanner) int() int          { return int(r.s.ColumnInt64(r.next())) }
func (r *scanner) bool() bool        { return r.s.ColumnInt64(r.next()) != 0 }
func (r *scanner) float() float64    { return r.s.ColumnFloat(r.next()) }
func (r *scanner) text() string      { return r.s.ColumnText(r.next()) }
func (r *scanner) bytes() []byte     { return columnBytes(r.s, r.next()) }
func (r *scanner) id() (id [16]byte) { r.s.ColumnBytes(r.next(), id[:]); return id }
func (r *scanner) time() time.Time   { return store.FromMillis(r.int64()) }

// json reads a column that the store wrote; "" leaves v as it is.
func (r *scanner) json(v any) {
	if b := r.bytes(); len(b) > 0 && r.err == nil {
		r.err = json.Unmarshal(b, v)
	}
}

func columnBytes(s *sqlite.Stmt, col int) []byte {
	n := s.ColumnLen(col)
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	s.ColumnBytes(col, b)
	return b
}

// asJSON encodes values that always encode: maps, slices and structs of plain fields.
func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
