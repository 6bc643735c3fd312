package postgres

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/store"
)

func TestServersThatAreRefused(t *testing.T) {
	good := facts{version: 150004, fsync: "on", pages: "on", commit: "on", encoding: "UTF8", user: "engine", migrated: true}
	require.NoError(t, good.refuse())
	for says, change := range map[string]func(*facts){
		"PostgreSQL 13 is too old":         func(f *facts) { f.version = 130014 },
		"is a standby":                     func(f *facts) { f.recovery = true },
		"fsync is off":                     func(f *facts) { f.fsync = "off" },
		"full_page_writes is off":          func(f *facts) { f.pages = "off" },
		"synchronous_commit is local":      func(f *facts) { f.commit = "local" },
		"encoded in LATIN1":                func(f *facts) { f.encoding = "LATIN1" },
		`role "engine" is a superuser`:     func(f *facts) { f.super = true },
		"ALTER ROLE engine NOBYPASSRLS":    func(f *facts) { f.bypass = true },
		"run msgctl migrate up":            func(f *facts) { f.migrated = false },
		`role "engine" owns the tables`:    func(f *facts) { f.owner = true },
		"may lose accepted messages; set ": func(f *facts) { f.commit = "off" },
	} {
		f := good
		change(&f)
		require.ErrorContains(t, f.refuse(), says)
	}
	good.commit = "remote_apply"
	require.NoError(t, good.refuse())
}

// What the database or the connection says becomes an error that callers know.
func TestExplain(t *testing.T) {
	server := func(code, severity string) error {
		return fmt.Errorf("batch: %w", &pgconn.PgError{Code: code, Severity: severity, SeverityUnlocalized: severity,
			Message: "so it is"})
	}
	for _, c := range []struct {
		err  error
		sent bool // a COMMIT was under way
		want error
	}{
		{server("53100", "ERROR"), false, store.ErrUnavailable},
		{server("53100", "ERROR"), true, store.ErrUnavailable}, // the server says that it did not commit
		{server("53300", "FATAL"), false, store.ErrUnavailable},
		{server("57P01", "FATAL"), false, store.ErrUnavailable},
		{server("57P01", "FATAL"), true, store.ErrOutcomeUnknown},
		{server("57P03", "FATAL"), false, store.ErrUnavailable},
		{server("25006", "ERROR"), false, store.ErrUnavailable},
		{server("55P03", "ERROR"), false, store.ErrUnavailable},
		{server("57014", "ERROR"), false, store.ErrUnavailable},
		{server("57014", "ERROR"), true, store.ErrUnavailable},
		{server("40P01", "ERROR"), false, store.ErrUnavailable},
		{server("25P03", "FATAL"), false, store.ErrUnavailable},
		{server("XX000", "PANIC"), true, store.ErrOutcomeUnknown},
		{io.ErrUnexpectedEOF, false, store.ErrUnavailable},
		{io.ErrUnexpectedEOF, true, store.ErrOutcomeUnknown},
		{errNoAnswer, false, store.ErrUnavailable},
		{errNoAnswer, true, store.ErrOutcomeUnknown},
	} {
		got := explain(c.err, c.sent)
		require.ErrorIs(t, got, c.want, "%v", c)
		other := store.ErrOutcomeUnknown
		if errors.Is(c.want, other) {
			other = store.ErrUnavailable
		}
		require.NotErrorIs(t, got, other, "%v", c)
	}
	for _, code := range []string{"23505", "42501", "22021", "42601"} { // a mistake of ours, or a rule: not the storage
		require.NotErrorIs(t, explain(server(code, "ERROR"), false), store.ErrUnavailable)
	}
	require.True(t, again(server("40001", "ERROR")))
	require.True(t, again(server("40P01", "ERROR")))
	require.False(t, again(server("23505", "ERROR")))
	require.True(t, again(&pgconn.PgError{Code: "0A000", Message: "cached plan must not change result type"}))
	require.False(t, again(&pgconn.PgError{Code: "0A000", Message: "not supported"}))
}
