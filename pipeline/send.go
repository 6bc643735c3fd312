package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// maxAsked bounds how long a provider can make us wait.
const maxAsked = time.Hour

// reasonLeaseShort is why a message goes back that waited so long for its turn that its lease no longer covers an attempt.
const reasonLeaseShort = "lease_short"

// unknownAttempts bounds the attempts that end in a code which the connector does not know.
const unknownAttempts = 3

var errSendTimeout = errors.New("the connector did not return in time")

// send makes the one attempt that was claimed, and turns what came of it into an outcome.
func (p *Pipeline) send(m *passage, now time.Time) {
	s := p.station(m.account)
	switch {
	case s == nil || p.draining.Load() && s.isClosed():
		m.giveBack("drained")
		return
	case p.campaigns.paused(m.Campaign):
		m.giveBack(store.ReasonCampaignPaused)
		return
	case !m.ExpiresAt.After(now):
		m.end(store.Outcome{Status: delivery.StatusExpired, Reason: store.ReasonExpired, Detail: "its time ran out before a hand-off"})
		return
	case m.leaseShort(now) || !p.claims.begin(m.key()):
		// The lease might end while the provider still thinks. Somebody may have it already: let the store decide.
		m.giveBack(reasonLeaseShort)
		return
	}
	if err := p.journal.begin(m); err != nil {
		until := now.Add(5 * time.Second)
		p.log.Error("the attempt journal cannot be written; nothing is sent without it", "err", err)
		m.hold("journal_unavailable", "the attempt journal cannot be written", until)
		p.planner.block(m.Queue, now.Add(time.Second), windowMin, delivery.Standing{Reason: "journal_unavailable", Until: until})
		return
	}
	s.running.Add(1)
	sent, err := p.attemptOnce(s, m)
	s.running.Add(-1)
	after := p.clock.Now()
	p.metrics.sendSeconds.WithLabelValues(m.Queue.Channel.String()).Observe(after.Sub(now).Seconds())
	if err == nil {
		m.end(store.Outcome{
			Status: delivery.StatusSent, ProviderID: sent.ProviderID, Detail: clip(sent.Detail), Attempted: true,
			IndexProviderID: m.account.Kind.ReceiptsByProviderID, Segments: m.out.Segments,
		})
		p.answered(m)
		p.metrics.handoff.WithLabelValues(m.Queue.Channel.String()).Observe(after.Sub(m.AcceptedAt).Seconds())
	} else {
		p.failed(m, delivery.AsFailure(err), after)
	}
	p.journal.end(m)
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
	p.metrics.failures.WithLabelValues(m.account.Kind.Name, f.Class.String(), knownCode(f)).Inc()
	o := store.Outcome{
		Status: e.Status, Reason: f.Code, Detail: clip(f.Detail), Attempted: e.BurnsAttempt, Suppress: e.Suppresses,
	}
	if o.Reason == "" {
		o.Reason = f.Class.String()
	}
	switch f.Class {
	case delivery.Throttled:
		wait := min(f.RetryAfter, maxAsked)
		if wait <= 0 {
			wait = time.Second + rand.N(time.Second)
		}
		o.Until = now.Add(wait)
		p.slowDown(m.account, o.Until)
	case delivery.ConnectorDown:
		p.metrics.down.WithLabelValues(m.account.Kind.Name).Inc()
		o.Until = later(m.account.Down(now, clip(f.Code+" "+f.Detail), m.probe), now).Add(rand.N(200 * time.Millisecond))
		o.Reason, o.Detail = routing.ReasonConnectorDown, clip(m.account.Name+": "+f.Code+" "+f.Detail)
	case delivery.InDoubt:
		o.Until = now.Add(resolveWindow(m.account.Kind))
		if p.triesAgain(m) { // but not sooner than after any other failure
			if next := p.nextTry(m.Attempts, min(f.RetryAfter, maxAsked), now); next.After(o.Until) {
				o.Until = next
			}
		}
		if m.probe { // no answer is no sign of life
			m.account.Down(now, clip(f.Code+" "+f.Detail), true)
		}
	case delivery.Transient:
		if !f.Known && m.Attempts+1 >= unknownAttempts {
			o.Status, o.Detail = delivery.StatusFailed, clip(fmt.Sprintf("unknown code, given up after %d attempts: %s", m.Attempts+1, f.Detail))
			break
		}
		o.Until = p.nextTry(m.Attempts, min(f.RetryAfter, maxAsked), now)
	}
	// A message never waits beyond its own end: then it expires, with its last failure as the reason.
	if o.Until.After(m.ExpiresAt) {
		o.Until = m.ExpiresAt
	}
	if f.Class != delivery.ConnectorDown && f.Class != delivery.InDoubt {
		p.answered(m)
	}
	m.end(o)
}

// triesAgain reports whether a doubtful attempt of m will be followed by another one, as far as is known now.
func (p *Pipeline) triesAgain(m *passage) bool {
	t, err := p.tenants.get(m.Queue.Tenant)
	return !m.AtMostOnce && (err != nil || t.onAmbiguous == "" || t.onAmbiguous == onAmbiguousRetry)
}

// answered says that the provider has answered m. When m was the probe of a resting account, what was held for it can
// go at once.
func (p *Pipeline) answered(m *passage) {
	if m.probe && m.account.Up() {
		p.planner.unblock()
		p.wake(routing.ReasonConnectorDown, delivery.CampaignID{}, m.account.ID)
	}
}

// wake makes due what is held for reason, of one campaign or one account or of all, without making the caller wait.
func (p *Pipeline) wake(reason string, campaign delivery.CampaignID, account delivery.AccountID) {
	p.waking.Add(1)
	p.wg.Go(func() {
		defer p.waking.Add(-1)
		_, err := p.store.Wake(p.ctx, system, p.clock.Now(), reason, campaign, account)
		if err != nil && p.ctx.Err() == nil {
			p.log.Warn("held messages cannot be woken; they go when their time comes", "reason", reason, "err", err)
		}
		p.alarm.due(p.clock.Now())
	})
}

// nextTry is when a failed message is tried again: the schedule's delay with up to a fifth of it more or less, or what
// the provider asked for when that is longer.
func (p *Pipeline) nextTry(attempts int, asked time.Duration, now time.Time) time.Time {
	d := p.opt.Retry[min(attempts, len(p.opt.Retry)-1)]
	d += time.Duration((rand.Float64()*0.4 - 0.2) * float64(d))
	return now.Add(max(d, asked))
}

// resolveWindow is how long an attempt without an answer may still be settled by a receipt.
func resolveWindow(k *connectors.Kind) time.Duration {
	switch {
	case k.ResolveWindow > 0:
		return k.ResolveWindow
	case k.Ambiguity == connectors.Correlate || k.Ambiguity == connectors.Query:
		return 90 * time.Second
	}
	return 0
}

// knownCode keeps the number of label values small: codes of the connector's table, "unknown" for the rest.
func knownCode(f *delivery.Failure) string {
	if f.Known {
		return f.Code
	}
	return "unknown"
}
