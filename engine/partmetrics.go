package engine

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// partsDeadline is how long those who ask for the metrics wait for a store that does not answer.
const partsDeadline = 2 * time.Second

// partMetrics shows how the parts are, as they are when somebody asks.
type partMetrics struct{ e *Engine }

func newPartMetrics() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "msgctl_part_ok",
		Help: "Whether a part that the engine stands on works (1) or not (0); /readyz says what it lacks.",
	}, []string{"part"})
}

// Describe implements prometheus.Collector.
func (p partMetrics) Describe(ch chan<- *prometheus.Desc) { newPartMetrics().Describe(ch) }

// Collect implements prometheus.Collector.
func (p partMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), partsDeadline)
	defer cancel()
	m := newPartMetrics()
	for part, state := range p.e.allParts(ctx) {
		ok := 0.0
		if state == partOK {
			ok = 1
		}
		m.WithLabelValues(part).Set(ok)
	}
	m.Collect(ch)
}
