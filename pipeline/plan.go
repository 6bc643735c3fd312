package pipeline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The planner decides which messages are claimed next. Its argument, in order:
//
//  1. Messages wait in queues (tenant × channel × lane). Each queue has a short list of ids known from hints.
//  2. When more is due than the list holds, the queue is behind: hints are no longer listened to, and the list is
//     refilled from the store in order of due time. Memory stays bounded and the oldest goes first under backlog. A queue
//     stops being behind when a look into the store found nothing more, and no hint was turned away meanwhile.
//  3. Lanes and tenants have their shares of the claims (see fair.go), a batch at a time. What is urgent is claimed
//     beside all others, so that it waits for no batch of theirs.
//  4. A queue has a window of messages that may be claimed and not yet settled. It narrows to what the limits let through
//     within their horizon, so that a slow queue does not lease what it cannot send, and it widens while all goes well.
//     No queue but an urgent one takes more than half of the room that is left for its lane: whatever stands still, there
//     is room for the next.
//  5. A queue that can do nothing before a given time (limit, no connector) is blocked until then.
//  6. What comes back unsent takes its old place: the list is thrown away and read anew from the oldest on.
const (
	listCap    = 4096 // ids kept per queue
	windowMax  = 2048 // claimed and not settled, per queue
	windowMin  = 4
	refillSize = 1024
)

// plan takes a hint about accepted or due messages.
func (p *Pipeline) plan(_ context.Context, h hint) error {
	p.planner.add(h)
	return nil
}

type planner struct {
	p      *Pipeline
	wake   chan struct{}
	urgent chan struct{} // wakes whoever claims only what is urgent

	// ways counts changes of what route chooses from: accounts, what is known of them, tenants' rules. It changes with mu
	// held, after what it counts and before anything is woken for it.
	ways atomic.Int64

	mu       sync.Mutex
	queues   map[delivery.Queue]*queue
	turn     []*queue                  // every queue, in order of first arrival
	bands    [bandCount]shares[*queue] // those with work
	order    precedence
	inFlight laneCount
	busy     int // batches on their way to route, refills
	stopped  bool
	done     chan struct{} // closed when run has ended
}

type queue struct {
	id       delivery.Queue
	ids      []delivery.MessageID
	behind   bool
	taken    bool // somebody claims from it or refills it: one at a time, so that first in is first out
	missed   bool // a hint was turned away since the last look into the store
	rewound  bool // older messages came back since the last look into the store: start again from the oldest
	mark     store.DueMark
	inFlight int
	asked    int       // of inFlight: on their way to a claim
	askedAt  time.Time // when the last of those left
	window   int
	notAfter time.Time // of standing
	blocked  time.Time // nothing goes before
	standing delivery.Standing
	listed   bool      // it is in bands
	aged     bool      // its oldest message has waited for long
	oldest   time.Time // when its oldest unclaimed message became due, as the sweeper found at seenAt
	seenAt   time.Time
}

func newPlanner(p *Pipeline) *planner {
	pl := &planner{
		p: p, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), done: make(chan struct{}),
		queues: map[delivery.Queue]*queue{},
		order:  precedence{quantum: maxHint},
	}
	if p.opt.Metrics != nil {
		p.opt.Metrics.MustRegister(newFairness(pl))
	}
	return pl
}

func (pl *planner) kick() {
	for _, wake := range [...]chan struct{}{pl.wake, pl.urgent} {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// queue returns the state of q, making it when needed. Callers hold mu.
func (pl *planner) queue(q delivery.Queue) *queue {
	st := pl.queues[q]
	if st == nil {
		st = &queue{id: q, window: windowMax}
		pl.queues[q] = st
		pl.turn = append(pl.turn, st)
	}
	return st
}

// add takes a hint.
func (pl *planner) add(h hint) {
	pl.mu.Lock()
	q := pl.queue(h.queue)
	switch {
	case q.behind:
		q.missed = true
	case len(h.ids) == 0 || len(q.ids)+len(h.ids) > listCap:
		q.behind, q.missed, q.mark = true, true, store.DueMark{}
	default:
		q.ids = append(q.ids, h.ids...)
	}
	pl.list(q)
	pl.mu.Unlock()
	pl.kick()
}

// list gives a queue its turns again, because it has work. Callers hold mu.
func (pl *planner) list(st *queue) {
	if !st.listed {
		st.listed = true
		pl.bands[bandOf(st.id.Lane, st.aged)].add(st.id.Tenant, st)
	}
}

// overdue tells of a queue whose oldest due message should have gone already: a lost hint, or a due time that has come.
// woken says that messages may have been made due since the last time, which take their old places in the queue.
func (pl *planner) overdue(q delivery.Queue, oldest time.Time, woken bool) {
	pl.mu.Lock()
	st := pl.queue(q)
	st.oldest, st.seenAt = oldest, pl.p.clock.Now()
	switch {
	case st.behind:
		st.missed = true // it may be older than what is being read: woken messages come back to their old places
	case len(st.ids) == 0, woken, oldest.Before(st.ids[0].Time().Add(-time.Second)):
		// Messages of the list, or on their way to a claim, are due too: only something older than those is news, or what
		// was not due when the list was read.
		st.behind, st.missed, st.mark = true, true, store.DueMark{}
		pl.list(st)
	}
	pl.mu.Unlock()
	pl.kick()
}

// block keeps q from being claimed until a time; window, when more than 0, is how many it could use at most.
func (pl *planner) block(q delivery.Queue, until time.Time, window int, why delivery.Standing) {
	pl.mu.Lock()
	pl.blockLocked(q, until, window, why)
	pl.mu.Unlock()
	pl.kick()
}

// blockAsOf is block for want of an account, as things were at a count of ways. When they have changed since, the queue
// stays as it is: what unblocked it came after the look, and nothing would do it again.
func (pl *planner) blockAsOf(ways int64, q delivery.Queue, until time.Time, why delivery.Standing) {
	pl.mu.Lock()
	if ways == pl.ways.Load() {
		pl.blockLocked(q, until, windowMin, why)
	}
	pl.mu.Unlock()
	pl.kick()
}

// blockLocked is block with mu held.
func (pl *planner) blockLocked(q delivery.Queue, until time.Time, window int, why delivery.Standing) {
	st := pl.queue(q)
	if until.After(st.blocked) {
		st.blocked = until
	}
	if window > 0 {
		st.window = max(min(st.window, window), windowMin)
	}
	st.standing, st.notAfter = why, until
}

// unblock lets every queue try again: limits, tenants or connectors have changed.
func (pl *planner) unblock() {
	pl.mu.Lock()
	pl.ways.Add(1)
	for _, q := range pl.queues {
		q.blocked, q.window = time.Time{}, windowMax
	}
	pl.mu.Unlock()
	pl.kick()
}

// note keeps what a station knows about q's head for whoever asks why it waits.
func (pl *planner) note(q delivery.Queue, why delivery.Standing) {
	pl.mu.Lock()
	st := pl.queue(q)
	st.standing, st.notAfter = why, why.Until
	pl.mu.Unlock()
}

func (pl *planner) standing(q delivery.Queue, now time.Time) (delivery.Standing, bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	st := pl.queues[q]
	if st == nil || !st.stands(now) {
		return delivery.Standing{}, false
	}
	return st.standing, true
}

// stands reports whether the queue's standing still holds.
func (st *queue) stands(now time.Time) bool {
	return st.standing.Reason != "" && !now.After(st.notAfter.Add(time.Second))
}

// idle reports whether nothing is being claimed or sent but the given number of messages that wait for a permit.
func (pl *planner) idle(waiting int) bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.inFlight.total() != waiting || pl.busy > 0 {
		return false
	}
	now := pl.p.clock.Now()
	for _, q := range pl.queues {
		if (len(q.ids) > 0 || q.behind) && !q.blocked.After(now) && pl.room(q) > 0 {
			return false
		}
	}
	return true
}

// stop ends claiming. Run returns once the batch that is under way has been claimed.
func (pl *planner) stop() {
	pl.mu.Lock()
	pl.stopped = true
	pl.mu.Unlock()
	pl.kick()
}

func (pl *planner) isStopped() bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.stopped
}

// next picks a queue to claim from (ids) or to refill (refill), of the bands from the first to the last. Without either,
// at is when something can happen; zero = not before a kick.
func (pl *planner) next(now time.Time, first, last band) (q *queue, ids []delivery.MessageID, at time.Time) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, b := range pl.order.order() {
		if b < first || b > last {
			continue
		}
		if pl.bands[b].next(pl.p.weight, func(st *queue) (float64, verdict) {
			switch {
			case len(st.ids) == 0 && !st.behind:
				st.listed = false
				return 0, gone
			case st.blocked.After(now):
				at = sooner(at, st.blocked)
				return 0, cannot
			case pl.room(st) == 0, st.taken:
				return 0, cannot
			}
			q, ids = st, pl.takeIDs(st, now)
			st.taken = true
			return float64(len(ids)), took
		}) {
			pl.order.spend(b, float64(len(ids)))
			pl.busy++
			return q, ids, at
		}
	}
	return nil, nil, at
}

// takeIDs takes a batch out of a queue's list; none = the list must be refilled. Callers hold mu.
func (pl *planner) takeIDs(st *queue, now time.Time) []delivery.MessageID {
	if len(st.ids) == 0 {
		st.rewound = false
		if st.mark == (store.DueMark{}) { // a look that begins further on does not find what came back before that
			st.missed = false
		}
		return nil
	}
	n := min(len(st.ids), maxHint, pl.room(st))
	ids := st.ids[:n:n]
	st.ids = st.ids[n:]
	st.inFlight += n
	pl.inFlight.add(st.id.Lane, n)
	st.asked, st.askedAt = st.asked+n, now
	return ids
}

// finished says that what next gave has been done.
func (pl *planner) finished(st *queue) {
	pl.mu.Lock()
	pl.busy--
	st.taken = false
	pl.mu.Unlock()
}

// run claims until it is stopped.
func (pl *planner) run(ctx context.Context) {
	defer close(pl.done)
	var urgent sync.WaitGroup
	urgent.Go(func() { pl.claim(ctx, bandUrgent, bandUrgent, pl.urgent) })
	pl.claim(ctx, bandUrgent+1, bandBulk, pl.wake)
	urgent.Wait()
}

// claim sends batches of the bands from the first to the last to route, one after the other.
func (pl *planner) claim(ctx context.Context, first, last band, wake <-chan struct{}) {
	for ctx.Err() == nil && !pl.isStopped() {
		now := pl.p.clock.Now()
		if pl.p.held() != "" {
			pl.sleep(ctx, now.Add(heldLook), wake)
			continue
		}
		q, ids, at := pl.next(now, first, last)
		switch {
		case q == nil:
			pl.sleep(ctx, at, wake)
		case len(ids) > 0:
			if err := pl.p.publish(ctx, "route", hint{queue: q.id, ids: ids}); err != nil {
				pl.failed(q.id, len(ids), now)
			}
			pl.finished(q)
		default:
			pl.refill(ctx, q)
			pl.finished(q)
		}
	}
}

func (pl *planner) sleep(ctx context.Context, at time.Time, wake <-chan struct{}) {
	var alarm <-chan time.Time
	if !at.IsZero() {
		t, ok := timerAt(pl.p.clock, at)
		if !ok {
			return
		}
		defer t.Stop()
		alarm = t.Chan()
	}
	select {
	case <-wake:
	case <-alarm:
	case <-ctx.Done():
	}
}

// refill reads the next due ids of a queue that is behind.
func (pl *planner) refill(ctx context.Context, q *queue) {
	now := pl.p.clock.Now()
	pl.mu.Lock()
	mark := q.mark
	pl.mu.Unlock()
	ids, mark, err := pl.p.store.Due(ctx, system, q.id, now, mark, refillSize)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			pl.p.log.Warn("due messages cannot be read", "queue", q.id.String(), "err", err)
		}
		q.blocked = now.Add(time.Second)
		return
	}
	if q.rewound {
		return // what was read is not the oldest any more
	}
	q.ids = append(q.ids, ids...)
	q.mark = mark
	if len(ids) < refillSize {
		q.mark = store.DueMark{}
		q.behind = q.missed // then one more look, for what was turned away
	}
}

// stuck reports whether nothing of q can be claimed now.
func (pl *planner) stuck(q delivery.Queue, now time.Time) bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	st := pl.queues[q]
	return st != nil && (st.blocked.After(now) || pl.room(st) == 0)
}

// nextUnblock returns when the first blocked queue with work may go again; zero = none is.
func (pl *planner) nextUnblock(now time.Time) time.Time {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	var next time.Time
	for _, q := range pl.queues {
		if q.blocked.After(now) && (len(q.ids) > 0 || q.behind) {
			next = sooner(next, q.blocked)
		}
	}
	return next
}
