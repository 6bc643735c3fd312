//go:build unix

package crash

import (
	"fmt"
	"maps"
	"syscall"
	"testing"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// TestSecondSignal cuts a drain short while the providers take their time. The engine ends at once and says so; only
// who was being written to at that moment may get a second copy.
func TestSecondSignal(t *testing.T) {
	l := newLab(t, 2*time.Minute)
	c := l.newCampaign(0)
	c.start()
	c.reach(len(c.asked) / 4)
	l.sim.slow(time.Hour)
	stuck := -1
	l.until("every attempt under way is stuck", 300*time.Millisecond, func() bool {
		before := stuck
		stuck = len(c.entries())
		return stuck == before
	})
	l.engine.signal(syscall.SIGTERM)
	l.until("the engine drains", 5*time.Millisecond, func() bool { return l.logged("draining") })
	l.False(l.engine.ended())
	l.engine.signal(syscall.SIGTERM)
	l.Equal(3, l.engine.wait(), "attempts are left without an answer")
	l.sim.heal()
	l.start()
	c.finish()
	v := c.judge(c.history())
	l.NotZero(v.Flagged)
}

// TestStopped lets the engine stand still for a while, as a paused machine does. Less than a lease changes nothing.
func TestStopped(t *testing.T) {
	l := newLab(t, 2*time.Minute)
	c := l.newCampaign(0)
	c.start()
	c.reach(c.moments(1)[0])
	l.engine.signal(syscall.SIGSTOP)
	l.pause(3 * time.Second)
	l.engine.signal(syscall.SIGCONT)
	c.finish()
	c.judge(c.history())
	l.False(l.engine.ended())
}

// TestStoppedForLong lets the engine stand still for longer than its leases, in the middle of attempts that providers
// answer meanwhile. What it does when it wakes must not lose anything, nor send a second copy without a word; an answer
// that is read too late is kept.
func TestStoppedForLong(t *testing.T) {
	const timeout, stops = 2 * time.Second, 2
	lease := 2 * timeout // the engine's least, with these timeouts
	l := newProcesses(t, 3*time.Minute)
	l.configure("lease: 1s\n")
	l.open()
	l.whatsApp("5s")
	l.timeouts(timeout)
	d := l.newLoad()
	for range stops {
		before := len(d.look())
		l.until("the load is under way", 5*time.Millisecond, func() bool { return len(d.look()) > before+backlog/10 })
		l.sim.slow(timeout / 4) // so that attempts are under way
		d.watch(timeout / 2)
		l.engine.signal(syscall.SIGSTOP)
		d.watch(lease + 2*time.Second)
		l.engine.signal(syscall.SIGCONT)
		d.watch(time.Second)
		l.sim.heal()
	}
	h := d.finish()
	v := Check(h)
	late := 0
	for _, m := range h.Messages {
		if m.Flagged {
			late += l.facts(m.ID, "late")
		}
	}
	fmt.Printf("stopped for longer than a lease: stops=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d "+
		"unflagged=%d doubts=%d late=%d\n", stops, v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated, v.Flagged,
		len(v.Unflagged), v.Doubts, late)
	l.True(v.OK(), "%s", v.Explain())
	l.NotZero(v.Doubts, "no attempt outlived its lease")
	l.False(l.engine.ended())
}

// timeouts bounds how long the lab's connectors wait for a provider.
func (l *lab) timeouts(d time.Duration) {
	l.t.Helper()
	list, err := l.client.Connectors.List(l.ctx)
	l.NoError(err)
	l.Len(list, 4)
	for _, c := range list {
		settings := map[string]string{}
		maps.Copy(settings, c.Settings)
		settings["timeout"] = d.String()
		_, err := l.client.Connectors.Put(l.ctx, c.Name, sdk.ConnectorRequest{Kind: c.Kind, Settings: settings})
		l.NoError(err)
	}
}
