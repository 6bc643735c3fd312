package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// sendFlags are the flags of send.
type sendFlags struct {
	template, varsFile            string
	vars, params                  []string
	subject, html, from, replyTo  string
	approved, event               string
	at, zone, via, lane, key, ref string
	category, tag, order          string
	ttl                           time.Duration
	once                          bool
	wait                          string
	timeout                       time.Duration
	file, resume                  string
	window                        int
	fallback                      fallbackFlags
}

func (a *app) sendCmd() *cobra.Command {
	var s sendFlags
	cmd := &cobra.Command{
		Use:   "send CHANNEL TO [TEXT] | send [CHANNEL] --file FILE",
		Short: "Send a message, or a file of them",
		Long: "Send a message, or a file of them.\n\n" +
			"CHANNEL is sms, whatsapp, email or webhook. TEXT is what the message says, for a\n" +
			"webhook its JSON; - reads it from stdin. The command ends when the engine has\n" +
			"stored the message; --wait ends when it is delivered.\n\n" +
			"A file is CSV with a header (to, text, subject … as in the API; what is no field\n" +
			"of a message is a variable of the template), or one JSON object a line.\n\n" +
			"A message with a --fallback stays one message: the next way begins when the one\n" +
			"before it fails, or has not reached its status (delivered, for e-mail sent)\n" +
			"--within its time. Ways with other senders or contents: JSON lines, \"fallback\".",
		Example: "  msgctl send sms +12025550100 \"Your code is 123456\" --ttl 2m --lane urgent\n" +
			"  msgctl send email a@example.com -T welcome --var name=Asha --wait\n" +
			"  msgctl send webhook https://example.com/hook '{\"order\":1}' --event order.paid\n" +
			"  msgctl send whatsapp +12025550100 \"Hi\" --fallback sms --within 5m\n" +
			"  msgctl send sms --file people.csv -T reminder",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 3 && a.flags.fields != "?" {
				return &usageError{
					what: fmt.Sprintf("one argument too many: %q", args[3]),
					fix:  "quote the TEXT; a status for --wait follows =, --wait=sent",
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.file != "" {
				return a.sendFile(cmd, args, &s)
			}
			return a.sendOne(cmd, args, &s)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return channels(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&s.template, "template", "T", "", "send the stored template `NAME`")
	f.StringArrayVar(&s.vars, "var", nil, "a variable, `K=V`; repeat it")
	f.StringVar(&s.varsFile, "vars-file", "", "variables from a JSON or YAML `FILE`")
	f.StringVar(&s.subject, "subject", "", "e-mail: the `TEXT` of the subject")
	f.StringVar(&s.html, "html", "", "e-mail: `HTML`, or @FILE")
	f.StringVar(&s.from, "from", "", "the `SENDER`; default the connector's own")
	f.StringVar(&s.replyTo, "reply-to", "", "e-mail: where answers go, `MAILBOX`")
	f.StringVar(&s.approved, "approved", "", "WhatsApp: an approved template, `NAME/LANG`")
	f.StringArrayVar(&s.params, "param", nil, "WhatsApp: the next parameter of it, `TEXT`")
	f.StringVar(&s.event, "event", "", "webhook: the event's `TYPE`")
	f.StringVar(&s.at, "at", "", "send at `WHEN`: RFC 3339, +10m, or local with --zone")
	f.StringVar(&s.zone, "zone", "", "the IANA `ZONE` of --at")
	f.DurationVar(&s.ttl, "ttl", 0, "give up when it has waited for `D`; default 24h")
	f.StringVar(&s.via, "via", "", "through the connector `NAME`")
	f.StringVar(&s.lane, "lane", "", "`LANE`: urgent, normal or bulk")
	f.BoolVar(&s.once, "at-most-once", false, "rather not at all than twice")
	f.StringVar(&s.category, "category", "", "what it is, `NAME` such as otp; routing rules may ask for it")
	f.StringVar(&s.tag, "tag", "", "your own mark, `NAME`, for routing rules and lists")
	f.StringVar(&s.order, "order-key", "", "those with the same `KEY` to one person go one after the other")
	s.fallback.register(cmd)
	f.StringVar(&s.ref, "ref", "", "your own reference, `TEXT`")
	f.StringVar(&s.key, "idempotency-key", "", "the same `KEY` makes no second message")
	f.StringVar(&s.wait, "wait", "", "wait until delivered, or for another `STATUS`")
	f.Lookup("wait").NoOptDefVal = "best"
	f.DurationVar(&s.timeout, "timeout", time.Minute, "of --wait: give up after `D`")
	f.StringVar(&s.file, "file", "", "send each row of a `FILE`: CSV, JSON lines, - is stdin")
	f.StringVar(&s.resume, "resume", "", "of --file: go on with the run `RUN`")
	f.IntVar(&s.window, "window", 8, "of --file: `N` chunks of 500 rows at a time")
	_ = cmd.RegisterFlagCompletionFunc("lane", fixed("urgent", "normal", "bulk"))
	_ = cmd.RegisterFlagCompletionFunc("wait", fixed(statuses()...))
	return a.shape(cmd, sdk.Message{})
}

func (a *app) sendOne(cmd *cobra.Command, args []string, s *sendFlags) error {
	see := "see: msgctl send --help"
	switch {
	case len(args) == 0:
		return &usageError{what: "CHANNEL and TO are missing", fix: see}
	case len(args) == 1:
		if err := oneOf("channel", args[0], channels()); err != nil {
			return err
		}
		return &usageError{what: "TO is missing", fix: see}
	case s.resume != "" || cmd.Flags().Changed("window"):
		return &usageError{what: "--resume and --window need --file", fix: see}
	case s.wait != "" && s.wait != "best":
		if err := oneOf("status", s.wait, statuses()); err != nil {
			return err
		}
	}
	if err := s.fallback.checkGiven(cmd); err != nil {
		return err
	}
	r, err := a.request(args, s)
	if err != nil {
		return err
	}
	var opts []sdk.SendOption
	if s.key != "" {
		opts = append(opts, sdk.IdempotencyKey(s.key))
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	m, err := c.Send(cmd.Context(), r, opts...)
	if err != nil {
		return err
	}
	if s.wait == "" {
		return a.showMessage(m)
	}
	want := sdk.Status(s.wait)
	if s.wait == "best" {
		want = ""
	}
	id := m.ID
	done, err := a.waitFor(cmd.Context(), c, id, want, s.timeout)
	if done != nil {
		m = done
	}
	if perr := a.showMessage(m); perr != nil {
		return perr
	}
	return err
}

// request is what the arguments and flags ask to send.
func (a *app) request(args []string, s *sendFlags) (sdk.MessageRequest, error) {
	r, err := a.requestBase(s)
	if err != nil {
		return r, err
	}
	if err := oneOf("channel", args[0], channels()); err != nil {
		return r, err
	}
	r.Channel, r.To = sdk.Channel(args[0]), args[1]
	text := ""
	if len(args) == 3 {
		if text = args[2]; text == "-" {
			if text, err = a.readText(); err != nil {
				return r, err
			}
		}
	}
	content := text != "" || r.HTML != "" || r.Approved != nil
	if content == (r.Template != "") && r.Channel != sdk.ChannelWebhook {
		return r, &usageError{what: "a message has either content or a template", fix: "give TEXT, or -T TEMPLATE"}
	}
	if r.Channel == sdk.ChannelWebhook && text != "" {
		if !json.Valid([]byte(text)) {
			return r, &usageError{
				what: "the data of a webhook is JSON, and this is not",
				fix:  `such as '{"order":1}' or '"text"'`,
			}
		}
		r.Data = json.RawMessage(text)
	} else {
		r.Text = text
	}
	return r, s.fallback.apply(&r)
}

// requestBase is what every message of this call shares.
func (a *app) requestBase(s *sendFlags) (sdk.MessageRequest, error) {
	r := sdk.MessageRequest{
		From: s.from, Subject: s.subject, ReplyTo: s.replyTo, Event: s.event, Template: s.template, Lane: sdk.Lane(s.lane),
		Zone: s.zone, Connector: s.via, ClientRef: s.ref, Category: s.category, Tag: s.tag, OrderingKey: s.order,
	}
	if s.once {
		r.Delivery = "at_most_once"
	}
	if s.ttl < 0 {
		return r, &usageError{what: "--ttl: must be more than 0"}
	}
	if s.ttl > 0 {
		r.TTL = s.ttl.String()
	}
	if s.lane != "" {
		if err := oneOf("lane", s.lane, []string{"urgent", "normal", "bulk"}); err != nil {
			return r, err
		}
	}
	var err error
	if r.SendAt, err = a.sendAt(s.at, s.zone); err != nil {
		return r, err
	}
	if r.HTML, err = a.fileText(s.html); err != nil {
		return r, err
	}
	if s.approved != "" {
		name, lang, ok := strings.Cut(s.approved, "/")
		if !ok || name == "" || lang == "" {
			return r, &usageError{
				what: "--approved: needs a name and a language",
				fix:  "such as --approved order_shipped/en_US",
			}
		}
		r.Approved = &sdk.Approved{Name: name, Language: lang, Params: s.params}
	}
	if r.Vars, err = a.readVars(s.vars, s.varsFile); err != nil {
		return r, err
	}
	if len(r.Vars) > 0 && r.Template == "" && !s.fallback.rendered() {
		return r, &usageError{what: "variables need a template", fix: "-T TEMPLATE"}
	}
	return r, nil
}

// sendAt reads --at: an instant, a wait such as +10m, or a local time that the engine resolves in --zone.
func (a *app) sendAt(s, zone string) (string, error) {
	if s == "" {
		return "", nil
	}
	if rest, ok := strings.CutPrefix(s, "+"); ok {
		d, err := duration(rest)
		if err != nil || d < 0 {
			return "", &usageError{
				what: fmt.Sprintf("--at %q: after + comes a duration", s),
				fix:  "such as +10m or +2d",
			}
		}
		return a.now().Add(d).UTC().Format(time.RFC3339), nil
	}
	if _, err := time.Parse(time.RFC3339, s); err == nil {
		return s, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if zone == "" {
			return "", &usageError{
				what: fmt.Sprintf("--at %q: has no zone", s),
				fix:  "--zone Asia/Kolkata, or write " + t.Format("2006-01-02T15:04:05Z07:00"),
			}
		}
		return t.Format("2006-01-02T15:04:05"), nil
	}
	return "", &usageError{
		what: fmt.Sprintf("--at %q is no time", s),
		fix:  "such as 2026-11-20T09:00:00Z, +10m, or \"2026-11-20 09:00\" --zone Asia/Kolkata",
	}
}

// maxText bounds a text from stdin or a file: the engine takes no longer ones.
const maxText = 1 << 20

func (a *app) readText() (string, error) {
	b, err := io.ReadAll(io.LimitReader(a.in, maxText+1))
	if err != nil {
		return "", &usageError{what: "stdin", err: err}
	}
	if len(b) > maxText {
		return "", &usageError{what: "stdin: is longer than 1 MiB"}
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// fileText is a text, or with @ in front the content of a file.
func (a *app) fileText(s string) (string, error) {
	path, ok := strings.CutPrefix(s, "@")
	if !ok {
		return s, nil
	}
	return readFile(path)
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &usageError{what: "cannot read", err: err}
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return "", &usageError{what: "cannot read", err: err}
	}
	if len(b) > maxText {
		return "", &usageError{what: path + ": is longer than 1 MiB"}
	}
	return string(b), nil
}

// readVars joins variables from a file and from K=V arguments, which go first.
func (a *app) readVars(pairs []string, file string) (sdk.Vars, error) {
	vars := sdk.Vars{}
	if file != "" {
		text, err := readFile(file)
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal([]byte(text), &vars); err != nil { // JSON is YAML
			return nil, &usageError{what: file + ": " + oneLine(yaml.FormatError(err, false, false))}
		}
	}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, &usageError{what: fmt.Sprintf("--var %q: has no name or no =", p), fix: "--var name=Asha"}
		}
		vars[k] = v
	}
	if len(vars) == 0 {
		return nil, nil
	}
	return vars, nil
}
