package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// deadStatuses are what a dead letter can be.
func deadStatuses() []string {
	return []string{string(sdk.Failed), string(sdk.Expired), string(sdk.Unknown)}
}

// deadFilters are the flags that select dead letters.
func deadFilters() []string {
	return []string{"status", "reason", "channel", "to", "connector", "campaign", "tag", "since"}
}

func (a *app) dlqCmd() *cobra.Command {
	return a.group("dlq", "Dead letters: messages that ended without a known hand-off",
		a.dlqLs(), a.dlqGet(), a.dlqRetry(), a.dlqDrop())
}

// deadFlags select dead letters.
type deadFlags struct {
	filter          sdk.DeadLetterFilter
	status, channel string
	since           string
	limit           int
	every           bool
}

func (s *deadFlags) register(cmd *cobra.Command, limit int, most, all string) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&s.status, "status", "", "only with this `STATUS`: failed, expired or unknown")
	f.StringVar(&s.filter.Reason, "reason", "", "only for this reason, `WORD`")
	f.StringVar(&s.channel, "channel", "", "only on this `CHANNEL`")
	f.StringVar(&s.filter.To, "to", "", "only to this `ADDRESS`")
	f.StringVar(&s.filter.Connector, "connector", "", "only through this connector, `NAME`")
	f.StringVar(&s.filter.Campaign, "campaign", "", "only of this campaign, `NAME`")
	f.StringVar(&s.filter.Tag, "tag", "", "only with this tag, `NAME`")
	f.StringVar(&s.since, "since", "", "only accepted since `WHEN`: 1h, 2d, or RFC 3339")
	f.IntVar(&s.limit, "limit", limit, most)
	f.BoolVar(&s.every, "all", false, all)
	_ = cmd.RegisterFlagCompletionFunc("status", fixed(deadStatuses()...))
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
}

// selection checks the filters that were given.
func (s *deadFlags) selection(a *app, cmd *cobra.Command) (sdk.DeadLetterFilter, error) {
	f := s.filter
	if err := filled(cmd, deadFilters()...); err != nil {
		return f, err
	}
	if s.status != "" {
		if err := oneOf("status of a dead letter", s.status, deadStatuses()); err != nil {
			return f, err
		}
	}
	if err := checkChannel(s.channel); err != nil {
		return f, err
	}
	if cmd.Flags().Changed("limit") && s.limit < 1 {
		return f, &usageError{what: fmt.Sprintf("--limit %d: at least 1", s.limit)}
	}
	since, err := a.moment("--since", s.since)
	if err != nil {
		return f, err
	}
	if !since.IsZero() {
		f.Since = &since
	}
	f.Status, f.Channel = sdk.Status(s.status), sdk.Channel(s.channel)
	return f, nil
}

func (a *app) dlqLs() *cobra.Command {
	var s deadFlags
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List dead letters, newest first", Args: a.args(),
		Example: "  msgctl dlq ls --reason retries_exhausted --since 2d\n" +
			"  msgctl dlq ls --campaign diwali --all -o csv > dead.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := s.selection(a, cmd)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			v := messageView()
			v.none = "no dead letters"
			w, err := a.writer(v)
			if err != nil {
				return err
			}
			walk := deadWalk{c: c, filter: f, left: s.limit, more: true}
			if s.every {
				walk.left = everything
			}
			for walk.more {
				rows, err := walk.next(cmd.Context())
				if err != nil {
					return err
				}
				for _, m := range rows {
					if err := w.add(m); err != nil {
						return err
					}
				}
			}
			if walk.cut {
				a.say("there are more: --limit N or --all")
			}
			return w.end()
		},
	}
	s.register(cmd, 50, "at most `N`", "all there are")
	return a.shape(cmd, sdk.Message{})
}

// everything is the limit of a walk that has none.
const everything = -1

// deadWalk reads dead letters page by page, newest first. Each is seen once, whatever becomes of it meanwhile: one that
// is sent again and fails again does not come back.
type deadWalk struct {
	c      *sdk.Client
	filter sdk.DeadLetterFilter
	left   int // of the limit
	more   bool
	cut    bool // the limit ended it, and there are more
	cursor string
}

// next returns the next page, of at most batchOfDead.
func (w *deadWalk) next(ctx context.Context) ([]sdk.Message, error) {
	n := batchOfDead
	if w.left != everything {
		n = min(n, w.left)
	}
	p, err := w.c.DeadLetters.Page(ctx, w.filter, n, w.cursor)
	if err != nil {
		return nil, err
	}
	rows := p.Data
	if w.left != everything {
		rows = rows[:min(len(rows), w.left)]
		w.left -= len(rows)
		w.cut = w.left == 0 && (p.HasMore || len(p.Data) > len(rows))
	}
	w.more = p.HasMore && w.left != 0
	if w.more && (p.NextCursor == "" || p.NextCursor == w.cursor) {
		return nil, fmt.Errorf("%w: the engine says there are more rows, and not where", sdk.ErrUnavailable)
	}
	w.cursor = p.NextCursor
	return rows, nil
}

func (a *app) dlqGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a dead letter", Args: a.args("ID"),
		Example: "  msgctl dlq get msg_01… && msgctl message timeline msg_01…",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			m, err := c.Messages.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if m.Dropped || !slices.Contains(deadStatuses(), string(m.Status)) {
				e := notDead(args[0], m.Status)
				return &outcomeError{code: exitNotFound, what: e.what, fix: "msgctl message get " + args[0]}
			}
			if err := a.showMessage(m); err != nil {
				return err
			}
			a.say("why: msgctl message explain %s   again: msgctl dlq retry %s   put away: msgctl dlq drop %s", m.ID, m.ID, m.ID)
			return nil
		},
	}
	return a.shape(cmd, sdk.Message{})
}

// notDead says why a message cannot be sent again or put away: it is none, or in another status.
func notDead(id string, status sdk.Status) *outcomeError {
	switch {
	case status == "":
		return &outcomeError{code: exitNotFound, what: "there is no message " + id, fix: "see: msgctl dlq ls"}
	case slices.Contains(deadStatuses(), string(status)):
		return &outcomeError{
			code: exitConflict, what: fmt.Sprintf("%s is %s and was put away: it is no dead letter any more", id, status),
		}
	}
	return &outcomeError{
		code: exitConflict,
		what: fmt.Sprintf("%s is %s: only what has failed, expired or ended as unknown is a dead letter", id, status),
		fix:  "msgctl message explain " + id,
	}
}

func (a *app) dlqRetry() *cobra.Command {
	var (
		s   deadFlags
		ttl string
	)
	cmd := &cobra.Command{
		Use: "retry ID… | retry FILTER | retry --all", Short: "Send dead letters again, under their own ids",
		Args: a.args("[ID]…"),
		Long: "Send dead letters again, under their own ids: those named, those of a filter, or\n" +
			"all. A filter says how many there are, and asks before it acts. One that ended\n" +
			"as unknown may reach its person twice.",
		Example: "  msgctl dlq retry msg_01… msg_02…\n" +
			"  msgctl dlq retry --connector alpha --since 2d --ttl 6h\n" +
			"  msgctl dlq retry --reason retries_exhausted --limit 10 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			life, err := lifetime(ttl)
			if err != nil {
				return err
			}
			return a.decide(cmd, args, &s, verdict{
				verb: "retry", ask: "Send %s again", would: "would be sent again", done: "sent again",
				act: func(ctx context.Context, c *sdk.Client, ids []string) (*sdk.DeadLetterResult, error) {
					return c.DeadLetters.Retry(ctx, sdk.DeadLetterRequest{IDs: ids, TTL: life})
				},
			})
		},
	}
	s.register(cmd, 0, "of a filter or --all: at most `N`, the newest", "every dead letter")
	cmd.Flags().StringVar(&ttl, "ttl", "", "give up when it has waited for `D` from now; default 24h")
	return a.shape(cmd, deadResult{})
}

// lifetime reads --ttl.
func lifetime(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return delay("--ttl", s)
}

func (a *app) dlqDrop() *cobra.Command {
	var s deadFlags
	cmd := &cobra.Command{
		Use: "drop ID… | drop FILTER | drop --all", Short: "Put dead letters away; they keep their status and history",
		Args: a.args("[ID]…"),
		Long: "Put dead letters away: those named, those of a filter, or all. They keep their\n" +
			"status and history and are listed here no more; they cannot be sent again. A\n" +
			"filter says how many there are, and asks before it acts.",
		Example: "  msgctl dlq drop msg_01…\n  msgctl dlq drop --reason unknown_subscriber --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.decide(cmd, args, &s, verdict{
				verb: "drop", ask: "Put %s away", would: "would be put away", done: "put away",
				act: func(ctx context.Context, c *sdk.Client, ids []string) (*sdk.DeadLetterResult, error) {
					return c.DeadLetters.Drop(ctx, sdk.DeadLetterRequest{IDs: ids})
				},
			})
		},
	}
	s.register(cmd, 0, "of a filter or --all: at most `N`, the newest", "every dead letter")
	return a.shape(cmd, deadResult{})
}

// words names the filters that were given: "status failed, channel sms".
func words(cmd *cobra.Command) string {
	var out []string
	for _, n := range deadFilters() {
		if f := cmd.Flags().Lookup(n); f.Changed {
			out = append(out, n+" "+f.Value.String())
		}
	}
	return strings.Join(out, ", ")
}

// again is the command that goes on with a selection.
func again(cmd *cobra.Command) string {
	out := []string{cmd.CommandPath()}
	for _, n := range append(deadFilters(), "ttl") {
		if f := cmd.Flags().Lookup(n); f != nil && f.Changed {
			out = append(out, "--"+n, shellWord(f.Value.String()))
		}
	}
	if f := cmd.Flags().Lookup("all"); f.Changed {
		out = append(out, "--all")
	}
	return strings.Join(out, " ")
}

// shellWord writes a word so that a shell takes it for one.
func shellWord(s string) string {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-_.:@/", r))
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return quoted(s)
}
