package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/msgctl/msgctl/admission"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// intake is what the gate wants to know of a route.
type intake struct {
	class   admission.Class
	brings  bool // messages, which cost the tenant's rate
	streams bool // its body is never held as a whole
}

// intakeOf says how important a route is. What has no key is free; provider reports are refused last; a list is a
// read; one row, and every change that sends nothing, such as to cancel or to pause, is control.
func intakeOf(rt *route) intake {
	switch rt.method + " " + rt.path {
	case "POST /v1/messages":
		return intake{class: admission.Accepts, brings: true}
	case "POST /v1/messages/batch":
		return intake{class: admission.Bulk, brings: true}
	case "POST /v1/audiences/{name}/import":
		return intake{class: admission.Bulk, streams: true}
	case "POST /v1/campaigns/{name}:start", "POST /v1/dlq:retry":
		return intake{class: admission.Bulk}
	case "POST /v1/campaigns/{name}:check":
		return intake{class: admission.Reads}
	case "GET /v1/whoami", "GET /v1/cluster":
		return intake{class: admission.Control}
	}
	switch {
	case rt.scope == public:
		return intake{class: admission.Free}
	case rt.scope == provider:
		return intake{class: admission.Receipts}
	case rt.method == http.MethodGet && !strings.HasSuffix(rt.path, "}"):
		return intake{class: admission.Reads}
	}
	return intake{class: admission.Control}
}

// importHeld is what an import counts for: it streams, however large the file is.
const importHeld = 1 << 20

// A body must come at 32 KiB a second after the first ten, or the request ends: a sender that stands still must not
// keep a place. The server's own timeout bounds both.
const (
	bodyGrace = 10 * time.Second
	bodySpeed = 32 << 10
)

// admit asks the gate whether the request is taken on, before any of its body is read.
func (c *call) admit() error {
	ask := admission.Ask{Class: c.route.intake.class, Owner: string(c.tenant)}
	switch ask.Class {
	case admission.Free:
		return nil
	case admission.Receipts:
		ask.Owner, ask.Peer = "", peerOf(c.r)
		if _, err := delivery.ParseAccountID(c.vars[0]); err == nil {
			ask.Owner = "account " + c.vars[0]
		}
	case admission.Reads:
		if c.param("wait") != "" {
			ask.Class = admission.Polls
		}
	case admission.Accepts, admission.Bulk:
		if c.route.intake.brings {
			ask.Messages, ask.Rate = 1, c.a.rates.of(c.ctx(), c.tenant)
		}
	}
	ask.Body = min(max(c.r.ContentLength, 0), c.a.Limits.BatchBody)
	if c.route.intake.streams {
		ask.Body = min(ask.Body, importHeld)
	}
	if r := c.a.Admission.Enter(c.a.Now(), ask, &c.pass); r != nil {
		c.drain()
		admission.Rest(c.ctx(), r.Rest)
		return c.refuse(r)
	}
	if n := c.r.ContentLength; n != 0 {
		// Sockets go by the real clock; what is no socket has no deadline and needs none.
		by := time.Now().Add(bodyGrace + time.Duration(max(n, 0)/bodySpeed)*time.Second)
		_ = http.NewResponseController(c.w).SetReadDeadline(by)
	}
	return nil
}

// peerOf is the address a request comes from, without the port.
func peerOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// refuse makes the problem of a refusal.
func (c *call) refuse(r *admission.Refusal) *sdk.Error {
	c.refused = true
	var p *sdk.Error
	switch {
	case r.Reason == admission.Storage:
		p = fail("storage_low", "the engine's disk is nearly full: %s; nothing was stored", r.Low)
	case r.Reason == admission.Rate:
		p = fail("tenant_rate_limited", "the tenant has used up its messages per second; nothing was stored")
	case r.Reason.Own() && r.Class != admission.Receipts:
		p = fail("tenant_rate_limited", "the tenant has too many requests in progress: wait for some of them first")
	default:
		p = fail("overloaded", "the engine has more to do than it can; nothing was done")
	}
	p.RetryAfter = r.RetryAfter
	return p
}

// drainWait is how long a refusal waits for a small body that should be there already.
const (
	drainWait = 2 * time.Millisecond
	drainMost = 64 << 10
)

// drain makes the connection fit for the next request when that is cheap: the body is small and has come together with
// the header. Otherwise the connection is closed after the answer, which does not wait for the body.
func (c *call) drain() {
	n := c.r.ContentLength
	if n == 0 {
		return
	}
	rc := http.NewResponseController(c.w)
	if n > 0 && n <= drainMost && c.r.Header["Expect"] == nil {
		by := time.Now().Add(drainWait)
		if rc.SetReadDeadline(by) == nil {
			_, err := io.CopyN(io.Discard, c.r.Body, n)
			// At the end of the body net/http begins to watch the connection. That watch must not meet the short deadline, or
			// it would end the requests that follow.
			rerr := rc.SetReadDeadline(time.Now().Add(time.Minute))
			if err == nil && rerr == nil && time.Now().Before(by) {
				return
			}
		}
	}
	c.hangUp(rc)
}

// hangUp closes the connection after the answer, without waiting for what is left of the body.
func (c *call) hangUp(rc *http.ResponseController) {
	c.w.Header()["Connection"] = []string{"close"}
	_ = rc.SetReadDeadline(time.Unix(1, 0))
	admission.Linger(c.ctx())
}

// metered counts what a body comes to where the header does not tell: compressed ones, and those sent in chunks.
func (c *call) metered(body io.Reader) io.Reader {
	if c.route.intake.streams || c.r.ContentLength >= 0 && !c.gzipped() {
		return body
	}
	return &meter{c: c, src: body}
}

// meterStep is how much is taken at once.
const meterStep = 64 << 10

type meter struct {
	c    *call
	src  io.Reader
	read int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.src.Read(b)
	m.read += int64(n)
	if over := m.read - m.c.pass.Held(); over > 0 {
		if r := m.c.pass.Grow(max(over, meterStep)); r != nil {
			m.c.hangUp(http.NewResponseController(m.c.w))
			return 0, m.c.refuse(r)
		}
	}
	return n, err
}

// paying is an Accepter that charges tenants for what they bring, and tells the gate how long it takes.
type paying struct {
	store.Accepter
	gate *admission.Gate
	now  func() time.Time
}

func (p paying) Accept(ctx context.Context, t delivery.TenantID, in store.Acceptance) (store.Accepted, error) {
	began := p.now()
	acc, err := p.Accepter.Accept(ctx, t, in)
	if err != nil {
		return acc, err
	}
	if len(in.Messages) == 1 { // a batch takes its time without anything being wrong
		now := p.now()
		p.gate.Observe(now, now.Sub(began))
	}
	if !acc.Replayed {
		p.gate.Spend(string(t), len(in.Messages)-1) // one was paid at the door
	}
	return acc, nil
}

// rateCache remembers how many messages a second tenants may bring. It is bounded: full, it starts anew. A change in
// this process is seen at once, one in another process when Handler is told, or
// within keyTTL.
type rateCache struct {
	store store.Tenants
	now   func() time.Time
	looks singleflight.Group

	mu      sync.Mutex
	known   map[delivery.TenantID]knownRate
	changes uint64 // a rate that was read before a change is not kept
}

type knownRate struct {
	rate  float64
	until time.Time
}

func newRateCache(s store.Tenants, now func() time.Time) *rateCache {
	return &rateCache{store: s, now: now, known: map[delivery.TenantID]knownRate{}}
}

// of returns a tenant's rate, 0 = no bound. When the store cannot tell there is none: to refuse would be worse.
func (r *rateCache) of(ctx context.Context, id delivery.TenantID) float64 {
	now := r.now()
	r.mu.Lock()
	hit, ok := r.known[id]
	changes := r.changes
	r.mu.Unlock()
	if ok && now.Before(hit.until) {
		return hit.rate
	}
	t, err := together(ctx, &r.looks, string(id)+"/"+strconv.FormatUint(changes, 10),
		func(ctx context.Context) (store.Tenant, error) { return r.store.Tenant(ctx, system(), id) })
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return 0
		}
		return hit.rate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes == changes {
		if len(r.known) >= keysCache {
			clear(r.known)
		}
		r.known[id] = knownRate{t.AcceptRate, now.Add(keyTTL)}
	}
	return t.AcceptRate
}

// forgetAll drops everything at once.
func (r *rateCache) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes++
	clear(r.known)
}

func (r *rateCache) forget(id delivery.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes++
	delete(r.known, id)
}
