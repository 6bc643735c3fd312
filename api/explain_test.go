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
		{"held, other reason", situation{msg: msg(delivery.StatusHeld, why(5*time.Second, "journal_unavailable", "the journal cannot be written"))},
			"It is held (journal_unavailable): the journal cannot be written; the engine looks again at 2026-03-01 12:00:05 UTC (in 5 s).", "cancel"},
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
			"Connector mail refused it for good at attempt 1 (550 5.1.1: no such user).", "new message"},
		{"failed to render", situation{msg: msg(delivery.StatusFailed, ended("render_failed", "welcome: text: line 1, column 4: no name."))},
			"Its template could not be rendered: welcome: text: line 1, column 4: no name.", "msgctl template render"},
		{"failed in doubt", situation{msg: msg(delivery.StatusFailed, ended("ambiguous", ""))}, "the tenant's policy is to fail then", "receipt"},
		{"failed untried", situation{msg: msg(delivery.StatusFailed, func(m *store.Message) { m.Attempts = 0; m.Reason = "internal_error" })},
			"It failed before an attempt was made (internal_error).", ""},
		{"suppressed", situation{msg: msg(delivery.StatusSuppressed, ended("opt_out", "")), cause: &store.Suppression{
			Channel: delivery.SMS, Reason: "opt_out", Source: "inbound alpha", At: start.Add(-time.Hour)}},
			"It was not sent because the address is on the suppression list since 2026-03-01 11:00:00 UTC (opt_out, from inbound alpha).",
			"msgctl suppress rm +12025550100 --channel sms"},
		{"no longer suppressed", situation{msg: msg(delivery.StatusSuppressed, ended("opt_out", ""))}, "it is not any more", "new message"},
		{"expired", situation{msg: msg(delivery.StatusExpired, func(m *store.Message) { m.ExpiresAt = start }), facts: []delivery.Fact{
			{Kind: delivery.FactDeferred, Code: "450", Detail: "greylisted."}, {Kind: delivery.FactEnded, Status: delivery.StatusExpired}}},
			"Its time ran out at 2026-03-01 12:00:00 UTC before a hand-off; it waited last because of 450 (greylisted).", "--ttl"},
		{"canceled", situation{msg: msg(delivery.StatusCanceled, nil)}, "It was canceled at 2026-03-01 11:59:00 UTC and never handed off.", ""},
		{"canceled in a campaign", situation{msg: msg(delivery.StatusCanceled, nil), campaign: "spring"}, "with its campaign spring", ""},
		{"unknown", situation{msg: msg(delivery.StatusUnknown, nil)}, "nobody knows whether it arrived", "late receipt"},
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
