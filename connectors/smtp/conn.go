package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// conn is one session with the relay. One goroutine uses it at a time.
type conn struct {
	nc       net.Conn
	r        *bufio.Reader
	patience time.Duration // for one command or group of commands
	ext      extensions
	secure   bool // TLS is on
	dead     bool // saw something that leaves the session's state unknown
	dirty    bool // a transaction is open: RSET before the next MAIL
	messages int  // transactions begun

	out []byte // commands
	msg []byte // the message as it is signed: no dots stuffed, ends in CRLF

	since  time.Time // idle since, by the account's clock
	expiry *time.Timer
}

// extensions are what EHLO announced.
type extensions struct {
	pipelining, eightBit, utf8, startTLS bool

	size int      // largest message, 0 = not said
	auth []string // mechanisms, upper case
}

func (cn *conn) use(nc net.Conn) {
	cn.nc = nc
	cn.r = bufio.NewReaderSize(nc, maxReplyLine)
}

// dial connects, says EHLO, starts TLS and logs in. Errors are *delivery.Failure, *refused or *broken at atConnect.
func (c *connector) dial(ctx context.Context) (*conn, error) {
	cn := &conn{patience: c.cfg.commandTimeout}
	err := func() error {
		dctx, cancel := context.WithTimeoutCause(ctx, c.cfg.commandTimeout, errSlow)
		defer cancel()
		nc, err := c.account.Dial(dctx, "tcp", c.cfg.addr)
		if err != nil {
			if dctx.Err() != nil {
				err = fmt.Errorf("%w: %w", context.Cause(dctx), err)
			}
			return err
		}
		cn.use(nc)
		return nil
	}()
	if err != nil {
		return nil, &broken{phase: atConnect, err: err}
	}
	if err := c.handshake(ctx, cn); err != nil {
		_ = cn.nc.Close()
		return nil, err
	}
	return cn, nil
}

func (c *connector) handshake(ctx context.Context, cn *conn) error {
	if c.cfg.tlsMode == tlsImplicit {
		if err := c.startTLS(ctx, cn); err != nil {
			return err
		}
	}
	if err := c.expect(ctx, cn, "", 220); err != nil {
		return err
	}
	if err := c.hello(ctx, cn); err != nil {
		return err
	}
	if !cn.secure && (c.cfg.tlsMode == tlsRequire || c.cfg.tlsMode == tlsStart && cn.ext.startTLS) {
		if !cn.ext.startTLS {
			return down("tls_required", "the relay does not offer STARTTLS and the account requires it")
		}
		if err := c.expect(ctx, cn, "STARTTLS", 220); err != nil {
			var r *refused
			if errors.As(err, &r) { // 454 too: without TLS this account does not work
				return down(r.reply.status(), "the relay refuses to start TLS")
			}
			return err
		}
		// RFC 3207 §4.2: what came in clear behind the reply was not sent by the peer that TLS will authenticate.
		if cn.r.Buffered() > 0 {
			return down("tls", "data in clear behind STARTTLS: somebody may be tampering with the connection")
		}
		if err := c.startTLS(ctx, cn); err != nil {
			return err
		}
		if err := c.hello(ctx, cn); err != nil {
			return err
		}
	}
	return c.login(ctx, cn)
}

func (c *connector) startTLS(ctx context.Context, cn *conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.commandTimeout, errSlow)
	defer cancel()
	tc := tls.Client(cn.nc, c.cfg.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &broken{phase: atConnect, err: fmt.Errorf("%w: %w", errTLS, err)}
	}
	cn.use(tc)
	cn.secure = true
	return nil
}

// hello says EHLO and reads the extensions, or HELO to a relay that is older than 1995.
func (c *connector) hello(ctx context.Context, cn *conn) error {
	r, err := c.ask(ctx, cn, "EHLO "+c.cfg.hello)
	if err != nil {
		return err
	}
	cn.ext = extensions{}
	switch {
	case r.code == 500 || r.code == 502 || r.code == 504:
		return c.expect(ctx, cn, "HELO "+c.cfg.hello, 250)
	case r.code != 250:
		return &refused{atConnect, r}
	}
	cn.ext = parseExtensions(r.lines[1:])
	return nil
}

func parseExtensions(lines []string) (ext extensions) {
	for _, line := range lines {
		word, args, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
		switch word {
		case "PIPELINING":
			ext.pipelining = true
		case "8BITMIME":
			ext.eightBit = true
		case "SMTPUTF8":
			ext.utf8 = true
		case "STARTTLS":
			ext.startTLS = true
		case "SIZE":
			ext.size, _ = strconv.Atoi(args)
			ext.size = max(ext.size, 0)
		case "AUTH":
			ext.auth = strings.Fields(args)
		}
	}
	return ext
}

// ask sends a command, unless it is empty, and returns whatever reply comes.
func (c *connector) ask(ctx context.Context, cn *conn, command string) (r reply, err error) {
	err = cn.within(ctx, cn.patience, func() error {
		if command != "" {
			cn.out = append(append(cn.out[:0], command...), '\r', '\n')
			if _, err := cn.nc.Write(cn.out); err != nil {
				return err
			}
		}
		r, err = readReply(cn.r, true)
		return err
	})
	if err != nil {
		cn.dead = true
		return reply{}, &broken{phase: atConnect, err: err}
	}
	return r, nil
}

// expect asks and wants one code.
func (c *connector) expect(ctx context.Context, cn *conn, command string, code int) error {
	r, err := c.ask(ctx, cn, command)
	if err == nil && r.code != code {
		err = &refused{atConnect, r}
	}
	return err
}

// within bounds the reads and writes of f: when d is over or ctx ends, they fail, and the connection with them. A d of
// 0 leaves it to ctx alone.
func (cn *conn) within(ctx context.Context, d time.Duration, f func() error) error {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, errSlow)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() { _ = cn.nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() {
		cn.dead = true
		if err != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
	return err
}

// quit says goodbye, does not wait for the answer, and closes. It blocks for a second at most.
func (cn *conn) quit() {
	if cn.expiry != nil {
		cn.expiry.Stop()
	}
	force := time.AfterFunc(time.Second, func() { _ = cn.nc.SetDeadline(time.Unix(1, 0)) })
	defer force.Stop()
	if !cn.dead {
		_, _ = cn.nc.Write([]byte("QUIT\r\n"))
	}
	_ = cn.nc.Close()
}
