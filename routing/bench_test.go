package routing_test

import (
	"testing"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

// A tenant without rules pays for routing with two lookups and one lock, and nothing for the collector.
func BenchmarkChoose(b *testing.B) {
	var table routing.Table
	table.Set([]*routing.Account{account(1, "acme", 1), account(2, "acme", 2), account(3, delivery.Shared, 0)})
	split := []delivery.RouteRule{
		{Channel: delivery.Email, Targets: []delivery.RouteTarget{{Connector: "x", Weight: 1}}},
		{Channel: delivery.SMS, Prefix: "+44", Targets: []delivery.RouteTarget{{Connector: "x", Weight: 1}}},
		{Channel: delivery.SMS, Prefix: "+1", Targets: targets("b", 3, "c", 1)},
	}
	for name, q := range map[string]routing.Query{
		"own":    {Tenant: "acme", Channel: delivery.SMS, To: "+12025550100"},
		"shared": {Tenant: "other", Channel: delivery.SMS, To: "+12025550100"},
		"rule":   {Tenant: "acme", Channel: delivery.SMS, To: "+12025550100", Rules: split},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Choose(&q, start)
			}
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	well, ill := account(1, "acme", 1), account(2, "acme", 1)
	ill.Observe("+12025550100", transient, start)
	for name, a := range map[string]*routing.Account{"all well": well, "a destination that had a failure": ill} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Observe("+12025550100", nil, start)
			}
		})
	}
}

func TestChoosingWithoutRulesCostsNoMemory(t *testing.T) {
	var table routing.Table
	a := account(1, "acme", 1)
	table.Set([]*routing.Account{a, account(2, "acme", 2), account(3, delivery.Shared, 0)})
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: "+12025550100"}
	if n := testing.AllocsPerRun(100, func() {
		table.Choose(&q, start)
		a.Observe(q.To, nil, start)
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}
