package smtp

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

func TestKindIsComplete(t *testing.T) {
	k := Kind()
	require.Equal(t, "smtp", k.Name)
	require.Equal(t, delivery.Email, k.Channel)
	for _, s := range k.Settings {
		require.NotEmpty(t, s.Doc, s.Key)
		require.Equal(t, s.Key == "password" || s.Key == "dkim_key", s.Secret, s.Key)
	}
}

func TestSimulatorOutcomes(t *testing.T) {
	sim := startSim(t, simulator.Options{Password: "secret"})
	c, _ := openWith(t, sim.SMTPAddr(), map[string]string{"username": "acme", "password": "secret"})
	for _, tt := range []struct {
		to    string
		tries []string // class of each try, or sent
		code  string   // of the last failure
	}{
		{to: "anna@example.test", tries: []string{"sent"}},
		{to: "delivered@sim.test", tries: []string{"sent", "sent"}},
		{to: "delayed+x@sim.test", tries: []string{"transient", "transient", "sent"}, code: "451 4.3.0"},
		{to: "softbounce@sim.test", tries: []string{"transient"}, code: "451 4.3.0"},
		{to: "hardbounce@sim.test", tries: []string{"bad_recipient"}, code: "550 5.1.1"},
		{to: "complaint@sim.test", tries: []string{"rejected"}, code: "550 5.7.1"},
		{to: "timeout@sim.test", tries: []string{"ambiguous", "sent"}, code: "no_answer"},
		{to: "anna@example.test", tries: []string{"sent"}},
	} {
		t.Run(tt.to, func(t *testing.T) {
			for _, want := range tt.tries {
				sent, err := c.Send(context.Background(), message(tt.to))
				if want == "sent" {
					require.NoError(t, err)
					require.Equal(t, message("").ID.String()+"@acme.test", sent.ProviderID)
					require.Regexp(t, `^250 2\.0\.0 ok: queued as [0-9A-F]+$`, sent.Detail)
					continue
				}
				f := delivery.AsFailure(err)
				require.Equal(t, want, f.Class.String(), "%v", err)
				require.Equal(t, tt.code, f.Code)
				require.True(t, f.Known)
				require.NotContains(t, f.Detail, "@")
			}
		})
	}
	require.Len(t, sim.Ledger().To(delivery.Email, "timeout@sim.test"), 2, "the lost answer was a taken message")
	last := sim.Ledger().Entries(0)
	e := last[len(last)-1]
	require.Equal(t, "acme", e.Account)
	require.Equal(t, "news@acme.test", e.From)
	require.Equal(t, message("").ID.String()+"@acme.test", e.Ref)
	require.Equal(t, "Hello", e.Subject)
	require.Equal(t, "Hi there.\r\n", e.Text)
}

func TestAccountFaults(t *testing.T) {
	for _, tt := range []struct {
		fault simulator.Fault
		class delivery.Class
		code  string
	}{
		{simulator.ThrottledFault, delivery.Throttled, "421 4.7.0"},
		{simulator.Temporary, delivery.Transient, "451 4.3.0"},
		{simulator.Down, delivery.ConnectorDown, "connect"},
		{simulator.BadLogin, delivery.ConnectorDown, "535 5.7.8"},
		{simulator.LostAck, delivery.InDoubt, "no_answer"},
		{simulator.Blocked, delivery.Rejected, "550 5.7.1"},
		{simulator.Absent, delivery.Transient, "450 4.2.1"},
	} {
		for _, account := range []string{"acme", "anonymous"} {
			t.Run(fmt.Sprintf("%s %s", tt.fault, account), func(t *testing.T) {
				sim := startSim(t, simulator.Options{})
				given := map[string]string{}
				if account != "anonymous" {
					given = map[string]string{"username": account, "password": "x"}
				}
				c, _ := openWith(t, sim.SMTPAddr(), given)
				_, err := c.Send(context.Background(), message("anna@example.test")) // leaves a pooled connection
				require.NoError(t, err)
				sim.Fail(account, -1, tt.fault)
				for range 2 { // on the pooled connection, and on what follows
					_, err = c.Send(context.Background(), message("anna@example.test"))
					requireFailure(t, err, tt.class, tt.code)
				}
				sim.Heal(account)
				_, err = c.Send(context.Background(), message("anna@example.test"))
				require.NoError(t, err)
			})
		}
	}
}

func TestCheck(t *testing.T) {
	sim := startSim(t, simulator.Options{Password: "secret"})
	good, _ := openWith(t, sim.SMTPAddr(), map[string]string{"username": "acme", "password": "secret"})
	require.NoError(t, good.Check(context.Background()))
	for _, auth := range []string{"plain", "login"} {
		bad, _ := openWith(t, sim.SMTPAddr(), map[string]string{"username": "acme", "password": "hunter2", "auth": auth})
		err := bad.Check(context.Background())
		f := requireFailure(t, err, delivery.ConnectorDown, "535 5.7.8")
		require.NotContains(t, err.Error()+f.Detail, "hunter2")
	}
	unsupported, _ := openWith(t, sim.SMTPAddr(), map[string]string{"username": "acme", "password": "secret", "auth": "cram-md5"})
	requireFailure(t, unsupported.Check(context.Background()), delivery.ConnectorDown, "auth_unsupported")
	require.Zero(t, sim.Ledger().Len())
}

func TestNobodyListens(t *testing.T) {
	p := startPeer(t, func(*wire) {})
	addr := p.addr
	c, _ := openWith(t, addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.ConnectorDown, "connect") // closed before the greeting
	c, _ = openWith(t, "127.0.0.1:1", nil)
	_, err = c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.ConnectorDown, "refused")
}

func TestConnectionIsReusedAndReplaced(t *testing.T) {
	serve := func(n int) func(*wire) {
		return func(w *wire) {
			w.welcome("PIPELINING")
			for range n {
				w.serve()
			}
			w.hear()
		}
	}
	p := startPeer(t, serve(100))
	c, clk := openWith(t, p.addr, map[string]string{"max_messages": "3", "idle_timeout": "1h"})
	send := func() {
		t.Helper()
		_, err := c.Send(context.Background(), message("anna@example.test"))
		require.NoError(t, err)
	}
	send()
	send()
	require.Equal(t, 1, p.connections())
	send()
	send()
	require.Equal(t, 2, p.connections(), "max_messages")
	clk.add(time.Hour + time.Second)
	send()
	require.Equal(t, 3, p.connections(), "idle_timeout by the account's clock")
}

func TestIdleConnectionSaysQuit(t *testing.T) {
	heard := make(chan string, 1)
	p := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING")
		w.serve()
		heard <- w.hear()
	})
	c, _ := openWith(t, p.addr, map[string]string{"idle_timeout": "1ms"})
	_, err := c.Send(context.Background(), message("anna@example.test"))
	require.NoError(t, err)
	require.Equal(t, "QUIT", <-heard)
}

// A pooled connection may have been closed by the relay; that costs no attempt. Once a message was offered, or on a
// second stale connection, it does.
func TestStaleConnection(t *testing.T) {
	once := func(then func(*wire)) func(*wire) {
		return func(w *wire) {
			w.welcome("PIPELINING", "ENHANCEDSTATUSCODES")
			w.serve()
			then(w)
		}
	}
	closed := func(*wire) {}
	for _, tt := range []struct {
		name  string
		then  func(*wire) // what happens to the pooled connection
		class delivery.Class
		conns int
	}{
		{"closed at once", closed, 0, 2},
		{"closed on the next command", func(w *wire) { w.hear() }, 0, 2},
		{"421 idle, unasked", func(w *wire) { w.say("421 4.4.2 idle too long") }, 0, 2},
		{"421 idle as an answer", func(w *wire) { w.hear(); w.say("421 4.4.2 idle too long") }, 0, 2},
		{"421 slow down", func(w *wire) { w.hear(); w.say("421 4.7.0 slow down") }, delivery.Throttled, 1},
		{"closed behind a reply", func(w *wire) { w.hear(); w.say("250 ok"); w.hear() }, delivery.Transient, 1},
		{"closed behind the message", func(w *wire) {
			w.hear()
			w.say("250 ok", "250 ok", "354 go")
			w.hearMessage()
		}, delivery.InDoubt, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startPeer(t, once(tt.then), once(func(w *wire) { w.hear() }))
			c, _ := openWith(t, p.addr, nil)
			_, err := c.Send(context.Background(), message("anna@example.test"))
			require.NoError(t, err)
			_, err = c.Send(context.Background(), message("anna@example.test"))
			if tt.class == 0 {
				require.NoError(t, err)
			} else {
				requireFailure(t, err, tt.class, "")
			}
			require.Equal(t, tt.conns, p.connections())
		})
	}
}

func TestResetAfterRefusedRecipient(t *testing.T) {
	after := make(chan string, 2)
	p := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING", "SIZE 100000")
		w.hear()
		w.hear()
		w.hear()
		w.say("250 ok", "550 5.1.1 <anna@example.test>: anna unknown", "554 5.5.1 no valid recipients")
		after <- w.hear()
		w.say("250 forgotten")
		w.serve()
		after <- w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	f := requireFailure(t, err, delivery.BadRecipient, "550 5.1.1")
	require.Equal(t, "RCPT: 550 5.1.1 <address> <address> unknown", f.Detail, "no address in what is shown")
	_, err = c.Send(context.Background(), message("bob@example.test"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, 1, p.connections())
	require.Equal(t, "RSET", <-after)
	require.Equal(t, "QUIT", <-after)
}

// A relay may refuse the recipient and still say 354: the transaction is ended with an empty message.
func TestGoAheadWithoutRecipient(t *testing.T) {
	p := startPeer(t, func(w *wire) {
		w.welcome("PIPELINING")
		w.hear()
		w.hear()
		w.hear()
		w.say("250 ok", "550 5.1.1 unknown", "354 go")
		if w.hearMessage() != "" {
			return // the next message fails
		}
		w.say("554 5.5.1 no valid recipients")
		w.serve()
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	requireFailure(t, err, delivery.BadRecipient, "550 5.1.1")
	_, err = c.Send(context.Background(), message("bob@example.test"))
	require.NoError(t, err)
	require.Equal(t, 1, p.connections())
}

func TestWithoutPipeliningOneCommandAtATime(t *testing.T) {
	ahead := make(chan int, 3)
	p := startPeer(t, func(w *wire) {
		w.welcome("8BITMIME")
		for _, answer := range []string{"250 ok", "250 ok", "354 go"} {
			w.hear()
			ahead <- w.r.Buffered()
			w.say(answer)
		}
		w.hearMessage()
		w.say("250 ok")
		w.hear()
	})
	c, _ := openWith(t, p.addr, nil)
	_, err := c.Send(context.Background(), message("anna@example.test"))
	require.NoError(t, err)
	for range 3 {
		require.Zero(t, <-ahead)
	}
}

func TestConcurrentSendsShareConnections(t *testing.T) {
	sim := startSim(t, simulator.Options{})
	c, _ := openWith(t, sim.SMTPAddr(), map[string]string{"concurrency": "4"})
	errs := make(chan error, 4)
	for i := range 4 {
		go func() {
			for n := range 50 {
				if _, err := c.Send(context.Background(), message(fmt.Sprintf("p%d-%d@example.test", i, n))); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	seen := map[string]int{}
	for _, e := range sim.Ledger().Entries(0) {
		seen[e.To]++
	}
	require.Len(t, seen, 200)
	for to, n := range seen {
		require.Equal(t, 1, n, to)
	}
}

func TestSendAfterClose(t *testing.T) {
	sim := startSim(t, simulator.Options{})
	c, _ := openWith(t, sim.SMTPAddr(), nil)
	require.NoError(t, c.Close())
	_, err := c.Send(context.Background(), message("anna@example.test"))
	require.NoError(t, err, "a Send that was under way ends well, and its connection with it")
	require.NoError(t, c.Close())
}
