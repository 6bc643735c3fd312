package steps

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
)

// restart drains the engine and starts it again on what it stored.
func (w *world) restart(ctx context.Context) error {
	if err := w.box.Restart(ctx); err != nil {
		return err
	}
	for name := range w.tenants { // clients inside the process end with it
		if name != w.box.Tenant {
			delete(w.tenants, name)
		}
	}
	return nil
}

// member returns the phone number of the nth member of an audience.
func member(n int) string { return fmt.Sprintf("+1202%07d", 6000000+n) }

func registerCampaigns(sc *godog.ScenarioContext) {
	sc.Step(`^an audience "([^"]*)" of (\d+) people(?:, (\d+) of them opted out)?$`,
		func(ctx context.Context, name string, n int, optedOut string) error {
			w, out := of(ctx), number(optedOut)
			var csv strings.Builder
			csv.WriteString("phone,first_name\n")
			for i := range n {
				csv.WriteString(member(i) + ",Asha\n")
			}
			_, err := w.box.Client.Audiences.Import(ctx, name, strings.NewReader(csv.String()), sdk.ImportOptions{})
			if err != nil {
				return err
			}
			// They opt out after the import, so that the campaign has to find out by itself.
			for i := range out {
				s := sdk.Suppression{Channel: sdk.ChannelSMS, To: member(i * (n / out)), Reason: "opt_out"}
				if err := w.box.Client.Suppressions.Add(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	sc.Step(`^a campaign "([^"]*)" of template "([^"]*)" to "([^"]*)"(?: at (\d+) per second)?$`,
		func(ctx context.Context, name, template, audience, rate string) error {
			_, err := of(ctx).box.Client.Campaigns.Create(ctx, sdk.CampaignRequest{
				Name: name, Audience: audience, Templates: []string{template}, Rate: float64(number(rate)),
			})
			return err
		})
	sc.Step(`^campaign "([^"]*)" starts$`, func(ctx context.Context, name string) error {
		_, err := of(ctx).box.Client.Campaigns.Start(ctx, name)
		return err
	})
	sc.Step(`^campaign "([^"]*)" is (paused|stopped) once (\d+) people have it$`, stopAt)
	sc.Step(`^campaign "([^"]*)" resumes$`, func(ctx context.Context, name string) error {
		_, err := of(ctx).box.Client.Campaigns.Resume(ctx, name)
		return err
	})
	sc.Step(`^nobody else gets it while (\d+) minutes pass$`, func(ctx context.Context, minutes int) error {
		w := of(ctx)
		if err := w.settle(ctx); err != nil {
			return err
		}
		before := w.box.Sim.Ledger().Len()
		if err := w.pass(ctx, time.Duration(minutes)*time.Minute); err != nil {
			return err
		}
		if after := w.box.Sim.Ledger().Len(); after != before {
			return fmt.Errorf("%d more people got it", after-before)
		}
		return nil
	})
	sc.Step(`^campaign "([^"]*)" (?:is|ends) (completed|stopped|paused)$`, func(ctx context.Context, name, state string) error {
		w := of(ctx)
		return w.turnUntil(func() error {
			c, err := w.box.Client.Campaigns.Get(ctx, name)
			if err == nil && c.State != state {
				err = fmt.Errorf("the campaign is %s", c.State)
			}
			return err
		})
	})
	sc.Step(`^campaign "([^"]*)" reports:$`, func(ctx context.Context, name string, table *godog.Table) error {
		w := of(ctx)
		return w.turnUntil(func() error { return w.reports(ctx, name, table) })
	})
}

// stopAt pauses or stops a campaign once the simulator has seen n messages.
func stopAt(ctx context.Context, name, what string, n int) error {
	w := of(ctx)
	err := eventually(func() error {
		if seen := w.box.Sim.Ledger().Len(); seen < n {
			w.clock.Advance(20 * time.Millisecond)
			return fmt.Errorf("only %d people got it", seen)
		}
		return nil
	})
	if err != nil {
		return err
	}
	act := w.box.Client.Campaigns.Pause
	if what == "stopped" {
		act = w.box.Client.Campaigns.Stop
	}
	_, err = act(ctx, name)
	return err
}

// reports compares a campaign's report with a table of statuses and counts; it must also add up.
func (w *world) reports(ctx context.Context, name string, table *godog.Table) error {
	r, err := w.box.Client.Campaigns.Report(ctx, name)
	if err != nil {
		return err
	}
	sum := 0
	for _, n := range r.ByStatus {
		sum += n
	}
	if sum != r.Accepted {
		return fmt.Errorf("the report does not add up: %+v", r)
	}
	for _, row := range table.Rows {
		want, err := strconv.Atoi(row.Cells[1].Value)
		if err != nil {
			return err
		}
		if got := r.ByStatus[sdk.Status(row.Cells[0].Value)]; got != want {
			return fmt.Errorf("%d are %s: %+v", got, row.Cells[0].Value, r.ByStatus)
		}
	}
	return nil
}

// turnUntil turns the clock in small steps until check returns nil.
func (w *world) turnUntil(check func() error) error {
	return eventually(func() error {
		err := check()
		if err != nil {
			w.clock.Advance(100 * time.Millisecond)
		}
		return err
	})
}
