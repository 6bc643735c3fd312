//go:build unix

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

// The load of a lab: clients that never give up over an error, because an engine that dies is what they are here for.
const (
	singles       = 4     // clients with a message at a time
	batches       = 2     // clients with many at a time
	batchRows     = 60    // of a batch
	audience      = 400   // people of a campaign
	backlog       = 3_000 // messages that may be asked for and not taken yet
	againAfter    = 20 * time.Millisecond
	repeatOneIn   = 16 // answered requests are repeated, to see that nothing is made twice
	campaignPause = 200 * time.Millisecond
)

// load is clients of every kind that work on one engine until they are told to stop. No two messages have the same
// recipient, so that witnesses can be joined by address.
type load struct {
	l     *lab
	plan  plan
	began time.Time
	stop  chan struct{}
	wg    sync.WaitGroup

	people   atomic.Int64 // who has been written to
	asked    atomic.Int64 // messages
	taken    atomic.Int64 // as far as the ledger was read
	read     int          // entries of the ledger that taken counts
	answered atomic.Int64 // requests
	broken   atomic.Int64 // tries without an answer
	repeated atomic.Int64 // requests that were answered twice

	reported   time.Duration // how long after the last hand-off the last receipt came, about
	unreported string        // a message whose receipt never came

	mu        sync.Mutex
	requests  []Request
	campaigns []string
}

// plan says what the clients of a load do.
type plan struct {
	singles, batches int
	campaigns        bool
	perSecond        int   // messages that are asked for at most
	backlog          int64 // messages that may be asked for and not taken yet
	person           func(int) Address
	mine             func(Address) bool // which entries of the ledger are of this load; nil = all
	// urls are where the clients send, in turn: whoever gets no answer tries the next. Empty = the lab's one.
	urls    []string
	options []sdk.Option // of the clients
}

// usual is the load on one engine. Its clients fail at once, so that they follow an engine that is back without delay.
func usual() plan {
	return plan{
		singles: singles, batches: batches, campaigns: true, perSecond: *rate, backlog: backlog, person: person,
		options: []sdk.Option{sdk.WithMaxRetries(0), sdk.WithTryTimeout(10 * time.Second)},
	}
}

// newLoad starts the usual clients.
func (l *lab) newLoad() *load { return l.load(usual()) }

// load starts clients.
func (l *lab) load(p plan) *load {
	l.t.Helper()
	if len(p.urls) == 0 {
		p.urls = []string{l.url()}
	}
	d := &load{l: l, plan: p, began: time.Now(), stop: make(chan struct{})}
	for i := range p.singles + p.batches {
		c := &loader{
			load: d, name: fmt.Sprintf("client%d", i), rows: 1, clients: d.clients(i),
			rnd: rand.New(rand.NewPCG(l.rnd.Uint64(), 0)),
		}
		if i >= p.singles {
			c.rows = batchRows
		}
		d.wg.Go(c.run)
	}
	if p.campaigns {
		l.templates()
		clients := d.clients(0)
		d.wg.Go(func() { d.campaign(clients) })
	}
	return d
}

// turns are clients of the same tenant, one for each URL, that are used in turn by one goroutine.
type turns struct {
	clients []*sdk.Client
	n       int
}

func (t *turns) next() *sdk.Client {
	t.n++
	return t.clients[t.n%len(t.clients)]
}

// clients makes the clients of the nth user.
func (d *load) clients(n int) *turns {
	t := &turns{n: n}
	for _, url := range d.plan.urls {
		c := sdk.New(append([]sdk.Option{sdk.WithURL(url), sdk.WithKey(d.l.key)}, d.plan.options...)...)
		d.l.t.Cleanup(c.Close)
		t.clients = append(t.clients, c)
	}
	return t
}

// next returns n people nobody has written to, as soon as few enough messages wait and it is their time; nil when it is
// time to stop.
func (d *load) next(n int) []Request {
	for {
		asked := d.asked.Load()
		due := d.plan.backlog + int64(float64(d.plan.perSecond)*time.Since(d.began).Seconds())
		if asked-d.taken.Load() <= d.plan.backlog && asked <= due {
			break
		}
		if !d.pause(againAfter) {
			return nil
		}
	}
	select {
	case <-d.stop:
		return nil
	case <-d.l.ctx.Done():
		return nil
	default:
	}
	last := int(d.people.Add(int64(n)))
	out := make([]Request, n)
	for i := range out {
		out[i].Address = d.plan.person(last - n + i)
	}
	d.asked.Add(int64(n))
	return out
}

// pause lets time pass; false when it is time to stop.
func (d *load) pause(t time.Duration) bool {
	select {
	case <-time.After(t):
		return true
	case <-d.stop:
		return false
	case <-d.l.ctx.Done():
		return false
	}
}

// insist repeats a call until it is answered well. It returns false when that can never be: the lab's time is over, or
// the engine refuses the request for good.
func (d *load) insist(what string, call func() error) bool {
	for {
		err := call()
		if err == nil {
			d.answered.Add(1)
			return true
		}
		d.broken.Add(1)
		var problem *sdk.Error
		if errors.As(err, &problem) && !problem.Retryable() {
			d.l.t.Errorf("%s is refused: %v", what, err)
			return false
		}
		select {
		case <-time.After(againAfter):
		case <-d.l.ctx.Done():
			d.l.t.Errorf("%s: %v", what, err)
			return false
		}
	}
}

// done notes what has been asked for.
func (d *load) done(r []Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, r...)
}

// loader makes idempotent requests one after the other, each repeated until it is answered.
type loader struct {
	*load
	name    string
	rows    int // of a request; 1 = a single message
	clients *turns
	rnd     *rand.Rand
}

func (c *loader) run() {
	for n := 0; ; n++ {
		r := c.next(c.rows)
		if r == nil {
			return
		}
		key := fmt.Sprintf("%s-%d", c.name, n)
		if !c.insist(key, func() (err error) { return c.send(key, r) }) {
			return
		}
		c.done(r)
		if c.rnd.IntN(repeatOneIn) != 0 {
			continue
		}
		again := slices.Clone(r)
		if !c.insist(key, func() error { return c.send(key, again) }) {
			return
		}
		c.repeated.Add(1)
		if !slices.Equal(r, again) {
			c.l.t.Errorf("the answer to %s has changed: %v, then %v", key, r, again)
		}
	}
}

// send makes a request and notes the ids.
func (c *loader) send(key string, r []Request) error {
	ctx := c.l.ctx
	if c.rows == 1 {
		m, err := c.clients.next().Send(ctx, c.l.message(r[0].Address, key), sdk.IdempotencyKey(key))
		if err == nil {
			r[0].ID = m.ID
		}
		return err
	}
	rows := func(yield func(sdk.Sendable) bool) {
		for i := range r {
			if !yield(c.l.message(r[i].Address, fmt.Sprintf("%s-%d", key, i))) {
				return
			}
		}
	}
	return sendAll(ctx, c.clients.next(), key, rows, r)
}

// sendAll makes a run of messages and notes the ids.
func sendAll(ctx context.Context, c *sdk.Client, key string, rows func(func(sdk.Sendable) bool), r []Request) error {
	n := 0
	for row, err := range c.SendAll(ctx, rows, sdk.Resume(key)) {
		if err != nil {
			return err
		}
		if row.Error != nil {
			return row.Error
		}
		r[n].ID = row.ID
		n++
	}
	if n != len(r) {
		return fmt.Errorf("%d rows were answered of %d", n, len(r))
	}
	return nil
}

// message writes to an address.
func (l *lab) message(to Address, ref string) sdk.Sendable {
	var m sdk.Sendable
	switch to.Channel {
	case "sms":
		m = sdk.SMS{To: to.To, Text: "Hello"}
	case "whatsapp":
		m = sdk.WhatsApp{To: to.To, Text: "Hello"}
	case "email":
		m = sdk.Email{To: to.To, Subject: "Hello", Text: "Hello"}
	default:
		m = sdk.Hook{URL: l.sim.at.HTTP + to.To, Event: "greeting", Data: map[string]string{"name": "Ada"}}
	}
	return sdk.With(m, sdk.Ref(ref))
}

// campaign runs campaigns one after the other. Their calls have no idempotency keys: after an answer that was lost it
// looks what has become of the call.
func (d *load) campaign(t *turns) {
	ctx := d.l.ctx
	for n := 0; ; n++ {
		people := d.next(audience)
		if people == nil {
			return
		}
		name := fmt.Sprintf("load-%d", n)
		ok := d.insist("the import of "+name, func() error {
			_, err := t.next().Audiences.Import(ctx, name, d.l.rows(people), sdk.ImportOptions{})
			if err == nil {
				return nil
			}
			a, look := t.next().Audiences.Get(ctx, name)
			switch {
			case look == nil && a.Ready && a.People == len(people):
				return nil
			case errors.Is(err, sdk.ErrConflict) && (look != nil || !a.Ready): // the first try is still being undone
				return fmt.Errorf("%w: the audience is not ready", sdk.ErrUnavailable)
			}
			return err
		}) && d.insist("campaign "+name, func() error {
			if _, err := t.next().Campaigns.Create(ctx, campaignRequest(name)); err != nil && !errors.Is(err, sdk.ErrConflict) {
				return err
			}
			return nil
		}) && d.insist("the start of "+name, func() error {
			_, err := t.next().Campaigns.Start(ctx, name)
			got, look := t.next().Campaigns.Get(ctx, name)
			switch {
			case look == nil && got.State != "draft":
				return nil
			case look != nil && errors.Is(err, sdk.ErrConflict): // an earlier try may have started it
				return look
			}
			return err
		})
		if !ok {
			return
		}
		d.done(people)
		d.mu.Lock()
		d.campaigns = append(d.campaigns, name)
		d.mu.Unlock()
		for d.pause(campaignPause) {
			if got, err := t.next().Campaigns.Get(ctx, name); err == nil && got.State == "completed" {
				break
			}
		}
	}
}

// look reads the ledger.
func (d *load) look() []sighting {
	seen := d.l.sim.seen()
	d.count(seen)
	return seen
}

// count keeps the books of how many of its messages were taken.
func (d *load) count(seen []sighting) {
	for _, s := range seen[d.read:] {
		if d.plan.mine == nil || d.plan.mine(s.Address) {
			d.taken.Add(1)
		}
	}
	d.read = len(seen)
}

// watch lets t pass, and keeps an eye on the ledger.
func (d *load) watch(t time.Duration) {
	for end := time.Now().Add(t); ; {
		d.look()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		d.l.pause(min(left, 10*time.Millisecond))
	}
}

// resumed waits until the engine that runs hands something over, and returns how long that took from its start.
func (d *load) resumed(before int) (took time.Duration) {
	d.l.t.Helper()
	// What the dead engine had put on the wire is still read for a moment; no engine is that quick to open its store.
	const leftovers = 20 * time.Millisecond
	d.l.until("the next engine sends", 5*time.Millisecond, func() bool {
		if d.l.engine.ended() {
			d.l.FailNow("the engine ended", "%s", tail(d.l.log, 10))
		}
		for _, s := range d.look()[before:] {
			if took = s.At.Sub(d.l.engine.began); took > leftovers {
				return true
			}
		}
		return false
	})
	return took
}

// finish stops the clients, waits until all they asked for is done, and returns what the witnesses say.
func (d *load) finish() History {
	l := d.l
	l.t.Helper()
	close(d.stop)
	d.settle(func() { d.look() })
	l.audit()
	return History{Asked: d.requests, Messages: l.records(sdk.MessageQuery{}), Taken: taken(d.look())}
}

// settle waits until the clients, which have been told to stop, are answered, and until all that they asked for is done.
func (d *load) settle(meanwhile func()) {
	l := d.l
	l.t.Helper()
	done := make(chan struct{})
	go func() { d.wg.Wait(); close(done) }()
	l.until("the clients are answered", 10*time.Millisecond, func() bool {
		meanwhile()
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	l.False(l.t.Failed(), "a client was refused")
	l.until("every campaign is completed", 50*time.Millisecond, func() bool {
		meanwhile()
		for len(d.campaigns) > 0 {
			got, err := l.client.Campaigns.Get(l.ctx, d.campaigns[0])
			if err != nil || got.State != "completed" {
				return false
			}
			d.campaigns = d.campaigns[1:]
		}
		return true
	})
	l.untilNothingWaits(meanwhile)
	d.reported, d.unreported = l.untilReported()
}

// untilNothingWaits waits until no message of the tenant has anything to wait for but receipts.
func (l *lab) untilNothingWaits(meanwhile func()) {
	l.t.Helper()
	rounds := 0 // one may move from a status that is yet to be looked at to one that has been
	l.until("every message is sent", 50*time.Millisecond, func() bool {
		meanwhile()
		for _, s := range []sdk.Status{sdk.Scheduled, sdk.Queued, sdk.Sending, sdk.Deferred, sdk.Held, sdk.Ambiguous} {
			p, err := l.client.Messages.Page(l.ctx, sdk.MessageQuery{Status: s, Limit: 1})
			if err != nil || len(p.Data) > 0 {
				rounds = 0
				return false
			}
		}
		rounds++
		return rounds == 2
	})
}

// untilReported waits until WhatsApp has reported on every message, and returns how long that took. Its reports are
// posted until the engine has taken them: one that is missing after a minute was lost by the engine, and unreported is
// the id of such a message.
func (l *lab) untilReported() (took time.Duration, unreported string) {
	l.t.Helper()
	began := time.Now()
	l.until("every receipt is in", 50*time.Millisecond, func() bool {
		p, err := l.client.Messages.Page(l.ctx, sdk.MessageQuery{Status: sdk.Sent, Channel: sdk.ChannelWhatsApp, Limit: 1})
		if err != nil {
			return false
		}
		unreported = ""
		if len(p.Data) > 0 {
			unreported = p.Data[0].ID
		}
		took = time.Since(began)
		return unreported == "" || took > time.Minute
	})
	return took, unreported
}

// timeline tells what happened to a message, for whoever reads a failure.
func (l *lab) timeline(id string) string {
	facts, err := l.client.Messages.Timeline(l.ctx, id)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "\n  %s %-10s %-10s %s %s", f.At.Format("15:04:05.000"), f.Kind, f.Status, f.Code, f.Detail)
	}
	return b.String()
}
