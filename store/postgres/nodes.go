package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var _ store.Nodes = (*Store)(nil)

const (
	// serverClock is the only clock that all nodes share, in microseconds. It is read anew at each use: a transaction that
	// has waited for a lock must not judge a life by the time before that.
	serverClock = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

	// nodesKept is how long a node that is gone is listed, and a run that was taken over is known to be it.
	nodesKept = time.Hour

	lives = `NOT n.gone AND n.until > ` + serverClock
)

// beatNode gives the name to the run if it has it already, or if nobody lives under it and the run never lost it. It
// remembers the last 64 runs of a name.
const beatNode = `WITH clock AS MATERIALIZED (SELECT ` + serverClock + ` AS now)
	INSERT INTO nodes AS n (name, run, former, gone, roles, version, address, started, applied, draining, ttl, seen, until)
	SELECT $1::text, $2::uuid, '{}', false, $3::text[], $4::text, $5::text, $6::bigint, $7::bigint, $8::boolean,
		$9::bigint, now, now + $9 FROM clock
	ON CONFLICT (name) DO UPDATE SET
		former = CASE WHEN n.run = excluded.run THEN n.former
			ELSE (n.former || n.run)[greatest(cardinality(n.former) - 62, 1):] END,
		run = excluded.run, gone = false, roles = excluded.roles, version = excluded.version, address = excluded.address,
		started = excluded.started, applied = excluded.applied, draining = excluded.draining, ttl = excluded.ttl,
		seen = excluded.seen, until = excluded.until
	WHERE CASE WHEN n.run = excluded.run THEN NOT n.gone
		ELSE (n.gone OR n.until <= excluded.seen) AND excluded.run <> ALL (n.former) END
	RETURNING n.until`

// Beat says that a run lives.
func (s *Store) Beat(ctx context.Context, sys store.System, b store.Beat) (store.Roster, error) {
	if err := checkSystem(sys); err != nil {
		return store.Roster{}, err
	}
	if b.Name == "" || b.Run == (store.RunID{}) || b.TTL < time.Millisecond {
		return store.Roster{}, errors.New("beat: a name, a run and a time of at least a millisecond are needed")
	}
	// Everything goes with the first statements: a beat must come through in time over a network that is slow.
	var until int64
	var roster rosterReader
	stmts := append([]stmt{
		{`SELECT 1`, nil, func(pgx.Rows) error { until, roster = 0, rosterReader{}; return nil }}, // a run before failed
		{beatNode, []any{b.Name, [16]byte(b.Run), nonNilOf(b.Roles), b.Version, b.Address, b.Started.UnixMicro(),
			b.Applied, b.Draining, b.TTL.Microseconds()}, into(&until)},
		{`DELETE FROM sessions WHERE name = $1 AND run <> $2`, []any{b.Name, [16]byte(b.Run)}, nil},
		{`DELETE FROM nodes WHERE until < ` + serverClock + ` - $1`, []any{nodesKept.Microseconds()}, nil},
		{trimChanges, []any{changesKept.Microseconds()}, nil},
	}, roster.stmts()...)
	return write(ctx, s, everyTenant, need{vital: true, first: stmts}, func(t *tx) (store.Roster, error) {
		t.wrote = true
		if until != 0 {
			return roster.Roster, nil
		}
		for _, n := range roster.Nodes {
			switch {
			case n.Name != b.Name:
			case n.Run == b.Run:
				return store.Roster{}, fmt.Errorf("node %q: this run has left: %w", b.Name, store.ErrConflict)
			case n.Alive:
				return store.Roster{}, fmt.Errorf("node %q: another run has the name, at %q since %s, alive until %s: %w",
					b.Name, n.Address, n.Started.Format(time.RFC3339), n.Until.Format(time.RFC3339), store.ErrConflict)
			}
		}
		return store.Roster{}, fmt.Errorf("node %q: another run has taken the name over: %w", b.Name, store.ErrConflict)
	})
}

// Leave ends a run at once, and its sessions.
func (s *Store) Leave(ctx context.Context, sys store.System, name string, run store.RunID) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	_, err := write(ctx, s, everyTenant, need{vital: true}, func(t *tx) (none struct{}, err error) {
		t.later(`UPDATE nodes SET gone = true, until = least(until, `+serverClock+`)
			WHERE name = $1 AND run = $2 AND NOT gone`, name, [16]byte(run))
		t.later(`DELETE FROM sessions WHERE name = $1 AND run = $2`, name, [16]byte(run))
		return none, nil
	})
	return err
}

// Roster is what Beat returns.
func (s *Store) Roster(ctx context.Context, sys store.System) (store.Roster, error) {
	if err := checkSystem(sys); err != nil {
		return store.Roster{}, err
	}
	var roster rosterReader
	err := s.read(ctx, everyTenant, roster.stmts()...)
	return roster.Roster, err
}

// Claims is how many messages each node has under lease. What is under lease stands in the index of due work under the
// number 0, which no queue has.
func (s *Store) Claims(ctx context.Context, sys store.System) (map[string]int, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	claims := map[string]int{}
	err := s.read(ctx, everyTenant, stmt{`SELECT split_part(m.node, '#', 1), count(*) FROM messages m
		WHERE m.q = 0 AND m.due IS NOT NULL AND m.status = $1 GROUP BY 1`, []any{int16(delivery.StatusSending)},
		func(rows pgx.Rows) error {
			var node string
			var n int
			err := rows.Scan(&node, &n)
			claims[node] = n
			return err
		}})
	return claims, err
}

// rosterReader reads the roster in two statements.
type rosterReader struct{ store.Roster }

func (r *rosterReader) stmts() []stmt {
	// The clock is read last: of two nodes that ask, the one whose answer is older must not have the later time.
	return []stmt{
		{`SELECT n.name, n.run, n.roles, n.version, n.address, n.started, n.applied, n.draining, n.ttl, n.seen, n.until, ` +
			lives + ` FROM nodes n WHERE n.until >= ` + serverClock + ` - $1 ORDER BY n.name`,
			[]any{nodesKept.Microseconds()}, func(rows pgx.Rows) error {
				var n store.Node
				var ttl int64
				err := rows.Scan(&n.Name, (*[16]byte)(&n.Run), &n.Roles, &n.Version, &n.Address, micros{&n.Started}, &n.Applied,
					&n.Draining, &ttl, micros{&n.Seen}, micros{&n.Until}, &n.Alive)
				n.TTL = time.Duration(ttl) * time.Microsecond
				if len(n.Roles) == 0 {
					n.Roles = nil
				}
				r.Nodes = append(r.Nodes, n)
				return err
			}},
		{`SELECT last, ` + serverClock + ` FROM changes_head`, nil, func(rows pgx.Rows) error {
			return rows.Scan(&r.Changed, micros{&r.Now})
		}},
	}
}

// micros scans Unix microseconds into a time.
type micros struct{ t *time.Time }

// ScanInt64 is called by the driver.
func (m micros) ScanInt64(v pgtype.Int8) error {
	*m.t = time.UnixMicro(v.Int64).UTC()
	return nil
}
