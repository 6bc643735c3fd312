package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultURL is where a Client looks for an engine when neither WithURL nor MSGCTL_URL says otherwise.
const DefaultURL = "http://127.0.0.1:8020"

const (
	defaultRetries    = 2
	defaultTryTimeout = 30 * time.Second
)

// Client speaks to one engine with one key. Make it with New; it is safe for concurrent use.
type Client struct {
	// Messages reads and stops messages; Send and SendAll make them.
	Messages Messages
	// Campaigns sends a template to every person of an audience.
	Campaigns Campaigns
	// Audiences holds sets of people.
	Audiences Audiences
	// Templates holds versioned message texts.
	Templates Templates
	// Connectors holds the accounts at providers.
	Connectors Connectors
	// Tenants is for operators.
	Tenants Tenants
	// Keys holds API keys.
	Keys Keys
	// Suppressions holds the addresses that must not be written to.
	Suppressions Suppressions
	// Events is the stream of what happened to messages.
	Events Events
	// Audit proves the books.
	Audit Audits
	// DeadLetters are messages that ended without a known hand-off, until somebody decides.
	DeadLetters DeadLetters
	// Routes are the tenant's routing rules.
	Routes Routes
	// Retries are the tenant's schedules after failures.
	Retries Retries
	// Receipts shows what providers reported.
	Receipts Receipts

	base       string // without a slash at the end
	key        string
	tenant     string
	agent      string
	http       *http.Client
	own        *http.Transport // nil when the caller brought the HTTP client
	retries    int
	tryTimeout time.Duration
	log        *slog.Logger
	inject     func(ctx context.Context, h http.Header) // nil = nothing is traced
	err        error                                    // a wrong option: every call returns it

	now    func() time.Time
	sleep  func(ctx context.Context, d time.Duration) error
	jitter func() float64 // [0,1)
}

// Option configures a Client.
type Option func(*Client)

// WithURL sets the engine's base URL, such as https://msg.example.com. Default: MSGCTL_URL, then DefaultURL.
func WithURL(u string) Option { return func(c *Client) { c.base = u } }

// WithKey sets the API key. Default: MSGCTL_API_KEY.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithTenant names the tenant that an operator's key acts for. A tenant's own key needs none.
func WithTenant(id string) Option { return func(c *Client) { c.tenant = id } }

// WithHTTPClient replaces the HTTP client: for a proxy, a certificate of your own, or a transport without a socket. Its
// Timeout should be 0, because the Client bounds each try itself.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithMaxRetries sets how often a call is tried again: 0 to 10, default 2.
func WithMaxRetries(n int) Option { return func(c *Client) { c.retries = n } }

// WithTryTimeout bounds each try of a call, apart from the context that bounds the whole call. Default 30 s.
func WithTryTimeout(d time.Duration) Option { return func(c *Client) { c.tryTimeout = d } }

// WithLogger logs each try at debug level and each repeat at info level: method, path, status and duration, never a key,
// an address or a body. Default: no log.
func WithLogger(log *slog.Logger) Option { return func(c *Client) { c.log = log } }

// WithTracing sends the caller's trace along with each request. inject writes the headers of W3C Trace Context that
// belong to ctx; of what it writes, traceparent and tracestate are sent. With OpenTelemetry:
//
//	sdk.WithTracing(func(ctx context.Context, h http.Header) {
//		otel.GetTextMapPropagator().Inject(ctx, propagation.HeaderCarrier(h))
//	})
//
// An engine that writes traces then links that of the caller to that of the message, whose id is Message.TraceID. It
// traces messages of callers that record their trace, whatever share of the others it does. Default: nothing is sent.
func WithTracing(inject func(ctx context.Context, h http.Header)) Option {
	return func(c *Client) { c.inject = inject }
}

// WithUserAgent puts text before the client's own User-Agent, such as "shop/1.4".
func WithUserAgent(text string) Option { return func(c *Client) { c.agent = text } }

// New makes a client. Without options it reads MSGCTL_URL and MSGCTL_API_KEY. It makes no request: a wrong option shows
// as the error of the first call.
func New(opts ...Option) *Client {
	c := &Client{
		base: os.Getenv("MSGCTL_URL"), key: os.Getenv("MSGCTL_API_KEY"),
		retries: defaultRetries, tryTimeout: defaultTryTimeout,
		now: time.Now, sleep: sleep, jitter: rand.Float64,
	}
	for _, o := range opts {
		o(c)
	}
	c.complete()
	c.Messages.c, c.Campaigns.c, c.Audiences.c, c.Templates.c, c.Connectors.c = c, c, c, c, c
	c.Tenants.c, c.Keys.c, c.Suppressions.c, c.Events.c, c.Audit.c = c, c, c, c, c
	c.DeadLetters.c, c.Routes.c, c.Retries.c, c.Receipts.c = c, c, c, c
	return c
}

// complete fills in defaults and finds wrong options.
func (c *Client) complete() {
	if c.base == "" {
		c.base = DefaultURL
	}
	u, err := url.Parse(c.base)
	switch {
	case err != nil && strings.Contains(c.base, "://"):
		c.err = fmt.Errorf("%w: engine URL: %w", ErrInvalid, unwrapURL(err))
	case err != nil:
		c.err = fmt.Errorf("%w: the engine URL needs http:// or https:// and a host", ErrInvalid)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		c.err = fmt.Errorf("%w: engine URL %q needs http:// or https:// and a host", ErrInvalid, u.Redacted())
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		c.err = fmt.Errorf("%w: engine URL %q must end after the path and hold no user", ErrInvalid, u.Redacted())
	}
	c.base = strings.TrimRight(c.base, "/")
	c.key = strings.TrimSpace(c.key)
	for _, v := range []struct{ name, value string }{
		{"API key", c.key}, {"tenant", c.tenant}, {"user agent", c.agent},
	} {
		if !printable(v.value) {
			c.err = fmt.Errorf("%w: the %s holds a character that no HTTP header may carry", ErrInvalid, v.name)
		}
	}
	if c.retries < 0 || c.retries > 10 {
		c.err = fmt.Errorf("%w: WithMaxRetries(%d): 0 to 10", ErrInvalid, c.retries)
	}
	if c.tryTimeout <= 0 {
		c.tryTimeout = defaultTryTimeout
	}
	if c.agent = strings.TrimSpace(c.agent + " msgctl-go"); c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.http == nil {
		c.own = transport()
		c.http = &http.Client{Transport: c.own, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a redirected POST would become a GET
		}}
	}
}

func transport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
}

// Close gives idle connections back. Calls under way go on, and the client stays usable. It does nothing when the HTTP
// client came from WithHTTPClient.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// printable reports whether s can stand in a header.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// unwrapURL takes the address out of an error: it may hold a password, or a person's address in its query.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
