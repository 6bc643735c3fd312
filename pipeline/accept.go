package pipeline

import (
	"context"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Accept makes messages durable and only then lets the next stage know. It is store.Accepter for whoever takes requests.
func (p *Pipeline) Accept(ctx context.Context, tenant delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	return p.accept(ctx, tenant, a)
}

func (p *Pipeline) accept(ctx context.Context, tenant delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	if p.draining.Load() {
		return store.Accepted{}, store.ErrUnavailable
	}
	done, err := p.store.Accept(ctx, tenant, a)
	if p.opt.Tracer != nil {
		p.traceAccept(ctx, tenant, a, done, err)
	}
	if err != nil || done.Replayed {
		return done, err
	}
	// Most requests hold one queue: look ahead for runs, so that a batch becomes few hints.
	var run []delivery.MessageID
	var q delivery.Queue
	for i, m := range a.Messages {
		p.metrics.accepted.WithLabelValues(m.Channel.String()).Inc()
		if done.Results[i].Status == delivery.StatusScheduled {
			p.alarm.due(m.DueAt)
		}
		if done.Results[i].Status != delivery.StatusQueued {
			continue
		}
		if at := (delivery.Queue{Tenant: tenant, Channel: m.Channel, Lane: m.Lane}); at != q {
			if len(run) > 0 {
				p.hints.add(q, run...)
			}
			q, run = at, run[:0]
		}
		run = append(run, m.ID)
	}
	if len(run) > 0 {
		p.hints.add(q, run...)
	}
	return done, nil
}

// Hint tells the plan stage about messages that became durable elsewhere, such as a slice of a campaign.
func (p *Pipeline) Hint(q delivery.Queue, ids []delivery.MessageID) { p.hints.add(q, ids...) }
