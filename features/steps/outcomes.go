package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// current reads the last message anew.
func (w *world) current(ctx context.Context) (*sdk.Message, error) { return w.read(ctx, "") }

// read reads the message of a text anew; the last one when there is no text.
func (w *world) read(ctx context.Context, text string) (*sdk.Message, error) {
	if w.err != nil {
		return nil, fmt.Errorf("the request was refused: %w", w.err)
	}
	m, err := w.one(text)
	if err != nil {
		return nil, err
	}
	c, err := w.client(m.tenant)
	if err != nil {
		return nil, err
	}
	return c.Messages.Get(ctx, m.id)
}

// becomes waits for a status.
func (w *world) becomes(ctx context.Context, text, status, reason string) error {
	return eventually(func() error {
		m, err := w.read(ctx, text)
		switch {
		case err != nil:
			return err
		case string(m.Status) != status:
			return fmt.Errorf("the message is %s (%s %s), not %s", m.Status, m.Reason, m.Detail, status)
		case reason != "" && m.Reason != reason:
			return fmt.Errorf("the message is %s because %q, not %q", m.Status, m.Reason, reason)
		}
		return nil
	})
}

// shown lists what a recipient got, in the order in which it came; by names a channel, "" = any.
func (w *world) shown(to, by string) []simulator.Entry {
	var got []simulator.Entry
	for _, e := range w.box.Sim.Ledger().Entries(0) {
		if e.Taken && e.To == to && (by == "" || e.Channel == string(channels[by])) {
			got = append(got, e)
		}
	}
	return got
}

func registerOutcomes(sc *godog.ScenarioContext) {
	sc.Step(`^the message(?: "([^"]*)")? (?:is|becomes) (accepted|scheduled|queued|held|deferred|ambiguous|sent|delivered|read|undelivered|failed|suppressed|expired|canceled|unknown)(?: because "([^"]*)")?$`,
		func(ctx context.Context, text, status, reason string) error {
			w := of(ctx)
			if status == "accepted" {
				_, err := w.read(ctx, text)
				return err
			}
			return w.becomes(ctx, text, status, reason)
		})
	sc.Step(`^"([^"]*)" shows "([^"]*)"(?: by (SMS|WhatsApp))?(?: exactly (once|twice))?$`,
		func(ctx context.Context, to, text, by, times string) error {
			w := of(ctx)
			return eventually(func() error {
				n := 0
				for _, e := range w.shown(to, by) {
					if strings.Contains(e.Text, text) || strings.Contains(e.Subject, text) {
						n++
					}
				}
				want := map[string]int{"once": 1, "twice": 2}[times]
				if n == 0 || want > 0 && n != want {
					return fmt.Errorf("%s shows %q %d times", to, text, n)
				}
				return nil
			})
		})
	sc.Step(`^"([^"]*)" shows nothing(?: by (SMS|WhatsApp))?$`, func(ctx context.Context, to, by string) error {
		w := of(ctx)
		if err := w.settle(ctx); err != nil {
			return err
		}
		if got := w.shown(to, by); len(got) > 0 {
			return fmt.Errorf("%s shows %q", to, got[0].Text)
		}
		return nil
	})
	sc.Step(`^nobody got it twice$`, func(ctx context.Context) error {
		seen := map[string]bool{}
		for _, e := range of(ctx).box.Sim.Ledger().Entries(0) {
			k := e.Channel + " " + e.To + " " + e.Text
			if e.Taken && seen[k] {
				return fmt.Errorf("%s got it twice", e.To)
			}
			seen[k] = seen[k] || e.Taken
		}
		return nil
	})
	sc.Step(`^it is marked as a possible duplicate$`, func(ctx context.Context) error {
		m, err := of(ctx).current(ctx)
		if err == nil && !m.PossibleDuplicate {
			err = errors.New("it is not marked")
		}
		return err
	})
	sc.Step(`^the request is refused with "([^"]*)"(?: naming "([^"]*)")?$`, func(ctx context.Context, code, pointer string) error {
		w := of(ctx)
		var e *sdk.Error
		if !errors.As(w.err, &e) {
			return fmt.Errorf("the request was not refused: %w", w.err)
		}
		if e.Code != code {
			for _, f := range e.Fields {
				if f.Code == code && (pointer == "" || f.Pointer == pointer) {
					return nil
				}
			}
			return fmt.Errorf("it was refused with %w", e)
		}
		for _, f := range e.Fields {
			if f.Pointer == pointer {
				return nil
			}
		}
		if pointer != "" {
			return fmt.Errorf("nothing points at %s: %w", pointer, e)
		}
		return nil
	})
	sc.Step(`^the request is accepted as the same message$`, func(ctx context.Context) error {
		w := of(ctx)
		if w.err != nil {
			return w.err
		}
		if len(w.sent) < 2 || slices.ContainsFunc(w.sent, func(id string) bool { return id != w.sent[0] }) {
			return fmt.Errorf("the ids are %v", w.sent)
		}
		return nil
	})
	sc.Step(`^the explanation says "([^"]*)"$`, func(ctx context.Context, words string) error {
		w := of(ctx)
		return eventually(func() error {
			x, err := w.tenants[w.tenant].Messages.Explain(ctx, w.last.ID)
			if err != nil {
				return err
			}
			if !strings.Contains(x.Summary+" "+strings.Join(x.WouldChange, " "), words) {
				return fmt.Errorf("it says %q, would change: %q", x.Summary, x.WouldChange)
			}
			return nil
		})
	})
	sc.Step(`^its attempts ended after:$`, func(ctx context.Context, table *godog.Table) error {
		w := of(ctx)
		facts, err := w.tenants[w.tenant].Messages.Timeline(ctx, w.last.ID)
		if err != nil {
			return err
		}
		var got []time.Duration
		for _, f := range facts {
			if f.Kind == "deferred" || f.Kind == "sent" || f.Kind == "ambiguous" || f.Kind == "ended" && f.Attempt > 0 {
				got = append(got, f.At.Sub(start))
			}
		}
		for i, cell := range table.Rows[0].Cells {
			want, err := time.ParseDuration(cell.Value)
			if err != nil {
				return err
			}
			if i >= len(got) || got[i] != want {
				return fmt.Errorf("attempts ended after %v", got)
			}
		}
		if len(got) > len(table.Rows[0].Cells) {
			return fmt.Errorf("attempts ended after %v", got)
		}
		return nil
	})
	sc.Step(`^at most (\d+) messages left in any (\d+) second window$`, func(ctx context.Context, most, seconds int) error {
		entries := of(ctx).box.Sim.Ledger().Entries(0)
		for i := range entries {
			n := 0
			for _, e := range entries[i:] {
				if e.At.Sub(entries[i].At) < time.Duration(seconds)*time.Second {
					n++
				}
			}
			if n > most {
				return fmt.Errorf("%d messages left in the %d s from %s", n, seconds, entries[i].At)
			}
		}
		return nil
	})
	sc.Step(`^all (\d+) messages are delivered$`, func(ctx context.Context, n int) error {
		return of(ctx).deliveredAll(ctx, n)
	})
	sc.Step(`^tenant "([^"]*)" sees none of it$`, func(ctx context.Context, other string) error {
		w := of(ctx)
		c, err := w.client(other)
		if err != nil {
			return err
		}
		if _, err := c.Messages.Get(ctx, w.last.ID); !errors.Is(err, sdk.ErrNotFound) {
			return fmt.Errorf("%s can read it: %w", other, err)
		}
		if _, err := c.Messages.Timeline(ctx, w.last.ID); !errors.Is(err, sdk.ErrNotFound) {
			return fmt.Errorf("%s can read its timeline: %w", other, err)
		}
		for m, err := range c.Messages.All(ctx, sdk.MessageQuery{}) {
			return fmt.Errorf("%s lists %s: %w", other, m.ID, err)
		}
		return nil
	})
	sc.Step(`^every message is accounted for$`, func(ctx context.Context) error {
		w := of(ctx)
		for name := range w.tenants {
			c := w.tenants[name]
			a, err := c.Audit.Verify(ctx)
			if err != nil {
				return err
			}
			if !a.OK || a.Accepted != a.Live+a.HandedOn+a.Ended {
				return fmt.Errorf("%s: %+v", name, a)
			}
		}
		return nil
	})
	sc.Step(`^the engine restarts$`, func(ctx context.Context) error { return of(ctx).restart(ctx) })
}

// deliveredAll waits until the tenant that sent last has n delivered messages.
func (w *world) deliveredAll(ctx context.Context, n int) error {
	delivered := map[string]bool{}
	err := eventually(func() error {
		done := 0
		for m, err := range w.tenants[w.tenant].Messages.All(ctx, sdk.MessageQuery{Status: sdk.Delivered}) {
			if err != nil {
				return err
			}
			if m.ID != "" {
				done++
				delivered[m.ID] = true
			}
		}
		if done != n {
			return fmt.Errorf("%d are delivered", done)
		}
		return nil
	})
	missing := slices.IndexFunc(w.sent, func(id string) bool { return !delivered[id] })
	if err != nil && missing >= 0 {
		err = fmt.Errorf("%w; of %s the %s", err, w.sent[missing], w.timeline(ctx, w.sent[missing]))
	}
	return err
}
