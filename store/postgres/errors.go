package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/msgctl/msgctl/store"
)

// What the database says becomes one of the errors that package store knows. The codes are those of appendix A of
// PostgreSQL's manual.
//
// A transaction whose COMMIT has not been sent is not committed, whatever else happened. Once it has been sent and no
// answer came, nobody can tell: ErrOutcomeUnknown. An ERROR is an answer; a FATAL that comes in its place is not one,
// because a server that shuts down may have committed before it says so.

// again reports errors after which the whole transaction is run anew: the database chose it to end a wait in a circle,
// or a plan is older than the schema.
func again(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "0A000" {
		return strings.Contains(pg.Message, "cached plan")
	}
	return errors.Is(err, errAgain) || isCode(err, "40001", "40P01")
}

// errAgain is for rules that find out that they have been overtaken: the transaction is rolled back and runs again.
var errAgain = errors.New("overtaken by another transaction")

// explain maps an error of the database or of the connection; sent says that a COMMIT was under way.
func explain(err error, sent bool) error {
	var pg *pgconn.PgError
	switch {
	case err == nil, errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrOutcomeUnknown):
		return err
	case errors.As(err, &pg):
		return explainCode(err, pg, sent)
	case sent:
		return fmt.Errorf("%w: the connection was lost: %w", store.ErrOutcomeUnknown, err)
	case isConnection(err):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

func explainCode(err error, pg *pgconn.PgError, sent bool) error {
	fatal := pg.Severity == "FATAL" || pg.SeverityUnlocalized == "FATAL" || pg.SeverityUnlocalized == "PANIC"
	if sent && fatal {
		return fmt.Errorf("%w: %s", store.ErrOutcomeUnknown, pg.Message)
	}
	say := func(what string) error {
		return fmt.Errorf("%w: %s: %s (%s)", store.ErrUnavailable, what, pg.Message, pg.Code)
	}
	switch pg.Code {
	case "22021":
		return fmt.Errorf("a text holds a character that cannot be stored, NUL or no UTF-8: %w", err)
	case "53100":
		return say("the disk of the database is full")
	case "53300":
		return say("the database has no connection left")
	case "53200", "53000", "53400":
		return say("the database is short of memory or locks")
	case "57P01", "57P02", "57P03", "57P05":
		return say("the database is shutting down or starting")
	case "25006":
		return say("the database is read-only")
	case "57014":
		return say("the database took too long for a statement")
	case "55P03":
		return say("the database took too long for a lock")
	case "25P03":
		return say("the transaction stood idle for too long")
	case "28000", "28P01", "3D000":
		return say("the database refuses the connection")
	case "58000", "58030", "XX000", "XX001", "XX002":
		return say("the database has trouble with its storage")
	case "40001", "40P01":
		return say("transactions kept getting in each other's way")
	}
	if strings.HasPrefix(pg.Code, "08") || fatal {
		return say("the connection to the database failed")
	}
	return err
}

// isConnection reports errors of the connection, rather than of what was asked.
func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var netError interface{ Timeout() bool }
	return errors.As(err, &connect) || errors.As(err, &netError) || pgconn.SafeToRetry(err) || pgconn.Timeout(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errNoAnswer) || isClosed(err)
}

func isClosed(err error) bool {
	text := err.Error()
	for _, s := range []string{"unexpected EOF", "conn closed", "closed pool", "connection reset", "broken pipe",
		"use of closed network connection"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// errNoAnswer is the cause of the deadline of a transaction.
var errNoAnswer = errors.New("the database did not answer in time")

// explainOpen says which database could not be opened, without its password.
func explainOpen(c *pgx.ConnConfig, err error) error {
	return fmt.Errorf("database %q at %s: %w", c.Database, c.Host, explain(err, false))
}

// parseURL reads a URL. Its error never holds the password.
func parseURL(text string) (*pgxpool.Config, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, errors.New("store: the URL of the database must look like postgres://user:password@host:5432/database")
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		var reason string
		if in := errors.Unwrap(err); in != nil {
			reason = ": " + in.Error()
		}
		if password, ok := u.User.Password(); ok && password != "" {
			reason = strings.ReplaceAll(reason, password, "xxxxx")
		}
		return nil, fmt.Errorf("store: %s cannot be used%s", u.Redacted(), reason)
	}
	if config.ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		return nil, errors.New("store: default_query_exec_mode=simple_protocol cannot be used: behind a pooler say exec")
	}
	config.ConnConfig.ConnectTimeout = connectTimeout
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "msgctl"
	}
	config.AfterConnect = registerTypes
	return config, nil
}

func hasParameter(text, name string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Query().Has(name)
}

// isCode reports an error that the database itself gave, with any of the codes if there are some.
func isCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (len(codes) == 0 || slices.Contains(codes, pg.Code))
}
