package smpp_test

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

// peer is an SMSC that does what the test says, PDU by PDU. Its connections are pipes in a bubble of
// testing/synctest: time stands still while anything moves, so every timeout is exact and takes no time.
type peer struct {
	t     *testing.T
	conns chan net.Conn
}

type conn struct {
	net.Conn
	t *testing.T
	r *wire.Reader
}

func scripted(t *testing.T, settings map[string]string, script func(t *testing.T, o *opened, p *peer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{t: t, conns: make(chan net.Conn, 1000)}
		a := account(t, settings)
		a.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			p.conns <- theirs
			return ours, nil
		}
		script(t, open(t, a), p)
	})
}

// connection returns the next connection, before its bind was read.
func (p *peer) connection() *conn {
	c := <-p.conns
	p.t.Cleanup(func() { _ = c.Close() })
	return &conn{Conn: c, t: p.t, r: wire.NewReader(c)}
}

// bound returns the next connection, bound.
func (p *peer) bound() *conn {
	c := p.connection()
	h, body := c.next()
	require.Equal(p.t, wire.BindTransceiver, h.Command)
	b, err := wire.ParseBind(body)
	require.NoError(p.t, err)
	require.Equal(p.t, wire.Bind{SystemID: "acme", Password: "secret", Version: wire.Version34}, b)
	c.answer(h, wire.ROK, "smsc")
	synctest.Wait() // until the connector has seen it
	return c
}

func (c *conn) next() (wire.Header, []byte) {
	c.t.Helper()
	h, body, err := c.r.Next()
	require.NoError(c.t, err)
	return h, body
}

// submitted reads a submit_sm.
func (c *conn) submitted() (wire.Header, wire.Message) {
	c.t.Helper()
	h, body := c.next()
	require.Equal(c.t, wire.SubmitSM, h.Command)
	m, err := wire.ParseMessage(append([]byte(nil), body...))
	require.NoError(c.t, err)
	require.NoError(c.t, m.Check())
	return h, m
}

func (c *conn) send(b []byte) {
	c.t.Helper()
	_, err := c.Write(b)
	require.NoError(c.t, err)
}

func (c *conn) answer(h wire.Header, status wire.Status, id string) {
	c.t.Helper()
	c.send(wire.AppendID(nil, wire.Header{Command: h.Command.Resp(), Status: status, Sequence: h.Sequence}, id))
}

// closed waits for the connector to end the connection.
func (c *conn) closed() {
	c.t.Helper()
	_, _, err := c.r.Next()
	require.ErrorIs(c.t, err, io.EOF)
}

func (c *conn) receipt(sequence uint32, text string, tlvs wire.TLVs) []byte {
	m := wire.Message{Source: wire.Address{Addr: "1"}, ESMClass: wire.ESMReceipt, Short: []byte(text), Optional: tlvs}
	return m.Append(nil, wire.DeliverSM, sequence)
}

// result is what a Send in the background returned.
type result struct {
	sent delivery.Sent
	err  error
}

func (o *opened) sending(ctx context.Context, m *delivery.Outgoing) <-chan result {
	done := make(chan result, 1)
	go func() {
		sent, err := o.Send(ctx, m)
		done <- result{sent, err}
	}()
	return done
}

func class(t *testing.T, r result) (delivery.Class, string) {
	t.Helper()
	f := failure(t, r.err)
	return f.Class, f.Code
}

func requireClass(t *testing.T, r result, want delivery.Class, code string) {
	t.Helper()
	got, gotCode := class(t, r)
	require.Equal(t, want, got, r.err)
	require.Equal(t, code, gotCode)
}

// taken reads a submit_sm and answers it with the id "second".
func (c *conn) taken() {
	c.t.Helper()
	h, _ := c.submitted()
	c.answer(h, wire.ROK, "second")
}
