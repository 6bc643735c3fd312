package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// heartbeat is how often each side says that it is alive; the library takes a peer for dead after one and a half.
const heartbeat = 10 * time.Second

// link keeps one connection to RabbitMQ open for as long as it runs. The library can recover connections by itself; we
// do not let it, because a Publish has to know at once that there is none, and because an outage has to be one state
// and not a hidden loop.
type link struct {
	cfg     *config
	use     string // "publish" or "consume"
	status  *status
	prepare func(*session) error // readies a fresh connection for its use, within the deadline of dialling; may be nil

	mu      sync.Mutex
	cur     *session      // nil = not connected
	cause   error         // why not
	changed chan struct{} // closed when cur changes

	stop context.CancelFunc
	done chan struct{}
}

// session is one connection. It ends once, with a cause.
type session struct {
	conn *amqp.Connection
	raw  net.Conn
	log  *slog.Logger
	out  *outlet // of a publisher

	declaring chan struct{} // config.declaring
	classic   bool          // config.classic

	useful atomic.Bool   // it did what it is for
	over   chan struct{} // closed when it has ended
	once   sync.Once
	cause  error // readable after over
}

func newLink(cfg *config, use string, st *status, prepare func(*session) error) *link {
	return &link{
		cfg: cfg, use: use, status: st, prepare: prepare, cause: errors.New("connecting"), changed: make(chan struct{}),
		done: make(chan struct{}),
	}
}

// start connects and stays connected until close. first gets the outcome of the first attempt.
func (l *link) start() (first <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	result := make(chan error, 1)
	go l.run(ctx, result)
	return result
}

func (l *link) run(ctx context.Context, first chan<- error) {
	defer close(l.done)
	fails := 0
	for attempt := 1; ; attempt++ {
		s, err := l.dial(ctx)
		if attempt == 1 && errors.Is(err, amqp.ErrCredentials) {
			// The server says no to a login by closing the connection, which can have other reasons: ask again.
			s, err = l.dial(ctx)
		}
		if ctx.Err() == nil {
			l.set(s, err)
		}
		if attempt == 1 {
			first <- err
		}
		if s != nil {
			steady := time.AfterFunc(time.Minute, func() { s.useful.Store(true) })
			select {
			case <-s.over:
			case <-ctx.Done():
			}
			steady.Stop()
			s.leave(l.cfg.closeWait)
			if ctx.Err() != nil {
				return
			}
			l.set(nil, s.cause)
			if s.useful.Load() {
				fails = 0
			}
		}
		if !pause(ctx, l.cfg.delay(fails)) {
			return
		}
		fails++
	}
}

// close says farewell and waits for the end.
func (l *link) close() {
	l.stop()
	<-l.done
}

func (l *link) set(s *session, cause error) {
	l.mu.Lock()
	l.cur, l.cause = s, cause
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	l.status.trouble(l.use, cause)
}

// session returns the connection of now, or why there is none.
func (l *link) session() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == nil {
		return nil, fmt.Errorf("%w: %w", ErrDisconnected, l.cause)
	}
	return l.cur, nil
}

// await waits for a connection; nil when ctx ends before.
func (l *link) await(ctx context.Context) *session {
	for {
		l.mu.Lock()
		s, changed := l.cur, l.changed
		l.mu.Unlock()
		if s != nil {
			select {
			case <-s.over: // run has not seen it yet
			default:
				return s
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// dial makes a connection that is ready for its use.
func (l *link) dial(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.dialWait)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", l.cfg.addr)
	if err != nil {
		return nil, err
	}
	// Whatever hangs from here on ends with the deadline.
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	s, err := l.greet(ctx, raw)
	if err == nil && ctx.Err() == nil {
		return s, nil
	}
	raw.Close()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("%s does not answer within %v", l.cfg.addr, l.cfg.dialWait)
	}
	if err == nil {
		err = ctx.Err()
	}
	return nil, err
}

func (l *link) greet(ctx context.Context, raw net.Conn) (*session, error) {
	var conn net.Conn = patient{raw, l.cfg.confirmWait}
	if l.cfg.tls != nil {
		secured := tls.Client(conn, l.cfg.tls.Clone())
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, distrust(err)
		}
		conn = secured
	}
	name := "msgctl " + l.use
	if l.cfg.node != "" {
		name = "msgctl " + l.cfg.node + " " + l.use
	}
	ac, err := amqp.Open(conn, amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: l.cfg.user, Password: l.cfg.password}},
		Vhost: l.cfg.vhost, Heartbeat: heartbeat, FrameSize: 128 << 10, Locale: "en_US",
		Properties: amqp.Table{"product": "msgctl", "connection_name": name},
	})
	if err != nil {
		return nil, err
	}
	s := &session{conn: ac, raw: raw, log: l.status.log, over: make(chan struct{}), declaring: l.cfg.declaring,
		classic: l.cfg.classic}
	closed := ac.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		if err := <-closed; err != nil { // a closed channel gives nil
			s.end(err)
		}
		s.end(errors.New("the connection has been closed"))
	}()
	if l.prepare != nil {
		if err := l.prepare(s); err != nil {
			s.end(err)
			return nil, s.because(err)
		}
	}
	return s, nil
}

// end ends the connection at once. The first cause is kept.
func (s *session) end(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.over)
		s.raw.Close()
	})
}

// leave says farewell if the connection still stands.
func (s *session) leave(wait time.Duration) {
	stop := s.within(wait)
	_ = s.conn.Close() // an error says that it was closed already
	stop()
	s.end(ErrClosed)
}

// within ends the connection if stop is not called in time: no request to the server waits for longer.
func (s *session) within(d time.Duration) (stop func()) {
	t := time.AfterFunc(d, func() { s.end(fmt.Errorf("no answer within %v", d)) })
	return func() { t.Stop() }
}

// because prefers the cause of a connection's end to what the end looks like from inside.
func (s *session) because(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.over:
		return fmt.Errorf("%w: %w", ErrDisconnected, s.cause)
	default:
		return err
	}
}

// patient bounds every write: a server that stops reading must not hold whoever writes for ever.
type patient struct {
	net.Conn
	wait time.Duration
}

func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(p.wait)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// errTLS marks that the two sides cannot agree, or that one does not trust the other.
var errTLS = errors.New("TLS refused")

// distrust marks what a handshake ended with, unless it was only the network.
func distrust(err error) error {
	var op *net.OpError // the library makes one of an alert, too
	network := errors.As(err, &op) && op.Op != "remote error" && op.Op != "local error"
	if network || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", errTLS, err)
}

// hopeless reports whether a human has to change something before a connection can come about.
func hopeless(err error) bool {
	var e *amqp.Error
	if errors.As(err, &e) {
		return e.Code == amqp.AccessRefused || e.Code == amqp.NotAllowed
	}
	return errors.Is(err, errTLS)
}

// delay is how long to wait after n failures: between half and all of a time that doubles, so that the nodes of a
// cluster do not come back all at once.
func (c *config) delay(n int) time.Duration {
	d := c.backoffMax
	if n < 20 && c.backoff<<n < d {
		d = c.backoff << n
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits; false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
