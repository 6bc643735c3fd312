package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/msgctl/msgctl/store"
)

// Import fills an empty database with what another store holds, table by table, as it is: the numbers by which rows
// name tenants, accounts and campaigns stay, and so does every hash of the ledger. All of it is one transaction. It is
// of one goroutine.
type Import struct {
	ctx  context.Context
	conn *pgxpool.Conn
	days map[int64]int64 // tenant → the day of its last ledger row
	now  int64           // today
}

// ImportTable is a table as Add takes it.
type ImportTable struct {
	Name    string
	Columns []string // what Add wants of each row, in this order
}

// importRows is how many rows one statement writes.
const importRows = 1000

// ImportTables lists what Add takes, in the order in which it is to be given.
func ImportTables() []ImportTable {
	out := make([]ImportTable, len(importTables))
	for i, t := range importTables {
		names, _ := columnsOf(t.columns)
		out[i] = ImportTable{Name: t.name, Columns: names}
	}
	return out
}

// Import runs f, which fills the database. It holds what f has added once f and Import return nil, and else nothing of
// it. A database that has anything in it is refused with store.ErrConflict, and so is one that a node works on. It may
// take as long as ctx allows.
func (s *Store) Import(ctx context.Context, f func(*Import) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stop, func() { cancel(errClosed) })()
	im := &Import{ctx: inner, conn: conn, days: map[int64]int64{}, now: day(s.now())}
	defer s.rollback(conn)
	err = im.begin(millis(s.timeout))
	if err == nil {
		err = f(im)
	}
	if err == nil {
		err = im.finish()
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return explain(err, false)
	}
	if _, err := conn.Exec(inner, commitSQL); err != nil {
		return explain(err, true)
	}
	return nil
}

// begin opens the transaction and refuses a database that is in use.
func (im *Import) begin(lockTimeout string) error {
	checks := make([]string, 0, len(importTables))
	for _, t := range importTables {
		if t.name != "clock" {
			checks = append(checks, fmt.Sprintf("SELECT '%s' AS name WHERE EXISTS (SELECT FROM %s)", t.name, t.name))
		}
	}
	var full, alive []string
	name := func(to *[]string) func(pgx.Rows) error {
		return func(rows pgx.Rows) error {
			var s string
			err := rows.Scan(&s)
			*to = append(*to, s)
			return err
		}
	}
	err := trip(im.ctx, im.conn, []stmt{
		{sql: beginWrite},
		// As setLimits, but for statements of any length: plans that look rows up by their keys, however small the tables
		// were when the plans were made.
		{sql: `SELECT set_config('msgctl.tenant', '-1', true), set_config('statement_timeout', '0', true),
			set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', '0', true),
			set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
			set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`,
			args: []any{lockTimeout}},
		// No second import, and no new tenant, until the end.
		{sql: `LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE`},
		{sql: strings.Join(checks, " UNION ALL "), each: name(&full)},
		{sql: `SELECT name FROM nodes
			WHERE NOT gone AND until > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint ORDER BY name`,
			each: name(&alive)},
	})
	switch {
	case err != nil:
		return err
	case len(full) > 0:
		return fmt.Errorf("%w: the database is not empty: there are rows in %s; give an empty one", store.ErrConflict,
			strings.Join(full, ", "))
	case len(alive) > 0:
		return fmt.Errorf("%w: nodes work on the database: stop %s first", store.ErrConflict, strings.Join(alive, ", "))
	}
	return nil
}

// Add writes rows of a table, each as ImportTables lists its columns. Values are nil, int64, float64, string or []byte;
// a truth is 0 or 1, an id 16 bytes. Texts lose what PostgreSQL cannot store: NUL, and bytes that are not UTF-8.
func (im *Import) Add(table string, rows [][]any) error {
	for i, t := range importTables {
		if t.name != table {
			continue
		}
		for len(rows) > 0 {
			n := min(len(rows), importRows)
			if err := im.add(i, rows[:n]); err != nil {
				return fmt.Errorf("table %s: %w", table, err)
			}
			rows = rows[n:]
		}
		return nil
	}
	return fmt.Errorf("no table %q is imported", table)
}

func (im *Import) add(n int, rows [][]any) error {
	t := importTables[n]
	names, types := columnsOf(t.columns)
	into, from := quoteAll("", names), quoteAll("r.", names)
	var more []any // of each row, what only we know
	switch t.name {
	case "ledger":
		names, types = append(names, "day"), append(types, "integer")
		into, from = append(into, "day"), append(from, "r.day")
		for _, r := range rows {
			more = append(more, im.dayOf(r))
		}
	case "ordered":
		names, types = append(names, "stripe"), append(types, "integer")
		into, from = append(into, "stripe"), append(from, "r.stripe")
		for _, r := range rows {
			stripe, err := stripeOf(r)
			if err != nil {
				return err
			}
			more = append(more, stripe)
		}
	}
	if name, of, extra := strings.Cut(t.extra, " = "); extra {
		into, from = append(into, name), append(from, of)
	}
	args, unnest := make([]any, len(names)), make([]string, len(names))
	for c, typ := range types {
		unnest[c] = fmt.Sprintf("$%d::%s[]", c+1, typ)
		values := make([]any, len(rows))
		for i := range rows {
			switch {
			case c < len(rows[i]):
				values[i] = rows[i][c]
				if b, ok := values[i].([]byte); ok && len(b) == 0 && slices.Contains(emptyIsNull, names[c]) {
					values[i] = nil
				}
			case more != nil && c == len(rows[i]):
				values[i] = more[i]
			default:
				return fmt.Errorf("a row of %d columns", len(rows[i]))
			}
		}
		var err error
		if args[c], err = column(typ, values); err != nil {
			return fmt.Errorf("column %s: %w", names[c], err)
		}
	}
	conflict := ""
	if t.name == "clock" {
		conflict = " ON CONFLICT (n) DO UPDATE SET seen = greatest(clock.seen, excluded.seen)"
	}
	tag, err := im.conn.Exec(im.ctx, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM unnest(%s) AS r (%s)%s", t.name,
		strings.Join(into, ", "), strings.Join(from, ", "), strings.Join(unnest, ", "),
		strings.Join(quoteAll("", names), ", "), conflict), args...)
	if err == nil && tag.RowsAffected() != int64(len(rows)) {
		err = fmt.Errorf("%d of %d rows were written", tag.RowsAffected(), len(rows))
	}
	return err
}

func quoteAll(before string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = before + pgx.Identifier{n}.Sanitize()
	}
	return out
}

// oldDays is how far back an import makes partitions. What is older lies in the default ones.
const oldDays = 730

// Since makes partitions for messages and history from a day on; before the rows are added.
func (im *Import) Since(t time.Time) error {
	var end int64 // from there on there are partitions, by the clock of the database
	if err := trip(im.ctx, im.conn, []stmt{{sql: `SELECT ` + today, each: into(&end)}}); err != nil {
		return err
	}
	end = max(end, im.now+1)
	first, span := max(day(t), end-oldDays), int64(1)
	switch {
	case first >= end:
		return nil
	// Each table and index that is made takes a lock until the end, and the server has some thousand.
	case end-first > 180:
		span = 30
	case end-first > 30:
		span = 7
	}
	return trip(im.ctx, im.conn, []stmt{{sql: `SELECT msgctl_make_partitions($1, $2, $3)`,
		args: []any{first, end, span}, each: func(pgx.Rows) error { return nil }}})
}

// Accepted says how many messages a tenant has ever had accepted; after the ledger, and for every tenant.
func (im *Import) Accepted(tenants map[int64]int64) error {
	ns, counts := make([]int64, 0, len(tenants)), make([]int64, 0, len(tenants))
	for _, n := range slices.Sorted(maps.Keys(tenants)) {
		ns, counts = append(ns, n), append(counts, tenants[n])
	}
	_, err := im.conn.Exec(im.ctx, `INSERT INTO ledger_heads (tenant, seq, accepted, hash)
		SELECT u.tenant, coalesce(l.seq, 0), u.accepted, coalesce(l.hash, decode(repeat('00', 32), 'hex'))
		FROM unnest($1::bigint[], $2::bigint[]) AS u (tenant, accepted)
		LEFT JOIN LATERAL (SELECT seq, hash FROM ledger WHERE tenant = u.tenant ORDER BY seq DESC LIMIT 1) AS l ON true
		ORDER BY u.tenant`, ns, counts)
	return err
}

// Ledger calls each with the rows of a tenant's ledger as they are stored now, in order.
func (im *Import) Ledger(tenant int64, each func(seq, at int64, prev, hash, facts []byte) error) error {
	return trip(im.ctx, im.conn, []stmt{{`SELECT seq, at, prev, hash, facts FROM ledger WHERE tenant = $1 ORDER BY seq`,
		[]any{tenant}, func(rows pgx.Rows) error {
			var seq, at int64
			var prev, hash, facts []byte
			if err := rows.Scan(&seq, &at, &prev, &hash, &facts); err != nil {
				return err
			}
			return each(seq, at, prev, hash, facts)
		}}})
}

// Rows counts the rows of a table as they are stored now.
func (im *Import) Rows(table string) (n int64, err error) {
	err = trip(im.ctx, im.conn, []stmt{{sql: "SELECT count(*) FROM " + pgx.Identifier{table}.Sanitize(), each: into(&n)}})
	return n, err
}

// finish brings up to date what follows from the rows: the next numbers, the counts of parked receipts.
func (im *Import) finish() error {
	stmts := []stmt{{sql: `INSERT INTO parked_counts (account, n) SELECT account, count(*) FROM parked GROUP BY account`}}
	for _, table := range []string{"tenants", "account_ids", "audiences", "campaigns"} {
		// The role may draw numbers, and may not set the sequence.
		stmts = append(stmts, stmt{sql: fmt.Sprintf(`SELECT max(nextval(pg_get_serial_sequence('%[1]s', 'n')))
			FROM generate_series(1, (SELECT coalesce(max(n), 0) FROM %[1]s))`, table)})
	}
	return trip(im.ctx, im.conn, stmts)
}
