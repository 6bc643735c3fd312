package pipeline

import (
	"context"
	"slices"
	"sync"

	"github.com/msgctl/msgctl/delivery"
)

// maxPending bounds the ids that wait to be published. What does not fit is replaced by a hint without ids. Bulk may take
// half of it and bulk with normal three quarters, so that there is room for what is urgent.
const maxPending = 1 << 16

// hints gathers the ids of freshly accepted messages and publishes them to the plan stage, a queue at a time, in hints
// of up to 256. It never makes accept wait: while one hint is being published, the next ones fill.
type hints struct {
	publish func(ctx context.Context, stage string, h hint) error
	wake    chan struct{}

	mu      sync.Mutex
	pending map[delivery.Queue][]delivery.MessageID
	turn    [bandCount][]delivery.Queue // of first arrival, by band; none is aged
	order   precedence
	n       laneCount
	busy    bool
}

func newHints(publish func(context.Context, string, hint) error) *hints {
	return &hints{
		publish: publish, wake: make(chan struct{}, 1), pending: map[delivery.Queue][]delivery.MessageID{},
		order: precedence{quantum: maxHint},
	}
}

// add hints at ids of one queue; without ids, at the queue as a whole.
func (h *hints) add(q delivery.Queue, ids ...delivery.MessageID) {
	h.mu.Lock()
	have, known := h.pending[q]
	if !known {
		b := bandOf(q.Lane, false)
		h.turn[b] = append(h.turn[b], q)
	}
	switch {
	case known && have == nil: // the whole queue is hinted at already
		ids = nil
	case len(ids) == 0 || len(ids) > h.n.room(q.Lane, maxPending):
		h.n.add(q.Lane, -len(have))
		have, ids = nil, nil
	}
	h.n.add(q.Lane, len(ids))
	h.pending[q] = append(have, ids...)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hints) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pending) == 0 && !h.busy
}

// take removes one hint. Within a band, queues take turns.
func (h *hints) take() (hint, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = len(h.pending) > 0
	if !h.busy {
		return hint{}, false
	}
	order := h.order.order()
	b := order[slices.IndexFunc(order[:], func(b band) bool { return len(h.turn[b]) > 0 })]
	q := h.turn[b][0]
	h.turn[b] = h.turn[b][1:]
	ids := h.pending[q]
	if len(ids) > maxHint {
		h.pending[q] = ids[maxHint:]
		h.turn[b] = append(h.turn[b], q)
		ids = ids[:maxHint:maxHint]
	} else {
		delete(h.pending, q)
	}
	h.n.add(q.Lane, -len(ids))
	h.order.spend(b, float64(max(len(ids), 1)))
	return hint{queue: q, ids: ids}, true
}

func (h *hints) run(ctx context.Context) {
	for {
		next, ok := h.take()
		if !ok {
			select {
			case <-h.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		// A hint that cannot be published is no loss: the sweeper finds its messages.
		_ = h.publish(ctx, "plan", next)
	}
}
