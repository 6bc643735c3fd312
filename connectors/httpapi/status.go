package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// The bounds of a wait that a provider may ask for. Less is no wait at all, more is a way to switch an account off.
const (
	MinRetryAfter = time.Second
	MaxRetryAfter = time.Hour
)

// Classify is the one table from HTTP status to failure. It returns nil for 2xx. now is the time of the answer, for a
// Retry-After that is a date. A provider's own table, where it has one, comes first; change Class or Code of the result
// for statuses that mean something else there.
func Classify(r Response, now time.Time) *delivery.Failure {
	f := &delivery.Failure{Code: strconv.Itoa(r.Status), Known: true, RetryAfter: RetryAfter(r.Header, now)}
	switch s := r.Status; {
	case s >= 200 && s < 300:
		return nil
	case s >= 300 && s < 400:
		f.Detail = "answered with a redirect (" + f.Code + "), which is never followed"
		f.Class, f.Code = delivery.Rejected, "redirect"
	case s == http.StatusTooManyRequests, s == http.StatusServiceUnavailable && f.RetryAfter > 0:
		f.Class = delivery.Throttled
	case s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusProxyAuthRequired:
		f.Class = delivery.ConnectorDown
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s >= 500 && s < 600:
		f.Class = delivery.Transient
	case s >= 400 && s < 500:
		f.Class = delivery.Rejected
	default: // 101 and numbers that HTTP does not define
		f.Class = delivery.Transient
	}
	if f.Detail == "" {
		f.Detail = strings.TrimSpace("answered " + f.Code + " " + http.StatusText(r.Status))
	}
	return f
}

// RetryAfter reads a Retry-After header (RFC 9110 §10.2.3): whole seconds or an HTTP date. The result is between
// MinRetryAfter and MaxRetryAfter, or 0 when there is no header that can be read. A negative number and a date in the
// past ask for the shortest wait.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if digits := strings.TrimPrefix(v, "-"); digits != "" && strings.Trim(digits, "0123456789") == "" {
		if digits != v {
			return MinRetryAfter
		}
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil { // more digits than fit
			return MaxRetryAfter
		}
		return min(max(time.Duration(n)*time.Second, MinRetryAfter), MaxRetryAfter)
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), MinRetryAfter), MaxRetryAfter)
}
