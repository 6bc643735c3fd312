package pipeline

import (
	"context"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// Report hands in receipts as the connector of an account does.
func (p *Pipeline) Report(ctx context.Context, a *routing.Account, receipts []delivery.Receipt) error {
	return sink{p, a}.Receipts(ctx, receipts)
}

// Still reports whether nothing is left to do now but to wait for the answers of the given number of attempts.
func (p *Pipeline) Still(ctx context.Context, underWay int) (bool, error) {
	now := p.clock.Now()
	idle := func() bool {
		return p.hints.idle() && p.planner.idle(underWay) && p.recorder.idle() && p.waking.Load() == 0
	}
	if !idle() {
		return false, nil
	}
	due, err := p.store.DueQueues(ctx, system, now)
	if err != nil || len(due) > 0 {
		return false, err
	}
	overdue, err := p.store.Overdue(ctx, system, now, "", 1)
	return len(overdue) == 0 && idle(), err
}

// HoldJournal makes every attempt wait for its journal, as a slow disk does, until the returned function is called.
func (p *Pipeline) HoldJournal() (release func()) {
	p.journal.mu.Lock()
	return p.journal.mu.Unlock
}

// Permitted is how many workers of an account have a message that may go.
func (p *Pipeline) Permitted(a *routing.Account) int { return a.Parallel - len(p.station(a).free) }

// Heard hands in what people wrote as the connector of an account does.
func (p *Pipeline) Heard(ctx context.Context, a *routing.Account, inbound []delivery.Inbound) error {
	return sink{p, a}.Inbound(ctx, inbound)
}

// TraceBatch returns what is done about the traces of n messages that are accepted, claimed and settled together.
func (p *Pipeline) TraceBatch(id func() delivery.MessageID, n int) func() {
	var a store.Acceptance
	var done store.Accepted
	batch, list := make([]passage, n), make([]*passage, n)
	for i := range batch {
		batch[i].ID = id()
		list[i] = &batch[i]
		a.Messages = append(a.Messages, store.NewMessage{ID: batch[i].ID})
		done.Results = append(done.Results, store.AcceptResult{ID: batch[i].ID})
	}
	settled := make([]store.Settled, n)
	return func() {
		p.traceAccept(p.ctx, "acme", a, done, nil)
		p.trackClaimed(batch, a.Now)
		p.traceSettled(list, settled, a.Now, a.Now)
	}
}
