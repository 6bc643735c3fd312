package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

func TestNoisyTenants(t *testing.T) {
	for name, c := range map[string]struct {
		in   map[delivery.TenantID]int
		want []delivery.TenantID
	}{
		"nobody":          {nil, nil},
		"few":             {map[delivery.TenantID]int{"a": 29}, nil},
		"enough":          {map[delivery.TenantID]int{"a": 30}, []delivery.TenantID{"a"}},
		"a tenth":         {map[delivery.TenantID]int{"a": 100, "b": 900}, []delivery.TenantID{"b"}},
		"above a tenth":   {map[delivery.TenantID]int{"a": 101, "b": 899}, []delivery.TenantID{"b", "a"}},
		"equal, by name":  {map[delivery.TenantID]int{"b": 50, "a": 50}, []delivery.TenantID{"a", "b"}},
		"noisy among few": {map[delivery.TenantID]int{"a": 31, "b": 1}, []delivery.TenantID{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []delivery.TenantID
			for _, l := range noisy(c.in) {
				got = append(got, l.tenant)
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestFairnessMetrics(t *testing.T) {
	pl, clock := newPlan(8192)
	now := clock.Now()
	for i := range 9 {
		id := delivery.TenantID(fmt.Sprint("t", i))
		pl.add(hint{smsQueue(id, delivery.Bulk), someIDs(100 + i)})
	}
	pl.add(hint{smsQueue("t1", delivery.Urgent), someIDs(7)})
	for q, ids, _ := pl.next(now, bandUrgent, bandBulk); q != nil; q, ids, _ = pl.next(now, bandUrgent, bandBulk) {
		pl.finished(q)
		pl.claimed(q.id, len(ids), len(ids))
	}
	pl.overdue(smsQueue("t0", delivery.Bulk), now.Add(-90*time.Second), false)
	pl.overdue(smsQueue("t1", delivery.Bulk), now.Add(-80*time.Second), false)
	pl.overdue(smsQueue("t1", delivery.Normal), now.Add(time.Second), false)
	gatherer := pl.p.opt.Metrics.(*prometheus.Registry)
	families, err := gatherer.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			k := f.GetName()
			for _, l := range m.Label {
				k += " " + l.GetValue()
			}
			got[k] = m.GetGauge().GetValue()
		}
	}
	require.Equal(t, map[string]float64{
		"msgctl_in_flight urgent": 7, "msgctl_in_flight normal": 0, "msgctl_in_flight bulk": 936,
		"msgctl_queue_age_seconds urgent": 0, "msgctl_queue_age_seconds normal": 0, "msgctl_queue_age_seconds bulk": 90,
		"msgctl_noisy_tenants":             9,
		"msgctl_noisy_tenant_in_flight t8": 108, "msgctl_noisy_tenant_in_flight t1": 108,
		"msgctl_noisy_tenant_in_flight t7": 107, "msgctl_noisy_tenant_in_flight t6": 106,
		"msgctl_noisy_tenant_in_flight t5": 105,
	}, got)
	clock.Advance(seenFor + time.Second)
	require.Zero(t, pl.load(clock.Now()).waited[delivery.Bulk], "what the sweeper does not find any more has gone")
}
