package routing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

// pair is two accounts of a channel whose recipients are servers of their own, so that only destinations count.
func pair(ch delivery.Channel) (a, b *routing.Account, choose func(to string, now time.Time) routing.Choice) {
	a, b = account(1, "acme", 1), account(2, "acme", 2)
	a.Channel, b.Channel = ch, ch
	a.Kind = &connectors.Kind{Peers: true}
	b.Kind = a.Kind
	table := &routing.Table{}
	table.Set([]*routing.Account{a, b})
	return a, b, func(to string, now time.Time) routing.Choice {
		return table.Choose(&routing.Query{Tenant: "acme", Channel: ch, To: to}, now)
	}
}

func TestADestinationInTroubleChangesTheChoice(t *testing.T) {
	for name, c := range map[string]struct {
		channel   delivery.Channel
		to, other string // of another destination
	}{
		"country": {delivery.SMS, "+919876543210", "+12025550100"},
		"domain":  {delivery.Email, "a@slow.example", "a@example.com"},
		"host":    {delivery.Webhook, "https://slow.example:8443/a", "https://example.com/a"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, choose := pair(c.channel)
			for i := range 10 {
				require.Same(t, a, choose(c.to, start).Account, "after %d failures", i)
				a.Observe(c.to, transient, start)
			}
			got := choose(c.to, start)
			require.Same(t, b, got.Account)
			require.Equal(t, "priority (b is unhealthy)", got.Route)
			require.Same(t, a, choose(c.other, start).Account, "another destination is not touched")
			require.Equal(t, "priority", choose(c.other, start).Route)

			over := start.Add(15 * time.Second)
			require.Same(t, b, choose(c.to, over.Add(-time.Millisecond)).Account)
			require.Same(t, a, choose(c.to, over).Account, "one message tries")
			require.Same(t, b, choose(c.to, over).Account, "only one")
			a.Observe(c.to, transient, over)
			require.Same(t, b, choose(c.to, over.Add(30*time.Second-time.Millisecond)).Account)
			over = over.Add(30 * time.Second)
			require.Same(t, a, choose(c.to, over).Account)
			a.Observe(c.to, nil, over)
			require.Same(t, a, choose(c.to, over).Account, "it works again")
			require.Same(t, a, choose(c.to, over).Account)
		})
	}
}

func TestADestinationNeverHoldsAMessage(t *testing.T) {
	a, b, choose := pair(delivery.SMS)
	for range 10 {
		a.Observe("+919876543210", transient, start)
		b.Observe("+919876543210", transient, start)
	}
	got := choose("+919876543210", start)
	require.Same(t, a, got.Account, "both have trouble: the first of them")
	require.Equal(t, "priority", got.Route)
	b.Down(start, "refused", false)
	require.Same(t, a, choose("+919876543210", start).Account)
	a.Down(start, "refused", false)
	require.Equal(t, routing.ReasonConnectorDown, choose("+919876543210", start).Reason)
	require.Same(t, a, choose("+919876543210", start.Add(2*time.Second)).Account, "a rest that is over can be tried")
	require.Same(t, b, choose("+919876543210", start.Add(2*time.Second)).Account)
}

func TestAProbeOfADestinationThatGetsLost(t *testing.T) {
	a, b, choose := pair(delivery.SMS)
	for range 10 {
		a.Observe("+919876543210", doubt, start)
	}
	over := start.Add(15 * time.Second)
	require.Same(t, a, choose("+919876543210", over).Account)
	require.Same(t, b, choose("+919876543210", over.Add(time.Minute)).Account)
	require.Same(t, a, choose("+919876543210", over.Add(time.Minute+2*time.Second)).Account, "another may try")
}

// A clock that is set back must not stretch a wait.
func TestAClockThatIsSetBack(t *testing.T) {
	a, b, choose := pair(delivery.SMS)
	for range 10 {
		a.Observe("+919876543210", transient, start)
	}
	require.Same(t, a, choose("+919876543210", start.Add(-time.Hour)).Account)
	b.Down(start, "refused", false)
	require.True(t, b.Probe(start.Add(-time.Hour)))
	for range 20 {
		a.Observe("+919876543210", transient, time.Time{}) // before 1970
	}
}

func TestADestinationDoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _, choose := pair(delivery.SMS)
		cycle := rapid.IntRange(1, 240).Draw(t, "seconds of a cycle")
		failing := rapid.IntRange(0, 100).Draw(t, "failing % of the bad half")
		dice := rapid.Uint32().Draw(t, "seed")
		switches := 0
		was := a
		const seconds, rate = 1200, 10
		for i := range seconds * rate {
			now := start.Add(time.Duration(i) * time.Second / rate)
			got := choose("+919876543210", now).Account
			if got != was {
				switches++
				was = got
			}
			dice = dice*1664525 + 1013904223
			var f *delivery.Failure
			if got == a && i/rate%cycle < (cycle+1)/2 && int(dice>>16)%100 < failing {
				f = transient
			}
			got.Observe("+919876543210", f, now)
		}
		// Five dwells from 15 s to 4 min take almost eight minutes, and it takes two more without one until the next is
		// short. Each is switched to, tried out of once, and left: four switches at most.
		require.LessOrEqual(t, switches, 4*(6+seconds/100))
	})
}

// What is remembered is bounded: the destination that was not heard of for longest makes way.
func TestDestinationsAreBounded(t *testing.T) {
	a, b, choose := pair(delivery.Email)
	spoil := func(i int) {
		for range 10 {
			a.Observe(fmt.Sprintf("x@d%d.example", i), transient, start)
		}
	}
	at := func(i int) *routing.Account { return choose(fmt.Sprintf("x@d%d.example", i), start).Account }
	for i := range 1024 {
		spoil(i)
	}
	for i := range 1024 {
		require.Same(t, b, at(i))
	}
	a.Observe("x@d0.example", transient, start)
	spoil(1024)
	require.Same(t, b, at(0), "just heard of")
	require.Same(t, a, at(1), "forgotten")
	require.Same(t, b, at(1024))
}

func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		channel delivery.Channel
		a, b    string
		same    bool
	}{
		{delivery.SMS, "+12025550100", "+13105550100", true},
		{delivery.SMS, "+12025550100", "+919876543210", false},
		{delivery.SMS, "+919876543210", "+929876543210", false},
		{delivery.SMS, "+353861234567", "+353871234567", true},
		{delivery.SMS, "+353861234567", "+354861234567", false},
		{delivery.SMS, "+351912345678", "+352912345678", false},
		{delivery.SMS, "+420601234567", "+421901234567", false},
		{delivery.SMS, "+447700900123", "+447700900999", true},
		{delivery.SMS, "+79161234567", "+77011234567", true},
		{delivery.WhatsApp, "+8801712345678", "+8801812345678", true},
		{delivery.WhatsApp, "+8801712345678", "+886912345678", false},
		{delivery.WhatsApp, "+9611234567", "+9621234567", false},
		{delivery.SMS, "+", "+", false},
		{delivery.SMS, "12345", "12345", false},
		{delivery.Email, "a@Example.com", "b@example.com", true},
		{delivery.Email, `"a@b"@example.com`, "b@example.com", true},
		{delivery.Email, "a@example.com", "a@mail.example.com", false},
		{delivery.Webhook, "https://example.com/a", "http://example.com:8080?b", true},
		{delivery.Webhook, "https://[2001:db8::1]:8443/a", "https://[2001:db8::1]/b", true},
		{delivery.Webhook, "https://[2001:db8::1]/a", "https://[2001:db8::2]/a", false},
		{delivery.Webhook, "https://example.com/x:1", "https://example.com/", true},
	} {
		t.Run(c.a+" "+c.b, func(t *testing.T) {
			a, _, choose := pair(c.channel)
			for range 10 {
				a.Observe(c.a, transient, start)
			}
			require.Equal(t, c.same, choose(c.b, start).Account != a)
		})
	}
}
