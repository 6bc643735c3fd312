// Package egress is the guarded way out of the engine: it refuses connections to addresses that no tenant may reach.
//
// The check runs on the final IP address, after DNS and right before connect(2), so that a name which resolves to
// something else the second time (DNS rebinding) gains nothing. CheckURL is the early, friendly form of the same rules
// for URLs that a person enters; passing it is no promise that the dial will be allowed.
package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// Policy says what is allowed beyond public addresses. The zero value is the strict policy for a shared installation.
type Policy struct {
	// AllowLoopback opens 127.0.0.0/8 and ::1 on every port, and plain http. For development and tests.
	AllowLoopback bool
	// AllowPrivate opens the private networks of RFC 1918, RFC 6598 and RFC 4193. The metadata services of cloud
	// providers that live in them stay closed.
	AllowPrivate bool
	// AllowHTTP lets URLs use plain http. Without it only https may be used.
	AllowHTTP bool
	// Ports are the ports that HTTP may use; nil means 443 and 8443, and 80 with AllowHTTP. Dial ignores it: SMPP and SMTP
	// providers choose their own ports.
	Ports []int
}

// Reason is the class of a refusal: a stable word for API answers and metrics.
type Reason string

// The reasons.
const (
	BadScheme   Reason = "scheme"   // neither https nor an allowed http
	BadUserinfo Reason = "userinfo" // user:password@ in the URL
	BadPort     Reason = "port"     // not on the list of ports
	BadAddress  Reason = "address"  // an address inside some network, not on the internet
	BadHost     Reason = "host"     // no host, or a name that cannot be a public one
)

// BlockedError refuses a URL or a connection.
type BlockedError struct {
	Reason Reason
	Detail string // one line, safe to show: repeats no path, query or password
}

func (e *BlockedError) Error() string { return "not allowed (" + string(e.Reason) + "): " + e.Detail }

// EgressBlocked returns the reason as text. Packages that must not import this one find a refusal by this method with
// errors.As.
func (e *BlockedError) EgressBlocked() string { return string(e.Reason) }

// Guard applies a policy. It is immutable and safe for concurrent use.
type Guard struct {
	policy Policy
	ports  []int
	public *ssrf.Guardian
	dialer net.Dialer
	web    net.Dialer
}

// dialTimeout bounds one connection attempt, below every connector's own time for a whole Send: so a dead host shows as
// a failed dial and not as a Send that ran out of time.
const dialTimeout = 8 * time.Second

// New makes a guard.
func New(p Policy) *Guard {
	g := &Guard{policy: p, ports: slices.Clone(p.Ports)}
	if g.ports == nil {
		g.ports = []int{443, 8443}
		if p.AllowHTTP {
			g.ports = append(g.ports, 80)
		}
	}
	g.public = ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureWire))
	g.dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: g.control(false)}
	g.web = net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: g.control(true)}
	return g
}

// Dial opens a TCP connection when the policy allows the address that the name resolves to. A refusal is, wrapped, a
// *BlockedError. It is what connectors get as Account.Dial.
func (g *Guard) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dial(ctx, &g.dialer, network, addr)
}

func dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return d.DialContext(ctx, network, addr)
	}
	return nil, &BlockedError{BadScheme, "only TCP connections may leave, not " + network}
}

// control checks what the dialler is about to connect to. Every address of a name passes here.
func (g *Guard) control(web bool) func(string, string, syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return &BlockedError{BadAddress, "the address cannot be read"}
		}
		if err := g.checkAddr(ap.Addr()); err != nil {
			return err
		}
		if web && !g.portAllowed(ap.Addr(), int(ap.Port())) {
			return portError(int(ap.Port()), g.ports)
		}
		return nil
	}
}

// HTTPClient makes a client whose every connection passes the guard. It follows no redirect, uses no proxy, asks for
// no compression (so that no small answer unfolds into a large one) and reads at most 64 KiB of answer headers. Its
// Timeout is unset: the context of each request bounds it. Each call makes a client with connections of its own; one
// for a whole engine is enough. Call CloseIdleConnections on it when it is no longer needed.
func (g *Guard) HTTPClient() *http.Client {
	t := &http.Transport{
		Proxy: nil, // a proxy would resolve and connect for us, past the guard
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dial(ctx, &g.web, network, addr)
		},
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true,
		MaxIdleConns:        2048,
		MaxIdleConnsPerHost: 256,
		MaxConnsPerHost:     512,
		// Below the minute after which many servers hang up: a request that meets their close is in doubt.
		IdleConnTimeout:        45 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Transport:     &transport{guard: g, Transport: t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transport refuses by URL what can be refused before DNS.
type transport struct {
	*http.Transport
	guard *Guard
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.guard.checkParts(r.URL); err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	return t.Transport.RoundTrip(r)
}
