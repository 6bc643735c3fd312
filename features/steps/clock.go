package steps

import (
	"context"
	"fmt"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

// wall is how features write a date and a time.
const wall = "2006-01-02 15:04"

func registerClock(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by SMS at "([^"]*)" in "([^"]*)"(?: valid for (\S+))?$`,
		func(ctx context.Context, tenant, text, to, at, zone, ttl string) error {
			w := of(ctx)
			opts, err := options(w, "", ttl, "")
			if err != nil {
				return err
			}
			return w.sendText(ctx, tenant, "SMS", to, text, append(opts, sdk.AtLocal(at, zone))...)
		})
	sc.Step(`^the message is due at "([^"]*)" UTC(?: and expires at "([^"]*)" UTC)?$`,
		func(ctx context.Context, due, expires string) error {
			m, err := of(ctx).current(ctx)
			if err != nil {
				return err
			}
			if got := shownTime(m.DueAt); got != due {
				return fmt.Errorf("the message is due at %s", got)
			}
			if got := shownTime(m.ExpiresAt); expires != "" && got != expires {
				return fmt.Errorf("the message expires at %s", got)
			}
			return nil
		})
	sc.Step(`^the clock (jumps ahead|is set back) by (\d+) (second|minute|hour|day)s?$`,
		func(ctx context.Context, where string, n int, unit string) error {
			w, d := of(ctx), time.Duration(n)*units[unit]
			if where == "is set back" {
				if err := w.settle(ctx); err != nil {
					return err
				}
				d = -d
			}
			w.clock.Advance(d)
			return nil
		})
}

func shownTime(t *time.Time) string {
	if t == nil {
		return "no time"
	}
	return t.UTC().Format(wall)
}
