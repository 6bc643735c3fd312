package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/simulator"
)

// A way to lose an answer, the same for every kind of connector.
const (
	ackLost = "answer lost"     // the provider took it and the connection ends, or nothing ever comes (submit_sm)
	tooSlow = "answer too late" // the provider took it and answers long after the attempt has ended
)

// doubtCase is one message that its provider takes without the engine hearing of it.
type doubtCase struct {
	kind, fault, policy string
	once                bool

	message  sdk.Sendable
	channel  delivery.Channel
	to       string // as the provider's ledger has it
	id       string
	requests int
	final    sdk.Status
	flagged  bool
}

// The promise, for each kind of connector against a provider that speaks its protocol: how often the provider gets the
// message, and what is said of it in the end.
func (c *doubtCase) promise() (requests int, final sdk.Status) {
	final = sdk.Sent
	if c.kind == "smpp" {
		final = sdk.Delivered // by the receipt of the second attempt
	}
	switch {
	case c.kind == "whatsapp" && c.fault == ackLost:
		return 1, sdk.Delivered // the receipt brings our token back: nothing is guessed, whatever anybody wants
	case c.once:
		return 1, sdk.Unknown
	case c.kind == "webhook":
		return 2, final // the same key again: the receiver drops it
	case c.policy == "hold":
		return 1, sdk.Held
	case c.policy == "fail":
		return 1, sdk.Failed
	}
	return 2, final
}

func TestDoubtsByKindAndPolicy(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var done []*doubtCase
	t.Run("policies", func(t *testing.T) {
		for _, policy := range []string{"retry", "hold", "fail"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				cases := doubts(t, policy)
				mu.Lock()
				done = append(done, cases...)
				mu.Unlock()
			})
		}
	})
	slices.SortFunc(done, func(a, b *doubtCase) int { return strings.Compare(a.row(), b.row()) })
	var table strings.Builder
	table.WriteString("outcome table per connector kind and policy\n" +
		"kind     | lost by         | on_ambiguous | at most once | at the provider | in the end | possible duplicate\n")
	for _, c := range done {
		table.WriteString(c.row() + "\n")
	}
	t.Log(table.String())
	require.Len(t, done, 4*2*3*2)
}

func (c *doubtCase) row() string {
	return fmt.Sprintf("%-8s | %-15s | %-12s | %-12t | %-15d | %-10s | %t", c.kind, c.fault, c.policy, c.once, c.requests, c.final,
		c.flagged)
}

// doubts runs every kind and fault for a tenant with one policy.
func doubts(t *testing.T, policy string) (all []*doubtCase) {
	clock := clockwork.NewFakeClockAt(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	b := newBox(t, onFakeClock(clock))
	operator, err := b.Operator()
	require.NoError(t, err)
	_, err = operator.Tenants.Set(b.ctx, "acme", sdk.TenantRequest{OnAmbiguous: policy})
	require.NoError(t, err)
	clock.Advance(time.Second) // a connector is opened anew when it is newer than before
	for name, r := range map[string]sdk.ConnectorRequest{
		"sim-sms": {Kind: "smpp", Settings: map[string]string{
			"addr": b.Sim.SMPPAddr(), "system_id": "sim-sms", "password": sandbox.Password, "from": "msgctl", "response_timeout": "1s",
		}},
		"sim-mail": {Kind: "smtp", Settings: map[string]string{
			"addr": b.Sim.SMTPAddr(), "from": "msgctl <news@sim.test>", "tls": "none", "username": "sim-mail", "password": sandbox.Password,
			"timeout": "1s",
		}},
		"sim-whatsapp": {Kind: "whatsapp", Settings: map[string]string{
			"base_url": b.Sim.URL(), "phone_number_id": sandbox.PhoneNumberID, "token": sandbox.WhatsAppToken,
			"app_secret": sandbox.WhatsAppSecret, "verify_token": sandbox.VerifyToken, "timeout": "1s",
		}},
		"sim-hook": {Kind: "webhook", Settings: map[string]string{"secret": sandbox.HookSecret, "timeout": "1s"}},
	} {
		_, err := b.Client.Connectors.Put(b.ctx, name, r)
		require.NoError(t, err)
	}
	accounts := []string{"sim-sms", "sim-mail", sandbox.PhoneNumberID, "doubt"}
	for i, fault := range []string{ackLost, tooSlow} {
		for _, account := range accounts {
			if fault == ackLost {
				b.Sim.Fail(account, -1, simulator.LostAck)
			} else {
				b.Sim.Slow(account, 24*time.Hour)
			}
		}
		var cases []*doubtCase
		for j, once := range []bool{false, true} {
			// No receipt ever comes of the outcome 33; of the others WhatsApp's comes under its own fault.
			phone := fmt.Sprintf("+1%d%d55501%02d", 2+i, 20+j, 33)
			mail := fmt.Sprintf("doubt%d%d@sim.test", i, j)
			path := fmt.Sprintf("/sim/hook/doubt/%d%d", i, j)
			sms := fmt.Sprintf("+1%d%d5550100", 2+i, 30+j)
			for _, c := range []doubtCase{
				{kind: "smpp", channel: delivery.SMS, to: sms, message: sdk.SMS{To: sms, Text: "Hello"}},
				{kind: "smtp", channel: delivery.Email, to: mail, message: sdk.Email{To: mail, Subject: "Hello", Text: "Hello"}},
				{kind: "whatsapp", channel: delivery.WhatsApp, to: phone, message: sdk.WhatsApp{To: phone, Text: "Hello"}},
				{kind: "webhook", channel: delivery.Webhook, to: path,
					message: sdk.Hook{URL: b.Sim.URL() + path, Event: "hello", Data: map[string]int{"n": 1}}},
			} {
				c.fault, c.policy, c.once = fault, policy, once
				var opts []sdk.SendOption
				if once {
					opts = append(opts, sdk.AtMostOnce())
				}
				c.id = b.send(c.message, opts...)
				cases = append(cases, &c)
			}
		}
		for _, c := range cases { // every attempt has ended without an answer
			b.until("the first attempt is over", func() bool {
				m, err := b.Client.Messages.Get(b.ctx, c.id)
				return err == nil && m.Status != sdk.Queued && m.Status != sdk.Sending
			})
		}
		for _, account := range accounts {
			b.Sim.Heal(account)
		}
		for range 60 { // five minutes: every window ends, and what is tried again has gone
			b.settle()
			clock.Advance(5 * time.Second)
		}
		b.settle()
		for _, c := range cases {
			b.judge(c)
		}
		all = append(all, cases...)
	}
	return all
}

// judge compares what became of a case with the promise.
func (b *box) judge(c *doubtCase) {
	b.t.Helper()
	what := c.kind + ", " + c.fault + ", " + c.policy
	if c.once {
		what += ", at most once"
	}
	requests, final := c.promise()
	b.until(what+" is "+string(final), func() bool {
		m, err := b.Client.Messages.Get(b.ctx, c.id)
		c.final, c.flagged = m.Status, m.PossibleDuplicate
		return err == nil && m.Status == final
	})
	entries := b.Sim.Ledger().To(c.channel, c.to)
	c.requests = len(entries)
	require.Len(b.t, entries, requests, what)
	if requests > 1 {
		require.True(b.t, c.flagged, "%s: a second hand-over is never hidden", what)
		if entries[0].Ref != "" { // the key, the Message-ID: the other side can tell
			require.Equal(b.t, entries[0].Ref, entries[1].Ref, what)
		}
	}
	facts, err := b.Client.Messages.Timeline(b.ctx, c.id)
	require.NoError(b.t, err)
	require.Equal(b.t, requests > 1, slices.ContainsFunc(facts, func(f sdk.Fact) bool { return f.Kind == "redelivery" }), what)
	if c.once {
		require.False(b.t, c.flagged, what)
	}
}
