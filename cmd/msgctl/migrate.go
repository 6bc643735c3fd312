package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/engine"
)

func (a *app) migrateCmd() *cobra.Command {
	return a.group("migrate", "Migrate: the schema of a shared store; to a cluster",
		a.migrateUp(), a.migrateStatus(), a.migrateToCluster())
}

// storeFlag is the flag of the store's URL, which has a password most of the time: the environment keeps it out of the
// list of processes.
func storeFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "store", "", "the `URL` of the store, postgres://owner@host/database; better in MSGCTL_STORE")
}

// storeURL is what --store or MSGCTL_STORE says.
func (a *app) storeURL(flag string) (string, error) {
	if flag == "" {
		flag = a.env("MSGCTL_STORE")
	}
	if flag == "" {
		return "", &usageError{what: "no store is named", fix: "--store postgres://user@host/database, or MSGCTL_STORE"}
	}
	return flag, nil
}

// storeError gives what the store says its exit code.
func storeError(err error) error {
	var bad *fs.PathError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case engine.Unavailable(err):
		return &outcomeError{code: exitUnreachable, what: err.Error(), fix: "see that the database is there and reachable"}
	case engine.InUse(err):
		return &outcomeError{code: exitConflict, what: err.Error()}
	case errors.As(err, &bad), strings.HasPrefix(err.Error(), "configuration: "):
		return &usageError{what: strings.TrimPrefix(err.Error(), "configuration: ")}
	}
	return err
}

// storeLog shows what the store does with -v.
func (a *app) storeLog() *slog.Logger {
	if !a.flags.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.err, nil))
}

func (a *app) migrateUp() *cobra.Command {
	var store, role string
	cmd := &cobra.Command{
		Use: "up", Short: "Bring the schema of a shared store up to this version", Args: a.args(),
		Long: "Bring the schema of a PostgreSQL database up to this version, as the role that\n" +
			"owns it. It only goes forward, and any number may run it at once. Engines work\n" +
			"as another role, which owns nothing: name it with --app-role, and it gets its\n" +
			"rights.",
		Example: "  MSGCTL_STORE=postgres://owner@db/msgctl msgctl migrate up --app-role msgctl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := a.storeURL(store)
			if err != nil {
				return err
			}
			if err := engine.Migrate(cmd.Context(), url, role, a.storeLog()); err != nil {
				return storeError(err)
			}
			s, err := engine.MigrationStatus(cmd.Context(), url)
			if err != nil {
				return storeError(err)
			}
			a.say("the schema has version %d", s.Have)
			return nil
		},
	}
	storeFlag(cmd, &store)
	cmd.Flags().StringVar(&role, "app-role", "", "the `ROLE` that the engines work as")
	return cmd
}

func (a *app) migrateStatus() *cobra.Command {
	var store string
	cmd := &cobra.Command{
		Use: "status", Short: "Show where the schema is; exit 9 if this version needs a newer one", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := a.storeURL(store)
			if err != nil {
				return err
			}
			s, err := engine.MigrationStatus(cmd.Context(), url)
			if err != nil {
				return storeError(err)
			}
			if err := a.object(view{cols: []string{"have", "known", "pending"}, id: "have"}, s); err != nil {
				return err
			}
			switch {
			case s.Have < s.Known:
				return &outcomeError{code: exitUnmet, what: fmt.Sprintf("the schema has version %d, and this program needs %d",
					s.Have, s.Known), fix: "msgctl migrate up"}
			case s.Have > s.Known:
				return &outcomeError{code: exitUnmet, what: fmt.Sprintf("the schema has version %d, and this program knows %d",
					s.Have, s.Known), fix: "use a newer msgctl"}
			}
			return nil
		},
	}
	storeFlag(cmd, &store)
	return a.shape(cmd, engine.SchemaStatus{})
}

func (a *app) migrateToCluster() *cobra.Command {
	var store, dir string
	cmd := &cobra.Command{
		Use: "to-cluster", Short: "Copy the store of one engine into a shared store", Args: a.args(),
		Long: "Copy everything of an engine's directory into an empty PostgreSQL database whose\n" +
			"schema is there: messages, history, tenants, keys, campaigns. Stop the engine\n" +
			"first, with SIGTERM. The directory stays as it is; never start an engine on its\n" +
			"database again, or messages are sent twice. Its master.key goes to every node.",
		Example: "  export MSGCTL_STORE=postgres://msgctl@db/msgctl\n" +
			"  msgctl migrate to-cluster --dir ./data",
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := a.storeURL(store)
			if err != nil {
				return err
			}
			last := ""
			got, err := engine.ToCluster(cmd.Context(), dir, url, a.storeLog(), func(table string, done, total int64) {
				if table != last && table != "" {
					a.say("copying %s (%d of %d rows)", table, done, total)
				}
				if table != last && table == "" {
					a.say("comparing")
				}
				last = table
			})
			if err != nil {
				return storeError(err)
			}
			if err := a.object(view{cols: []string{"tenants", "messages", "facts"}, id: "messages"}, got); err != nil {
				return err
			}
			a.say("copy %s/master.key to every node; do not start an engine on this database again", dir)
			return nil
		},
	}
	storeFlag(cmd, &store)
	cmd.Flags().StringVar(&dir, "dir", "./data", "the `DIR` of the engine")
	return a.shape(cmd, engine.Transferred{})
}
