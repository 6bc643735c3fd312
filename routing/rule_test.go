package routing_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

// targets reads name, weight, name, weight…
func targets(list ...any) (out []delivery.RouteTarget) {
	for i := 0; i < len(list); i += 2 {
		out = append(out, delivery.RouteTarget{Connector: list[i].(string), Weight: list[i+1].(int)})
	}
	return out
}

// msg is an id as the engine makes them: a time, then chance.
func msg(n int) (id delivery.MessageID) {
	binary.BigEndian.PutUint64(id[:8], uint64(start.UnixMilli())<<16|0x7000|uint64(n))
	binary.BigEndian.PutUint64(id[8:], uint64(n)*0x9e3779b97f4a7c15)
	return id
}

func TestWhichRuleIsAboutAMessage(t *testing.T) {
	rules := []delivery.RouteRule{
		{Channel: delivery.Email, Prefix: "example.com", Targets: targets("b", 1)},
		{Channel: delivery.Webhook, Prefix: "hooks.example.com", Targets: targets("b", 1)},
		{Channel: delivery.Webhook, Prefix: "https://api.example.com/in", Targets: targets("b", 1)},
		{Channel: delivery.Webhook, Prefix: "https://whole.example.com", Targets: targets("b", 1)},
		{Channel: delivery.SMS, Prefix: "+91", Category: "otp", Tag: "vip", Targets: targets("b", 1)},
		{Channel: delivery.SMS, Prefix: "+91", Targets: targets("b", 1)},
		{Channel: delivery.SMS, Category: "otp", Targets: targets("b", 1)},
		{Tag: "vip", Targets: targets("b", 1)},
		{Channel: delivery.WhatsApp, Targets: targets("b", 1)},
	}
	for _, c := range []struct {
		ch                delivery.Channel
		to, category, tag string
		want              string
		alone             bool
	}{
		{delivery.Email, "a@example.com", "", "", "rule 1: example.com", true},
		{delivery.Email, "a@Mail.Example.COM", "", "", "rule 1: example.com", true},
		{delivery.Email, "a@badexample.com", "", "", "priority", true},
		{delivery.Email, "example.com@other.org", "", "", "priority", true},
		{delivery.Webhook, "https://hooks.example.com/x", "", "", "rule 2: hooks.example.com", true},
		{delivery.Webhook, "https://hooks.example.com.evil.org/x", "", "", "priority", true},
		{delivery.Webhook, "https://sub.hooks.example.com/x", "", "", "priority", true},
		{delivery.Webhook, "https://api.example.com/in?x", "", "", "rule 3: https://api.example.com/in", true},
		{delivery.Webhook, "https://api.example.com/out", "", "", "priority", true},
		{delivery.Webhook, "https://whole.example.com:8443/", "", "", "rule 4: https://whole.example.com", true},
		{delivery.Webhook, "https://whole.example.com.evil.org/", "", "", "priority", true},
		{delivery.SMS, "+919876543210", "otp", "vip", "rule 5: +91 otp vip", true},
		{delivery.SMS, "+919876543210", "otp", "", "rule 6: +91", true},
		{delivery.SMS, "+12025550100", "otp", "vip", "rule 7: otp", true},
		{delivery.SMS, "+12025550191", "", "", "priority", true},
		{delivery.SMS, "+12025550191", "", "vip", "rule 8: vip", true},
		{delivery.WhatsApp, "+12025550191", "otp", "", "rule 9", true}, // rule 8 may be about others
	} {
		t.Run(c.ch.String()+" "+c.to+" "+c.category+" "+c.tag, func(t *testing.T) {
			b := account(1, "acme", 0)
			b.Channel = c.ch
			var table routing.Table
			table.Set([]*routing.Account{b})
			q := routing.Query{Tenant: "acme", Channel: c.ch, To: c.to, Category: c.category, Tag: c.tag, Rules: rules}
			got := table.Choose(&q, start)
			require.Same(t, b, got.Account)
			require.Equal(t, c.want, got.Route)
			require.Equal(t, c.alone, got.Alone)
			require.Equal(t, c.want, table.Explain(&q, start).Rule)
		})
	}
}

func TestWhoseResultHoldsForTheWholeQueue(t *testing.T) {
	plain := delivery.RouteRule{Channel: delivery.SMS, Targets: targets("b", 1)}
	narrow := delivery.RouteRule{Channel: delivery.SMS, Prefix: "+91", Targets: targets("b", 1)}
	elsewhere := delivery.RouteRule{Channel: delivery.Email, Tag: "x", Targets: targets("b", 1)}
	b := account(1, "acme", 0)
	for name, c := range map[string]struct {
		q     routing.Query
		alone bool
	}{
		"no rules":                       {routing.Query{}, false},
		"one rule for all":               {routing.Query{Rules: []delivery.RouteRule{elsewhere, plain}}, false},
		"a narrow rule after it":         {routing.Query{Rules: []delivery.RouteRule{plain, narrow}}, false},
		"a narrow rule before it":        {routing.Query{Rules: []delivery.RouteRule{narrow, plain}}, true},
		"a narrow rule that is met":      {routing.Query{To: "+919876543210", Rules: []delivery.RouteRule{narrow}}, true},
		"a narrow rule that is not met":  {routing.Query{Rules: []delivery.RouteRule{narrow}}, true},
		"pinned":                         {routing.Query{Pinned: b.ID}, true},
		"in doubt":                       {routing.Query{Doubted: b.ID}, true},
		"pinned to what is gone":         {routing.Query{Pinned: delivery.AccountID{99}}, true},
		"in doubt about one that's gone": {routing.Query{Doubted: delivery.AccountID{99}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var table routing.Table
			table.Set([]*routing.Account{b})
			c.q.Tenant, c.q.Channel = "acme", delivery.SMS
			require.Equal(t, c.alone, table.Choose(&c.q, start).Alone)
		})
	}
}

func TestTargetsOfARule(t *testing.T) {
	for name, c := range map[string]struct {
		targets []delivery.RouteTarget
		down    string // names of those that rest
		paused  string
		want    map[string]bool // who gets messages
		route   string          // of each
		reason  string
		detail  string
	}{
		"weighted":        {targets: targets("b", 1, "c", 1), want: set("bc"), route: "rule 1"},
		"a reserve waits": {targets: targets("c", 0, "b", 1), want: set("b"), route: "rule 1"},
		"reserves in their list": {
			targets: targets("b", 1, "d", 0, "c", 0), down: "b",
			want: set("d"), route: "rule 1 (b rests)",
		},
		"the last reserve": {
			targets: targets("b", 1, "d", 0, "c", 0), down: "bd",
			want: set("c"), route: "rule 1 (b rests)",
		},
		"weighted before reserves": {
			targets: targets("d", 0, "b", 1, "c", 1), paused: "b", want: set("c"),
		},
		"only reserves":     {targets: targets("d", 0, "b", 0), want: set("d"), route: "rule 1"},
		"an unknown one":    {targets: targets("x", 9, "b", 1), want: set("b"), route: "rule 1"},
		"another channel's": {targets: targets("mail", 9, "b", 1), want: set("b"), route: "rule 1"},
		"another tenant's":  {targets: targets("foreign", 9, "b", 1), want: set("b"), route: "rule 1"},
		"a shared one":      {targets: targets("common", 1), want: set("common"), route: "rule 1"},
		"none that is there": {
			targets: targets("x", 1),
			reason:  routing.ReasonNoConnector, detail: "rule 1 names no connector for sms that is there",
		},
		"no targets": {
			reason: routing.ReasonNoConnector, detail: "rule 1 names no connector for sms that is there",
		},
		"all rest": {
			targets: targets("b", 1, "c", 0), down: "bc",
			reason: routing.ReasonConnectorDown, detail: "b: refused",
		},
		"nobody else is asked": {
			targets: targets("b", 1), paused: "b",
			reason: routing.ReasonConnectorPaused, detail: "b is paused: by hand",
		},
		"who comes back is told": {
			targets: targets("b", 1, "c", 0), paused: "b", down: "c",
			reason: routing.ReasonConnectorDown, detail: "c: refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			mail, foreign, common := account(20, "acme", 0), account(21, "other", 0), account(22, delivery.Shared, 0)
			mail.Name, mail.Channel, foreign.Name, common.Name = "mail", delivery.Email, "foreign", "common"
			list := []*routing.Account{mail, foreign, common}
			for n := byte(1); n <= 3; n++ {
				a := account(n, "acme", 0)
				for _, r := range c.down {
					if a.Name == string(r) {
						a.Down(start, "refused", false)
					}
				}
				for _, r := range c.paused {
					if a.Name == string(r) {
						a.Paused, a.Why = true, "by hand"
					}
				}
				list = append(list, a)
			}
			var table routing.Table
			table.Set(list)
			rules := []delivery.RouteRule{{Channel: delivery.SMS, Targets: c.targets}}
			got := map[string]bool{}
			for i := range 100 {
				q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: number(i), Message: msg(i), Rules: rules}
				choice := table.Choose(&q, start)
				require.Equal(t, c.reason, choice.Reason)
				require.Equal(t, c.detail, choice.Detail)
				if choice.Account == nil {
					continue
				}
				got[choice.Account.Name] = true
				if c.route != "" {
					require.Equal(t, c.route, choice.Route)
				}
			}
			if c.want == nil {
				c.want = map[string]bool{}
			}
			require.Equal(t, c.want, got)
		})
	}
}

func set(names string) map[string]bool {
	out := map[string]bool{}
	if len(names) > 3 {
		return map[string]bool{names: true}
	}
	for _, r := range names {
		out[string(r)] = true
	}
	return out
}

// A tenant's own account of a name hides the shared one, even where it is for another channel.
func TestANameMeansTheTenantsOwn(t *testing.T) {
	own, shared := account(1, "acme", 0), account(2, delivery.Shared, 0)
	own.Name, shared.Name = "alpha", "alpha"
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS, Rules: []delivery.RouteRule{{Targets: targets("alpha", 1)}}}
	var table routing.Table
	table.Set([]*routing.Account{shared, own})
	require.Same(t, own, table.Choose(&q, start).Account)
	q.Tenant = "other"
	require.Same(t, shared, table.Choose(&q, start).Account)
	q.Tenant, own.Channel = "acme", delivery.Email
	table.Set([]*routing.Account{shared, own})
	require.Nil(t, table.Choose(&q, start).Account)
}

// Shares follow the weights, also of those that are left when some are out; a message keeps its account while that
// works.
func TestSharesFollowWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "targets")
		var list []*routing.Account
		var rule delivery.RouteRule
		total := 0
		out := map[string]bool{}
		weight := map[string]int{}
		for i := range n {
			a := account(byte(i), "acme", 0)
			a.Name = fmt.Sprintf("%s-%d", rapid.StringMatching("[a-z]{1,12}").Draw(t, "name"), i)
			w := rapid.IntRange(1, 1000).Draw(t, "weight")
			if i > 0 && rapid.Bool().Draw(t, "out") {
				out[a.Name] = true
			} else {
				total += w
			}
			weight[a.Name] = w
			rule.Targets = append(rule.Targets, delivery.RouteTarget{Connector: a.Name, Weight: w})
			list = append(list, a)
		}
		var table routing.Table
		table.Set(list)
		const messages = 4000
		first := rapid.IntRange(0, 1e6).Draw(t, "first message")
		ask := func(i int) string {
			q := routing.Query{
				Tenant: "acme", Channel: delivery.SMS, To: "+12025550100", Message: msg(first + i),
				Rules: []delivery.RouteRule{rule},
			}
			return table.Choose(&q, start).Account.Name
		}
		before := make([]string, messages)
		for i := range messages {
			before[i] = ask(i)
			require.Equal(t, before[i], ask(i), "the same message goes the same way")
		}
		for _, a := range list {
			if out[a.Name] {
				a.Down(start, "refused", false)
			}
		}
		got := map[string]int{}
		for i := range messages {
			name := ask(i)
			got[name]++
			require.False(t, out[name])
			if !out[before[i]] {
				require.Equal(t, before[i], name, "who was not out keeps its messages")
			}
		}
		for name, w := range weight {
			if out[name] {
				continue
			}
			share := float64(w) / float64(total)
			// Five standard deviations of a binomial share.
			within := 5*math.Sqrt(share*(1-share)/messages) + 1.0/messages
			require.InDelta(t, share, float64(got[name])/messages, within, name)
		}
	})
}

func TestInDoubtOnlyTheSameAccountMayTry(t *testing.T) {
	last, other, foreign := account(1, "acme", 5), account(2, "acme", 0), account(3, "other", 0)
	var table routing.Table
	q := routing.Query{
		Tenant: "acme", Channel: delivery.SMS, Doubted: last.ID, Rules: []delivery.RouteRule{{Targets: targets("c", 1)}},
	}
	table.Set([]*routing.Account{last, other, foreign})
	got := table.Choose(&q, start)
	require.Same(t, last, got.Account, "whatever rules and priorities say")
	require.Equal(t, "in doubt", got.Route)

	last.Down(start, "refused", false)
	got = table.Choose(&q, start)
	require.Nil(t, got.Account)
	require.Equal(t, routing.ReasonConnectorDown, got.Reason)
	require.Same(t, last, got.Blocked)
	require.True(t, table.Choose(&q, start.Add(2*time.Second)).Probe)

	table.Set([]*routing.Account{other, foreign})
	got = table.Choose(&q, start)
	require.Equal(t, routing.ReasonInDoubt, got.Reason)
	require.Zero(t, got.Until, "it waits for a person")
	q.Doubted = foreign.ID
	require.Equal(t, routing.ReasonInDoubt, table.Choose(&q, start).Reason, "nor by another tenant's")
	q.Pinned = other.ID
	require.Equal(t, "pinned", table.Choose(&q, start).Route)
}
