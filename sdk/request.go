package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxAnswer bounds what is read of one answer: a page of 1,000 messages is well below.
const maxAnswer = 32 << 20

// call is one request, however often it is tried.
type call struct {
	method, path string
	query        url.Values
	in           any    // marshalled as JSON, unless body or stream is set
	body         []byte // sent as it is, with contentType
	stream       io.Reader
	once         bool // one try without a time limit: a stream that cannot be repeated
	contentType  string
	key          string        // idempotency key; empty = made for a POST
	timeout      time.Duration // of one try; 0 = the client's
	patient      bool          // 429 is waited for without counting
	throttled    func()        // called on each 429 that is waited for
	unready      bool          // a 503 carries an answer
	repeated     *bool         // is set when there was an earlier try, which may have taken effect
}

// do makes a call and decodes the answer into out, which may be nil, or an io.Writer for an answer that is not JSON.
func (c *Client) do(ctx context.Context, r call, out any) error {
	if c.err != nil {
		return c.err
	}
	if r.in != nil {
		body, err := json.Marshal(r.in)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		r.body, r.contentType = body, "application/json"
	}
	if r.method == http.MethodPost && r.key == "" {
		r.key = c.newKey()
	}
	if r.timeout == 0 {
		r.timeout = c.tryTimeout
	}
	for tries, step := 0, 0; ; step++ {
		begin := c.now()
		err := c.try(ctx, r, out)
		if err == nil {
			return nil
		}
		c.log.DebugContext(ctx, "request failed",
			"method", r.method, "path", r.path, "took", c.now().Sub(begin), "error", kind(err))
		free := r.patient && errors.Is(err, ErrRateLimited)
		if r.once || ctx.Err() != nil || !retryable(err) || !free && tries >= c.retries {
			return err
		}
		wait := c.backoff(step, err, r.patient)
		if wait < 0 || exceeds(ctx, c.now().Add(wait)) {
			return err
		}
		if !free {
			tries++
			if r.repeated != nil {
				*r.repeated = true
			}
		} else if r.throttled != nil {
			r.throttled()
		}
		c.log.InfoContext(ctx, "request is repeated", "method", r.method, "path", r.path, "in", wait, "error", kind(err))
		if serr := c.sleep(ctx, wait); serr != nil {
			return fmt.Errorf("%w; last answer: %w", serr, err)
		}
	}
}

// try makes one request.
func (c *Client) try(ctx context.Context, r call, out any) error {
	tctx := ctx
	if !r.once {
		var cancel context.CancelFunc
		tctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	var body io.Reader
	switch {
	case r.stream != nil:
		body = r.stream
	case r.body != nil:
		body = bytes.NewReader(r.body)
	}
	u := c.base + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(tctx, r.method, u, body)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, r.path, unwrapURL(err))
	}
	c.header(req, r)
	resp, err := c.http.Do(req)
	if err != nil {
		return c.broken(ctx, r, err)
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can serve again
		_ = resp.Body.Close()
	}()
	if (resp.StatusCode < 200 || resp.StatusCode > 299) && (!r.unready || resp.StatusCode != http.StatusServiceUnavailable) {
		return problem(resp, c.now())
	}
	c.log.DebugContext(ctx, "request", "method", r.method, "path", r.path, "status", resp.StatusCode)
	return c.decode(ctx, r, resp, out)
}

func (c *Client) header(req *http.Request, r call) {
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", "application/json, application/problem+json, application/x-ndjson;q=0.9, */*;q=0.1")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if c.tenant != "" {
		req.Header.Set("X-Msgctl-Tenant", c.tenant)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if c.inject != nil {
		own := http.Header{}
		c.inject(req.Context(), own)
		for _, name := range [...]string{"Traceparent", "Tracestate"} {
			if v := own.Get(name); v != "" && printable(v) {
				req.Header.Set(name, v)
			}
		}
	}
}

func (c *Client) decode(ctx context.Context, r call, resp *http.Response, out any) error {
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if w, ok := out.(io.Writer); ok {
		src := &reader{r: resp.Body}
		if _, err := io.Copy(w, src); err != nil && src.err != nil {
			return c.broken(ctx, r, src.err)
		} else if err != nil {
			return err
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.broken(ctx, r, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%w: the answer to %s %s is longer than %d MiB", ErrUnavailable, r.method, r.path, maxAnswer>>20)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = body
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &notEngine{fmt.Errorf("the answer to %s %s is not the engine's: %w", r.method, r.path, err)}
	}
	return nil
}

// reader remembers its own error, to tell it from the writer's.
type reader struct {
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// notEngine is an answer that something other than an engine gave. Asking again would not help.
type notEngine struct{ error }

func (e *notEngine) Unwrap() error { return e.error }

func (e *notEngine) Is(target error) bool { return target == ErrUnavailable }

// connError is a request without an answer.
type connError struct {
	what string
	err  error
}

func (e *connError) Error() string        { return e.what + ": " + e.err.Error() }
func (e *connError) Unwrap() error        { return e.err }
func (e *connError) Is(target error) bool { return target == ErrUnavailable }

// broken describes a request that got no whole answer. When the caller's context ended, that is the reason.
func (c *Client) broken(ctx context.Context, r call, err error) error {
	what := r.method + " " + c.base + r.path
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	err = unwrapURL(err)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", r.timeout)
	}
	return &connError{what, err}
}

// problem reads an error answer. An answer that is not a problem document becomes one with the code http_<status>.
func problem(resp *http.Response, now time.Time) *Error {
	e := &Error{}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := json.Unmarshal(body, e); err != nil || e.Code == "" {
		title, detail := e.Title, e.Detail
		*e = Error{Title: title, Detail: detail, Code: "http_" + strconv.Itoa(resp.StatusCode)}
		if e.Title == "" {
			e.Title = http.StatusText(resp.StatusCode)
		}
		if e.Detail == "" {
			e.Detail = excerpt(string(body))
		}
		if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && to != "" {
			e.Detail = "the address answers with a redirect; set the engine's URL to where it leads"
		}
	}
	e.Status = resp.StatusCode
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("X-Request-Id")
	}
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	return e
}

// excerpt is the first line or so of a text, without what a terminal would act on.
func excerpt(s string) string {
	if strings.Contains(s, "<html") || strings.Contains(s, "<HTML") {
		return ""
	}
	out := make([]rune, 0, 200)
	for _, r := range s {
		if len(out) == 200 {
			out = append(out, '…')
			break
		}
		switch {
		case r == '\n' || r == '\t':
			out = append(out, ' ')
		case unicode.IsPrint(r):
			out = append(out, r)
		}
	}
	return strings.TrimSpace(string(out))
}

// kind names an error for a log: code or class, never a text that may quote a person's data.
func kind(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	if errors.Is(err, ErrUnavailable) {
		return "no answer"
	}
	return "ended by the caller"
}

// pathTo joins path segments, escaped. An empty or dotted name would lead to another resource.
func pathTo(segments ...string) (string, error) {
	var b strings.Builder
	for _, s := range segments {
		if s == "" || s == "." || s == ".." {
			return "", fmt.Errorf("%w: %q cannot be a name", ErrInvalid, s)
		}
		b.WriteString("/" + strings.ReplaceAll(url.PathEscape(s), ":", "%3A")) // a bare colon introduces a verb
	}
	return "/v1" + b.String(), nil
}

// send makes a call on one resource and returns its answer.
func send[T any](ctx context.Context, c *Client, method string, query url.Values, in any, segments ...string) (*T, error) {
	path, err := pathTo(segments...)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := c.do(ctx, call{method: method, path: path, query: query, in: in}, out); err != nil {
		return nil, err
	}
	return out, nil
}

// act does a verb to one resource: POST /v1/{noun}/{name}:{verb}.
func act[T any](ctx context.Context, c *Client, noun, name, verb string, in any) (*T, error) {
	path, err := pathTo(noun, name)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := c.do(ctx, call{method: http.MethodPost, path: path + ":" + verb, in: in}, out); err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Client) delete(ctx context.Context, query url.Values, segments ...string) error {
	path, err := pathTo(segments...)
	if err != nil {
		return err
	}
	return c.do(ctx, call{method: http.MethodDelete, path: path, query: query}, nil)
}
