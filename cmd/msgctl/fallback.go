package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// maxFallbacks is how many ways can follow the first.
const maxFallbacks = 3

// fallbackFlags say by which further ways to reach the person. Those with a value per way take one for all of them, or
// as many as there are ways, in their order; so it does not matter where on the command line they stand.
type fallbackFlags struct {
	ways, texts, templates []string
	subject                string
	within, until          []string
}

func (s *fallbackFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.ways, "fallback", nil, "then by this `WAY`: sms, or email:asha@example.com; repeat it")
	f.StringSliceVar(&s.within, "within", nil, "with --fallback: each way before one has `D`; or D,D,…")
	f.StringSliceVar(&s.until, "until", nil, "with --fallback: it has to reach `STATUS`; or S,S,…")
	f.StringArrayVar(&s.texts, "fallback-text", nil, "with --fallback: say `TEXT` there; default the same")
	f.StringArrayVar(&s.templates, "fallback-template", nil, "with --fallback: send the stored template `NAME` there")
	f.StringVar(&s.subject, "fallback-subject", "", "with --fallback email: the `TEXT` of the subject")
	_ = cmd.RegisterFlagCompletionFunc("fallback", fixed(channels()...))
	_ = cmd.RegisterFlagCompletionFunc("until", fixed(goals()...))
}

// goals are what a way can have to reach.
func goals() []string { return []string{string(sdk.Sent), string(sdk.Delivered), string(sdk.Read)} }

// rendered reports whether a further way uses variables.
func (s *fallbackFlags) rendered() bool {
	return slices.ContainsFunc(s.templates, func(t string) bool { return t != "" })
}

// checkGiven refuses flags without a value: an unset variable of a script must not change what is asked for.
func (s *fallbackFlags) checkGiven(cmd *cobra.Command) error {
	for n, values := range map[string][]string{"within": s.within, "until": s.until} {
		if cmd.Flags().Changed(n) && len(values) == 0 {
			return &usageError{what: "--" + n + " is empty", fix: "see: msgctl send --help"}
		}
	}
	return filled(cmd, "category", "tag", "order-key")
}

// refuse refuses all of them: the rows of a file have their own.
func (s *fallbackFlags) refuse(cmd *cobra.Command) error {
	for _, n := range []string{"fallback", "within", "until", "fallback-text", "fallback-template", "fallback-subject"} {
		if cmd.Flags().Changed(n) {
			return &usageError{
				what: fmt.Sprintf("--%s is for one message", n),
				fix:  `a file of JSON lines has it in each line: "within", "until" and "fallback" as in the API`,
			}
		}
	}
	return nil
}

// apply adds the further ways to a message.
func (s *fallbackFlags) apply(r *sdk.MessageRequest) error {
	n := len(s.ways)
	if n == 0 {
		if s.subject != "" || len(s.within)+len(s.until)+len(s.texts)+len(s.templates) > 0 {
			return &usageError{
				what: "--within, --until and --fallback-… need a --fallback",
				fix:  "such as --fallback sms; how long a message may wait at all is --ttl",
			}
		}
		return nil
	}
	if n > maxFallbacks {
		return &usageError{what: fmt.Sprintf("%d fallbacks: at most %d follow the first way", n, maxFallbacks)}
	}
	legs := make([]sdk.Leg, n)
	taken, phone := []sdk.Channel{r.Channel}, phoneOf(r.Channel, r.To)
	for i, way := range s.ways {
		ch, to, err := parseWay(way, phone)
		if err != nil {
			return err
		}
		if slices.Contains(taken, ch) {
			return &usageError{
				what: fmt.Sprintf("--fallback %s: there is a way by %s already; each way has a channel of its own", way, ch),
			}
		}
		taken = append(taken, ch)
		if p := phoneOf(ch, to); p != "" {
			phone = p
		}
		legs[i] = sdk.Leg{Channel: ch, To: to}
		if err := s.content(&legs[i], r, i); err != nil {
			return err
		}
	}
	if s.subject != "" && !slices.Contains(taken[1:], sdk.ChannelEmail) {
		return &usageError{what: "--fallback-subject: no fallback is an e-mail", fix: "--fallback email:asha@example.com"}
	}
	if r.Template == "" {
		r.Vars = nil // they are of the fallbacks' templates
	}
	r.Fallback = legs
	return s.terms(r)
}

func phoneOf(ch sdk.Channel, to string) string {
	if ch == sdk.ChannelSMS || ch == sdk.ChannelWhatsApp {
		return to
	}
	return ""
}

// parseWay reads sms, sms:+12025550100, email:asha@example.com or webhook:https://….
func parseWay(way, phone string) (sdk.Channel, string, error) {
	name, to, given := strings.Cut(way, ":")
	if err := oneOf("channel", name, channels()); err != nil {
		return "", "", fmt.Errorf("--fallback %q: %w", way, err)
	}
	ch := sdk.Channel(name)
	if given && to != "" {
		return ch, to, nil
	}
	if !given && phone != "" && phoneOf(ch, phone) != "" {
		return ch, phone, nil
	}
	example := map[sdk.Channel]string{
		sdk.ChannelEmail: "email:asha@example.com", sdk.ChannelWebhook: "webhook:https://example.com/hook",
	}[ch]
	if example == "" {
		example = name + ":+12025550100"
	}
	return "", "", &usageError{
		what: fmt.Sprintf("--fallback %s: the address is missing", way),
		fix:  "--fallback " + example,
	}
}

// content says what the leg of the ith fallback says.
func (s *fallbackFlags) content(leg *sdk.Leg, r *sdk.MessageRequest, i int) error {
	text, err := s.nth("--fallback-text", s.texts, i)
	if err != nil {
		return err
	}
	if leg.Template, err = s.nth("--fallback-template", s.templates, i); err != nil {
		return err
	}
	if leg.Template != "" {
		if text != "" {
			return &usageError{what: fmt.Sprintf("--fallback %s: either a text or a template", leg.Channel)}
		}
		leg.Vars = r.Vars
		return nil
	}
	if text == "" && leg.Channel != sdk.ChannelWebhook {
		text = r.Text
	}
	if text == "" {
		return &usageError{
			what: fmt.Sprintf("--fallback %s: what to say there is missing", leg.Channel),
			fix:  "--fallback-text TEXT, or --fallback-template NAME",
		}
	}
	switch leg.Channel {
	case sdk.ChannelWebhook:
		if !json.Valid([]byte(text)) {
			return &usageError{what: "--fallback webhook: the data of a webhook is JSON, and this is not"}
		}
		leg.Data, leg.Event = json.RawMessage(text), r.Event
		return nil
	case sdk.ChannelEmail:
		if leg.Subject = s.subject; s.subject == "" {
			return &usageError{what: "--fallback email: an e-mail needs a subject", fix: "--fallback-subject TEXT"}
		}
	}
	leg.Text = text
	return nil
}

// nth is the value of the ith way: the only one, or the ith of as many as there are.
func (s *fallbackFlags) nth(flag string, values []string, i int) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	case len(s.ways):
		return values[i], nil
	}
	return "", &usageError{
		what: fmt.Sprintf("%s: %s for %s", flag, count(len(values), "value"), count(len(s.ways), "fallback")),
		fix:  "give one for all of them, or one for each, in their order",
	}
}

// terms says what each way but the last has to reach, and by when.
func (s *fallbackFlags) terms(r *sdk.MessageRequest) error {
	for i := range s.ways {
		within, err := s.nth("--within", s.within, i)
		if err != nil {
			return err
		}
		until, err := s.nth("--until", s.until, i)
		if err != nil {
			return err
		}
		if len(s.within) > 0 {
			d, err := duration(within)
			if err != nil || d < time.Second {
				return &usageError{what: fmt.Sprintf("--within %q: is no time of at least 1s", within), fix: "such as --within 5m"}
			}
			within = durationText(d)
		}
		if len(s.until) > 0 {
			if err := oneOf("status to reach", until, goals()); err != nil {
				return err
			}
		}
		if i == 0 {
			r.Within, r.Until = within, sdk.Status(until)
		} else {
			r.Fallback[i-1].Within, r.Fallback[i-1].Until = within, sdk.Status(until)
		}
	}
	return nil
}
