package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// rawServer answers every connection with serve, after the request was read whole.
func rawServer(t *testing.T, serve func(c net.Conn, r *http.Request)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				serve(c, r)
			}
			_ = c.Close()
		}
	}()
	return "http://" + ln.Addr().String()
}

func do(t *testing.T, ctx context.Context, c *http.Client, r Request) (Response, *delivery.Failure) {
	t.Helper()
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	resp, err := Do(ctx, c, r)
	if err == nil {
		return resp, nil
	}
	var f *delivery.Failure
	require.ErrorAs(t, err, &f)
	require.True(t, f.Known)
	require.NotEmpty(t, f.Code)
	require.NotEmpty(t, f.Detail)
	return resp, f
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		status       int
		body         string
		partial      bool
		inDoubt      bool
	}{
		{"whole", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", false, false},
		{"empty", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", false, false},
		{"until close", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok", false, false},
		{"cut body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", 200, "ok", true, false},
		{"cut chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 200, "ab", true, false},
		{"exactly the limit", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("a", 64), 200, strings.Repeat("a", 64), false, false},
		{"over the limit", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("a", 6400), 200, strings.Repeat("a", 64), true, false},
		{"announced over the limit", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + strings.Repeat("a", 100), 200,
			strings.Repeat("a", 64), true, false},
		{"switching protocols", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw", 101, "", false, false},
		{"a lie about gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nzz", 200, "zz", false, false},
		{"redirect", "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", 302, "", false, false},
		{"nothing", "", 0, "", false, true},
		{"garbage", "220 smtp.example ESMTP\r\n\r\n", 0, "", false, true},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Le", 0, "", false, true},
		{"huge head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 64<<10)+"\r\n", 100) + "\r\n", 0, "", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := rawServer(t, func(conn net.Conn, _ *http.Request) { _, _ = io.WriteString(conn, c.answer) })
			resp, f := do(t, context.Background(), newClient(t), Request{URL: url, Body: []byte("{}"), MaxBody: 64})
			if c.inDoubt {
				require.NotNil(t, f)
				require.Equal(t, delivery.InDoubt, f.Class)
				return
			}
			require.Nil(t, f)
			require.Equal(t, c.status, resp.Status)
			require.Equal(t, c.body, string(resp.Body))
			require.Equal(t, c.partial, resp.Partial)
		})
	}
}

type refusal struct{}

func (refusal) Error() string         { return "no" }
func (refusal) EgressBlocked() string { return "address" }

func TestFailuresBeforeTheRequestLeft(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = quietLog()
	secure.StartTLS()
	defer secure.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	goneURL := gone.URL
	gone.Close()
	dialErr := func(err error) *http.Client {
		return &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}}
	}
	for _, c := range []struct {
		name, url  string
		client     *http.Client
		code       string
		shared     delivery.Class
		perMessage delivery.Class
	}{
		{"refused", goneURL, nil, "connect", delivery.ConnectorDown, delivery.Transient},
		{"unknown issuer", secure.URL, nil, "tls", delivery.ConnectorDown, delivery.Transient},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), nil, "tls", delivery.ConnectorDown, delivery.Transient},
		{"dns", "http://x.example/", dialErr(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x.example", IsNotFound: true}}),
			"dns", delivery.ConnectorDown, delivery.Transient},
		{"blocked", "http://x.example/", dialErr(&net.OpError{Op: "dial", Err: refusal{}}), "blocked_address",
			delivery.ConnectorDown, delivery.Rejected},
		{"unreadable", "http://[::1", nil, "invalid_url", delivery.Rejected, delivery.Rejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := c.client
			if client == nil {
				client = newClient(t)
			}
			_, f := do(t, context.Background(), client, Request{URL: c.url})
			require.NotNil(t, f)
			require.Equal(t, c.code, f.Code, "%v", f)
			require.Equal(t, c.shared, f.Class)
			_, f = do(t, context.Background(), client, Request{URL: c.url, PerMessage: true})
			require.NotNil(t, f)
			require.Equal(t, c.perMessage, f.Class)
		})
	}
}

func TestExpiredCertificateNamesItsDate(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = quietLog()
	secure.StartTLS()
	defer secure.Close()
	tr := secure.Client().Transport.(*http.Transport).Clone()
	defer tr.CloseIdleConnections()
	late := secure.Certificate().NotAfter.Add(time.Hour)
	tr.TLSClientConfig = &tls.Config{RootCAs: tr.TLSClientConfig.RootCAs, Time: func() time.Time { return late }}
	_, f := do(t, context.Background(), &http.Client{Transport: tr}, Request{URL: secure.URL})
	require.NotNil(t, f)
	require.Equal(t, "tls", f.Code)
	require.Contains(t, f.Detail, secure.Certificate().NotAfter.UTC().Format("2006-01-02"))
}

func TestCancellation(t *testing.T) {
	got, release := make(chan struct{}), make(chan struct{})
	url := rawServer(t, func(net.Conn, *http.Request) { close(got); <-release })
	t.Cleanup(func() { close(release) })
	client := newClient(t)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, f := do(t, ctx, client, Request{URL: url})
	require.Equal(t, delivery.Transient, f.Class)
	require.ErrorIs(t, f, context.Canceled)

	ctx, cancel = context.WithCancel(context.Background())
	go func() { <-got; cancel() }()
	_, f = do(t, ctx, client, Request{URL: url})
	require.Equal(t, delivery.InDoubt, f.Class)
	require.Equal(t, "canceled", f.Code)
	require.ErrorIs(t, f, context.Canceled)

	// A dial that never ends: nothing has left when time runs out.
	stuck := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		<-release
		return nil, net.ErrClosed
	}}}
	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, f = do(t, ctx, stuck, Request{URL: "http://x.example/"})
	require.Equal(t, delivery.Transient, f.Class)
	require.Equal(t, "timeout", f.Code)
	require.ErrorIs(t, f, context.DeadlineExceeded)
}

func TestDripEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	url := rawServer(t, func(c net.Conn, _ *http.Request) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n.")
		cancel()
		_, _ = io.Copy(io.Discard, c) // until the client hangs up
	})
	resp, f := do(t, ctx, newClient(t), Request{URL: url})
	if f == nil { // the head had come in time
		require.Equal(t, 200, resp.Status)
		require.True(t, resp.Partial)
		return
	}
	require.Equal(t, delivery.InDoubt, f.Class)
}

func TestClassify(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for status := 100; status < 600; status++ {
		f := Classify(Response{Status: status}, now)
		if status >= 200 && status < 300 {
			require.Nil(t, f, status)
			continue
		}
		want := delivery.Transient
		switch {
		case status >= 300 && status < 400:
			want = delivery.Rejected
		case status == 429:
			want = delivery.Throttled
		case status == 401, status == 403, status == 407:
			want = delivery.ConnectorDown
		case status == 408, status == 425:
		case status >= 400 && status < 500:
			want = delivery.Rejected
		}
		require.Equal(t, want, f.Class, status)
		require.True(t, f.Known)
		require.NotEmpty(t, f.Detail)
	}
	f := Classify(Response{Status: 503, Header: http.Header{"Retry-After": {"7"}}}, now)
	require.Equal(t, delivery.Throttled, f.Class)
	require.Equal(t, 7*time.Second, f.RetryAfter)
	require.Equal(t, delivery.Transient, Classify(Response{Status: 503, Header: http.Header{"Retry-After": {"Tue"}}}, now).Class)
	require.Equal(t, delivery.Transient, Classify(Response{Status: 999}, now).Class)
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "Tue": 0, "1.5": 0, "-": 0, "1 hour": 0, "0": time.Second, "-1": time.Second, "-99999999999999999999": time.Second,
		"1": time.Second, "120": 2 * time.Minute, " 5 ": 5 * time.Second, "3601": time.Hour, "999999999": time.Hour,
		"99999999999999999999999": time.Hour, "Thu, 01 Oct 2026 12:00:30 GMT": 30 * time.Second,
		"Thu, 01 Oct 2026 11:00:00 GMT": time.Second, "Fri, 01 Oct 2027 12:00:00 GMT": time.Hour,
		"Thursday, 01-Oct-26 12:00:10 GMT": 10 * time.Second,
	} {
		require.Equal(t, want, RetryAfter(http.Header{"Retry-After": {v}}, now), "%q", v)
	}
	require.Zero(t, RetryAfter(nil, now))
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("1")
	f.Add("-1")
	f.Add("Fri, 01 Oct 2027 12:00:00 GMT")
	f.Fuzz(func(t *testing.T, v string) {
		d := RetryAfter(http.Header{"Retry-After": {v}}, time.Unix(1790000000, 0))
		if d != 0 && (d < MinRetryAfter || d > MaxRetryAfter) {
			t.Fatalf("%q gives %v", v, d)
		}
	})
}

func TestSnippet(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "",
		"plain text":                       "plain text",
		"a\r\n\tb\x00c":                    "a b c",
		"to +12025550123 x":                "to [number] x",
		"to 1-202-555-0123":                "to [number]",
		"mail ann@example.com, again":      "mail [address] again",
		"code 131026 stays":                "code 131026 stays",
		"token EAAGm0PX4ZCpsBAOZB1234abcd": "token [token]",
		"key s3cr3t! leaks":                "key [secret] leaks",
		"bad \xff\xfe utf":                 "bad \uFFFD utf",
		"\x1b[31mred\x1b[0m":               "[31mred [0m",
	} {
		got := Snippet(in, 200, "s3cr3t!")
		if strings.Contains(in, "again") {
			require.NotContains(t, got, "ann@")
			continue
		}
		require.Equal(t, want, got, "%q", in)
	}
	require.Len(t, Snippet(strings.Repeat("a ", 5000), MaxDetail), MaxDetail)
	// A secret that would be cut in two by a limit must not survive in halves.
	require.NotContains(t, Snippet(strings.Repeat(" ", 905)+"!secret!", MaxDetail, "!secret!"), "!sec")
}

func FuzzSnippet(f *testing.F) {
	f.Add("a\x00b +12025550123 ann@example.com", 20)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = max(3, min(n, 300))
		got := Snippet(s, n)
		if len(got) > n || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x00\x1b") {
			t.Fatalf("%q gives %q", s, got)
		}
	})
}

func TestHeadersArriveAndNothingIsSentTwice(t *testing.T) {
	var seen []string
	url := rawServer(t, func(c net.Conn, r *http.Request) {
		seen = append(seen, r.Header.Get("X-Test"))
		_, _ = fmt.Fprintf(c, "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	resp, f := do(t, context.Background(), newClient(t), Request{URL: url, Header: http.Header{"X-Test": {"1"}}, Body: []byte("x")})
	require.Nil(t, f)
	require.Equal(t, 500, resp.Status)
	require.Equal(t, []string{"1"}, seen)
}
