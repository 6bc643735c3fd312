package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/store"
)

// Partitions. Messages with their payloads, labels and legs, and the ledger, lie in a table per so many days, so that
// the past is removed by dropping tables; see retention.go. They are made ahead of time. What finds none goes into the
// default partition, where it is as safe, and moves along when its partition is made.

const (
	// daysAhead is how far ahead partitions are made, besides the one of today: nobody has to look after it for that long.
	daysAhead = 4
	// maintainEvery is how often every node looks after it, and maintainAgain how soon again when that failed.
	maintainEvery = time.Hour
	maintainAgain = time.Minute

	today          = `((now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date)`
	lockPartitions = `SELECT pg_advisory_xact_lock(77204, 0)` // one node at a time makes them
	makePartitions = `SELECT msgctl_make_partitions(` + today + `, ` + today + ` + $1, $2)`
)

// Partition is a span of UTC days whose messages lie together.
type Partition struct {
	First, Until time.Time // from the beginning of First to the beginning of Until
	Rows         int64     // about how many messages it has, as of the database's statistics
	Bytes        int64     // of all its tables, indexes included
}

// MakePartitions makes the partitions for the given number of days from today on, where there are none yet, for so many
// days each, and returns how many tables it has made.
func (s *Store) MakePartitions(ctx context.Context, sys store.System, days, each int) (made int, err error) {
	if err := checkSystem(sys); err != nil {
		return 0, err
	}
	if days < 1 || each < 1 {
		return 0, fmt.Errorf("partitions for %d days of %d days each: both must be at least 1", days, each)
	}
	return write(ctx, s, everyTenant, need{}, func(t *tx) (made int, err error) {
		t.wrote = true
		err = t.trip(stmt{sql: lockPartitions}, stmt{makePartitions, []any{days, each}, into(&made)})
		return made, err
	})
}

// Partitions lists the spans that there are, oldest first, without the default one.
func (s *Store) Partitions(ctx context.Context, sys store.System) (list []Partition, err error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	err = s.read(ctx, everyTenant, stmt{`SELECT p.first, p.last, max(greatest(c.reltuples, 0)) FILTER
		(WHERE parent = 'messages')::bigint, sum(pg_total_relation_size(c.oid))::bigint
		FROM unnest(ARRAY['messages', 'payloads', 'labels', 'legs', 'ledger']) AS parent,
		LATERAL msgctl_partitions(parent) AS p JOIN pg_class c ON c.oid = to_regclass(p.name)
		GROUP BY p.first, p.last ORDER BY p.first`, nil, func(rows pgx.Rows) error {
		var p Partition
		var first, last int64
		var n *int64
		err := rows.Scan(&first, &last, &n, &p.Bytes)
		p.First, p.Until = startOf(first), startOf(last)
		if n != nil {
			p.Rows = *n
		}
		list = append(list, p)
		return err
	}})
	return list, err
}

// startOf is the beginning of a UTC day.
func startOf(day int64) time.Time { return time.Unix(day*86400, 0).UTC() }

// maintain makes partitions ahead, now and from time to time until the store is closed. The first time is part of the
// start, so that a new database has them before its first message.
func (s *Store) maintain(ctx context.Context) {
	next := s.makeAhead(ctx)
	s.background.Go(func() {
		timer := time.NewTimer(next)
		defer timer.Stop()
		for {
			select {
			case <-s.stop.Done():
				return
			case <-timer.C:
				timer.Reset(s.makeAhead(s.stop))
			}
		}
	})
}

// makeAhead makes partitions for the next days and says when to do so again. What goes wrong does no harm at first:
// there is a default partition.
func (s *Store) makeAhead(ctx context.Context) time.Duration {
	made, err := s.MakePartitions(ctx, store.AsSystem("partitions"), max(daysAhead, s.days), s.days)
	var strays int64
	if err == nil {
		err = s.read(ctx, everyTenant, stmt{`SELECT msgctl_strays()`, nil, into(&strays)})
	}
	if s.stop.Err() != nil || ctx.Err() != nil {
		return maintainAgain
	}
	if made > 0 {
		s.log.Info("partitions were made", "tables", made)
	}
	if strays > 0 {
		s.log.Warn("rows lie in the default partitions, because their days have none of their own", "rows", strays)
	}
	if err != nil {
		s.log.Warn("partitions for the next days could not be made: tried again soon", "error", err)
		return maintainAgain
	}
	return maintainEvery
}
