package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// retryRow is a rule as a table shows it: with its number.
type retryRow struct {
	Rule int `json:"rule"`
	sdk.RetryRule
}

func (a *app) retryCmd() *cobra.Command {
	return a.group("retry", "Retries: when a failed attempt is made again",
		a.retryLs(), a.retrySet(), a.retryAdd(), a.retryRm())
}

func (a *app) showRetries(rules []sdk.RetryRule) error {
	if a.plain() {
		return list(a, view{}, rules)
	}
	rows := make([]retryRow, len(rules))
	for i, r := range rules {
		rows[i] = retryRow{Rule: i + 1, RetryRule: r}
	}
	return list(a, retryView(), rows)
}

func retryView() view {
	return view{
		cols: []string{"rule", "channel", "class", "delays", "give_up_after"}, id: "rule",
		none: "no rules: the engine's own schedule is in force",
	}
}

func (a *app) retryLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the rules, in the order in which they are asked", Args: a.args(),
		Example: "  msgctl retry ls\n  msgctl retry ls -o yaml > retries.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Retries.List(cmd.Context())
			if err != nil {
				return err
			}
			return a.showRetries(rules)
		},
	}
	return a.shape(cmd, retryRow{})
}

func (a *app) retrySet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Replace all rules by those of a file", Args: a.args("FILE"),
		Long: "Replace all rules by those of a YAML or JSON file; - is stdin. The first rule\n" +
			"that matches counts, and its last delay repeats. An empty list, [], leaves it to\n" +
			"the engine's own schedule.\n\n" +
			"  - channel: sms\n" +
			"    class: transient          # or ambiguous: an attempt without an answer\n" +
			"    delays: [5s, 30s, 5m]\n" +
			"    give_up_after: 6h         # then it ends as failed; else when it expires",
		Example: "  msgctl retry set retries.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, rules, err := readRules[sdk.RetryRule](a, "retry", args[0])
			if err != nil {
				return err
			}
			return a.putRetries(cmd, f, rules)
		},
	}
	return a.shape(cmd, retryRow{})
}

// putRetries replaces all rules and shows those then in force.
func (a *app) putRetries(cmd *cobra.Command, f *rulesFile, rules []sdk.RetryRule) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if rules, err = c.Retries.Set(cmd.Context(), rules); err != nil {
		return f.refused(err)
	}
	a.say("%s in force", count(len(rules), "rule"))
	return a.showRetries(rules)
}

func (a *app) retryAdd() *cobra.Command {
	var (
		r               sdk.RetryRule
		channel, giveUp string
		delays          []string
		at              int
	)
	cmd := &cobra.Command{
		Use: "add --delays D,…", Short: "Add a rule", Args: a.args(),
		Long: "Add a rule: how long a message waits after its first, second, third … failed\n" +
			"attempt. The last delay repeats until the message expires, or is given up.",
		Example: "  msgctl retry add --channel sms --delays 5s,30s,5m --give-up-after 6h\n" +
			"  msgctl retry add --class ambiguous --delays 10m --at 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filled(cmd, "channel", "class", "give-up-after"); err != nil {
				return err
			}
			if err := checkChannel(channel); err != nil {
				return err
			}
			r.Channel = sdk.Channel(channel)
			if r.Class != "" {
				if err := oneOf("class", r.Class, []string{"transient", "ambiguous"}); err != nil {
					return err
				}
			}
			if len(delays) == 0 {
				return &usageError{what: "--delays is missing", fix: "such as --delays 5s,30s,5m"}
			}
			for _, s := range delays {
				d, err := delay("--delays", strings.TrimSpace(s))
				if err != nil {
					return err
				}
				r.Delays = append(r.Delays, d)
			}
			var err error
			if giveUp != "" {
				if r.GiveUpAfter, err = delay("--give-up-after", giveUp); err != nil {
					return err
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Retries.List(cmd.Context())
			if err != nil {
				return err
			}
			if rules, err = place(rules, r, at); err != nil {
				return err
			}
			return a.putRetries(cmd, nil, rules)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&channel, "channel", "", "only messages on this `CHANNEL`")
	f.StringVar(&r.Class, "class", "", "only after this `CLASS` of failure: transient or ambiguous")
	f.StringSliceVar(&delays, "delays", nil, "wait so long, `D,…`; the last one repeats")
	f.StringVar(&giveUp, "give-up-after", "", "end as failed `D` after it was accepted")
	f.IntVar(&at, "at", 0, "as rule `N`; default the last")
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
	_ = cmd.RegisterFlagCompletionFunc("class", fixed("transient", "ambiguous"))
	return a.shape(cmd, retryRow{})
}

// delay reads a duration above 0, days included, into the form of the API.
func delay(flag, s string) (string, error) {
	d, err := duration(s)
	if err != nil || d <= 0 {
		return "", &usageError{what: fmt.Sprintf("%s: %q is no duration above 0", flag, s), fix: "such as 30s, 5m, 6h or 2d"}
	}
	return durationText(d), nil
}

// durationText writes 6h0m0s as 6h.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (a *app) retryRm() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm N…", Short: "Remove rules, by their numbers in ls", Args: a.args("N…"),
		Example: "  msgctl retry rm 1", ValidArgsFunction: numbersOnly,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Retries.List(cmd.Context())
			if err != nil {
				return err
			}
			stay, gone, err := rulesWithout("retry", rules, args)
			if err != nil {
				return err
			}
			texts := make([]string, len(gone))
			for i, r := range gone {
				texts[i] = retryText(r)
			}
			if err := a.confirm("Remove " + strings.Join(texts, "; ") + "?"); err != nil {
				return err
			}
			return a.putRetries(cmd, nil, stay)
		},
	}
	return a.shape(cmd, retryRow{})
}

// retryText names a rule: "sms transient: 5s, 30s".
func retryText(r sdk.RetryRule) string {
	when := strings.TrimSpace(string(r.Channel) + " " + r.Class)
	if when == "" {
		when = "everything"
	}
	return clean(when + ": " + strings.Join(r.Delays, ", "))
}
