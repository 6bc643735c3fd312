package steps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cucumber/godog"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

var channels = map[string]sdk.Channel{
	"SMS": sdk.ChannelSMS, "WhatsApp": sdk.ChannelWhatsApp, "e-mail": sdk.ChannelEmail, "webhook": sdk.ChannelWebhook,
}

var units = map[string]time.Duration{
	"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
}

// content makes a message with a text for a channel.
func (w *world) content(ch, to, text string) sdk.Sendable {
	switch ch {
	case "WhatsApp":
		return sdk.WhatsApp{To: to, Text: text}
	case "e-mail":
		return sdk.Email{To: to, Subject: text, Text: text}
	case "webhook":
		return sdk.Hook{URL: w.box.Sim.URL() + to, Event: "greeting", Data: map[string]string{"text": text}}
	}
	return sdk.SMS{To: to, Text: text}
}

// send sends for a tenant and remembers what came of it.
func (w *world) send(ctx context.Context, tenant string, m sdk.Sendable, opts ...sdk.SendOption) error {
	c, err := w.client(tenant)
	if err != nil {
		return err
	}
	w.tenant = tenant
	got, err := c.Send(ctx, m, opts...)
	w.err = err
	if err == nil {
		w.last = got
		w.sent = append(w.sent, got.ID)
	}
	return nil
}

// sendText is send for a text that the scenario refers to later.
func (w *world) sendText(ctx context.Context, tenant, ch, to, text string, opts ...sdk.SendOption) error {
	if err := w.send(ctx, tenant, w.content(ch, to, text), opts...); err != nil || w.err != nil {
		return err
	}
	w.texts[text] = sentText{tenant, w.last.ID}
	return nil
}

// one returns the message that a text went as; the last message when there is no text.
func (w *world) one(text string) (sentText, error) {
	if text == "" {
		if w.last == nil {
			return sentText{}, errors.New("nothing has been sent")
		}
		return sentText{w.tenant, w.last.ID}, nil
	}
	m, ok := w.texts[text]
	if !ok {
		return m, fmt.Errorf("nobody has sent %q", text)
	}
	return m, nil
}

// words of the optional endings of a send.
func options(w *world, at, ttl, key string) ([]sdk.SendOption, error) {
	var opts []sdk.SendOption
	if at != "" {
		t, err := time.Parse("15:04", at)
		if err != nil {
			return nil, err
		}
		now := w.clock.Now()
		opts = append(opts, sdk.At(time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)))
	}
	if ttl != "" {
		d, err := time.ParseDuration(ttl)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sdk.TTL(d))
	}
	if key != "" {
		opts = append(opts, sdk.IdempotencyKey(key))
	}
	return opts, nil
}

func registerActions(sc *godog.ScenarioContext) {
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by (SMS|e-mail|WhatsApp|webhook)(?: at "([^"]*)")?(?: valid for (\S+))?(?: using idempotency key "([^"]*)")?$`,
		func(ctx context.Context, tenant, text, to, ch, at, ttl, key string) error {
			w := of(ctx)
			opts, err := options(w, at, ttl, key)
			if err != nil {
				return err
			}
			return w.sendText(ctx, tenant, ch, to, text, opts...)
		})
	sc.Step(`^"([^"]*)" sends "([^"]*)" to "([^"]*)" by (SMS|e-mail|WhatsApp) at most once$`,
		func(ctx context.Context, tenant, text, to, ch string) error {
			return of(ctx).sendText(ctx, tenant, ch, to, text, sdk.AtMostOnce())
		})
	sc.Step(`^"([^"]*)" sends template "([^"]*)" to "([^"]*)" by (SMS|e-mail|WhatsApp) with:$`,
		func(ctx context.Context, tenant, name, to, ch string, table *godog.Table) error {
			vars := sdk.Vars{}
			for _, row := range table.Rows {
				vars[row.Cells[0].Value] = row.Cells[1].Value
			}
			return of(ctx).send(ctx, tenant, sdk.Template{Name: name, Channel: channels[ch], To: to, Vars: vars})
		})
	sc.Step(`^"([^"]*)" sends (\d+) messages by SMS$`, func(ctx context.Context, tenant string, n int) error {
		w := of(ctx)
		for i := range n {
			if err := w.send(ctx, tenant, sdk.SMS{To: fmt.Sprintf("+1%03d5550100", 201+i), Text: "Hello"}); err != nil {
				return err
			}
			if w.err != nil {
				return w.err
			}
		}
		return nil
	})
	sc.Step(`^(\d+) (second|minute|hour|day)s? pass(?:es)?$`, func(ctx context.Context, n int, unit string) error {
		return of(ctx).pass(ctx, time.Duration(n)*units[unit])
	})
	sc.Step(`^"([^"]*)" cancels the message(?: "([^"]*)")?$`, func(ctx context.Context, tenant, text string) error {
		w := of(ctx)
		m, err := w.one(text)
		if err == nil {
			_, err = w.tenants[tenant].Messages.Cancel(ctx, m.id)
		}
		return err
	})
	sc.Step(`^"([^"]*)" replies "([^"]*)" to the last SMS$`, func(ctx context.Context, who, text string) error {
		w := of(ctx)
		if err := w.box.Sim.Reply(delivery.SMS, accounts["SMS"], who, "msgctl", text); err != nil {
			return err
		}
		return eventually(func() error {
			s, err := w.box.Client.Suppressions.Check(ctx, sdk.ChannelSMS, who)
			if err == nil && s == nil {
				err = fmt.Errorf("%s is not on the suppression list", who)
			}
			return err
		})
	})
}
