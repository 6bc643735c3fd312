package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/connectors/smpp"
	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

// center is a fake SMSC for the conformance kit.
type center struct {
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	fault connectortest.Fault
	seen  int
	more  chan struct{} // closed and replaced with each message
	conns map[net.Conn]struct{}
}

func (p *center) Set(f connectortest.Fault) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return true
}

func (p *center) now() connectortest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *center) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *center) Arrived(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		seen, more := p.seen, p.more
		p.mu.Unlock()
		if seen >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *center) take() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	close(p.more)
	p.more = make(chan struct{})
	return p.seen
}

func (p *center) serve() {
	for {
		nc, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[nc] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() {
			defer func() { _ = nc.Close() }()
			for r := wire.NewReader(nc); p.now() != connectortest.Down; {
				h, _, err := r.Next()
				if err != nil || !p.answer(nc, h) {
					return
				}
			}
		})
	}
}

// answer serves one request and reports whether the connection goes on.
func (p *center) answer(nc net.Conn, h wire.Header) bool {
	reply := wire.Header{Command: h.Command.Resp(), Sequence: h.Sequence}
	fault, id := p.now(), 0
	switch h.Command {
	case wire.BindTransceiver:
		if fault == connectortest.BadLogin {
			reply.Status = wire.RInvPaswd
		}
	case wire.SubmitSM:
		id = p.take()
		switch fault {
		case connectortest.Temporary:
			reply.Status = wire.RSysErr
		case connectortest.Throttle:
			reply.Status = wire.RThrottled
		case connectortest.Reject:
			reply.Status = wire.RXRAppn
		case connectortest.UnknownRecipient:
			reply.Status = wire.RInvDstAdr
		case connectortest.UnknownCode:
			reply.Status = 0x4AB
		case connectortest.LostAck:
			return false
		case connectortest.Hang:
			return true
		case connectortest.Garbage:
			_, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			return true
		case connectortest.Drip: // a PDU of 60,000 octets that never ends
			_, err := nc.Write([]byte{0, 0, 0xEA, 0x60})
			for err == nil {
				_, err = nc.Write([]byte{0})
			}
			return false
		case connectortest.Huge:
			other := (&wire.Message{Optional: wire.TLVs(nil).Append(wire.TagMessagePayload, make([]byte, 60_000))}).
				Append(nil, wire.SubmitSMResp, 1<<30)
			var err error
			for err == nil {
				_, err = nc.Write(other)
			}
			return false
		}
	}
	_, err := nc.Write(wire.AppendID(nil, reply, fmt.Sprint(id)))
	return err == nil
}

func TestConformance(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &center{ln: ln, more: make(chan struct{}), conns: map[net.Conn]struct{}{}, fault: connectortest.Accept}
	p.wg.Go(p.serve)
	hangUp := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			_ = c.Close()
			delete(p.conns, c)
		}
	}
	t.Cleanup(func() {
		_ = ln.Close()
		hangUp()
		p.wg.Wait()
	})
	connectortest.Run(t, connectortest.Harness{
		Kind:     smpp.Kind(),
		Provider: p,
		Settings: map[string]string{
			"addr": ln.Addr().String(), "system_id": "acme", "password": "pa55-canary", "response_timeout": "1s",
		},
		Message: func(int) *delivery.Outgoing { return message("+12025559900", "hello") },
		Dial:    (&net.Dialer{}).DialContext,
		Idle:    hangUp,
	})
}

// A refusal of the egress policy is named, so that a person looks at the policy and not at the SMSC.
func TestBlockedAddress(t *testing.T) {
	t.Parallel()
	a := account(t, nil)
	a.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, blocked{errors.New("no")} }
	kind := smpp.Kind()
	c, err := kind.Open(a)
	require.NoError(t, err)
	f := failure(t, c.(*smpp.Connector).Check(t.Context()))
	require.Equal(t, "blocked_address", f.Code)
	require.Equal(t, delivery.ConnectorDown, f.Class)
}

type blocked struct{ error }

func (blocked) EgressBlocked() string { return "loopback" }
