package transfer_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// source is an embedded store with one of everything.
type source struct {
	*testing.T
	dir string
	s   *sqlite.Store
	ids *delivery.IDs
	// The messages, by what they are.
	is map[string]delivery.MessageID
}

func (k *source) ok(err error) {
	k.Helper()
	require.NoError(k, err)
}

func newSource(t *testing.T) *source {
	t.Helper()
	k := &source{T: t, dir: t.TempDir(), ids: delivery.NewIDs(clock), is: map[string]delivery.MessageID{}}
	var err error
	k.s, err = sqlite.Open(ctx, sqlite.Options{Dir: k.dir, Now: clock})
	k.ok(err)
	t.Cleanup(func() { k.ok(k.s.Close()) })
	return k
}

func (k *source) message(change ...func(*store.NewMessage)) store.NewMessage {
	m := store.NewMessage{ID: k.ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal, To: "+15550100",
		Payload: []byte(`{"content":{"text":"hello"}}`), Segments: 1, DueAt: noon, ExpiresAt: noon.Add(time.Hour)}
	for _, f := range change {
		f(&m)
	}
	return m
}

func (k *source) accept(name string, change ...func(*store.NewMessage)) {
	k.Helper()
	m := k.message(change...)
	k.is[name] = m.ID
	_, err := k.s.Accept(ctx, "acme", store.Acceptance{Now: noon, Messages: []store.NewMessage{m}})
	k.ok(err)
}

func (k *source) claim(name string) {
	k.Helper()
	got, err := k.s.Claim(ctx, sys, store.Claim{IDs: []delivery.MessageID{k.is[name]}, Node: "node-1", Now: noon,
		Until: noon.Add(time.Minute)})
	k.ok(err)
	require.Len(k, got, 1)
}

func (k *source) settle(name string, o store.Outcome) {
	k.Helper()
	o.ID, o.Epoch, o.Writer, o.Attempted = k.is[name], 1, delivery.BySend, true
	got, err := k.s.Settle(ctx, sys, noon, []store.Outcome{o})
	k.ok(err)
	require.True(k, got[0].Applied)
}

// fill makes one of everything.
func (k *source) fill() {
	for i, id := range []delivery.TenantID{"gone-before", "acme", "other"} {
		k.ok(k.s.CreateTenant(ctx, sys, store.Tenant{ID: id, Name: string(id) + " & Söhne", DailyQuota: int64(1000 * i),
			DataKey: []byte{byte(i), 0, 255}, Region: "IN", Weight: i + 1, AcceptRate: 1.5, CreatedAt: noon,
			Rates:       []store.TenantRate{{Channel: delivery.SMS, PerSecond: 2.5}},
			OnAmbiguous: "hold", Routes: []delivery.RouteRule{}}))
		k.ok(k.s.PutKey(ctx, sys, store.Key{ID: delivery.KeyID{byte(i + 1)}, Tenant: id, Name: "k", Mode: "live",
			Hash: [32]byte{byte(i + 1)}, Hint: "abcd", CreatedAt: noon}))
	}
	k.ok(k.s.PutKey(ctx, sys, store.Key{ID: delivery.KeyID{9}, Tenant: delivery.Shared, Name: "op", Mode: "live",
		Admin: true, Hash: [32]byte{9}, Hint: "abcd", CreatedAt: noon, RevokedAt: noon.Add(time.Hour)}))
	k.ok(k.s.PutAccount(ctx, "acme", store.Account{ID: own, Tenant: "acme", Name: "own", Kind: "smpp",
		Channel: delivery.SMS, Settings: map[string]string{"host": "h"}, Sealed: []byte{0, 1, 2},
		SecretNames: []string{"password"}, Priority: 3, Rate: 20, Burst: 2.5, Paused: true, PauseReason: "why", CreatedAt: noon, UpdatedAt: noon}))
	k.ok(k.s.PutAccount(ctx, delivery.Shared, store.Account{ID: all, Tenant: delivery.Shared, Name: "all", Kind: "smtp",
		Channel: delivery.Email, CreatedAt: noon, UpdatedAt: noon}))
	for v := range 2 {
		_, err := k.s.PutTemplate(ctx, "acme", store.Template{Name: "otp", Channel: delivery.WhatsApp,
			Text: fmt.Sprint("v", v), Approved: &delivery.ProviderTemplate{Name: "n"}, CreatedAt: noon})
		k.ok(err)
	}
	k.ok(k.s.CreateAudience(ctx, "acme", store.Audience{Name: "people", Columns: []string{"phone"}, CreatedAt: noon}))
	_, err := k.s.AddPeople(ctx, "acme", "people", []store.Person{
		{Phone: "+15550101", Vars: json.RawMessage(`{"a":"ü"}`)},
		{Email: "a@example.com", Channel: delivery.Email, Vars: json.RawMessage(`{}`)},
		{Phone: "+15550102", Vars: json.RawMessage(`{}`)},
	})
	k.ok(err)
	k.ok(k.s.FinishAudience(ctx, "acme", store.Audience{Name: "people", Ready: true, People: 3, Rows: 4,
		LeftOut: map[string]int{"bad": 1}, Columns: []string{"phone"}}))
	c := store.Campaign{ID: delivery.CampaignID{5}, Name: "spring", State: store.CampaignDraft, Audience: "people",
		Legs: []store.Leg{{Channel: delivery.SMS, Template: "otp", Version: 1}}, Rate: 1.5, TTL: time.Hour, People: 3,
		CreatedAt: noon}
	k.ok(k.s.CreateCampaign(ctx, "acme", c))
	_, err = k.s.MoveCampaign(ctx, "acme", c, []store.CampaignState{store.CampaignDraft}, store.CampaignRunning, noon)
	k.ok(err)
	of := k.message(func(m *store.NewMessage) { m.Lane = delivery.Bulk })
	k.is["of campaign"] = of.ID
	_, err = k.s.Expand(ctx, "acme", c.ID, store.Slice{Now: noon, To: 2, Messages: []store.NewMessage{of},
		Skipped: map[string]int{"no address": 1}})
	k.ok(err)
	k.ok(k.s.Suppress(ctx, "acme", []store.Suppression{{Channel: delivery.SMS, To: "+15550199", Reason: "opt_out",
		Source: "api", At: noon}, {To: "b@example.com", Reason: "complaint", At: noon}}))
	k.messages()
	_, err = k.s.Seen(ctx, sys, noon)
	k.ok(err)
}

func (k *source) messages() {
	ordered := func(m *store.NewMessage) { m.OrderingKey, m.Tag, m.Category = "k", "tag", "otp" }
	legs := func(m *store.NewMessage) {
		m.Within, m.Success, m.To = time.Minute, delivery.StatusDelivered, "+15550177"
		m.Then = []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("second"), Account: all}}
	}
	k.accept("queued")
	k.accept("scheduled", func(m *store.NewMessage) { m.DueAt = noon.Add(time.Minute) })
	k.accept("suppressed", func(m *store.NewMessage) { m.To = "+15550199" })
	k.accept("first", ordered)
	k.accept("second", ordered)
	k.accept("third", ordered)
	for _, name := range []string{"sending", "sent", "delivered", "failed", "doubt", "dropped"} {
		k.accept(name, func(m *store.NewMessage) { m.ClientRef = name })
		k.claim(name)
	}
	k.settle("sent", store.Outcome{Status: delivery.StatusSent, Account: own, ProviderID: "p-sent",
		IndexProviderID: true})
	k.settle("delivered", store.Outcome{Status: delivery.StatusSent, Account: own, ProviderID: "p-\x00\xff",
		IndexProviderID: true, Route: "rule 1"})
	k.settle("failed", store.Outcome{Status: delivery.StatusFailed, Reason: "bad", Detail: "not\x00 \xff good"})
	k.settle("dropped", store.Outcome{Status: delivery.StatusFailed, Reason: "bad"})
	k.settle("doubt", store.Outcome{Status: delivery.StatusAmbiguous, Reason: "timeout", Until: noon.Add(time.Minute)})
	_, err := k.s.Drop(ctx, "acme", []delivery.MessageID{k.is["dropped"]}, noon)
	k.ok(err)
	k.accept("two legs", legs)
	k.claim("two legs")
	k.settle("two legs", store.Outcome{Status: delivery.StatusSent, Account: own, ProviderID: "p-leg",
		IndexProviderID: true})
	k.accept("second leg", legs)
	k.claim("second leg")
	k.settle("second leg", store.Outcome{Status: delivery.StatusFailed, Reason: "refused", NextLeg: true, Account: own})
	_, err = k.s.Report(ctx, sys, noon, time.Hour, []delivery.Receipt{
		// A receipt from the future must not hide what is written after it.
		{Account: own, ProviderID: "p-\x00\xff", Status: delivery.StatusDelivered, At: noon.AddDate(50, 0, 0)},
		{Account: own, ProviderID: "early \xfe", Status: delivery.StatusDelivered},
	})
	k.ok(err)
	for _, tenant := range []delivery.TenantID{"acme", "other"} {
		m := k.message()
		k.is["keyed "+string(tenant)] = m.ID
		_, err = k.s.Accept(ctx, tenant, store.Acceptance{Now: noon, Key: key(), Messages: []store.NewMessage{m}})
		k.ok(err)
	}
}

func key() *store.IdempotencyKey {
	return &store.IdempotencyKey{Route: "POST /v1/messages", Key: "once", Fingerprint: [32]byte{7},
		Expires: noon.Add(time.Hour)}
}
