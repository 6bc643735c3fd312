package pipeline

import "github.com/prometheus/client_golang/prometheus"

// metrics are the pipeline's own. Labels are small closed sets: no tenant, no id, no address. Only the planner's gauges
// (noisy.go) name tenants, and few of them.
type metrics struct {
	accepted, outcomes, failures, receipts, inbound, down, hintErrors *prometheus.CounterVec
	handoff, sendSeconds                                              *prometheus.HistogramVec
	claims, settles                                                   prometheus.Histogram
	late, panics                                                      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "msgctl_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "msgctl_" + name, Help: help, Buckets: buckets}, labels)
		reg.MustRegister(h)
		return h
	}
	seconds := []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 300}
	sizes := []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
	return &metrics{
		accepted:    counter("messages_accepted_total", "Messages made durable by accept.", "channel"),
		outcomes:    counter("outcomes_total", "What became of claimed messages.", "channel", "status"),
		failures:    counter("failures_total", "Failed attempts by the provider's code; codes the connector does not know count as unknown.", "kind", "class", "code"),
		receipts:    counter("receipts_total", "Provider reports and what they changed.", "channel", "status", "effect"),
		inbound:     counter("inbound_total", "Messages from people.", "channel"),
		down:        counter("connector_down_total", "Times a connector account was found unable to work.", "kind"),
		hintErrors:  counter("hint_errors_total", "Hints that came to nothing; the sweeper finds their messages.", "stage"),
		handoff:     histogram("handoff_seconds", "Time from accept to the provider's answer, for messages that it took.", seconds, "channel"),
		sendSeconds: histogram("send_seconds", "Duration of one attempt.", seconds, "channel"),
		claims:      histogram("claim_messages", "Messages per claim.", sizes).WithLabelValues().(prometheus.Histogram),
		settles:     histogram("settle_messages", "Outcomes per store call.", sizes).WithLabelValues().(prometheus.Histogram),
		late:        counter("late_outcomes_total", "Outcomes that came after their claim had been taken over.").WithLabelValues(),
		panics:      counter("connector_panics_total", "Panics in connectors; each ended one attempt.").WithLabelValues(),
	}
}
