package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func (a *app) tailCmd() *cobra.Command {
	var (
		follow            bool
		status, onChannel []string
		after             int64
		lines             int
	)
	cmd := &cobra.Command{
		Use: "tail", Short: "Show what happens to messages", Args: a.args(),
		Example: "  msgctl tail -f --status failed --status undelivered\n  msgctl tail -f -o jsonl --after 4711",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range status {
				if err := oneOf("status", s, statuses()); err != nil {
					return err
				}
			}
			for _, s := range onChannel {
				if err := oneOf("channel", s, channels()); err != nil {
					return err
				}
			}
			if lines < 0 || after < 0 {
				return &usageError{what: "--lines and --after: must be 0 or more"}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			latest, err := c.Events.Latest(ctx)
			if err != nil {
				return err
			}
			from := after
			if !cmd.Flags().Changed("after") {
				if from, err = lastEvents(ctx, c, latest, lines); err != nil {
					return err
				}
			}
			w, err := a.writer(view{
				cols: []string{"fact.at", "message", "channel", "fact.status", "fact.connector", "fact.code"},
				wide: []string{"seq", "type", "fact.kind", "fact.attempt", "fact.detail", "fact.until"}, id: "message",
			})
			if err != nil {
				return err
			}
			w.live = true
			show := func(e sdk.Event) error {
				if len(status) > 0 && !slices.Contains(status, string(e.Fact.Status)) ||
					len(onChannel) > 0 && !slices.Contains(onChannel, string(e.Channel)) {
					return nil
				}
				return w.add(e)
			}
			for from < latest {
				p, err := c.Events.Page(ctx, from, 500, 0)
				if err != nil {
					return err
				}
				if len(p.Data) == 0 {
					break
				}
				for _, e := range p.Data {
					from = max(from, e.Seq)
					if err := show(e); err != nil {
						return err
					}
				}
			}
			if !follow {
				return nil
			}
			for {
				for e, err := range c.Events.Follow(ctx, from) {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if errors.Is(err, sdk.ErrUnavailable) { // it may be starting again: from tells where to go on
						a.say("the engine does not answer; still trying: %s", err.Error())
						break
					}
					if err != nil {
						return err
					}
					from = max(from, e.Seq)
					if err := show(e); err != nil {
						return err
					}
				}
				if err := a.sleep(ctx, 2*time.Second); err != nil {
					return err
				}
			}
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	f.StringArrayVar(&status, "status", nil, "only facts that leave a message in `STATUS`; repeat it")
	f.StringArrayVar(&onChannel, "channel", nil, "only of this `CHANNEL`; repeat it")
	f.Int64Var(&after, "after", 0, "begin after the event with this `SEQ`")
	f.IntVarP(&lines, "lines", "n", 20, "begin with the last `N` events")
	_ = cmd.RegisterFlagCompletionFunc("status", fixed(statuses()...))
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
	return a.shape(cmd, sdk.Event{})
}

// lastEvents finds where the last n events begin. Sequence numbers have gaps of any size, so it looks ever further back
// until there are enough.
func lastEvents(ctx context.Context, c *sdk.Client, latest int64, n int) (int64, error) {
	if n == 0 {
		return latest, nil
	}
	for back := int64(n); ; back *= 8 {
		after := max(latest-back, 0)
		var last []int64 // the sequence numbers of the last n, and of the one before them
		for at := after; at < latest; {
			p, err := c.Events.Page(ctx, at, 1000, 0)
			if err != nil {
				return 0, err
			}
			if len(p.Data) == 0 {
				break
			}
			for _, e := range p.Data {
				at = max(at, e.Seq)
				last = append(last, e.Seq)
			}
			last = last[max(len(last)-n-1, 0):]
		}
		switch {
		case len(last) > n:
			return last[0], nil
		case len(last) == n, after == 0:
			return after, nil
		}
	}
}
