package routing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

func TestExplainARule(t *testing.T) {
	const india = "+919876543210"
	ready, resting, paused := account(1, "acme", 0), account(2, "acme", 0), account(3, "acme", 0)
	unhealthy, due := account(4, "acme", 0), account(5, "acme", 0)
	paused.Paused, paused.Why = true, "by hand"
	ready.Down(start.Add(-time.Hour), "away", false)
	ready.Up() // what is over is not told
	until := resting.Down(start, "refused", false)
	due.Down(start.Add(-time.Hour), "away", false)
	for range 9 {
		unhealthy.Observe(india, transient, start)
	}
	unhealthy.Observe(india, nil, start) // the tenth attempt: enough to tell
	var table routing.Table
	table.Set([]*routing.Account{ready, resting, paused, unhealthy, due})
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: india, Rules: []delivery.RouteRule{
		{Channel: delivery.SMS, Prefix: "+1", Targets: targets("c", 1)},
		{Channel: delivery.SMS, Prefix: "+91", Targets: targets("c", 0, "d", 1, "b", 5, "x", 7, "e", 40, "f", 3)},
	}}
	e := table.Explain(&q, start)
	require.Equal(t, "rule 2: +91", e.Rule)
	require.Same(t, ready, e.Account)
	require.Equal(t, []routing.Candidate{
		{Connector: "e", Account: unhealthy, Weight: 40, State: "unhealthy", Failing: 0.9, Until: start.Add(15 * time.Second),
			Detail: "9 of the last 10 attempts to +91 failed"},
		{Connector: "x", Weight: 7, State: "missing", Detail: "there is no connector of this name for sms"},
		{Connector: "b", Account: ready, Weight: 5, State: "ready"},
		{Connector: "f", Account: due, Weight: 3, State: "resting", Detail: "away",
			Until: start.Add(2*time.Second - time.Hour)},
		{Connector: "d", Account: paused, Weight: 1, State: "paused", Detail: "by hand"},
		{Connector: "c", Account: resting, State: "resting", Detail: "refused", Until: until},
	}, e.Candidates)
	require.Equal(t, []routing.Share{{Account: ready, Part: 1}}, e.Shares())
	require.Equal(t, e, table.Explain(&q, start), "nobody was probed")
	require.True(t, due.Probe(start))
}

func TestExplainWithoutARule(t *testing.T) {
	var table routing.Table
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: "+12025550100"}
	require.Equal(t, routing.Explanation{Rule: "priority"}, table.Explain(&q, start))
	own, shared := account(1, "acme", 0), account(2, delivery.Shared, 0)
	table.Set([]*routing.Account{shared, own})
	e := table.Explain(&q, start)
	require.Same(t, own, e.Account)
	require.Equal(t, []string{"b", "c"}, []string{e.Candidates[0].Connector, e.Candidates[1].Connector})
	require.Equal(t, []routing.Share{{Account: own, Part: 1}}, e.Shares())
}

func TestSharesOfReadyTargets(t *testing.T) {
	a, b, c := account(1, "acme", 0), account(2, "acme", 0), account(3, "acme", 0)
	var table routing.Table
	table.Set([]*routing.Account{a, b, c})
	rules := []delivery.RouteRule{{Targets: targets("b", 3, "c", 1, "d", 0)}}
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS, Rules: rules}
	shares := func() []routing.Share { e := table.Explain(&q, start); return e.Shares() }
	require.Equal(t, []routing.Share{{Account: a, Part: 0.75}, {Account: b, Part: 0.25}}, shares())
	a.Down(start, "refused", false)
	require.Equal(t, []routing.Share{{Account: b, Part: 1}}, shares())
	b.Down(start, "refused", false)
	require.Equal(t, []routing.Share{{Account: c, Part: 1}}, shares())
	c.Down(start, "refused", false)
	require.Empty(t, shares())
}

// Without weights there is nothing to choose by chance: what is explained is what happens.
func TestWhatIsExplainedIsWhatHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []*routing.Account
		var rule delivery.RouteRule
		for n := range rapid.IntRange(0, 6).Draw(t, "accounts") {
			owner := rapid.SampledFrom([]delivery.TenantID{"acme", delivery.Shared}).Draw(t, "owner")
			a := account(byte(n), owner, rapid.IntRange(0, 2).Draw(t, "priority"))
			switch rapid.IntRange(0, 4).Draw(t, "trouble") {
			case 1:
				a.Paused = true
			case 2:
				a.Down(start, "refused", false)
			case 3:
				for range 10 {
					a.Observe("+12025550100", transient, start)
				}
			case 4:
				for range 20 {
					a.Observe("+442025550100", transient, start)
				}
			}
			list = append(list, a)
			rule.Targets = append(rule.Targets, delivery.RouteTarget{Connector: a.Name})
		}
		var table routing.Table
		table.Set(list)
		q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: "+12025550100"}
		if rapid.Bool().Draw(t, "by rule") {
			q.Rules = []delivery.RouteRule{rule}
		}
		now := start.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
		e := table.Explain(&q, now)
		c := table.Choose(&q, now)
		require.Same(t, e.Account, c.Account)
		require.Contains(t, c.Route+c.Reason, map[bool]string{true: e.Rule, false: "_"}[c.Account != nil])
	})
}
