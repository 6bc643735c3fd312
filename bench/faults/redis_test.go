//go:build faults && unix

package faults

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// pacedIn notes what the provider with a rate was given in a span, and its longest pause.
func (l *lab) pacedIn(what string, s span) {
	l.t.Helper()
	n, gap, last := 0, time.Duration(0), s.from
	for _, at := range l.paced() {
		if s.holds(at) {
			n++
			gap = max(gap, at.Sub(last))
			last = at
		}
	}
	gap = max(gap, s.to.Sub(last))
	l.note("%s %.0f of %d a second, with no pause above %s", what, float64(n)/s.seconds(), pacedRate, round(gap))
	l.LessOrEqual(gap, 15*time.Second, "the provider had a pause")
	all, _ := l.handed(s)
	l.t.Logf("%s: %.1f messages a second of all kinds; answers: %s", what, float64(all)/s.seconds(), codes(l.load.answers(s)))
}

// sharedAgain waits until both nodes share their rates through Redis, and lets them do so for a while.
func (l *lab) sharedAgain() {
	l.t.Helper()
	back := time.Now()
	for _, n := range l.nodes {
		l.until(n.name+" shares its rates again", func() bool {
			h, err := n.health()
			return err == nil && h.Parts["limits"] == "ok"
		})
	}
	l.within("both nodes shared their rates again", time.Since(back), 10*time.Second)
	l.pacedIn("then it got", during(func() { l.last(4 * time.Second) }))
}

// connections is how many connections Redis has ever taken since its start.
func (l *lab) connections() int {
	info, err := l.askRedis("INFO", "stats")
	l.NoError(err)
	_, text, _ := strings.Cut(info, "total_connections_received:")
	text, _, _ = strings.Cut(text, "\r")
	n, err := strconv.Atoi(text)
	l.NoError(err)
	return n
}

func TestRedisKill(t *testing.T) {
	l := begin(t, setup{redis: true, paced: true})
	gone := during(func() {
		l.redis.Kill()
		l.last(6 * time.Second)
	})
	l.redis.Start()
	l.pacedIn("without it the provider got", gone)
	l.sharedAgain()
	n := l.connections()
	l.note("Redis took %d connections since it is back", n)
	l.Less(n, 40, "a herd")
	l.finish(wanted{})
}

func TestRedisFlush(t *testing.T) {
	l := begin(t, setup{redis: true, paced: true})
	flushed := during(func() {
		for range 3 {
			l.redis.Wipe()
			l.last(3 * time.Second)
		}
	})
	l.pacedIn("the provider got", flushed)
	l.sharedAgain()
	l.finish(wanted{})
}

func TestRedisHang(t *testing.T) {
	l := begin(t, setup{redis: true, paced: true})
	hung := during(func() {
		l.redis.Stall()
		l.last(8 * time.Second)
	})
	l.redis.Resume()
	l.pacedIn("without it the provider got", hung)
	l.sharedAgain()
	l.finish(wanted{})
}

func TestRedisSlow(t *testing.T) {
	l := begin(t, setup{paced: true})
	slow := during(func() {
		for _, n := range l.nodes {
			n.redis.Slow(250 * time.Millisecond) // each way
		}
		l.last(10 * time.Second)
	})
	for _, n := range l.nodes {
		n.redis.Heal()
	}
	l.pacedIn("meanwhile the provider got", slow)
	l.sharedAgain()
	l.finish(wanted{})
}

func TestRedisRewind(t *testing.T) {
	l := begin(t, setup{redis: true, paced: true})
	_, err := l.askRedis("SAVE")
	l.NoError(err)
	l.last(5 * time.Second)
	rewound := during(func() {
		l.redis.Kill()
		l.redis.Start() // with what it had saved
		l.last(5 * time.Second)
	})
	l.pacedIn("in the seconds after it the provider got", rewound)
	l.sharedAgain()
	l.finish(wanted{})
}
