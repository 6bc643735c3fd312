//go:build unix

package crash

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// limited is a tenant with a limit, known at the provider by the range of its people's numbers.
type limited struct {
	id, numbers      string
	perSecond, burst float64
	messages         int
	seen             []time.Time
}

// TestLimitsAtTheProvider counts where it matters what two tenants get through one connector that they share: never
// more than their limits, and not much less.
func TestLimitsAtTheProvider(t *testing.T) {
	l := newLab(t, time.Minute)
	_, err := l.operator.Connectors.Put(l.ctx, "shared-sms", sdk.ConnectorRequest{
		Kind: "smpp", Shared: true, Settings: map[string]string{
			"addr": l.sim.at.SMPP, "system_id": "shared-sms", "password": sandbox.Password, "from": "msgctl",
		},
	})
	l.NoError(err)
	tenants := []*limited{
		{id: "slow", numbers: "+14152", perSecond: 50, burst: 5, messages: 50 * 6},
		{id: "fast", numbers: "+16282", perSecond: 200, burst: 20, messages: 200 * 6},
	}
	l.sim.stall() // what happened before does not count
	var wg sync.WaitGroup
	for _, tn := range tenants {
		key := l.newTenant(sdk.TenantRequest{ID: tn.id, Rates: []sdk.Rate{
			{Channel: sdk.ChannelSMS, PerSecond: tn.perSecond, Burst: tn.burst},
		}})
		c := sdk.New(sdk.WithURL(l.url()), sdk.WithKey(key))
		t.Cleanup(c.Close)
		rows := func(yield func(sdk.Sendable) bool) {
			for i := range tn.messages {
				if !yield(sdk.SMS{To: fmt.Sprintf("%s%06d", tn.numbers, i), Text: "Hello"}) {
					return
				}
			}
		}
		wg.Go(func() {
			for row, err := range c.SendAll(l.ctx, rows) {
				if err != nil || row.Error != nil {
					t.Errorf("%s: %v %v", tn.id, err, row.Error)
					return
				}
			}
		})
	}
	wg.Wait()
	total := tenants[0].messages + tenants[1].messages
	l.until("all is sent", 50*time.Millisecond, func() bool { return len(l.sim.seen()) >= total })
	// The ledger's times are read when the simulator gets a processor. What came while it did not is all dated later, so
	// a window may hold what passed within it and within that time.
	stall := l.sim.stall()
	for _, e := range l.sim.seen() {
		for _, tn := range tenants {
			if strings.HasPrefix(e.To, tn.numbers) {
				tn.seen = append(tn.seen, e.At)
			}
		}
	}
	for _, tn := range tenants {
		l.Len(tn.seen, tn.messages)
		bound := tn.perSecond*(1+stall.Seconds()) + tn.burst
		worst := busiest(tn.seen, time.Second)
		span := tn.seen[len(tn.seen)-1].Sub(tn.seen[0])
		rate := float64(tn.messages) / span.Seconds()
		t.Logf("%s: limit %g/s + %g, busiest second %d, %.1f/s over all; the simulator stood still for %s at worst",
			tn.id, tn.perSecond, tn.burst, worst, rate, stall)
		l.LessOrEqual(float64(worst), bound, "%s: a second holds more than its limit", tn.id)
		l.GreaterOrEqual(rate, 0.8*tn.perSecond, "%s: its limit is not used", tn.id)
	}
}

// busiest returns how many of the times, which are in order, lie in one window at most.
func busiest(times []time.Time, window time.Duration) (most int) {
	from := 0
	for to := range times {
		for times[to].Sub(times[from]) >= window {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}
