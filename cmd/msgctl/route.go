package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// routeRow is a rule as a table shows it: with its number, and its targets in words.
type routeRow struct {
	Rule int `json:"rule"`
	sdk.Route
	Via string `json:"via"`
}

func (a *app) routeCmd() *cobra.Command {
	return a.group("route", "Routes: rules that choose the connector",
		a.routeLs(), a.routeSet(), a.routeAdd(), a.routeRm(), a.routeExplain())
}

func (a *app) showRoutes(rules []sdk.Route) error {
	if a.plain() {
		return list(a, view{}, rules)
	}
	rows := make([]routeRow, len(rules))
	for i, r := range rules {
		rows[i] = routeRow{Rule: i + 1, Route: r, Via: targetsText(r.Targets)}
	}
	return list(a, routeView(), rows)
}

func routeView() view {
	return view{
		cols: []string{"rule", "channel", "prefix", "category", "tag", "via"}, id: "rule",
		none: "no rules: messages go by the connectors' own priorities",
	}
}

// targetsText writes "alpha 3, beta 1, gamma in reserve".
func targetsText(targets []sdk.RouteTarget) string {
	out := make([]string, len(targets))
	for i, t := range targets {
		out[i] = t.Connector + " " + share(t.Weight)
	}
	return strings.Join(out, ", ")
}

func share(weight int) string {
	if weight == 0 {
		return "in reserve"
	}
	return strconv.Itoa(weight)
}

func (a *app) routeLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the rules, in the order in which they are asked", Args: a.args(),
		Example: "  msgctl route ls\n  msgctl route ls -o yaml > routes.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Routes.List(cmd.Context())
			if err != nil {
				return err
			}
			return a.showRoutes(rules)
		},
	}
	return a.shape(cmd, routeRow{})
}

func (a *app) routeSet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Replace all rules by those of a file", Args: a.args("FILE"),
		Long: "Replace all rules by those of a YAML or JSON file; - is stdin. The first rule\n" +
			"that matches decides. An empty list, [], leaves all to connectors' priorities.\n\n" +
			"  - channel: sms\n" +
			"    prefix: \"+91\"             # of the number; for e-mail the domain\n" +
			"    category: otp             # what the sender said it is; also: tag\n" +
			"    targets:\n" +
			"      - { connector: alpha, weight: 3 }\n" +
			"      - { connector: beta, weight: 1 }\n" +
			"      - { connector: gamma, weight: 0 }   # in reserve",
		Example: "  msgctl route set routes.yaml\n  msgctl route ls -o yaml | sed s/alpha/delta/ | msgctl route set -",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, rules, err := readRules[sdk.Route](a, "route", args[0])
			if err != nil {
				return err
			}
			return a.putRoutes(cmd, f, rules)
		},
	}
	return a.shape(cmd, routeRow{})
}

// putRoutes replaces all rules and shows those then in force.
func (a *app) putRoutes(cmd *cobra.Command, f *rulesFile, rules []sdk.Route) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if rules, err = c.Routes.Set(cmd.Context(), rules); err != nil {
		return f.refused(err)
	}
	a.say("%s in force", count(len(rules), "rule"))
	return a.showRoutes(rules)
}

func (a *app) routeAdd() *cobra.Command {
	var (
		r           sdk.Route
		channel     string
		to, reserve []string
		at          int
	)
	cmd := &cobra.Command{
		Use: "add --to CONNECTOR[=WEIGHT],…", Short: "Add a rule", Args: a.args(),
		Long: "Add a rule. What is not given matches everything. The connectors of --to share\n" +
			"the messages by their weights; those of --reserve get messages only while none\n" +
			"of the others can take them, the first of them first.",
		Example: "  msgctl route add --channel sms --prefix +91 --to a=3,b=1 --reserve c\n" +
			"  msgctl route add --category otp --to alpha --at 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filled(cmd, "channel", "prefix", "category", "tag"); err != nil {
				return err
			}
			if err := checkChannel(channel); err != nil {
				return err
			}
			r.Channel = sdk.Channel(channel)
			var err error
			if r.Targets, err = targets(to, reserve); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Routes.List(cmd.Context())
			if err != nil {
				return err
			}
			if rules, err = place(rules, r, at); err != nil {
				return err
			}
			return a.putRoutes(cmd, nil, rules)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&channel, "channel", "", "only messages on this `CHANNEL`")
	f.StringVar(&r.Prefix, "prefix", "", "only numbers that begin with `P`, such as +91; for e-mail the domain")
	f.StringVar(&r.Category, "category", "", "only messages of this category, `NAME`")
	f.StringVar(&r.Tag, "tag", "", "only messages with this tag, `NAME`")
	f.StringSliceVar(&to, "to", nil, "by these connectors, `C[=WEIGHT],…`")
	f.StringSliceVar(&reserve, "reserve", nil, "then by these, `C,…`")
	f.IntVar(&at, "at", 0, "as rule `N`; default the last")
	_ = cmd.RegisterFlagCompletionFunc("channel", fixed(channels()...))
	return a.shape(cmd, routeRow{})
}

// filled refuses flags that were given without a value. An unset variable of a script would otherwise say "everything".
func filled(cmd *cobra.Command, names ...string) error {
	for _, n := range names {
		if f := cmd.Flags().Lookup(n); f.Changed && strings.TrimSpace(f.Value.String()) == "" {
			return &usageError{what: "--" + n + " is empty", fix: "give a value, or leave it out"}
		}
	}
	return nil
}

// maxWeight is the largest weight of a target that the engine takes.
const maxWeight = 1000

// targets reads alpha=3,beta=1 and the reserves.
func targets(to, reserve []string) ([]sdk.RouteTarget, error) {
	var out []sdk.RouteTarget
	seen := map[string]bool{}
	add := func(flag, name string, weight int) error {
		switch name = strings.TrimSpace(name); {
		case name == "":
			return &usageError{what: flag + ": a connector has no name", fix: "such as " + flag + " alpha"}
		case seen[name]:
			return &usageError{what: fmt.Sprintf("%s: %q stands there twice", flag, name)}
		}
		seen[name] = true
		out = append(out, sdk.RouteTarget{Connector: name, Weight: weight})
		return nil
	}
	for _, s := range to {
		name, text, ok := strings.Cut(s, "=")
		weight := 1
		if ok {
			var err error
			if weight, err = strconv.Atoi(text); err != nil || weight < 0 || weight > maxWeight {
				return nil, &usageError{
					what: fmt.Sprintf("--to %q: a weight is a whole number from 0 to %d", s, maxWeight),
					fix:  "such as --to alpha=3,beta=1",
				}
			}
		}
		if err := add("--to", name, weight); err != nil {
			return nil, err
		}
	}
	for _, s := range reserve {
		if strings.Contains(s, "=") {
			return nil, &usageError{what: fmt.Sprintf("--reserve %q: a reserve has no weight", s), fix: "--to " + s}
		}
		if err := add("--reserve", s, 0); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, &usageError{
			what: "--to is missing: a rule names at least one connector",
			fix:  "such as --to alpha=3,beta=1",
		}
	}
	return out, nil
}

func (a *app) routeRm() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm N…", Short: "Remove rules, by their numbers in ls", Args: a.args("N…"),
		Example: "  msgctl route rm 2", ValidArgsFunction: numbersOnly,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			rules, err := c.Routes.List(cmd.Context())
			if err != nil {
				return err
			}
			stay, gone, err := rulesWithout("route", rules, args)
			if err != nil {
				return err
			}
			texts := make([]string, len(gone))
			for i, r := range gone {
				texts[i] = routeText(r)
			}
			if err := a.confirm("Remove " + strings.Join(texts, "; ") + "?"); err != nil {
				return err
			}
			return a.putRoutes(cmd, nil, stay)
		},
	}
	return a.shape(cmd, routeRow{})
}

// routeText names a rule: "sms +91 → alpha 3, beta 1".
func routeText(r sdk.Route) string {
	var when []string
	for _, s := range []string{string(r.Channel), r.Prefix, r.Category, r.Tag} {
		if s != "" {
			when = append(when, s)
		}
	}
	if len(when) == 0 {
		when = []string{"everything"}
	}
	return clean(strings.Join(when, " ") + " → " + targetsText(r.Targets))
}

func (a *app) routeExplain() *cobra.Command {
	var q sdk.RouteQuery
	cmd := &cobra.Command{
		Use: "explain CHANNEL TO", Short: "Say by which connector a message would go now, and why",
		Args:    a.args("CHANNEL", "TO"),
		Example: "  msgctl route explain sms +919876543210 --category otp",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("channel", args[0], channels()); err != nil {
				return err
			}
			q.Channel, q.To = sdk.Channel(args[0]), args[1]
			c, err := a.client()
			if err != nil {
				return err
			}
			e, err := c.Routes.Explain(cmd.Context(), q)
			if err != nil {
				return err
			}
			if !a.human() {
				return a.object(view{cols: []string{"rule", "connector", "candidates"}}, e)
			}
			_, err = fmt.Fprint(a.out, a.decision(q, e))
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return channels(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVar(&q.Category, "category", "", "of a message of this category, `NAME`")
	cmd.Flags().StringVar(&q.Tag, "tag", "", "of a message with this tag, `NAME`")
	return a.shape(cmd, sdk.RouteExplanation{})
}

// decision tells a routing decision: what happens, by which rule, how each candidate stands, and what would change it.
func (a *app) decision(q sdk.RouteQuery, e *sdk.RouteExplanation) string {
	var b strings.Builder
	rule := e.Rule
	if rule == "priority" {
		rule = "no rule matches: by the connectors' priorities"
	}
	switch {
	case e.Connector != "":
		fmt.Fprintf(&b, "would go now by: %s (%s)\n", clean(e.Connector), clean(rule))
	case len(e.Candidates) == 0:
		fmt.Fprintf(&b, "would wait: there is no connector for %s (%s)\n", q.Channel, clean(rule))
	default:
		fmt.Fprintf(&b, "would wait: none of its connectors can take it now (%s)\n", clean(rule))
	}
	wide := 0
	for _, c := range e.Candidates {
		wide = max(wide, len([]rune(clean(c.Connector))))
	}
	var advice []string
	for _, c := range e.Candidates {
		mark := "✗"
		switch {
		case c.Connector == e.Connector:
			mark = "✓"
		case c.State == "ready":
			mark = "·"
		}
		fmt.Fprintf(&b, "  %s %-*s  %s\n", mark, wide, clean(c.Connector), candidateText(c, rule != e.Rule))
		switch c.State {
		case "paused":
			advice = append(advice, "msgctl connector resume "+c.Connector)
		case "missing":
			advice = append(advice, "msgctl connector add "+c.Connector+" --kind KIND, or take it out: msgctl route ls")
		}
	}
	if len(e.Candidates) == 0 {
		advice = append(advice, "msgctl connector add NAME --kind KIND")
	}
	for _, s := range advice {
		fmt.Fprintf(&b, "  → %s\n", clean(s))
	}
	return b.String()
}

// candidateText writes "ready, weight 3" or "resting until 14:07:12: throttled, in reserve, 40 % fail".
func candidateText(c sdk.RouteCandidate, byPriority bool) string {
	s := c.State
	if c.Until != nil {
		s += " until " + c.Until.Format(time.RFC3339)
	}
	if c.Detail != "" {
		s += ": " + c.Detail
	}
	switch {
	case byPriority:
	case c.Weight == 0:
		s += ", in reserve"
	default:
		s += fmt.Sprintf(", weight %d", c.Weight)
	}
	if c.Failing > 0 {
		s += fmt.Sprintf(", %.0f %% of the last attempts failed", c.Failing*100)
	}
	return clean(s)
}
