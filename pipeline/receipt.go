package pipeline

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// receipt takes what became of a message to the recorder, which writes outcomes in batches.
func (p *Pipeline) receipt(m *passage) {
	if m.probe && m.journal == nil {
		m.account.Unprobe()
	}
	if !m.ended { // a mistake of ours; the lease would find it, but not soon
		m.giveBack("internal_error", p.clock.Now())
	}
	p.recorder.add(m)
}

// recorder gathers outcomes and settles them, up to 256 in one store call. While one batch is being committed the next
// one fills; a lone outcome does not wait.
type recorder struct {
	p       *Pipeline
	in      chan *passage
	pending atomic.Int64
	quit    chan struct{}
	once    sync.Once
}

func newRecorder(p *Pipeline) *recorder {
	return &recorder{p: p, in: make(chan *passage, 1024), quit: make(chan struct{})}
}

func (r *recorder) add(m *passage) {
	r.pending.Add(1)
	r.in <- m
}

func (r *recorder) idle() bool { return r.pending.Load() == 0 }

// stop settles what has been added and ends run. Nothing may be added after it.
func (r *recorder) stop(ctx context.Context) {
	r.once.Do(func() { close(r.quit) })
	for r.pending.Load() > 0 && ctx.Err() == nil {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (r *recorder) run() {
	batch := make([]*passage, 0, maxHint)
	for {
		batch = batch[:0]
		select {
		case m := <-r.in:
			batch = append(batch, m)
		case <-r.quit:
			select {
			case m := <-r.in:
				batch = append(batch, m)
			default:
				return
			}
		}
	fill:
		for len(batch) < maxHint {
			select {
			case m := <-r.in:
				batch = append(batch, m)
			default:
				break fill
			}
		}
		r.settle(batch)
	}
}

// settle writes a batch. Outcomes are never dropped: while the store cannot be written they stay here, the stations fill
// up behind them, and nothing new is claimed.
func (r *recorder) settle(batch []*passage) {
	p := r.p
	outcomes := make([]store.Outcome, len(batch))
	for i, m := range batch {
		outcomes[i] = m.outcome
	}
	var settled []store.Settled
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		var err error
		settled, err = p.store.Settle(context.WithoutCancel(p.ctx), system, p.clock.Now(), outcomes)
		if err == nil {
			break
		}
		p.log.Error("outcomes cannot be written; trying again", "outcomes", len(outcomes), "err", err)
		if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrOutcomeUnknown) {
			settled = r.oneByOne(outcomes)
			break
		}
		t := p.clock.NewTimer(wait)
		select {
		case <-t.Chan():
		case <-p.ctx.Done(): // the journal still has what was heard
			t.Stop()
			r.pending.Add(-int64(len(batch)))
			return
		}
	}
	p.metrics.settles.Observe(float64(len(batch)))
	for i, m := range batch {
		p.journal.settled(m)
		if settled != nil && !settled[i].Applied {
			p.metrics.late.Inc()
		}
		if !m.outcome.Until.IsZero() {
			p.alarm.due(m.outcome.Until)
		}
		p.metrics.outcomes.WithLabelValues(m.Queue.Channel.String(), m.outcome.Status.String()).Inc()
	}
	// Give back the room a queue at a time: neighbours in a batch are mostly of one queue.
	for from := 0; from < len(batch); {
		to := from + 1
		for to < len(batch) && batch[to].Queue == batch[from].Queue {
			to++
		}
		p.planner.done(batch[from].Queue, to-from)
		from = to
	}
	r.pending.Add(-int64(len(batch)))
}

// oneByOne settles a batch that the store refuses as a whole, so that one wrong outcome cannot hold up the others.
func (r *recorder) oneByOne(outcomes []store.Outcome) []store.Settled {
	settled := make([]store.Settled, len(outcomes))
	for i := range outcomes {
		got, err := r.p.store.Settle(context.WithoutCancel(r.p.ctx), system, r.p.clock.Now(), outcomes[i:i+1])
		if err != nil {
			r.p.log.Error("an outcome cannot be written; its lease will run out", "message", outcomes[i].ID.String(), "err", err)
			continue
		}
		settled[i] = got[0]
	}
	return settled
}

// sink is where a connector account's reports go. It returns once they are durable.
type sink struct {
	p       *Pipeline
	account *routing.Account
}

// Receipts implements connectors.Sink.
func (s sink) Receipts(ctx context.Context, receipts []delivery.Receipt) error {
	for i := range receipts {
		receipts[i].Account = s.account.ID
	}
	reported, err := s.p.store.Report(ctx, system, s.p.clock.Now(), s.p.opt.ParkReceipts, receipts)
	if err != nil {
		return err
	}
	for i, r := range reported {
		what := "changed"
		switch {
		case r.Message.IsZero():
			what = "parked"
		case !r.Changed:
			what = "unchanged"
		}
		s.p.metrics.receipts.WithLabelValues(s.account.Channel.String(), receipts[i].Status.String(), what).Inc()
	}
	return nil
}

// Inbound implements connectors.Sink: opt-out words take effect, everything else is counted.
func (s sink) Inbound(ctx context.Context, inbound []delivery.Inbound) error {
	for _, in := range inbound {
		s.p.metrics.inbound.WithLabelValues(s.account.Channel.String()).Inc()
		if err := s.p.optOut(ctx, s.account, in); err != nil {
			return err
		}
	}
	return nil
}

// stream runs a connector's own report session.
func (p *Pipeline) stream(ctx context.Context, a *routing.Account, c connectors.Streamer) {
	if err := c.Stream(ctx, sink{p, a}); err != nil && ctx.Err() == nil {
		p.log.Error("a connector's report session ended", "connector", a.Name, "err", err)
	}
}

// Callback takes a provider's HTTP request for an account: verified, parsed, durable. Only then it returns what to answer.
// Errors: store.ErrNotFound for an account that is
// not there or takes no callbacks, connectors.ErrForged, connectors.ErrMalformed, or the store's.
func (p *Pipeline) Callback(ctx context.Context, id delivery.AccountID, c *connectors.Callback) ([]byte, error) {
	a, ok := p.Accounts.Account(id)
	if !ok {
		return nil, store.ErrNotFound
	}
	reader, ok := a.Connector.(connectors.CallbackReader)
	if !ok {
		return nil, store.ErrNotFound
	}
	c.Now = p.clock.Now()
	report, err := reader.ReadCallback(c)
	if err != nil {
		return nil, err
	}
	for range report.Unknown {
		p.metrics.receipts.WithLabelValues(a.Channel.String(), "unknown_status", "unchanged").Inc()
	}
	s := sink{p, a}
	if len(report.Receipts) > 0 {
		if err := s.Receipts(ctx, report.Receipts); err != nil {
			return nil, err
		}
	}
	if len(report.Inbound) > 0 {
		if err := s.Inbound(ctx, report.Inbound); err != nil {
			return nil, err
		}
	}
	return report.Reply, nil
}
