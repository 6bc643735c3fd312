package smtp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/delivery"
)

// relay is a fake provider for the conformance kit.
type relay struct {
	mu    sync.Mutex
	fault connectortest.Fault
	seen  int
	more  chan struct{} // closed and replaced with each message
}

func (p *relay) Set(f connectortest.Fault) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	return true
}

func (p *relay) now() connectortest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *relay) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *relay) Arrived(ctx context.Context, n int) error {
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

func (p *relay) take() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	close(p.more)
	p.more = make(chan struct{})
	return p.seen
}

func (p *relay) session(w *wire) {
	if p.now() == connectortest.Down {
		return
	}
	w.welcome("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "AUTH PLAIN")
	w.hear() // AUTH
	if p.now() == connectortest.BadLogin {
		w.say("535 5.7.8 no")
		return
	}
	w.say("235 2.7.0 welcome")
	envelope := func() bool { // MAIL, RCPT, DATA
		for range 3 {
			if w.hear() == "" {
				return false
			}
		}
		return true
	}
	for envelope() {
		if answer := map[connectortest.Fault]string{
			connectortest.Temporary: "451 4.3.0 later", connectortest.UnknownRecipient: "550 5.1.1 unknown",
			connectortest.UnknownCode: "499 what",
		}[p.now()]; answer != "" {
			w.say("250 ok", answer, "503 no recipients")
			p.take()
			return
		}
		if p.now() == connectortest.Throttle {
			w.say("250 ok", "421 4.7.0 slow down")
			return
		}
		w.say("250 ok", "250 ok", "354 go")
		w.hearMessage()
		n := p.take()
		switch p.now() {
		case connectortest.Accept:
			w.say(fmt.Sprintf("250 2.0.0 ok: queued as %d", n))
		case connectortest.Reject:
			w.say("554 5.7.1 no")
		case connectortest.Hang:
			_, _ = io.Copy(io.Discard, w.r)
		case connectortest.Drip:
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := io.WriteString(w.Conn, "2"); err != nil {
					return
				}
				<-tick.C
			}
		case connectortest.Huge:
			flood(w, "250-more\r\n")
		case connectortest.Garbage:
			w.say("HTTP/1.1 200 OK")
		default: // LostAck
			return
		}
	}
}

func TestConformance(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &relay{fault: connectortest.Accept, more: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				p.session(&wire{nc, bufio.NewReader(nc)})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	ids := delivery.NewIDs(func() time.Time { return noon })
	first := ids.Message()
	connectortest.Run(t, connectortest.Harness{
		Kind: Kind(), Provider: p, Now: func() time.Time { return noon },
		Settings: map[string]string{"addr": ln.Addr().String(), "from": "news@acme.test", "username": "acme", "password": "correct-horse-battery"},
		Message: func(n int) *delivery.Outgoing {
			m := message("anna@example.test")
			m.ID = first
			m.ID[15] = byte(n)
			return m
		},
	})
}
