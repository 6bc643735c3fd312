package pipeline

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// clockSlack is how far the wall clock may lie behind what has been seen before anybody is told: clocks that are
	// kept by NTP step by less.
	clockSlack = 5 * time.Second
	// partOK is the state of a part that works.
	partOK = "ok"
)

// clockGuard knows whether the wall clock has been set back. Nothing fires twice by that, because firing is a change of
// state in the store; but everything that waits for a time waits longer, and somebody should be told why.
type clockGuard struct {
	behind atomic.Int64 // a time.Duration; 0 = it is right as far as anybody knows
	gauge  prometheus.Gauge
}

func newClockGuard(reg prometheus.Registerer) *clockGuard {
	g := &clockGuard{gauge: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "msgctl_clock_behind_seconds",
		Help: "How far the wall clock lies behind the latest time seen; 0 when it does not.",
	})}
	reg.MustRegister(g.gauge)
	return g
}

// checkClock compares the wall clock with the latest time that the store has been told, and says so once when it is
// behind and once when it has caught up.
func (p *Pipeline) checkClock(ctx context.Context, now time.Time) {
	seen, err := p.store.Seen(ctx, system, now)
	if err != nil {
		return // the store's trouble shows elsewhere
	}
	behind := seen.Sub(now)
	if behind <= clockSlack {
		behind = 0
	}
	g := p.clockGuard
	g.gauge.Set(behind.Seconds())
	switch before := g.behind.Swap(int64(behind)); {
	case before == 0 && behind > 0:
		p.log.Error("the clock has been set back; what is scheduled waits until it has caught up",
			"behind", behind.String(), "seen", seen, "now", now)
	case before > 0 && behind == 0:
		p.log.Info("the clock has caught up")
	}
}

// Health says of each part that the pipeline stands on whether it works: "ok", or what is wrong in a few words. It is
// cheap and safe for concurrent use.
func (p *Pipeline) Health() map[string]string {
	parts := map[string]string{"clock": partOK, "journal": partOK}
	if behind := time.Duration(p.clockGuard.behind.Load()); behind > 0 {
		parts["clock"] = behind.Round(time.Second).String() + " behind the latest time seen; scheduled messages wait"
	}
	if p.journalDown.Load() {
		parts["journal"] = "cannot be written; nothing is sent"
	}
	return parts
}
