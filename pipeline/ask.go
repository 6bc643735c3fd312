package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

const (
	// A provider is asked askFirst after a doubt began, then after twice the time, and so on up to askLongest, until the
	// doubt's window is over.
	askFirst   = 2 * time.Second
	askLongest = 30 * time.Second
	// askAtOnce bounds the questions that one account's provider has to answer at the same time.
	askAtOnce = 4
	// maxQuestions bounds the doubts that are asked about. Further ones are asked about once, at the end of their window.
	maxQuestions = 4096
)

// asker asks providers what became of attempts without an answer. The sweeper says when; each question runs in a
// goroutine of its own, so that a slow provider holds up nobody but itself. What a provider says is picked up by the
// sweeper, which writes it down. Nothing of this is stored: after a restart a doubt is asked about when its window
// ends.
type asker struct {
	p *Pipeline

	mu   sync.Mutex
	open map[delivery.MessageID]*question
	busy map[delivery.AccountID]int // questions that the provider has
}

// question is one doubt that is asked about. The asker's mutex guards what changes.
type question struct {
	of      store.Overdue
	account *routing.Account
	since   time.Time     // the doubt's beginning
	next    time.Time     // not to be asked before
	wait    time.Duration // until the time after next
	until   time.Time     // decided without an answer when none has come
	asked   int
	asking  bool
	answer  answer
	sent    delivery.Sent
}

func newAsker(p *Pipeline) *asker {
	return &asker{p: p, open: map[delivery.MessageID]*question{}, busy: map[delivery.AccountID]int{}}
}

// add takes up a doubt whose window ends at until. Of a message, the newest claim counts.
func (k *asker) add(o store.Overdue, a *routing.Account, since, next, until time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open) >= maxQuestions && k.open[o.ID] == nil {
		return false
	}
	k.open[o.ID] = &question{
		of: o, account: a, since: since, next: next, wait: 2 * askFirst, until: until.Add(2 * a.Timeout),
	}
	return true
}

// heard reports whether o, whose window is over, can be decided as far as its provider is concerned. A doubt that was
// not asked about, as after a restart, is now, once.
func (k *asker) heard(o store.Overdue, a *routing.Account, now time.Time) bool {
	k.mu.Lock()
	u := k.open[o.ID]
	if u != nil && u.of.Epoch == o.Epoch {
		defer k.mu.Unlock()
		if u.answer != noAnswer { // about to be written down
			return false
		}
		over := u.asked > 0 && !u.asking || !now.Before(u.until)
		if over {
			delete(k.open, o.ID)
		}
		return over
	}
	k.mu.Unlock()
	if !k.add(o, a, o.DueAt.Add(-resolveWindow(a.Kind)), now, now) {
		return true // there is no room: nobody can wait for that
	}
	k.step(now)
	return false
}

// told forgets a doubt that a receipt has settled.
func (k *asker) told(id delivery.MessageID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open) > 0 {
		delete(k.open, id)
	}
}

// waiting is how many doubts are asked about.
func (k *asker) waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)
}

// nextDue returns when the sweeper has something to do here; zero = not before somebody wakes it.
func (k *asker) nextDue(now time.Time) (next time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.open {
		switch {
		case u.asking: // its end wakes the sweeper
		case u.next.Before(u.until) && now.Before(u.until) && k.busy[u.account.ID] < askAtOnce:
			next = sooner(next, u.next)
		case now.Before(u.until):
			next = sooner(next, u.until)
		}
	}
	return next
}

// idle reports whether no provider is being asked, none is to be asked now, and no answer waits to be written down.
func (k *asker) idle(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.open {
		if u.asking || u.answer != noAnswer || u.due(now) && k.busy[u.account.ID] < askAtOnce {
			return false
		}
	}
	return true
}

// due reports whether the question may be asked now.
func (u *question) due(now time.Time) bool { return !now.Before(u.next) && now.Before(u.until) }

// step asks what is to be asked now.
func (k *asker) step(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.open {
		switch {
		case u.asking || u.answer != noAnswer:
		case u.due(now) && k.busy[u.account.ID] < askAtOnce:
			u.next, u.wait = now.Add(u.wait), min(2*u.wait, askLongest)
			a, open := k.p.Accounts.Account(u.account.ID)
			if !open || !asks(a) { // it is gone, or is being replaced
				break
			}
			u.account, u.asking = a, true
			k.busy[a.ID]++
			k.p.wg.Go(func() { k.ask(u, a) })
		}
	}
}

// prune forgets doubts whose time is over. The sweeper has just decided about all of those that were still open.
func (k *asker) prune(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.open, func(_ delivery.MessageID, u *question) bool {
		return !u.asking && u.answer == noAnswer && !now.Before(u.until)
	})
}

// ask asks once. It does not wait for a connector that overstays its time: that one is left to itself.
func (k *asker) ask(u *question, a *routing.Account) {
	type reply struct {
		sent delivery.Sent
		err  error
	}
	ctx, cancel := context.WithTimeoutCause(k.p.ctx, a.Timeout, errSendTimeout)
	defer cancel()
	replies := make(chan reply, 1)
	go func() {
		sent, err := k.query(ctx, u, a)
		replies <- reply{sent, err}
	}()
	var r reply
	select {
	case r = <-replies:
	case <-ctx.Done():
		r.err = context.Cause(ctx)
	}
	k.mu.Lock()
	u.asking = false
	u.asked++
	if k.busy[a.ID]--; k.busy[a.ID] == 0 {
		delete(k.busy, a.ID)
	}
	switch {
	case r.err == nil:
		u.answer, u.sent = taken, r.sent
	case errors.Is(r.err, connectors.ErrNotTaken):
		u.answer = neverTook
	}
	unsure := u.answer == noAnswer
	k.mu.Unlock()
	if unsure && k.p.ctx.Err() == nil {
		k.p.log.Debug("a provider cannot tell what became of an attempt", "connector", a.Name,
			"message", u.of.ID.String(), "err", r.err)
	}
	k.p.alarm.due(k.p.clock.Now())
}

func (k *asker) query(ctx context.Context, u *question, a *routing.Account) (sent delivery.Sent, err error) {
	defer func() {
		if r := recover(); r != nil {
			k.p.metrics.panics.Inc()
			err = fmt.Errorf("the connector panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return a.Connector.(connectors.Querier).Query(ctx, connectors.Doubt{
		Message: u.of.ID, Tenant: u.of.Queue.Tenant, Since: u.since,
	})
}

// answered returns up to most doubts that their providers have settled.
func (k *asker) answered(most int) (list []*question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range k.open {
		if u.answer != noAnswer && len(list) < most {
			list = append(list, u)
		}
	}
	return list
}

func (k *asker) forget(list []*question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, u := range list {
		if k.open[u.of.ID] == u {
			delete(k.open, u.of.ID)
		}
	}
}

// settleAnswers writes down what providers have said about doubts, a batch at a time.
func (p *Pipeline) settleAnswers(ctx context.Context, now time.Time) error {
	list := p.asker.answered(maxHint)
	if len(list) == 0 {
		return nil
	}
	outcomes, of := make([]store.Outcome, len(list)), make([]store.Overdue, len(list))
	for i, u := range list {
		out := doubtOutcome(u.of, doubt{kind: connectors.Query, answer: u.answer}, now)
		if u.answer == taken {
			out.ProviderID, out.Detail = u.sent.ProviderID, clip(u.sent.Detail)
			out.IndexProviderID = u.account.Kind.ReceiptsByProviderID
		}
		outcomes[i], of[i] = out, u.of
	}
	err := p.settleByPlan(ctx, now, outcomes, of)
	if err == nil {
		p.asker.forget(list)
	}
	return err
}
