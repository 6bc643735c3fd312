package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/admission"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

// call is one request on its way.
type call struct {
	a      *api
	w      http.ResponseWriter
	r      *http.Request
	route  *route // nil until one is found
	rid    string // request id
	id     identity
	tenant delivery.TenantID // whose data; delivery.Shared = the operator's own
	vars   [2]string         // the path's variables, in order
	query  url.Values        // checked against the route's parameters
	status int               // of the answer; 0 = nothing is written yet
	cause  error             // behind a problem, for the log

	pass    admission.Pass
	refused bool // by the gate
}

func (c *call) ctx() context.Context { return c.r.Context() }

// ServeHTTP answers one request.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil { // a request that came over no socket
		own := *r
		own.Body, r = http.NoBody, &own
	}
	c := &call{a: a, w: w, r: r, rid: requestID(r)}
	h := w.Header()
	h["X-Request-Id"] = []string{c.rid}
	if len(r.TransferEncoding) > 0 {
		// A request with both Transfer-Encoding and Content-Length looks, behind net/http, as if it had the first alone.
		// RFC 9112 §6.1 wants such a connection closed, because a proxy may have seen another end of the body.
		h["Connection"] = []string{"close"}
	}
	defer c.finish(a.Log.Enabled(r.Context(), slog.LevelDebug), time.Now())
	if err := c.serve(); err != nil {
		c.problem(err)
	}
}

func (c *call) serve() error {
	rt, vars, allow := c.a.router.find(c.r.Method, c.r.URL)
	if rt == nil {
		if len(allow) == 0 {
			return noRoute()
		}
		c.w.Header().Set("Allow", strings.Join(allow, ", "))
		return fail("method_not_allowed", "this address takes %s", strings.Join(allow, ", "))
	}
	c.route, c.vars = rt, vars
	if why := c.a.closed(rt); why != "" {
		return fail("not_found", "%s", why)
	}
	if rt.scope != public {
		if err := c.signIn(); err != nil {
			return err
		}
	}
	if rt.scope != provider {
		if err := c.readQuery(); err != nil {
			return err
		}
	}
	if err := c.admit(); err != nil {
		return err
	}
	return rt.handle(c)
}

func noRoute() error {
	return fail("not_found", "there is nothing at this address; GET /docs lists what there is")
}

// finish ends a call: it turns a panic into a problem and writes the log.
func (c *call) finish(debugging bool, began time.Time) {
	defer c.pass.Leave()
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		c.a.Log.Error("panic in a handler", "request_id", c.rid, "route", c.routeName(), "panic", p,
			"stack", string(debug.Stack()))
		if c.status != 0 {
			panic(http.ErrAbortHandler) // half an answer is out: only closing the connection tells that it is broken
		}
		c.problem(fail("internal_error", "the engine failed; the request id tells the operator where to look"))
	}
	if !debugging && (c.status < 500 || c.refused) { // refusals come in floods; a metric counts them
		return
	}
	// The path is not logged: it may hold names, and its query holds addresses. The route says enough.
	attrs := []any{
		"request_id", c.rid, "method", c.r.Method, "route", c.routeName(), "status", c.status,
		"tenant", string(c.tenant), "seconds", time.Since(began).Seconds(),
	}
	if c.cause != nil && c.status >= 500 {
		attrs = append(attrs, "err", c.cause)
	}
	if c.status >= 500 && !c.refused {
		c.a.Log.Warn("request failed", attrs...)
		return
	}
	c.a.Log.Debug("request", attrs...)
}

func (c *call) routeName() string {
	if c.route == nil {
		return "none"
	}
	return c.route.path
}

// requestID returns the caller's own id when it is sane, else a new one.
func requestID(r *http.Request) string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && saneID(given[0]) {
		return given[0]
	}
	const digits = "0123456789abcdef"
	var b [36]byte
	n := copy(b[:], "req_")
	for _, word := range [2]uint64{rand.Uint64(), rand.Uint64()} {
		for range 16 {
			b[n] = digits[word&15]
			word >>= 4
			n++
		}
	}
	return string(b[:])
}

func saneID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.:/=+@", c) >= 0) {
			return false
		}
	}
	return true
}

// ---- query parameters

// readQuery parses the query and refuses what the route does not know: a misspelt filter must not show everything.
func (c *call) readQuery() error {
	if c.r.URL.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return fail("invalid_parameter", "the query cannot be read: escape special characters as %%XX")
	}
	names := make([]string, len(c.route.query))
	for i, p := range c.route.query {
		names[i] = p.name
	}
	for name, values := range q {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		switch {
		case !known:
			detail := "there is no parameter " + quoted(name)
			if near := nearest(name, names); near != "" {
				detail += "; did you mean " + quoted(near) + "?"
			} else if len(names) > 0 {
				detail += "; this route takes " + strings.Join(names, ", ")
			}
			return failAt(name, "invalid_parameter", "%s", detail)
		case len(values) > 1:
			return failAt(name, "invalid_parameter", "the parameter %s is given %d times", name, len(values))
		case strings.ContainsFunc(values[0], func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }):
			return failAt(name, "invalid_parameter", "the parameter %s has control characters", name)
		}
	}
	c.query = q
	return nil
}

func (c *call) param(name string) string {
	if c.query == nil {
		return ""
	}
	return c.query.Get(name)
}

// number reads a parameter as a whole number between low and high; absent = otherwise.
func (c *call) number(name string, low, high, otherwise int64) (int64, error) {
	s := c.param(name)
	if s == "" {
		if c.query.Has(name) {
			return 0, failAt(name, "invalid_parameter", "%s is empty: give a number from %d to %d or leave it out", name, low,
				high)
		}
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < low || n > high {
		return 0, failAt(name, "invalid_parameter", "%s must be a whole number from %d to %d", name, low, high)
	}
	return n, nil
}

// limit reads the size of a page.
func (c *call) limit() (int, error) {
	n, err := c.number("limit", 1, 1000, 100)
	return int(n), err
}

// ---- answers

// write sends a whole answer.
func (c *call) write(status int, contentType string, body []byte) {
	h := c.w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	h["Cache-Control"] = []string{"no-store"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	c.status = status
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // the caller may be gone: there is nobody to tell
}

// json answers with a value.
func (c *call) json(status int, v any) error {
	buf := c.a.buffer()
	defer c.a.release(buf)
	body, err := encode(buf.AvailableBuffer(), v)
	if err != nil {
		return err
	}
	c.write(status, "application/json", body)
	return nil
}

// empty answers that it is done, without a body.
func (c *call) empty() error {
	c.status = http.StatusNoContent
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// buffers are shared by all handlers of the process: they hold no state between two uses.
var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 8<<10)) }}

func (a *api) buffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func (a *api) release(b *bytes.Buffer) {
	if b.Cap() > 1<<20 { // one large body must not stay for ever
		return
	}
	b.Reset()
	buffers.Put(b)
}

// page answers with one page of a list that the store gives whole. key returns an item's place in the list's order.
func page[T, Out any](c *call, items []T, key func(T) string, show func(T) Out) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	from := 0
	if cursor := c.param("cursor"); cursor != "" {
		place, err := c.a.cursors.open(c, cursor)
		if err != nil {
			return err
		}
		index, after, _ := strings.Cut(place, " ")
		from, _ = strconv.Atoi(index) // where the next item stood, in case the last one was deleted meanwhile
		if i := slices.IndexFunc(items, func(item T) bool { return key(item) == after }); i >= 0 {
			from = i + 1
		}
		from = min(from, len(items))
	}
	to := min(from+limit, len(items))
	out := sdk.Page[Out]{Data: make([]Out, 0, to-from), HasMore: to < len(items)}
	for _, item := range items[from:to] {
		out.Data = append(out.Data, show(item))
	}
	if out.HasMore {
		out.NextCursor = c.a.cursors.seal(c, strconv.Itoa(to)+" "+key(items[to-1]))
	}
	return c.json(http.StatusOK, out)
}
