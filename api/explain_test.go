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

func TestExplain(t *testing.T) {
	id := delivery.MessageID{1}
	msg := func(s delivery.Status, change func(*store.Message)) store.Message {
		m := store.Message{
			ID: id, Channel: delivery.SMS, Lane: delivery.Normal, Status: s, To: "+12025550100", Attempts: 1,
			UpdatedAt: start.Add(-time.Minute), ExpiresAt: start.Add(24 * time.Hour),
		}
		if change != nil {
			change(&m)
		}
		return m
	}
	due := func(d time.Duration) func(*store.Message) {
		return func(m *store.Message) { m.DueAt = start.Add(d) }
	}
	why := func(d time.Duration, reason, detail string) func(*store.Message) {
		return func(m *store.Message) { m.DueAt, m.Reason, m.Detail = start.Add(d), reason, detail }
	}
	ended := func(reason, detail string) func(*store.Message) {
		return func(m *store.Message) { m.Reason, m.Detail = reason, detail }
	}
	for _, c := range []struct {
		name   string
		s      situation
		want   string // the summary
		change string // part of what would change it
	}{
		{"scheduled", situation{msg: msg(delivery.StatusScheduled, due(90*time.Minute))},
			"It waits for its send_at, 2026-03-01 13:30:00 UTC (in 1 h). It expires at 2026-03-02 12:00:00 UTC.",
			"msgctl message cancel " + id.String()},
		{"queued behind others", situation{msg: msg(delivery.StatusQueued, due(0)), ahead: 7},
			"It is due and waits for its turn: 7 messages of its queue go first. It expires at 2026-03-02 12:00:00 UTC.", "--lane urgent"},
		{"queued behind one", situation{msg: msg(delivery.StatusQueued, due(0)), ahead: 1}, "one message of its queue goes first", ""},
		{"queued behind many", situation{msg: msg(delivery.StatusQueued, due(0)), ahead: maxAhead}, "10000 messages or more", ""},
		{"queued, next", situation{msg: msg(delivery.StatusQueued, due(0))}, "goes next; nothing stands in its way", "cancel"},
		{"queued, returned", situation{msg: msg(delivery.StatusQueued, due(0)),
			facts: []delivery.Fact{{Kind: delivery.FactReturned, Status: delivery.StatusQueued, Code: "process_stopped"}}},
			"It was taken before and came back (process_stopped).", ""},
		{"queued behind a rate", situation{msg: msg(delivery.StatusQueued, due(0)), standing: delivery.Standing{
			Reason: "rate_limited", Until: start.Add(30 * time.Second), Account: "alpha", PerSecond: 10}},
			"It waits for a rate limit: the limit of 10 per second at connector alpha is used up; its turn is expected at 2026-03-01 12:00:30 UTC (in 30 s).",
			"msgctl tenant set"},
		{"held by a rate", situation{msg: msg(delivery.StatusHeld, why(30*time.Second, "rate_limited", "the tenant limit lets 5 per second through")), account: "alpha"},
			"It waits for a rate limit: the tenant limit lets 5 per second through; its turn is expected at", "msgctl connector add"},
		{"connector paused", situation{msg: msg(delivery.StatusHeld, why(time.Minute, "connector_paused", "alpha is paused: maintenance")), account: "alpha"},
			"It is held because connector alpha is paused: alpha is paused: maintenance.", "msgctl connector resume alpha"},
		{"connector down", situation{msg: msg(delivery.StatusHeld, why(time.Minute, "connector_down", "alpha: 535 bad login")), account: "alpha"},
			"It is held because connector alpha cannot work: alpha: 535 bad login; the next try is at 2026-03-01 12:01:00 UTC (in 1 min).", "msgctl connector test alpha"},
		{"no connector", situation{msg: msg(delivery.StatusHeld, why(time.Minute, "no_connector", ""))},
			"It is held because there is no connector for sms.", "msgctl connector add"},
		{"campaign paused", situation{msg: msg(delivery.StatusHeld, why(8000*time.Hour, store.ReasonCampaignPaused, "")), campaign: "spring"},
			"It is held because its campaign spring is paused.", "msgctl campaign resume spring"},
		{"held in doubt", situation{msg: msg(delivery.StatusHeld, why(time.Hour, "ambiguous", ""))}, "the tenant's policy is to hold", "receipt"},
		{"held, other reason", situation{msg: msg(delivery.StatusHeld, why(5*time.Second, "quiet_hours", "it is night there"))},
			"It is held (quiet_hours): it is night there; the engine looks again at 2026-03-01 12:00:05 UTC (in 5 s).", "cancel"},
		{"journal", situation{msg: msg(delivery.StatusHeld, why(5*time.Second, "journal_unavailable", "no space left"))},
			"It is held because the engine's journal of attempts cannot be written: no space left; the next try is at 2026-03-01 12:00:05 UTC (in 5 s).", "disk"},
		{"queued behind the journal", situation{msg: msg(delivery.StatusQueued, due(0)), standing: delivery.Standing{Reason: "journal_unavailable"}},
			"journal of attempts cannot be written; the next try is soon.", "disk"},
		{"in doubt at one connector", situation{msg: msg(delivery.StatusHeld, why(time.Minute, "in_doubt", "the connector that may have sent it is gone"))},
			"It is held because its last attempt is in doubt: the connector that may have sent it is gone; the engine looks again at", "--reroute-in-doubt"},
		{"ordered", situation{msg: msg(delivery.StatusHeld, func(m *store.Message) { m.Reason, m.OrderingKey = "ordered", "order 7" })},
			`It waits for the message before it with the ordering key "order 7", which is not handed off yet.`, "cancel"},
		{"ordered behind a known one", situation{before: "msg_x", msg: msg(delivery.StatusHeld, func(m *store.Message) { m.Reason, m.OrderingKey = "ordered", "k" })},
			`It waits for the message before it with the ordering key "k", msg_x, to be handed off or to end.`, "msgctl message explain msg_x"},
		{"deferred", situation{msg: msg(delivery.StatusDeferred, why(5*time.Minute, "ESME_RSYSERR", "system error")), account: "alpha"},
			"Attempt 1 at connector alpha failed for now (ESME_RSYSERR: system error); the next one is at 2026-03-01 12:05:00 UTC (in 5 min). It expires at",
			"msgctl connector test alpha"},
		{"deferred, duplicate", situation{msg: msg(delivery.StatusDeferred, func(m *store.Message) { m.PossibleDuplicate = true; m.Reason = "x" })},
			"may be a duplicate", ""},
		{"sending", situation{msg: msg(delivery.StatusSending, due(time.Minute)), account: "alpha"},
			"A worker has it: its hand-off to connector alpha is under way.", ""},
		{"sending, lease over", situation{msg: msg(delivery.StatusSending, due(-time.Minute))}, "did not come back in time", ""},
		{"ambiguous", situation{msg: msg(delivery.StatusAmbiguous, why(time.Minute, "timeout", "")), account: "alpha"},
			"An attempt at connector alpha ended without a decisive answer (timeout), so it may have arrived. The engine waits for a receipt until 2026-03-01 12:01:00 UTC", "--on-ambiguous"},
		{"ambiguous once", situation{msg: msg(delivery.StatusAmbiguous, func(m *store.Message) { m.AtMostOnce = true })}, "no second attempt", ""},
		{"sent", situation{msg: msg(delivery.StatusSent, nil), account: "alpha", facts: []delivery.Fact{
			{Kind: delivery.FactSent, Status: delivery.StatusSent, At: start.Add(-time.Hour)}}},
			"Connector alpha took it at 2026-03-01 11:00:00 UTC; no receipt has said yet whether it arrived.", "receipt"},
		{"delivered", situation{msg: msg(delivery.StatusDelivered, nil), account: "alpha"},
			"Connector alpha reports that it was delivered at 2026-03-01 11:59:00 UTC.", ""},
		{"read", situation{msg: msg(delivery.StatusRead, nil)}, "The provider reports that it was read at", ""},
		{"undelivered", situation{msg: msg(delivery.StatusUndelivered, ended("EXPIRED", ""))},
			"The provider took it and reports that it did not arrive (EXPIRED).", "later receipt"},
		{"failed", situation{msg: msg(delivery.StatusFailed, ended("550 5.1.1", "no such user")), account: "mail"},
			"Connector mail refused it for good at attempt 1 (550 5.1.1: no such user).", "msgctl dlq retry " + id.String()},
		{"given up", situation{msg: msg(delivery.StatusFailed, ended("retries_exhausted", "given up after 4 attempts, the last: 451 greylisted."))},
			"The next attempt would have come later than the tenant's schedule allows: given up after 4 attempts, the last: 451 greylisted.",
			"msgctl dlq retry " + id.String()},
		{"poison", situation{msg: msg(delivery.StatusFailed, ended("poison", "3 stops."))},
			"The engine stopped several times while it had this message, so that it does not try it any more (3 stops).", "msgctl dlq retry"},
		{"put away", situation{msg: msg(delivery.StatusFailed, func(m *store.Message) { m.Dropped = true }), facts: []delivery.Fact{
			{Kind: delivery.FactDropped, Status: delivery.StatusFailed}}},
			"Somebody put it away at 2026-03-01 11:59:00 UTC, so that it is listed among the dead letters no more.", "send a new message: this one was put away"},
		{"redriven", situation{msg: msg(delivery.StatusQueued, due(0)), facts: []delivery.Fact{
			{Kind: delivery.FactEnded, Status: delivery.StatusExpired}, {Kind: delivery.FactRedriven, Status: delivery.StatusQueued}}},
			"Somebody sent it again at 2026-03-01 11:59:00 UTC, after it had ended as expired.", "cancel"},
		{"failed to render", situation{msg: msg(delivery.StatusFailed, ended("render_failed", "welcome: text: line 1, column 4: no name."))},
			"Its template could not be rendered: welcome: text: line 1, column 4: no name.", "msgctl template render"},
		{"failed in doubt", situation{msg: msg(delivery.StatusFailed, ended("ambiguous", ""))}, "the tenant's policy is to fail then", "if it may arrive twice, send it again: msgctl dlq retry"},
		{"failed untried", situation{msg: msg(delivery.StatusFailed, func(m *store.Message) { m.Attempts = 0; m.Reason = "internal_error" })},
			"It failed before an attempt was made (internal_error).", ""},
		{"suppressed", situation{msg: msg(delivery.StatusSuppressed, ended("opt_out", "")), cause: &store.Suppression{
			Channel: delivery.SMS, Reason: "opt_out", Source: "inbound alpha", At: start.Add(-time.Hour)}},
			"It was not sent because the address is on the suppression list since 2026-03-01 11:00:00 UTC (opt_out, from inbound alpha).",
			"msgctl suppress rm +12025550100 --channel sms"},
		{"no longer suppressed", situation{msg: msg(delivery.StatusSuppressed, ended("opt_out", ""))}, "it is not any more", "new message"},
		{"expired", situation{msg: msg(delivery.StatusExpired, func(m *store.Message) { m.ExpiresAt = start }), facts: []delivery.Fact{
			{Kind: delivery.FactDeferred, Code: "450", Detail: "greylisted."}, {Kind: delivery.FactEnded, Status: delivery.StatusExpired}}},
			"Its time ran out at 2026-03-01 12:00:00 UTC before a hand-off; it waited last because of 450 (greylisted).", "msgctl dlq retry"},
		{"canceled", situation{msg: msg(delivery.StatusCanceled, nil)}, "It was canceled at 2026-03-01 11:59:00 UTC and never handed off.", ""},
		{"canceled in a campaign", situation{msg: msg(delivery.StatusCanceled, nil), campaign: "spring"}, "with its campaign spring", ""},
		{"unknown", situation{msg: msg(delivery.StatusUnknown, nil)}, "nobody knows whether it arrived", "late receipt"},
		{"unknown after several", situation{account: "alpha", msg: msg(delivery.StatusUnknown, func(m *store.Message) { m.Reason, m.Attempts = "attempts_in_doubt", 3 })},
			"It was given up after 3 attempts, the last at connector alpha without a decisive answer: nobody knows whether it arrived.", "if it may arrive twice, send it again"},
		{"unknown, out of time", situation{msg: msg(delivery.StatusUnknown, ended(store.ReasonExpired, ""))},
			"Its time ran out while its attempt at the provider was in doubt: nobody knows whether it arrived.", "msgctl dlq retry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.now = start
			for i := range c.s.facts {
				if c.s.facts[i].At.IsZero() {
					c.s.facts[i].At = start.Add(-time.Minute)
				}
			}
			e := c.s.explain()
			require.Contains(t, e.Summary, c.want)
			require.Contains(t, strings.Join(e.WouldChange, "; "), c.change)
			require.Equal(t, sdk.Status(c.s.msg.Status.String()), e.Status)
			require.NotNil(t, e.Since)
			require.Equal(t, ".", e.Summary[len(e.Summary)-1:])
			require.NotContains(t, e.Summary, "..")
			require.NotContains(t, e.Summary, "  ")
			cancel := strings.Contains(strings.Join(e.WouldChange, ";"), "message cancel")
			s := c.s.msg.Status
			require.Equal(t, s.Waiting() && s != delivery.StatusSending && s != delivery.StatusAmbiguous, cancel)
		})
	}
	// Every status has its own words.
	for _, s := range delivery.Statuses {
		sit := situation{msg: msg(s, nil), now: start}
		require.NotEqual(t, "It is "+s.String()+".", sit.explain().Summary)
	}
}

// A message with more than one leg tells of each of them.
func TestExplainLegs(t *testing.T) {
	leg := func(ch delivery.Channel, change func(*store.MessageLeg)) store.MessageLeg {
		l := store.MessageLeg{Channel: ch, To: "x", Success: delivery.StatusDelivered}
		if change != nil {
			change(&l)
		}
		return l
	}
	wa := func(change func(*store.MessageLeg)) store.MessageLeg { return leg(delivery.WhatsApp, change) }
	text := func(change func(*store.MessageLeg)) store.MessageLeg { return leg(delivery.SMS, change) }
	until := func(d time.Duration) func(*store.MessageLeg) {
		return func(l *store.MessageLeg) { l.Within, l.Until = 5*time.Minute, start.Add(d) }
	}
	timeout := func(l *store.MessageLeg) {
		l.Within, l.Status, l.Reason = 5*time.Minute, delivery.StatusSent, store.ReasonLegTimeout
	}
	for _, c := range []struct {
		name   string
		status delivery.Status
		reason string
		leg    int
		legs   []store.MessageLeg
		want   string // the end of the summary, before what is told of its expiry
	}{
		{"first leg under way", delivery.StatusSent, "", 0, []store.MessageLeg{wa(until(5 * time.Minute)), text(nil)},
			"Its WhatsApp leg has until 2026-03-01 12:05:00 UTC (in 5 min) to be delivered; then SMS."},
		{"its time is over", delivery.StatusAmbiguous, "timeout", 0, []store.MessageLeg{wa(until(-time.Second)), text(nil)},
			"The time of its WhatsApp leg is over: SMS begins as soon as no attempt is under way or in doubt."},
		{"not begun", delivery.StatusScheduled, "", 0, []store.MessageLeg{wa(func(l *store.MessageLeg) { l.Within = time.Hour }), text(nil)},
			"Its WhatsApp leg will have 1h to be delivered; then SMS."},
		{"no time limit", delivery.StatusQueued, "", 0, []store.MessageLeg{wa(nil), leg(delivery.Email, nil)},
			"When its WhatsApp leg is refused for good or not delivered, e-mail follows."},
		{"second leg after a timeout", delivery.StatusQueued, "", 1, []store.MessageLeg{wa(timeout), text(nil)},
			"nothing stands in its way. Its WhatsApp leg had no success (it was not delivered within 5m)."},
		{"second leg after a suppression", delivery.StatusQueued, "", 1, []store.MessageLeg{
			wa(func(l *store.MessageLeg) { l.Status, l.Reason = delivery.StatusSuppressed, "opt_out" }), text(nil)},
			"Its WhatsApp leg had no success (its address is suppressed: opt_out)."},
		{"second of three", delivery.StatusSent, "", 1, []store.MessageLeg{
			wa(func(l *store.MessageLeg) { l.Status, l.Reason = delivery.StatusFailed, "131026" }), text(until(time.Minute)), leg(delivery.Webhook, nil)},
			"Its WhatsApp leg had no success (131026). Its SMS leg has until 2026-03-01 12:01:00 UTC (in 1 min) to be delivered; then webhook."},
		{"success", delivery.StatusDelivered, "", 0, []store.MessageLeg{wa(func(l *store.MessageLeg) { l.Winner = true }), text(nil)},
			"Connector wa reports that it was delivered at 2026-03-01 11:59:00 UTC."},
		{"taken, and that is enough", delivery.StatusSent, "", 0, []store.MessageLeg{
			leg(delivery.Email, func(l *store.MessageLeg) { l.Success, l.Winner = delivery.StatusSent, true }), text(nil)},
			"no receipt has said yet whether it arrived."},
		{"late winner, the later one kept back", delivery.StatusDelivered, "", 1, []store.MessageLeg{
			wa(func(l *store.MessageLeg) { timeout(l); l.Winner = true }), text(nil)},
			"Connector wa reports that it was delivered at 2026-03-01 11:59:00 UTC. Its WhatsApp leg had success late, after SMS " +
				"had begun: it counts once, by WhatsApp. The SMS was not handed over and never will be."},
		{"late winner, both handed over", delivery.StatusDelivered, "", 1, []store.MessageLeg{
			wa(func(l *store.MessageLeg) { timeout(l); l.Winner = true }), text(func(l *store.MessageLeg) { l.Status = delivery.StatusSent })},
			"The SMS was handed over too, so that the person may have both."},
		{"in doubt for good", delivery.StatusUnknown, "", 0, []store.MessageLeg{wa(until(-time.Minute)), text(nil)},
			"Its SMS leg does not begin: the person may have the message already."},
		{"failed by policy", delivery.StatusFailed, "ambiguous", 0, []store.MessageLeg{wa(nil), text(nil)},
			"Its SMS leg does not begin: the person may have the message already."},
		{"failed inside", delivery.StatusFailed, "internal_error", 0, []store.MessageLeg{wa(nil), text(nil)}, "Its SMS leg has not begun."},
		{"canceled", delivery.StatusCanceled, "", 0, []store.MessageLeg{wa(until(time.Minute)), text(nil)}, "and never handed off."},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := situation{now: start, legs: []string{"wa", "sms", "hook"}, msg: store.Message{
				Status: c.status, Reason: c.reason, Leg: c.leg, Legs: c.legs, Channel: c.legs[c.leg].Channel, UpdatedAt: start.Add(-time.Minute),
				Attempts: 1, DueAt: start.Add(time.Minute),
			}}
			got := s.explain().Summary
			require.True(t, strings.HasSuffix(got, c.want), got)
			require.NotContains(t, got, "..")
			require.NotContains(t, got, "  ")
		})
	}
}

// Since is when the present status began, not the last time something was written.
func TestExplainSince(t *testing.T) {
	s := situation{msg: store.Message{Status: delivery.StatusHeld, UpdatedAt: start}, facts: []delivery.Fact{
		{Status: delivery.StatusHeld, At: start.Add(-5 * time.Hour)},
		{Status: delivery.StatusQueued, At: start.Add(-4 * time.Hour)},
		{Status: delivery.StatusHeld, At: start.Add(-3 * time.Hour)},
		{Status: delivery.StatusHeld, At: start},
	}}
	require.Equal(t, start.Add(-3*time.Hour), s.since())
}

func TestExplainRoute(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Traffic = traffic{} })
	r.accept(r.acme, hello)
	m := r.accept(r.acme, hello)
	var e sdk.Explanation
	r.get(r.acme, "/v1/messages/"+m.ID+"/explain").decode(t, &e)
	require.Equal(t, "rate_limited", e.Reason)
	require.Equal(t, 1, e.Ahead)
	require.Contains(t, e.Summary, "5 per second")
	require.Equal(t, start.Add(time.Minute), *e.Until)
}

type traffic struct{}

func (traffic) Standing(q delivery.Queue) (delivery.Standing, bool) {
	return delivery.Standing{Reason: "rate_limited", Until: start.Add(time.Minute), PerSecond: 5}, q.Channel == delivery.SMS
}
