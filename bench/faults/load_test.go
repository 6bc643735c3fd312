//go:build faults && unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/bench/crash"
	"github.com/msgctl/msgctl/sdk"
)

const (
	// pacedRate and pacedBurst are what the connector of a paced row declares. The load asks it for half as much again.
	pacedRate, pacedBurst = 40, 8
	// outstanding is how many requests may be without their answer at once.
	outstanding = 1000
)

// load is clients that ask for messages at a rate, whatever becomes of the earlier ones, as the world does. Each request
// is repeated with its key, at the nodes in turn, until it is answered. No two messages have the same recipient.
type load struct {
	l       *lab
	stop    chan struct{}
	ended   sync.WaitGroup
	clients []*sdk.Client // one for each node
	every   time.Duration // between two requests

	mu    sync.Mutex
	asked []crash.Request
	tries []try
	wait  int // requests without their answer
}

// try is one request to one node.
type try struct {
	node  int
	began time.Time
	took  time.Duration
	code  string // of the problem; "" = it was accepted, "none" = no answer
}

// newLoad starts the clients.
func (l *lab) newLoad() *load {
	d := &load{l: l, stop: make(chan struct{}), every: time.Second / usualRate}
	for _, n := range l.nodes {
		c := sdk.New(sdk.WithURL(n.url()), sdk.WithKey(l.key), sdk.WithMaxRetries(0), sdk.WithTryTimeout(30*time.Second))
		l.t.Cleanup(c.Close)
		d.clients = append(d.clients, c)
	}
	d.ended.Go(d.run)
	return d
}

func (d *load) run() {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-d.stop:
			return
		case <-d.l.ctx.Done():
			return
		}
		d.mu.Lock()
		full := d.wait >= outstanding
		if !full {
			d.wait++
		}
		d.mu.Unlock()
		if full {
			n--
			continue
		}
		d.ended.Go(func() { d.send(n) })
	}
}

// person is the nth recipient: an SMS or a webhook. When the SMS are paced there are more of them.
func (d *load) person(n int) crash.Address {
	sms := n%2 == 0
	if d.l.setup.paced {
		sms = n%4 != 0
	}
	if sms {
		return crash.Address{Channel: "sms", To: fmt.Sprintf("+14152%06d", n)}
	}
	return crash.Address{Channel: "webhook", To: fmt.Sprintf("/sim/hook/200/person%d", n)}
}

// send asks for a message until it is answered.
func (d *load) send(n int) {
	defer func() {
		d.mu.Lock()
		d.wait--
		d.mu.Unlock()
	}()
	r := crash.Request{Address: d.person(n)}
	key := fmt.Sprintf("request-%d", n)
	for i := n; ; i++ {
		m, err := d.ask(i%len(d.clients), r.Address, key)
		if err == nil {
			r.ID = m.ID
			d.mu.Lock()
			d.asked = append(d.asked, r)
			d.mu.Unlock()
			return
		}
		var problem *sdk.Error
		if errors.As(err, &problem) && !problem.Retryable() {
			d.l.t.Errorf("%s is refused: %v", key, err)
			return
		}
		pause := 300 * time.Millisecond
		if problem != nil {
			pause = max(pause, problem.RetryAfter)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-d.l.ctx.Done():
			if !d.l.t.Failed() { // else there is no need to say so
				d.l.t.Errorf("%s is never answered well: %v", key, err)
			}
			return
		}
	}
}

// ask is one try.
func (d *load) ask(node int, to crash.Address, key string) (*sdk.Message, error) {
	t := try{node: node, began: time.Now()}
	m, err := d.clients[node].Send(d.l.ctx, d.l.message(to, key), sdk.IdempotencyKey(key))
	t.took = time.Since(t.began)
	var problem *sdk.Error
	switch {
	case errors.As(err, &problem):
		t.code = problem.Code
	case err != nil:
		t.code = "none"
	}
	d.mu.Lock()
	d.tries = append(d.tries, t)
	d.mu.Unlock()
	return m, err
}

// message writes to an address.
func (l *lab) message(to crash.Address, ref string, opts ...sdk.SendOption) sdk.Sendable {
	opts = append(opts, sdk.Ref(ref))
	if to.Channel == "sms" {
		return sdk.With(sdk.SMS{To: to.To, Text: "Hello"}, opts...)
	}
	return sdk.With(sdk.Hook{URL: l.sim.URL() + to.To, Event: "greeting", Data: map[string]string{"name": "Ada"}}, opts...)
}

// expect has the check at the end look for a message that the row itself has asked for.
func (d *load) expect(r crash.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, r)
}

// span is a part of a row.
type span struct{ from, to time.Time }

func (s span) holds(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

func (s span) seconds() float64 { return max(s.to.Sub(s.from).Seconds(), 0.001) }

// during runs a fault and says when that was.
func during(fault func()) span {
	s := span{from: time.Now()}
	fault()
	s.to = time.Now()
	return s
}

// answers are the tries that began in a span.
func (d *load) answers(s span) []try {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.tries), func(t try) bool { return !s.holds(t.began) })
}

// refusals are the slowest answer of those with a code, of all nodes or of one, and how many there are.
func refusals(tries []try, node int, codes ...string) (n int, slowest time.Duration) {
	for _, t := range tries {
		if (node < 0 || t.node == node) && slices.Contains(codes, t.code) {
			n++
			slowest = max(slowest, t.took)
		}
	}
	return n, slowest
}

// codes lists the codes of tries, accepted ones as 202.
func codes(tries []try) string {
	count := map[string]int{}
	for _, t := range tries {
		if t.code == "" {
			t.code = "202"
		}
		count[t.code]++
	}
	var names []string
	for name := range count {
		names = append(names, name)
	}
	slices.Sort(names)
	text := ""
	for i, name := range names {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d × %s", count[name], name)
	}
	return text
}

// handed is how many messages the providers took in a span, and the longest time that they took none.
func (l *lab) handed(s span) (n int, gap time.Duration) {
	last := s.from
	for _, e := range l.sim.Ledger().Entries(0) {
		if e.Taken && s.holds(e.At) {
			n++
			gap = max(gap, e.At.Sub(last))
			last = e.At
		}
	}
	return n, max(gap, s.to.Sub(last))
}

// underWay waits until messages flow at their rate by both nodes, and notes what is normal then.
func (l *lab) underWay() {
	l.t.Helper()
	l.until("the load is under way", func() bool { return len(l.sim.Ledger().Entries(2*usualRate)) > 0 })
	steady := time.Now()
	for _, n := range l.nodes {
		l.normal = append(l.normal, n.vitals())
	}
	l.until("two more seconds have passed", func() bool {
		for i, n := range l.nodes {
			l.normal[i] = l.normal[i].most(n.vitals())
		}
		return time.Since(steady) > 2*time.Second
	})
}

// flows waits until a message that is accepted from now on has been handed over, and returns how long that took.
func (l *lab) flows() time.Duration {
	l.t.Helper()
	began := time.Now()
	to := crash.Address{Channel: "webhook", To: fmt.Sprintf("/sim/hook/200/probe%d", began.UnixNano())}
	l.until("a message is accepted", func() bool {
		ctx, cancel := context.WithTimeout(l.ctx, time.Second)
		defer cancel()
		for _, c := range l.load.clients {
			if m, err := c.Send(ctx, l.message(to, "probe"), sdk.IdempotencyKey(to.To)); err == nil {
				l.load.expect(crash.Request{Address: to, ID: m.ID})
				return true
			}
		}
		return false
	})
	after := len(l.sim.Ledger().Entries(0)) // it may be there already
	from := max(0, after-2000)
	l.until("the message is handed over", func() bool {
		for _, e := range l.sim.Ledger().Entries(from) {
			if e.To == to.To && e.Taken {
				return true
			}
		}
		return false
	})
	return time.Since(began)
}

// firstAfter waits for a hand-off after a moment and returns how long it came after that.
func (l *lab) firstAfter(at time.Time) (took time.Duration) {
	l.t.Helper()
	from := 0
	l.until("a provider takes a message", func() bool {
		for _, e := range l.sim.Ledger().Entries(from) {
			from = e.Seq
			if e.Taken && e.At.After(at) {
				took = e.At.Sub(at)
				return true
			}
		}
		return false
	})
	return took
}
