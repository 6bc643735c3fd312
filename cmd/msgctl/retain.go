package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/engine"
)

func (a *app) retainCmd() *cobra.Command {
	var store, keep, archive string
	var dry bool
	cmd := &cobra.Command{
		Use: "retain", Short: "Remove old messages from a shared store, for good", Args: a.args(),
		Long: "Remove messages and their history from a PostgreSQL store, as the role that owns\n" +
			"it, while the nodes run: whole days, oldest first, once every message of a day\n" +
			"has ended and none has changed since. Time is the database's. How many there\n" +
			"were, and how they ended, stays known; msgctl audit verify proves the rest. It\n" +
			"stops at the first day that must stay, says why, and exits with 8.\n\n" +
			"With --archive each table is written to a file of its own before it goes:\n" +
			"compressed CSV with a head line, for COPY into any PostgreSQL or for a\n" +
			"warehouse. The files hold addresses and texts.",
		Example: "  export MSGCTL_STORE=postgres://owner@db/msgctl\n" +
			"  msgctl retain --keep 90d --dry-run\n" +
			"  msgctl retain --keep 90d --archive /backup/msgctl --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			url, err := a.storeURL(store)
			if err != nil {
				return err
			}
			if keep == "" {
				return &usageError{what: "it is not said how much of the past to keep", fix: "--keep 90d"}
			}
			span, err := duration(keep)
			if err != nil || span < engine.MinKeep {
				return &usageError{what: fmt.Sprintf("--keep %q is no time of a day or more", keep), fix: "--keep 90d"}
			}
			o := engine.RetainOptions{Keep: span, DryRun: true, Archive: archive, Log: a.storeLog()}
			if !dry {
				plan, err := engine.Retain(cmd.Context(), url, o)
				if err != nil {
					return storeError(err)
				}
				if plan.Messages > 0 {
					if err := a.confirm(fmt.Sprintf("Remove %s from before %s for good?", count(int(plan.Messages), "message"),
						plan.Before.Format("2006-01-02"))); err != nil {
						return err
					}
				}
			}
			o.DryRun = dry
			got, err := engine.Retain(cmd.Context(), url, o)
			if err != nil {
				return storeError(err)
			}
			if err := a.object(view{cols: []string{"before", "partitions", "messages", "ledger", "kept"}, id: "messages"},
				got); err != nil {
				return err
			}
			if got.Kept != "" {
				return &outcomeError{code: exitPartly, what: "the rest was kept: " + got.Kept,
					fix: "later the same command goes on; a message that never ends: msgctl message cancel"}
			}
			return nil
		},
	}
	storeFlag(cmd, &store)
	cmd.Flags().StringVar(&keep, "keep", "", "keep this `TIME` of the past, at least 1d")
	cmd.Flags().StringVar(&archive, "archive", "", "write what goes to files in this `DIR` first")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "remove nothing, and count what would be removed")
	return a.shape(cmd, engine.Retained{})
}
