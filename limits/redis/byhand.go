package redis

import (
	"context"
	"sync"
	"time"

	"github.com/msgctl/msgctl/limits"
)

// ByHand keeps the same limits in the same Redis by the same arithmetic for nodes whose clock is turned by hand, as
// features and tests do: the time of a reservation is everybody's, Redis' too, and a reservation waits for the network.
// What it leases and does not spend it gives back before it returns, because no time passes in which it would. All
// nodes that share a Redis must be of this kind.
type ByHand struct {
	mu sync.Mutex
	l  *Limiter
}

var _ limits.Limiter = (*ByHand)(nil)

// OpenByHand connects to Redis, which must be there. Options.Now is the clock that is turned; Nodes, Members and
// MaxNodes do not count: without Redis nothing passes.
func OpenByHand(ctx context.Context, opt Options) (*ByHand, error) {
	opt.Nodes, opt.Members = func() int { return 1 }, nil
	p := defaultPace()
	p.ttl, p.timeout, p.ahead, p.giveBack, p.credit = 1000*24*time.Hour, 5*time.Second, 0, 0, 1e15
	l, err := prepare(opt, p)
	if err != nil {
		return nil, err
	}
	l.virtual, l.asking, l.base = true, true, time.Time{}
	ping, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := l.client.Ping(ping).Err(); err != nil {
		_ = l.client.Close()
		return nil, err
	}
	return &ByHand{l: l}, nil
}

// Reserve implements limits.Limiter.
func (h *ByHand) Reserve(
	ctx context.Context, now time.Time, bounds []limits.Bound, cost float64,
) (limits.Decision, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, err := h.l.Reserve(ctx, now, bounds, cost)
	if err != nil {
		return d, err
	}
	h.l.mu.Lock()
	for _, b := range h.l.active {
		b.have, b.need, b.window = 0, 0, 0
	}
	tell := h.l.link.session != 0 && len(h.l.active) > 0
	h.l.mu.Unlock()
	if tell {
		h.l.exchange(ctx, "call")
	}
	return d, nil
}

// Pause implements limits.Limiter. The other nodes hear of it with the next reservation of this one.
func (h *ByHand) Pause(ctx context.Context, key limits.Key, until time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.l.Pause(ctx, key, until)
}

// Close ends the connection. It is safe twice.
func (h *ByHand) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.l.Close()
}
