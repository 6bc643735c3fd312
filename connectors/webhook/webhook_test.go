package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/connectors/connectortest/httpprovider"
	"github.com/msgctl/msgctl/connectors/webhook"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/egress"
	verify "github.com/msgctl/msgctl/sdk/webhook"
	"github.com/msgctl/msgctl/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	older  = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

var testNow = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func openAccount(t testing.TB, client *http.Client, settings map[string]string) connectors.Connector {
	t.Helper()
	k := webhook.Kind()
	full, err := k.Validate(settings)
	require.NoError(t, err)
	c, err := k.Open(&connectors.Account{Settings: full, Now: func() time.Time { return testNow }, HTTP: client})
	require.NoError(t, err)
	return c
}

func message(to string) *delivery.Outgoing {
	return &delivery.Outgoing{
		ID: delivery.NewIDs(func() time.Time { return testNow }).Message(), Channel: delivery.Webhook, To: to, Attempt: 1,
		Content: delivery.Content{Event: "message.delivered", Data: []byte(`{"id":"msg_1","n":1}`)},
	}
}

func loopbackClient(t testing.TB) *http.Client {
	c := egress.New(egress.Policy{AllowLoopback: true}).HTTPClient()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func startSim(t testing.TB, opt simulator.Options) *simulator.Sim {
	t.Helper()
	s, err := simulator.Start(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) {
	sim := startSim(t, simulator.Options{HookSecret: secret})
	back, err := url.Parse(sim.URL())
	require.NoError(t, err)
	transport := &http.Transport{}
	proxy := httputil.NewSingleHostReverseProxy(back)
	proxy.Transport = transport
	faults := map[connectortest.Fault]simulator.Fault{
		connectortest.Temporary: simulator.Temporary, connectortest.Throttle: simulator.ThrottledFault,
		connectortest.BadLogin: simulator.BadLogin, connectortest.Reject: simulator.RejectedFault,
		connectortest.UnknownRecipient: simulator.UnknownSubscriber,
	}
	var knows []connectortest.Fault
	for f := range faults {
		knows = append(knows, f)
	}
	p := httpprovider.New(knows, func(f connectortest.Fault, w http.ResponseWriter, r *http.Request) {
		sim.Heal("200")
		if f != connectortest.Accept {
			sim.Fail("200", 1, faults[f])
		}
		proxy.ServeHTTP(w, r)
	})
	defer p.Close()
	defer transport.CloseIdleConnections()
	connectortest.Run(t, connectortest.Harness{
		Kind: webhook.Kind(), Provider: p, Settings: map[string]string{"secret": secret, "previous_secret": older}, HTTP: p.Client(),
		Message: func(n int) *delivery.Outgoing {
			m := message(p.URL() + "/sim/hook/200/abc")
			m.ID = delivery.MessageID{1, 2, byte(n)}
			return m
		},
		RetryAfter: 2 * time.Second,
		Want: map[connectortest.Fault]delivery.Class{
			connectortest.BadLogin: delivery.Rejected,  // the endpoint's affair, not the account's
			connectortest.Down:     delivery.Transient, // likewise
		},
		Idle: func() { p.Idle(); transport.CloseIdleConnections() },
	})
}

// One endpoint that is down must not stop the deliveries to all others.
func TestRecipientsArePeers(t *testing.T) { require.True(t, webhook.Kind().Peers) }

func TestDeliveryOnTheWire(t *testing.T) {
	var head http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		head = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	c := openAccount(t, loopbackClient(t), map[string]string{"secret": secret, "previous_secret": older})
	m := message(srv.URL + "/hooks?x=1")
	_, err := c.Send(context.Background(), m)
	require.NoError(t, err)
	require.Equal(t, m.ID.String(), head.Get("Webhook-Id"))
	require.Equal(t, "application/json", head.Get("Content-Type"))
	require.Equal(t, "msgctl-webhook/1", head.Get("User-Agent"))
	require.JSONEq(t, `{"type":"message.delivered","timestamp":"2026-10-01T12:00:00.000Z","data":{"id":"msg_1","n":1}}`, string(body))
	require.NoError(t, verify.Verify(head, body, testNow, secret))
	require.NoError(t, verify.Verify(head, body, testNow, older))
	first := body
	m.Attempt, m.PossibleDuplicate = 2, true
	_, err = c.Send(context.Background(), m)
	require.NoError(t, err)
	require.Equal(t, m.ID.String(), head.Get("Webhook-Id"))
	require.Equal(t, first, body, "the body stays the same over attempts")
}

func TestPayloads(t *testing.T) {
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { body, _ = io.ReadAll(r.Body) }))
	defer srv.Close()
	c := openAccount(t, loopbackClient(t), map[string]string{"secret": secret})
	for _, tc := range []struct{ event, data, wantType, wantData string }{
		{"a.b", `{"x":1}`, "a.b", `{"x":1}`},
		{"", "", "message", "{}"},
		{"quote\"\\\n\u2028", `[1]`, "quote\"\\\n\u2028", "[1]"},
		{"x", `"text"`, "x", `"text"`},
		{"x", " { } ", "x", "{}"},
	} {
		m := message(srv.URL)
		m.Content.Event, m.Content.Data = tc.event, []byte(tc.data)
		_, err := c.Send(context.Background(), m)
		require.NoError(t, err)
		var got struct {
			Type string
			Data json.RawMessage
		}
		require.NoError(t, json.Unmarshal(body, &got), "%s", body)
		require.Equal(t, tc.wantType, got.Type)
		require.JSONEq(t, tc.wantData, string(got.Data))
	}
	for _, data := range []string{"{", "{}{}", "nope", "\xff"} {
		m := message(srv.URL)
		m.Content.Data = []byte(data)
		_, err := c.Send(context.Background(), m)
		require.Equal(t, "invalid_payload", delivery.AsFailure(err).Code, "%q", data)
	}
	m := message(srv.URL)
	m.Content.Event = "\xff"
	_, err := c.Send(context.Background(), m)
	require.Equal(t, delivery.Rejected, delivery.AsFailure(err).Class)
}

func TestAnswers(t *testing.T) {
	var status int
	var head http.Header
	var text string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range head {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	defer srv.Close()
	c := openAccount(t, loopbackClient(t), map[string]string{"secret": secret})
	for _, tc := range []struct {
		status     int
		retryAfter string
		class      delivery.Class // 0 = sent
		code       string
		wait       time.Duration
	}{
		{200, "", 0, "", 0}, {201, "", 0, "", 0}, {202, "", 0, "", 0}, {299, "", 0, "", 0},
		{301, "", delivery.Rejected, "redirect", 0}, {302, "", delivery.Rejected, "redirect", 0}, {307, "", delivery.Rejected, "redirect", 0},
		{400, "", delivery.Rejected, "400", 0}, {401, "", delivery.Rejected, "401", 0}, {403, "", delivery.Rejected, "403", 0},
		{404, "", delivery.Rejected, "404", 0}, {407, "", delivery.Rejected, "407", 0}, {408, "", delivery.Transient, "408", 0},
		{410, "", delivery.BadRecipient, "gone", 0}, {413, "", delivery.Rejected, "413", 0}, {425, "", delivery.Transient, "425", 0},
		{429, "", delivery.Throttled, "429", 0}, {429, "-1", delivery.Throttled, "429", time.Second},
		{429, "999999999", delivery.Throttled, "429", time.Hour}, {429, "Tue", delivery.Throttled, "429", 0},
		{429, "Thu, 01 Oct 2026 12:00:09 GMT", delivery.Throttled, "429", 9 * time.Second},
		{500, "", delivery.Transient, "500", 0}, {502, "", delivery.Transient, "502", 0}, {503, "", delivery.Transient, "503", 0},
		{503, "30", delivery.Throttled, "503", 30 * time.Second}, {504, "", delivery.Transient, "504", 0},
	} {
		t.Run(fmt.Sprint(tc.status, tc.retryAfter), func(t *testing.T) {
			status, head, text = tc.status, http.Header{"Location": {"http://169.254.169.254/"}}, "see +12025550123 "+secret
			if tc.retryAfter != "" {
				head.Set("Retry-After", tc.retryAfter)
			}
			_, err := c.Send(context.Background(), message(srv.URL))
			if tc.class == 0 {
				require.NoError(t, err)
				return
			}
			f := delivery.AsFailure(err)
			require.Equal(t, tc.class, f.Class)
			require.Equal(t, tc.code, f.Code)
			require.Equal(t, tc.wait, f.RetryAfter)
			require.True(t, f.Known)
			require.NotContains(t, f.Detail, "2025550123")
			require.NotContains(t, f.Detail, secret[6:])
			require.LessOrEqual(t, len(f.Detail), 200)
		})
	}
}

func TestBlockedTargets(t *testing.T) {
	client := egress.New(egress.Policy{}).HTTPClient()
	defer client.CloseIdleConnections()
	c := openAccount(t, client, map[string]string{"secret": secret})
	for _, to := range []string{"http://example.com/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://u:p@example.com/", "https://localhost/",
		"https://169.254.169.254/latest/meta-data/", "https://[64:ff9b::a9fe:a9fe]/"} {
		_, err := c.Send(context.Background(), message(to))
		f := delivery.AsFailure(err)
		require.Equal(t, delivery.Rejected, f.Class, to)
		require.Equal(t, "blocked_address", f.Code, to)
	}
	_, err := c.Send(context.Background(), message("https://[::1"))
	require.Equal(t, "invalid_url", delivery.AsFailure(err).Code)
}

func TestSettings(t *testing.T) {
	k := webhook.Kind()
	for key, bad := range map[string][]string{
		"secret": {"whsec_", "whsec_AAAA", "whsec_!!!!", secret[6:], "whsec_" + strings.Repeat("A", 100)}, "previous_secret": {"x"}, "user_agent": {"a\r\nX: y"},
	} {
		for _, v := range bad {
			s := map[string]string{"secret": secret}
			s[key] = v
			full, err := k.Validate(s)
			require.NoError(t, err)
			_, err = k.Open(&connectors.Account{Settings: full, HTTP: http.DefaultClient})
			var wrong *connectors.SettingError
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, key, wrong.Key)
			require.False(t, len(v) > 10 && strings.Contains(err.Error(), v), "the value is shown")
		}
	}
}

func TestAgainstTheSimulator(t *testing.T) {
	sim := startSim(t, simulator.Options{HookSecret: secret})
	k := webhook.Kind()
	full, err := k.Validate(map[string]string{"secret": secret})
	require.NoError(t, err)
	c, err := k.Open(&connectors.Account{Settings: full, Now: time.Now, HTTP: loopbackClient(t)})
	require.NoError(t, err)
	ids := delivery.NewIDs(time.Now)
	send := func(path string) error {
		m := message(sim.URL() + "/sim/hook/" + path)
		m.ID = ids.Message()
		_, err := c.Send(context.Background(), m)
		return err
	}
	require.NoError(t, send("200/abc"))
	require.Equal(t, delivery.BadRecipient, delivery.AsFailure(send("gone/x")).Class)
	require.Equal(t, delivery.Transient, delivery.AsFailure(send("500/x")).Class)
	require.Equal(t, delivery.InDoubt, delivery.AsFailure(send("timeout/x")).Class)
	for range 2 {
		require.Equal(t, delivery.Transient, delivery.AsFailure(send("flaky/x")).Class)
	}
	require.NoError(t, send("flaky/x"))
	sim.Fail("200", 1, simulator.ThrottledFault)
	require.Equal(t, 2*time.Second, delivery.AsFailure(send("200/abc")).RetryAfter)
	taken := sim.Ledger().To(delivery.Webhook, "/sim/hook/200/abc")
	require.Len(t, taken, 1)
	require.Equal(t, "200", taken[0].Account)
	require.True(t, strings.HasPrefix(taken[0].Ref, "msg_"))
	require.Contains(t, taken[0].Text, `"type":"message.delivered"`)
	require.Len(t, sim.Ledger().To(delivery.Webhook, "/sim/hook/timeout/x"), 1, "a lost answer was taken")
	sim.Fail("200", 1, simulator.Down)
	require.Error(t, send("200/down"))
	require.Empty(t, sim.Ledger().To(delivery.Webhook, "/sim/hook/200/down"))
	wrong := openAccount(t, loopbackClient(t), map[string]string{"secret": older})
	_, err = wrong.Send(context.Background(), message(sim.URL()+"/sim/hook/200/abc"))
	require.Equal(t, "401", delivery.AsFailure(err).Code)
}

// The ways of row "gone mad" endpoints: each attempt ends in bounded time and memory.
func TestHostileEndpoints(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/hang":
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-release:
			}
		case "/101":
			w.WriteHeader(http.StatusSwitchingProtocols)
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "not gzip")
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		}
	}))
	defer srv.Close()
	defer close(release)
	c := openAccount(t, loopbackClient(t), map[string]string{"secret": secret})
	_, err := c.Send(context.Background(), message(srv.URL+"/endless"))
	require.NoError(t, err, "the status was said before the flood")
	_, err = c.Send(context.Background(), message(srv.URL+"/gzip"))
	require.NoError(t, err)
	_, err = c.Send(context.Background(), message(srv.URL+"/101"))
	require.Equal(t, delivery.Transient, delivery.AsFailure(err).Class)
	_, err = c.Send(context.Background(), message(srv.URL+"/loop"))
	require.Equal(t, "redirect", delivery.AsFailure(err).Code)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = c.Send(ctx, message(srv.URL+"/hang"))
	require.Equal(t, delivery.InDoubt, delivery.AsFailure(err).Class)
	require.Equal(t, "timeout", delivery.AsFailure(err).Code)
}

const benchWorkers = 32

// parallel runs f b.N times from benchWorkers goroutines.
func parallel(b *testing.B, f func() error) {
	b.ResetTimer()
	var wg sync.WaitGroup
	work := make(chan struct{}, 1024)
	for range benchWorkers {
		wg.Go(func() {
			for range work {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkSend(b *testing.B) {
	for _, hookSecret := range []string{"", secret} {
		sim := startSim(b, simulator.Options{HookSecret: hookSecret, LedgerLimit: 10_000})
		target := sim.URL() + "/sim/hook/200/abc"
		if hookSecret == "" {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchWorkers}}
			body := strings.Repeat("x", 120)
			b.Run("raw net/http", func(b *testing.B) {
				parallel(b, func() error {
					resp, err := client.Post(target, "application/json", strings.NewReader(body))
					if err != nil {
						return err
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					return resp.Body.Close()
				})
			})
			client.CloseIdleConnections()
		}
		k := webhook.Kind()
		full, err := k.Validate(map[string]string{"secret": secret})
		require.NoError(b, err)
		c, err := k.Open(&connectors.Account{Settings: full, Now: time.Now, HTTP: loopbackClient(b)})
		require.NoError(b, err)
		m := message(target)
		b.Run(fmt.Sprintf("connector verified=%v", hookSecret != ""), func(b *testing.B) {
			b.ReportAllocs()
			parallel(b, func() error { _, err := c.Send(context.Background(), m); return err })
		})
	}
}
