// Package httpprovider is a fake HTTP provider for the conformance kit that breaks connections in every known way.
//
// What a protocol says for itself (refusals, throttling) comes from the handler of the connector's own test; what every
// HTTP provider can do wrong is here.
package httpprovider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/connectors/connectortest"
)

// Provider is a running fake. It implements connectortest.Provider.
type Provider struct {
	server *httptest.Server
	client *http.Client
	answer Answer
	knows  []connectortest.Fault

	mu    sync.Mutex
	fault connectortest.Fault
	seen  int
	wake  chan struct{} // closed and replaced at each request
}

// Answer writes what the protocol says under a fault. The request's body may be read again.
type Answer func(f connectortest.Fault, w http.ResponseWriter, r *http.Request)

// errDown is what the client's dial gives under the fault Down.
var errDown = errors.New("connection refused by the test")

// New starts a fake on loopback. answer writes the answer to a request whose body it may read again, for Accept and for
// each fault in knows; the faults of the connection work without it.
func New(knows []connectortest.Fault, answer Answer) *Provider {
	p := &Provider{answer: answer, fault: connectortest.Accept, wake: make(chan struct{})}
	p.knows = append(slices.Clone(knows), connectortest.Accept, connectortest.Down, connectortest.LostAck,
		connectortest.Hang, connectortest.Drip, connectortest.Huge, connectortest.Garbage)
	p.server = httptest.NewServer(p)
	var d net.Dialer
	p.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if p.current() == connectortest.Down {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errDown}
			}
			return d.DialContext(ctx, network, addr)
		},
		DisableCompression: true, MaxIdleConnsPerHost: 64, MaxResponseHeaderBytes: 64 << 10,
	}}
	return p
}

// URL returns where the fake listens, without a slash at the end.
func (p *Provider) URL() string { return p.server.URL }

// Client returns the client to give to the account: its dial fails under Down.
func (p *Provider) Client() *http.Client { return p.client }

// Idle closes connections that wait for nothing.
func (p *Provider) Idle() { p.client.CloseIdleConnections() }

// Close stops the fake.
func (p *Provider) Close() {
	p.Idle()
	p.server.CloseClientConnections()
	p.server.Close()
}

// Set implements connectortest.Provider.
func (p *Provider) Set(f connectortest.Fault) bool {
	if !slices.Contains(p.knows, f) {
		return false
	}
	p.mu.Lock()
	p.fault = f
	p.mu.Unlock()
	if f == connectortest.Down {
		p.Idle() // or the next request would find an open connection
	}
	return true
}

// Seen implements connectortest.Provider.
func (p *Provider) Seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// Arrived implements connectortest.Provider.
func (p *Provider) Arrived(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		seen, wake := p.seen, p.wake
		p.mu.Unlock()
		if seen >= n {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Provider) current() connectortest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *Provider) arrive() connectortest.Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	close(p.wake)
	p.wake = make(chan struct{})
	return p.fault
}

// ServeHTTP implements http.Handler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch f := p.arrive(); f {
	case connectortest.LostAck:
		raw(w, func(net.Conn) {})
	case connectortest.Hang:
		<-r.Context().Done()
	case connectortest.Drip:
		raw(w, drip)
	case connectortest.Huge:
		junk := bytes.Repeat([]byte(" "), 32<<10)
		for err == nil {
			_, err = w.Write(junk)
		}
	case connectortest.Garbage:
		raw(w, func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x01 this is no HTTP\r\n\r\n") })
	default:
		p.answer(f, w, r)
	}
}

// raw takes the connection out of HTTP, and closes it after f.
func raw(w http.ResponseWriter, f func(c net.Conn)) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	f(c)
	_ = c.Close()
}

// drip writes a head that never ends, one byte at a time, until the client hangs up.
func drip(c net.Conn) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	text := "HTTP/1.1 200 OK\r\nX-Slow: " + strings.Repeat("a", 30_000)
	for i := range text {
		<-tick.C
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
	}
}
