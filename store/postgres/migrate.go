package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// The schema. The files schema/0001_*.sql, 0002_*.sql … are its versions; the table schema_version says which ran.
// They only go forward. The owner of the tables runs them; the engine works as a role that owns nothing, because an owner
// could take down the wall between tenants.
//
// A rolling upgrade migrates first: the nodes of the release before then work with a schema that is newer than they are,
// and must be able to start again. The table schema_serves says of which version a program may be at the oldest. A
// migration that takes away what the release before uses must raise it, which is for a release after the one that has
// stopped using it.

//go:embed schema/*.sql
var schemaFiles embed.FS

const versionTable = "schema_version"

// MigrateOptions says how to migrate.
type MigrateOptions struct {
	// URL is that of the owner of the tables, who need not be a superuser.
	URL string
	// Role is the role that the engine works as; "" = the owner's user name is refused by Open, so it must be given
	// unless the engine's rights have been granted before.
	Role string
	Log  *slog.Logger // nil = no log
}

// Migrate brings the schema up to what this program knows, and grants the engine's role its rights. Any number of
// processes may do it at the same time: one does, the others wait.
func Migrate(ctx context.Context, o MigrateOptions) error {
	config, err := parseURL(o.URL)
	if err != nil {
		return err
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// What a migration sets or prepares must not meet a pooler's other clients.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	db := stdlib.OpenDB(*config.ConnConfig)
	defer db.Close()
	if err := migrate(ctx, db, o.Role, log); err != nil {
		return explainOpen(config.ConnConfig, err)
	}
	return nil
}

func migrate(ctx context.Context, db *sql.DB, role string, log *slog.Logger) error {
	lock, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Rollback() }() // ends the lock
	if _, err := lock.ExecContext(ctx, `SELECT pg_advisory_xact_lock(77200, 1)`); err != nil {
		return err
	}
	var superuser, recovery bool
	var user string
	if err := lock.QueryRowContext(ctx, `SELECT current_user, rolsuper, pg_is_in_recovery() FROM pg_roles
		WHERE rolname = current_user`).Scan(&user, &superuser, &recovery); err != nil {
		return err
	}
	switch {
	case recovery:
		return errors.New("the server is a standby: migrate on the primary")
	case role == user:
		return fmt.Errorf("the engine must not work as %q, which owns the tables: give it a role of its own", role)
	}
	known, have, err := versions(ctx, db)
	if err != nil {
		return err
	}
	if have > known { // even if this program may work with it: to migrate is for the newest
		return newerError(have, known)
	}
	provider, err := newProvider(db)
	if err != nil {
		return err
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range done {
		log.Info("schema migrated", "version", m.Source.Version, "took", m.Duration.Round(time.Millisecond).String())
	}
	if role == "" {
		return nil
	}
	return grant(ctx, db, role)
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
}

// knownVersion is the newest version that this program knows.
func knownVersion() (int64, error) {
	files, err := schemaFiles.ReadDir("schema")
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, errors.New("the program has no schema"))
	}
	number, _, _ := strings.Cut(files[len(files)-1].Name(), "_")
	return strconv.ParseInt(number, 10, 64)
}

const (
	hasVersions = `SELECT to_regclass('` + versionTable + `') IS NOT NULL`
	versionOf   = `SELECT coalesce(max(version_id), 0) FROM ` + versionTable + ` WHERE is_applied`
	// servesOf is the oldest version of which a program may work with the schema.
	servesOf = `SELECT version FROM schema_serves`
)

// versions are the newest version that this program knows, and the one that the database has; 0 = none.
func versions(ctx context.Context, db *sql.DB) (known, have int64, err error) {
	if known, err = knownVersion(); err != nil {
		return 0, 0, err
	}
	var there bool
	if err := db.QueryRowContext(ctx, hasVersions).Scan(&there); err != nil || !there {
		return known, 0, err
	}
	err = db.QueryRowContext(ctx, versionOf).Scan(&have)
	return known, have, err
}

func newerError(have, known int64) error {
	return fmt.Errorf("the database has schema %d, this program knows up to %d: use a newer msgctl", have, known)
}

// grant lets the engine's role work with the tables, and never change them. Partitions are reached through their
// parents. History is only added to: to change or remove it takes the owner.
func grant(ctx context.Context, db *sql.DB, role string) error {
	const tables = `SELECT format('GRANT %s ON %I.%I TO %I', CASE
			WHEN c.relname = 'ledger' THEN 'SELECT, INSERT'
			WHEN c.relname IN ('cuts', 'cut_tally', 'retired', 'schema_serves') THEN 'SELECT'
			ELSE 'SELECT, INSERT, UPDATE, DELETE' END, n.nspname, c.relname, $1::text)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relowner = (SELECT oid FROM pg_roles
			WHERE rolname = current_user) AND n.nspname = current_schema() AND c.relname <> '` + versionTable + `'
		UNION ALL SELECT format('GRANT USAGE ON SEQUENCE %I.%I TO %I', n.nspname, c.relname, $1::text)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'S' AND n.nspname = current_schema() AND c.relname <> '` + versionTable + `_id_seq'
		UNION ALL SELECT format('GRANT SELECT ON ` + versionTable + ` TO %I', $1::text)
		UNION ALL SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, $1::text)
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname = current_schema() AND p.proname LIKE 'msgctl\_%'
		UNION ALL SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), $1::text)`
	rows, err := db.QueryContext(ctx, tables, role)
	if err != nil {
		return err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var g string
		if err := rows.Scan(&g); err != nil {
			return err
		}
		list = append(list, g)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, g := range list {
		if _, err := db.ExecContext(ctx, g); err != nil {
			return fmt.Errorf("grant to role %q: %w", role, err)
		}
	}
	return nil
}

// SchemaStatus is where the schema of a database is.
type SchemaStatus struct {
	Known, Have int64 // newest version that this program knows, and the one of the database; 0 = none
	Pending     []string
}

// Status says where the schema is. It writes nothing.
func Status(ctx context.Context, url string) (out SchemaStatus, err error) {
	config, err := parseURL(url)
	if err != nil {
		return out, err
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	db := stdlib.OpenDB(*config.ConnConfig)
	defer db.Close()
	if out.Known, out.Have, err = versions(ctx, db); err != nil {
		return out, explainOpen(config.ConnConfig, err)
	}
	files, err := schemaFiles.ReadDir("schema")
	for _, f := range files {
		number, _, _ := strings.Cut(f.Name(), "_")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil && n > out.Have {
			out.Pending = append(out.Pending, f.Name())
		}
	}
	return out, err
}
