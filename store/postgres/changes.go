package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/store"
)

// The list of changes. A transaction that changes what other nodes remember writes that down as its last statement,
// just before its COMMIT: the statement draws the sequences from the one row of changes_head, and keeps that row locked
// until the commit. So sequences are given in the order of commits and none is ever missed: who has read up to a
// sequence has seen all changes up to it. The lock is held for the time of one commit and waits for nobody: whoever has
// it has every other lock that it needs.

// changesKept is how long changes are kept. Nobody who is alive is that far behind.
const changesKept = time.Hour

const writeChanges = `WITH head AS (UPDATE changes_head SET last = last + cardinality($1::text[]) WHERE one
		RETURNING last - cardinality($1::text[]) AS base)
	INSERT INTO changes (seq, kind, tenant, id, at)
	SELECT head.base + c.place, c.kind, c.tenant, c.id, ` + serverClock + `
	FROM head, unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY AS c (kind, tenant, id, place)`

// changed notes that the transaction changes something that other nodes remember. What says the same is noted once.
func (t *tx) changed(kind store.ChangeKind, tenant int64, id string) {
	var kinds, ids []string
	var tenants []int64
	i := len(t.last) - 1
	for ; i >= 0 && t.last[i].sql != writeChanges; i-- {
	}
	if i >= 0 {
		kinds, tenants, ids = t.last[i].args[0].([]string), t.last[i].args[1].([]int64), t.last[i].args[2].([]string)
		for n := range kinds {
			if kinds[n] == string(kind) && tenants[n] == tenant && ids[n] == id {
				return
			}
		}
		t.last = append(t.last[:i], t.last[i+1:]...)
	}
	t.atLast(writeChanges, append(kinds, string(kind)), append(tenants, tenant), append(ids, id))
}

// Changes lists what was changed after a sequence. A sequence that this database has not given yet is a gap as well:
// the database was put back to an earlier state.
func (s *Store) Changes(ctx context.Context, sys store.System, after int64, limit int) (out store.Changes, err error) {
	if err := checkSystem(sys); err != nil {
		return out, err
	}
	if limit < 1 {
		return out, fmt.Errorf("changes: a limit of %d", limit)
	}
	var last, cut int64
	var tenants []int64
	err = s.readVital(ctx, everyTenant,
		stmt{`SELECT last, cut FROM changes_head`, nil, into(&last, &cut)},
		stmt{`SELECT seq, kind, tenant, id FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2`, []any{after, limit},
			func(rows pgx.Rows) error {
				var c store.Change
				var tenant int64
				err := rows.Scan(&c.Seq, (*string)(&c.Kind), &tenant, &c.ID)
				out.List, tenants = append(out.List, c), append(tenants, tenant)
				return err
			}})
	if err == nil {
		err = s.slugs(ctx, tenants)
	}
	if err != nil {
		return store.Changes{}, err
	}
	for i := range out.List {
		out.List[i].Tenant = s.slug(tenants[i])
	}
	out.Gap = after < cut || after > last
	switch {
	case len(out.List) > 0:
		out.Upto = out.List[len(out.List)-1].Seq
	case after > last:
		out.Upto = last
	default:
		out.Upto = after
	}
	return out, nil
}

// trimChanges is part of a beat. It removes what is older than the given time, some at a time, but never the newest,
// and nothing at all while the list is being written to.
const trimChanges = `WITH bound AS MATERIALIZED (SELECT ` + serverClock + ` - $1 AS at),
	head AS MATERIALIZED (SELECT last FROM changes_head WHERE one
		AND EXISTS (SELECT FROM changes c, bound WHERE c.at < bound.at AND c.seq < changes_head.last)
		FOR UPDATE SKIP LOCKED),
	old AS (DELETE FROM changes WHERE seq IN (SELECT c.seq FROM changes c, head, bound WHERE c.at < bound.at
		AND c.seq < head.last ORDER BY c.seq LIMIT 5000) RETURNING seq)
	UPDATE changes_head SET cut = greatest(cut, (SELECT max(seq) FROM old)) WHERE one AND EXISTS (SELECT FROM old)`
