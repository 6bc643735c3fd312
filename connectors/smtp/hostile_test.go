package smtp

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
)

// flood writes s until the client closes.
func flood(w *wire, s string) {
	for {
		if _, err := io.WriteString(w.Conn, s); err != nil {
			return
		}
	}
}

// envelope hears MAIL, RCPT and DATA.
func (w *wire) envelope() {
	w.hear()
	w.hear()
	w.hear()
}

func TestHostileRelays(t *testing.T) {
	// envelope answers a pipelined envelope; then goes on with what is left.
	pipelined := func(then func(w *wire)) func(*wire) {
		return func(w *wire) {
			w.welcome("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")
			w.envelope()
			then(w)
		}
	}
	offered := func(then func(w *wire)) func(*wire) {
		return pipelined(func(w *wire) {
			w.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go")
			w.hearMessage()
			then(w)
		})
	}
	for _, tt := range []struct {
		name   string
		script func(*wire)
		class  delivery.Class
		code   string
	}{
		{"greeting without end", func(w *wire) { flood(w, "220 "+strings.Repeat("x", 1<<16)) }, delivery.ConnectorDown, "protocol"},
		{"greeting of garbage", func(w *wire) { w.say("HTTP/1.1 400 Bad Request") }, delivery.ConnectorDown, "protocol"},
		{"greeting refuses", func(w *wire) { w.say("554 5.7.1 go away") }, delivery.ConnectorDown, "554 5.7.1"},
		{"greeting busy", func(w *wire) { w.say("421 4.7.0 too many connections") }, delivery.Throttled, "421 4.7.0"},
		{"greeting not now", func(w *wire) { w.say("450 4.3.2 not now") }, delivery.Transient, "450 4.3.2"},
		{"EHLO for ever", func(w *wire) { w.say("220 hi"); w.hear(); flood(w, "250-X\r\n") }, delivery.ConnectorDown, "protocol"},
		{"EHLO cut", func(w *wire) { w.say("220 hi"); w.hear(); w.say("250-X") }, delivery.ConnectorDown, "connect"},
		{"two greetings", func(w *wire) {
			w.say("220 hi", "220 hi")
			w.hear()
		}, delivery.ConnectorDown, "220"},
		{"NUL in a reply", pipelined(func(w *wire) { w.say("250 \x00ok") }), delivery.Transient, "protocol"},
		{"codes that differ", pipelined(func(w *wire) { w.say("250-ok", "550 no") }), delivery.Transient, "protocol"},
		{"login wanted", pipelined(func(w *wire) { w.say("530 5.7.0 log in first", "503 no", "503 no") }), delivery.ConnectorDown, "530 5.7.0"},
		{"sender refused", pipelined(func(w *wire) { w.say("550 5.1.0 sender unknown", "503 no", "503 no") }), delivery.Rejected, "550 5.1.0"},
		{"421 mid-session", pipelined(func(w *wire) { w.say("250 ok", "421 4.3.2 shutting down") }), delivery.Throttled, "421 4.3.2"},
		{"354 to MAIL", pipelined(func(w *wire) { w.say("354 go") }), delivery.Transient, "protocol"},
		{"250 to DATA", pipelined(func(w *wire) { w.say("250 ok", "250 ok", "250 ok") }), delivery.Transient, "protocol"},
		{"a reply too many", pipelined(func(w *wire) { w.say("250 ok", "250 ok", "451 no", "250 ok") }), delivery.Transient, "451"},
		{"250 before the message", pipelined(func(w *wire) { w.say("250 ok", "250 ok", "354 go", "250 taken") }), delivery.Transient, "protocol"},
		{"354 then 550", pipelined(func(w *wire) { w.say("250 ok", "250 ok", "354 go", "550 5.7.1 changed my mind") }), delivery.Rejected, "550 5.7.1"},
		{"cut before the message", pipelined(func(w *wire) { w.say("250 ok", "250 ok") }), delivery.Transient, "connection"},
		{"cut behind the message", offered(func(*wire) {}), delivery.InDoubt, "no_answer"},
		{"reply to the message cut", offered(func(w *wire) { _, _ = io.WriteString(w.Conn, "250 2.0.0 o") }), delivery.InDoubt, "no_answer"},
		{"garbage behind the message", offered(func(w *wire) { w.say("ok!") }), delivery.InDoubt, "no_answer"},
		{"354 behind the message", offered(func(w *wire) { w.say("354 go") }), delivery.InDoubt, "no_answer"},
		{"4xx behind the message", offered(func(w *wire) { w.say("451 4.3.0 try again") }), delivery.Transient, "451 4.3.0"},
		{"4.7 behind the message", offered(func(w *wire) { w.say("450 4.7.1 greylisted") }), delivery.Throttled, "450 4.7.1"},
		{"421 behind the message", offered(func(w *wire) { w.say("421 4.3.0 full") }), delivery.Throttled, "421 4.3.0"},
		{"552 behind the message", offered(func(w *wire) { w.say("552 5.2.2 mailbox full") }), delivery.Transient, "552 5.2.2"},
		{"550 behind the message", offered(func(w *wire) { w.say("550 no") }), delivery.Rejected, "550"},
		{"552 too big", offered(func(w *wire) { w.say("552 5.3.4 too big") }), delivery.Rejected, "552 5.3.4"},
		{"SIZE too small", func(w *wire) { w.welcome("SIZE 1"); w.hear() }, delivery.Rejected, "message_too_big"},
		{"no EHLO, HELO", func(w *wire) {
			w.say("220 hi")
			w.hear()
			w.say("502 what?")
			w.hear()
			w.say("250 hi")
			w.serve()
			w.hear()
		}, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, tt.script)
			c, _ := openWith(t, p.addr, nil)
			_, err := c.Send(context.Background(), message("anna@example.test"))
			if tt.class == 0 {
				require.NoError(t, err)
				return
			}
			f := requireFailure(t, err, tt.class, tt.code)
			require.NotEmpty(t, f.Detail)
			require.LessOrEqual(t, len(f.Detail), 200)
			require.Equal(t, 1, p.connections(), "a fresh connection is never replaced within a Send")
		})
	}
}

// A relay that swallows what it was pipelined gets one command at a time from then on, for a while.
func TestPipeliningLie(t *testing.T) {
	honest := func(w *wire) {
		w.welcome("PIPELINING")
		for range 3 {
			w.hear()
			if w.r.Buffered() > 0 {
				w.say("500 too fast")
				return
			}
			w.say("250 ok")
			w.hear()
			w.say("250 ok")
			w.hear()
			w.say("354 go")
			w.hearMessage()
			w.say("250 ok")
		}
	}
	swallow := func(w *wire) {
		w.welcome("PIPELINING")
		w.envelope()
		w.say("250 ok") // and nothing for the rest
		w.hear()
	}
	synctest.Test(t, func(t *testing.T) {
		c := openPiped(t, nil, swallow, honest)
		now := noon
		c.account.Now = func() time.Time { return now }
		_, err := c.Send(context.Background(), message("anna@example.test"))
		requireFailure(t, err, delivery.Transient, "timeout")
		_, err = c.Send(context.Background(), message("anna@example.test"))
		require.NoError(t, err)
		now = now.Add(distrustFor)
		_, err = c.Send(context.Background(), message("anna@example.test"))
		requireFailure(t, err, delivery.Rejected, "500")
	})
}

func TestSilenceIsBounded(t *testing.T) {
	quiet := func(w *wire) { _, _ = io.Copy(io.Discard, w.r) }
	for _, tt := range []struct {
		name   string
		script func(*wire)
		tls    string
		class  delivery.Class
		code   string
		after  time.Duration
	}{
		{"greeting", quiet, "none", delivery.ConnectorDown, "timeout", 30 * time.Second},
		{"implicit TLS", quiet, "implicit", delivery.ConnectorDown, "tls", 30 * time.Second},
		{"EHLO", func(w *wire) { w.say("220 hi"); quiet(w) }, "none", delivery.ConnectorDown, "timeout", 30 * time.Second},
		{"MAIL", func(w *wire) { w.welcome(); quiet(w) }, "none", delivery.Transient, "timeout", 30 * time.Second},
		{"a byte at a time", func(w *wire) {
			for {
				if _, err := io.WriteString(w.Conn, "2"); err != nil {
					return
				}
				<-time.After(time.Second) // of the bubble
			}
		}, "none", delivery.ConnectorDown, "timeout", 30 * time.Second},
		{"message", func(w *wire) {
			w.welcome("PIPELINING")
			w.envelope()
			w.say("250 ok", "250 ok", "354 go")
			w.hearMessage()
			quiet(w)
		}, "none", delivery.InDoubt, "no_answer", 2 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := openPiped(t, map[string]string{"tls": tt.tls}, tt.script)
				start := time.Now() // of the bubble
				_, err := c.Send(context.Background(), message("anna@example.test"))
				requireFailure(t, err, tt.class, tt.code)
				require.Equal(t, tt.after, time.Since(start).Truncate(2*time.Second))
			})
		})
	}
}

// openPiped opens an account whose relay is scripted behind a pipe, for synctest.
func openPiped(t *testing.T, given map[string]string, scripts ...func(*wire)) *connector {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	c, _ := openWith(t, "relay.test:25", given)
	dialed := 0
	c.account.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		script := scripts[min(dialed, len(scripts)-1)]
		dialed++
		wg.Go(func() {
			defer theirs.Close()
			script(&wire{theirs, bufio.NewReader(theirs)})
		})
		return ours, nil
	}
	return c
}

func TestCanceledContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	p := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING")
		w.hear()
		cancel()
		w.hear()
		w.hear()
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(ctx, message("anna@example.test"))
	requireFailure(t, err, delivery.Transient, "canceled")
	_, err = c.Send(ctx, message("anna@example.test"))
	requireFailure(t, err, delivery.Transient, "canceled")
	require.Equal(t, 1, p.connections())
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		at    phase
		line  string
		class delivery.Class
		known bool
	}{
		{atRcpt, "550 no", delivery.BadRecipient, true},
		{atRcpt, "550 5.1.1 no", delivery.BadRecipient, true},
		{atRcpt, "550 5.1.10 null MX", delivery.BadRecipient, true},
		{atRcpt, "550 5.1.8 your domain does not exist", delivery.Rejected, true},
		{atRcpt, "550 5.2.1 disabled", delivery.BadRecipient, true},
		{atRcpt, "552 5.2.2 full", delivery.Transient, true},
		{atRcpt, "550 5.7.1 relay denied", delivery.Rejected, true},
		{atRcpt, "550 5.4.1 access denied", delivery.Rejected, true},
		{atRcpt, "554 no", delivery.Rejected, true},
		{atRcpt, "556 no mail here", delivery.BadRecipient, true},
		{atRcpt, "553 5.1.3 syntax", delivery.BadRecipient, true},
		{atRcpt, "450 4.2.0 greylisted", delivery.Transient, true},
		{atRcpt, "450 4.7.1 slow down", delivery.Throttled, true},
		{atRcpt, "451 4.7.500 slow down", delivery.Throttled, true},
		{atRcpt, "452 4.2.2 full", delivery.Transient, true},
		{atMail, "550 no", delivery.Rejected, true},
		{atMail, "550 5.1.1 no", delivery.Rejected, true},
		{atMail, "503 5.5.1 sequence", delivery.Transient, true},
		{atData, "550 no", delivery.Rejected, true},
		{atDot, "550 5.1.1 no", delivery.BadRecipient, true},
		{atDot, "550 no", delivery.Rejected, true},
		{atDot, "554 5.6.0 no", delivery.Rejected, true},
		{atDot, "599 no", delivery.Rejected, false},
		{atDot, "499 no", delivery.Transient, false},
		{atConnect, "535 5.7.8 no", delivery.ConnectorDown, true},
		{atConnect, "454 4.7.0 too many log-ins", delivery.Throttled, true},
		{atConnect, "554 no", delivery.ConnectorDown, true},
		{atDot, "535 5.7.0 no", delivery.ConnectorDown, true},
	} {
		r := parse(t, tt.line+"\r\n")
		class, known := classify(tt.at, r)
		require.Equal(t, tt.class.String(), class.String(), "%s: %s", tt.at, tt.line)
		require.Equal(t, tt.known, known, "%s: %s", tt.at, tt.line)
	}
}
