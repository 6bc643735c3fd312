//go:build unix

package crash

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// kills is how often the engine of one campaign goes down.
const kills = 3

// TestKill takes the engine away in the middle of campaigns. Nobody may be left out, and whoever may have got a second
// copy must be named.
func TestKill(t *testing.T) {
	l := newLab(t, time.Duration(*cycles)*2*time.Minute)
	var sum Verdict
	var recovery []time.Duration
	twice := map[string]int{}
	for n := range *cycles {
		c := l.newCampaign(n)
		c.start()
		for _, at := range c.moments(kills) {
			c.reach(max(at, len(c.entries())+1))
			l.engine.kill()
			if l.rnd.IntN(3) == 0 { // and once more while it recovers
				l.launch()
				l.pause(time.Duration(l.rnd.IntN(150)) * time.Millisecond)
				l.engine.kill()
			}
			recovery = append(recovery, c.restart())
		}
		c.finish()
		h := c.history()
		if fault := os.Getenv(plantEnv); fault != "" {
			h = doctor(h, fault)
		}
		v := Check(h)
		for a, n := range counts(h.Taken) {
			twice[a.Channel] += min(n-1, 1)
		}
		sum.Acknowledged += v.Acknowledged
		sum.Duplicated += v.Duplicated
		sum.Flagged += v.Flagged
		sum.Lost = append(sum.Lost, v.Lost...)
		sum.Unexpected = append(sum.Unexpected, v.Unexpected...)
		sum.Unflagged = append(sum.Unflagged, v.Unflagged...)
		l.audit()
	}
	slices.Sort(recovery)
	fmt.Printf("crash: cycles=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d "+
		"recovery_p99_ms=%d\n",
		*cycles, sum.Acknowledged, len(sum.Lost), len(sum.Unexpected), sum.Duplicated, sum.Flagged, len(sum.Unflagged),
		recovery[(len(recovery)*99+99)/100-1].Milliseconds())
	t.Logf("taken more than once: %v", twice)
	l.True(sum.OK(), "%s", sum.Explain())
	l.Equal(*cycles**people, sum.Acknowledged)
}

// TestTerm drains the engine in the middle of a campaign. Nobody gets a second copy, and nobody is said to.
func TestTerm(t *testing.T) {
	l := newLab(t, 2*time.Minute)
	c := l.newCampaign(0)
	c.start()
	for _, at := range c.moments(kills) {
		c.reach(max(at, len(c.entries())+1))
		l.engine.signal(syscall.SIGTERM)
		l.Zero(l.engine.wait(), "a drain ends well")
		c.restart()
	}
	c.finish()
	v := c.judge(c.history())
	l.Zero(v.Duplicated)
	l.Zero(v.Flagged)
}

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
	c.restart()
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
