package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func campaignView() view {
	return view{
		cols: []string{"name", "state", "audience", "people", "expanded", "rate", "created_at"},
		wide: []string{"id", "ttl", "skipped", "started_at", "ended_at", "actions", "legs"},
		id:   "id", none: "no campaigns; make one: msgctl campaign new NAME --audience A --template T",
	}
}

func (a *app) campaignCmd() *cobra.Command {
	return a.group("campaign", "Campaigns: plan, check, run, report",
		a.campaignNew(), a.campaignLs(), a.campaignGet(), a.campaignCheck(), a.campaignStart(),
		a.campaignAct("pause", "Hold what is not handed over yet", (sdk.Campaigns).Pause),
		a.campaignAct("resume", "Go on after pause", (sdk.Campaigns).Resume),
		a.campaignStop(), a.campaignReport(), a.campaignWatch())
}

func (a *app) campaignNew() *cobra.Command {
	var (
		r         sdk.CampaignRequest
		rate      string
		ttl       time.Duration
		connector []string
	)
	cmd := &cobra.Command{
		Use: "new NAME --audience A --template T", Short: "Make a draft; nothing is sent", Args: a.args("NAME"),
		Example: "  msgctl campaign new diwali --audience customers --template offer --rate 200/s",
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			if r.Audience == "" || len(r.Templates) == 0 {
				return &usageError{
					what: "--audience and --template are needed",
					fix:  "see: msgctl audience ls, msgctl template ls",
				}
			}
			var err error
			if r.Rate, err = perSecond(rate); err != nil {
				return err
			}
			if ttl < 0 {
				return &usageError{what: "--ttl: must be more than 0"}
			}
			if ttl > 0 {
				r.TTL = ttl.String()
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if len(connector) > 0 {
				if err := pinConnectors(cmd, c, &r, connector); err != nil {
					return err
				}
			}
			made, err := c.Campaigns.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			a.say("next: msgctl campaign check %s", r.Name)
			return a.object(campaignView(), made)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Audience, "audience", "", "to the people of this audience, `NAME`")
	f.StringArrayVar(&r.Templates, "template", nil, "with this template, `NAME`; one per channel, the first wins")
	f.StringArrayVar(&connector, "via", nil, "of the template in the same place: through `CONNECTOR`")
	f.StringVar(&rate, "rate", "", "at most `N/s`; also N/m, N/h")
	f.DurationVar(&ttl, "ttl", 0, "a message may wait for `D`; default 24h")
	return a.shape(cmd, sdk.Campaign{})
}

// pinConnectors writes the long form of a campaign: a leg with its connector for each template.
func pinConnectors(cmd *cobra.Command, c *sdk.Client, r *sdk.CampaignRequest, via []string) error {
	if len(via) > len(r.Templates) {
		return &usageError{what: "there are more --via than --template"}
	}
	for i, name := range r.Templates {
		t, err := c.Templates.Get(cmd.Context(), name, 0)
		if err != nil {
			return fmt.Errorf("template %s: %w", name, err)
		}
		leg := sdk.CampaignLeg{Channel: t.Channel, Template: name}
		if i < len(via) {
			leg.Connector = via[i]
		}
		r.Legs = append(r.Legs, leg)
	}
	r.Templates = nil
	return nil
}

// perSecond reads a rate such as 200/s, 30/m or 5.
func perSecond(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	n, unit, _ := strings.Cut(s, "/")
	div := map[string]float64{"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[unit]
	v, err := strconv.ParseFloat(n, 64)
	if err != nil || div == 0 || !(v > 0) || v > 1e6 {
		return 0, &usageError{
			what: fmt.Sprintf("rate %q: needs a number above 0 and /s, /m or /h", s),
			fix:  "such as 200/s",
		}
	}
	return v / div, nil
}

func (a *app) campaignLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List campaigns, newest first", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Campaigns.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, campaignView(), all)
		},
	}
	return a.shape(cmd, sdk.Campaign{})
}

func (a *app) campaignGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a campaign", Args: a.args("NAME"), ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := c.Campaigns.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := campaignView()
			return a.object(view{cols: append(v.cols, v.wide...), id: "id"}, got)
		},
	}
	return a.shape(cmd, sdk.Campaign{})
}

func (a *app) completeCampaigns(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all, err := c.Campaigns.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) campaignAct(verb, short string, do actFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: a.args("NAME"), ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			got, err := do(c.Campaigns, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.object(campaignView(), got)
		},
	}
	return a.shape(cmd, sdk.Campaign{})
}

func (a *app) campaignStop() *cobra.Command {
	cmd := a.campaignAct("stop", "Cancel what is not handed over yet, for good", (sdk.Campaigns).Stop)
	do := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.confirm(fmt.Sprintf("Stop %q? Its waiting messages are canceled for good.", args[0])); err != nil {
			return err
		}
		return do(cmd, args)
	}
	return cmd
}

func (a *app) campaignReport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report NAME", Short: "Count where everyone is", Args: a.args("NAME"), ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.Campaigns.Report(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printReport(r)
		},
	}
	return a.shape(cmd, sdk.CampaignReport{})
}

func (a *app) campaignCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check NAME", Short: "Plan a campaign without sending: people, segments, time, problems", Args: a.args("NAME"),
		ValidArgsFunction: a.completeCampaigns,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			k, err := c.Campaigns.Check(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.human() {
				_, err = fmt.Fprint(a.out, a.checkText(k))
			} else {
				err = a.object(view{cols: []string{"people", "segments", "seconds", "skipped", "ucs2", "problems"}}, k)
			}
			if err != nil {
				return err
			}
			return checkProblems(k)
		},
	}
	return a.shape(cmd, sdk.CampaignCheck{})
}

func checkProblems(k *sdk.CampaignCheck) error {
	if len(k.Problems) == 0 {
		return nil
	}
	return &outcomeError{code: exitUnmet, what: fmt.Sprintf("%s that keep it from starting", count(len(k.Problems), "problem"))}
}

// checkText is a check for a person.
func (a *app) checkText(k *sdk.CampaignCheck) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  people %s    ", thousands(k.People))
	if k.Segments > 0 {
		fmt.Fprintf(&b, "segments %s    ", thousands(k.Segments))
	}
	fmt.Fprintf(&b, "about %s at the limits in force now\n", span(k.Seconds))
	for _, ch := range channels() {
		if n, ok := k.ByChannel[sdk.Channel(ch)]; ok {
			fmt.Fprintf(&b, "  %-9s %s people", ch, thousands(n.People))
			if n.Segments > 0 {
				fmt.Fprintf(&b, "  %s segments", thousands(n.Segments))
			}
			b.WriteString("\n")
		}
	}
	if len(k.Skipped) > 0 {
		fmt.Fprintf(&b, "  left out  %s\n", counts(k.Skipped))
	}
	if k.UCS2 > 0 {
		fmt.Fprintf(&b, "! %s need UCS-2, with 70 characters to a segment instead of 160\n", count(k.UCS2, "message"))
		if k.UCS2Sample != "" {
			fmt.Fprintf(&b, "  see why: msgctl segments %s\n", quoted(clean(k.UCS2Sample)))
		}
	}
	for _, m := range k.Missing {
		fmt.Fprintf(&b, "✗ %s without {{ %s }}, which %s needs", count(m.People, "person"), clean(m.Variable), clean(m.Template))
		if len(m.Examples) > 0 {
			fmt.Fprintf(&b, ", such as %s", clean(strings.Join(m.Examples, ", ")))
		}
		fmt.Fprintf(&b, "\n  fix: give a default   {{ %s | default: \"…\" }}\n", clean(m.Variable))
	}
	for _, p := range k.Problems {
		fmt.Fprintf(&b, "✗ %s\n", clean(p))
	}
	return b.String()
}

// quoted writes a text as one argument of a POSIX shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// isConflict reports a campaign that is in another state than the one asked for.
func isConflict(err error) bool { return errors.Is(err, sdk.ErrConflict) }
