package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// reasonLeaseShort is why a message goes back that waited so long for its turn that its lease no longer covers an attempt.
const reasonLeaseShort = "lease_short"

// reasonOutOfStep is why a message goes back that was claimed before its process lost touch with the others. They count
// it as gone: a pause, an opt-out or a stop that they have answered for may not be known here.
const reasonOutOfStep = "out_of_step"

var errSendTimeout = errors.New("the connector did not return in time")

// send makes the one attempt that was claimed, and turns what came of it into an outcome.
func (p *Pipeline) send(m *passage, now time.Time) {
	s := p.station(m.account)
	switch {
	case s == nil || p.draining.Load() && s.isClosed():
		m.giveBack("drained")
		return
	case p.held() != "":
		m.giveBack(reasonOutOfStep)
		return
	case p.campaigns.paused(m.Campaign):
		m.giveBack(store.ReasonCampaignPaused)
		return
	case !m.ExpiresAt.After(now):
		m.end(store.Outcome{Status: delivery.StatusExpired, Reason: store.ReasonExpired, Detail: "its time ran out before a hand-off"})
		return
	case p.refused(m):
		m.giveBack(store.ReasonSuppressed)
		return
	case m.leaseShort(now) || !p.claims.begin(m.key(), m.account.ID, p.elapsed()+m.account.Timeout):
		// The lease might end while the provider still thinks. Somebody may have it already: let the store decide.
		m.giveBack(reasonLeaseShort)
		return
	}
	err := p.journal.begin(m)
	p.journalDown.Store(err != nil)
	if err != nil {
		until := now.Add(5 * time.Second)
		p.log.Error("the attempt journal cannot be written; nothing is sent without it", "err", err)
		m.hold("journal_unavailable", "the attempt journal cannot be written", until)
		p.planner.block(m.Queue, now.Add(time.Second), windowMin, delivery.Standing{Reason: "journal_unavailable", Until: until})
		return
	}
	if why := p.lastLook(s, m); why != "" {
		m.giveBack(why)
		p.journal.end(m)
		if m.probe {
			m.account.Unprobe()
		}
		return
	}
	s.running.Add(1)
	sent, err := p.attemptOnce(s, m)
	s.running.Add(-1)
	after := p.clock.Now()
	p.metrics.sendSeconds.WithLabelValues(m.Queue.Channel.String()).Observe(after.Sub(now).Seconds())
	if err == nil {
		m.account.Observe(m.To, nil, after)
		m.end(store.Outcome{
			Status: delivery.StatusSent, ProviderID: sent.ProviderID, Detail: clip(sent.Detail), Attempted: true,
			IndexProviderID: m.account.Kind.ReceiptsByProviderID, Segments: m.out.Segments,
		})
		p.answered(m)
		p.metrics.handoff.WithLabelValues(m.Queue.Channel.String()).Observe(after.Sub(m.AcceptedAt).Seconds())
	} else {
		f := delivery.AsFailure(err)
		m.account.Observe(m.To, f, after)
		p.failed(m, f, after)
	}
	p.journal.end(m)
}

// lastLook says why m must not go although everything was right a moment ago; "" = it goes. It looks by a clock that runs
// on while the process stands still and that nobody sets: the disk, or whoever stopped this process, may have taken the
// lease's time, or that of the permit.
func (p *Pipeline) lastLook(s *station, m *passage) string {
	switch {
	case !p.claims.covers(m.key(), p.elapsed()+m.account.Timeout), !m.ExpiresAt.After(p.clock.Now()), p.held() != "",
		p.refused(m), p.campaigns.paused(m.Campaign):
		return reasonLeaseShort
	case !p.permitHolds(s, m):
		return ReasonRateLimited
	}
	return ""
}

// attemptOnce calls the connector, bounded in time; a panic in it is a failure of this one message.
func (p *Pipeline) attemptOnce(s *station, m *passage) (sent delivery.Sent, err error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, m.account.Timeout, errSendTimeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			p.metrics.panics.Inc()
			p.log.Error("a connector panicked", "connector", m.account.Name, "message", m.ID.String(), "panic", fmt.Sprint(r),
				"stack", string(debug.Stack()))
			err = &delivery.Failure{Class: delivery.InDoubt, Code: "internal_error", Detail: "the connector broke down", Known: true}
		}
	}()
	sent, err = m.account.Connector.Send(ctx, &m.out)
	var known *delivery.Failure
	if err != nil && ctx.Err() != nil && !errors.As(err, &known) {
		// The connector was cut off and does not say whether bytes had left.
		err = &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Detail: "no answer in time", Known: true, Err: err}
	}
	return sent, err
}

// failed turns a classified failure into an outcome, by the table of effects.
func (p *Pipeline) failed(m *passage, f *delivery.Failure, now time.Time) {
	e := delivery.EffectOf(f.Class)
	m.failure = f
	p.metrics.failures.WithLabelValues(m.account.Kind.Name, f.Class.String(), knownCode(f)).Inc()
	if !f.Known {
		p.unknown.note(p.log, m, f)
	}
	o := store.Outcome{
		Status: e.Status, Reason: f.Code, Detail: clip(f.Detail), Attempted: e.BurnsAttempt, Suppress: e.Suppresses,
	}
	if o.Reason == "" {
		o.Reason = f.Class.String()
	}
	switch {
	case e.PausesRoute:
		p.metrics.down.WithLabelValues(m.account.Kind.Name).Inc()
		o.Until = later(m.account.Down(now, clip(f.Code+" "+f.Detail), m.probe), now)
		if p.hasOtherWay(m, now) { // then it does not wait for this account, only to be its probe again
			o.Until = now
		}
		o.Until = o.Until.Add(p.spread(m, 200*time.Millisecond))
		o.Reason, o.Detail = routing.ReasonConnectorDown, clip(m.account.Name+": "+f.Code+" "+f.Detail)
	case e.SlowsAccount:
		wait := min(f.RetryAfter, maxAsked)
		if wait <= 0 {
			wait = time.Second + p.spread(m, time.Second)
		}
		o.Until = now.Add(wait)
		p.slowDown(m.account, o.Until)
	case e.Status == delivery.StatusAmbiguous:
		o.Until = p.doubtUntil(m, f, now)
		if m.probe { // no answer is no sign of life
			m.account.Down(now, clip(f.Code+" "+f.Detail), true)
		}
	case e.Status == delivery.StatusDeferred:
		var last bool
		o.Until, last = p.nextTry(m, f.Class, f.RetryAfter, now)
		switch {
		case !f.Known && m.Attempts+1 >= unknownAttempts:
			o.Detail = clip(fmt.Sprintf("unknown code, given up after %d attempts: %s", m.Attempts+1, f.Detail))
			o.Status, o.Until = delivery.StatusFailed, time.Time{}
		case last:
			exhausted(&o, m)
		}
	}
	if !e.PausesRoute && e.Status != delivery.StatusAmbiguous {
		p.answered(m)
	}
	m.end(o)
}

// answered says that the provider has answered m. When m was the probe of a resting account, what was held for it can
// go at once.
func (p *Pipeline) answered(m *passage) {
	if m.probe && m.account.Up() {
		p.planner.unblock()
		p.wake(store.Held{Reason: routing.ReasonConnectorDown, Account: m.account.ID})
	}
}

// wake makes due what is held, without making the caller wait.
func (p *Pipeline) wake(h store.Held) {
	p.waking.Add(1)
	p.wg.Go(func() {
		defer p.waking.Add(-1)
		if err := p.wakeNow(p.ctx, h); err != nil && p.ctx.Err() == nil {
			p.log.Warn("held messages cannot be woken; they go when their time comes", "reason", h.Reason, "err", err)
		}
	})
}

// wakeNow makes due what is held, and has the sweeper look for it.
func (p *Pipeline) wakeNow(ctx context.Context, h store.Held) error {
	n, err := p.store.Wake(ctx, system, p.clock.Now(), h)
	if n > 0 || err != nil { // in doubt it may have been done
		p.woken.Store(true)
	}
	p.alarm.due(p.clock.Now())
	return err
}

// knownCode keeps the number of label values small: codes of the connector's table, "unknown" for the rest.
func knownCode(f *delivery.Failure) string {
	if f.Known {
		return f.Code
	}
	return "unknown"
}
