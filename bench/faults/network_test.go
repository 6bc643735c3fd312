//go:build faults && unix

package faults

import (
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/servers"
)

// held reports whether the node says that it claims nothing.
func (n *node) held() bool {
	x, err := n.metric("msgctl_cluster_held")
	return err == nil && x == 1
}

// claims counts what is under lease under a name.
func (l *lab) claims(name string) (n int) {
	l.NoError(l.query(`SELECT count(*) FROM messages WHERE q = 0 AND due IS NOT NULL AND status = $1 AND node = $2`, &n,
		int16(delivery.StatusSending), name))
	return n
}

// aside waits until the node says that it does not claim, and why, and then until nothing of it is under lease.
func (n *node) aside(began time.Time) {
	l := n.l
	l.t.Helper()
	l.until(n.name+" does not claim", n.held)
	// Its last sign of life holds for 3 s, and without its store it takes 2 s to answer.
	l.within("it was seen to hold back", time.Since(began), 8*time.Second)
	h, err := n.health()
	l.NoError(err)
	l.False(h.OK)
	l.NotEqual("ok", h.Parts["store"])
	name := n.claimsAs()
	l.until("nothing is under lease of it", func() bool { return l.claims(name) == 0 })
	l.within("what it had was taken over", time.Since(began), lease+2*time.Second)
}

// other notes what was handed over while one node was out, and wants so many messages a second.
func (l *lab) other(s span, least float64) {
	l.t.Helper()
	handed, gap := l.handed(s)
	l.note("%.0f messages a second were handed over meanwhile, with no pause above %s", float64(handed)/s.seconds(), round(gap))
	l.GreaterOrEqual(float64(handed)/s.seconds(), least, "messages a second")
	n, slowest := refusals(l.load.answers(s), 1, without...)
	if n > 0 {
		l.note("it refused %d requests, the slowest after %s", n, round(slowest))
	}
}

func TestNetworkNoPostgres(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	n := l.nodes[1]
	l.slowly(700 * time.Millisecond)
	cut := during(func() {
		began := time.Now()
		n.pg.Cut()
		n.aside(began)
		l.last(lease + 4*time.Second - time.Since(began))
	})
	l.sim.Heal(hookAccount)
	n.pg.Heal()
	l.other(cut, usualRate/2)
	back := time.Now()
	n.untilReady()
	l.within("it was ready again", time.Since(back), 5*time.Second)
	l.finish(wanted{doubts: true})
}

func TestNetworkNoRabbit(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	cut := during(func() {
		l.nodes[1].mq.Cut()
		l.last(8 * time.Second)
	})
	l.nodes[1].mq.Heal()
	l.other(cut, usualRate/2)
	l.connected()
	l.finish(wanted{})
}

func TestNetworkNoRedis(t *testing.T) {
	l := begin(t, setup{paced: true})
	cut := during(func() {
		l.nodes[1].redis.Cut()
		l.last(10 * time.Second)
	})
	l.nodes[1].redis.Heal()
	l.pacedIn("meanwhile the provider got", cut)
	l.sharedAgain()
	l.finish(wanted{})
}

func TestNetworkOneWay(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	n := l.nodes[1]
	for _, way := range []servers.Direction{servers.ToClient, servers.ToServer} {
		hung := during(func() {
			began := time.Now()
			n.pg.Hang(way)
			n.aside(began)
			l.last(lease + 2*time.Second - time.Since(began))
		})
		n.pg.Heal()
		l.other(hung, usualRate/4)
		back := time.Now()
		n.untilReady()
		l.within("it was ready again", time.Since(back), 5*time.Second)
	}
	l.finish(wanted{doubts: true})
}

func TestNetworkNarrow(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	n := l.nodes[1]
	links := []*servers.Link{n.pg, n.mq, n.redis}
	narrow := during(func() {
		for _, link := range links {
			link.Bandwidth(64_000 / 8)
		}
		l.last(15 * time.Second)
	})
	for _, link := range links {
		link.Heal()
	}
	l.other(narrow, 0)
	back := time.Now()
	l.flows()
	l.within("a message went through", time.Since(back), 5*time.Second)
	n.untilReady()
	l.finish(wanted{doubts: true})
}

func TestNetworkAlone(t *testing.T) {
	l := begin(t, setup{paced: true})
	n := l.nodes[1]
	links := []*servers.Link{n.pg, n.mq, n.redis}
	cut := during(func() {
		began := time.Now()
		for _, link := range links {
			link.Cut()
		}
		n.aside(began)
		l.last(lease + 2*time.Second - time.Since(began))
	})
	for _, link := range links {
		link.Heal()
	}
	l.pacedIn("meanwhile the provider got", cut)
	refused, slowest := refusals(l.load.answers(cut), 1, without...)
	l.NotZero(refused)
	l.note("it refused %d requests, the slowest after %s", refused, round(slowest))
	n.untilReady()
	l.sharedAgain()
	l.finish(wanted{doubts: true})
}
