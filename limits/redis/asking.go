package redis

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/limits"
)

// An asking limiter has no loop: Reserve makes the calls itself, and the caller's clock is everybody's, Redis' too. It is
// for a conformance kit with a clock of its own; the arithmetic is the same.

// advance moves the clock to now, never back, and returns how far now is behind it. The lock is held.
func (l *Limiter) advance(now time.Time) time.Duration {
	if l.base.IsZero() {
		l.base = now
	}
	l.latest = max(l.latest, int64(now.Sub(l.base)))
	return time.Duration(l.latest - int64(now.Sub(l.base)))
}

// decideAsking asks Redis as long as that gives something, and decides again. The lock is held.
func (l *Limiter) decideAsking(
	ctx context.Context, now time.Time, t int64, behind time.Duration, picked []*bucket, cost float64,
) (limits.Decision, error) {
	for {
		had := 0.0
		for _, b := range picked {
			had += b.have
		}
		joined := l.link.session != 0
		l.mu.Unlock()
		if joined {
			l.exchange(ctx, "call")
		} else {
			l.survey()
			l.join(ctx)
		}
		l.mu.Lock()
		if l.link.session == 0 {
			d := limits.Decision{NotBefore: now.Add(l.pace.timeout + behind), Blocking: 0}
			return d, nil
		}
		d, _ := l.decide(now, t, behind, picked, cost)
		if d.Go {
			return d, nil
		}
		for _, b := range picked {
			had -= b.have
		}
		if joined && had > -tiny {
			return d, nil
		}
	}
}
