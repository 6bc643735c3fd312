// Package smtp is the connector to a mail relay by SMTP, with pipelining and pooled connections.
//
// It speaks RFC 5321 with PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), STARTTLS
// (RFC 3207), AUTH (RFC 4954) and enhanced status codes (RFC 3463), and writes the messages itself: MIME (RFC 2045,
// 2047), one-click unsubscribe (RFC 8058) and DKIM (RFC 6376). A relay's "250" behind the final dot is the hand-off;
// plain SMTP reports nothing after it.
package smtp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// Kind returns the connector kind "smtp".
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:        "smtp",
		Channel:     delivery.Email,
		Doc:         "E-mail through an SMTP relay.",
		Settings:    settings(),
		Ambiguity:   connectors.None,
		Concurrency: defaultConcurrency,
		SendTimeout: defaultTimeout,
		Open:        open,
	}
}

// connector is one account. Its connections wait in pool between messages.
type connector struct {
	account *connectors.Account
	cfg     *config
	pool    pool
	// distrust is when, in Unix milliseconds, the relay may be trusted again to keep pipelined replies in step.
	distrust atomic.Int64
}

var (
	_ connectors.Connector = (*connector)(nil)
	_ connectors.Checker   = (*connector)(nil)
)

func open(a *connectors.Account) (connectors.Connector, error) {
	cfg, err := readConfig(a.Settings)
	if err != nil {
		return nil, err
	}
	c := &connector{account: a, cfg: cfg}
	c.pool = pool{limit: cfg.concurrency, idle: cfg.idleTimeout, now: a.Now}
	return c, nil
}

// Send hands over one message. A pooled connection that the relay had closed before it answered anything is replaced
// by a fresh one, once: nothing was offered on it, so that is no second attempt.
func (c *connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	e, err := c.prepare(m)
	if err != nil {
		return delivery.Sent{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.timeout, errTimeout)
	defer cancel()
	for fresh := false; ; fresh = true {
		if ctx.Err() != nil {
			return delivery.Sent{}, c.failure(context.Cause(ctx), m)
		}
		cn, err := c.connect(ctx, fresh)
		if err != nil {
			return delivery.Sent{}, c.failure(err, m)
		}
		reused := cn.messages > 0
		r, err := c.deliver(ctx, cn, e, m)
		c.release(cn)
		if err == nil {
			return delivery.Sent{ProviderID: e.messageID, Detail: r.safe(m.To)}, nil
		}
		if reused && !fresh && ctx.Err() == nil && isStale(err) {
			continue
		}
		return delivery.Sent{}, c.failure(err, m)
	}
}

// deliver writes the message for what this connection can carry and sends it.
func (c *connector) deliver(ctx context.Context, cn *conn, e *envelope, m *delivery.Outgoing) (reply, error) {
	if e.utf8 && !cn.ext.utf8 {
		return reply{}, reject("smtputf8_unsupported", "the address needs SMTPUTF8 and the relay does not offer it")
	}
	if err := c.compose(cn, e, m); err != nil {
		return reply{}, err
	}
	if n := len(cn.msg); cn.ext.size > 0 && n > cn.ext.size {
		return reply{}, reject("message_too_big", fmt.Sprintf("the message has %d bytes, the relay takes %d", n, cn.ext.size))
	}
	pipelined := cn.ext.pipelining && c.account.Now().UnixMilli() >= c.distrust.Load()
	r, err := cn.transact(ctx, e, pipelined)
	if err != nil && pipelined && errors.Is(err, errOutOfStep) && !isStale(err) {
		c.distrust.Store(c.account.Now().Add(distrustFor).UnixMilli())
		c.account.Log.Warn("relay advertises PIPELINING and answers out of step; sending one command at a time",
			"account", c.account.ID.String(), "for", distrustFor.String())
	}
	return r, err
}

// distrustFor is how long a relay that broke pipelining gets one command at a time.
const distrustFor = 10 * time.Minute

// connect returns a pooled connection or, when there is none or fresh is set, a new one that is ready for MAIL.
func (c *connector) connect(ctx context.Context, fresh bool) (*conn, error) {
	if !fresh {
		if cn := c.pool.take(); cn != nil {
			return cn, nil
		}
	}
	return c.dial(ctx)
}

// release gives a connection back, or ends it when it is not fit for another message.
func (c *connector) release(cn *conn) {
	if cn.dead || cn.messages >= c.cfg.maxMessages || !c.pool.put(cn) {
		cn.quit()
	}
}

// Check proves that a message could be sent now: it connects, starts TLS, logs in and says QUIT.
func (c *connector) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.timeout, errTimeout)
	defer cancel()
	cn, err := c.dial(ctx)
	if err != nil {
		return c.failure(err, nil)
	}
	cn.quit()
	return nil
}

// Close ends the idle connections. Connections in use end with their Send.
func (c *connector) Close() error {
	c.pool.close()
	return nil
}
