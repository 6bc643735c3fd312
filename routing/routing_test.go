package routing_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func account(n byte, tenant delivery.TenantID, priority int) *routing.Account {
	return &routing.Account{
		ID: delivery.AccountID{n}, Tenant: tenant, Name: string('a' + rune(n)), Channel: delivery.SMS, Priority: priority,
		Timeout: time.Second,
	}
}

func TestChoose(t *testing.T) {
	own, spare, shared := account(1, "acme", 1), account(2, "acme", 2), account(3, delivery.Shared, 0)
	paused, foreign, down := account(4, "acme", 0), account(5, "other", 0), account(6, "acme", 0)
	paused.Paused, paused.Why = true, "by hand"
	down.Down(start, "refused", false)
	for name, c := range map[string]struct {
		open    []*routing.Account
		pinned  delivery.AccountID
		channel delivery.Channel
		want    *routing.Account
		reason  string
		blocked *routing.Account
		until   time.Time
	}{
		"own before shared, by priority":     {open: []*routing.Account{shared, spare, own}, want: own},
		"shared when there is no own":        {open: []*routing.Account{foreign, shared}, want: shared},
		"paused is passed over":              {open: []*routing.Account{paused, own}, want: own},
		"down is passed over":                {open: []*routing.Account{down, shared}, want: shared},
		"none":                               {open: []*routing.Account{foreign}, reason: routing.ReasonNoConnector},
		"another channel":                    {open: []*routing.Account{own}, channel: delivery.Email, reason: routing.ReasonNoConnector},
		"only a paused one":                  {open: []*routing.Account{paused}, reason: routing.ReasonConnectorPaused, blocked: paused},
		"what comes back by itself is named": {open: []*routing.Account{paused, down}, reason: routing.ReasonConnectorDown, blocked: down, until: start.Add(2 * time.Second)},
		"pinned":                             {open: []*routing.Account{own, spare}, pinned: spare.ID, want: spare},
		"pinned and paused":                  {open: []*routing.Account{own, paused}, pinned: paused.ID, reason: routing.ReasonConnectorPaused, blocked: paused},
		"pinned and gone":                    {open: []*routing.Account{own}, pinned: spare.ID, reason: routing.ReasonNoConnector},
		"pinned to another tenant's":         {open: []*routing.Account{own, foreign}, pinned: foreign.ID, reason: routing.ReasonNoConnector},
	} {
		t.Run(name, func(t *testing.T) {
			var table routing.Table
			table.Set(c.open)
			ch := delivery.SMS
			if c.channel != 0 {
				ch = c.channel
			}
			got := table.Choose(&routing.Query{Tenant: "acme", Channel: ch, Pinned: c.pinned}, start)
			require.Same(t, c.want, got.Account)
			require.Equal(t, c.reason, got.Reason)
			require.Same(t, c.blocked, got.Blocked)
			require.Equal(t, c.until, got.Until)
		})
	}
	var empty routing.Table
	require.Equal(t, routing.ReasonNoConnector, empty.Choose(&routing.Query{Tenant: "acme", Channel: delivery.SMS}, start).Reason)
}

func TestRestAndProbe(t *testing.T) {
	a := account(1, "acme", 0)
	require.True(t, a.Probe(start), "a healthy account takes everything")
	now := start
	for _, rest := range []time.Duration{2, 4, 8, 15, 15, 15} {
		until := a.Down(now, "refused", now != start)
		require.Equal(t, now.Add(rest*time.Second), until)
		require.Equal(t, until, a.Down(now.Add(time.Second), "late", false), "an attempt from before says nothing new")
		require.False(t, a.Probe(until.Add(-time.Millisecond)))
		require.True(t, a.Probe(until))
		require.False(t, a.Probe(until), "one at a time")
		now = until
	}
	a.Unprobe()
	require.True(t, a.Probe(now), "the probe was not sent: the next one may")
	require.False(t, a.Probe(now.Add(time.Minute)))
	require.True(t, a.Probe(now.Add(time.Hour)), "a probe that got lost does not hold up the account for ever")
	require.True(t, a.Up(), "it was down")
	require.False(t, a.Up())
	_, _, resting := a.Resting()
	require.False(t, resting)
	require.Equal(t, start.Add(2*time.Second), a.Down(start, "again", false), "a new rest begins short")
}

func TestWhoComesBackFirstIsNamed(t *testing.T) {
	late, soon := account(1, "acme", 1), account(2, "acme", 2)
	late.Down(start, "refused", false)
	late.Down(start, "refused", true)
	until := soon.Down(start, "refused", false)
	var table routing.Table
	table.Set([]*routing.Account{late, soon})
	q := routing.Query{Tenant: "acme", Channel: delivery.SMS}
	got := table.Choose(&q, start)
	require.Same(t, soon, got.Blocked, "what is held for it is woken first")
	require.Equal(t, until, got.Until)
	got = table.Choose(&q, until)
	require.Same(t, soon, got.Account)
	require.Equal(t, "priority (b rests)", got.Route)
}

func TestNobodyHasComeToTry(t *testing.T) {
	a := account(1, "acme", 0)
	require.False(t, a.Untried(start), "it does not rest")
	over := a.Down(start, "refused", false)
	s := time.Second
	require.False(t, a.Untried(over.Add(2*s-1)))
	for _, after := range []time.Duration{2, 4, 8, 16, 32, 64, 124} { // then each minute
		require.True(t, a.Untried(over.Add(after*s)), after)
		require.False(t, a.Untried(over.Add(after*s+s)), "it has just been said")
	}
	require.True(t, a.Probe(over.Add(200*s)))
	require.False(t, a.Untried(over.Add(300*s)), "somebody tries it")
	again := a.Down(over.Add(300*s), "refused", true)
	require.False(t, a.Untried(again.Add(s)))
	require.True(t, a.Untried(again.Add(2*s)), "of every rest anew")
}
