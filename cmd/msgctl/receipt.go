package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func receiptView() view {
	return view{
		cols: []string{"connector", "provider_id", "status", "code", "since", "until"}, wide: []string{"detail", "at"},
		id: "provider_id", none: "no receipts wait for a message",
	}
}

func (a *app) receiptCmd() *cobra.Command {
	return a.group("receipt", "Receipts: what providers reported", a.receiptUnmatched())
}

func (a *app) receiptUnmatched() *cobra.Command {
	var (
		limit int
		every bool
	)
	cmd := &cobra.Command{
		Use: "unmatched", Short: "List reports for which no message is known yet", Args: a.args(),
		Long: "List reports for which no message is known yet. A report can come before the\n" +
			"answer to the hand-off that it is about; it waits until its message is known.\n" +
			"Reports that stay here are of messages that were sent past this engine with the\n" +
			"same account, or of a callback URL that two engines share.",
		Example: "  msgctl receipt unmatched\n  msgctl receipt unmatched --all -o csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return &usageError{what: fmt.Sprintf("--limit %d: at least 1", limit)}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			w, err := a.writer(receiptView())
			if err != nil {
				return err
			}
			n := 0
			for r, err := range c.Receipts.Unmatched(cmd.Context()) {
				if err != nil {
					return err
				}
				if n == limit && !every {
					a.say("there are more: --limit N or --all")
					break
				}
				n++
				if err := w.add(r); err != nil {
					return err
				}
			}
			return w.end()
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "at most `N`")
	cmd.Flags().BoolVar(&every, "all", false, "all there are")
	return a.shape(cmd, sdk.UnmatchedReceipt{})
}
