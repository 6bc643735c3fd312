package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msgctl/msgctl/sdk"
)

func tenantView() view {
	return view{
		cols: []string{"id", "name", "used_today", "daily_quota", "weight", "on_ambiguous", "region", "created_at"},
		wide: []string{"accept_rate", "reroute_in_doubt", "rates"},
		id:   "id", none: "no tenants; make one: msgctl tenant create ID",
	}
}

func oneTenant() view {
	v := tenantView()
	return view{cols: append(v.cols, v.wide...), id: "id"}
}

func (a *app) tenantCmd() *cobra.Command {
	return a.group("tenant", "Tenants: customers of the platform, their limits (operators)",
		a.tenantCreate(), a.tenantLs(), a.tenantGet(), a.tenantSet())
}

// tenantFlags are the settings of a tenant.
type tenantFlags struct {
	r      sdk.TenantRequest
	rates  []string
	accept string
}

func (s *tenantFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.r.Name, "name", "", "the `NAME` that people see")
	f.Int64Var(&s.r.DailyQuota, "quota", 0, "at most `N` messages a UTC day; 0 = no bound")
	f.StringArrayVar(&s.rates, "limit", nil,
		"at most so many a second, `LIMIT`: 500/s, sms=50/s,100 or sms/alpha=10/s; repeat it; none removes all")
	f.StringVar(&s.r.OnAmbiguous, "on-ambiguous", "", "what follows an unclear outcome, `POLICY`: retry, hold or fail")
	f.StringVar(&s.r.Region, "region", "", "where numbers without + are from, such as `IN`")
	f.IntVar(&s.r.Weight, "weight", 1, "its share beside others of a connector that all want, `N`: 1 to 100")
	f.StringVar(&s.accept, "accept-rate", "", "take at most `N/s` messages from it; none = no bound")
	f.BoolVar(&s.r.RerouteInDoubt, "reroute-in-doubt", false,
		"try another connector after an unclear outcome; a person may then get two")
	_ = cmd.RegisterFlagCompletionFunc("on-ambiguous", fixed("retry", "hold", "fail"))
}

// apply lays the flags that were given over a tenant's settings.
func (s *tenantFlags) apply(cmd *cobra.Command, to *sdk.TenantRequest) error {
	if p := s.r.OnAmbiguous; p != "" {
		if err := oneOf("policy", p, []string{"retry", "hold", "fail"}); err != nil {
			return err
		}
	}
	if s.r.DailyQuota < 0 {
		return &usageError{what: "--quota: must be 0 or more"}
	}
	given := cmd.Flags().Changed
	if given("weight") && (s.r.Weight < 1 || s.r.Weight > maxShare) {
		return &usageError{what: fmt.Sprintf("--weight %d: must be 1 to %d", s.r.Weight, maxShare)}
	}
	if given("name") {
		to.Name = s.r.Name
	}
	if given("quota") {
		to.DailyQuota = s.r.DailyQuota
	}
	if given("on-ambiguous") {
		to.OnAmbiguous = s.r.OnAmbiguous
	}
	if given("region") {
		to.Region = strings.ToUpper(s.r.Region)
	}
	if given("weight") {
		to.Weight = s.r.Weight
	}
	if given("reroute-in-doubt") {
		to.RerouteInDoubt = s.r.RerouteInDoubt
	}
	if given("accept-rate") {
		var err error
		if to.AcceptRate, err = acceptRate(s.accept); err != nil {
			return err
		}
	}
	if !given("limit") {
		return nil
	}
	to.Rates = nil
	for _, text := range s.rates {
		if text == "none" {
			continue
		}
		r, err := parseLimit(text)
		if err != nil {
			return err
		}
		to.Rates = append(to.Rates, r)
	}
	return nil
}

// maxShare is the largest weight of a tenant.
const maxShare = 100

// acceptRate reads 100/s; none and 0 take the bound away.
func acceptRate(s string) (float64, error) {
	switch s {
	case "none", "0":
		return 0, nil
	case "":
		return 0, &usageError{what: "--accept-rate is empty", fix: "such as --accept-rate 100/s, or none"}
	}
	return perSecond(s)
}

// parseLimit reads 10/s, sms=10/s,20 or sms/alpha=10/s.
func parseLimit(text string) (sdk.Rate, error) {
	var r sdk.Rate
	value := text
	if scope, v, ok := strings.Cut(text, "="); ok {
		ch, connector, _ := strings.Cut(scope, "/")
		if err := oneOf("channel", ch, channels()); err != nil {
			return r, err
		}
		r.Channel, r.Connector, value = sdk.Channel(ch), connector, v
	}
	value, burst, hasBurst := strings.Cut(value, ",")
	var err error
	if r.PerSecond, err = perSecond(value); err == nil && r.PerSecond == 0 {
		err = &usageError{what: fmt.Sprintf("--limit %q: has no rate", text), fix: "such as --limit sms=50/s"}
	}
	if err == nil && hasBurst {
		r.Burst, err = perSecond(burst)
	}
	return r, err
}

func (a *app) tenantCreate() *cobra.Command {
	var s tenantFlags
	cmd := &cobra.Command{
		Use: "create ID", Short: "Make a tenant", Args: a.args("ID"),
		Example: "  msgctl tenant create acme --name \"Acme Ltd\" --quota 100000 --limit sms=50/s",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := sdk.TenantRequest{ID: args[0]}
			if err := s.apply(cmd, &r); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.Tenants.Create(cmd.Context(), r)
			if err != nil {
				return err
			}
			a.say("next: msgctl key create -t %s", args[0])
			return a.object(oneTenant(), t)
		},
	}
	s.register(cmd)
	return a.shape(cmd, sdk.Tenant{})
}

func (a *app) tenantSet() *cobra.Command {
	var s tenantFlags
	cmd := &cobra.Command{
		Use: "set ID", Short: "Change settings of a tenant; what is not named stays", Args: a.args("ID"),
		Example: "  msgctl tenant set acme --quota 200000 --limit sms=100/s --limit 500/s\n" +
			"  msgctl tenant set acme --weight 5 --accept-rate 200/s\n" +
			"  msgctl tenant set acme --limit none --accept-rate none",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.Tenants.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r := sdk.TenantRequest{
				Name: t.Name, DailyQuota: t.DailyQuota, Rates: t.Rates, OnAmbiguous: t.OnAmbiguous, Region: t.Region,
				Weight: t.Weight, AcceptRate: t.AcceptRate, RerouteInDoubt: t.RerouteInDoubt,
			}
			if err := s.apply(cmd, &r); err != nil {
				return err
			}
			if t, err = c.Tenants.Set(cmd.Context(), args[0], r); err != nil {
				return err
			}
			return a.object(oneTenant(), t)
		},
	}
	s.register(cmd)
	return a.shape(cmd, sdk.Tenant{})
}

func (a *app) tenantLs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List tenants", Args: a.args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all, err := c.Tenants.List(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, tenantView(), all)
		},
	}
	return a.shape(cmd, sdk.Tenant{})
}

func (a *app) tenantGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a tenant", Args: a.args("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := c.Tenants.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.object(oneTenant(), t)
		},
	}
	return a.shape(cmd, sdk.Tenant{})
}
