// Package httpapi makes one HTTP exchange with a provider and says what came of it.
//
// It exists so that every HTTP connector answers the hard question in the same way: did bytes leave that the provider
// could act on? Before the request was written a failure is harmless and the message may go again; after it was written
// a missing answer is in doubt. Do makes no retry and follows no redirect.
package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/msgctl/msgctl/delivery"
)

// MaxBody is how much of an answer Do reads when Request.MaxBody is 0, in bytes.
const MaxBody = 1 << 20

// Request is one request to a provider. Its Header and Body must not be changed or reused after Do, not even when Do
// has returned: a transport may still be writing them while the answer is there already.
type Request struct {
	Method string
	URL    string
	Header http.Header
	Body   []byte
	// MaxBody bounds what is read of the answer; 0 means MaxBody. The rest is not read: the connection is closed.
	MaxBody int64
	// PerMessage says that the URL belongs to the message and not to the account: a host that cannot be reached is then
	// the message's own trouble and does not put the account down.
	PerMessage bool
}

// Response is what the provider answered.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	// Partial is set when the body was longer than allowed or its end never came.
	Partial bool
}

// blocked is the error of a connection that the egress policy refused.
type blocked interface {
	error
	EgressBlocked() string
}

// Do sends r once over client's transport and reads the answer. It returns when the answer is read, when ctx ends, or
// when the connection fails. Any answer with a status is a Response, its body as far as it came; the error is always a
// *delivery.Failure: InDoubt once the request may have left, otherwise ConnectorDown or Transient. It is safe for
// concurrent use.
func Do(ctx context.Context, client *http.Client, r Request) (Response, error) {
	if err := ctx.Err(); err != nil {
		return Response{}, notSent(ctx, err, r.PerMessage)
	}
	var written atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// The transport itself tries again only after it has proof that nothing was written, and then asks for a connection
		// anew.
		GetConn:      func(string) { written.Store(false) },
		WroteHeaders: func() { written.Store(true) },
	})
	req, err := http.NewRequestWithContext(traced, r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		// The parser's error quotes the URL, which may hold a token.
		f := &delivery.Failure{Class: delivery.Rejected, Code: "invalid_url", Detail: "the URL cannot be read", Known: true}
		return Response{}, f
	}
	if r.Header != nil {
		req.Header = r.Header
	}
	rt := client.Transport
	if rt == nil {
		rt = http.DefaultTransport
	}
	// RoundTrip is exactly one exchange: redirects, cookies and the wrapping of errors with the URL are the client's.
	resp, err := rt.RoundTrip(req)
	if err != nil {
		if written.Load() {
			return Response{}, inDoubt(ctx, err)
		}
		return Response{}, notSent(ctx, err, r.PerMessage)
	}
	out := Response{Status: resp.StatusCode, Header: resp.Header}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		_ = resp.Body.Close() // the body would be the raw connection
		return out, nil
	}
	out.Body, out.Partial = read(resp, r.MaxBody)
	return out, nil
}

// read takes at most limit bytes of the body and closes it. Closing a body that was read to its end keeps the
// connection for the next request; closing it earlier drops the connection.
func read(resp *http.Response, limit int64) (body []byte, partial bool) {
	defer func() { _ = resp.Body.Close() }()
	if limit <= 0 {
		limit = MaxBody
	}
	if resp.ContentLength == 0 {
		return nil, false
	}
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 && n <= limit {
		buf.Grow(int(n) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if n > limit {
		return buf.Bytes()[:limit], true
	}
	return buf.Bytes(), err != nil
}

func inDoubt(ctx context.Context, err error) *delivery.Failure {
	f := &delivery.Failure{Class: delivery.InDoubt, Code: "connection_lost", Known: true, Err: err,
		Detail: "the request left and no complete answer came"}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		f.Code, f.Detail = "timeout", "the request left and no answer came in time"
	case ctx.Err() != nil:
		f.Code, f.Detail = "canceled", "stopped after the request left and before the answer"
	}
	return f
}

// notSent classifies a failure before the request was written.
func notSent(ctx context.Context, err error, perMessage bool) *delivery.Failure {
	f := &delivery.Failure{Class: delivery.ConnectorDown, Known: true, Err: err}
	if perMessage {
		f.Class = delivery.Transient
	}
	var (
		refused blocked
		dns     *net.DNSError
		op      *net.OpError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &refused):
		if perMessage {
			f.Class = delivery.Rejected
		}
		f.Code, f.Detail = "blocked_address", "the address may not be reached from here ("+refused.EgressBlocked()+")"
	case errors.Is(ctx.Err(), context.Canceled):
		f.Class, f.Code, f.Detail = delivery.Transient, "canceled", "stopped before anything was sent"
		f.Err = errors.Join(ctx.Err(), err)
	case ctx.Err() != nil:
		f.Class, f.Code, f.Detail = delivery.Transient, "timeout", "no connection in time; nothing was sent"
		f.Err = errors.Join(ctx.Err(), err)
	case errors.As(err, &dns):
		f.Code, f.Detail = "dns", "the host name could not be resolved"
	case errors.As(err, &cert), errors.As(err, &alert), errors.As(err, &record):
		f.Code, f.Detail = "tls", "no secure connection: "+tlsReason(err)
	case errors.As(err, &op) && op.Op == "dial":
		f.Code, f.Detail = "connect", "the host could not be connected to"
	default:
		f.Code, f.Detail = "connect", "no working connection; nothing was sent"
	}
	return f
}

// tlsReason says in plain words what a person has to repair.
func tlsReason(err error) string {
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var alert tls.AlertError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		until := invalid.Cert.NotAfter.UTC().Format("2006-01-02")
		return "the certificate is not valid at this time (valid until " + until + ")"
	case errors.As(err, &hostname):
		return "the certificate is for another host"
	case errors.As(err, &unknown):
		return "the certificate's issuer is not known"
	case errors.As(err, &alert):
		return "the other side refused the handshake"
	}
	return "the handshake failed"
}
