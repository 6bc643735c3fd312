// Package pipeline moves messages along the one path: accept, plan, route, limit, render, send, receipt.
//
// Between accept and plan, and between plan and route, work travels as hints through a Watermill router: ids of what the
// store already holds. Once claimed, a message is a typed value that goes from stage to stage inside this process, and
// whatever becomes of it is written back to the store in batches. Nothing here sleeps for a retry: a message that must
// wait rests in the store with a due time.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// Store is what the pipeline asks of the store.
type Store interface {
	store.Accepter
	store.Work
	store.Receipts
	store.Suppressions
	Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error)
	TenantList(ctx context.Context, sys store.System) ([]store.Tenant, error)
	Template(ctx context.Context, tenant delivery.TenantID, name string, version int) (store.Template, error)
	Campaign(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error)
	ActiveCampaigns(ctx context.Context, sys store.System) ([]store.Campaign, error)
}

// Options is what a pipeline is made of. Every field is required but those with a default.
type Options struct {
	Store     Store
	Limiter   limits.Limiter
	Templates *templates.Cache
	Router    *message.Router
	Publish   message.Publisher
	Subscribe message.Subscriber
	Clock     clockwork.Clock
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Node      string // names this process, with Run, in claims
	Dir       string // where the attempt journal lives

	Lease        time.Duration   // default 60 s; longer while an open account may take more than half of it for a Send
	InFlight     int             // messages claimed at once, default 8,192
	Retry        []time.Duration // default 5 s, 30 s, 5 min, 30 min, 2 h; the last repeats until the message expires
	ParkReceipts time.Duration   // default 72 h
	// Linger is for how long outcomes that nobody waits for (a message is held, or goes back to its queue) may stay for
	// others to be written with; 0 = not at all. Each writing is a commit, which those who are waited for stand behind.
	Linger time.Duration
	// Jitter is the share of each retry delay that is drawn at random, 0–1: with 1 an attempt is made at any time up to the
	// delay, with 0 exactly then. nil = 1.
	Jitter *float64
	// Chance gives a number in [0,1) for the jitter of one attempt of one message; nil = at random. A simulation makes it
	// a function of its seed.
	Chance func(id delivery.MessageID, attempt int) float64
	// Elapsed reads a clock that only runs forward, at the pace of real time: leases of this process end by it, whatever
	// the wall clock is set to. nil = the time that Clock measures since New, which for the real clock is monotonic.
	Elapsed func() time.Duration
	// Tracer writes what happens to messages as spans; nil = nothing is traced.
	Tracer Tracer

	// What follows is for pipelines that share their store; see cluster.go. The zero values are right for one that is
	// alone with it.

	// Run tells this process apart from all others that have had or will have the name Node; "" = there is only one at a
	// time over the store. It has no spaces.
	Run string
	// Past are names of claims that the journal in Dir may be about when Dir itself does not say so.
	Past []string
	// Held says why nothing may be claimed and no lease of others be ended now; "" = it may. It is asked often and must
	// not wait. nil = never.
	Held func() string
	// Lives reports whether the process that claims under a name, Node#Run, gives signs of life. It is asked often and must
	// not wait. nil = nobody knows.
	Lives func(name string) bool
	// Settle returns once the other processes go by what has just been changed in the store, or after a bounded time.
	// nil = there are none.
	Settle func(ctx context.Context)
	// NoDelivery makes a pipeline that claims and sends nothing. It still takes acceptances, callbacks and questions.
	NoDelivery bool
	// NoUpkeep leaves to others what no process needs to do for itself: leases of others that have run out, doubts, legs
	// out of time, parked receipts.
	NoUpkeep bool
}

// system is the scope under which the pipeline works across tenants.
var system = store.AsSystem("pipeline")

// Pipeline is the running path. Start and Shutdown are safe twice and in any order.
type Pipeline struct {
	opt     Options
	store   Store
	clock   clockwork.Clock
	log     *slog.Logger
	metrics *metrics

	Accounts *routing.Table // set through SetAccounts

	hints     *hints
	planner   *planner
	attempt   []stage // those of the path that a worker takes a message through
	recorder  *recorder
	alarm     *alarm
	sight     sight // of the sweeper
	journal   *journal
	claims    claims
	tenants   tenantCache
	refusals  refusals
	campaigns campaignCache
	lease     atomic.Int64 // a time.Duration
	waking    atomic.Int64 // store.Wake under way
	woken     atomic.Bool  // one of them has made something due since the sweeper last looked

	asker       *asker
	doubts      *prometheus.CounterVec
	clockGuard  *clockGuard
	unknown     unknownCodes
	journalDown atomic.Bool // its last record could not be written
	elapsed     func() time.Duration

	mu       sync.Mutex
	stations map[*routing.Account]*station
	started  bool
	draining atomic.Bool
	cut      atomic.Int64 // attempts that closing stations did not wait for

	ctx     context.Context
	cancel  context.CancelFunc
	drain   context.Context // ends when nobody waits for accounts that are being closed any more
	hurry   context.CancelFunc
	wg      sync.WaitGroup
	closing sync.WaitGroup // stations of accounts that are gone
	closed  sync.Once
	stopErr error
}

// stage is one step of the path. A stage has exactly one of the hands.
type stage struct {
	name    string
	onCall  func(context.Context, delivery.TenantID, store.Acceptance) (store.Accepted, error)
	onHint  func(context.Context, hint) error               // takes batches of ids from the stage's own topic
	onClaim func(*passage, time.Time)                       // takes one claimed message
	onTurn  func(*station, time.Time) (*passage, time.Time) // gives the next claimed message its permit
	onDone  func(*passage)                                  // takes what became of a message
}

// path is the one place where the order of the stages stands.
func (p *Pipeline) path() []stage {
	return []stage{
		{name: "accept", onCall: p.accept},
		{name: "plan", onHint: p.plan},
		{name: "route", onHint: p.route},
		{name: "limit", onTurn: p.limit},
		{name: "render", onClaim: p.render},
		{name: "send", onClaim: p.send},
		{name: "receipt", onDone: p.receipt},
	}
}

// New assembles a pipeline and registers its handlers on the router; Start sets it going.
func New(opt Options) (*Pipeline, error) {
	if opt.Lease == 0 {
		opt.Lease = time.Minute
	}
	if opt.InFlight == 0 {
		opt.InFlight = 8192
	}
	if len(opt.Retry) == 0 {
		opt.Retry = []time.Duration{5 * time.Second, 30 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}
	}
	if opt.Chance == nil {
		opt.Chance = func(delivery.MessageID, int) float64 { return rand.Float64() }
	}
	if opt.ParkReceipts == 0 {
		opt.ParkReceipts = 72 * time.Hour
	}
	if opt.Jitter == nil {
		opt.Jitter = new(1.0)
	}
	if j := *opt.Jitter; !(j >= 0 && j <= 1) { // not a number is neither
		return nil, fmt.Errorf("pipeline: jitter of %v: it is a share between 0 and 1", j)
	}
	if opt.Elapsed == nil {
		began := opt.Clock.Now()
		opt.Elapsed = func() time.Duration { return opt.Clock.Since(began) }
	}
	p := &Pipeline{
		opt: opt, store: opt.Store, clock: opt.Clock, log: opt.Log.With("part", "pipeline"),
		metrics: newMetrics(opt.Metrics), Accounts: &routing.Table{}, stations: map[*routing.Account]*station{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.drain, p.hurry = context.WithCancel(context.Background())
	p.lease.Store(int64(opt.Lease))
	p.tenants.load = p.loadTenant
	p.campaigns.load = p.loadCampaign
	var err error
	if p.journal, err = openJournal(opt.Dir); err != nil {
		return nil, err
	}
	p.hints = newHints(p.publish)
	p.planner = newPlanner(p)
	p.recorder = newRecorder(p)
	p.alarm = newAlarm()
	p.asker, p.doubts, p.clockGuard = newAsker(p), newDoubtCounter(opt.Metrics), newClockGuard(opt.Metrics)
	p.elapsed = opt.Elapsed
	for _, s := range p.path() {
		switch {
		case s.onHint != nil && !opt.NoDelivery:
			for _, urgent := range [...]bool{true, false} {
				name := topicOf(s.name, urgent)
				opt.Router.AddConsumerHandler(name, name, opt.Subscribe, p.consume(s))
			}
		case s.onClaim != nil:
			p.attempt = append(p.attempt, s)
		}
	}
	return p, nil
}

// Start settles what an earlier process left behind, then takes up work. The router must be running.
func (p *Pipeline) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining.Load() {
		return ErrShutDown
	}
	if p.started {
		return nil
	}
	p.checkClock(ctx, p.clock.Now())
	if err := p.recoverPatiently(ctx); err != nil {
		return fmt.Errorf("pipeline: recover claims: %w", err)
	}
	p.started = true
	p.wg.Go(func() { p.recorder.run() })
	p.wg.Go(func() { p.hints.run(p.ctx) })
	if p.opt.NoDelivery {
		close(p.planner.done)
	} else {
		p.wg.Go(func() { p.planner.run(p.ctx) })
	}
	if !p.opt.NoDelivery || !p.opt.NoUpkeep {
		p.wg.Go(func() { p.sweep(p.ctx) })
	}
	return nil
}

// Shutdown drains: no new claims, what has not started goes back to the queue, attempts under way may end until ctx
// does, and a moment more to be written down. It returns an error that counts the attempts it had to leave without an
// answer. A second call waits for the first and returns the same.
func (p *Pipeline) Shutdown(ctx context.Context) error {
	p.closed.Do(func() { p.stopErr = p.shutdown(ctx) })
	return p.stopErr
}

func (p *Pipeline) shutdown(ctx context.Context) error {
	p.draining.Store(true)
	defer context.AfterFunc(ctx, p.hurry)()
	late, stop := afterwards(ctx)
	defer stop()
	defer context.AfterFunc(late, p.recorder.giveUp)()
	p.planner.stop()
	p.mu.Lock()
	p.closeIdle(nil)
	stations := p.stations
	p.stations = map[*routing.Account]*station{}
	started := p.started
	p.mu.Unlock()
	if started { // a batch that is being claimed comes back through the recorder: it must not be stopped before
		select {
		case <-p.planner.done:
		case <-ctx.Done():
		}
	}
	for _, s := range stations {
		p.closing.Go(func() { p.cut.Add(int64(s.close(ctx))) })
	}
	p.closing.Wait()
	if started {
		p.recorder.stop(late)
	}
	p.recorder.giveUp()
	p.cancel()
	p.hurry()
	p.wg.Wait()
	var err error
	if n := p.cut.Load(); n > 0 {
		err = fmt.Errorf("%w: %d", ErrUnanswered, n)
	}
	return errors.Join(err, p.journal.close())
}

var (
	// ErrUnanswered says that a drain ended while attempts were still without an answer; they are ambiguous now.
	ErrUnanswered = errors.New("attempts without an answer at shutdown")
	// ErrShutDown is what Start returns after Shutdown.
	ErrShutDown = errors.New("the pipeline has been shut down")
)

// SetAccounts replaces the open accounts. Accounts that are gone finish their attempts, give back what has not started
// and have their connector closed. After Shutdown it closes what is new at once.
func (p *Pipeline) SetAccounts(accounts []*routing.Account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining.Load() {
		for _, a := range accounts {
			if known, ok := p.Accounts.Account(a.ID); !ok || known != a {
				p.closeConnector(a)
			}
		}
		return
	}
	keep := make(map[*routing.Account]bool, len(accounts))
	lease := p.opt.Lease
	p.closeIdle(accounts)
	for _, a := range accounts {
		keep[a] = true
		lease = max(lease, 2*a.Timeout)
		if p.stations[a] == nil && p.serves(a) {
			p.stations[a] = p.openStation(a)
		}
	}
	p.lease.Store(int64(lease))
	p.Accounts.Set(accounts)
	for a, s := range p.stations {
		if !keep[a] {
			delete(p.stations, a)
			p.closing.Go(func() {
				ctx, cancel := context.WithTimeout(p.drain, a.Timeout+5*time.Second)
				defer cancel()
				p.cut.Add(int64(s.close(ctx)))
			})
		}
	}
	p.planner.unblock()
}

// serves reports whether this process sends by an account.
func (p *Pipeline) serves(a *routing.Account) bool { return !p.opt.NoDelivery && !a.Elsewhere }

// closeIdle closes the connectors of accounts that go and have no station to do it.
func (p *Pipeline) closeIdle(next []*routing.Account) {
	for a := range p.Accounts.All {
		if p.stations[a] == nil && !slices.Contains(next, a) {
			p.closeConnector(a)
		}
	}
}

func (p *Pipeline) station(a *routing.Account) *station {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stations[a]
}

// open lists the stations.
func (p *Pipeline) open() []*station {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.stations))
}

// Standing says why nothing of a queue goes now, as far as the running pipeline knows.
func (p *Pipeline) Standing(q delivery.Queue) (delivery.Standing, bool) {
	return p.planner.standing(q, p.clock.Now())
}

// TenantChanged makes the pipeline read a tenant's limits and policy anew.
func (p *Pipeline) TenantChanged(id delivery.TenantID) {
	p.tenants.forget(id)
	p.planner.unblock()
	for _, s := range p.open() {
		s.retime()
	}
	p.wakeLater(store.Held{Reason: ReasonRateLimited, Tenant: id})
	for _, reason := range Unrouted {
		p.wakeLater(store.Held{Reason: reason, Tenant: id})
	}
}

// wakeLater is wake for callers from outside, who may come at any time.
func (p *Pipeline) wakeLater(h store.Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started && !p.draining.Load() {
		p.wake(h)
	}
}

// Wake makes everything that is held for a reason due now.
func (p *Pipeline) Wake(ctx context.Context, reason string) error {
	return p.wakeNow(ctx, store.Held{Reason: reason})
}

// Quiet reports whether nothing is under way and nothing that is due could go: what waits, waits for its time, a limit
// or a connector. With a clock that only moves when told to, a quiet pipeline stays as it is.
func (p *Pipeline) Quiet(ctx context.Context) (bool, error) {
	now := p.clock.Now()
	idle := func() bool {
		waiting, _ := p.waiting(now)
		return p.hints.idle() && p.planner.idle(waiting) && p.recorder.idle() && p.waking.Load() == 0 && p.asker.idle(now)
	}
	if !idle() {
		return false, nil
	}
	due, err := p.store.DueQueues(ctx, system, now)
	if err != nil {
		return false, err
	}
	for _, q := range due {
		if !p.planner.stuck(q.Queue, now) {
			return false, nil
		}
	}
	overdue, err := p.store.Overdue(ctx, system, now, "", 1)
	return len(overdue) == 0 && idle(), err
}

// NextDue returns the earliest time after now at which something can happen by itself; zero = never.
func (p *Pipeline) NextDue(ctx context.Context) (time.Time, error) {
	now := p.clock.Now()
	next, err := p.store.NextDue(ctx, system, now)
	if err != nil {
		return next, err
	}
	for _, t := range []time.Time{p.planner.nextUnblock(now), second(p.waiting(now)), p.asker.nextDue(now)} {
		if !t.IsZero() {
			next = sooner(next, t)
		}
	}
	return next, nil
}

func second(_ int, t time.Time) time.Time { return t }

// waiting counts the claimed messages that wait for a permit which is not due yet, and says when the first of them is.
func (p *Pipeline) waiting(now time.Time) (n int, next time.Time) {
	for _, s := range p.open() {
		s.mu.Lock()
		for _, l := range s.turn {
			if l.notBefore.After(now) && len(l.waiting) > 0 {
				n += len(l.waiting)
				next = sooner(next, l.notBefore)
			}
		}
		s.mu.Unlock()
	}
	return n, next
}
