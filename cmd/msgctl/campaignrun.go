package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// actFunc is a method of Campaigns that moves one to another state.
type actFunc func(s sdk.Campaigns, ctx context.Context, name string) (*sdk.Campaign, error)

func (a *app) campaignStart() *cobra.Command {
	var (
		wait    bool
		dryRun  bool
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "start NAME", Short: "Check, ask, send, and follow until it is done", Args: a.args("NAME"),
		Long: "Check a campaign, ask for its name, send it, and follow it until it is done.\n\n" +
			"On a terminal the command stays; elsewhere it does with --wait. Ctrl-C ends the\n" +
			"command and leaves the campaign running in the engine.",
		ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			c, err := a.client()
			if err != nil {
				return err
			}
			k, err := c.Campaigns.Check(cmd.Context(), name)
			if err != nil {
				return err
			}
			a.sayText(a.checkText(k))
			if err := checkProblems(k); err != nil {
				return err
			}
			if dryRun {
				return nil
			}
			if err := a.confirmName(name, k); err != nil {
				return err
			}
			started, err := c.Campaigns.Start(cmd.Context(), name)
			if isConflict(err) {
				return fmt.Errorf("it cannot start: %w", err)
			}
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("wait") {
				wait = a.errTTY
			}
			if !wait {
				a.say("it is running; follow it: msgctl campaign watch %s", name)
				return a.object(campaignView(), started)
			}
			return a.follow(cmd.Context(), c, name, timeout)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "stay until it is done; default on a terminal")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --wait: stay for `D` at most; default without end")
	return a.shape(cmd, sdk.CampaignReport{})
}

// sayText writes prepared lines to stderr, unless -q.
func (a *app) sayText(s string) {
	if !a.flags.quiet {
		_, _ = fmt.Fprint(a.err, s)
	}
}

// confirmName asks to type the campaign's name: a yes comes too easily.
func (a *app) confirmName(name string, k *sdk.CampaignCheck) error {
	if a.flags.yes {
		return nil
	}
	answer, err := a.ask(fmt.Sprintf("Send %q to %s people?  Type the campaign's name: ", clean(name), thousands(k.People)))
	if err != nil {
		return err
	}
	if answer != name {
		return &usageError{what: fmt.Sprintf("%q is not the campaign's name: nothing was sent", clean(answer))}
	}
	return nil
}

func (a *app) campaignWatch() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "watch NAME", Short: "Follow a campaign until it is done", Args: a.args("NAME"), ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.follow(cmd.Context(), c, args[0], timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "stay for `D` at most; default without end")
	return a.shape(cmd, sdk.CampaignReport{})
}

// receiptLooks is how often follow looks again, a second apart, for the receipts of a campaign that is done.
const receiptLooks = 10

// follow shows a campaign's progress until it has completed or was stopped, and then its report.
func (a *app) follow(ctx context.Context, c *sdk.Client, name string, timeout time.Duration) error {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	p := a.progress()
	defer p.close()
	var paused bool
	receipts := receiptLooks
	for {
		r, err := c.Campaigns.Report(wait, name)
		if err == nil {
			p.show(r)
			if r.State == "completed" || r.State == "stopped" {
				if receipts--; r.AwaitingReceipt == 0 || receipts < 0 {
					p.close()
					return a.printReport(r)
				}
			}
			if r.State == "paused" && !paused {
				p.note(fmt.Sprintf("paused; go on: msgctl campaign resume %s", name))
			}
			paused = r.State == "paused"
			err = a.sleep(wait, time.Second)
		}
		switch {
		case ctx.Err() != nil:
			p.close()
			return &outcomeError{
				code: exitInterrupted, what: fmt.Sprintf("interrupted; %q goes on in the engine", name),
				fix: "follow it: msgctl campaign watch " + name + "   hold it: msgctl campaign pause " + name,
			}
		case wait.Err() != nil:
			p.close()
			return &outcomeError{
				code: exitUnreachable, what: fmt.Sprintf("%q is not done after %s; it goes on in the engine", name, timeout),
				fix: "follow it: msgctl campaign watch " + name,
			}
		case err != nil:
			return err
		}
	}
}

// parts are what accepted messages are, in the order the books are read; the table above them has every status by
// itself. A message that its provider took counts as delivered where the channel has no receipts, and as waiting while
// its receipt is still to come. What did not arrive, or nobody knows of, counts as failed.
func parts(r *sdk.CampaignReport) []part {
	s := func(names ...sdk.Status) int {
		n := 0
		for _, name := range names {
			n += r.ByStatus[name]
		}
		return n
	}
	return []part{
		{"delivered", s(sdk.Delivered, sdk.Read, sdk.Sent) - r.AwaitingReceipt},
		{"failed", s(sdk.Failed, sdk.Undelivered, sdk.Unknown)},
		{"suppressed", s(sdk.Suppressed)},
		{"expired", s(sdk.Expired)},
		{"canceled", s(sdk.Canceled)},
		{"waiting", s(sdk.Scheduled, sdk.Queued, sdk.Held, sdk.Deferred, sdk.Sending, sdk.Ambiguous) + r.AwaitingReceipt},
	}
}

type part struct {
	name string
	n    int
}

// accountedFor is the line that closes the books, and whether they close: the parts add up to accepted, the people to
// accepted, left out and still to come.
func accountedFor(r *sdk.CampaignReport) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "accounted for: accepted=%d", r.Accepted)
	sum, known := 0, 0
	for _, p := range parts(r) {
		sum += p.n
		fmt.Fprintf(&b, " %s=%d", p.name, p.n)
	}
	for _, n := range r.ByStatus {
		known += n
	}
	skipped := 0
	for _, n := range r.Skipped {
		skipped += n
	}
	switch {
	case sum != r.Accepted || known != sum:
		return b.String(), &outcomeError{
			code: exitUnmet, fix: "msgctl audit verify",
			what: fmt.Sprintf("the books do not close: accepted %d, and the parts make %d", r.Accepted, sum),
		}
	case r.People != r.Accepted+skipped+r.ToExpand:
		return b.String(), &outcomeError{
			code: exitUnmet, fix: "msgctl audit verify",
			what: fmt.Sprintf("the books do not close: %d people, and accepted %d, left out %d, to come %d",
				r.People, r.Accepted, skipped, r.ToExpand),
		}
	}
	return b.String(), nil
}

// reportRow is a line of the table of a report.
type reportRow struct {
	Channel  string `json:"channel"`
	Status   string `json:"status"`
	Messages int    `json:"messages"`
}

func (a *app) printReport(r *sdk.CampaignReport) error {
	line, wrong := accountedFor(r)
	if f := a.format(); !a.human() && f != "csv" || f == "csv" && (a.flags.jq != "" || a.flags.fields != "") {
		if err := a.object(view{cols: []string{"campaign", "state"}, id: "campaign"}, r); err != nil {
			return err
		}
		return wrong
	}
	var rows []reportRow
	for _, ch := range channels() {
		by := r.ByChannel[sdk.Channel(ch)]
		for _, s := range statuses() {
			if n := by[sdk.Status(s)]; n > 0 {
				rows = append(rows, reportRow{ch, s, n})
			}
		}
	}
	for _, reason := range sortedKeys(r.Skipped) {
		rows = append(rows, reportRow{"", "left out: " + reason, r.Skipped[reason]})
	}
	if r.ToExpand > 0 {
		rows = append(rows, reportRow{"", "to come", r.ToExpand})
	}
	if err := list(a, view{cols: []string{"channel", "status", "messages"}, none: "no messages yet"}, rows); err != nil {
		return err
	}
	if a.human() {
		if n := r.AwaitingReceipt; n > 0 {
			a.say("%s to come; look again: msgctl campaign report %s", count(n, "receipt"), r.Campaign)
		}
		if took := length(r); took != "" {
			line = r.State + took + "\n" + line
		}
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return err
		}
	}
	return wrong
}

func length(r *sdk.CampaignReport) string {
	if r.StartedAt == nil || r.EndedAt == nil {
		return ""
	}
	return " in " + span(r.EndedAt.Sub(*r.StartedAt).Seconds())
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y string) int {
		if m[x] != m[y] {
			return m[y] - m[x] // the most frequent first
		}
		return strings.Compare(x, y)
	})
	return keys
}

// counts writes "212 duplicate · 118 invalid_phone".
func counts(m map[string]int) string {
	var out []string
	for _, k := range sortedKeys(m) {
		out = append(out, thousands(m[k])+" "+clean(k))
	}
	return strings.Join(out, " · ")
}

// thousands writes 9641 as 9,641.
func thousands(n int) string {
	s := strconv.Itoa(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span writes seconds for a person: 51 s, 3 min 20 s, 2 h 5 min.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch {
	case seconds > 0 && seconds < 1:
		return "1 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if what == "person" {
		return thousands(n) + " people"
	}
	return thousands(n) + " " + what + "s"
}
