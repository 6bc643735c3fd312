package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// nameServer makes every look-up of this process go to a server of the test's, which answers by the first label.
func nameServer(t *testing.T, answers map[string]string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	done := make(chan struct{})
	t.Cleanup(func() { net.DefaultResolver = before; _ = pc.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			m.Response, m.Additionals = true, nil
			q := m.Questions[0]
			label, _, _ := strings.Cut(q.Name.String(), ".")
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
			if ip, err := netip.ParseAddr(answers[label]); err == nil {
				switch {
				case q.Type == dnsmessage.TypeA && ip.Is4():
					m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: ip.As4()}}}
				case q.Type == dnsmessage.TypeAAAA && ip.Is6():
					m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}}}
				}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
}

// A name that passes at accept and turns out to lead inside is refused at the dial, once, and nothing is tried again.
func TestNamesThatLeadInside(t *testing.T) {
	inside := map[string]string{
		"loopback": "127.0.0.1", "private": "10.0.0.1", "metadata": "169.254.169.254", "six": "::1", "mapped": "::ffff:10.0.0.1",
		"nat": "64:ff9b::a9fe:a9fe", "azure": "168.63.129.16", "unspecified": "0.0.0.0", "local": "fd00::1",
	}
	nameServer(t, inside)
	ctx := context.Background()
	e, err := engine.New(engine.Config{Dir: t.TempDir()}, all.Kinds()...)
	require.NoError(t, err)
	require.NoError(t, e.Start(ctx))
	defer func() { require.NoError(t, e.Close()) }()
	c, err := e.Client("acme")
	require.NoError(t, err)
	_, err = c.Connectors.Put(ctx, "hook", sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{"secret": sandbox.HookSecret}})
	require.NoError(t, err)
	for label, ip := range inside {
		t.Run(label, func(t *testing.T) {
			m, err := c.Send(ctx, sdk.Hook{URL: "https://" + label + ".example.com/x", Event: "a", Data: 1})
			require.NoError(t, err, "the name alone says nothing")
			m, err = c.Messages.Wait(ctx, m.ID)
			require.NoError(t, err)
			require.Equal(t, sdk.Failed, m.Status)
			require.Equal(t, "blocked_address", m.Reason)
			require.Equal(t, 1, m.Attempts)
			require.NotContains(t, m.Detail, ip, "the answer of the name server is told to whoever asks")
		})
	}
	// The other protocols dial through the same guard.
	for kind, settings := range map[string]map[string]string{
		"smpp":     {"addr": "private.example.com:2775", "system_id": "a", "password": "b"},
		"smtp":     {"addr": "metadata.example.com:25", "from": "a@example.com"},
		"whatsapp": {"base_url": "https://loopback.example.com", "phone_number_id": "1", "token": "t", "app_secret": "s", "verify_token": "v"},
	} {
		_, err = c.Connectors.Put(ctx, "x-"+kind, sdk.ConnectorRequest{Kind: kind, Settings: settings})
		require.NoError(t, err, kind)
		got, err := c.Connectors.Test(ctx, "x-"+kind)
		require.NoError(t, err, kind)
		require.False(t, got.OK, kind)
		require.Contains(t, got.Detail, "blocked_address", kind)
	}
}

// A redirect is an answer, not a place to go.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var inside atomic.Int32
	target := endpoint(t, func(http.ResponseWriter, *http.Request) { inside.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		from := endpoint(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, status) })
		m := b.message(b.send(sdk.Hook{URL: from, Event: "a", Data: 1}))
		require.Equal(t, sdk.Failed, m.Status)
		require.Equal(t, "redirect", m.Reason)
		require.NotContains(t, m.Detail, target)
	}
	require.Zero(t, inside.Load(), "the redirect was followed")
}

// rude answers every request on a socket by hand.
func rude(t *testing.T, answer func(path string, w io.Writer)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					answer(r.URL.Path, c)
				}
			})
		}
	})
	return "http://" + ln.Addr().String()
}

// forever writes until the other side has had enough.
func forever(w io.Writer, p []byte) {
	for {
		if _, err := w.Write(p); err != nil {
			return
		}
	}
}

// Endpoints that answer too much, too slowly or nonsense cost an attempt and nothing else.
func TestHostileEndpointsThroughTheEngine(t *testing.T) {
	zeros := make([]byte, 64<<10)
	header := []byte("X-Large: " + strings.Repeat("a", 64<<10) + "\r\n")
	url := rude(t, func(path string, w io.Writer) {
		head := "HTTP/1.1 200 OK\r\n"
		switch path {
		case "/flood":
			_, _ = io.WriteString(w, head+"Content-Length: 10000000000\r\n\r\n")
			forever(w, zeros)
		case "/chunks":
			_, _ = io.WriteString(w, head+"Transfer-Encoding: chunked\r\n\r\n")
			forever(w, []byte("1\r\na\r\n"))
		case "/headers":
			_, _ = io.WriteString(w, head)
			for range 100 {
				if _, err := w.Write(header); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, "\r\n")
		case "/line":
			forever(w, zeros)
		case "/drip", "/silence":
			if path == "/drip" {
				_, _ = io.WriteString(w, "HTTP/1.1 20")
			}
			_, _ = io.Copy(io.Discard, w.(net.Conn)) // until the engine gives up
		case "/101":
			_, _ = io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(io.Discard, w.(net.Conn))
		case "/gzip":
			_, _ = io.WriteString(w, head+"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip")
		case "/garbage":
			_, _ = io.WriteString(w, "220 smtp.example.com ESMTP\r\n")
		case "/hints":
			forever(w, []byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
		}
	})
	b := newBox(t, func(o *sandbox.Options) { o.Retry = []time.Duration{time.Hour} })
	_, err := b.Client.Connectors.Put(b.ctx, "sim-hook", sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{
		"secret": sandbox.HookSecret, "timeout": "500ms",
	}})
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const each = 4
	type what struct{ path, code string }
	ids := map[string]what{}
	for path, code := range map[string]string{
		"/flood": "", "/chunks": "", "/gzip": "", "/101": "101", "/drip": "timeout", "/silence": "timeout", "/headers": "connection_lost",
		"/line": "connection_lost", "/garbage": "connection_lost", "/hints": "connection_lost",
	} {
		for range each {
			ids[b.send(sdk.Hook{URL: url + path, Event: "a", Data: 1})] = what{path, code}
		}
	}
	for id, w := range ids {
		var m *sdk.Message
		b.until("the attempt has ended", func() bool {
			m, err = b.Client.Messages.Get(b.ctx, id)
			return err == nil && m.Status != sdk.Queued && m.Status != sdk.Sending
		})
		require.Equal(t, 1, m.Attempts, w.path)
		switch w.code {
		case "": // the status was said before the flood
			require.Equal(t, sdk.Sent, m.Status, "%s: %s", w.path, m.Reason)
		case "101":
			require.Equal(t, sdk.Deferred, m.Status, w.path)
			require.Equal(t, w.code, m.Reason)
		default: // the request had left
			require.Equal(t, sdk.Ambiguous, m.Status, w.path)
			require.Equal(t, w.code, m.Reason)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(16<<20), "memory that stays")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20), "memory for %d attempts", len(ids))
}

// 410 ends an endpoint for good; a Retry-After that makes no sense is brought within bounds.
func TestEndpointsThatAskForSomething(t *testing.T) {
	t.Parallel()
	clock := clockwork.NewFakeClockAt(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	b := newBox(t, onFakeClock(clock))
	var gone atomic.Int32
	dead := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { gone.Add(1); w.WriteHeader(410) })
	m := b.message(b.send(sdk.Hook{URL: dead, Event: "a", Data: 1}))
	require.Equal(t, sdk.Failed, m.Status)
	require.Equal(t, "gone", m.Reason)
	s, err := b.Client.Suppressions.Check(b.ctx, sdk.ChannelWebhook, dead)
	require.NoError(t, err)
	require.NotNil(t, s)
	require.Equal(t, "gone", s.Reason)
	m = b.message(b.send(sdk.Hook{URL: dead, Event: "a", Data: 2}))
	require.Equal(t, sdk.Suppressed, m.Status)
	require.EqualValues(t, 1, gone.Load(), "the endpoint that is gone was called again")
	page, err := b.Client.Events.Page(b.ctx, 0, 100, 0)
	require.NoError(t, err)
	types := map[string]bool{}
	for _, e := range page.Data {
		types[e.Type] = true
	}
	require.True(t, types["message.failed"] && types["message.suppressed"], "%v", types)

	for after, most := range map[string]time.Duration{
		"-1": time.Minute, "999999999": time.Hour, "Tue": time.Minute, "1e9": time.Minute, "99999999999999999999": time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT": time.Hour, "0": time.Minute, "": time.Minute,
	} {
		busy := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(429)
		})
		name := fmt.Sprintf("hook-%x", after)
		name = name[:min(len(name), 40)]
		_, err := b.Client.Connectors.Put(b.ctx, name, sdk.ConnectorRequest{Kind: "webhook", Settings: map[string]string{"secret": sandbox.HookSecret}})
		require.NoError(t, err)
		m := b.message(b.send(sdk.Hook{URL: busy, Event: "a", Data: 1}, sdk.Via(name)))
		require.Equal(t, sdk.Deferred, m.Status, "%q: %s", after, m.Reason)
		require.NotNil(t, m.DueAt, after)
		wait := m.DueAt.Sub(clock.Now())
		require.Greater(t, wait, time.Duration(0), after)
		require.LessOrEqual(t, wait, most, after)
	}
}
