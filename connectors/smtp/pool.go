package smtp

import (
	"sync"
	"time"
)

// pool keeps connections between messages, the last used on top, so that the rest can time out when traffic falls.
type pool struct {
	limit int
	idle  time.Duration
	now   func() time.Time

	mu     sync.Mutex
	conns  []*conn
	closed bool
}

// take returns an idle connection, or nil. One that has waited too long by the account's clock is ended instead: the
// relay has most likely closed its side.
func (p *pool) take() *conn {
	p.mu.Lock()
	var old []*conn
	var found *conn
	now := p.now()
	for found == nil && len(p.conns) > 0 {
		n := len(p.conns) - 1
		found, p.conns = p.conns[n], p.conns[:n]
		found.expiry.Stop()
		if now.Sub(found.since) > p.idle {
			old, found = append(old, found), nil
		}
	}
	p.mu.Unlock()
	for _, c := range old {
		c.quit()
	}
	return found
}

// put keeps a connection for the next message; false when there is no place for it.
func (p *pool) put(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= p.limit {
		return false
	}
	c.since = p.now()
	if c.expiry == nil {
		c.expiry = time.AfterFunc(p.idle, func() { p.expire(c) })
	} else {
		c.expiry.Reset(p.idle)
	}
	p.conns = append(p.conns, c)
	return true
}

// expire ends a connection that nobody took. Sockets live in machine time, whatever the account's clock says.
func (p *pool) expire(c *conn) {
	p.mu.Lock()
	found := false
	for i := range p.conns {
		if p.conns[i] == c {
			p.conns = append(p.conns[:i], p.conns[i+1:]...)
			found = true
			break
		}
	}
	p.mu.Unlock()
	if found {
		c.quit()
	}
}

// close ends the idle connections and keeps no more.
func (p *pool) close() {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = nil, true
	for _, c := range conns {
		c.expiry.Stop()
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.quit()
	}
}
