package steps

import (
	"context"
	"fmt"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// accounts maps the words of a feature to the simulator's accounts.
var accounts = map[string]string{"SMS": "sim-sms", "e-mail": "sim-mail", "WhatsApp": "100200300400500", "webhook": "200"}

var connectorNames = map[string]string{"SMS": "sim-sms", "e-mail": "sim-mail", "WhatsApp": "sim-whatsapp", "webhook": "sim-hook"}

var faults = map[string]simulator.Fault{
	"temporary": simulator.Temporary, "throttled": simulator.ThrottledFault, "rejected": simulator.RejectedFault,
	"lost acknowledgement": simulator.LostAck, "down": simulator.Down,
}

func registerSetup(sc *godog.ScenarioContext) {
	sc.Step(`^a tenant "([^"]*)"$`, func(ctx context.Context, name string) error {
		_, err := of(ctx).client(name)
		return err
	})
	sc.Step(`^a tenant "([^"]*)" with a daily quota of (\d+) messages$`, func(ctx context.Context, name string, n int) error {
		return configure(ctx, name, sdk.TenantRequest{DailyQuota: int64(n)})
	})
	sc.Step(`^"([^"]*)" may send (\d+) messages? per second(?: with bursts of (\d+))?$`,
		func(ctx context.Context, name string, rate int, burst string) error {
			return configure(ctx, name, sdk.TenantRequest{Rates: []sdk.Rate{{PerSecond: float64(rate), Burst: float64(max(number(burst), 1))}}})
		})
	sc.Step(`^"([^"]*)" wants doubtful attempts to be (retried|held|failed)$`, func(ctx context.Context, name, what string) error {
		policy := map[string]string{"retried": "retry", "held": "hold", "failed": "fail"}[what]
		return configure(ctx, name, sdk.TenantRequest{OnAmbiguous: policy})
	})
	sc.Step(`^the (SMS|e-mail|WhatsApp) connector fails (\d+) times? with "([^"]*)" then recovers$`,
		func(ctx context.Context, ch string, n int, fault string) error {
			return of(ctx).fail(accounts[ch], n, fault)
		})
	sc.Step(`^the (SMS|e-mail|WhatsApp) connector is paused$`, func(ctx context.Context, ch string) error {
		_, err := of(ctx).box.Client.Connectors.Pause(ctx, connectorNames[ch])
		return err
	})
	sc.Step(`^the (SMS|e-mail|WhatsApp) connector is resumed$`, func(ctx context.Context, ch string) error {
		_, err := of(ctx).box.Client.Connectors.Resume(ctx, connectorNames[ch])
		return err
	})
	sc.Step(`^"([^"]*)" has opted out of (SMS|e-mail|WhatsApp)$`, func(ctx context.Context, who, ch string) error {
		return of(ctx).box.Client.Suppressions.Add(ctx, sdk.Suppression{Channel: channels[ch], To: who, Reason: "opt_out"})
	})
	sc.Step(`^an? (SMS|e-mail|WhatsApp|webhook) template "([^"]*)":$`, func(ctx context.Context, ch, name string, text *godog.DocString) error {
		r := sdk.TemplateRequest{Channel: channels[ch], Text: text.Content}
		switch ch {
		case "e-mail":
			r.Subject = "News from acme"
		case "webhook":
			r.Event, r.Text, r.Data = "campaign.greeting", "", text.Content
		}
		_, err := of(ctx).box.Client.Templates.Put(ctx, name, r)
		return err
	})
	sc.Step(`^it is "([^"]*)" in "([^"]*)"$`, func(ctx context.Context, clock, zone string) error {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			return err
		}
		at, err := time.ParseInLocation(wall, clock, loc)
		if err != nil {
			return err
		}
		w := of(ctx)
		if at.Before(w.clock.Now()) {
			return fmt.Errorf("the clock cannot be turned back: it is %s", w.clock.Now().In(loc))
		}
		return w.pass(ctx, at.Sub(w.clock.Now()))
	})
}

// fail makes the next n submissions of a simulator's account fail; n < 0 = until it is healed.
func (w *world) fail(account string, n int, fault string) error {
	f, ok := faults[fault]
	if !ok {
		return fmt.Errorf("unknown fault %q: use %v", fault, faults)
	}
	w.box.Sim.Fail(account, n, f)
	return nil
}

// configure changes a tenant's settings.
func configure(ctx context.Context, name string, r sdk.TenantRequest) error {
	w := of(ctx)
	if _, err := w.client(name); err != nil {
		return err
	}
	operator, err := w.operator()
	if err != nil {
		return err
	}
	_, err = operator.Tenants.Set(ctx, name, r)
	return err
}
