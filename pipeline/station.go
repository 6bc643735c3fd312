package pipeline

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
)

// station is where claimed messages wait for one connector account. One dispatcher asks the limit stage for the next
// message that may go, and only when a worker is free to send it at once: a permit is never older than the hand-over to a
// worker, so that a stall cannot turn permits into a burst at the provider. Workers render and send, Parallel at a time.
type station struct {
	p    *Pipeline
	acct *routing.Account
	wake chan struct{}
	free chan struct{} // one token per idle worker
	work chan *passage
	stop chan struct{}

	mu     sync.Mutex
	lanes  map[laneKey]*lane
	turn   []*lane
	closed bool
	bounds boundsBuffer

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
	waiting   []*passage
	notBefore time.Time
}

func (p *Pipeline) openStation(a *routing.Account) *station {
	s := &station{
		p: p, acct: a, wake: make(chan struct{}, 1), free: make(chan struct{}, a.Parallel), work: make(chan *passage),
		stop: make(chan struct{}), lanes: map[laneKey]*lane{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
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
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	for _, m := range ms {
		k := laneKey{m.Queue, m.Campaign}
		l := s.lanes[k]
		if l == nil {
			l = &lane{key: k}
			s.lanes[k] = l
			s.turn = append(s.turn, l)
		}
		l.waiting = append(l.waiting, m)
	}
	s.mu.Unlock()
	s.kick()
	return true
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
	for i := range s.p.attempt {
		if !m.ended {
			s.p.attempt[i].onClaim(m, s.p.clock.Now())
		}
	}
	s.p.receipt(m)
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

// close gives back what waits, lets attempts end until ctx does, then cuts them. It returns how many it had to cut.
func (s *station) close(ctx context.Context) int {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	now := s.p.clock.Now()
	for _, m := range s.remove(func(*passage) bool { return true }) {
		m.giveBack("drained", now)
		s.p.receipt(m)
	}
	done := make(chan struct{})
	go func() { s.workers.Wait(); close(done) }()
	cut := 0
	select {
	case <-done:
	case <-ctx.Done():
		cut = s.acct.Parallel - len(s.free)
		s.cancel()
		<-done
	}
	s.cancel()
	s.rest.Wait()
	if c, ok := s.acct.Connector.(io.Closer); ok {
		if err := c.Close(); err != nil {
			s.p.log.Warn("connector did not close cleanly", "connector", s.acct.Name, "err", err)
		}
	}
	return cut
}

func (s *station) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
