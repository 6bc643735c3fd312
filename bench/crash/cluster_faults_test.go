//go:build unix

package crash

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// The kinds of faults, as they are counted and reported.
const (
	killOne    = "engine_kill"        // SIGKILL, and started again at once
	killAway   = "engine_away"        // SIGKILL, and started again when the others have taken what it had
	killTwo    = "engine_kill_two"    // two at once, started again at once
	killAll    = "engine_kill_all"    // all at once, started again at once
	freezeLong = "engine_freeze_long" // SIGSTOP for longer than a lease, then SIGCONT
	freeze     = "engine_freeze"      // SIGSTOP for less than a lease, then SIGCONT

	pgKill  = "postgres_kill"
	pgStall = "postgres_stall" // SIGSTOP of all its processes
	mqStall = "rabbitmq_stall"
	mqKill  = "rabbitmq_kill"
	mqWipe  = "rabbitmq_wipe" // SIGKILL, and the disk is lost

	redisKill  = "redis_kill"
	redisWipe  = "redis_flushall"
	redisStall = "redis_stall"
	redisBack  = "redis_kill_engine_back" // an engine, killed before, joins the others while Redis is away
)

// chaos is a cluster under load and what is done to it.
type chaos struct {
	*clusterLab
	main, slow *load
	seen       []sighting
	marks      map[string][]mark
	outages    map[string][]*span

	mq       sync.WaitGroup // RabbitMQ takes long to start: other faults meet its absence
	probes   int
	asked    []Request // by probes
	prober   *turns
	overtook int // kills that met an engine which had not recovered from the last one
}

// mark is what one fault cost.
type mark struct {
	handoff time.Duration // until somebody handed over a message; see each fault
	claims  time.Duration // until nothing was claimed by those that were hit
}

// span is a time in which something was away.
type span struct{ from, to time.Time }

// look reads the ledger.
func (c *chaos) look() {
	c.seen = c.sim.seen()
	c.main.count(c.seen)
	c.slow.count(c.seen)
}

// watch keeps an eye on everything until done says that it is enough.
func (c *chaos) watch(what string, done func() bool) {
	c.t.Helper()
	c.until(what, 10*time.Millisecond, func() bool {
		if c.t.Failed() {
			c.FailNow("something has failed meanwhile; see above")
		}
		c.look()
		c.tend()
		return done()
	})
}

// linger lets time pass.
func (c *chaos) linger(d time.Duration) {
	end := time.Now().Add(d)
	c.watch("time has passed", func() bool { return !time.Now().Before(end) })
}

// random is a time up to the most.
func (c *chaos) random(most time.Duration) time.Duration {
	return time.Duration(c.rnd.Int64N(int64(most)))
}

// during runs something that takes its time.
func (c *chaos) during(what string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	c.watch(what, func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

// note keeps what a fault cost.
func (c *chaos) note(kind string, m mark) { c.marks[kind] = append(c.marks[kind], m) }

// deck is so many faults of engines: each kind once as far as the number allows, then the usual more often than the rare.
func (c *chaos) deck(n int) []string {
	deck := []string{killOne, killAway, freezeLong, killTwo, killAll, freeze}
	usual := []string{killOne, killOne, killOne, killOne, killOne, killAway, killAway, killTwo, killTwo, freezeLong, freeze}
	for len(deck) < n {
		deck = append(deck, usual[c.rnd.IntN(len(usual))])
	}
	return deck[:n]
}

// faults are all faults of a run, in the order of a chance.
func (c *chaos) faults(n counts) []string {
	all := c.deck(n.engine)
	add := func(n int, kinds ...string) {
		for i := range n {
			all = append(all, kinds[i%len(kinds)])
		}
	}
	add(n.postgres, pgKill, pgKill, pgStall, pgKill)
	add(n.rabbit, mqStall, mqKill, mqWipe, mqKill) // a start takes half a minute
	add(n.redis, redisKill, redisWipe, redisStall, redisBack)
	c.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if *onlyFlag != "" {
		for i := range all {
			all[i] = *onlyFlag
		}
	}
	return all
}

// inflict does one fault and, mostly, waits until it is over.
func (c *chaos) inflict(kind string) {
	switch kind {
	case killOne:
		c.killed(kind, c.pick(1))
	case killTwo:
		c.killed(kind, c.pick(2))
	case killAll:
		c.killed(kind, c.pick(len(c.nodes)))
	case killAway:
		c.killed(kind, c.pick(1))
	case freezeLong:
		c.frozen(kind)
	case freeze:
		c.paused(kind)
	case pgKill, pgStall:
		c.postgres(kind)
	case mqStall, mqKill, mqWipe:
		c.rabbitmq(kind)
	case redisKill, redisWipe, redisStall:
		c.limits(kind)
	case redisBack:
		c.back(kind)
	default:
		c.FailNow("no such kind of fault", "%q", kind)
	}
}

// pick chooses nodes.
func (c *chaos) pick(n int) []*node {
	all := slices.Clone(c.nodes)
	c.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:n]
}

// killed kills engines at once and waits until somebody sends and nothing of theirs is claimed any more. They are
// started again at once, or when others have taken what they had.
func (c *chaos) killed(kind string, nodes []*node) {
	c.t.Helper()
	var names []string
	for _, n := range nodes {
		if !n.ready {
			c.overtook++
		}
	}
	for _, n := range nodes {
		n.shoot()
	}
	for _, n := range nodes {
		n.p.wait()
		names = append(names, n.claimsAs())
	}
	at := time.Now()
	start := func() {
		for _, n := range nodes {
			n.launch()
		}
	}
	if kind != killAway {
		start()
	}
	m := c.recovered(kind, at, names)
	if kind == killAway {
		start()
	}
	c.note(kind, m)
	c.after(nodes)
}

// frozen stops an engine in the midst of its work until others have taken what it had.
func (c *chaos) frozen(kind string) {
	n := c.pick(1)[0]
	c.watch(n.name+" has something to do", func() bool {
		working, err := c.claims(n.claimsAs())
		return err == nil && working > 0
	})
	name, at := n.claimsAs(), time.Now()
	n.freeze()
	m := c.recovered(kind, at, []string{name})
	c.linger(time.Until(at.Add(lease + time.Second)))
	n.thaw()
	c.t.Logf("%s was frozen from %s to %s", n.name, at.Format("15:04:05.000"), time.Now().Format("15:04:05.000"))
	c.note(kind, m)
	c.after([]*node{n})
}

// paused stops an engine for less than a lease.
func (c *chaos) paused(kind string) {
	n, at := c.pick(1)[0], time.Now()
	n.freeze()
	m := c.recovered(kind, at, nil)
	c.linger(c.random(4 * time.Second))
	n.thaw()
	c.t.Logf("%s was frozen from %s to %s", n.name, at.Format("15:04:05.000"), time.Now().Format("15:04:05.000"))
	c.note(kind, m)
	c.after([]*node{n})
}

// recovered waits until somebody has handed over a message after a fault and nothing is claimed any more under the
// names of those that it hit.
func (c *chaos) recovered(what string, at time.Time, names []string) (m mark) {
	c.t.Helper()
	const (
		leftovers = 20 * time.Millisecond // what a dead engine had put on the wire is still read for a moment
		every     = 50 * time.Millisecond
	)
	from, looked := len(c.seen), time.Time{}
	c.watch("recovery from "+what, func() bool {
		for ; m.handoff == 0 && from < len(c.seen); from++ {
			if took := c.seen[from].At.Sub(at); took > leftovers {
				m.handoff = took
			}
		}
		if len(names) > 0 && time.Since(looked) >= every {
			looked = time.Now()
			names = slices.DeleteFunc(names, func(name string) bool {
				n, err := c.claims(name)
				return err == nil && n == 0
			})
			m.claims = time.Since(at)
		}
		return m.handoff > 0 && len(names) == 0
	})
	return m
}

// after lets engines recover, or not: the next fault then meets them while they do.
func (c *chaos) after(nodes []*node) {
	if c.rnd.IntN(3) > 0 {
		c.watch("the engines that were hit are ready", func() bool {
			return !slices.ContainsFunc(nodes, func(n *node) bool { return !n.isReady() })
		})
	}
	c.linger(c.random(800 * time.Millisecond))
}

// postgres takes the store away and waits until a message that is accepted after it is back has been handed over.
func (c *chaos) postgres(kind string) {
	from := time.Now()
	c.away = from.Add(time.Hour)
	away := c.random(2 * time.Second)
	switch {
	case kind == pgStall:
		away = time.Second + c.random(9*time.Second)
		c.during("PostgreSQL stands still", c.pg.Stall)
	default:
		c.during("PostgreSQL is away", c.pg.Kill)
		if c.rnd.IntN(3) == 0 { // an engine is killed too, and has no store when it starts again
			n := c.pick(1)[0]
			n.shoot()
			n.p.wait()
			n.launch()
		}
	}
	c.linger(away)
	c.during("PostgreSQL is back", map[bool]func(){true: c.pg.Resume, false: c.pg.Start}[kind == pgStall])
	back := time.Now()
	c.away = back.Add(time.Second) // what had begun to start meanwhile may still fail for it
	c.outages[kind] = append(c.outages[kind], &span{from, back})
	c.note(kind, mark{handoff: c.through()})
	c.linger(c.random(800 * time.Millisecond))
}

// through sends a message by whoever takes it, and returns how long it took to a provider.
func (c *chaos) through() time.Duration {
	c.t.Helper()
	began := time.Now()
	c.probes++
	r := Request{Address: Address{"email", fmt.Sprintf("probe%d@example.com", c.probes)}}
	key := fmt.Sprintf("probe-%d", c.probes)
	from := len(c.seen)
	c.watch("a message is accepted again", func() bool {
		m, err := c.prober.next().Send(c.ctx, c.message(r.Address, key), sdk.IdempotencyKey(key))
		if err != nil {
			return false
		}
		r.ID = m.ID
		return true
	})
	c.asked = append(c.asked, r)
	var took time.Duration
	c.watch("the message is handed over", func() bool {
		for ; from < len(c.seen); from++ {
			if c.seen[from].Address == r.Address {
				took = c.seen[from].At.Sub(began)
				return true
			}
		}
		return false
	})
	return took
}

// rabbitmq takes the broker away, and goes on while that lasts.
func (c *chaos) rabbitmq(kind string) {
	done := make(chan struct{})
	go func() { c.mq.Wait(); close(done) }()
	c.watch("RabbitMQ is back from the last fault", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	pause := c.random(2 * time.Second)
	s := &span{from: time.Now()}
	c.outages[kind] = append(c.outages[kind], s)
	c.mq.Go(func() {
		switch kind {
		case mqWipe:
			c.rabbit.Wipe()
		case mqKill:
			c.rabbit.Kill()
			c.pause(pause)
			c.rabbit.Start()
		default:
			c.rabbit.Stall()
			c.pause(4 * pause)
			c.rabbit.Resume()
		}
		s.to = time.Now()
	})
	c.linger(c.random(2 * time.Second))
}

// limits takes away what the engines share their rates through.
func (c *chaos) limits(kind string) {
	from := time.Now()
	away := c.random(3 * time.Second)
	c.during("Redis is back", func() {
		switch kind {
		case redisWipe:
			c.redis.Wipe()
		case redisKill:
			c.redis.Kill()
			c.pause(away)
			c.redis.Start()
		default:
			c.redis.Stall()
			c.pause(away)
			c.redis.Resume()
		}
	})
	c.outages[kind] = append(c.outages[kind], &span{from, time.Now()})
	c.linger(c.random(time.Second))
}

// back has an engine come back while Redis is away: all of them go by their own shares then, and have to agree on how
// many there are.
func (c *chaos) back(kind string) {
	n := c.pick(1)[0]
	n.shoot()
	n.p.wait()
	c.linger(c.random(4 * time.Second)) // it counts as alive until its last sign of life is over
	from := time.Now()
	c.during("Redis is away", c.redis.Kill)
	c.linger(c.random(time.Second))
	n.launch()
	c.watch(n.name+" is back", n.isReady)
	c.linger(time.Second + c.random(3*time.Second))
	c.during("Redis is back", c.redis.Start)
	c.outages[kind] = append(c.outages[kind], &span{from, time.Now()})
	c.linger(c.random(time.Second))
}
