package pipeline

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/delivery"
)

// A tenant is noisy when it has more than a tenth of all messages that are in flight, and at least noisyLeast of them.
// That is the test of Amazon SQS fair queues ("How fair queues work", SQS developer guide).
const (
	noisyPart  = 10
	noisyLeast = 30
	// noisyShown bounds the tenants that are named in the metrics: the noisiest.
	noisyShown = 5
)

// tenantLoad is what one tenant has in flight.
type tenantLoad struct {
	tenant delivery.TenantID
	n      int
}

// noisy lists the noisy tenants, the noisiest first.
func noisy(inFlight map[delivery.TenantID]int) []tenantLoad {
	all := 0
	for _, n := range inFlight {
		all += n
	}
	var list []tenantLoad
	for t, n := range inFlight {
		if n >= noisyLeast && n*noisyPart > all {
			list = append(list, tenantLoad{t, n})
		}
	}
	slices.SortFunc(list, func(a, b tenantLoad) int {
		return cmp.Or(cmp.Compare(b.n, a.n), strings.Compare(string(a.tenant), string(b.tenant)))
	})
	return list
}

// load is what is in flight at a moment.
type load struct {
	lanes   laneCount
	tenants map[delivery.TenantID]int
	waited  [delivery.Bulk + 1]time.Duration // the longest of a lane's queues
}

func (pl *planner) load(now time.Time) load {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	l := load{lanes: pl.inFlight, tenants: map[delivery.TenantID]int{}}
	for _, st := range pl.turn {
		if st.inFlight > 0 {
			l.tenants[st.id.Tenant] += st.inFlight
		}
		if int(st.id.Lane) < len(l.waited) {
			l.waited[st.id.Lane] = max(l.waited[st.id.Lane], st.waited(now))
		}
	}
	return l
}

// fairness gives the planner's gauges when somebody asks for them; in between they cost nothing.
type fairness struct {
	planner                        *planner
	inFlight, age, noisy, noisiest *prometheus.Desc
}

func newFairness(pl *planner) *fairness {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("msgctl_"+name, help, labels, nil)
	}
	return &fairness{
		planner:  pl,
		inFlight: desc("in_flight", "Messages that are claimed and not settled.", "lane"),
		age:      desc("queue_age_seconds", "How long the oldest message that nobody has claimed is due.", "lane"),
		noisy: desc("noisy_tenants",
			"Tenants with more than a tenth of all messages in flight, and at least 30."),
		noisiest: desc("noisy_tenant_in_flight", "Messages in flight of the noisiest tenants, five at most.", "tenant"),
	}
}

// Describe implements prometheus.Collector.
func (f *fairness) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.inFlight, f.age, f.noisy, f.noisiest} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *fairness) Collect(ch chan<- prometheus.Metric) {
	l := f.planner.load(f.planner.p.clock.Now())
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for lane, n := range map[delivery.Lane]int{
		delivery.Urgent: l.lanes.urgent, delivery.Normal: l.lanes.normal, delivery.Bulk: l.lanes.bulk,
	} {
		gauge(f.inFlight, float64(n), lane.String())
		gauge(f.age, l.waited[lane].Seconds(), lane.String())
	}
	list := noisy(l.tenants)
	gauge(f.noisy, float64(len(list)))
	for _, t := range list[:min(len(list), noisyShown)] {
		gauge(f.noisiest, float64(t.n), string(t.tenant))
	}
}
