package steps

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

// nextWay is one further way of a send: ", then after 5 minutes by SMS to …".
var nextWay = regexp.MustCompile(`, then (?:after (\d+) (second|minute|hour)s? )?by (SMS|e-mail|WhatsApp)(?: to "([^"]*)")?`)

func registerWays(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by (SMS|e-mail|WhatsApp)((?:, then (?:after \d+ \w+ )?by (?:SMS|e-mail|WhatsApp)(?: to "[^"]*")?)+)$`,
		func(ctx context.Context, tenant, text, to, ch, ways string) error {
			w, at := of(ctx), to
			var opts []sdk.SendOption
			for _, way := range nextWay.FindAllStringSubmatch(ways, -1) {
				if way[1] != "" {
					opts = append(opts, sdk.Within(time.Duration(number(way[1]))*units[way[2]], ""))
				}
				if way[4] != "" {
					at = way[4]
				}
				opts = append(opts, sdk.Fallback(w.content(way[3], at, text)))
			}
			return w.sendText(ctx, tenant, ch, to, text, opts...)
		})
	sc.Step(`^its ways are:$`, func(ctx context.Context, table *godog.Table) error {
		w := of(ctx)
		return eventually(func() error {
			m, err := w.current(ctx)
			if err != nil {
				return err
			}
			return compareWays(m.Legs, table)
		})
	})
	sc.Step(`^"([^"]*)" has (\d+) messages? in all$`, func(ctx context.Context, tenant string, n int) error {
		c, err := of(ctx).client(tenant)
		if err != nil {
			return err
		}
		a, err := c.Audit.Verify(ctx)
		if err == nil && a.Accepted != int64(n) {
			err = fmt.Errorf("the books count %d", a.Accepted)
		}
		return err
	})
}

// compareWays compares a message's legs with rows of channel, status, why it made way, and "won" for the one it counts
// by.
func compareWays(legs []sdk.LegState, table *godog.Table) error {
	var got, want []string
	for _, l := range legs {
		won := ""
		if l.Winner {
			won = "won"
		}
		got = append(got, strings.Join([]string{string(l.Channel), string(l.Status), l.Reason, won}, " | "))
	}
	for _, row := range table.Rows {
		cells := make([]string, 4)
		for i, c := range row.Cells {
			cells[min(i, 3)] = c.Value
		}
		ch, ok := channels[cells[0]]
		if !ok {
			return fmt.Errorf("unknown channel %q", cells[0])
		}
		cells[0] = string(ch)
		want = append(want, strings.Join(cells, " | "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		return fmt.Errorf("its ways are %q, not %q", got, want)
	}
	return nil
}
