package steps

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

var lanes = map[string]sdk.Lane{"urgently": sdk.Urgent, "in bulk": sdk.Bulk}

func registerPolicies(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" retries (SMS|e-mail|WhatsApp) after "([^"]*)"(?: and gives up after "([^"]*)")?$`,
		func(ctx context.Context, tenant, ch, delays, giveUp string) error {
			c, err := of(ctx).client(tenant)
			if err != nil {
				return err
			}
			rules, err := c.Retries.List(ctx)
			if err != nil {
				return err
			}
			rule := sdk.RetryRule{Channel: channels[ch], Delays: strings.Split(delays, ", "), GiveUpAfter: giveUp}
			_, err = c.Retries.Set(ctx, append(rules, rule))
			return err
		})
	sc.Step(`^"([^"]*)" may hand in (\d+) messages per second$`, func(ctx context.Context, tenant string, n int) error {
		w := of(ctx)
		if err := configure(ctx, tenant, sdk.TenantRequest{AcceptRate: float64(n)}); err != nil {
			return err
		}
		if tenant == w.box.Tenant { // a client that gives up at once, so that a refusal shows
			w.tenants[tenant] = sdk.New(sdk.WithURL(w.box.URL), sdk.WithKey(w.box.Key), sdk.WithMaxRetries(0))
		}
		return nil
	})
	sc.Step(`^"([^"]*)" hands in (\d+) messages at once$`, func(ctx context.Context, tenant string, n int) error {
		w := of(ctx)
		w.refused = nil
		for i := range n {
			if err := w.send(ctx, tenant, sdk.SMS{To: recipient(i), Text: "Hello"}); err != nil {
				return err
			}
			if w.err != nil {
				w.refused = append(w.refused, w.err)
			}
		}
		w.err = nil
		return nil
	})
	sc.Step(`^(none|\d+ to \d+) of them (?:is|are) refused(?: with "([^"]*)" and told when to come again)?$`,
		func(ctx context.Context, what, code string) error {
			w := of(ctx)
			least, most := 0, 0
			if what != "none" {
				if _, err := fmt.Sscanf(what, "%d to %d", &least, &most); err != nil {
					return err
				}
			}
			if n := len(w.refused); n < least || n > most {
				return fmt.Errorf("%d are refused: %w", n, errors.Join(w.refused...))
			}
			for _, err := range w.refused {
				var e *sdk.Error
				if !errors.As(err, &e) || e.Code != code || e.RetryAfter <= 0 {
					return fmt.Errorf("one is refused otherwise: %w", err)
				}
			}
			return nil
		})
	sc.Step(`^"([^"]*)" sends (\d+) messages by SMS (urgently|in bulk)$`,
		func(ctx context.Context, tenant string, n int, lane string) error {
			w := of(ctx)
			for i := range n {
				if err := w.send(ctx, tenant, sdk.SMS{To: recipient(i), Text: "Hello"}, sdk.InLane(lanes[lane])); err != nil {
					return err
				}
				if w.err != nil {
					return w.err
				}
			}
			return nil
		})
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by SMS (urgently|in bulk)$`,
		func(ctx context.Context, tenant, text, to, lane string) error {
			return of(ctx).sendText(ctx, tenant, "SMS", to, text, sdk.InLane(lanes[lane]))
		})
	sc.Step(`^"([^"]*)" still has (\d+) to (\d+) (urgent|bulk) messages waiting$`,
		func(ctx context.Context, tenant string, least, most int, lane string) error {
			c, err := of(ctx).client(tenant)
			if err != nil {
				return err
			}
			n := 0
			for m, err := range c.Messages.All(ctx, sdk.MessageQuery{}) {
				if err != nil {
					return err
				}
				if m.Status.Waiting() && string(m.Lane) == lane {
					n++
				}
			}
			if n < least || n > most {
				return fmt.Errorf("%d messages of %s wait", n, tenant)
			}
			return nil
		})
}

// recipient is the nth of many ordinary phone numbers, from 0.
func recipient(i int) string { return fmt.Sprintf("+1202%07d", 6000000+i) }
