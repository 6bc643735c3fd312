package steps

import (
	"context"
	"fmt"
	"slices"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

func registerOrder(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by (SMS|e-mail|WhatsApp)(?: at "([^"]*)")?(?: valid for (\S+))? in order "([^"]*)"$`,
		func(ctx context.Context, tenant, text, to, ch, at, ttl, key string) error {
			w := of(ctx)
			opts, err := options(w, at, ttl, "")
			if err != nil {
				return err
			}
			return w.sendText(ctx, tenant, ch, to, text, append(opts, sdk.InOrder(key))...)
		})
	sc.Step(`^"([^"]*)" sends (\d+) messages to "([^"]*)" by (SMS|e-mail|WhatsApp) in order "([^"]*)"$`,
		func(ctx context.Context, tenant string, n int, to, ch, key string) error {
			for i := range n {
				if err := of(ctx).sendText(ctx, tenant, ch, to, nth(i), sdk.InOrder(key)); err != nil {
					return err
				}
			}
			return nil
		})
	sc.Step(`^"([^"]*)" shows in this order:$`, func(ctx context.Context, to string, table *godog.Table) error {
		var want []string
		for _, row := range table.Rows {
			want = append(want, row.Cells[0].Value)
		}
		return of(ctx).showsInOrder(to, want)
	})
	sc.Step(`^"([^"]*)" shows all (\d+) in order$`, func(ctx context.Context, to string, n int) error {
		var want []string
		for i := range n {
			want = append(want, nth(i))
		}
		return of(ctx).showsInOrder(to, want)
	})
}

// nth is the text of one of several messages, from 0.
func nth(i int) string { return fmt.Sprintf("Message %d", i+1) }

// showsInOrder waits until a recipient shows these texts and no others, in this order.
func (w *world) showsInOrder(to string, want []string) error {
	return eventually(func() error {
		var got []string
		for _, e := range w.shown(to, "") {
			got = append(got, e.Text)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%s shows %q", to, got)
		}
		return nil
	})
}
