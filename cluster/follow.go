package cluster

import (
	"context"
	"slices"
	"time"

	"github.com/msgctl/msgctl/store"
)

const (
	// lookEvery is how often a member looks for what others have changed when nobody tells it to.
	lookEvery = 250 * time.Millisecond
	// leastPause is between two looks, however often it is told to.
	leastPause = 10 * time.Millisecond
	// page is how many changes are read at once.
	page = 500
	// lookTimeout bounds one reading.
	lookTimeout = 2 * time.Second
	// settleWait is how long Settle waits for the others.
	settleWait = 2 * time.Second
	// settleEvery is how often it looks whether they have followed.
	settleEvery = 50 * time.Millisecond
)

// Look makes the member look for changes now: there is news of some.
func (m *Member) Look() { signal(m.poke) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// follow applies changes until ctx ends.
func (m *Member) follow(ctx context.Context) {
	broken := false
	for ctx.Err() == nil {
		err := m.catchUp(ctx)
		if ctx.Err() != nil {
			return
		}
		if failed := err != nil; failed != broken {
			broken = failed
			if failed {
				m.log.Warn("changes of other nodes cannot be followed", "err", err)
			}
		}
		if m.sleep(ctx, leastPause) != nil {
			return
		}
		t := m.clock.NewTimer(lookEvery - leastPause)
		select {
		case <-t.Chan():
		case <-m.poke:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// catchUp applies all changes there are.
func (m *Member) catchUp(ctx context.Context) error {
	for {
		m.mu.Lock()
		after := m.applied
		m.mu.Unlock()
		began := m.elapsed()
		read, cancel := context.WithTimeout(ctx, lookTimeout)
		c, err := m.opt.Nodes.Changes(read, system, after, page)
		cancel()
		if err != nil {
			return err
		}
		if len(c.List) > 0 || c.Gap {
			if err := m.opt.Apply(ctx, c); err != nil {
				return err
			}
			m.metrics.changes.Add(float64(len(c.List)))
		}
		m.mu.Lock()
		m.applied = c.Upto // below after, when the store was put back to an earlier state
		m.mu.Unlock()
		if c.Upto > after {
			signal(m.kick) // somebody may wait for it
		}
		if len(c.List) < page {
			m.mu.Lock()
			m.seen = began
			m.mu.Unlock()
			return nil
		}
	}
}

// Settle returns once every other living node goes by all changes that were in the store when it was called, or has died.
// It waits for a bounded time, and then names the nodes that have not confirmed: a change takes effect there as soon as
// they can read the store. Whoever answers for a change calls it before.
func (m *Member) Settle(ctx context.Context) (unconfirmed []string) {
	began := m.elapsed()
	defer func() { m.metrics.settles.Observe((m.elapsed() - began).Seconds()) }()
	// It takes effect whether or not the caller still waits, so the wait is worth its time only to the caller.
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	target := int64(-1)
	for {
		r, err := m.shared.get(ctx)
		if err == nil {
			if target < 0 {
				target = r.Changed
			}
			if unconfirmed = m.behind(r, target); len(unconfirmed) == 0 {
				return nil
			}
		}
		if m.elapsed()-began >= settleWait || m.sleep(ctx, settleEvery) != nil {
			m.metrics.unconfirmed.Inc()
			m.log.Warn("a change takes effect later on some nodes", "nodes", unconfirmed, "err", err)
			if len(unconfirmed) == 0 {
				unconfirmed = []string{"?"} // it is not known who there is
			}
			return unconfirmed
		}
	}
}

// behind lists the other living nodes that do not go by the changes up to a sequence.
func (m *Member) behind(r store.Roster, target int64) []string {
	var names []string
	for _, n := range r.Nodes {
		if n.Alive && n.Run != m.run && n.Applied < target {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names
}
