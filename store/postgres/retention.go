package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/store"
)

// Retention removes whole partitions, oldest first: those whose messages have all ended. It needs the owner of the
// tables: the engine's role may neither drop a table nor touch what the ledger holds.
//
// Of each tenant it keeps how the removed messages had ended, and the sequence and the hash of the last row of the
// ledger that is gone: the chain goes on from there, and an audit proves everything after it. The ledger of a day is
// removed a day later than its messages, because the clocks of nodes differ: so no message names a row that is gone.
//
// A partition leaves in two transactions. The first needs every reader and writer to wait, for some milliseconds: it
// detaches the tables and writes that down in retired. The second counts and drops them, and needs nobody to wait. When
// the process stops in between, the next one goes on with the second. Between the two the tables may be archived.

// Retention says what is to be removed.
type Retention struct {
	// Before is the time before which whole days are removed: a partition goes when it ends at or before it, and when no
	// message of it has changed since.
	Before time.Time
	// Keep says the same as Before, by the database's clock: how much of the past stays. It counts when Before is zero.
	Keep time.Duration
	// DryRun changes nothing, and returns what would be removed.
	DryRun bool
	// Archive is a directory to which the tables are written before they are dropped; "" = nothing is kept of them.
	Archive string
	Log     *slog.Logger
}

// Removed is what a retention has removed.
type Removed struct {
	Before     time.Time // whole days before it
	Partitions int
	Messages   int64
	Ledger     int64 // rows of it
	// Kept says why it stopped before Before; "" = it did not.
	Kept string
}

const (
	// detachWait is how long a detachment waits for running transactions before it lets those behind it go first, and
	// detachTries how often it tries: a transaction of the engine may last some seconds.
	detachWait  = 300 * time.Millisecond
	detachPause = time.Second
	detachTries = 30
	// retainTimeout bounds a statement: the longest counts the messages of a partition.
	retainTimeout = 10 * time.Minute
	refsChunk     = 10_000
)

// Retain removes what is older than r.Before. One runs at a time: another is ErrConflict.
func Retain(ctx context.Context, ownerURL string, r Retention) (out Removed, err error) {
	config, err := parseURL(ownerURL)
	if err != nil {
		return out, err
	}
	if r.Before.IsZero() && r.Keep <= 0 {
		return out, errors.New("retention: no time before which to remove")
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if r.Archive != "" && !r.DryRun {
		if err := checkArchive(r.Archive); err != nil {
			return out, err
		}
	}
	connect := func() (*pgx.Conn, func(), error) {
		conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
		if err != nil {
			return nil, nil, explainOpen(config.ConnConfig, err)
		}
		return conn, func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
			defer cancel()
			_ = conn.Close(closing)
		}, nil
	}
	conn, end, err := connect()
	if err != nil {
		return out, err
	}
	defer end()
	if !r.DryRun {
		lock, end, err := connect()
		if err != nil {
			return out, err
		}
		defer end()
		if err := alone(ctx, lock); err != nil {
			return out, explain(err, false)
		}
	}
	if err := registerTypes(ctx, conn); err != nil {
		return out, err
	}
	k := &keeper{conn: conn, Retention: r}
	err = k.settle(ctx)
	switch {
	case err != nil:
	case r.DryRun:
		err = k.plan(ctx)
	default:
		err = k.run(ctx)
	}
	if errors.Is(err, errBusy) {
		k.out.Kept, err = err.Error(), nil
	}
	return k.out, explain(err, false)
}

// alone begins a transaction that keeps other retentions out until its connection ends. It does nothing else, so that it
// may last. A pooler that lends connections for a transaction keeps it where it is.
func alone(ctx context.Context, lock *pgx.Conn) error {
	tx, err := lock.Begin(ctx)
	if err != nil {
		return err
	}
	got := false
	if err := tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(77206, 0)
		FROM set_config('idle_in_transaction_session_timeout', '0', true)`).Scan(&got); err != nil {
		return err
	}
	if !got {
		return fmt.Errorf("retention: another one runs: %w", store.ErrConflict)
	}
	return nil
}

// keeper is a retention at work.
type keeper struct {
	Retention
	conn *pgx.Conn
	out  Removed
}

// errBusy: a partition could not be detached because somebody always used it.
var errBusy = errors.New("the tables were in use all the time: try again later")

// inTx runs f in a transaction that sees all tenants.
func (k *keeper) inTx(ctx context.Context, lockWait time.Duration, f func(pgx.Tx) error) error {
	tx, err := k.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, `SELECT set_config('msgctl.tenant', '-1', true), set_config('lock_timeout', $1, true),
		set_config('statement_timeout', $2, true), set_config('idle_in_transaction_session_timeout', '60s', true)`,
		millis(lockWait), millis(retainTimeout)); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// settle checks whose URL it is, and says before when.
func (k *keeper) settle(ctx context.Context) error {
	if err := k.checkOwner(ctx); err != nil {
		return err
	}
	if k.Before.IsZero() {
		var now int64
		if err := k.conn.QueryRow(ctx, `SELECT `+serverClock).Scan(&now); err != nil {
			return err
		}
		k.Before = time.UnixMicro(now).UTC().Add(-k.Keep)
	}
	k.out.Before = startOf(day(k.Before))
	return nil
}

func (k *keeper) run(ctx context.Context) error {
	if err := k.removeRetired(ctx); err != nil { // of a run that was stopped
		return err
	}
	if err := k.sortStrays(ctx); err != nil {
		return err
	}
	for {
		first, last, found, err := k.oldest(ctx)
		if err != nil || !found {
			return err
		}
		if startOf(last).After(k.Before) {
			return nil
		}
		if err := k.detach(ctx, first, last); err != nil || k.out.Kept != "" {
			return err
		}
		if err := k.removeRetired(ctx); err != nil {
			return err
		}
		k.out.Partitions++
		k.Log.Info("a partition of messages was removed", "first", startOf(first).Format(time.DateOnly),
			"until", startOf(last).Format(time.DateOnly))
	}
}

// checkOwner says early what is missing.
func (k *keeper) checkOwner(ctx context.Context) error {
	var owner, user string
	err := k.conn.QueryRow(ctx, `SELECT pg_get_userbyid(relowner)::text, current_user::text FROM pg_class
		WHERE oid = to_regclass('messages')`).Scan(&owner, &user)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errors.New("retention: the database holds no store yet: run msgctl migrate up")
	case err == nil && owner != user:
		return fmt.Errorf("retention: role %q does not own the tables, role %q does: use its URL", user, owner)
	}
	return err
}

// sortStrays makes partitions for the days of what lies in the default ones and is old enough to go.
func (k *keeper) sortStrays(ctx context.Context) error {
	return k.inTx(ctx, 10*detachWait, func(tx pgx.Tx) error {
		days, err := k.strays(ctx, tx)
		for i := 0; err == nil && i < len(days); i++ {
			_, err = tx.Exec(ctx, `SELECT msgctl_make_partitions($1, $2, 1)`, days[i], days[i]+1)
		}
		return err
	})
}

// strays are the days of what lies in the default partitions and is old enough to go.
func (k *keeper) strays(ctx context.Context, tx pgx.Tx) ([]int64, error) {
	rows, err := tx.Query(ctx, `SELECT ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 86400000
		FROM messages_default WHERE id < $1 UNION SELECT day FROM ledger_default WHERE day < $2 ORDER BY 1`,
		firstID(k.Before), day(k.Before))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// firstID is the lowest id of the day of t.
func firstID(t time.Time) (id [16]byte) {
	ms := uint64(day(t)) * 86_400_000
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// oldest finds the oldest partition of messages.
func (k *keeper) oldest(ctx context.Context) (first, last int64, found bool, err error) {
	err = k.conn.QueryRow(ctx, `SELECT first, last FROM msgctl_partitions('messages') ORDER BY first LIMIT 1`).
		Scan(&first, &last)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, 0, false, nil
	}
	return first, last, err == nil, err
}

// tableOf is the name of the partition of a span.
func tableOf(parent string, first, last int64) string {
	return fmt.Sprintf("%s_%s_%s", parent, startOf(first).Format("20060102"), startOf(last).Format("20060102"))
}

// spanTables are partitioned by id, all in the same spans.
var spanTables = []string{"messages", "payloads", "labels", "legs"}

func changedSince(first, updated int64) string {
	return fmt.Sprintf("a message of %s has changed at %s", startOf(first).Format(time.DateOnly),
		store.FromMillis(updated).Format(time.RFC3339))
}

func unfinishedAt(first int64) string {
	return fmt.Sprintf("messages of %s have not ended", startOf(first).Format(time.DateOnly))
}

// detach takes the span's tables out of the store, or sets out.Kept.
func (k *keeper) detach(ctx context.Context, first, last int64) error {
	name := pgx.Identifier{tableOf("messages", first, last)}.Sanitize()
	var changed *int64
	err := k.conn.QueryRow(ctx, `SELECT max(updated) FROM `+name).Scan(&changed)
	if err != nil {
		return err
	}
	if changed != nil && *changed >= store.Millis(k.Before) {
		k.out.Kept = changedSince(first, *changed)
		return nil
	}
	for range detachTries {
		err = k.inTx(ctx, detachWait, func(tx pgx.Tx) error { return k.detachIn(ctx, tx, first, last) })
		if !isCode(err, "55P03", "40P01") {
			return err
		}
		pause := time.NewTimer(detachPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		case <-pause.C:
		}
	}
	return errBusy
}

const (
	// A row of the ledger that was written by a slow clock may have an earlier day than a row before it: it goes with the
	// later one, so that what is left is the end of the chain.
	takeAlongLate = `UPDATE ledger l SET day = $1 FROM ledger_heads h,
		LATERAL (SELECT k.seq FROM ledger k WHERE k.tenant = h.tenant AND k.day >= $1 ORDER BY k.seq LIMIT 1) kept
		WHERE l.tenant = h.tenant AND l.day < $1 AND l.seq > kept.seq`

	// What is gone of each tenant's past, or will be with this partition.
	putCuts = `INSERT INTO cuts (tenant, seq, hash, day, before)
		SELECT h.tenant, coalesce(l.seq, c.seq, 0), coalesce(l.hash, c.hash, decode(repeat('00', 32), 'hex')),
			greatest($1, c.day), msgctl_first_id($2)
		FROM ledger_heads h LEFT JOIN cuts c ON c.tenant = h.tenant
		LEFT JOIN LATERAL (SELECT g.seq, g.hash FROM ledger g WHERE g.tenant = h.tenant AND g.day < $1
			ORDER BY g.seq DESC LIMIT 1) l ON true
		WHERE l.seq IS NOT NULL OR c.tenant IS NOT NULL
			OR EXISTS (SELECT FROM messages m WHERE m.tenant = h.tenant AND m.id < msgctl_first_id($2))
		ON CONFLICT (tenant) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, day = excluded.day,
			before = excluded.before`
)

func (k *keeper) detachIn(ctx context.Context, tx pgx.Tx, first, last int64) error {
	const everybodyWaits = `LOCK TABLE messages, payloads, labels, legs, ledger IN ACCESS EXCLUSIVE MODE`
	if _, err := tx.Exec(ctx, everybodyWaits); err != nil {
		return err
	}
	name := tableOf("messages", first, last)
	var unfinished bool
	// Whatever may still happen to a message by itself has a due time, and that is indexed.
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+pgx.Identifier{name}.Sanitize()+` WHERE due IS NOT NULL)`).
		Scan(&unfinished); err != nil {
		return err
	}
	if unfinished {
		k.out.Kept = unfinishedAt(first)
		return nil
	}
	tables := make([]string, 0, len(spanTables)+1)
	parents := map[string]string{}
	for _, parent := range spanTables {
		name := tableOf(parent, first, last)
		tables, parents[name] = append(tables, name), parent
	}
	rows, err := tx.Query(ctx, `SELECT name, last FROM msgctl_partitions('ledger') WHERE last < $1`, last)
	if err != nil {
		return err
	}
	cutDay := int64(0)
	for rows.Next() {
		var name string
		var until int64
		if err := rows.Scan(&name, &until); err != nil {
			return err
		}
		tables, parents[name] = append(tables, name), "ledger"
		cutDay = max(cutDay, until)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, takeAlongLate, cutDay); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, putCuts, cutDay, last); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO retired (first, last, tables) VALUES ($1, $2, $3)`, first, last,
		tables); err != nil {
		return err
	}
	for _, name := range tables {
		if _, err := tx.Exec(ctx, `ALTER TABLE `+pgx.Identifier{parents[name]}.Sanitize()+` DETACH PARTITION `+
			pgx.Identifier{name}.Sanitize()); err != nil {
			return err
		}
	}
	return nil
}

// removeRetired counts and drops what has been detached.
func (k *keeper) removeRetired(ctx context.Context) error {
	type span struct {
		first, last int64
		tables      []string
	}
	var spans []span
	err := k.inTx(ctx, retainTimeout, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT first, last, tables FROM retired ORDER BY first`)
		if err != nil {
			return err
		}
		spans, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s span, err error) {
			err = row.Scan(&s.first, &s.last, &s.tables)
			return s, err
		})
		return err
	})
	for i := 0; err == nil && i < len(spans); i++ {
		if err = k.archive(ctx, spans[i].tables); err != nil {
			return err
		}
		if err = k.removeRefs(ctx, spans[i].last); err == nil {
			err = k.inTx(ctx, retainTimeout, func(tx pgx.Tx) error {
				return k.drop(ctx, tx, spans[i].first, spans[i].tables)
			})
		}
	}
	return err
}

// removeRefs removes by which id a provider knows messages that are gone.
func (k *keeper) removeRefs(ctx context.Context, last int64) error {
	for gone := int64(refsChunk); gone == refsChunk; {
		err := k.inTx(ctx, retainTimeout, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, `DELETE FROM provider_refs WHERE ctid = ANY (ARRAY(SELECT ctid FROM provider_refs
				WHERE id < msgctl_first_id($1) LIMIT $2))`, last, refsChunk)
			gone = tag.RowsAffected()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) drop(ctx context.Context, tx pgx.Tx, first int64, tables []string) error {
	messages, ledger := int64(0), int64(0)
	for _, table := range slices.Sorted(slices.Values(tables)) {
		name := pgx.Identifier{table}.Sanitize()
		switch parent, _, _ := strings.Cut(table, "_"); parent {
		case "messages":
			tag, err := tx.Exec(ctx, `DELETE FROM dead d USING `+name+` m WHERE d.tenant = m.tenant AND d.id = m.id`)
			if err != nil {
				return err
			}
			k.Log.Debug("dead letters were removed with their messages", "count", tag.RowsAffected())
			if err := tx.QueryRow(ctx, `WITH ended AS (INSERT INTO cut_tally AS c (tenant, campaign, channel, status, n)
				SELECT tenant, coalesce(campaign, 0), channel, status, count(*) FROM `+name+`
				GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
				ON CONFLICT (tenant, campaign, channel, status) DO UPDATE SET n = c.n + excluded.n)
				SELECT count(*) FROM `+name).Scan(&messages); err != nil {
				return err
			}
		case "ledger":
			n := int64(0)
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM `+name).Scan(&n); err != nil {
				return err
			}
			ledger += n
		}
		if _, err := tx.Exec(ctx, `DROP TABLE `+name); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `DELETE FROM retired WHERE first = $1`, first); err != nil {
		return err
	}
	k.out.Messages, k.out.Ledger = k.out.Messages+messages, k.out.Ledger+ledger
	return nil
}
