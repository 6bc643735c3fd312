package smtp

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when every test happens.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// openWith opens an account with a kind's defaults, and closes it when the test ends.
func openWith(t testing.TB, addr string, given map[string]string) (*connector, *clock) {
	t.Helper()
	k := Kind()
	full := map[string]string{"addr": addr, "from": "Acme <news@acme.test>"}
	maps.Copy(full, given)
	s, err := k.Validate(full)
	require.NoError(t, err)
	clk := &clock{t: noon}
	var d net.Dialer
	opened, err := k.Open(&connectors.Account{Settings: s, Log: slog.New(slog.DiscardHandler), Now: clk.now, Dial: d.DialContext})
	require.NoError(t, err)
	c := opened.(*connector)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, clk
}

func startSim(t testing.TB, opt simulator.Options) *simulator.Sim {
	t.Helper()
	sim, err := simulator.Start(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	return sim
}

func message(to string) *delivery.Outgoing {
	return &delivery.Outgoing{
		ID: delivery.MessageID{1, 2, 3, 15: 9}, Tenant: "acme", Channel: delivery.Email, Attempt: 1, To: to,
		Content: delivery.Content{Subject: "Hello", Text: "Hi there.\n", HTML: "<p>Hi there.</p>\n"},
	}
}

func requireFailure(t testing.TB, err error, class delivery.Class, code string) *delivery.Failure {
	t.Helper()
	require.Error(t, err)
	f := delivery.AsFailure(err)
	require.Equal(t, class.String(), f.Class.String(), "%v", err)
	if code != "" {
		require.Equal(t, code, f.Code, "%v", err)
	}
	return f
}

// peer is a scripted relay: each connection runs the script whose turn it is; the last one goes on for ever.
type peer struct {
	addr string
	mu   sync.Mutex
	n    int
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// wire is a scripted relay's end of a connection.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// say writes lines; an error means that the client has gone, which the client's side of the test judges.
func (w *wire) say(lines ...string) {
	_, _ = io.WriteString(w.Conn, strings.Join(lines, "\r\n")+"\r\n")
}

// hear reads a line; "" when the client has gone.
func (w *wire) hear() string {
	line, err := w.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimRight(line, "\r\n")
}

// hearMessage reads up to the final dot.
func (w *wire) hearMessage() string {
	var b strings.Builder
	for {
		line, err := w.r.ReadString('\n')
		if err != nil || line == ".\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

// welcome greets and answers EHLO with extensions.
func (w *wire) welcome(extensions ...string) {
	w.say("220 relay.test ESMTP")
	w.hear()
	lines := append([]string{"relay.test"}, extensions...)
	for i, l := range lines {
		if i < len(lines)-1 {
			w.say("250-" + l)
		} else {
			w.say("250 " + l)
		}
	}
}

// serve takes one message by the book.
func (w *wire) serve() string {
	for _, answer := range []string{"250 2.1.0 ok", "250 2.1.5 ok", "354 go"} {
		if w.hear() == "" {
			return ""
		}
		w.say(answer)
	}
	msg := w.hearMessage()
	w.say("250 2.0.0 ok: queued as 4XyZ")
	return msg
}

func startPeer(t testing.TB, scripts ...func(w *wire)) *peer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{addr: ln.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			script := scripts[min(p.n, len(scripts)-1)]
			p.n++
			p.mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				script(&wire{nc, bufio.NewReader(nc)})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return p
}
