package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// showMessage shows a message whole. For a person its ways follow, a line each.
func (a *app) showMessage(m *sdk.Message) error {
	v := oneMessage()
	if !a.human() {
		v.cols = append(v.cols, "legs")
		return a.object(v, m)
	}
	if err := a.object(v, m); err != nil {
		return err
	}
	for i, l := range m.Legs {
		name := fmt.Sprintf("leg %d", i)
		line := name + "\t" + legText(l)
		if a.outTTY {
			line = a.paint(bold, fmt.Sprintf("%-18s", name)) + "  " + legText(l)
		}
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return err
		}
	}
	return nil
}

// legText writes "whatsapp +12025550100: undelivered (21), by wa; until delivered within 5m, by 2026-11-20T09:05:00Z".
func legText(l sdk.LegState) string {
	s := string(l.Channel) + " " + l.To + ": "
	if l.Status == "" {
		s += "not begun"
	} else {
		s += string(l.Status)
	}
	if l.Reason != "" {
		s += " (" + l.Reason + ")"
	}
	if l.Connector != "" {
		s += ", by " + l.Connector
	}
	if l.ProviderID != "" {
		s += " as " + l.ProviderID
	}
	if l.Until != "" {
		s += "; until " + string(l.Until)
		if l.Within != "" {
			s += " within " + l.Within
		}
		if l.Deadline != nil {
			s += ", by " + l.Deadline.Format(time.RFC3339)
		}
	}
	if l.Winner {
		s += "  ← counts"
	}
	return clean(s)
}

func timelineView() view {
	return view{cols: []string{
		"at", "kind", "status", "attempt", "connector", "code", "detail", "until", "route", "content", "leg",
	}}
}

func (a *app) messageTimeline() *cobra.Command {
	cmd := &cobra.Command{
		Use: "timeline ID", Short: "Show all that happened to a message", Args: a.args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			facts, err := c.Messages.Timeline(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return list(a, timelineView(), facts)
		},
	}
	return a.shape(cmd, sdk.Fact{})
}

func (a *app) messageExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain ID", Short: "Say why a message is where it is", Args: a.args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			e, err := c.Messages.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !a.human() {
				return a.object(view{cols: []string{
					"id", "status", "reason", "summary", "since", "until", "ahead", "would_change",
				}}, e)
			}
			out := clean(e.Summary) + "\n"
			if e.Since != nil {
				out += "  since  " + e.Since.Format(time.RFC3339) + "\n"
			}
			if e.Until != nil {
				out += "  until  " + e.Until.Format(time.RFC3339) + "\n"
			}
			if e.Ahead > 0 {
				out += fmt.Sprintf("  ahead  %d\n", e.Ahead)
			}
			for _, s := range e.WouldChange {
				out += "  → " + clean(s) + "\n"
			}
			_, err = fmt.Fprint(a.out, out)
			return err
		},
	}
	return a.shape(cmd, sdk.Explanation{})
}
