package pipeline

import (
	"sync"

	"github.com/msgctl/msgctl/store"
)

// claims are what this process has under lease, and whether the attempt of each has begun. A claim whose lease runs out
// before its attempt began is no doubt: it can go back to the queue as if it had never been taken. Who comes first, the
// worker that begins or the sweeper that takes back, is decided here.
type claims struct {
	mu   sync.Mutex
	open map[attemptKey]bool // true = begun
}

func (c *claims) add(claimed []store.Claimed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[attemptKey]bool{}
	}
	for i := range claimed {
		c.open[attemptKey{claimed[i].ID, claimed[i].Epoch}] = false
	}
}

// begin says that an attempt is to be made. It returns false when the claim has been taken back: then it must not.
func (c *claims) begin(k attemptKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, open := c.open[k]; !open {
		return false
	}
	c.open[k] = true
	return true
}

// takeBack returns true when no attempt of the claim has begun, and sees to it that none will.
func (c *claims) takeBack(k attemptKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[k] {
		return false
	}
	delete(c.open, k)
	return true
}

// end forgets a claim that is settled.
func (c *claims) end(k attemptKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, k)
}
