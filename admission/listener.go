package admission

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Listener bounds how many connections are open at once. When there are as many, the one that has been idle for
// longest makes room; when none is idle, the new one gets a fixed answer and is closed. It must serve one http.Server,
// through Attach.
type Listener struct {
	net.Listener
	most   int
	answer func() []byte

	mu      sync.Mutex
	open    int
	idle    list.List  // of *conn, longest idle first
	parting []net.Conn // those whose peers may still be reading the last answer, oldest first
	closed  bool
}

// partings is how many connections that are done are kept so that their peers can read the last answer: closed at once
// with something unread, TCP would reset them.
const partings = 64

// Listen bounds ln to most connections. answer makes the whole HTTP answer for one too many; it must be short.
func Listen(ln net.Listener, most int, answer func() []byte) *Listener {
	return &Listener{Listener: ln, most: most, answer: answer}
}

// Attach makes srv tell which of its connections are idle, and lets its handlers call Rest.
func (l *Listener) Attach(srv *http.Server) {
	srv.ConnState = func(nc net.Conn, s http.ConnState) {
		if c, ok := nc.(*conn); ok {
			c.setIdle(s == http.StateNew || s == http.StateIdle)
		}
	}
	// A handler has no other way to reach its connection than the context.
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, nc)
	}
}

type connKey struct{}

// Rest keeps the connection that a request came over from being read for a while. It does nothing for a request that
// came otherwise.
func Rest(ctx context.Context, d time.Duration) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok && d > 0 {
		c.until.Store(time.Now().Add(d).UnixNano()) // sockets go by the real clock
	}
}

// Linger lets the peer of the connection that a request came over read the answer to the end when the server closes
// the connection without having read the whole request.
func Linger(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*conn); ok {
		c.lingers.Store(true)
	}
}

// Accept returns the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, from: l, gone: make(chan struct{}), poke: make(chan struct{}, 1)}
		if l.enter() {
			return c, nil
		}
		l.part(nc)
	}
}

// enter counts a connection, after closing an idle one when there are too many.
func (l *Listener) enter() bool {
	l.mu.Lock()
	if l.open < l.most {
		l.open++
		l.mu.Unlock()
		return true
	}
	var oldest *conn
	if e := l.idle.Front(); e != nil {
		oldest = e.Value.(*conn)
		l.idle.Remove(e)
		oldest.place = nil
		l.open++ // its place; closing it gives its own back
	}
	l.mu.Unlock()
	if oldest == nil {
		return false
	}
	_ = oldest.Close()
	return true
}

// part refuses a connection. Writing to a fresh one does not block: the answer is shorter than any socket's buffer.
func (l *Listener) part(nc net.Conn) {
	_ = nc.SetDeadline(time.Now().Add(time.Second))
	_, _ = nc.Write(l.answer())
	_ = l.linger(nc)
}

// linger ends the sending side of a connection, and closes it when enough others have come after it.
func (l *Listener) linger(nc net.Conn) error {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	l.mu.Lock()
	l.parting = append(l.parting, nc)
	var done net.Conn
	switch {
	case l.closed:
		done, l.parting = nc, nil
	case len(l.parting) > partings:
		done, l.parting = l.parting[0], l.parting[1:]
	}
	l.mu.Unlock()
	if done != nil {
		return done.Close()
	}
	return nil
}

// Close ends the listener and the connections that it has refused.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	rest := l.parting
	l.parting, l.closed = nil, true
	l.mu.Unlock()
	for _, nc := range rest {
		_ = nc.Close()
	}
	return err
}

// Open returns how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// conn is a connection that can rest.
type conn struct {
	net.Conn
	from  *Listener
	place *list.Element // in from.idle, under its lock; nil = not idle
	until atomic.Int64  // Unix time in ns before which nothing is read; 0 = it does not rest
	limit atomic.Int64  // the read deadline, as until
	poke  chan struct{} // tells a resting Read that limit has changed
	once  sync.Once
	gone  chan struct{} // closed by Close

	lingers atomic.Bool
}

func (c *conn) setIdle(idle bool) {
	l := c.from
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case idle && c.place == nil && !c.isGone():
		c.place = l.idle.PushBack(c)
	case !idle && c.place != nil:
		l.idle.Remove(c.place)
		c.place = nil
	}
}

func (c *conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// Read waits until the rest is over.
func (c *conn) Read(b []byte) (int, error) {
	for until := c.until.Load(); until != 0; until = c.until.Load() {
		now := time.Now().UnixNano()
		if until <= now {
			c.until.CompareAndSwap(until, 0)
			continue
		}
		if limit := c.limit.Load(); limit != 0 {
			if limit <= now {
				return 0, os.ErrDeadlineExceeded
			}
			until = min(until, limit)
		}
		if err := c.sleep(time.Duration(until - now)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

// sleep returns after d, or when the deadline has changed.
func (c *conn) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.poke:
	case <-c.gone:
		return net.ErrClosed
	}
	return nil
}

// SetReadDeadline also ends a rest: net/http stops a read that is under way by a deadline in the past, and waits for
// it.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.setLimit(t)
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	c.setLimit(t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) setLimit(t time.Time) {
	limit := int64(0)
	if !t.IsZero() {
		limit = max(t.UnixNano(), 1) // net/http's past is 1970
	}
	c.limit.Store(limit)
	if c.until.Load() != 0 {
		select {
		case c.poke <- struct{}{}:
		default:
		}
	}
}

// Close gives the connection's place back.
func (c *conn) Close() error {
	first := false
	l := c.from
	c.once.Do(func() {
		first = true
		l.mu.Lock()
		close(c.gone)
		l.open--
		if c.place != nil {
			l.idle.Remove(c.place)
			c.place = nil
		}
		l.mu.Unlock()
	})
	if first && c.lingers.Load() {
		return l.linger(c.Conn)
	}
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer before it closes.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
