package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

const (
	scans     = 50 // calls of each kind; the median counts
	leastRows = 10_000
	// scanLimit is how many ids a call asks for: there are as many in each queue, and overdue, among the fewest rows.
	scanLimit = 64
	// scanGrowth and scanNoise are how much slower a call may be on the largest table than on the smallest and still be
	// called flat: so many times, or so many milliseconds.
	scanGrowth = 2.0
	scanNoise  = 2.0
)

// mixture says of row x, from 1 on, what it is, as SQL: the rows of queues that have been in use for long. Of 1,000
// there are 600 that are done, 300 that wait for a later time, 80 that are due, 10 under a lease and 10 whose lease is
// over. Columns that are not here are those of an accepted message. $1 is now, in Unix milliseconds, $2 over how many
// days the ids are spread.
var mixture = map[string]string{
	"id": `(lpad(to_hex($1 + (x * 7919) % ($2 * 86400000)), 12, '0') || '7' || lpad(to_hex(x), 19, '0'))::uuid`,
	"q":  `CASE WHEN x % 1000 < 600 OR x % 1000 >= 980 THEN 0 ELSE m.q END`,
	"due": `CASE WHEN x % 1000 < 600 THEN NULL WHEN x % 1000 < 900 THEN $1 + 3600000 + x % 86400000
		WHEN x % 1000 < 980 THEN $1 - 1 - x % 600000 WHEN x % 1000 < 990 THEN $1 + 1 + x % 3600000
		ELSE $1 - 1 - x % 600000 END`,
	"status": `CASE WHEN x % 1000 < 600 THEN 11 WHEN x % 1000 < 900 THEN 1 WHEN x % 1000 < 980 THEN 2 ELSE 5 END`,
	"node":   `CASE WHEN x % 1000 >= 980 THEN 'n' || x % 3 ELSE '' END`,
	"epoch":  `CASE WHEN x % 1000 < 600 OR x % 1000 >= 980 THEN 1 ELSE 0 END`,
}

// scanDays is over how many days, and so partitions, the messages are spread.
const scanDays = 3

// The queues: each tenant has one for each lane and channel.
const scanTenants = 3

var (
	scanLanes    = [...]delivery.Lane{delivery.Normal, delivery.Bulk}
	scanChannels = [...]delivery.Channel{delivery.SMS, delivery.Webhook}
)

// copies is the statement that makes rows $3 to $4 of the mixture, by turns like each of the messages $5.
// It writes past the engine, as the superuser: only how fast work is found is measured on it, and a chain over so many
// messages would take hours.
func copies(columns []string) string {
	values := make([]string, len(columns))
	for i, c := range columns {
		if values[i] = mixture[c]; values[i] == "" {
			values[i] = "m." + c
		}
	}
	return `WITH pattern AS MATERIALIZED (SELECT *, row_number() OVER (ORDER BY id) - 1 AS turn FROM messages
			WHERE id = ANY ($5::uuid[]))
		INSERT INTO messages (` + strings.Join(columns, ", ") + `) SELECT ` + strings.Join(values, ", ") + `
		FROM generate_series($3::bigint, $4::bigint) AS x
		JOIN pattern AS m ON m.turn = x / 10 % (SELECT count(*) FROM pattern)`
}

// scan measures how long it takes to find work among ever more rows.
func (b *bench) scan(ctx context.Context, on *backing) (err error) {
	db, err := on.database(ctx)
	if err != nil {
		return err
	}
	s, err := postgres.Open(ctx, postgres.Options{URL: db.App})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	now := time.Now()
	queue, like, err := patterns(ctx, s, now)
	if err != nil {
		return err
	}
	t := table{title: fmt.Sprintf("cluster: finding work among many rows, ms, median of %d", scans)}
	names, calls := finding(s, queue, now)
	t.add(append([]any{"rows"}, names...)...)
	var least, most []float64
	have := 0
	for want := leastRows; want <= b.scanRows; want *= 10 {
		took, err := fill(ctx, db, now, like, have, want)
		if err != nil {
			return err
		}
		have = want
		cells := []any{want}
		most = nil
		for _, call := range calls {
			ms, err := timed(ctx, call)
			if err != nil {
				return err
			}
			cells, most = append(cells, fmt.Sprintf("%.2f", ms)), append(most, ms)
		}
		if least == nil {
			least = most
		}
		t.add(cells...)
		b.say("cluster: %d rows, filled in %.0f s: %v", want, took.Seconds(), cells[1:])
	}
	verdict := []any{"verdict"}
	for i := range least {
		verdict = append(verdict, flat(least[i], most[i]))
	}
	t.add(verdict...)
	t.notes = append(t.notes,
		"of 1,000 rows 600 are done, 300 wait for a later time, 80 are due, 10 are leased, of 10 the lease is over;",
		fmt.Sprintf("flat: on the most rows at most %g times, or %g ms, more than on the fewest;", scanGrowth, scanNoise),
		"the rows were made by generated SQL past the engine, then ANALYZE")
	b.tables = append(b.tables, t)
	return nil
}

// patterns accepts a message for each queue, which the rows are made like, and returns the last of the queues.
func patterns(ctx context.Context, s store.Store, now time.Time) (q delivery.Queue, like [][16]byte, err error) {
	ids := delivery.NewIDs(func() time.Time { return now })
	for i := range scanTenants {
		id := delivery.TenantID(fmt.Sprint("tenant-", i+1))
		err := s.CreateTenant(ctx, store.AsSystem("bench"), store.Tenant{ID: id, Name: string(id), CreatedAt: now})
		if err != nil {
			return q, nil, err
		}
		var list []store.NewMessage
		for _, lane := range scanLanes {
			for _, ch := range scanChannels {
				q = delivery.Queue{Tenant: id, Channel: ch, Lane: lane}
				m := ids.Message()
				like = append(like, m)
				list = append(list, store.NewMessage{
					ID: m, Channel: ch, Lane: lane, To: fmt.Sprint("+999", len(list)), Payload: []byte("{}"),
					Segments: 1, DueAt: now, ExpiresAt: now.Add(48 * time.Hour),
				})
			}
		}
		if _, err := s.Accept(ctx, id, store.Acceptance{Now: now, Messages: list}); err != nil {
			return q, nil, err
		}
	}
	return q, like, nil
}

// fill makes the rows after the first have until there are want.
func fill(
	ctx context.Context, db *servers.DB, now time.Time, like [][16]byte, have, want int,
) (took time.Duration, err error) {
	start := time.Now()
	conn, err := pgx.Connect(ctx, db.Admin)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	rows, err := conn.Query(ctx, `SELECT attname::text FROM pg_attribute
		WHERE attrelid = 'messages'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`)
	if err != nil {
		return 0, err
	}
	columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	const at = 200_000 // rows of a transaction
	for from := have + 1; from <= want; from += at {
		if _, err := conn.Exec(ctx, copies(columns), store.Millis(now), int64(scanDays), int64(from),
			int64(min(from+at-1, want)), like); err != nil {
			return 0, err
		}
	}
	_, err = conn.Exec(ctx, "ANALYZE messages")
	return time.Since(start), err
}

// finding are the calls by which the engine finds work. Each fails when it finds less than there is.
func finding(s store.Store, q delivery.Queue, now time.Time) (names []any, calls []func(context.Context) error) {
	sys := store.AsSystem("bench")
	found := func(n, want int, err error) error {
		if err == nil && n < want {
			err = fmt.Errorf("%d were found, want %d", n, want)
		}
		return err
	}
	return []any{"DueQueues", "Due", "NextDue", "Overdue"}, []func(context.Context) error{
		func(ctx context.Context) error {
			list, err := s.DueQueues(ctx, sys, now)
			return found(len(list), scanTenants*len(scanLanes)*len(scanChannels), err)
		},
		func(ctx context.Context) error {
			list, _, err := s.Due(ctx, sys, q, now, store.DueMark{}, scanLimit)
			return found(len(list), scanLimit, err)
		},
		func(ctx context.Context) error {
			next, err := s.NextDue(ctx, sys, now)
			if err == nil && !next.After(now) {
				err = fmt.Errorf("%s is not after now", next)
			}
			return err
		},
		func(ctx context.Context) error {
			list, err := s.Overdue(ctx, sys, now, "", scanLimit)
			return found(len(list), scanLimit, err)
		},
	}
}

// timed is the median of many calls, in milliseconds.
func timed(ctx context.Context, call func(context.Context) error) (float64, error) {
	took := make([]time.Duration, scans)
	for i := range took {
		start := time.Now()
		if err := call(ctx); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	return percentile(took, 50), nil
}

// flat says whether a time has not grown.
func flat(least, most float64) string {
	if most <= least*scanGrowth || most <= least+scanNoise {
		return "flat"
	}
	return fmt.Sprintf("%.1f times", most/least)
}
