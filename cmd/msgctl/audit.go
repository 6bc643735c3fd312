package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func (a *app) auditCmd() *cobra.Command {
	return a.group("audit", "Audit: prove that every accepted message is accounted for", a.auditVerify())
}

func (a *app) auditVerify() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Recount everything of a tenant; exit 9 if the books are wrong", Args: a.args(),
		Example: "  msgctl audit verify\n  msgctl audit verify -t acme\n  msgctl audit verify --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && a.flags.tenant != "" {
				return &usageError{what: "--all and --tenant exclude each other"}
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			var audits []sdk.Audit
			if all {
				tenants, err := c.Tenants.List(cmd.Context())
				if err != nil {
					return err
				}
				for _, t := range tenants {
					got, err := c.Audit.VerifyTenant(cmd.Context(), t.ID)
					if err != nil {
						return fmt.Errorf("tenant %s: %w", t.ID, err)
					}
					audits = append(audits, *got)
				}
			} else {
				got, err := c.Audit.Verify(cmd.Context())
				if err != nil {
					return err
				}
				audits = append(audits, *got)
			}
			v := view{
				cols: []string{"tenant", "ok", "accepted", "live", "handed_on", "ended", "facts"}, wide: []string{"problems"},
				id: "tenant", none: "no tenants",
			}
			if err := list(a, v, audits); err != nil {
				return err
			}
			return a.auditVerdict(audits)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every tenant (operators)")
	return a.shape(cmd, sdk.Audit{})
}

// auditVerdict names what is wrong. The sum is checked here again: a command that proves books does not take their word.
func (a *app) auditVerdict(audits []sdk.Audit) error {
	wrong := 0
	for _, x := range audits {
		sum := x.Live + x.HandedOn + x.Ended
		if x.OK && len(x.Problems) == 0 && sum == x.Accepted {
			continue
		}
		wrong++
		if sum != x.Accepted {
			a.complain("tenant %s: accepted %d, and its parts make %d", x.Tenant, x.Accepted, sum)
		}
		for _, p := range x.Problems {
			a.complain("tenant %s: %s  %s  %s", x.Tenant, p.Subject, p.What, p.Detail)
		}
	}
	if wrong == 0 {
		return nil
	}
	return &outcomeError{code: exitUnmet, what: fmt.Sprintf("the books of %s are wrong", count(wrong, "tenant"))}
}

// complain writes a line to stderr in spite of -q; with JSON errors it leaves the place to the problem document.
func (a *app) complain(format string, args ...any) {
	if a.jsonErrors(nil) || a.flags.output == "json" || a.flags.output == "jsonl" {
		return
	}
	_, _ = fmt.Fprintf(a.err, "✗ "+format+"\n", cleanAll(args)...)
}
