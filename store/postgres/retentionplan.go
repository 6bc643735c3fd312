package postgres

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/store"
)

// days is a part of the past, in days since 1970: from first until before last.
type days struct{ first, last int64 }

// plan counts what a run would remove, without a lock that anybody waits for. What an earlier run has detached already,
// and not yet dropped, is not among it.
func (k *keeper) plan(ctx context.Context) error {
	return k.inTx(ctx, 10*detachWait, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET TRANSACTION READ ONLY`); err != nil {
			return err
		}
		spans, err := k.spans(ctx, tx, "messages")
		if err != nil {
			return err
		}
		until := int64(0)
		for _, s := range spans {
			if startOf(s.last).After(k.Before) {
				break
			}
			var messages int64
			var updated *int64
			var unfinished bool
			if err := tx.QueryRow(ctx, `SELECT count(*), max(updated), coalesce(bool_or(due IS NOT NULL), false)
				FROM messages WHERE id >= $1 AND id < $2`, firstID(startOf(s.first)), firstID(startOf(s.last))).
				Scan(&messages, &updated, &unfinished); err != nil {
				return err
			}
			switch {
			case updated != nil && *updated >= store.Millis(k.Before):
				k.out.Kept = changedSince(s.first, *updated)
			case unfinished:
				k.out.Kept = unfinishedAt(s.first)
			}
			if k.out.Kept != "" {
				break
			}
			k.out.Partitions, k.out.Messages, until = k.out.Partitions+1, k.out.Messages+messages, s.last
		}
		spans, err = k.spans(ctx, tx, "ledger")
		for i := 0; err == nil && i < len(spans) && spans[i].last < until; i++ {
			var rows int64
			err = tx.QueryRow(ctx, `SELECT count(*) FROM ledger WHERE day >= $1 AND day < $2`, spans[i].first,
				spans[i].last).Scan(&rows)
			k.out.Ledger += rows
		}
		return err
	})
}

// spans are the partitions of a table, oldest first, with those that a run would make first.
func (k *keeper) spans(ctx context.Context, tx pgx.Tx, parent string) ([]days, error) {
	rows, err := tx.Query(ctx, `SELECT first, last FROM msgctl_partitions($1)`, parent)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s days, err error) {
		err = row.Scan(&s.first, &s.last)
		return s, err
	})
	if err != nil {
		return nil, err
	}
	strays, err := k.strays(ctx, tx)
	for _, day := range strays { // of one table, while the other has a partition for that day
		if !slices.ContainsFunc(list, func(s days) bool { return s.first <= day && day < s.last }) {
			list = append(list, days{day, day + 1})
		}
	}
	slices.SortFunc(list, func(a, b days) int { return cmp.Compare(a.first, b.first) })
	return list, err
}
