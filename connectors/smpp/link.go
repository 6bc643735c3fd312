package smpp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

// Waits between attempts to bind: half to all of a time that doubles from the first to the last.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 30 * time.Second
)

// link is the account's session, or why there is none. One goroutine keeps it up.
type link struct {
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sink   atomic.Pointer[connectors.Sink]
	kick   chan struct{} // try to bind now

	mu      sync.Mutex
	running bool
	up      *session
	failed  *delivery.Failure // the last attempt to bind; nil before the first and while a session is up
	refused bool              // the SMSC itself said no: waiting a moment will not help
	tries   int               // attempts that have ended
	changed chan struct{}     // closed and replaced when any of the above changes
}

func (l *link) init() {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.kick, l.changed = make(chan struct{}, 1), make(chan struct{})
}

func (l *link) started() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running
}

func (l *link) close() {
	l.mu.Lock()
	l.running = true // nothing starts any more
	l.cancel()
	l.mu.Unlock()
	l.wg.Wait()
}

// set records a session or the failure to get one, and wakes everyone who waits for news.
func (l *link) set(s *session, f *delivery.Failure, refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.failed, l.refused = s, f, refused
	if s != nil || f != nil {
		l.tries++
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// startLink starts the goroutine that keeps the session up, once.
func (c *Connector) startLink() {
	l := &c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running {
		l.running = true
		l.wg.Go(c.keepUp)
	}
}

// keepUp binds, again and again, until Close.
func (c *Connector) keepUp() {
	l := &c.link
	wait := firstWait
	for l.ctx.Err() == nil {
		s, err := c.connect(l.ctx)
		if err != nil {
			var f *delivery.Failure
			errors.As(err, &f)
			l.set(nil, f, f.Err == nil)
			if l.ctx.Err() == nil {
				c.log.Warn("smpp bind failed", "account", c.account.Name, "code", f.Code, "detail", f.Detail)
			}
		} else {
			c.log.Info("smpp session is up", "account", c.account.Name)
			l.set(s, nil, false)
			stop := context.AfterFunc(l.ctx, func() {
				l.set(nil, nil, false)
				s.unbind()
			})
			err := s.run(l.ctx, c)
			stop()
			l.set(nil, nil, false)
			if l.ctx.Err() == nil {
				c.log.Warn("smpp session ended", "account", c.account.Name, "err", err)
			}
			if s.proved.Load() {
				wait = firstWait
			}
		}
		if !l.pause(wait/2 + rand.N(wait/2)) {
			return
		}
		wait = min(2*wait, lastWait)
	}
}

// pause waits for d, for a kick, or for Close, which it reports as false.
func (l *link) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.ctx.Done():
		return false
	case <-l.kick:
	case <-t.C:
	}
	return true
}

// session returns the session, waiting a while for one. The error is a *delivery.Failure of class ConnectorDown, or says
// that ctx was canceled.
func (c *Connector) session(ctx context.Context) (*session, error) {
	l := &c.link
	var give *time.Timer
	for {
		l.mu.Lock()
		s, f, refused, changed := l.up, l.failed, l.refused, l.changed
		l.mu.Unlock()
		if l.ctx.Err() != nil {
			return nil, down("closed", "the connector is closing", nil)
		}
		if s != nil && !s.over() {
			return s, nil
		}
		if refused {
			return nil, f
		}
		if give == nil {
			give = time.NewTimer(bindWait)
			defer give.Stop()
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, canceled(ctx)
			}
		case <-l.ctx.Done():
			continue
		case <-give.C:
		}
		if f == nil {
			f = down("not_bound", "there is no session with the SMSC", ctx.Err())
		}
		return nil, f
	}
}

// nextSession is session for a caller who wants to know about now: without a session it has the next attempt made at
// once and returns what came of it.
func (c *Connector) nextSession(ctx context.Context) (*session, error) {
	l := &c.link
	l.mu.Lock()
	seen := l.tries
	l.mu.Unlock()
	for {
		l.mu.Lock()
		s, f, tries, changed := l.up, l.failed, l.tries, l.changed
		l.mu.Unlock()
		switch {
		case l.ctx.Err() != nil:
			return nil, down("closed", "the connector is closing", nil)
		case s != nil && !s.over():
			return s, nil
		case tries > seen && f != nil:
			return nil, f
		}
		select {
		case l.kick <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
		case <-ctx.Done():
			return nil, down("not_bound", "there is no session with the SMSC", ctx.Err())
		}
	}
}

// connect dials and binds, within the response timeout each. The error is a *delivery.Failure of class ConnectorDown;
// its Err is nil when the SMSC answered and refused.
func (c *Connector) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.answerWithin)
	defer cancel()
	conn, err := c.account.Dial(ctx, "tcp", c.cfg.addr)
	var blocked interface{ EgressBlocked() string }
	switch {
	case errors.As(err, &blocked):
		return nil, down("blocked_address", "the address may not be reached from here ("+blocked.EgressBlocked()+")", err)
	case err != nil:
		return nil, down("connect_failed", "cannot connect to the SMSC: "+cut(err), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if c.cfg.tls != nil {
		t := tls.Client(conn, c.cfg.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			stop()
			_ = conn.Close()
			return nil, down("tls_failed", "TLS with the SMSC failed: "+cut(err), err)
		}
		conn = t
	}
	r := smpp.NewReader(conn)
	err = c.bind(conn, r)
	if !stop() { // the connection was closed under the bind, whatever that looked like
		err = down("bind_timeout", "the SMSC did not answer the bind in time", ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return newSession(conn, r, &c.cfg, c.log.With("account", c.account.Name)), nil
}

// bind logs in (§4.1.5). PDUs that an SMSC sends before its answer, an outbind say, are passed over, up to 16.
func (c *Connector) bind(conn net.Conn, r *smpp.Reader) error {
	if _, err := conn.Write(c.cfg.bind.Append(nil, smpp.BindTransceiver, 1)); err != nil {
		return down("bind_failed", "the connection ended during the bind", err)
	}
	for range 16 {
		h, _, err := r.Next()
		if err != nil {
			return down("bind_failed", "the connection ended during the bind", err)
		}
		if h.Command != smpp.BindTransceiverResp && h.Command != smpp.GenericNack {
			continue
		}
		if h.Status != smpp.ROK || h.Command == smpp.GenericNack {
			return bindRefused(h.Status)
		}
		return nil
	}
	return down("bind_failed", "the SMSC did not answer the bind", fmt.Errorf("16 other PDUs"))
}

// cut returns the text of an error of the network, short enough to show. It names our side of the account only.
func cut(err error) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return ' '
		}
		return r
	}, err.Error())
	return strings.ToValidUTF8(s[:min(len(s), 150)], "")
}
