package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/admission"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

func TestImportanceOfRoutes(t *testing.T) {
	got := map[string][]string{}
	for _, rt := range routes() {
		in := intakeOf(rt)
		name := in.class.String()
		if in.brings {
			name += ", brings messages"
		}
		if in.streams {
			name += ", streams"
		}
		got[name] = append(got[name], rt.method+" "+rt.path)
	}
	require.Equal(t, []string{"POST /v1/messages"}, got["accepts, brings messages"])
	require.Equal(t, []string{"POST /v1/messages/batch"}, got["bulk, brings messages"])
	require.Equal(t, []string{"POST /v1/audiences/{name}/import"}, got["bulk, streams"])
	require.Equal(t, []string{"* /v1/inbound/{account}"}, got["receipts"])
	require.ElementsMatch(t, []string{"POST /v1/campaigns/{name}:start", "POST /v1/dlq:retry"}, got["bulk"])
	require.ElementsMatch(t, []string{
		"GET /healthz", "GET /readyz", "GET /metrics", "GET /version", "GET /openapi.json", "GET /docs",
	}, got["free"])
	for _, path := range []string{
		"GET /v1/messages", "GET /v1/messages/{id}/timeline", "GET /v1/messages/{id}/explain", "GET /v1/events",
		"GET /v1/audit",
		"GET /v1/campaigns/{name}/report", "GET /v1/campaigns", "POST /v1/campaigns/{name}:check", "GET /v1/dlq",
	} {
		require.Contains(t, got["reads"], path)
	}
	for _, path := range []string{
		"GET /v1/whoami", "POST /v1/messages/{id}:cancel", "POST /v1/campaigns/{name}:pause",
		"POST /v1/campaigns/{name}:stop",
		"POST /v1/connectors/{name}:pause", "POST /v1/suppressions", "GET /v1/messages/{id}",
	} {
		require.Contains(t, got["control"], path)
	}
}

// gated is a rig whose gate is the test's.
func gated(t testing.TB, o admission.Options, change ...func(*Deps)) (*rig, *admission.Gate) {
	g := admission.New(&o)
	return newRig(t, append(change, func(d *Deps) { d.Admission = g })...), g
}

// occupy takes what a class has, for somebody else, and returns what gives it back.
func occupy(t testing.TB, g *admission.Gate, now time.Time, c admission.Class) (free func()) {
	t.Helper()
	var held []*admission.Pass
	for owner, failed := 0, 0; failed < 2; owner++ {
		failed++
		for {
			p := &admission.Pass{}
			if g.Enter(now, admission.Ask{Class: c, Owner: fmt.Sprint("other ", owner)}, p) != nil {
				break
			}
			held = append(held, p)
			failed = 0
		}
	}
	return sync.OnceFunc(func() {
		for _, p := range held {
			p.Leave()
		}
	})
}

// refused checks what every refusal has.
func refused(t testing.TB, a answer, status int, code string) sdk.Error {
	t.Helper()
	p := a.problem(t)
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, code, p.Code)
	n, err := strconv.Atoi(a.header.Get("Retry-After"))
	require.NoError(t, err, "Retry-After %q", a.header.Get("Retry-After"))
	require.GreaterOrEqual(t, n, 1)
	return p
}

func TestOverloadedIsSaidAndPasses(t *testing.T) {
	r, g := gated(t, admission.Options{Requests: 20})
	free := occupy(t, g, start, admission.Accepts)
	for range 3 {
		p := refused(t, r.post(r.acme, "/v1/messages", hello), 503, "overloaded")
		require.Contains(t, p.Detail, "nothing was done")
	}
	require.Equal(t, 200, r.get(r.acme, "/v1/messages").status, "another class")
	require.Equal(t, 401, r.post("mk_live_wrong", "/v1/messages", hello).status, "who has no key learns nothing")
	free()
	m := r.accept(r.acme, hello)

	defer occupy(t, g, start, admission.Reads)()
	refused(t, r.get(r.acme, "/v1/messages"), 503, "overloaded")
	require.Equal(t, 200, r.get(r.acme, "/v1/events?wait=1ms").status, "a long poll costs little")
	require.Equal(t, 200, r.get(r.acme, "/v1/messages/"+m.ID).status)
	defer occupy(t, g, start, admission.Polls)()
	refused(t, r.get(r.acme, "/v1/events?wait=1ms"), 503, "overloaded")
	require.NotContains(t, r.log.String(), "request failed", "refusals do not flood the log")

	defer occupy(t, g, start, admission.Accepts)()
	defer occupy(t, g, start, admission.Bulk)()
	for _, path := range []string{"/healthz", "/readyz", "/version"} {
		require.Equal(t, 200, r.get("", path).status, path)
	}
	require.Equal(t, 200, r.get(r.acme, "/v1/whoami").status)
	require.Equal(t, 200, r.post(r.acme, "/v1/messages/"+m.ID+":cancel", "").status)
}

// socket is a connection on which a test writes what it likes.
type socket struct {
	net.Conn
	r *bufio.Reader
}

func (r *rig) socket() socket {
	nc, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = nc.Close() })
	require.NoError(r.t, nc.SetDeadline(time.Now().Add(30*time.Second)))
	return socket{nc, bufio.NewReader(nc)}
}

func (c socket) head(path, key string, length string) {
	const json = "Content-Type: application/json"
	_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n%s\r\n\r\n", path, key, json, length)
}

func (c socket) answer(t testing.TB) answer {
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if resp.Close { // which net/http takes out of the header
		resp.Header.Set("Connection", "close")
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// TestTheBodyIsNotWaitedFor sends headers without the bodies that they promise: the answer comes all the same.
func TestTheBodyIsNotWaitedFor(t *testing.T) {
	r, g := gated(t, admission.Options{Requests: 20})
	defer occupy(t, g, start, admission.Accepts)()
	defer occupy(t, g, start, admission.Bulk)()
	for name, c := range map[string]struct{ path, length string }{
		"small":    {"/v1/messages", "Content-Length: 100"},
		"large":    {"/v1/messages", "Content-Length: 1000000"},
		"huge":     {"/v1/messages/batch", "Content-Length: 1000000000000"},
		"chunked":  {"/v1/messages/batch", "Transfer-Encoding: chunked"},
		"expected": {"/v1/messages", "Content-Length: 100\r\nExpect: 100-continue"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.socket()
			conn.head(c.path, r.acme, c.length)
			a := conn.answer(t)
			refused(t, a, 503, "overloaded")
			require.Equal(t, "close", a.header.Get("Connection"))
			_, err := conn.r.ReadByte()
			require.Error(t, err, "the connection ends: nobody waits for the rest")
		})
	}
}

func TestASmallRefusalKeepsTheConnection(t *testing.T) {
	r, g := gated(t, admission.Options{Requests: 20})
	free := occupy(t, g, start, admission.Accepts)
	kept := 0
	for range 20 { // on a busy machine a body may come late now and then
		conn := r.socket()
		conn.head("/v1/messages", r.acme, fmt.Sprintf("Content-Length: %d", len(hello)))
		_, _ = io.WriteString(conn, hello)
		a := conn.answer(t)
		refused(t, a, 503, "overloaded")
		if a.header.Get("Connection") == "close" {
			continue
		}
		kept++
		_, _ = io.WriteString(conn, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+r.acme+"\r\n\r\n")
		require.Equal(t, 200, conn.answer(t).status, "the next request is not harmed")
	}
	require.Positive(t, kept)
	free()
	r.accept(r.acme, hello)
}

// rated gives tenants a rate.
type rated struct {
	store.Store
	rates sync.Map // delivery.TenantID → float64
}

func (s *rated) Tenant(ctx context.Context, sys store.System, id delivery.TenantID) (store.Tenant, error) {
	t, err := s.Store.Tenant(ctx, sys, id)
	if v, ok := s.rates.Load(id); ok {
		t.AcceptRate = v.(float64)
	}
	return t, err
}

func TestATenantsRate(t *testing.T) {
	s := &rated{}
	r, _ := gated(t, admission.Options{}, func(d *Deps) { s.Store = d.Store; d.Store = s })
	s.rates.Store(delivery.TenantID("acme"), 2.0)
	r.accept(r.acme, hello)
	r.accept(r.acme, hello)
	p := refused(t, r.post(r.acme, "/v1/messages", hello), 429, "tenant_rate_limited")
	require.Contains(t, p.Detail, "messages per second")
	require.Equal(t, 200, r.get(r.acme, "/v1/messages").status, "reading costs nothing of it")
	for range 20 {
		r.accept(r.globex, hello)
	}
	r.clock.Advance(500 * time.Millisecond)
	r.accept(r.acme, hello)
	refused(t, r.post(r.acme, "/v1/messages", hello), 429, "tenant_rate_limited")

	// A batch costs what it has, and may run up a debt.
	r.clock.Advance(time.Second)
	batch := strings.Repeat(hello+"\n", 20)
	send := func(key string) answer {
		return r.send(request{method: "POST", path: "/v1/messages/batch", key: r.acme, body: batch, media: batchMedia[0],
			header: http.Header{"Idempotency-Key": {key}}})
	}
	require.Equal(t, 200, send("k").status)
	a := send("k2")
	refused(t, a, 429, "tenant_rate_limited")
	n, _ := strconv.Atoi(a.header.Get("Retry-After"))
	require.InDelta(t, 12, n, 3, "20 messages at 2 a second, and up to 4 s of spread")
	r.clock.Advance(10 * time.Second)
	a = send("k")
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, "true", a.header.Get("Idempotency-Replayed"))
	r.accept(r.acme, hello) // the repeated batch cost one, and not twenty

	// A rate that has been changed holds within seconds, and at once where the change is made here.
	s.rates.Store(delivery.TenantID("acme"), 1000.0)
	refused(t, r.post(r.acme, "/v1/messages", hello), 429, "tenant_rate_limited")
	r.api.rates.forget("acme")
	for range 50 {
		r.accept(r.acme, hello)
	}
}

func TestStorageLow(t *testing.T) {
	r, g := gated(t, admission.Options{})
	g.Room(&admission.Low{Free: 100e6, Need: 256e6})
	p := refused(t, r.post(r.acme, "/v1/messages", hello), 503, "storage_low")
	require.Contains(t, p.Detail, "100.0 MB free, 256.0 MB needed")
	for _, path := range []string{"/v1/messages/batch", "/v1/audiences/people/import", "/v1/campaigns/c:start"} {
		a := r.send(request{method: "POST", path: path, key: r.acme, body: "x", media: batchMedia[0]})
		refused(t, a, 503, "storage_low")
	}
	require.Equal(t, 200, r.get(r.acme, "/v1/messages").status)
	require.NotEqual(t, 503, r.post("", "/v1/inbound/"+r.ids.Account().String(), "x").status, "reports go through")
	g.Room(nil)
	r.accept(r.acme, hello)
}

// TestBodiesOfUnknownLength fills the memory for bodies by ones whose header does not say how large they are.
func TestBodiesOfUnknownLength(t *testing.T) {
	r, g := gated(t, admission.Options{Bytes: 1 << 20})
	row := []byte(hello + strings.Repeat(" ", 500) + "\n")
	many := bytes.Repeat(row, 2<<20/len(row))
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	_, _ = zip.Write(many)
	require.NoError(t, zip.Close())
	for name, q := range map[string]request{
		"chunked": {reader: bytes.NewReader(many)},
		"gzip":    {body: packed.String(), header: http.Header{"Content-Encoding": {"gzip"}}},
	} {
		q.method, q.path, q.key, q.media = "POST", "/v1/messages/batch", r.acme, batchMedia[0]
		a := r.send(q)
		refused(t, a, 503, "overloaded")
		if q.reader != nil {
			q.reader = bytes.NewReader(bytes.Repeat(row, 100))
		} else {
			q.header, q.body = nil, string(bytes.Repeat(row, 100))
		}
		require.Equal(t, 200, r.send(q).status, "%s: everything was given back", name)
	}
	require.Equal(t, 0, g.Load(admission.Bulk).InProgress)
	list := r.get(r.acme, "/v1/messages?limit=1000")
	require.Equal(t, 200, strings.Count(list.body, `"id"`), "nothing of a refused batch was stored")
}

// TestSlowBodies opens 1,000 requests of one tenant whose bodies never come: another tenant does not notice, and what
// they hold is bounded.
func TestSlowBodies(t *testing.T) {
	r, g := gated(t, admission.Options{})
	conns := make([]socket, 1000)
	for i := range conns {
		conns[i] = r.socket()
		conns[i].head("/v1/messages", r.acme, "Content-Length: 1000000")
		_, _ = io.WriteString(conns[i], "{")
	}
	answered := make(chan answer, len(conns))
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				return // the test has ended the connection
			}
			b, _ := io.ReadAll(resp.Body)
			answered <- answer{resp.StatusCode, resp.Header, string(b)}
		})
	}
	const most = 64 << 20 * 7 / 8 * 4 / 5 / 1_000_000 // what accepts may hold, and one alone of that
	for range len(conns) - most - 1 {
		a := <-answered
		require.Contains(t, []int{429, 503}, a.status, a.body)
		refused(t, a, a.status, a.problem(t).Code)
	}
	require.LessOrEqual(t, g.Load(admission.Accepts).InProgress, most+1)
	for range 50 {
		r.accept(r.globex, hello)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	wg.Wait()
}

// TestAFloodOfOneTenant holds every request of a flooding tenant in the store: another one gets through.
func TestAFloodOfOneTenant(t *testing.T) {
	var held atomic.Int64
	release := make(chan struct{})
	full := make(chan struct{}, 1)
	r, _ := gated(t, admission.Options{Requests: 50, Refused: func(admission.Class, admission.Reason) {
		select {
		case full <- struct{}{}:
		default:
		}
	}}, func(d *Deps) { d.Accept = holding{d.Store, &held, release} })
	var wg sync.WaitGroup
	statuses := make(chan int, 100)
	for range 100 {
		wg.Go(func() { statuses <- r.post(r.acme, "/v1/messages", hello).status })
	}
	<-full
	for range 20 {
		r.accept(r.globex, hello)
	}
	for range 60 {
		require.Contains(t, []int{429, 503}, <-statuses)
	}
	require.LessOrEqual(t, held.Load(), int64(40), "four fifths of 50")
	close(release)
	wg.Wait()
	for range 40 {
		require.Equal(t, 202, <-statuses)
	}
}

// holding is an Accepter that holds acme's messages until release is closed.
type holding struct {
	store.Accepter
	held    *atomic.Int64
	release chan struct{}
}

func (h holding) Accept(ctx context.Context, t delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	if t == "acme" {
		h.held.Add(1)
		<-h.release
	}
	return h.Accepter.Accept(ctx, t, a)
}

// TestTheSDKComesBack sends by the SDK to an engine that refuses once.
func TestTheSDKComesBack(t *testing.T) {
	var free func()
	var refusals atomic.Int64
	r, g := gated(t, admission.Options{
		Requests: 20, Spread: func(int) int { return 0 },
		Refused: func(admission.Class, admission.Reason) { refusals.Add(1) },
	})
	free = occupy(t, g, start, admission.Accepts)
	before := refusals.Load()
	free503 := afterwards{r.client.Transport, func(status int) {
		if status == 503 {
			free()
		}
	}}
	client := sdk.New(sdk.WithURL(r.url), sdk.WithKey(r.acme), sdk.WithHTTPClient(&http.Client{Transport: free503}))
	m, err := client.Send(context.Background(), sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	require.NotEmpty(t, m.ID)
	require.EqualValues(t, 1, refusals.Load()-before, "it waited for Retry-After and asked once more")
}

// afterwards tells each answer's status.
type afterwards struct {
	http.RoundTripper
	tell func(status int)
}

func (a afterwards) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := a.RoundTripper.RoundTrip(r)
	if err == nil {
		a.tell(resp.StatusCode)
	}
	return resp, err
}

func TestTooManyConnections(t *testing.T) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(tooManyConnections())), nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 503, resp.StatusCode)
	require.True(t, resp.Close)
	require.Contains(t, []string{"1", "2", "3", "4", "5"}, resp.Header.Get("Retry-After"))
	require.JSONEq(t, `{"type":"about:blank","code":"overloaded","status":503,"title":"The engine has too much to do",
		"detail":"too many connections are open; nothing was done"}`, string(b))
	require.Less(t, len(tooManyConnections()), 1024, "it must fit into any socket's buffer")
}
