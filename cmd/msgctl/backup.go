package main

import (
	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

func (a *app) backupCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "backup [FILE]", Short: "Copy the database of an embedded engine, while it runs or not", Args: a.args("[FILE]"),
		Long: "Ask the engine for a copy of its database, while everything goes on: it puts a\n" +
			"new file into its directory, under backups/, and this command prints where. With\n" +
			"--dir it copies the database of an engine that does not run into FILE.\n\n" +
			"The master key (master.key) is not part of it: keep a copy somewhere else. A\n" +
			"shared store is backed up with the tools of PostgreSQL.",
		Example: "  msgctl backup\n  msgctl backup --dir ./data /backups/monday.db",
		RunE: func(cmd *cobra.Command, args []string) error {
			v := view{cols: []string{"path", "bytes", "messages", "taken"}, id: "path"}
			if dir == "" {
				if len(args) > 0 {
					return &usageError{what: "a running engine names the file itself", fix: "leave FILE out, or give --dir"}
				}
				c, err := a.client()
				if err != nil {
					return err
				}
				b, err := c.Backup(cmd.Context())
				if err != nil {
					return err
				}
				return a.object(v, b)
			}
			if len(args) == 0 {
				return &usageError{what: "FILE is missing", fix: "msgctl backup --dir DIR FILE"}
			}
			b, err := engine.Backup(cmd.Context(), dir, args[0], a.storeLog())
			if engine.InUse(err) {
				return &outcomeError{code: exitConflict, what: err.Error(), fix: "without --dir the running engine makes the backup"}
			}
			if err != nil {
				return storeError(err)
			}
			return a.object(v, b)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "the `DIR` of an engine that does not run")
	return a.shape(cmd, sdk.Backup{})
}

func (a *app) restoreCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the database of an embedded engine from a backup", Args: a.args("FILE"),
		Long: "Make the database of a directory that has none from a backup. What waited in the\n" +
			"backup and had its time since may have been sent: it comes back in doubt, and\n" +
			"the policies of the tenants decide. Campaigns that were being expanded are\n" +
			"paused. Put the engine's master.key beside the database before it starts.",
		Example: "  msgctl restore /backups/monday.db --dir ./data",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := engine.Restore(cmd.Context(), args[0], dir, a.storeLog())
			if err != nil {
				return storeError(err)
			}
			return a.object(view{cols: []string{"messages", "in_doubt", "marked", "unknown", "paused"}, id: "messages"}, r)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "./data", "the `DIR` of the engine")
	return a.shape(cmd, engine.Restored{})
}
