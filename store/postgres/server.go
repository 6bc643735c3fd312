package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const serverFacts = `SELECT current_setting('server_version_num')::integer, current_setting('fsync'),
	current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('server_encoding'),
	pg_is_in_recovery(), current_user, r.rolsuper, r.rolbypassrls,
	to_regclass('` + versionTable + `') IS NOT NULL,
	EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()
		AND c.relname = 'messages' AND pg_has_role(c.relowner, 'MEMBER')),
	current_setting('synchronous_standby_names') = '' AND EXISTS (SELECT FROM pg_stat_replication)
	FROM pg_roles r WHERE r.rolname = current_user`

// checkServer refuses a server, a role or a schema with which the promises of the store do not hold.
func (s *Store) checkServer(ctx context.Context) error {
	conn, err := s.connection(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeoutCause(ctx, 2*s.timeout, errNoAnswer)
	defer cancel()
	var f facts
	err = conn.QueryRow(ctx, serverFacts).Scan(&f.version, &f.fsync, &f.pages, &f.commit, &f.encoding, &f.recovery, &f.user,
		&f.super, &f.bypass, &f.migrated, &f.owner, &f.lagging)
	if err == nil {
		err = f.refuse()
	}
	if err != nil {
		return withCause(ctx, err)
	}
	if f.lagging {
		s.log.Warn("the database's replicas follow asynchronously: a failover to one may lose messages that were " +
			"acknowledged, and send some twice; set synchronous_standby_names")
	}
	return s.checkSchema(ctx, conn.Conn())
}

// facts are what the server says of itself and of the engine's role.
type facts struct {
	version                 int
	fsync, pages, commit    string
	encoding, user          string
	recovery, super, bypass bool
	migrated                bool
	owner                   bool // the role owns the tables, or could take the part of who does
	lagging                 bool // a replica may lack what was acknowledged
}

// refuse says why the promises of the store would not hold, and what to do.
func (f *facts) refuse() error {
	role := fmt.Sprintf("the role %q", f.user)
	switch {
	case f.version < 140000:
		return fmt.Errorf("PostgreSQL %d is too old: 14 is needed", f.version/10000)
	case f.recovery:
		return errors.New("the server is a standby: the engine needs the primary")
	case f.fsync != "on":
		return errors.New("fsync is off: the server may lose accepted messages; set fsync = on")
	case f.pages != "on":
		return errors.New("full_page_writes is off: the server may damage its data; set full_page_writes = on")
	case f.commit != "on" && f.commit != "remote_apply":
		return fmt.Errorf("synchronous_commit is %s: the server may lose accepted messages; set it to on for %s",
			f.commit, role)
	case f.encoding != "UTF8":
		return fmt.Errorf("the database is encoded in %s: create it with ENCODING 'UTF8'", f.encoding)
	case f.super:
		return fmt.Errorf("%s is a superuser, for whom tenants are not kept apart: use a role of its own for the engine",
			role)
	case f.bypass:
		return fmt.Errorf("%s has BYPASSRLS, so that tenants are not kept apart: ALTER ROLE %s NOBYPASSRLS", role, f.user)
	case !f.migrated:
		return errors.New("the database has no schema yet: run msgctl migrate up")
	case f.owner:
		return fmt.Errorf("%s owns the tables, or is a member of the role that does, and could take down the wall "+
			"between tenants: use another role for the engine", role)
	}
	return nil
}

// wall proves that row-level security holds: without a scope nothing is seen, although every tenant has a head.
const wall = `SELECT (SELECT count(*) FROM (SELECT 1 FROM ledger_heads LIMIT 1) AS seen),
	(SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()
		AND c.relname IN ('messages', 'payloads', 'legs', 'ledger', 'ledger_heads', 'tenants', 'suppressions')
		AND c.relrowsecurity AND c.relforcerowsecurity)`

const walled = 7 // the tables that wall names

func (s *Store) checkSchema(ctx context.Context, conn *pgx.Conn) error {
	var have int64
	known, err := knownVersion()
	if err == nil {
		err = conn.QueryRow(ctx, versionOf).Scan(&have)
	}
	switch {
	case isCode(err, "42501"):
		return errors.New("the role of the engine has no rights on the tables: run msgctl migrate up with its name")
	case err != nil:
		return withCause(ctx, err)
	case have < known:
		return fmt.Errorf("the database has schema %d, this program needs %d: run msgctl migrate up", have, known)
	case have > known:
		var serves int64
		if err := conn.QueryRow(ctx, servesOf).Scan(&serves); err != nil {
			return withCause(ctx, err)
		}
		if serves > known {
			return newerError(have, known)
		}
		s.log.Info("the database has a newer schema, which this program may work with", "schema", have, "known", known)
	}
	var seen, safe int
	if err := conn.QueryRow(ctx, wall).Scan(&seen, &safe); err != nil {
		return withCause(ctx, err)
	}
	if seen > 0 || safe < walled {
		return errors.New("row-level security does not hold: a look without a scope sees rows; run msgctl migrate up, " +
			"and look for who has altered the tables")
	}
	return nil
}
