package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	wm "github.com/ThreeDotsLabs/watermill/message"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// calls is the store as a process sees it: each call waits for its turn, may fail, and is watched. What a pipeline asks
// while it holds a lock does not wait: tenants, templates, campaigns.
type calls struct {
	*sqlite.Store
	p *process
}

// direct marks a context whose calls do not wait: the driver's own.
type direct struct{}

var errSimulated = errors.New("simulated")

// turn makes a call wait for its turn and does what the driver decides.
func turn[T any](ctx context.Context, c *calls, what string, f func() (T, error)) (out T, err error) {
	if ctx.Value(direct{}) != nil {
		return f()
	}
	g := c.p.w.gate
	v := g.wait(c.p, what)
	switch v {
	case refuse, dead:
		return out, fmt.Errorf("%w: %w", store.ErrUnavailable, errSimulated)
	case loseBefore:
		return out, fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, errSimulated)
	}
	out, err = f()
	if v == hold && g.wait(c.p, what+" answer") == dead {
		return *new(T), fmt.Errorf("%w: %w", store.ErrUnavailable, errSimulated)
	}
	if v == loseAfter {
		return *new(T), fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, errSimulated)
	}
	return out, err
}

func (c *calls) Accept(ctx context.Context, t delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	return turn(ctx, c, "accept "+a.Key.Key, func() (store.Accepted, error) {
		done, err := c.Store.Accept(ctx, t, a)
		if err == nil {
			c.p.w.stored(a)
		}
		return done, err
	})
}

func (c *calls) Claim(ctx context.Context, s store.System, q store.Claim) ([]store.Claimed, error) {
	return turn(ctx, c, "claim "+c.p.w.names(q.IDs), func() ([]store.Claimed, error) {
		got, err := c.Store.Claim(ctx, s, q)
		if err == nil {
			c.p.w.claimed(c.p, q, got)
		}
		return got, err
	})
}

func (c *calls) Settle(ctx context.Context, s store.System, now time.Time, o []store.Outcome) ([]store.Settled, error) {
	// Some batches come in the order of a map. They are settled in the order of ids, so that a seed stays the same.
	order := make([]int, len(o))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(o[a].ID[:], o[b].ID[:]) })
	sorted, names := make([]store.Outcome, len(o)), make([]string, len(o))
	for i, n := range order {
		sorted[i] = o[n]
		names[i] = fmt.Sprintf("%s/%d %s", c.p.w.name(o[n].ID), o[n].Epoch, o[n].Status)
	}
	return turn(ctx, c, "settle "+strings.Join(names, ","), func() ([]store.Settled, error) {
		if c.p.w.opt.plant == plantLostOutcome && len(o) == 1 && o[0].Status == delivery.StatusDeferred {
			return []store.Settled{{Applied: true, Status: o[0].Status}}, nil
		}
		got, err := c.Store.Settle(ctx, s, now, sorted)
		if err != nil {
			return nil, err
		}
		c.p.w.settled(now, sorted, got)
		out := make([]store.Settled, len(got))
		for i, n := range order {
			out[n] = got[i]
		}
		return out, nil
	})
}

func (c *calls) Report(
	ctx context.Context, s store.System, now time.Time, keep time.Duration, r []delivery.Receipt,
) ([]store.Reported, error) {
	names := make([]string, len(r))
	for i := range r {
		names[i] = fmt.Sprintf("%s %s", r[i].ProviderID, r[i].Status)
	}
	return turn(ctx, c, "report "+strings.Join(names, ","), func() ([]store.Reported, error) {
		got, err := c.Store.Report(ctx, s, now, keep, r)
		if err == nil {
			c.p.w.reported(r, got)
		}
		return got, err
	})
}

func (c *calls) DueQueues(ctx context.Context, s store.System, now time.Time) ([]store.DueQueue, error) {
	return turn(ctx, c, "due queues", func() ([]store.DueQueue, error) {
		q, err := c.Store.DueQueues(ctx, s, now)
		if c.p.w.opt.plant == plantNoSweep {
			q = nil
		}
		return q, err
	})
}

func (c *calls) Due(
	ctx context.Context, s store.System, q delivery.Queue, now time.Time, after store.DueMark, limit int,
) ([]delivery.MessageID, store.DueMark, error) {
	type result struct {
		ids  []delivery.MessageID
		mark store.DueMark
	}
	r, err := turn(ctx, c, "due "+q.String(), func() (result, error) {
		ids, mark, err := c.Store.Due(ctx, s, q, now, after, limit)
		return result{ids, mark}, err
	})
	return r.ids, r.mark, err
}

func (c *calls) Overdue(ctx context.Context, s store.System, now time.Time, node string, limit int) ([]store.Overdue, error) {
	return turn(ctx, c, "overdue "+node, func() ([]store.Overdue, error) {
		got, err := c.Store.Overdue(ctx, s, now, node, limit)
		if c.p.w.opt.plant == plantForgetDoubt {
			got = slices.DeleteFunc(got, func(o store.Overdue) bool { return o.Status == delivery.StatusAmbiguous })
		}
		return got, err
	})
}

func (c *calls) NextDue(ctx context.Context, s store.System, now time.Time) (time.Time, error) {
	return turn(ctx, c, "next due", func() (time.Time, error) { return c.Store.NextDue(ctx, s, now) })
}

func (c *calls) Seen(ctx context.Context, s store.System, now time.Time) (time.Time, error) {
	return turn(ctx, c, "seen", func() (time.Time, error) { return c.Store.Seen(ctx, s, now) })
}

func (c *calls) DropParked(ctx context.Context, s store.System, now time.Time) (int, error) {
	return turn(ctx, c, "drop parked", func() (int, error) { return c.Store.DropParked(ctx, s, now) })
}

func (c *calls) Wake(ctx context.Context, s store.System, now time.Time, h store.Held) (int, error) {
	return turn(ctx, c, fmt.Sprintf("wake %s %s", h.Reason, h.Account), func() (int, error) {
		return c.Store.Wake(ctx, s, now, h)
	})
}

func (c *calls) Suppress(ctx context.Context, t delivery.TenantID, s []store.Suppression) error {
	_, err := turn(ctx, c, fmt.Sprintf("suppress %s %s", t, s[0].To), func() (bool, error) {
		c.p.w.anyStop.Store(true)
		return true, c.Store.Suppress(ctx, t, s)
	})
	return err
}

func (c *calls) Unsuppress(ctx context.Context, t delivery.TenantID, ch delivery.Channel, to string) error {
	_, err := turn(ctx, c, fmt.Sprintf("unsuppress %s %s", t, to), func() (bool, error) {
		return true, c.Store.Unsuppress(ctx, t, ch, to)
	})
	return err
}

func (c *calls) Cancel(
	ctx context.Context, t delivery.TenantID, id delivery.MessageID, now time.Time,
) (delivery.Status, error) {
	return turn(ctx, c, "cancel "+c.p.w.name(id), func() (delivery.Status, error) {
		if c.p.w.opt.plant == plantLyingCancel {
			return delivery.StatusCanceled, nil
		}
		return c.Store.Cancel(ctx, t, id, now)
	})
}

// name is a message's, for the log.
func (w *world) name(id delivery.MessageID) string {
	if m := w.byID[id]; m != nil {
		return m.String()
	}
	return id.String()
}

func (w *world) names(ids []delivery.MessageID) string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = w.name(id)
	}
	return strings.Join(out, ",")
}

// hints is the broker as a process sees it: hints wait for their turn, get lost, come twice or are refused.
type hints struct {
	wm.Publisher
	p *process
}

func (h hints) Publish(topic string, messages ...*wm.Message) error {
	m := messages[0]
	ids := make([]delivery.MessageID, len(m.Payload)/16)
	for i := range ids {
		copy(ids[i][:], m.Payload[16*i:])
	}
	// One after the other on each topic, as the broker has it, but by a channel: whoever waits for a mutex is not idle for
	// synctest, and time would stand still.
	lane, _ := h.p.topics.LoadOrStore(topic, make(chan struct{}, 1))
	lane.(chan struct{}) <- struct{}{}
	defer func() { <-lane.(chan struct{}) }()
	switch h.p.w.gate.wait(h.p, "hint "+topic+" "+h.p.w.names(ids)) {
	case refuse, dead:
		return errSimulated
	case loseBefore:
		return nil
	case loseAfter:
		twin := m.Copy()
		twin.SetContext(m.Context())
		return cmp.Or(h.Publisher.Publish(topic, m), h.Publisher.Publish(topic, twin))
	}
	return h.Publisher.Publish(topic, m)
}

// generous is a planted mistake: a limiter that lets everything through.
type generous struct{}

func (generous) Reserve(context.Context, time.Time, []limits.Bound, float64) (limits.Decision, error) {
	return limits.Decision{Go: true}, nil
}

func (generous) Pause(context.Context, limits.Key, time.Time) error { return nil }
