package pipeline

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// seenFor is how long the sweeper's word on a queue's oldest message counts. It looks every second.
const seenFor = 3 * time.Second

// waited is how long the oldest unclaimed message of the queue has been due.
func (st *queue) waited(now time.Time) time.Duration {
	if now.Sub(st.seenAt) > seenFor {
		return 0
	}
	return max(0, now.Sub(st.oldest))
}

// age moves a queue to the band that fits how long it has waited. Callers hold mu.
func (pl *planner) age(st *queue, now time.Time) {
	aged := st.waited(now) >= agedAfter
	if aged == st.aged {
		return
	}
	if st.listed {
		pl.bands[bandOf(st.id.Lane, st.aged)].remove(st.id.Tenant, st)
		pl.bands[bandOf(st.id.Lane, aged)].add(st.id.Tenant, st)
	}
	st.aged = aged
}

// aged reports whether a queue has waited for long.
func (pl *planner) aged(q delivery.Queue) bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	st := pl.queues[q]
	return st != nil && st.aged
}
