package pipeline

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// station is where claimed messages wait for one connector account. One dispatcher asks the limit stage for the next
// message that may go, and only when a worker is free to send it at once: a permit is never older than the hand-over to a
// worker, so that a stall cannot turn permits into a burst at the provider. Workers render and send, Parallel at a time.
type station struct {
	p     *Pipeline
	acct  *routing.Account
	name  string             // of its own limit, as people see it
	ready connectors.Readier // nil = the connector is always ready
	wake  chan struct{}
	free  chan struct{} // one token per idle worker
	work  chan *passage
	stop  chan struct{}

	mu     sync.Mutex
	lanes  map[laneKey]*lane
	bands  [bandCount]shares[*lane]
	order  precedence
	crowd  crowd
	pace   pace
	rested bool // the account rested when it was last looked at
	full   bool // a message waits for the end of an attempt
	closed bool
	bounds boundsBuffer
	booked map[laneKey]time.Time // until when the turns of messages held for a rate reach

	took8     time.Duration // 8 times what an attempt takes of late; see busy.go
	busyUntil time.Time     // until when messages are held because the account is busy; zero = none are

	running atomic.Int64    // attempts that the connector has
	ctx     context.Context // of attempts and of the receipt stream
	cancel  context.CancelFunc
	workers sync.WaitGroup
	rest    sync.WaitGroup // dispatcher and receipt stream
}

// laneKey separates what may be limited apart: one campaign of a tenant never holds up the tenant's other messages.
type laneKey struct {
	queue    delivery.Queue
	campaign delivery.CampaignID
}

// lane is a first-in-first-out of claimed messages under the same limits.
type lane struct {
	key       laneKey
	aged      bool // as its queue is
	waiting   []*passage
	notBefore time.Time
}

// laneQuantum is what a bulk lane may send in one round of the lanes, in messages or segments, and urgent ones 16 times
// that.
const laneQuantum = 4

func newStation(p *Pipeline, a *routing.Account) *station {
	s := &station{
		p: p, acct: a, name: "connector " + a.Name,
		wake: make(chan struct{}, 1), free: make(chan struct{}, a.Parallel), work: make(chan *passage),
		stop: make(chan struct{}), lanes: map[laneKey]*lane{}, booked: map[laneKey]time.Time{},
		order: precedence{quantum: laneQuantum}, crowd: newCrowd(a.Parallel),
	}
	s.ready, _ = a.Connector.(connectors.Readier)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (p *Pipeline) openStation(a *routing.Account) *station {
	s := newStation(p, a)
	for range a.Parallel {
		s.free <- struct{}{}
		s.workers.Go(s.worker)
	}
	s.rest.Go(s.dispatch)
	if stream, ok := a.Connector.(connectors.Streamer); ok {
		s.rest.Go(func() { p.stream(s.ctx, a, stream) })
	}
	return s
}

// put adds claimed messages; false means that the station is closed and has taken none.
func (s *station) put(ms []*passage) bool {
	var q delivery.Queue
	var aged bool
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	for _, m := range ms {
		if m.Queue != q { // mostly they are all of one
			q, aged = m.Queue, s.p.planner.aged(m.Queue)
		}
		k := laneKey{m.Queue, m.Campaign}
		l := s.lanes[k]
		if l == nil {
			l = &lane{key: k, aged: aged}
			s.lanes[k] = l
			s.bands[bandOf(q.Lane, aged)].add(q.Tenant, l)
		}
		s.age(l, aged)
		l.waiting = append(l.waiting, m)
		l.notBefore = time.Time{} // what does not fit any more goes back now, before later ones are claimed
	}
	back := s.shed(s.p.clock.Now())
	s.mu.Unlock()
	for _, m := range back {
		s.p.receipt(m)
	}
	s.kick()
	return true
}

// age moves a lane to the band that fits how long its queue has waited. Callers hold mu.
func (s *station) age(l *lane, aged bool) {
	if l.aged == aged {
		return
	}
	q := l.key.queue
	s.bands[bandOf(q.Lane, l.aged)].remove(q.Tenant, l)
	s.bands[bandOf(q.Lane, aged)].add(q.Tenant, l)
	l.aged = aged
}

// turn calls yield with each lane, the more urgent bands first. Callers hold mu.
func (s *station) turn(yield func(int, *lane) bool) {
	n := 0
	for b := range s.bands {
		if !s.bands[b].each(func(l *lane) bool { n++; return yield(n-1, l) }) {
			return
		}
	}
}

func (s *station) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch hands messages to workers as the limits allow.
func (s *station) dispatch() {
	defer close(s.work)
	for {
		select {
		case <-s.free:
		case <-s.stop:
			return
		}
		m := s.await()
		if m == nil {
			return
		}
		s.work <- m // a worker is free: this does not wait
	}
}

// await returns the next message that may go now, or nil when the station stops.
func (s *station) await() *passage {
	for {
		now := s.p.clock.Now()
		m, next := s.p.limit(s, now)
		if m != nil {
			return m
		}
		var timer <-chan time.Time
		stop := func() bool { return true }
		if !next.IsZero() {
			t, ok := timerAt(s.p.clock, next)
			if !ok {
				continue
			}
			timer, stop = t.Chan(), t.Stop
		}
		select {
		case <-timer:
		case <-s.wake:
		case <-s.stop:
			stop()
			return nil
		}
		stop()
	}
}

func (s *station) worker() {
	for m := range s.work {
		s.attempt(m)
		s.free <- struct{}{}
	}
}

// attempt takes a message through render and send, and hands what became of it to receipt.
func (s *station) attempt(m *passage) {
	defer s.p.receipt(m)
	defer s.ended(m)
	m.began = s.p.clock.Now()
	defer func() {
		if r := recover(); r != nil { // a mistake of ours, in this message's content most likely: it must not stop the rest
			s.p.metrics.panics.Inc()
			s.p.log.Error("an attempt broke down", "message", m.ID.String(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			if m.journal != nil {
				s.p.failed(m, &delivery.Failure{Class: delivery.InDoubt, Code: "internal_error", Known: true}, s.p.clock.Now())
			} else {
				m.end(store.Outcome{Status: delivery.StatusFailed, Reason: "internal_error", Detail: "the message cannot be prepared"})
			}
		}
	}()
	for i := range s.p.attempt {
		if m.ended {
			break
		}
		now := s.p.clock.Now()
		s.p.attempt[i].onClaim(m, now)
		if m.track != nil {
			m.track.step(s.p.attempt[i].name, now, s.p.clock.Now())
		}
	}
}

// ended books the end of an attempt, or of what was to become one.
func (s *station) ended(m *passage) {
	now := s.p.clock.Now()
	s.mu.Lock()
	if m.journal != nil { // it was made
		s.took(max(now.Sub(m.began), 0))
	}
	taken := m.outcome.Status == delivery.StatusSent
	if taken {
		s.pace.took(m.cost(), now)
	}
	what := signOf(taken, m.failure)
	if m.account.Kind.Peers && what != goodSign {
		what = noSign // it is about one recipient's server
	}
	halved := s.crowd.end(m.Queue.Lane, what)
	if halved && m.failure.Class == delivery.Throttled && m.failure.RetryAfter <= 0 {
		s.pace.slowDown(now)
	}
	wake, idle := s.full, s.idleAfterBusy()
	s.full = false
	s.mu.Unlock()
	if wake {
		s.kick()
	}
	if idle {
		s.wakeBusy()
	}
}

// remove takes out every waiting message for which match says so.
func (s *station) remove(match func(*passage) bool) []*passage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*passage
	for _, l := range s.turn {
		l.waiting = slices.DeleteFunc(l.waiting, func(m *passage) bool {
			if match(m) {
				out = append(out, m)
				return true
			}
			return false
		})
	}
	return out
}

// giveBackShort gives back what has waited so long for a worker that its lease no longer covers an attempt. The queue was
// allowed more than the connector can do. It is called about once a second, and sees as well to it that the lanes of
// queues which have waited for long get their larger share.
func (s *station) giveBackShort(now time.Time) {
	short := s.remove(func(m *passage) bool { return m.leaseShort(now) })
	s.mu.Lock()
	for _, l := range slices.Collect(maps.Values(s.lanes)) {
		s.age(l, s.p.planner.aged(l.key.queue))
	}
	s.mu.Unlock()
	n := map[delivery.Queue]int{}
	for _, m := range short {
		if !m.alone {
			n[m.Queue]++
		}
		m.giveBack(reasonLeaseShort)
		s.p.receipt(m)
	}
	for q, n := range n {
		s.p.planner.narrow(q, n/2)
	}
}

// retime makes the station ask anew for every permit: limits have changed.
func (s *station) retime() {
	s.mu.Lock()
	for _, l := range s.turn {
		l.notBefore = time.Time{}
	}
	clear(s.booked)
	s.mu.Unlock()
	s.kick()
}

// cutGrace is how long an attempt may take to come back once it has been cut, and its outcome to be written.
const cutGrace = 2 * time.Second

// afterwards returns a context that ends cutGrace after ctx has.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(cutGrace, cancel) })
	return late, func() { stop(); cancel() }
}

// close gives back what waits, lets attempts end until ctx does, then cuts them. It returns how many it had to cut. A
// connector that does not come back even then is left to itself.
func (s *station) close(ctx context.Context) int {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	for _, m := range s.remove(func(*passage) bool { return true }) {
		m.giveBack("drained")
		s.p.receipt(m)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.workers.Wait()
		s.cancel()
		s.rest.Wait()
		s.p.closeConnector(s.acct)
	}()
	late, stop := afterwards(ctx)
	defer stop()
	cut := 0
	select {
	case <-done:
	case <-ctx.Done():
		cut = int(s.running.Load())
		s.cancel()
		select {
		case <-done:
		case <-late.Done():
			s.p.log.Error("a connector does not come back; it is left to itself", "connector", s.acct.Name)
		}
	}
	return cut
}

// closeConnector ends an account's connector, where it has something to end.
func (p *Pipeline) closeConnector(a *routing.Account) {
	c, ok := a.Connector.(io.Closer)
	if !ok {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			p.metrics.panics.Inc()
			p.log.Error("a connector panicked as it was closed", "connector", a.Name, "panic", fmt.Sprint(r))
		}
	}()
	if err := c.Close(); err != nil {
		p.log.Warn("connector did not close cleanly", "connector", a.Name, "err", err)
	}
}

func (s *station) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
