package steps

import (
	"context"
	"fmt"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// account returns the simulator's account behind a connector: connectors that a feature makes log in by their own name.
func account(connector string) string {
	for ch, name := range connectorNames {
		if name == connector {
			return accounts[ch]
		}
	}
	return connector
}

// connector describes a connector of the simulator that logs in by its own name.
func (w *world) connector(ch, name string) sdk.ConnectorRequest {
	if ch == "e-mail" {
		return sdk.ConnectorRequest{Kind: "smtp", Settings: map[string]string{
			"addr": w.box.Sim.SMTPAddr(), "from": "msgctl <news@sim.test>", "tls": "none", "username": name,
			"password": sandbox.Password,
		}}
	}
	return sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
		"addr": w.box.Sim.SMPPAddr(), "system_id": name, "password": sandbox.Password, "from": "msgctl",
	}}
}

func registerRouting(sc *godog.ScenarioContext) {
	sc.Step(`^an? (SMS|e-mail) connector "([^"]*)" for "([^"]*)"$`,
		func(ctx context.Context, ch, name, tenant string) error {
			w := of(ctx)
			c, err := w.client(tenant)
			if err == nil {
				_, err = c.Connectors.Put(ctx, name, w.connector(ch, name))
			}
			return err
		})
	sc.Step(`^an? (SMS|e-mail) connector "([^"]*)" for everybody limited to (\d+) per second$`,
		func(ctx context.Context, ch, name string, rate int) error {
			w := of(ctx)
			operator, err := w.operator()
			if err != nil {
				return err
			}
			r := w.connector(ch, name)
			r.Shared, r.Rate, r.Burst = true, float64(rate), 1
			_, err = operator.Connectors.Put(ctx, name, r)
			return err
		})
	sc.Step(`^"([^"]*)" routes (SMS|e-mail)(?: to "([^"]*)")? by:$`,
		func(ctx context.Context, tenant, ch, prefix string, table *godog.Table) error {
			c, err := of(ctx).client(tenant)
			if err != nil {
				return err
			}
			rule := sdk.Route{Channel: channels[ch], Prefix: prefix}
			for _, row := range table.Rows {
				target := sdk.RouteTarget{Connector: row.Cells[0].Value, Weight: number(row.Cells[1].Value)}
				rule.Targets = append(rule.Targets, target)
			}
			rules, err := c.Routes.List(ctx)
			if err == nil {
				_, err = c.Routes.Set(ctx, append(rules, rule))
			}
			return err
		})
	sc.Step(`^"([^"]*)" lets a message in doubt go by another connector$`, func(ctx context.Context, tenant string) error {
		return configure(ctx, tenant, sdk.TenantRequest{RerouteInDoubt: true})
	})
	sc.Step(`^connector "([^"]*)" fails (\d+) times? with "([^"]*)" then recovers$`,
		func(ctx context.Context, name string, n int, fault string) error {
			return of(ctx).fail(account(name), n, fault)
		})
	sc.Step(`^connector "([^"]*)" (?:fails with "([^"]*)"|is down)$`, func(ctx context.Context, name, fault string) error {
		if fault == "" {
			fault = string(simulator.Down)
		}
		return of(ctx).fail(account(name), -1, fault)
	})
	sc.Step(`^connector "([^"]*)" comes back$`, func(ctx context.Context, name string) error {
		w := of(ctx)
		w.box.Sim.Heal(account(name))
		c, err := w.box.Client.Connectors.Get(ctx, name)
		if err != nil || c.Kind != "smpp" {
			return err
		}
		return eventually(func() error { // sessions are tried again at moments of real time, which no step turns
			if w.box.Sim.Bound(account(name)) == 0 {
				return fmt.Errorf("%s has no session", name)
			}
			return nil
		})
	})
	sc.Step(`^connector "([^"]*)" is (paused|resumed)$`, func(ctx context.Context, name, what string) error {
		c := of(ctx).box.Client.Connectors
		do := c.Pause
		if what == "resumed" {
			do = c.Resume
		}
		_, err := do(ctx, name)
		return err
	})
	sc.Step(`^the message(?: "([^"]*)")? goes by "([^"]*)"$`, func(ctx context.Context, text, name string) error {
		w := of(ctx)
		return eventually(func() error {
			m, err := w.read(ctx, text)
			switch {
			case err != nil:
				return err
			case m.Status.Waiting() || m.Connector != name:
				return fmt.Errorf("the message is %s (%s %s), by %q", m.Status, m.Reason, m.Detail, m.Connector)
			}
			return nil
		})
	})
	sc.Step(`^(\d+) to (\d+) of them went by "([^"]*)"$`, func(ctx context.Context, least, most int, name string) error {
		if n := of(ctx).seenBy(name); n < least || n > most {
			return fmt.Errorf("%d went by %s", n, name)
		}
		return nil
	})
	sc.Step(`^connector "([^"]*)" has seen (nothing|\d+ messages?)$`, func(ctx context.Context, name, what string) error {
		w, want := of(ctx), 0
		if what != "nothing" {
			if _, err := fmt.Sscanf(what, "%d", &want); err != nil {
				return err
			}
		}
		if err := w.settle(ctx); err != nil {
			return err
		}
		if n := w.seenBy(name); n != want {
			return fmt.Errorf("%s has seen %d", name, n)
		}
		return nil
	})
}

// seenBy counts what a connector submitted, taken or not.
func (w *world) seenBy(connector string) (n int) {
	for _, e := range w.box.Sim.Ledger().Entries(0) {
		if e.Account == account(connector) {
			n++
		}
	}
	return n
}
