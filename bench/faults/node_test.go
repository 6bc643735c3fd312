//go:build faults && unix

package faults

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msgctl/msgctl/bench/crash"
	"github.com/msgctl/msgctl/sdk"
)

func TestNodeKill(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	n := l.nodes[1]
	l.slowly(time.Second)
	name, at := n.claimsAs(), time.Now()
	n.kill()
	left := l.claims(name)
	l.note("it had %d messages under lease", left)
	l.NotZero(left)
	l.until("nothing is under lease of it", func() bool { return l.claims(name) == 0 })
	l.within("the other had them", time.Since(at), lease+2*time.Second)
	l.sim.Heal(hookAccount)
	l.finish(wanted{doubts: true})
}

func TestNodeFrozen(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	n := l.nodes[1]
	l.slowly(time.Second)
	name, at := n.claimsAs(), time.Now()
	n.signal(syscall.SIGSTOP)
	left := l.claims(name)
	l.NotZero(left)
	l.until("nothing is under lease of it", func() bool { return l.claims(name) == 0 })
	l.within(fmt.Sprintf("the other had its %d messages", left), time.Since(at), lease+2*time.Second)
	n.signal(syscall.SIGCONT)
	n.untilReady()
	l.sim.Heal(hookAccount)
	l.flows()
	var late int
	l.until("late outcomes are kept as facts", func() bool {
		late = l.lateFacts()
		return late > 0
	})
	l.note("%d late outcomes were kept as facts", late)
	l.finish(wanted{doubts: true})
}

// lateFacts counts the outcomes that came after another node had taken over, of messages that are in doubt or were.
func (l *lab) lateFacts() (n int) {
	for m, err := range l.client.Messages.All(l.ctx, sdk.MessageQuery{Limit: 1000}) {
		l.NoError(err)
		if !m.PossibleDuplicate {
			continue
		}
		facts, err := l.client.Messages.Timeline(l.ctx, m.ID)
		l.NoError(err)
		for _, f := range facts {
			if f.Kind == "late" {
				n++
			}
		}
	}
	return n
}

func TestNodeClockOff(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{skew: 10 * time.Second})
	n := l.nodes[1]
	n.untilReady()
	l.until("it warns", func() bool { return n.logged("it is 10s ahead of the store's") })
	// By the wrong clock these would go at once, and those be given up at once.
	type promise struct {
		to string
		at time.Time
	}
	var promised []promise
	for i := range 40 {
		node := i % nodes
		r := crash.Request{Address: crash.Address{Channel: "webhook", To: fmt.Sprintf("/sim/hook/200/promised%d", i)}}
		opt := sdk.TTL(6 * time.Second)
		if i < 20 {
			p := promise{r.To, time.Now().Add(3 * time.Second)}
			promised = append(promised, p)
			opt = sdk.At(p.at)
		}
		m, err := l.load.clients[node].Send(l.ctx, l.message(r.Address, r.To, opt))
		l.NoError(err)
		r.ID = m.ID
		l.load.expect(r)
	}
	var soonest, latest time.Duration = time.Hour, -time.Hour
	l.until("what was promised goes", func() bool {
		found := 0
		for _, e := range l.sim.Ledger().Entries(0) {
			for _, p := range promised {
				if e.To == p.to && e.Taken {
					found++
					soonest, latest = min(soonest, e.At.Sub(p.at)), max(latest, e.At.Sub(p.at))
				}
			}
		}
		return found == len(promised)
	})
	l.note("it warned; %d messages with a time went from %s to %s after it", len(promised), round(soonest), round(latest))
	// A node's clock is set when it differs by more than can be measured: 250 ms.
	l.GreaterOrEqual(soonest, -250*time.Millisecond)
	l.finish(wanted{})
}

func TestNodeClockWrong(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{skew: -time.Minute})
	n := l.nodes[1]
	l.until("it holds back", n.held)
	h, err := n.health()
	l.NoError(err)
	l.False(h.OK)
	why := ""
	for _, state := range h.Parts {
		if strings.Contains(state, "clock") {
			why = state
		}
	}
	l.NotEmpty(why, "%v", h.Parts)
	l.note("it says %q", why)
	seen := 0
	s := during(func() {
		for range 20 {
			seen += l.claims(n.claimsAs())
			l.last(300 * time.Millisecond)
		}
	})
	l.Zero(seen, "it has claimed")
	handed, _ := l.handed(s)
	l.note("the other handed over %.0f messages a second; answers: %s", float64(handed)/s.seconds(), codes(l.load.answers(s)))
	l.GreaterOrEqual(float64(handed)/s.seconds(), usualRate/2., "messages a second")
	l.finish(wanted{})
}
