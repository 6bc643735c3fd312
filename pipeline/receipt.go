package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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
		m.giveBack("internal_error")
	}
	if m.track != nil {
		m.track.done = p.clock.Now()
	}
	p.claims.tell(m.key(), true)
	p.recorder.add(m)
}

// recorder gathers outcomes and settles them, up to 256 in one store call. While one batch is being committed the next
// one fills. An outcome of which somebody wants to know does not wait; others wait for Options.Linger at most.
type recorder struct {
	p       *Pipeline
	in      chan *passage
	pending atomic.Int64
	quit    chan struct{} // closed: nothing is added any more
	done    chan struct{} // closed: run has ended
	// ctx ends when a shutdown has no more time: what is not written then is left to the journal and the next start.
	ctx    context.Context
	giveUp context.CancelFunc
}

func newRecorder(p *Pipeline) *recorder {
	r := &recorder{p: p, in: make(chan *passage, 1024), quit: make(chan struct{}), done: make(chan struct{})}
	r.ctx, r.giveUp = context.WithCancel(context.Background())
	return r
}

func (r *recorder) add(m *passage) {
	r.pending.Add(1)
	select {
	case r.in <- m:
	case <-r.ctx.Done():
		r.pending.Add(-1)
	}
}

func (r *recorder) idle() bool { return r.pending.Load() == 0 }

// stop settles what has been added and ends run, or gives up when ctx ends. Call it once, when nothing is added any more.
func (r *recorder) stop(ctx context.Context) {
	close(r.quit)
	select {
	case <-r.done:
	case <-ctx.Done():
		r.giveUp()
		<-r.done
	}
}

func (r *recorder) run() {
	defer close(r.done)
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
		if batch = r.fill(batch); !awaited(batch) && r.p.opt.Linger > 0 {
			batch = r.linger(batch)
		}
		r.settle(batch)
	}
}

// fill adds what is there.
func (r *recorder) fill(batch []*passage) []*passage {
	for len(batch) < maxHint {
		select {
		case m := <-r.in:
			batch = append(batch, m)
		default:
			return batch
		}
	}
	return batch
}

// linger adds what comes until somebody waits for one of them, or the time is over.
func (r *recorder) linger(batch []*passage) []*passage {
	over := time.NewTimer(r.p.opt.Linger)
	defer over.Stop()
	for len(batch) < maxHint {
		select {
		case m := <-r.in:
			if batch = r.fill(append(batch, m)); awaited(batch) {
				return batch
			}
		case <-over.C:
			return batch
		case <-r.quit:
			return r.fill(batch)
		}
	}
	return batch
}

// awaited reports whether any outcome is more than that the message has to wait.
func awaited(batch []*passage) bool {
	return slices.ContainsFunc(batch, func(m *passage) bool {
		return m.outcome.Status != delivery.StatusHeld && m.outcome.Status != delivery.StatusQueued
	})
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
	began := p.clock.Now()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		var err error
		settled, err = p.store.Settle(r.ctx, system, p.clock.Now(), outcomes)
		if err == nil {
			break
		}
		if r.ctx.Err() != nil { // the journal still has what was heard
			r.pending.Add(-int64(len(batch)))
			return
		}
		p.log.Error("outcomes cannot be written; trying again", "outcomes", len(outcomes), "err", err)
		if !temporary(err) {
			settled = r.oneByOne(outcomes)
			break
		}
		t := p.clock.NewTimer(wait)
		select {
		case <-t.Chan():
		case <-r.ctx.Done():
		}
		t.Stop()
	}
	written := p.clock.Now()
	p.metrics.settles.Observe(float64(len(batch)))
	var returned delivery.Queue
	var stopped delivery.CampaignID
	var woken store.Held
	for i, m := range batch {
		if settled[i].Status == 0 {
			p.claims.tell(m.key(), false)
			continue // it could not be written: its claim and its journal record stay open until its lease runs out
		}
		p.journal.settled(m)
		p.claims.end(m.key())
		p.ready(settled[i].Ready)
		if settled[i].Suppressed {
			p.Suppressed(m.Queue.Tenant)
		}
		switch {
		case !settled[i].Applied:
			p.metrics.late.Inc()
		case m.outcome.Status == delivery.StatusAmbiguous:
			p.alarm.due(m.outcome.Until)
			p.askAbout(m.outcome, m.Queue, p.clock.Now())
		case m.outcome.Status == delivery.StatusQueued:
			if m.Queue != returned { // neighbours in a batch are mostly of one queue
				returned = m.Queue
				p.planner.returned(returned)
			}
		case m.ways != p.planner.ways.Load() && (unrouted(m.outcome.Reason) || m.outcome.Reason == ReasonRateLimited):
			// It was held for want of an account, or for a rate, and meanwhile something changed: the wake of that change came
			// too early for it.
			if h := (store.Held{Reason: m.outcome.Reason, Tenant: m.Queue.Tenant}); h != woken {
				woken = h
				p.wake(h)
			}
		case m.outcome.Reason == ReasonRateLimited && m.Campaign != stopped && p.campaigns.paused(m.Campaign):
			stopped = m.Campaign // it was paused or stopped while this was on its way: see CampaignPaused
			p.wake(store.Held{Reason: ReasonRateLimited, Campaign: stopped})
		case !m.outcome.Until.IsZero():
			p.alarm.due(m.outcome.Until)
		case !m.LegUntil.IsZero(): // handed off, with another leg to follow: it may be late already
			p.alarm.due(m.LegUntil)
		}
		p.metrics.outcomes.WithLabelValues(m.Queue.Channel.String(), m.outcome.Status.String()).Inc()
	}
	// Give back the room a queue at a time: neighbours in a batch are mostly of one queue.
	for from := 0; from < len(batch); {
		to := from + 1
		for to < len(batch) && batch[to].Queue == batch[from].Queue {
			to++
		}
		p.planner.settled(batch[from].Queue, to-from, p.clock.Now())
		from = to
	}
	if p.opt.Tracer != nil {
		p.traceSettled(batch, settled, began, written)
	}
	r.pending.Add(-int64(len(batch)))
}

// temporary reports whether the store may take the same outcomes later.
func temporary(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrOutcomeUnknown)
}

// oneByOne settles a batch that the store refuses as a whole, so that one wrong outcome cannot hold up the others. What
// is refused even so stays the zero Settled.
func (r *recorder) oneByOne(outcomes []store.Outcome) []store.Settled {
	settled := make([]store.Settled, len(outcomes))
	for i := range outcomes {
		got, err := r.p.store.Settle(r.ctx, system, r.p.clock.Now(), outcomes[i:i+1])
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
	now := s.p.clock.Now()
	reported, err := s.p.store.Report(ctx, system, now, s.p.opt.ParkReceipts, receipts)
	if err != nil {
		return err
	}
	for i, r := range reported {
		s.p.ready(r.Ready)
		if c := receipts[i].Class; !r.Message.IsZero() && delivery.EffectOf(c).Suppresses {
			s.p.Suppressed(r.Tenant)
		}
		what := "changed"
		switch {
		case r.Message.IsZero():
			what = "parked"
		case !r.Changed:
			what = "unchanged"
		default:
			s.p.asker.told(r.Message)
		}
		if !r.Until.IsZero() {
			s.p.alarm.due(r.Until)
		}
		s.p.metrics.receipts.WithLabelValues(s.account.Channel.String(), receipts[i].Status.String(), what).Inc()
		s.p.traceReport(r, receipts[i], s.account.Name, now)
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

// streamPause is how long a report session rests that ended by itself.
const streamPause = 5 * time.Second

// stream runs a connector's own report session. A session that ends before its time, or breaks down, is begun anew:
// without it no receipt would come in any more.
func (p *Pipeline) stream(ctx context.Context, a *routing.Account, c connectors.Streamer) {
	for {
		err := p.streamOnce(ctx, a, c)
		if ctx.Err() != nil {
			return
		}
		p.log.Error("a connector's report session ended; it is begun anew", "connector", a.Name, "err", err)
		t := p.clock.NewTimer(streamPause)
		select {
		case <-t.Chan():
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (p *Pipeline) streamOnce(ctx context.Context, a *routing.Account, c connectors.Streamer) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.metrics.panics.Inc()
			err = fmt.Errorf("the connector panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return c.Stream(ctx, sink{p, a})
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
