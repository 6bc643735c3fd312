package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// claim leases a message as a worker does.
func (r *rig) claim(id string) store.Claimed {
	r.t.Helper()
	m, err := delivery.ParseMessageID(id)
	require.NoError(r.t, err)
	now := r.clock.Now()
	got, err := r.store.Claim(r.t.Context(), system(), store.Claim{IDs: []delivery.MessageID{m}, Node: "n", Now: now, Until: now.Add(time.Minute)})
	require.NoError(r.t, err)
	require.Len(r.t, got, 1)
	return got[0]
}

// settle ends an attempt as a worker does.
func (r *rig) settle(c store.Claimed, o store.Outcome) {
	r.t.Helper()
	o.ID, o.Epoch, o.Writer, o.Attempted = c.ID, c.Epoch, delivery.BySend, true
	got, err := r.store.Settle(r.t.Context(), system(), r.clock.Now(), []store.Outcome{o})
	require.NoError(r.t, err)
	require.True(r.t, got[0].Applied)
}

// A message fails, is a dead letter, is sent again, fails again and is put away.
func TestLifeOfADeadLetter(t *testing.T) {
	h := &hinted{by: map[delivery.Queue]int{}}
	r := newRig(t, func(d *Deps) { d.Hints = h })
	r.fill(r.acme)
	c, ctx := r.sdk(r.acme, ""), t.Context()
	m := r.accept(r.acme, `{"channel":"sms","to":"+12025550100","text":"Hello","connector":"alpha","tag":"spring","ordering_key":"k"}`)
	require.Equal(t, "spring", m.Tag)
	r.settle(r.claim(m.ID), store.Outcome{Status: delivery.StatusFailed, Reason: "ESME_RINVDSTADR", Detail: "no such number"})
	dead, err := c.DeadLetters.Page(ctx, sdk.DeadLetterFilter{
		Status: sdk.Failed, Reason: "ESME_RINVDSTADR", Channel: sdk.ChannelSMS, To: "+12025550100", Connector: "alpha", Tag: "spring", Since: &start,
	}, 1, "")
	require.NoError(t, err)
	require.Len(t, dead.Data, 1)
	require.Equal(t, m.ID, dead.Data[0].ID)
	require.Equal(t, "k", dead.Data[0].OrderingKey)
	for _, other := range []sdk.DeadLetterFilter{{Status: sdk.Expired}, {Reason: "x"}, {Channel: sdk.ChannelEmail}, {Tag: "autumn"}, {Campaign: "spring"}} {
		none, err := c.DeadLetters.Page(ctx, other, 0, "")
		require.NoError(t, err)
		require.Empty(t, none.Data, other)
	}
	tagged, err := c.Messages.Page(ctx, sdk.MessageQuery{Tag: "spring"})
	require.NoError(t, err)
	require.Len(t, tagged.Data, 1)
	why, err := c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, strings.Join(why.WouldChange, ";"), "msgctl dlq retry "+m.ID)

	r.clock.Advance(25 * time.Hour) // its first time is over
	all := sdk.DeadLetterRequest{Filter: &sdk.DeadLetterFilter{Tag: "spring"}, TTL: "1h"}
	out, err := c.DeadLetters.Retry(ctx, all)
	require.NoError(t, err)
	require.Equal(t, &sdk.DeadLetterResult{Done: 1}, out)
	require.Equal(t, map[delivery.Queue]int{{Tenant: "acme", Channel: delivery.SMS, Lane: delivery.Normal}: 1}, h.by)
	again, err := c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, sdk.Queued, again.Status)
	require.Equal(t, r.clock.Now().Add(time.Hour), *again.ExpiresAt)
	why, err = c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, why.Summary, "Somebody sent it again at 2026-03-02 13:00:00 UTC, after it had ended as failed.")
	out, err = c.DeadLetters.Retry(ctx, sdk.DeadLetterRequest{IDs: []string{m.ID}})
	require.NoError(t, err)
	require.Equal(t, &sdk.DeadLetterResult{Skipped: []sdk.DeadLetterNoMove{{ID: m.ID, Status: sdk.Queued}}}, out)

	r.settle(r.claim(m.ID), store.Outcome{Status: delivery.StatusFailed, Reason: "ESME_RINVDSTADR"})
	out, err = c.DeadLetters.Drop(ctx, sdk.DeadLetterRequest{IDs: []string{m.ID}})
	require.NoError(t, err)
	require.Equal(t, 1, out.Done)
	again, err = c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.True(t, again.Dropped)
	require.Equal(t, sdk.Failed, again.Status)
	for _, err := range c.DeadLetters.All(ctx, sdk.DeadLetterFilter{}) {
		t.Fatal("it is listed still", err)
	}
	why, err = c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, why.Summary, "Somebody put it away at 2026-03-02 13:00:00 UTC")
	facts, err := c.Messages.Timeline(ctx, m.ID)
	require.NoError(t, err)
	kinds := ""
	for _, f := range facts {
		kinds += f.Kind + " "
	}
	require.Contains(t, kinds, "redriven")
	require.Contains(t, kinds, "dropped")
	books, err := c.Audit.Verify(ctx)
	require.NoError(t, err)
	require.True(t, books.OK, "%+v", books.Problems)
}

// A message goes on with its next leg, and every view of it says so.
func TestLifeOfAFallback(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	c, ctx := r.sdk(r.acme, ""), t.Context()
	m, err := c.Send(ctx, sdk.WhatsApp{To: "+12025550100", Text: "Hi"}, sdk.Within(5*time.Minute, sdk.Read), sdk.TTL(time.Hour),
		sdk.Fallback(sdk.SMS{To: "+12025550101", Text: "Hello"}, sdk.Via("alpha")))
	require.NoError(t, err)
	why, err := c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, why.Summary, "Its WhatsApp leg has until 2026-03-01 12:05:00 UTC (in 5 min) to be read; then SMS.")

	claimed := r.claim(m.ID)
	r.settle(claimed, store.Outcome{Status: delivery.StatusFailed, Reason: "131026", NextLeg: true})
	now, err := c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, sdk.Queued, now.Status)
	require.Equal(t, sdk.ChannelSMS, now.Channel)
	require.Equal(t, "+12025550101", now.To)
	require.Equal(t, 1, now.Leg)
	require.Len(t, now.Legs, 2)
	require.Equal(t, sdk.Failed, now.Legs[0].Status)
	require.Equal(t, "131026", now.Legs[0].Reason)
	require.Equal(t, "alpha", now.Legs[1].Connector)
	why, err = c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, why.Summary, "Its WhatsApp leg had no success (131026).")
	facts, err := c.Messages.Timeline(ctx, m.ID)
	require.NoError(t, err)
	last := facts[len(facts)-1]
	require.Equal(t, []any{"fallback", 1}, []any{last.Kind, last.Leg})

	row, err := r.store.Account(ctx, "acme", "alpha")
	require.NoError(t, err)
	r.settle(r.claim(m.ID), store.Outcome{Status: delivery.StatusSent, Account: row.ID, ProviderID: "p1", IndexProviderID: true})
	_, err = r.store.Report(ctx, system(), r.clock.Now(), time.Hour, []delivery.Receipt{
		{Account: row.ID, ProviderID: "p1", Status: delivery.StatusDelivered, At: r.clock.Now()},
		{Account: row.ID, ProviderID: "p2", Status: delivery.StatusDelivered, At: r.clock.Now()},
	})
	require.NoError(t, err)
	now, err = c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, sdk.Delivered, now.Status)
	require.True(t, now.Legs[1].Winner)
	require.False(t, now.Legs[0].Winner)
	for u, err := range c.Receipts.Unmatched(ctx) {
		require.NoError(t, err)
		require.Equal(t, []any{"alpha", "p2", sdk.Delivered}, []any{u.Connector, u.ProviderID, u.Status})
	}
	books, err := c.Audit.Verify(ctx)
	require.NoError(t, err)
	require.True(t, books.OK, "%+v", books.Problems)
	require.EqualValues(t, 2, books.Accepted, "one of them was there before")
}

// An ordered message names the one that it waits for.
func TestExplainOrdered(t *testing.T) {
	r := newRig(t)
	first := r.accept(r.acme, smsWith(`,"ordering_key":"order 7"`))
	r.accept(r.acme, smsWith(`,"ordering_key":"order 8"`))
	second := r.accept(r.acme, smsWith(`,"ordering_key":"order 7"`))
	require.Equal(t, sdk.Held, second.Status)
	var e sdk.Explanation
	r.get(r.acme, "/v1/messages/"+second.ID+"/explain").decode(t, &e)
	require.Equal(t, `It waits for the message before it with the ordering key "order 7", `+first.ID+`, to be handed off or to end.`+
		` It expires at 2026-03-02 12:00:00 UTC.`, e.Summary)
	require.Nil(t, e.Until)
}
