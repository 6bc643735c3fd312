package routing_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

var (
	transient = &delivery.Failure{Class: delivery.Transient, Code: "503", Known: true}
	doubt     = &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Known: true}
)

func TestWhichFailuresMakeAnAccountRest(t *testing.T) {
	var sent *delivery.Failure
	class := func(c delivery.Class) *delivery.Failure { return &delivery.Failure{Class: c} }
	for name, c := range map[string]struct {
		ends  []*delivery.Failure // repeated
		n     int
		every time.Duration
		peers bool
		rests bool
	}{
		"too few":                    {ends: []*delivery.Failure{transient}, n: 19},
		"answers of 5xx":             {ends: []*delivery.Failure{transient}, n: 20, rests: true},
		"no answers":                 {ends: []*delivery.Failure{doubt}, n: 20, rests: true},
		"half":                       {ends: []*delivery.Failure{sent, transient}, n: 20, rests: true},
		"less than half":             {ends: []*delivery.Failure{sent, transient, sent, doubt, sent}, n: 500},
		"over too long a time":       {ends: []*delivery.Failure{transient}, n: 100, every: 4 * time.Second},
		"throttled":                  {ends: []*delivery.Failure{class(delivery.Throttled)}, n: 100},
		"rejected":                   {ends: []*delivery.Failure{class(delivery.Rejected)}, n: 100},
		"bad recipients":             {ends: []*delivery.Failure{class(delivery.BadRecipient)}, n: 100},
		"consent":                    {ends: []*delivery.Failure{class(delivery.Consent)}, n: 100},
		"its own way of going down":  {ends: []*delivery.Failure{class(delivery.ConnectorDown)}, n: 100},
		"each recipient is a server": {ends: []*delivery.Failure{transient}, n: 100, peers: true},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(1, "acme", 0)
			a.Kind = &connectors.Kind{Peers: c.peers}
			told := false
			for i := range c.n {
				told = a.Observe(number(i), c.ends[i%len(c.ends)], start.Add(time.Duration(i)*c.every)) || told
			}
			_, until, resting := a.Resting()
			require.Equal(t, c.rests, resting)
			require.Equal(t, c.rests, told, "the caller learns of it")
			if c.rests {
				require.Equal(t, start.Add(2*time.Second), until)
			}
		})
	}
}

func number(i int) string { return fmt.Sprintf("+1202555%04d", i%10000) }

func TestWhyAnAccountRests(t *testing.T) {
	a := account(1, "acme", 0)
	for i := range 40 {
		f := transient
		if i < 18 {
			f = nil
		}
		a.Observe(number(i), f, start)
	}
	why, _, resting := a.Resting()
	require.True(t, resting)
	require.Equal(t, "failing: 50 % of the last 36 attempts", why)
}

// trip makes an account rest that works, and returns when the rest is over.
func trip(t *testing.T, a *routing.Account, now time.Time) time.Time {
	for range 20 {
		a.Observe(number(1), transient, now)
	}
	_, until, resting := a.Resting()
	require.True(t, resting)
	return until
}

func TestWhatEndsTheRestOfAFailingAccount(t *testing.T) {
	for name, c := range map[string]struct {
		probe *delivery.Failure
		ends  bool
	}{
		"it works":                  {nil, true},
		"it refuses a message":      {&delivery.Failure{Class: delivery.Rejected}, true},
		"it asks to slow down":      {&delivery.Failure{Class: delivery.Throttled}, true},
		"it answers 5xx once again": {transient, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := account(1, "acme", 0)
			until := trip(t, a, start)
			a.Observe(number(2), nil, start.Add(time.Second)) // from before the rest
			require.True(t, a.Probe(until))
			at := until.Add(time.Second)
			a.Observe(number(3), c.probe, at)
			require.Equal(t, c.ends, a.Up())
			_, next, resting := a.Resting()
			require.Equal(t, !c.ends, resting)
			if !c.ends {
				require.Equal(t, at.Add(4*time.Second), next, "twice as long as the first")
				require.False(t, a.Probe(next.Add(-time.Millisecond)))
				require.True(t, a.Probe(next))
				require.False(t, a.Probe(next), "one at a time")
			}
		})
	}
	t.Run("an answer ends a rest for another reason", func(t *testing.T) {
		a := account(1, "acme", 0)
		require.True(t, a.Probe(a.Down(start, "refused", false)))
		a.Observe(number(1), transient, start.Add(2*time.Second))
		require.True(t, a.Up(), "it has answered, so that it is not refused any more")
	})
}

func TestAFailingAccountIsRememberedForAWhile(t *testing.T) {
	a := account(1, "acme", 0)
	now := start
	work := func() {
		_, now, _ = a.Resting()
		require.True(t, a.Probe(now))
		a.Observe(number(1), nil, now)
		require.True(t, a.Up())
	}
	for _, rest := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		require.Equal(t, now.Add(rest*time.Second), trip(t, a, now))
		work()
	}
	now = now.Add(2*time.Minute - time.Second)
	require.Equal(t, now.Add(time.Minute), trip(t, a, now))
	work()
	now = now.Add(2 * time.Minute)
	require.Equal(t, now.Add(2*time.Second), trip(t, a, now), "it has worked for long")
}

// However a provider's failures come and go, the account does not flap: rests get longer while it goes on.
func TestAnAccountDoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := account(1, "acme", 0)
		phases := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) [2]int {
			return [2]int{rapid.IntRange(1, 120).Draw(t, "seconds"), rapid.IntRange(0, 100).Draw(t, "failing %")}
		}), 1, 12).Draw(t, "phases")
		rate := rapid.SampledFrom([]int{1, 5, 20, 50}).Draw(t, "per second")
		dice := rapid.Uint32().Draw(t, "seed")
		now, rests, was := start, 0, false
		for now.Sub(start) < 20*time.Minute {
			for _, ph := range phases {
				for range ph[0] * rate {
					now = now.Add(time.Second / time.Duration(rate))
					_, _, resting := a.Resting()
					if resting && !was {
						rests++
					}
					was = resting
					if !a.Probe(now) {
						continue
					}
					dice = dice*1664525 + 1013904223
					var f *delivery.Failure
					if int(dice>>16)%100 < ph[1] {
						f = transient
					}
					a.Observe(number(int(dice>>8)), f, now)
					if resting {
						a.Up()
					}
				}
			}
		}
		// Six rests from 2 s to 1 min take two minutes, and it takes two more without one until the next is short.
		most := 6 + int(now.Sub(start)/(40*time.Second))
		require.LessOrEqual(t, rests, most, "in %v", now.Sub(start))
	})
}

// Two providers that fail by turns: the one that works has the traffic, and what goes to the other is bounded.
func TestTheWorkingOneOfTwoHasTheTraffic(t *testing.T) {
	a, b := account(1, "acme", 1), account(2, "acme", 2)
	var table routing.Table
	table.Set([]*routing.Account{a, b})
	lost := 0
	for i := range 60 * 50 { // one minute at 50 a second; a fails throughout
		now := start.Add(time.Duration(i) * 20 * time.Millisecond)
		c := table.Choose(&routing.Query{Tenant: "acme", Channel: delivery.SMS, To: number(i)}, now)
		require.NotNil(t, c.Account)
		var f *delivery.Failure
		if c.Account == a {
			f = transient
			lost++
		}
		c.Account.Observe(number(i), f, now)
		if c.Probe {
			c.Account.Up()
		}
	}
	require.LessOrEqual(t, lost, 20+6)
}

// Everything may be asked and told at once; afterwards the account still lets exactly one probe through.
func TestConcurrentUse(t *testing.T) {
	a, b := account(1, "acme", 1), account(2, "acme", 2)
	var table routing.Table
	table.Set([]*routing.Account{a, b})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				now := start.Add(time.Duration(i) * 100 * time.Millisecond)
				q := routing.Query{Tenant: "acme", Channel: delivery.SMS, To: number(i), Message: msg(i)}
				c := table.Choose(&q, now)
				table.Explain(&q, now)
				if c.Account == nil {
					continue
				}
				var f *delivery.Failure
				if (i+w)%3 > 0 {
					f = transient
				}
				c.Account.Observe(q.To, f, now)
				switch {
				case c.Probe && i%2 == 0:
					c.Account.Unprobe()
				case c.Probe:
					c.Account.Up()
				}
				if i%100 == 0 {
					table.Set([]*routing.Account{b, a})
				}
			}
		})
	}
	wg.Wait()
	end := a.Down(start.Add(time.Hour), "refused", true).Add(time.Hour)
	var through atomic.Int64
	for range 8 {
		wg.Go(func() {
			if a.Probe(end) {
				through.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, through.Load())
}
