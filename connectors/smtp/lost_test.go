package smtp

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

// cutting closes after n bytes of writes: the last bytes of a message never leave.
type cutting struct {
	net.Conn
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if len(p) > c.left {
		n, _ := c.Conn.Write(p[:c.left])
		_ = c.Conn.Close()
		return n, syscall.EPIPE
	}
	c.left -= len(p)
	return c.Conn.Write(p)
}

// The border between "not offered" and "in doubt" is the last byte of the final dot.
func TestCutWhileWriting(t *testing.T) {
	var whole int
	measure := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING")
		n := 0
		for range 3 {
			n += len(w.hear()) + 2
		}
		w.say("250 ok", "250 ok", "354 go")
		whole = n + len(w.hearMessage()) + len(".\r\n") + len("EHLO acme.test\r\n")
		w.say("250 ok")
		w.hear()
	})
	c, _ := openWith(t, measure.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	require.NoError(t, err)

	for _, tt := range []struct {
		name  string
		bytes int
		class delivery.Class
	}{
		{"in the envelope", 40, delivery.Transient},
		{"in the message", whole - 100, delivery.Transient},
		{"before the last byte", whole - 1, delivery.Transient},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, func(w *wire) {
				w.welcome("PIPELINING")
				w.envelope()
				w.say("250 ok", "250 ok", "354 go")
				_, _ = io.Copy(io.Discard, w.r)
			})
			c, _ := openWith(t, p.addr, nil)
			dial := c.account.Dial
			c.account.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := dial(ctx, network, addr)
				return &cutting{nc, tt.bytes}, err
			}
			_, err := c.Send(context.Background(), message("anna@example.test"))
			requireFailure(t, err, tt.class, "")
		})
	}
}

// A relay that refuses early and stops reading still gets its answer heard.
func TestRefusalWhileWriting(t *testing.T) {
	c, _ := openWith(t, "relay.test:25", nil)
	c.account.Dial = func(context.Context, string, string) (net.Conn, error) {
		p := "220 hi\r\n250-hi\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n354 go\r\n552 5.3.4 too big\r\n"
		return &deaf{r: bufio.NewReader(&lineReader{strings.NewReader(p)})}, nil
	}
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.Rejected, "552 5.3.4")
}

// deaf is a connection that refuses long writes.
type deaf struct {
	net.Conn
	r io.Reader
}

func (d *deaf) Read(p []byte) (int, error) { return d.r.Read(p) }
func (d *deaf) Write(p []byte) (int, error) {
	if len(p) > 100 {
		return 10, syscall.EPIPE
	}
	return len(p), nil
}
func (d *deaf) Close() error { return nil }

// lineReader gives one byte per Read, so that a reply never comes with the one before it.
type lineReader struct{ r io.Reader }

func (l *lineReader) Read(p []byte) (int, error) { return l.r.Read(p[:1]) }

func TestRefusedResetTakesAFreshConnection(t *testing.T) {
	p := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING")
		w.envelope()
		w.say("250 ok", "550 5.1.1 unknown", "503 no recipients")
		w.hear()
		w.say("500 what?")
		_, _ = io.Copy(io.Discard, w.r)
	}, func(w *wire) {
		w.welcome("PIPELINING")
		w.serve()
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.BadRecipient, "550 5.1.1")
	_, err = c.Send(context.Background(), message("bob@example.test"))
	require.NoError(t, err)
	require.Equal(t, 2, p.connections())
}

func TestUnknownHost(t *testing.T) {
	c, _ := openWith(t, "relay.test:25", nil)
	c.account.Dial = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "relay.test", IsNotFound: true}}
	}
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.ConnectorDown, "dns")
}
