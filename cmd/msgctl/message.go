package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func messageView() view {
	return view{
		cols: []string{"id", "channel", "to", "status", "reason", "connector", "accepted_at"},
		wide: []string{
			"lane", "detail", "template", "template_version", "segments", "campaign", "provider_id", "client_ref", "category",
			"tag", "ordering_key", "leg", "attempts", "possible_duplicate", "dropped", "updated_at", "due_at", "expires_at",
		},
		id: "id", none: "no messages",
	}
}

// oneMessage shows a message whole.
func oneMessage() view {
	v := messageView()
	return view{cols: slices.Concat(v.cols[:6], v.wide, v.cols[6:]), id: "id"}
}

func (a *app) messageCmd() *cobra.Command {
	return a.group("message", "Messages: list, follow, explain, cancel",
		a.messageLs(), a.messageGet(), a.messageTimeline(), a.messageExplain(), a.messageCancel(), a.messageResend(),
		a.messageWait())
}

func statuses() []string {
	out := []string{}
	for _, s := range []sdk.Status{
		sdk.Scheduled, sdk.Queued, sdk.Held, sdk.Deferred, sdk.Sending, sdk.Ambiguous, sdk.Sent, sdk.Delivered, sdk.Read,
		sdk.Undelivered, sdk.Failed, sdk.Suppressed, sdk.Expired, sdk.Canceled, sdk.Unknown,
	} {
		out = append(out, string(s))
	}
	return out
}

func channels() []string {
	return []string{string(sdk.ChannelSMS), string(sdk.ChannelWhatsApp), string(sdk.ChannelEmail), string(sdk.ChannelWebhook)}
}

// oneOf checks a word against a closed list.
func oneOf(what, word string, known []string) error {
	if slices.Contains(known, word) {
		return nil
	}
	e := &usageError{what: fmt.Sprintf("there is no %s %q", what, word), fix: "one of: " + strings.Join(known, ", ")}
	if n := nearest(word, known); n != "" {
		e.what += fmt.Sprintf("; did you mean %q?", n)
	}
	return e
}

func (a *app) messageLs() *cobra.Command {
	var (
		q                      sdk.MessageQuery
		status, channel, since string
		limit                  int
		every                  bool
	)
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List messages, newest first", Args: a.args(),
		Example: "  msgctl message ls --status failed --since 1h\n" +
			"  msgctl message ls --campaign diwali --all -o csv > diwali.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status != "" {
				if err := oneOf("status", status, statuses()); err != nil {
					return err
				}
			}
			if channel != "" {
				if err := oneOf("channel", channel, channels()); err != nil {
					return err
				}
			}
			if limit < 1 {
				return &usageError{what: fmt.Sprintf("--limit %d: at least 1", limit)}
			}
			var err error
			if q.Since, err = a.moment("--since", since); err != nil {
				return err
			}
			q.Status, q.Channel = sdk.Status(status), sdk.Channel(channel)
			q.Limit = min(limit, 500)
			if every {
				q.Limit, limit = 500, int(^uint(0)>>1)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			w, err := a.writer(messageView())
			if err != nil {
				return err
			}
			n := 0
			for m, err := range c.Messages.All(cmd.Context(), q) {
				if err != nil {
					return err
				}
				if n == limit {
					a.say("there are more: --limit N or --all")
					break
				}
				n++
				if err := w.add(m); err != nil {
					return err
				}
			}
			return w.end()
		},
	}
	f := cmd.Flags()
	f.StringVar(&status, "status", "", "only with this `STATUS`")
	f.StringVar(&channel, "channel", "", "only on this `CHANNEL`")
	f.StringVar(&q.To, "to", "", "only to this `ADDRESS`")
	f.StringVar(&q.Connector, "connector", "", "only through this connector, `NAME`")
	f.StringVar(&q.Campaign, "campaign", "", "only of this campaign, `NAME`")
	f.StringVar(&q.Tag, "tag", "", "only with this tag, `NAME`")
	f.StringVar(&since, "since", "", "only accepted since `WHEN`: 1h, 2d, or RFC 3339")
	f.IntVar(&limit, "limit", 50, "at most `N`")
	f.BoolVar(&every, "all", false, "all there are")
	_ = cmd.RegisterFlagCompletionFunc("status", fixed(statuses()...))
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
	return a.shape(cmd, sdk.Message{})
}

// moment reads how long ago (1h, 2d) or an instant.
func (a *app) moment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := duration(s); err == nil && d >= 0 {
		return a.now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse("2006-01-02", s); err == nil {
		return t, nil
	}
	return time.Time{}, &usageError{
		what: fmt.Sprintf("%s %q is no time", flag, s),
		fix:  "such as 1h, 2d, 2026-11-20 or 2026-11-20T09:00:00Z",
	}
}

// duration is time.ParseDuration with days.
func duration(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var days int
		if _, err := fmt.Sscanf(n+" ", "%d ", &days); err == nil && fmt.Sprint(days) == n && days < 36500 {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	}
	return time.ParseDuration(s)
}

func (a *app) messageGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a message", Args: a.args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			m, err := c.Messages.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showMessage(m)
		},
	}
	return a.shape(cmd, sdk.Message{})
}

func (a *app) messageCancel() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel ID…", Short: "Stop messages that are not handed over yet", Args: a.args("ID…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return each(a, args, messageView(), func(id string) (*sdk.Message, error) {
				return c.Messages.Cancel(cmd.Context(), id)
			})
		},
	}
	return a.shape(cmd, sdk.Message{})
}

func (a *app) messageResend() *cobra.Command {
	ttl := ""
	cmd := &cobra.Command{
		Use: "resend ID…", Short: "Send dead letters again, under their own ids", Args: a.args("ID…"),
		Long: "Send messages again that failed, expired or ended as unknown, under their own\n" +
			"ids. For many at once: msgctl dlq retry.",
		Example: "  msgctl message resend msg_01… --ttl 1h",
		RunE: func(cmd *cobra.Command, args []string) error {
			life, err := lifetime(ttl)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return each(a, args, messageView(), func(id string) (*sdk.Message, error) {
				got, err := c.DeadLetters.Retry(cmd.Context(), sdk.DeadLetterRequest{IDs: []string{id}, TTL: life})
				if err != nil {
					return nil, err
				}
				if len(got.Skipped) > 0 {
					return nil, notDead(id, got.Skipped[0].Status)
				}
				m, err := c.Messages.Get(cmd.Context(), id)
				if err != nil {
					return nil, fmt.Errorf("%s is queued again, and cannot be shown: %w", id, err)
				}
				return m, nil
			})
		},
	}
	cmd.Flags().StringVar(&ttl, "ttl", "", "give up when it has waited for `D` from now; default 24h")
	return a.shape(cmd, sdk.Message{})
}

// each does one thing to several names. One of several that fails does not keep the others from being done.
func each[T any](a *app, names []string, v view, do func(string) (T, error)) error {
	w, err := a.writer(v)
	if err != nil {
		return err
	}
	failed := 0
	for _, name := range names {
		got, err := do(name)
		if err != nil && len(names) == 1 {
			return err
		}
		if err != nil {
			failed++
			a.say("%s: %s", name, err.Error())
			continue
		}
		if err := w.add(got); err != nil {
			return err
		}
	}
	if err := w.end(); err != nil {
		return err
	}
	if failed > 0 {
		return &outcomeError{code: exitPartly, what: fmt.Sprintf("%d of %d failed", failed, len(names))}
	}
	return nil
}

func (a *app) messageWait() *cobra.Command {
	var (
		want    string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait until a message is delivered, or in another status", Args: a.args("ID"),
		Example: "  msgctl message wait msg_01… --for sent --timeout 30s",
		RunE: func(cmd *cobra.Command, args []string) error {
			if want != "" {
				if err := oneOf("status", want, statuses()); err != nil {
					return err
				}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			m, err := a.waitFor(cmd.Context(), c, args[0], sdk.Status(want), timeout)
			if m != nil {
				if perr := a.showMessage(m); perr != nil {
					return perr
				}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&want, "for", "", "wait for this `STATUS`; default delivered, or sent without receipts")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up after `D`")
	_ = cmd.RegisterFlagCompletionFunc("for", fixed(statuses()...))
	return a.shape(cmd, sdk.Message{})
}

// waitFor waits for a status. Without one it waits for the best there can be: delivered, or sent where the provider
// reports nothing after it has taken a message.
func (a *app) waitFor(
	ctx context.Context, c *sdk.Client, id string, want sdk.Status, timeout time.Duration,
) (*sdk.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	late := func(m *sdk.Message, err error) (*sdk.Message, error) {
		if errors.Is(err, context.DeadlineExceeded) && m != nil {
			return m, &outcomeError{
				code: exitUnreachable, what: fmt.Sprintf("%s is still %s after %s", id, m.Status, timeout),
				fix: "msgctl message explain " + id,
			}
		}
		if errors.Is(err, sdk.ErrEnded) && m != nil {
			what := fmt.Sprintf("%s is %s", id, m.Status)
			if m.Reason != "" {
				what += ": " + m.Reason
			}
			return m, &outcomeError{code: exitUnmet, what: what, fix: "msgctl message timeline " + id}
		}
		return m, err
	}
	if want != "" {
		return late(c.Messages.Wait(ctx, id, want))
	}
	m, err := c.Messages.Wait(ctx, id, sdk.Sent, sdk.Delivered)
	if err != nil || m.Status != sdk.Sent || !receipts(ctx, c, m.Connector) {
		return late(m, err)
	}
	return late(c.Messages.Wait(ctx, id, sdk.Delivered))
}

// receipts reports whether a connector's provider says what became of a message. When that cannot be found out, it is
// taken to do so.
func receipts(ctx context.Context, c *sdk.Client, connector string) bool {
	if connector == "" {
		return true
	}
	account, err := c.Connectors.Get(ctx, connector)
	if err != nil {
		return true
	}
	kinds, err := c.Connectors.Types(ctx)
	if err != nil {
		return true
	}
	i := slices.IndexFunc(kinds, func(k sdk.ConnectorType) bool { return k.Name == account.Kind })
	return i < 0 || kinds[i].Receipts
}
