package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func corpus(t testing.TB, name string) []string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "# ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestCheckURLRefusesTheCorpus(t *testing.T) {
	g := New(Policy{})
	lines := corpus(t, "blocked.txt")
	require.GreaterOrEqual(t, len(lines), 120)
	for _, line := range lines {
		want, raw, _ := strings.Cut(line, " ")
		t.Run(raw, func(t *testing.T) {
			var b *BlockedError
			require.ErrorAs(t, g.CheckURL(raw), &b)
			require.Equal(t, want, string(b.Reason), b.Detail)
			require.Equal(t, want, b.EgressBlocked())
		})
	}
}

func TestCheckURLAllows(t *testing.T) {
	g := New(Policy{})
	for _, raw := range corpus(t, "allowed.txt") {
		require.NoError(t, g.CheckURL(raw), raw)
	}
}

func TestCheckURLRefusesControlsAndLength(t *testing.T) {
	g := New(Policy{AllowLoopback: true, AllowPrivate: true, AllowHTTP: true})
	for _, raw := range []string{"https://example.com/\r\nX: y", "https://example.com/\x00", " https://example.com/", "https://exa\tmple.com/",
		"https://example.com/" + strings.Repeat("a", 2048), "https://" + strings.Repeat("a.", 130) + "com/"} {
		var b *BlockedError
		require.ErrorAs(t, g.CheckURL(raw), &b, "%q", raw)
		require.Equal(t, BadHost, b.Reason)
	}
}

func TestBlockedErrorShowsNoSecret(t *testing.T) {
	for _, raw := range []string{"https://user:hunter2@example.com/", "https://exa mple.com/hunter2", "ftp://x/?hunter2", "https://127.0.0.1/hunter2"} {
		err := New(Policy{}).CheckURL(raw)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		name   string
		p      Policy
		raw    string
		reason Reason // "" = allowed
	}{
		{"loopback: literal", Policy{AllowLoopback: true}, "http://127.0.0.1:45678/x", ""},
		{"loopback: v6", Policy{AllowLoopback: true}, "http://[::1]:45678/x", ""},
		{"loopback: name", Policy{AllowLoopback: true}, "http://localhost:9/x", ""},
		{"loopback: mapped", Policy{AllowLoopback: true}, "http://[::ffff:127.0.0.1]:45678/x", ""},
		{"loopback: no private", Policy{AllowLoopback: true}, "http://10.0.0.1/", BadAddress},
		{"loopback: no metadata", Policy{AllowLoopback: true}, "http://169.254.169.254/", BadAddress},
		{"loopback: other port elsewhere", Policy{AllowLoopback: true}, "https://example.com:9999/", BadPort},
		{"loopback: odd form", Policy{AllowLoopback: true}, "http://0x7f.1/", BadHost},
		{"private", Policy{AllowPrivate: true}, "https://10.0.0.1/", ""},
		{"private: ula", Policy{AllowPrivate: true}, "https://[fd12::1]/", ""},
		{"private: cgnat", Policy{AllowPrivate: true}, "https://100.64.0.1/", ""},
		{"private: short name", Policy{AllowPrivate: true}, "https://wiki/", ""},
		{"private: local name", Policy{AllowPrivate: true}, "https://wiki.corp/", ""},
		{"private: aws v6 metadata", Policy{AllowPrivate: true}, "https://[fd00:ec2::254]/", BadAddress},
		{"private: alibaba metadata", Policy{AllowPrivate: true}, "https://100.100.100.200/", BadAddress},
		{"private: azure wire server", Policy{AllowPrivate: true}, "https://168.63.129.16/", BadAddress},
		{"private: link local", Policy{AllowPrivate: true}, "https://169.254.169.254/", BadAddress},
		{"private: no loopback", Policy{AllowPrivate: true}, "https://127.0.0.1/", BadAddress},
		{"private: no localhost", Policy{AllowPrivate: true}, "https://localhost/", BadHost},
		{"private: no http", Policy{AllowPrivate: true}, "http://10.0.0.1/", BadScheme},
		{"http", Policy{AllowHTTP: true}, "http://example.com/", ""},
		{"http: address", Policy{AllowHTTP: true}, "http://127.0.0.1/", BadAddress},
		{"http: other port", Policy{AllowHTTP: true}, "http://example.com:8080/", BadPort},
		{"ports", Policy{Ports: []int{9443}}, "https://example.com:9443/", ""},
		{"ports: default gone", Policy{Ports: []int{9443}}, "https://example.com/", BadPort},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := New(c.p).CheckURL(c.raw)
			if c.reason == "" {
				require.NoError(t, err)
				return
			}
			var b *BlockedError
			require.ErrorAs(t, err, &b)
			require.Equal(t, c.reason, b.Reason)
		})
	}
}

func TestDialChecksTheAddressAndNotTheName(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	strict := New(Policy{})
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"} {
		var b *BlockedError
		_, err := strict.Dial(context.Background(), "tcp", host+":"+port)
		require.ErrorAs(t, err, &b, host)
		require.Equal(t, BadAddress, b.Reason)
	}
	var b *BlockedError
	_, err = strict.Dial(context.Background(), "unix", "/var/run/docker.sock")
	require.ErrorAs(t, err, &b)
	c, err := New(Policy{AllowLoopback: true}).Dial(context.Background(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// A name server that answers with a public address first and with 127.0.0.1 afterwards is a rebinding attack: the check
// at accept time passes, the dial must not.
func TestRebindingIsRefusedAtTheDial(t *testing.T) {
	addr, asked := rebindingDNS(t)
	g := New(Policy{Ports: []int{443, 8443}})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", addr)
	}}
	g.dialer.Resolver, g.web.Resolver = resolver, resolver
	require.NoError(t, g.CheckURL("https://rebind.example.com/"))
	first, err := resolver.LookupNetIP(context.Background(), "ip4", "rebind.example.com.")
	require.NoError(t, err)
	require.Equal(t, netip.MustParseAddr("93.184.216.34"), first[0].Unmap())
	client := g.HTTPClient()
	defer client.CloseIdleConnections()
	_, err = client.Get("https://rebind.example.com./")
	var b *BlockedError
	require.ErrorAs(t, err, &b)
	require.Equal(t, BadAddress, b.Reason)
	require.Greater(t, asked.Load(), int32(1))
}

func rebindingDNS(t *testing.T) (addr string, asked *atomic.Int32) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	asked = new(atomic.Int32)
	done := make(chan struct{})
	t.Cleanup(func() { _ = pc.Close(); <-done })
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
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				ip := [4]byte{127, 0, 0, 1}
				if asked.Add(1) == 1 {
					ip = [4]byte{93, 184, 216, 34}
				}
				h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 0}
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: ip}}}
			}
			out, err := m.Pack()
			if err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return pc.LocalAddr().String(), asked
}

func TestHTTPClient(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		case "/headers":
			for range 100 {
				w.Header().Add("X-Big", strings.Repeat("a", 64<<10))
			}
		case "/encoding":
			_, _ = w.Write([]byte(r.Header.Get("Accept-Encoding")))
		}
	}))
	defer srv.Close()
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
	client := New(Policy{AllowLoopback: true}).HTTPClient()
	defer client.CloseIdleConnections()
	get := func(path string) (*http.Response, error) {
		resp, err := client.Get(srv.URL + path)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	resp, err := get("/redirect")
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, resp.StatusCode)
	require.EqualValues(t, 1, hits.Load())
	_, err = get("/headers")
	require.ErrorContains(t, err, "header")
	resp, err = get("/encoding")
	require.NoError(t, err)
	require.Zero(t, resp.ContentLength, "no compression may be asked for")

	strict := New(Policy{}).HTTPClient()
	defer strict.CloseIdleConnections()
	before := hits.Load()
	for url, want := range map[string]Reason{
		srv.URL: BadScheme, "https://u:p@example.com/": BadUserinfo, strings.Replace(srv.URL, "http:", "https:", 1): BadAddress,
		"https://8.8.8.8:25/": BadPort,
	} {
		_, err := strict.Post(url, "text/plain", strings.NewReader("x"))
		var b *BlockedError
		require.True(t, errors.As(err, &b), "%s: %v", url, err)
		require.Equal(t, want, b.Reason, url)
	}
	require.Equal(t, before, hits.Load())
}

func FuzzCheckURL(f *testing.F) {
	for _, line := range corpus(f, "blocked.txt") {
		_, raw, _ := strings.Cut(line, " ")
		f.Add(raw)
	}
	for _, raw := range corpus(f, "allowed.txt") {
		f.Add(raw)
	}
	g := New(Policy{})
	f.Fuzz(func(t *testing.T, raw string) {
		if g.CheckURL(raw) != nil {
			return
		}
		// What passes must be what net/http would see in the same way: https, a host, no user, and no forbidden literal.
		req, err := http.NewRequest(http.MethodPost, raw, nil)
		require.NoError(t, err)
		require.Equal(t, "https", req.URL.Scheme)
		require.Nil(t, req.URL.User)
		require.NotEmpty(t, req.URL.Hostname())
		if ip, err := netip.ParseAddr(req.URL.Hostname()); err == nil {
			require.NoError(t, g.checkAddr(ip))
		}
	})
}
