package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

// finding is one line of doctor.
type finding struct {
	OK     bool   `json:"ok"`
	What   string `json:"what"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

func (a *app) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check the set-up, to the providers; exit 9 if a line is ✗", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := a.examine(cmd.Context())
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			bad := 0
			for _, f := range found {
				if !f.OK {
					bad++
				}
			}
			if a.human() {
				for _, f := range found {
					if _, err := fmt.Fprintln(a.out, a.findingText(f)); err != nil {
						return err
					}
				}
			} else if err := list(a, view{cols: []string{"ok", "what", "detail", "fix"}, id: "what"}, found); err != nil {
				return err
			}
			if bad > 0 {
				return &outcomeError{code: exitUnmet, what: fmt.Sprintf("%s of %d failed", count(bad, "check"), len(found))}
			}
			return nil
		},
	}
	return a.shape(cmd, finding{})
}

func (a *app) findingText(f finding) string {
	mark := a.paint(green, "✓")
	if !f.OK {
		mark = a.paint(red, "✗")
	}
	s := mark + " " + clean(f.What)
	if f.Detail != "" {
		s += "  " + clean(f.Detail)
	}
	if f.Fix != "" {
		s += "\n  fix: " + f.Fix
	}
	return s
}

// examine goes from the near to the far, and stops where nothing further can be seen.
func (a *app) examine(ctx context.Context) []finding {
	t, err := a.target()
	if err != nil {
		f := finding{What: "contexts", Detail: err.Error()}
		var u *usageError
		if errors.As(err, &u) {
			f.Fix = u.fix
		}
		return []finding{f}
	}
	where := "no context"
	if t.context != "" {
		where = "context " + t.context
	}
	out := []finding{{OK: true, What: "settings", Detail: where + ", " + t.url}}
	c, err := a.client()
	if err != nil {
		return append(out, finding{What: "settings", Detail: err.Error()})
	}
	h, err := c.Health(ctx)
	if err != nil {
		return append(out, finding{
			What: "engine", Detail: err.Error(), Fix: "start one here with msgctl dev, or name another with --url",
		})
	}
	out = append(out, finding{OK: h.OK, What: "engine", Detail: h.Version})
	for _, part := range sortedParts(h.Parts) {
		out = append(out, finding{OK: h.Parts[part] == "ok", What: part, Detail: h.Parts[part]})
	}
	who, err := c.Whoami(ctx)
	if err != nil {
		fix := "set MSGCTL_API_KEY, or: msgctl context set NAME --url URL --key-file FILE"
		if !errors.Is(err, sdk.ErrUnauthorized) {
			fix = ""
		}
		return append(out, finding{What: "key", Detail: err.Error(), Fix: fix})
	}
	out = append(out, finding{OK: true, What: "key", Detail: identity(who)})
	if who.Tenant == "" {
		return out // an operator's key without a tenant has no connectors of its own
	}
	return append(out, a.examineConnectors(ctx, c)...)
}

func sortedParts(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (a *app) examineConnectors(ctx context.Context, c *sdk.Client) []finding {
	all, err := c.Connectors.List(ctx)
	if err != nil {
		return []finding{{What: "connectors", Detail: err.Error()}}
	}
	if len(all) == 0 {
		return []finding{{What: "connectors", Detail: "there are none: nothing can be sent", Fix: "see: msgctl connector types"}}
	}
	var out []finding
	for _, k := range all {
		f := finding{OK: true, What: "connector " + k.Name, Detail: k.Kind}
		if k.State == "paused" {
			f.OK, f.Detail, f.Fix = false, "paused: "+k.Reason, "msgctl connector resume "+k.Name
			out = append(out, f)
			continue
		}
		got, err := c.Connectors.Test(ctx, k.Name)
		switch {
		case err != nil:
			f.OK, f.Detail = false, err.Error()
		case !got.OK:
			f.OK, f.Detail, f.Fix = false, got.Detail, "see its settings: msgctl connector get "+k.Name
		}
		out = append(out, f)
	}
	return out
}

func identity(who *sdk.Identity) string {
	var s []string
	if who.Tenant != "" {
		s = append(s, "tenant "+who.Tenant)
	}
	if who.Admin {
		s = append(s, "operator")
	}
	return strings.Join(append(s, who.Mode), ", ")
}

func (a *app) whoamiCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "whoami", Short: "Say whom the key belongs to", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			who, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			return a.object(view{cols: []string{"tenant", "mode", "admin", "key"}, id: "tenant"}, who)
		},
	}
	return a.shape(cmd, sdk.Identity{})
}
