package sdk

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The first wait, the longest wait, and the longest Retry-After that an ordinary call sits through: beyond it the caller
// gets the error, and decides.
const (
	firstWait      = 500 * time.Millisecond
	longestWait    = 8 * time.Second
	longestAsked   = time.Minute
	longestPatient = 15 * time.Minute
)

// retryable reports whether the same request may work later.
func retryable(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return e.Retryable()
	}
	var conn *connError
	if !errors.As(err, &conn) {
		return false
	}
	// A certificate does not become right by asking again, and neither does plain HTTP on a TLS port.
	var (
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		record  tls.RecordHeaderError
	)
	return !errors.As(err, &cert) && !errors.As(err, &unknown) && !errors.As(err, &host) && !errors.As(err, &record)
}

// backoff returns how long to wait before the try after the nth, from 0: full jitter over 0.5, 1, 2 … 8 s, or what the
// engine asked for. A negative answer means not to wait.
func (c *Client) backoff(n int, err error, patient bool) time.Duration {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		if patient {
			return min(e.RetryAfter, longestPatient)
		}
		if e.RetryAfter > longestAsked {
			return -1
		}
		return e.RetryAfter
	}
	top := min(firstWait<<min(n, 10), longestWait)
	return time.Duration(c.jitter() * float64(top))
}

// exceeds reports whether the context ends before t, so that waiting until then is of no use.
func exceeds(ctx context.Context, t time.Time) bool {
	d, ok := ctx.Deadline()
	return ok && d.Before(t)
}

// retryAfter reads a Retry-After field (RFC 9110 §10.2.3): seconds or an HTTP date. What makes no sense is 0.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Duration(min(max(n, 0), int64(24*time.Hour/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), 24*time.Hour)
	}
	return 0
}

// newKey makes an idempotency key: a UUIDv7 (RFC 9562 §5.7).
func (c *Client) newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[6:]) // crypto/rand.Read never fails: it stops the program instead
	ms := uint64(c.now().UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewRunID makes a name for a run of SendAll, to resume it by.
func NewRunID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return "run_" + hex.EncodeToString(b[:])
}
