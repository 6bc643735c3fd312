package steps

import (
	"context"
	"fmt"
	"slices"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

func registerDeadLetters(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" has (no|\d+) dead letters?(?: because "([^"]*)")?$`,
		func(ctx context.Context, tenant, n, reason string) error {
			w := of(ctx)
			return eventually(func() error {
				c, err := w.client(tenant)
				if err != nil {
					return err
				}
				got := 0
				for _, err := range c.DeadLetters.All(ctx, sdk.DeadLetterFilter{Reason: reason}) {
					if err != nil {
						return err
					}
					got++
				}
				if got != number(n) {
					return fmt.Errorf("%s has %d", tenant, got)
				}
				return nil
			})
		})
	sc.Step(`^"([^"]*)" (retries|drops) (?:its dead letters|those because "([^"]*)"|the dead letter "([^"]*)")$`,
		func(ctx context.Context, tenant, what, reason, text string) error {
			w := of(ctx)
			c, err := w.client(tenant)
			if err != nil {
				return err
			}
			r := sdk.DeadLetterRequest{Filter: &sdk.DeadLetterFilter{Reason: reason}}
			if text != "" {
				m, err := w.one(text)
				if err != nil {
					return err
				}
				r = sdk.DeadLetterRequest{IDs: []string{m.id}}
			}
			do := c.DeadLetters.Retry
			if what == "drops" {
				do = c.DeadLetters.Drop
			}
			w.moved, err = do(ctx, r)
			return err
		})
	sc.Step(`^(\d+) of them (?:is|are) moved(?:, (\d+) (?:is|are) not)?$`,
		func(ctx context.Context, done int, skipped string) error {
			r := of(ctx).moved
			if r == nil || r.Done != done || len(r.Skipped) != number(skipped) || r.More {
				return fmt.Errorf("the result is %+v", r)
			}
			return nil
		})
	sc.Step(`^its history is:$`, func(ctx context.Context, table *godog.Table) error {
		w := of(ctx)
		m, err := w.one("")
		if err != nil {
			return err
		}
		c, err := w.client(m.tenant)
		if err != nil {
			return err
		}
		var want []string
		for _, cell := range table.Rows[0].Cells {
			want = append(want, cell.Value)
		}
		return eventually(func() error {
			facts, err := c.Messages.Timeline(ctx, m.id)
			if err != nil {
				return err
			}
			var got []string
			for _, f := range facts {
				got = append(got, f.Kind)
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("its history is %q", got)
			}
			return nil
		})
	})
}
