package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sleeper records waits instead of waiting.
type sleeper struct {
	mu    sync.Mutex
	waits []time.Duration
}

func (s *sleeper) sleep(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, d)
	return ctx.Err()
}

// serve starts a server for the test and a client of it that never really waits.
func serve(t *testing.T, h http.HandlerFunc, opts ...Option) (*Client, *sleeper) {
	t.Helper()
	srv := httptest.NewServer(h)
	c := New(append([]Option{WithURL(srv.URL), WithKey("mk_test_key")}, opts...)...)
	t.Cleanup(func() { c.Close(); srv.Close() })
	s := &sleeper{}
	c.sleep, c.jitter = s.sleep, func() float64 { return 0.5 }
	return c, s
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Error{Code: code, Title: code, Status: status, RequestID: "req_1"})
}

func TestSendRetries(t *testing.T) {
	type step func(w http.ResponseWriter, r *http.Request)
	status := func(n int, code string, header ...string) step {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			refuse(w, n, code)
		}
	}
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"id":"msg_1"`)
	}
	ok := func(w http.ResponseWriter, _ *http.Request) { answer(w, 202, Message{ID: "msg_1", Status: Queued}) }
	ms := time.Millisecond
	for _, tc := range []struct {
		name  string
		steps []step
		waits []time.Duration
		err   error
		code  string
	}{
		{name: "first time", steps: []step{ok}},
		{name: "5xx twice", steps: []step{status(503, "storage_unavailable"), status(500, "internal_error"), ok}, waits: []time.Duration{250 * ms, 500 * ms}},
		{name: "cut connection", steps: []step{cut, ok}, waits: []time.Duration{250 * ms}},
		{name: "half an answer", steps: []step{half, ok}, waits: []time.Duration{250 * ms}},
		{name: "408", steps: []step{status(408, "request_timeout"), ok}, waits: []time.Duration{250 * ms}},
		{name: "request in progress", steps: []step{status(409, "request_in_progress", "Retry-After", "2"), ok}, waits: []time.Duration{2 * time.Second}},
		{name: "other conflict", steps: []step{status(409, "wrong_state")}, err: ErrConflict, code: "wrong_state"},
		{name: "throttled, asked", steps: []step{status(429, "rate_limited", "Retry-After", "7"), ok}, waits: []time.Duration{7 * time.Second}},
		{name: "throttled, nonsense asked", steps: []step{status(429, "rate_limited", "Retry-After", "Tue"), ok}, waits: []time.Duration{250 * ms}},
		{name: "throttled, negative", steps: []step{status(429, "rate_limited", "Retry-After", "-1"), ok}, waits: []time.Duration{250 * ms}},
		{name: "asked for an hour", steps: []step{status(503, "maintenance", "Retry-After", "3600")}, err: ErrUnavailable, code: "maintenance"},
		{name: "quota", steps: []step{status(429, "quota_exceeded", "Retry-After", "5")}, err: ErrQuota, code: "quota_exceeded"},
		{name: "invalid", steps: []step{status(422, "invalid_phone")}, err: ErrInvalid, code: "invalid_phone"},
		{name: "no key", steps: []step{status(401, "unauthorized")}, err: ErrUnauthorized, code: "unauthorized"},
		{name: "three failures", steps: []step{status(500, "a"), status(500, "b"), status(500, "c")}, waits: []time.Duration{250 * ms, 500 * ms}, err: ErrUnavailable, code: "c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var keys []string
			c, s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				keys = append(keys, r.Header.Get("Idempotency-Key"))
				require.LessOrEqual(t, len(keys), len(tc.steps), "more tries than expected")
				tc.steps[len(keys)-1](w, r)
			})
			m, err := c.Send(t.Context(), SMS{To: "+12025550100", Text: "hi"})
			require.Len(t, keys, len(tc.steps))
			require.Len(t, keys[0], 36)
			require.Equal(t, byte('7'), keys[0][14], "version of the UUID")
			for _, k := range keys {
				require.Equal(t, keys[0], k, "one key for all tries")
			}
			require.Equal(t, tc.waits, s.waits)
			if tc.err == nil {
				require.NoError(t, err)
				require.Equal(t, "msg_1", m.ID)
				return
			}
			require.ErrorIs(t, err, tc.err)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, tc.code, e.Code)
			require.Equal(t, "req_1", e.RequestID)
		})
	}
}

func TestRequestShape(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		m    Sendable
		opts []SendOption
		want string
	}{
		{"sms", SMS{To: "+1", Text: "hi"}, nil, `{"channel":"sms","to":"+1","text":"hi"}`},
		{"options", SMS{To: "+1", Text: "hi"}, []SendOption{At(at), TTL(10 * time.Minute), Via("alpha"), InLane(Urgent), AtMostOnce(), Ref("o1")},
			`{"channel":"sms","to":"+1","text":"hi","lane":"urgent","send_at":"2026-11-20T09:00:00Z","ttl":"10m0s","connector":"alpha","delivery":"at_most_once","client_ref":"o1"}`},
		{"local time", SMS{To: "+1", Text: "hi"}, []SendOption{AtLocal("2026-11-20T09:00", "Asia/Kolkata"), ExpiresAt(at)},
			`{"channel":"sms","to":"+1","text":"hi","send_at":"2026-11-20T09:00","zone":"Asia/Kolkata","expires_at":"2026-11-20T09:00:00Z"}`},
		{"whatsapp", WhatsApp{To: "+1", Template: "shipped", Lang: "en", Params: []string{"Asha"}}, nil,
			`{"channel":"whatsapp","to":"+1","approved":{"name":"shipped","language":"en","params":["Asha"]}}`},
		{"email", Email{To: "a@b.test", Subject: "S", Text: "T", HTML: "<p>"}, nil,
			`{"channel":"email","to":"a@b.test","text":"T","subject":"S","html":"\u003cp\u003e"}`},
		{"hook", Hook{URL: "https://x.test", Event: "order.paid", Data: map[string]int{"n": 1}}, nil,
			`{"channel":"webhook","to":"https://x.test","event":"order.paid","data":{"n":1}}`},
		{"template", Template{Name: "otp", Channel: ChannelSMS, To: "+1", Vars: Vars{"code": "1"}}, nil,
			`{"channel":"sms","to":"+1","template":"otp","vars":{"code":"1"}}`},
		{"with", With(SMS{To: "+1", Text: "hi"}, Ref("a")), []SendOption{Ref("b")},
			`{"channel":"sms","to":"+1","text":"hi","client_ref":"b"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				require.Equal(t, tc.want, string(body))
				require.Equal(t, "Bearer mk_test_key", r.Header.Get("Authorization"))
				require.Equal(t, "acme", r.Header.Get("X-Msgctl-Tenant"))
				require.Equal(t, "shop/1 msgctl-go", r.Header.Get("User-Agent"))
				require.Equal(t, "application/json", r.Header.Get("Content-Type"))
				require.Equal(t, "my-key", r.Header.Get("Idempotency-Key"))
				answer(w, 202, Message{ID: "msg_1"})
			}, WithTenant("acme"), WithUserAgent("shop/1"))
			_, err := c.Send(t.Context(), tc.m, append(tc.opts, IdempotencyKey("my-key"))...)
			require.NoError(t, err)
		})
	}
}

func TestWrongOptions(t *testing.T) {
	for name, opt := range map[string]Option{
		"no scheme":     WithURL("127.0.0.1:8020"),
		"other scheme":  WithURL("ftp://x"),
		"query":         WithURL("http://x?y=1"),
		"password":      WithURL("http://u:secret@x"),
		"key, newline":  WithKey("mk_\nX: y"),
		"tenant, CR":    WithTenant("a\rb"),
		"many retries":  WithMaxRetries(11),
		"few retries":   WithMaxRetries(-1),
		"unparsable":    WithURL("http://[::1"),
		"agent, escape": WithUserAgent("\x1b[1m"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(opt).Whoami(t.Context())
			require.ErrorIs(t, err, ErrInvalid)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	c := New()
	_, err := c.Messages.Get(t.Context(), "..")
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.Campaigns.Start(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.Send(t.Context(), Hook{Data: func() {}})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.Send(t.Context(), nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = c.Send(t.Context(), SMS{}, IdempotencyKey("a\nb"))
	require.ErrorIs(t, err, ErrInvalid)
}

func TestEnvironment(t *testing.T) {
	t.Setenv("MSGCTL_URL", "http://engine.test:1/base/")
	t.Setenv("MSGCTL_API_KEY", " mk_live_x\n")
	c := New()
	require.Equal(t, "http://engine.test:1/base", c.base)
	require.Equal(t, "mk_live_x", c.key)
	t.Setenv("MSGCTL_URL", "")
	require.Equal(t, DefaultURL, New().base)
}

func TestErrorAnswersThatAreNotProblems(t *testing.T) {
	for _, tc := range []struct {
		name, body, code, detail string
		status                   int
		err                      error
	}{
		{"proxy page", "<html><body>Bad gateway</body></html>", "http_502", "", 502, ErrUnavailable},
		{"plain text", "no \x1b[31mroute\n", "http_404", "no [31mroute", 404, ErrNotFound},
		{"empty", "", "http_403", "", 403, ErrUnauthorized},
		{"redirect", "", "http_301", "the address answers with a redirect; set the engine's URL to where it leads", 301, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Request-Id", "req_9")
				w.Header().Set("Location", "https://elsewhere.test")
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}, WithMaxRetries(0))
			_, err := c.Whoami(t.Context())
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, tc.code, e.Code)
			require.Equal(t, tc.detail, e.Detail)
			require.Equal(t, "req_9", e.RequestID)
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err)
			}
		})
	}
	t.Run("not JSON though fine", func(t *testing.T) {
		c, s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
		_, err := c.Whoami(t.Context())
		require.ErrorIs(t, err, ErrUnavailable)
		require.Empty(t, s.waits, "asking again would not help")
	})
}

func TestUnreachable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	u := srv.URL
	srv.Close()
	c := New(WithURL(u), WithKey("mk_test_secret"))
	s := &sleeper{}
	c.sleep = s.sleep
	_, err := c.Messages.Page(t.Context(), MessageQuery{To: "+12025550100"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Len(t, s.waits, 2)
	require.NotContains(t, err.Error(), "12025550100", "an address has no place in an error")
	require.NotContains(t, err.Error(), "secret")
}

func TestContextEnds(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, Identity{}) })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Whoami(ctx)
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("while the engine thinks", func(t *testing.T) {
		got := make(chan struct{})
		c, s := serve(t, func(_ http.ResponseWriter, r *http.Request) { close(got); <-r.Context().Done() })
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-got; cancel() }()
		_, err := c.Whoami(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Empty(t, s.waits)
	})
	t.Run("while waiting", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { cancel(); refuse(w, 503, "x") })
		c.sleep = sleep
		_, err := c.Whoami(ctx)
		require.Error(t, err)
	})
	t.Run("deadline before the wait is over", func(t *testing.T) {
		c, s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "50")
			refuse(w, 429, "rate_limited")
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := c.Whoami(ctx)
		require.ErrorIs(t, err, ErrRateLimited)
		require.Empty(t, s.waits, "a wait that cannot help is not begun")
	})
	t.Run("one try takes too long", func(t *testing.T) {
		var n atomic.Int32 // the first request may still be served as the second comes
		c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				<-r.Context().Done()
				return
			}
			answer(w, 200, Identity{Tenant: "acme"})
		}, WithTryTimeout(50*time.Millisecond))
		id, err := c.Whoami(t.Context())
		require.NoError(t, err)
		require.Equal(t, "acme", id.Tenant)
	})
}

// The answer to an action on a campaign is lost after it was done, and the next try is told that it cannot be done.
func TestAnActionWhoseAnswerWasLost(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lost  int32 // answers that are lost
		state string
		err   error
	}{
		{"it was done", 1, "running", nil},
		{"and is over by now", 1, "completed", nil},
		{"somebody else did something", 1, "stopped", ErrConflict},
		{"none was lost", 0, "running", ErrConflict},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var n atomic.Int32
			c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodGet:
					answer(w, 200, Campaign{Name: "sale", State: tc.state})
				case n.Add(1) <= tc.lost:
					panic(http.ErrAbortHandler)
				default:
					refuse(w, 409, "conflict")
				}
			})
			got, err := c.Campaigns.Start(t.Context(), "sale")
			require.ErrorIs(t, err, tc.err)
			if tc.err == nil {
				require.Equal(t, tc.state, got.State)
			}
		})
	}
}

func TestLogsHoldNothingSecret(t *testing.T) {
	var log bytes.Buffer
	var n atomic.Int32
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			refuse(w, 500, "internal_error")
			return
		}
		answer(w, 202, Message{})
	}, WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	_, err := c.Send(t.Context(), SMS{To: "+12025550123", Text: "canary-body"})
	require.NoError(t, err)
	require.Contains(t, log.String(), "internal_error")
	for _, secret := range []string{"mk_test_key", "12025550123", "canary-body"} {
		require.NotContains(t, log.String(), secret)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "-1": 0, "Tue": 0, "1.5": 0,
		"999999999": 24 * time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		require.Equal(t, want, retryAfter(in, now), in)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"3", "-1", "Thu, 01 Jan 2026 00:00:10 GMT", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := retryAfter(s, time.Unix(1e9, 0))
		if d < 0 || d > 24*time.Hour {
			t.Fatalf("retryAfter(%q) = %s", s, d)
		}
	})
}

func FuzzProblem(f *testing.F) {
	f.Add(422, `{"code":"invalid_phone","errors":[{"pointer":"/to","detail":"too short"}]}`)
	f.Add(502, "<html>")
	f.Add(500, "\x00\xff")
	f.Fuzz(func(t *testing.T, status int, body string) {
		e := problem(&http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, time.Time{})
		if e.Code == "" || e.Status != status || e.Error() == "" {
			t.Fatalf("%+v", e)
		}
	})
}

func TestHealthOfAnEngineThatIsNotReady(t *testing.T) {
	c, s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 503, Health{Parts: map[string]string{"store": "disk full"}})
	})
	h, err := c.Health(t.Context())
	require.NoError(t, err)
	require.False(t, h.OK)
	require.Equal(t, "disk full", h.Parts["store"])
	require.Empty(t, s.waits)
}

func TestErrorText(t *testing.T) {
	e := &Error{Code: "invalid", Detail: "two things", Fields: []FieldError{{Pointer: "/to", Detail: "is empty"}}, RequestID: "req_1"}
	require.Equal(t, "invalid: two things; /to is empty (req_1)", e.Error())
	require.False(t, errors.Is(e, fmt.Errorf("other")))
}
