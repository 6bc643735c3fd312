package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// debugTransport prints each exchange of --debug: lines and headers, with secrets masked, and no bodies, because they
// hold people's addresses and texts.
type debugTransport struct {
	next http.RoundTripper
	w    io.Writer
}

func (t *debugTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := time.Now() // for a person's eye only
	var b strings.Builder
	fmt.Fprintf(&b, "> %s %s\n", r.Method, r.URL.Redacted())
	headers(&b, "> ", r.Header)
	_, _ = io.WriteString(t.w, b.String())
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		_, _ = fmt.Fprintf(t.w, "< no answer after %s: %s\n", time.Since(begin).Round(time.Millisecond), err)
		return nil, err
	}
	b.Reset()
	fmt.Fprintf(&b, "< %s  %s\n", resp.Status, time.Since(begin).Round(time.Millisecond))
	headers(&b, "< ", resp.Header)
	_, _ = io.WriteString(t.w, b.String())
	return resp, nil
}

func (t *debugTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func headers(b *strings.Builder, mark string, h http.Header) {
	for _, k := range []string{
		"Authorization", "X-Msgctl-Tenant", "Idempotency-Key", "Content-Type", "Retry-After", "X-Request-Id",
	} {
		v := h.Get(k)
		if v == "" {
			continue
		}
		if k == "Authorization" {
			v = "Bearer " + masked(strings.TrimPrefix(v, "Bearer "))
		}
		fmt.Fprintf(b, "%s%s: %s\n", mark, k, clean(v))
	}
}

// masked keeps what tells keys apart and nothing that opens a door: the kind of the key and its last four characters.
func masked(key string) string {
	if len(key) < 20 {
		return "••••"
	}
	kind := ""
	if i := strings.LastIndexByte(key[:12], '_'); i > 0 {
		kind = key[:i+1]
	}
	return kind + "••••" + key[len(key)-4:]
}
