package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/smpp"
)

// smsc listens for SMPP sessions. The first one, once bound, is the script's; those after it behave.
func smsc(t *testing.T, script func(c net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	serve := func(c net.Conn, first bool) {
		defer c.Close()
		r := smpp.NewReader(c)
		for n := 0; ; n++ {
			h, _, err := r.Next()
			if err != nil {
				return
			}
			id := ""
			switch h.Command {
			case smpp.BindTransceiver, smpp.SubmitSM:
				id = fmt.Sprintf("id-%d", n)
			case smpp.EnquireLink, smpp.Unbind:
			default:
				continue
			}
			reply := smpp.Header{Command: h.Command.Resp(), Sequence: h.Sequence}
			out := reply.Append(nil)
			if id != "" {
				out = smpp.AppendID(nil, reply, id)
			}
			if _, err := c.Write(out); err != nil {
				return
			}
			if first && h.Command == smpp.BindTransceiver {
				script(c)
				return
			}
		}
	}
	wg.Go(func() {
		for first := true; ; first = false {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() { serve(c, first) })
		}
	})
	return ln.Addr().String()
}

// An SMSC may say what it likes: the session ends or goes on, nothing grows, and the next session delivers.
func TestHostileSMSC(t *testing.T) {
	pdu := func(length, command, status, sequence uint32, body ...byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, length)
		for _, v := range []uint32{command, status, sequence} {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return append(b, body...)
	}
	deliver := func(text string) []byte {
		m := smpp.Message{Source: smpp.Address{Addr: "1"}, ESMClass: smpp.ESMReceipt, Short: []byte(text)}
		return m.Append(nil, smpp.DeliverSM, 7)
	}
	// answered reads until the engine has said something of the given command.
	answered := func(c net.Conn, want smpp.Command) {
		for r := smpp.NewReader(c); ; {
			if h, _, err := r.Next(); err != nil || h.Command == want {
				return
			}
		}
	}
	scripts := map[string]func(net.Conn){
		"length 0":          func(c net.Conn) { _, _ = c.Write(pdu(0, 0x15, 0, 1)); answered(c, smpp.GenericNack) },
		"length 15":         func(c net.Conn) { _, _ = c.Write(pdu(15, 0x15, 0, 1)); answered(c, smpp.GenericNack) },
		"length 0xFFFFFFFF": func(c net.Conn) { _, _ = c.Write(pdu(0xFFFFFFFF, 0x15, 0, 1)); answered(c, smpp.GenericNack) },
		"huge and coming": func(c net.Conn) {
			_, _ = c.Write(pdu(0xFFFFFF00, uint32(smpp.DeliverSM), 0, 1))
			forever(c, make([]byte, 64<<10))
		},
		"unknown command":  func(c net.Conn) { _, _ = c.Write(pdu(16, 0x0BAD, 0, 1)); answered(c, smpp.GenericNack) },
		"unknown response": func(c net.Conn) { _, _ = c.Write(pdu(16, 0x80000004, 0, 0x7777)) },
		"parameter past end": func(c net.Conn) {
			_, _ = c.Write(withTLV(deliver("id:1 stat:DELIVRD")))
			answered(c, smpp.DeliverSMResp)
		},
		"string without NUL": func(c net.Conn) {
			_, _ = c.Write(pdu(19, uint32(smpp.DeliverSM), 0, 8, 'a', 'b', 'c'))
			answered(c, smpp.DeliverSMResp)
		},
		"malformed receipt": func(c net.Conn) { _, _ = c.Write(deliver("\x00\xff lorem ipsum")); answered(c, smpp.DeliverSMResp) },
		"an octet at a time": func(c net.Conn) {
			for _, o := range deliver("id:1 stat:DELIVRD") {
				_, _ = c.Write([]byte{o})
			}
			answered(c, smpp.DeliverSMResp)
		},
		"another protocol": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"unbind at once":   func(c net.Conn) { _, _ = c.Write(pdu(16, uint32(smpp.Unbind), 0, 9)); answered(c, smpp.UnbindResp) },
		"a flood of receipts": func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			for range 2000 {
				if _, err := c.Write(deliver("id:none stat:DELIVRD")); err != nil {
					return
				}
			}
		},
	}
	b := newBox(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ids := map[string]string{}
	for name, script := range scripts {
		connector := strings.ReplaceAll(name, " ", "-")
		_, err := b.Client.Connectors.Put(b.ctx, connector, sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
			"addr": smsc(t, script), "system_id": "x", "password": "y", "from": "msgctl",
		}})
		require.NoError(t, err, name)
		ids[name] = b.send(sdk.SMS{To: "+12025550100", Text: "Hello"}, sdk.Via(connector))
	}
	for name, id := range ids {
		b.until(name+": the message goes by the next session", func() bool {
			m, err := b.Client.Messages.Get(b.ctx, id)
			return err == nil && m.Status == sdk.Sent
		})
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20))
}

// withTLV adds an optional parameter that claims more octets than there are.
func withTLV(pdu []byte) []byte {
	pdu = append(pdu, 0x04, 0x27, 0xFF, 0xFF)
	binary.BigEndian.PutUint32(pdu, uint32(len(pdu)))
	return pdu
}

// relay answers every mail session by the script.
func relay(t *testing.T, script func(c net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				wg.Go(func() { defer c.Close(); script(c) })
			}
		}
	})
	return ln.Addr().String()
}

// A relay without manners takes its own connector out of use, with a reason, and nothing else.
func TestHostileRelaysThroughTheEngine(t *testing.T) {
	b := newBox(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for name, c := range map[string]struct {
		script func(net.Conn)
		detail string
	}{
		"greeting-without-end": {func(c net.Conn) { forever(c, []byte(strings.Repeat("2", 64<<10))) }, "protocol"},
		"lines-without-end": {func(c net.Conn) {
			_, _ = io.WriteString(c, "220 hi\r\n")
			forever(c, []byte("250-X\r\n"))
		}, "protocol"},
		"another-protocol": {func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.9\r\n"); _, _ = io.Copy(io.Discard, c) }, "protocol"},
		"NUL":              {func(c net.Conn) { _, _ = io.WriteString(c, "220 \x00\r\n"); _, _ = io.Copy(io.Discard, c) }, "protocol"},
		"no-greeting":      {func(net.Conn) {}, "connect"},
	} {
		_, err := b.Client.Connectors.Put(b.ctx, name, sdk.ConnectorRequest{Kind: "smtp", Settings: map[string]string{
			"addr": relay(t, c.script), "from": "news@sim.test", "tls": "none",
		}})
		require.NoError(t, err)
		m := b.message(b.send(sdk.Email{To: "asha@sim.test", Subject: "S", Text: "T"}, sdk.Via(name)))
		require.Equal(t, sdk.Held, m.Status, "%s: %s", name, m.Reason)
		require.Equal(t, "connector_down", m.Reason, name)
		require.Contains(t, m.Detail, name+": "+c.detail)
		require.Zero(t, m.Attempts, "nothing of the message has left")
	}
	m := b.message(b.send(sdk.Email{To: "asha@sim.test", Subject: "S", Text: "T"}, sdk.Via("sim-mail")))
	require.Contains(t, []sdk.Status{sdk.Sent, sdk.Delivered}, m.Status, "the good relay suffers")
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
}
