package cluster

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a member tells of itself.
type metrics struct {
	failures    prometheus.Counter
	changes     prometheus.Counter
	unconfirmed prometheus.Counter
	settles     prometheus.Histogram
}

func newMetrics(m *Member, reg prometheus.Registerer) *metrics {
	x := &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msgctl_cluster_beat_failures_total", Help: "Signs of life that did not reach the store.",
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msgctl_cluster_changes_total", Help: "Changes of any node that this one has followed.",
		}),
		unconfirmed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "msgctl_cluster_unconfirmed_total",
			Help: "Changes that were answered for before every living node had confirmed them.",
		}),
		settles: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "msgctl_cluster_settle_seconds", Help: "How long a change waited for the other nodes to follow.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3},
		}),
	}
	if reg == nil {
		return x
	}
	reg.MustRegister(x.failures, x.changes, x.unconfirmed, x.settles,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msgctl_cluster_held", Help: "Whether this node claims nothing because it is not in step with the cluster.",
		}, func() float64 {
			if m.Held() != "" {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "msgctl_cluster_clock_ahead_seconds",
			Help: "How far this node's clock is ahead of the store's; below 0 behind it.",
		}, func() float64 { return m.Skew().Seconds() }),
		nodeGauge(m, "alive", func(alive, draining bool) bool { return alive && !draining }),
		nodeGauge(m, "draining", func(alive, draining bool) bool { return alive && draining }),
		nodeGauge(m, "gone", func(alive, _ bool) bool { return !alive }),
	)
	return x
}

// nodeGauge counts the nodes in one state.
func nodeGauge(m *Member, state string, in func(alive, draining bool) bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "msgctl_cluster_nodes", Help: "Nodes as this one knows them; gone = of the last hour.",
		ConstLabels: prometheus.Labels{"state": state},
	}, func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := 0
		for _, node := range m.roster.Nodes {
			if in(node.Alive, node.Draining) {
				n++
			}
		}
		return float64(n)
	})
}
