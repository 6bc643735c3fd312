package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// How often the sweeper looks, at least and at most. In between it wakes when the next due time comes.
const (
	sweepAtMost  = time.Second
	sweepAtLeast = 5 * time.Millisecond
	tidyEvery    = 5 * time.Second

	// callers is how many messages are called to try an account that nobody tries: one may be for another node to send.
	callers = 16

	// hintGrace is how long a due message is left to its hint while hints flow.
	hintGrace = 100 * time.Millisecond
)

// sweep finds due work that no hint tells of: due times that have come, hints that were lost, leases that have run out,
// doubts that are to be settled. It only ever returns work.
func (p *Pipeline) sweep(ctx context.Context) {
	var tidied, counted time.Time
	for ctx.Err() == nil {
		now := p.clock.Now()
		p.alarm.set(now) // while the sweeper looks, whatever becomes due makes it look again
		held := p.held() != ""
		if held {
			p.sight = sight{}
		}
		left := !p.opt.NoDelivery && !held && p.sweepQueues(ctx, now)
		second := now.Sub(counted) >= sweepAtMost || now.Before(counted)
		if second {
			counted = now
			p.planner.giveUpLost(now)
			for _, s := range p.open() {
				s.giveBackShort(now)
				if !p.opt.NoDelivery && !held && s.acct.Untried(now) {
					p.wake(store.Held{Reason: routing.ReasonConnectorDown, Account: s.acct.ID, Limit: callers})
				}
			}
		}
		p.asker.step(now)
		err := p.settleAnswers(ctx, now)
		if err == nil && !held {
			err = p.settleOverdue(ctx, now, second)
		}
		if err == nil {
			p.asker.prune(now)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("overdue claims cannot be settled", "err", err)
		}
		if (now.Sub(tidied) >= tidyEvery || now.Before(tidied)) && !held {
			tidied = now
			p.tidy(ctx, now)
		}
		wait := sweepAtMost
		if left {
			wait = hintGrace
		}
		if next, err := p.store.NextDue(ctx, system, now); err == nil && !next.IsZero() {
			wait = min(max(next.Sub(now), sweepAtLeast), wait)
		}
		if next := p.asker.nextDue(now); !next.IsZero() {
			wait = min(max(next.Sub(now), sweepAtLeast), wait)
		}
		p.alarm.arm(now.Add(wait))
		p.alarm.wait(ctx, p.clock)
	}
}

// alarm is when the sweeper looks next; whoever writes an earlier due time moves it forward.
type alarm struct {
	early chan struct{}

	mu     sync.Mutex
	at     time.Time // of the next look; while one is under way, when it began
	sooner time.Time // the earliest due time written meanwhile; zero = none
}

func newAlarm() *alarm { return &alarm{early: make(chan struct{}, 1)} }

// set says that a look begins.
func (a *alarm) set(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.sooner = now, time.Time{}
	select {
	case <-a.early:
	default:
	}
}

// arm says when the next look is to be, unless something was written during this one that is due before.
func (a *alarm) arm(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = at
	if !a.sooner.IsZero() {
		a.at = sooner(at, a.sooner)
	}
}

// wait returns when it is time to look, or ctx ends. An earlier due time makes it wait for that one: it does not look
// before there is something to see.
func (a *alarm) wait(ctx context.Context, clock clockwork.Clock) {
	for {
		a.mu.Lock()
		at := a.at
		a.mu.Unlock()
		t, ok := timerAt(clock, at)
		if !ok {
			return
		}
		select {
		case <-t.Chan():
			return
		case <-a.early:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// due tells of a due time that has been written. It costs nothing while the sweeper looks soon enough.
func (a *alarm) due(at time.Time) {
	at = at.Truncate(time.Millisecond) // as the store keeps it: there is something to see from then on
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sooner.IsZero() || at.Before(a.sooner) {
		a.sooner = at
	}
	if at.Before(a.at) {
		a.at = at
		select {
		case a.early <- struct{}{}:
		default:
		}
	}
}

// sweepQueues tells the planner which queues have due messages. It returns true when some of them were left to hints
// that are under way.
func (p *Pipeline) sweepQueues(ctx context.Context, now time.Time) (left bool) {
	woken := p.woken.Swap(false) // before the look, which sees what they were
	due, err := p.store.DueQueues(ctx, system, now)
	if err != nil {
		if woken {
			p.woken.Store(true)
		}
		if ctx.Err() == nil {
			p.log.Warn("due queues cannot be read", "err", err)
		}
		return false
	}
	quiet := p.hints.idle()
	for _, q := range due {
		// While hints flow, what became due a moment ago is most likely named by one of them.
		if quiet || woken || now.Sub(q.Oldest) > hintGrace {
			p.planner.overdue(q.Queue, q.Oldest, woken)
		} else {
			left = true
		}
	}
	return left
}

// tidy does what needs doing now and then: parked receipts that nobody claimed, a clock that has been set.
func (p *Pipeline) tidy(ctx context.Context, now time.Time) {
	p.checkClock(ctx, now)
	if p.opt.NoUpkeep {
		return
	}
	if n, err := p.store.DropParked(ctx, system, now); err == nil && n > 0 {
		p.log.Warn("receipts for unknown messages were dropped after their time", "receipts", n)
	}
}

// settleOverdue decides about claims whose lease has run out, doubts whose time has come and legs that had no success
// in theirs, a batch at a time, until no batch is full. With leases set it also looks for claims of this process whose
// lease has ended although the wall clock does not say so: it has been set back.
func (p *Pipeline) settleOverdue(ctx context.Context, now time.Time, leases bool) error {
	for ctx.Err() == nil {
		n, err := p.settleOverdueBatch(ctx, now, leases)
		if err != nil || n < maxHint {
			return err
		}
	}
	return nil
}

func (p *Pipeline) settleOverdueBatch(ctx context.Context, now time.Time, leases bool) (int, error) {
	// What is left alone for now stands at the head of the list: it must not hide the rest.
	most := maxHint + p.claims.running() + p.asker.waiting() + int(p.recorder.pending.Load())
	var overdue []store.Overdue
	if !p.opt.NoUpkeep {
		var err error
		overdue, err = p.store.Overdue(ctx, system, now, "", most)
		p.sight.saw(p.elapsed(), err)
		if err != nil {
			return 0, err
		}
	}
	elapsed := p.elapsed()
	ours := map[attemptKey]bool{}
	isSending := func(o store.Overdue) bool { return o.Status == delivery.StatusSending }
	if slices.ContainsFunc(overdue, isSending) || leases && p.claims.over(elapsed) {
		// Both lists are in the order of their times, so that what of this list is ours stands at the head of that one.
		own, err := p.overdueOwn(ctx, now, most)
		if err != nil {
			return 0, err
		}
		for _, o := range own {
			key := attemptKey{o.ID, o.Epoch}
			ours[key] = true
			if (o.DueAt.After(now) || p.opt.NoUpkeep) && p.claims.isOver(key, elapsed) {
				overdue = append(overdue, o)
			}
		}
	}
	var outcomes []store.Outcome
	var of []store.Overdue
	for _, o := range overdue {
		out, decided := p.settleOne(o, ours[attemptKey{o.ID, o.Epoch}], now, elapsed)
		if decided {
			outcomes, of = append(outcomes, out), append(of, o)
		}
		if len(outcomes) == maxHint {
			break
		}
	}
	return len(outcomes), p.settleByPlan(ctx, now, outcomes, of)
}

// settleOne decides about one overdue message, or leaves it for a later look.
func (p *Pipeline) settleOne(o store.Overdue, ours bool, now time.Time, elapsed time.Duration) (store.Outcome, bool) {
	key := attemptKey{o.ID, o.Epoch}
	switch o.Status {
	case delivery.StatusSent:
		return legOver(o, now), true
	case delivery.StatusAmbiguous:
		out, decided, err := p.resolve(o, now)
		return out, decided && err == nil // its tenant cannot be read now: the next look decides
	}
	if !ours && p.opt.Run != "" {
		if p.isOthers(o, now, elapsed) {
			return store.Outcome{}, false
		}
		return p.lostDoubt(o, now), true
	}
	if ours && p.claims.isTold(key) {
		return store.Outcome{}, false // the recorder writes it, as soon as the store lets it
	}
	if ours && p.claims.takeBack(key) {
		return notBegun(o, reasonLeaseEnded, now), true
	}
	if c, running := p.claims.attempt(key); ours && running {
		if !c.ended(elapsed) { // the wall clock has been set forward; the attempt is well under way
			return store.Outcome{}, false
		}
		o.Account = c.account // the store does not know yet by which account
	}
	return p.inDoubt(o, reasonLeaseEnded, "its worker did not come back in time", now), true
}

// settleByPlan settles outcomes about overdue messages, and lets go on what can.
func (p *Pipeline) settleByPlan(
	ctx context.Context, now time.Time, outcomes []store.Outcome, of []store.Overdue,
) error {
	if len(outcomes) == 0 {
		return nil
	}
	for i := range outcomes {
		outcomes[i].From = of[i].Status // a worker may have come back between the look and now
	}
	settled, err := p.store.Settle(ctx, system, now, outcomes)
	p.sight.saw(p.elapsed(), err)
	if err != nil && !temporary(err) && ctx.Err() == nil { // one of them is refused: it must not hold up the others
		settled, err = p.recorder.oneByOne(outcomes), nil
	}
	if err != nil {
		return err
	}
	for i := range settled {
		p.ready(settled[i].Ready)
		if settled[i].Suppressed {
			p.Suppressed(of[i].Queue.Tenant)
		}
		if !settled[i].Applied {
			continue
		}
		switch {
		case outcomes[i].Status == delivery.StatusQueued && !outcomes[i].NextLeg:
			p.hints.add(of[i].Queue, of[i].ID)
		case !outcomes[i].Until.IsZero():
			p.alarm.due(outcomes[i].Until)
		}
		if of[i].Status == delivery.StatusAmbiguous {
			p.countDoubt(outcomes[i])
		}
		p.tracePlan(of[i], outcomes[i], now)
		p.askAbout(outcomes[i], of[i].Queue, now)
		p.claims.end(attemptKey{of[i].ID, of[i].Epoch})
	}
	return nil
}

// notBegun is the outcome of a claim whose attempt is known not to have begun: back to its old place in the queue.
func notBegun(o store.Overdue, reason string, now time.Time) store.Outcome {
	return store.Outcome{
		ID: o.ID, Epoch: o.Epoch, Writer: delivery.ByPlan, Status: delivery.StatusQueued, Reason: reason,
		Until: sooner(o.ID.Time(), now), // the clock may have been set back since it was accepted
	}
}

// recoverFor is how long a start tries again while a store that others use too is away or busy.
const recoverFor = 30 * time.Second

// recoverPatiently is recoverClaims again and again while the store may soon do it. Where this process has the store for
// itself, nobody else's work keeps it from answering: then whoever started it is told at once.
func (p *Pipeline) recoverPatiently(ctx context.Context) error {
	began := p.elapsed()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := p.recoverClaims(ctx)
		if err == nil || p.opt.Run == "" || !temporary(err) || p.elapsed()-began+wait > recoverFor {
			return err
		}
		p.log.Warn("claims of the stopped process cannot be settled yet; trying again", "err", err)
		t := p.clock.NewTimer(wait)
		select {
		case <-t.Chan():
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}

// maxIdle is how often in a row recoverClaims may find claims of which the store lets go of none.
const maxIdle = 3

// recoverClaims settles what this node had under lease when it last stopped, with the help of its attempt journal.
func (p *Pipeline) recoverClaims(ctx context.Context) error {
	past, err := p.journal.read()
	if err != nil {
		return err
	}
	names, err := p.names(past)
	if err != nil {
		return err
	}
	var queued, answered, doubted, idle int
	for len(names) > 0 {
		now := p.clock.Now()
		left, err := p.store.Overdue(ctx, system, now, names[0], 4*maxHint)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			names = names[1:]
			continue
		}
		outcomes := make([]store.Outcome, len(left))
		for i, o := range left {
			key := attemptKey{o.ID, o.Epoch}
			out, ended := past.ended[key]
			by, begun := past.begun[key]
			switch {
			case ended:
				answered++
				outcomes[i] = out
			case begun || past.torn:
				doubted++
				if o = unlessPinned(o); begun { // how long to wait for a receipt depends on the account
					o.Account = by
				}
				outcomes[i] = p.inDoubt(o, reasonProcessDied, "the process stopped while the attempt was under way", now)
			default:
				queued++
				outcomes[i] = notBegun(o, reasonProcessDied, now)
			}
			if !ended { // another process may come first; an answer counts all the same
				outcomes[i].From = delivery.StatusSending
			}
		}
		settled, err := p.store.Settle(ctx, system, now, outcomes)
		if err != nil {
			return err
		}
		for i := range settled {
			p.ready(settled[i].Ready)
			if settled[i].Applied {
				p.tracePlan(left[i], outcomes[i], now)
				p.askAbout(outcomes[i], left[i].Queue, now)
			}
		}
		// Another process may have come first, and then the next look finds fewer.
		if idle++; slices.ContainsFunc(settled, func(s store.Settled) bool { return s.Applied }) {
			idle = 0
		} else if idle == maxIdle {
			return fmt.Errorf("message %s and %d more are claimed, and the store does not let go of them", left[0].ID, len(left)-1)
		}
	}
	after, err := p.answerDoubts(ctx, past)
	if err != nil {
		return err
	}
	answered += after
	if queued+answered+doubted > 0 {
		p.log.Info("claims of the stopped process are settled", "not_started", queued, "answered", answered, "in_doubt", doubted)
	}
	if err := past.forget(); err != nil {
		return err
	}
	return p.forgetNames()
}

// answerDoubts settles what earlier processes have heard and could not write down, and what others have called a doubt
// since. It returns how many answers counted.
func (p *Pipeline) answerDoubts(ctx context.Context, past past) (answered int, err error) {
	if p.opt.Run == "" {
		return 0, nil // nobody else is there to call anything a doubt
	}
	newest := map[delivery.MessageID]store.Outcome{}
	for key, out := range past.ended {
		if known, ok := newest[key.id]; delivery.CanMove(delivery.StatusAmbiguous, out.Status, delivery.BySend) &&
			(!ok || known.Epoch < out.Epoch) {
			out.From = delivery.StatusAmbiguous
			newest[key.id] = out
		}
	}
	for outcomes := range slices.Chunk(slices.Collect(maps.Values(newest)), maxHint) {
		settled, err := p.store.Settle(ctx, system, p.clock.Now(), outcomes)
		if err != nil {
			return answered, err
		}
		for i := range settled {
			p.ready(settled[i].Ready)
			if settled[i].Applied {
				answered++
			}
		}
	}
	return answered, nil
}
