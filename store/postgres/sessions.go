package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	// lockSessions lets one transaction at a time look at the sessions of an account.
	lockSessions = `SELECT pg_advisory_xact_lock(77205, hashtext($1::uuid::text))`

	runLives = `SELECT true FROM nodes n WHERE n.name = $1 AND n.run = $2 AND ` + lives

	endDeadSessions = `DELETE FROM sessions s WHERE s.account = $1 AND NOT EXISTS (SELECT FROM nodes n
		WHERE n.name = s.name AND n.run = s.run AND ` + lives + `) RETURNING true`

	beginSession = `INSERT INTO sessions (account, name, run, since)
		SELECT $1::uuid, $2::text, $3::uuid, ` + serverClock + `
		WHERE (SELECT count(*) FROM sessions s WHERE s.account = $1) < $4::bigint ON CONFLICT DO NOTHING RETURNING true`

	// The older sessions stay when there are too many of them.
	hasSession = `SELECT count(*) FILTER (WHERE (s.since, s.name) < (m.since, m.name)) < $3::bigint
		FROM sessions m JOIN sessions s ON s.account = m.account WHERE m.account = $1 AND m.name = $2 GROUP BY m.account`

	endSession = `DELETE FROM sessions WHERE account = $1 AND name = $2 AND run = $3`
)

// Session asks for a session, or renews it. Renewing writes nothing.
func (s *Store) Session(
	ctx context.Context, sys store.System, account delivery.AccountID, name string, run store.RunID, max int,
) (bool, error) {
	if err := checkSystem(sys); err != nil {
		return false, err
	}
	a, r := [16]byte(account), [16]byte(run)
	return write(ctx, s, everyTenant, need{vital: true}, func(t *tx) (bool, error) {
		var alive, has bool
		wrote := func(pgx.Rows) error { t.wrote = true; return nil }
		err := t.trip(
			stmt{lockSessions, []any{a}, nil},
			stmt{runLives, []any{name, r}, into(&alive)},
			stmt{endDeadSessions, []any{a}, wrote},
			stmt{beginSession, []any{a, name, r, max}, wrote},
			stmt{hasSession, []any{a, name, max}, into(&has)},
		)
		switch {
		case err != nil:
			return false, err
		case !alive:
			return false, fmt.Errorf("session of node %q: this run does not live: %w", name, store.ErrConflict)
		case !has:
			t.later(endSession, a, name, r)
		}
		return has, nil
	})
}

// EndSession gives a session back.
func (s *Store) EndSession(
	ctx context.Context, sys store.System, account delivery.AccountID, name string, run store.RunID,
) error {
	if err := checkSystem(sys); err != nil {
		return err
	}
	_, err := write(ctx, s, everyTenant, need{vital: true}, func(t *tx) (none struct{}, err error) {
		t.later(endSession, [16]byte(account), name, [16]byte(run))
		return none, nil
	})
	return err
}
