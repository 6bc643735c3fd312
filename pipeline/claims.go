package pipeline

import (
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// claims are what this process has under lease, and whether the attempt of each has begun. A claim whose lease runs out
// before its attempt began is no doubt: it can go back to the queue as if it had never been taken. Who comes first, the
// worker that begins or the sweeper that takes back, is decided here.
//
// Times are readings of the monotonic clock: a wall clock that is set must neither lengthen a lease nor make a doubt of
// an attempt that is well under way.
type claims struct {
	mu   sync.Mutex
	open map[attemptKey]claim
	runs int // of open: begun
}

type claim struct {
	end     time.Duration      // of the lease
	account delivery.AccountID // of the attempt, once it has begun
	begun   bool
	told    bool // its outcome is on the way to the store
}

func (c *claims) add(claimed []store.Claimed, end time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[attemptKey]claim{}
	}
	for i := range claimed {
		c.open[attemptKey{claimed[i].ID, claimed[i].Epoch}] = claim{end: end}
	}
}

// begin says that an attempt by an account is to be made, which may last until a time. It returns false when the claim
// has been taken back or its lease ends before that: then it must not.
func (c *claims) begin(k attemptKey, by delivery.AccountID, until time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, open := c.open[k]
	if !open || until > m.end {
		return false
	}
	if !m.begun {
		c.runs++
	}
	m.account, m.begun = by, true
	c.open[k] = m
	return true
}

// covers reports whether the lease of a claim reaches until a time.
func (c *claims) covers(k attemptKey, until time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, open := c.open[k]
	return open && until <= m.end
}

// takeBack returns true when no attempt of the claim has begun, and sees to it that none will.
func (c *claims) takeBack(k attemptKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[k].begun {
		return false
	}
	delete(c.open, k)
	return true
}

// attempt returns the claim of an attempt that has begun.
func (c *claims) attempt(k attemptKey) (claim, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.open[k]
	return m, m.begun
}

// tell says that the outcome of a claim is on the way to the store, or that it cannot be written. Until it is, the end of
// the lease says nothing: what became of the claim is known.
func (c *claims) tell(k attemptKey, told bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m, open := c.open[k]; open {
		m.told = told
		c.open[k] = m
	}
}

// isTold reports whether the outcome of a claim is on the way to the store.
func (c *claims) isTold(k attemptKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[k].told
}

// running counts the attempts that have begun.
func (c *claims) running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs
}

// over reports whether the lease of any claim has ended.
func (c *claims) over(now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.open {
		if m.ended(now) {
			return true
		}
	}
	return false
}

// isOver reports whether the lease of a claim has ended.
func (c *claims) isOver(k attemptKey, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, open := c.open[k]
	return open && m.ended(now)
}

// ended reports whether the claim's lease has ended. The store keeps that time to the millisecond.
func (m claim) ended(now time.Duration) bool { return now >= m.end-time.Millisecond }

// end forgets a claim that is settled.
func (c *claims) end(k attemptKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[k].begun {
		c.runs--
	}
	delete(c.open, k)
}
