package smpp

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// bindWait is how long Send waits for a session before it gives up: long enough for a reconnect, short enough that a
// dead SMSC does not hold workers.
const bindWait = 2 * time.Second

// errNotSent is what a session returns when not an octet of the PDU can have reached the SMSC.
var errNotSent = errors.New("the session ended before the message was written")

// Connector is one account.
type Connector struct {
	account *connectors.Account
	cfg     config
	log     *slog.Logger
	ids     *ids
	waiters sync.Pool // *waiter
	buffers sync.Pool // *[]byte
	link    link
	inbound joiner // only the receiving goroutine of the one session uses it
}

var (
	_ connectors.Connector = (*Connector)(nil)
	_ connectors.Streamer  = (*Connector)(nil)
	_ connectors.Checker   = (*Connector)(nil)
	_ connectors.Readier   = (*Connector)(nil)
)

func newConnector(a *connectors.Account, cfg config, log *slog.Logger) *Connector {
	c := &Connector{account: a, cfg: cfg, log: log, ids: newIDs(cfg.receiptIDs)}
	c.waiters.New = func() any { return &waiter{answer: make(chan answer, 1)} }
	c.buffers.New = func() any { return new([]byte) }
	c.link.init()
	return c
}

// Send hands m to the SMSC, in as many parts as its text needs, one after the other: a refused part costs no further
// ones. While there is no session it waits up to 2 s for one.
func (c *Connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	o, err := c.cfg.submit.prepare(m, c.account.Now())
	if err != nil {
		return delivery.Sent{}, err
	}
	if ctx.Err() != nil {
		return delivery.Sent{}, canceled(ctx)
	}
	c.startLink()
	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	var id string
	for i := range o.parts {
		*buf = o.part((*buf)[:0], i)
		if id, err = c.submit(ctx, *buf); err != nil {
			if i > 0 {
				err = partly(err)
			}
			return delivery.Sent{}, err
		}
	}
	if id == "" {
		// Taken all the same; without an id no receipt will find it.
		return delivery.Sent{Detail: "the SMSC gave no message id"}, nil
	}
	return delivery.Sent{ProviderID: c.ids.answered(id)}, nil
}

// submit carries one submit_sm over a session. A session that ends before the PDU was written has sent nothing, so the
// next one gets it; three such in a row are enough.
func (c *Connector) submit(ctx context.Context, pdu []byte) (id string, err error) {
	for range 3 {
		s, err := c.session(ctx)
		if err != nil {
			return "", err
		}
		w := c.waiters.Get().(*waiter)
		id, err := s.submit(ctx, pdu, w)
		c.waiters.Put(w)
		if !errors.Is(err, errNotSent) {
			return id, err
		}
	}
	return "", down("connection_lost", "the session with the SMSC keeps ending", errNotSent)
}

// Stream keeps the session up until ctx ends or Close, and hands what the SMSC delivers to sink. Afterwards the
// connector sends nothing any more.
func (c *Connector) Stream(ctx context.Context, sink connectors.Sink) error {
	c.link.sink.Store(&sink)
	c.startLink()
	select {
	case <-ctx.Done():
	case <-c.link.ctx.Done():
	}
	return c.Close()
}

// Ready reports whether there is a session with room in its window.
func (c *Connector) Ready() bool {
	c.link.mu.Lock()
	s := c.link.up
	c.link.mu.Unlock()
	return s != nil && !s.over() && len(s.window) < cap(s.window)
}

// Close unbinds, ends every goroutine and waits for them. Sends that wait for an answer get 2 s for it. Safe twice.
func (c *Connector) Close() error {
	c.link.close()
	return nil
}

// Check proves that a message could be sent: the SMSC answers an enquire_link on the session there is, or a new session
// binds. An account that no Stream and no Send has started gets a session for the test only.
func (c *Connector) Check(ctx context.Context) error {
	if !c.link.started() {
		s, err := c.connect(ctx)
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.run(context.WithoutCancel(ctx), nil) // the check is over: how the session ends says nothing more
		}()
		s.unbind()
		<-ended
		return nil
	}
	s, err := c.nextSession(ctx)
	if err != nil {
		return err
	}
	w := c.waiters.Get().(*waiter)
	defer c.waiters.Put(w)
	return s.ask(ctx, w)
}
