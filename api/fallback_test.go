package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// accepts is an Accepter that keeps what it was given last.
type accepts struct {
	store.Accepter
	mu   sync.Mutex
	last []store.NewMessage
}

func (a *accepts) Accept(ctx context.Context, t delivery.TenantID, in store.Acceptance) (store.Accepted, error) {
	a.mu.Lock()
	a.last = in.Messages
	a.mu.Unlock()
	return a.Accepter.Accept(ctx, t, in)
}

func (a *accepts) messages() []store.NewMessage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

const ways = `{"channel":"whatsapp","to":"+1 202 555 0100","approved":{"name":"order_paid","language":"en"},"within":"5m","until":"read",
	"category":"otp","tag":"spring 2026","ordering_key":"order 7","ttl":"2h","fallback":[
	{"channel":"sms","to":"+1 202 555 0101","template":"welcome","vars":{"name":"Asha"},"connector":"alpha","within":"1h"},
	{"channel":"webhook","to":"https://example.com/h","data":{"n":12345678901234567890},"event":"x","within":"1s","until":"delivered"},
	{"channel":"email","to":"Asha@Example.com","subject":"S","text":"T"}]}`

// What is asked for reaches the store, each leg with a draft of its own, and the answer shows it.
func TestFallback(t *testing.T) {
	a := &accepts{}
	r := newRig(t, func(d *Deps) { a.Accepter, d.Accept = d.Store, a })
	r.fill(r.acme)
	alpha, err := r.store.Account(t.Context(), "acme", "alpha")
	require.NoError(t, err)
	out := r.send(request{path: "/v1/messages", key: r.acme, body: ways, header: keyed("k")})
	require.Equal(t, 202, out.status, out.body)
	require.Len(t, a.messages(), 1)
	m := a.messages()[0]
	require.Equal(t, "otp", m.Category)
	require.Equal(t, "spring 2026", m.Tag)
	require.Equal(t, "order 7", m.OrderingKey)
	require.Equal(t, 5*time.Minute, m.Within)
	require.Equal(t, delivery.StatusRead, m.Success)
	require.JSONEq(t, `{"content":{"approved":{"name":"order_paid","language":"en"}}}`, string(m.Payload))
	require.Len(t, m.Then, 3)
	require.JSONEq(t, `{"template":"welcome","version":1,"vars":{"name":"Asha"}}`, string(m.Then[0].Payload))
	require.Contains(t, string(m.Then[1].Payload), "12345678901234567890", "a number has lost digits")
	require.JSONEq(t, `{"content":{"subject":"S","text":"T"}}`, string(m.Then[2].Payload))
	for i := range m.Then {
		m.Then[i].Payload = nil
	}
	require.Equal(t, []store.NewLeg{
		{Channel: delivery.SMS, To: "+12025550101", Segments: 1, Account: alpha.ID, Within: time.Hour, Success: delivery.StatusDelivered},
		{Channel: delivery.Webhook, To: "https://example.com/h", Segments: 1, Within: time.Second, Success: delivery.StatusDelivered},
		{Channel: delivery.Email, To: "Asha@example.com", Segments: 1, Success: delivery.StatusSent},
	}, m.Then)

	var shown sdk.Message
	out.decode(t, &shown)
	require.Equal(t, sdk.ChannelWhatsApp, shown.Channel)
	require.Equal(t, []string{"otp", "spring 2026", "order 7"}, []string{shown.Category, shown.Tag, shown.OrderingKey})
	require.Equal(t, []sdk.LegState{
		{Channel: "whatsapp", To: "+12025550100", Within: "5m", Until: "read"},
		{Channel: "sms", To: "+12025550101", Within: "1h", Until: "delivered"},
		{Channel: "webhook", To: "https://example.com/h", Within: "1s", Until: "delivered"},
		{Channel: "email", To: "Asha@example.com", Until: "sent"},
	}, shown.Legs)

	line := strings.ReplaceAll(ways, "\n", " ")
	batch := r.send(request{path: "/v1/messages/batch", key: r.acme, media: batchMedia[0], body: hello + "\n" + line + "\n" +
		strings.Replace(line, "+1 202 555 0101", "+1", 1)})
	rows := batchRows(t, batch)
	require.Len(t, rows, 3)
	require.Nil(t, rows[1].Error)
	require.Equal(t, "/fallback/0/to", rows[2].Error.Fields[0].Pointer)
	require.Len(t, a.messages(), 2)
	require.Len(t, a.messages()[1].Then, 3)
	require.Empty(t, a.messages()[0].Then)
}

func TestFallbackDefaults(t *testing.T) {
	a := &accepts{}
	r := newRig(t, func(d *Deps) { a.Accepter, d.Accept = d.Store, a })
	for first, want := range map[string]delivery.Status{
		"sms": delivery.StatusDelivered, "whatsapp": delivery.StatusDelivered, "email": delivery.StatusSent, "webhook": delivery.StatusSent,
	} {
		for then, aim := range map[string]delivery.Status{
			"sms": delivery.StatusDelivered, "whatsapp": delivery.StatusDelivered, "email": delivery.StatusSent, "webhook": delivery.StatusSent,
		} {
			if first == then {
				continue
			}
			r.accept(r.acme, strings.TrimSuffix(to(first, addressOf(first)), "}")+`,"fallback":[`+to(then, addressOf(then))+`]}`)
			m := a.messages()[0]
			require.Equal(t, want, m.Success, first)
			require.Equal(t, aim, m.Then[0].Success, then)
			require.Zero(t, m.Within+m.Then[0].Within)
		}
	}
	r.accept(r.acme, strings.TrimSuffix(hello, "}")+`,"fallback":[]}`) // none asked for is none
	require.Empty(t, a.messages()[0].Then)
	require.Zero(t, a.messages()[0].Success)
}

func addressOf(channel string) string {
	switch channel {
	case "email":
		return "asha@example.com"
	case "webhook":
		return "https://example.com/h"
	}
	return "+12025550100"
}

// Whatever fallback is taken keeps what the store is promised: distinct channels, an aim for each leg that its receipts
// know, and time for the leg after each one that has a limit.
func TestFallbackIsSound(t *testing.T) {
	k := func() *checker {
		return &checker{a: &api{Deps: Deps{URLAllowed: func(string) error { return nil }}}, ctx: t.Context(), now: start}
	}
	orders := rapid.Permutation([]string{"sms", "whatsapp", "email", "webhook"})
	repeats := rapid.SampledFrom([]string{"", "", "", "", "sms"})
	spans := rapid.SampledFrom([]string{"", "", "", "", "1s", "5m", "1h", "23h59m59s", "24h", "168h", "0s", "-1s", "x"})
	aims := rapid.SampledFrom([]string{"", "", "", "sent", "sent", "delivered", "read", "failed"})
	lives := rapid.SampledFrom([]string{"", "1s", "10m", "168h"})
	taken := 0
	rapid.Check(t, func(rt *rapid.T) {
		body := func(ch string) string {
			return strings.TrimSuffix(to(ch, addressOf(ch)), "}") + fmt.Sprintf(`,"within":%q,"until":%q`,
				spans.Draw(rt, "within"), aims.Draw(rt, "until"))
		}
		order := orders.Draw(rt, "channels")
		text := body(order[0]) + fmt.Sprintf(`,"ttl":%q,"fallback":[`, lives.Draw(rt, "ttl"))
		n := rapid.IntRange(0, 4).Draw(rt, "legs")
		for i := range n {
			ch := repeats.Draw(rt, "repeat")
			if ch == "" {
				ch = order[(i+1)%4]
			}
			text += strings.Repeat(",", min(i, 1)) + body(ch) + "}"
		}
		var in messageIn
		require.NoError(rt, decode([]byte(text+"]}"), &in), text)
		m, err := k().message(&in)
		if err != nil {
			var p *sdk.Error
			require.ErrorAs(rt, err, &p)
			require.NotEmpty(rt, p.Fields)
			return
		}
		taken++
		require.Len(rt, m.Then, n)
		require.Less(rt, n, store.MaxLegs)
		if n == 0 {
			require.Zero(rt, m.Within)
			require.Zero(rt, m.Success)
			return
		}
		require.Zero(rt, m.Then[n-1].Within, "nothing follows the last leg")
		seen, used := map[delivery.Channel]bool{}, time.Duration(0)
		legs := append([]store.NewLeg{{Channel: m.Channel, To: m.To, Payload: m.Payload, Within: m.Within, Success: m.Success}}, m.Then...)
		for i, l := range legs {
			require.False(rt, seen[l.Channel], "a channel twice")
			seen[l.Channel] = true
			require.NotEmpty(rt, l.To)
			require.True(rt, json.Valid(l.Payload))
			require.Contains(rt, []delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead}, l.Success)
			require.True(rt, l.Success == delivery.StatusSent || reports(l.Channel, l.Success))
			if used += l.Within; i < n {
				require.Less(rt, used, m.ExpiresAt.Sub(m.DueAt), "the next leg could never begin")
			}
		}
	})
	require.NotZero(t, taken, "every one was refused")
}

// A repeated request gets the first answer, whichever leg the message is on by then.
func TestFallbackReplayed(t *testing.T) {
	moved := &onSecondLeg{}
	r := newRig(t, func(d *Deps) { moved.Store, d.Store = d.Store, moved })
	body := strings.TrimSuffix(to("whatsapp", "+12025550100"), "}") + `,"within":"5m","fallback":[` + hello + `]}`
	send := func() (m sdk.Message) {
		r.send(request{path: "/v1/messages", key: r.acme, body: body, header: keyed("k")}).decode(t, &m)
		return m
	}
	first, again := send(), send()
	again.DueAt, again.Segments = first.DueAt, first.Segments
	require.Equal(t, first, again)

	var now sdk.Message
	r.get(r.acme, "/v1/messages/"+first.ID).decode(t, &now)
	deadline := start.Add(5 * time.Minute)
	require.Equal(t, 1, now.Leg)
	require.Equal(t, sdk.ChannelSMS, now.Channel)
	require.Equal(t, []sdk.LegState{
		{Channel: "whatsapp", To: "+12025550100", Status: "sent", Reason: "leg_timeout", ProviderID: "wamid.1", Within: "5m", Until: "delivered",
			Deadline: &deadline, Winner: true},
		{Channel: "sms", To: "+12025550100", Until: "delivered"},
	}, now.Legs)
	require.True(t, now.Dropped)

	var e sdk.Explanation
	r.get(r.acme, "/v1/messages/"+first.ID+"/explain").decode(t, &e)
	require.Contains(t, e.Summary, "Its WhatsApp leg had success late")
	var facts sdk.Page[sdk.Fact]
	r.get(r.acme, "/v1/messages/"+first.ID+"/timeline").decode(t, &facts)
	require.Equal(t, []string{"rule 2: +91", "otp v3", "1"}, []string{facts.Data[0].Route, facts.Data[0].Content, fmt.Sprint(facts.Data[0].Leg)})
}

// onSecondLeg is a store in which every message is on its second leg, whose first one had success late.
type onSecondLeg struct{ store.Store }

func (s *onSecondLeg) Message(ctx context.Context, t delivery.TenantID, id delivery.MessageID) (store.Message, error) {
	m, err := s.Store.Message(ctx, t, id)
	m.Channel, m.Leg, m.Dropped = delivery.SMS, 1, true
	m.Legs = []store.MessageLeg{
		{Channel: delivery.WhatsApp, To: m.To, Status: delivery.StatusSent, Reason: store.ReasonLegTimeout, ProviderID: "wamid.1",
			Within: 5 * time.Minute, Success: delivery.StatusDelivered, Until: start.Add(5 * time.Minute), Winner: true},
		{Channel: delivery.SMS, To: m.To, Success: delivery.StatusDelivered},
	}
	return m, err
}

func (s *onSecondLeg) Facts(context.Context, delivery.TenantID, delivery.MessageID) ([]delivery.Fact, error) {
	return []delivery.Fact{{Kind: delivery.FactSent, Status: delivery.StatusSent, At: start, Route: "rule 2: +91", Content: "otp v3", Leg: 1}}, nil
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Minute: "1h30m", 10 * time.Second: "10s", 20 * time.Minute: "20m",
		time.Hour + time.Second: "1h0m1s", 100 * time.Millisecond: "100ms", 168 * time.Hour: "168h", 0: "0s", 10 * time.Hour: "10h",
	} {
		require.Equal(t, want, short(d))
		back, err := time.ParseDuration(short(d))
		require.NoError(t, err)
		require.Equal(t, d, back)
	}
}
