//go:build unix

package crash

import (
	"syscall"
	"testing"
	"time"
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
