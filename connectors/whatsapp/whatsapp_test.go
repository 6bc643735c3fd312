package whatsapp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/connectors/connectortest/httpprovider"
	"github.com/msgctl/msgctl/connectors/whatsapp"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/egress"
	"github.com/msgctl/msgctl/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	number    = "106540352242922"
	token     = "EAAcanary0token1for2the3tests"
	appSecret = "canary-app-secret-9911"
	verify    = "canary-verify-token-22"
)

var (
	testNow = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	msgID   = delivery.MessageID{1, 2, 3}
)

func settings(base string) map[string]string {
	return map[string]string{"base_url": base, "phone_number_id": number, "token": token, "app_secret": appSecret, "verify_token": verify}
}

func openAccount(t testing.TB, client *http.Client, s map[string]string) connectors.Connector {
	t.Helper()
	k := whatsapp.Kind()
	full, err := k.Validate(s)
	require.NoError(t, err)
	c, err := k.Open(&connectors.Account{Settings: full, Now: func() time.Time { return testNow }, HTTP: client})
	require.NoError(t, err)
	return c
}

func message(text string) *delivery.Outgoing {
	return &delivery.Outgoing{ID: msgID, Channel: delivery.WhatsApp, To: "+12025550100", Attempt: 1, Content: delivery.Content{Text: text}}
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
	sim := startSim(t, simulator.Options{WhatsAppToken: token})
	back, err := url.Parse(sim.URL())
	require.NoError(t, err)
	transport := &http.Transport{}
	proxy := httputil.NewSingleHostReverseProxy(back)
	proxy.Transport = transport
	defer transport.CloseIdleConnections()
	faults := map[connectortest.Fault]simulator.Fault{
		connectortest.Temporary: simulator.Temporary, connectortest.Throttle: simulator.ThrottledFault,
		connectortest.BadLogin: simulator.BadLogin, connectortest.Reject: simulator.RejectedFault,
		connectortest.UnknownRecipient: simulator.NotOnWhatsApp,
	}
	knows := []connectortest.Fault{connectortest.UnknownCode}
	for f := range faults {
		knows = append(knows, f)
	}
	p := httpprovider.New(knows, func(f connectortest.Fault, w http.ResponseWriter, r *http.Request) {
		sim.Heal(number)
		switch f {
		case connectortest.Accept:
		case connectortest.UnknownCode:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":{"code":999999,"message":"sent Bearer `+token+` to +12025550100"}}`)
			return
		default:
			sim.Fail(number, 1, faults[f])
		}
		proxy.ServeHTTP(w, r)
	})
	defer p.Close()
	connectortest.Run(t, connectortest.Harness{
		Kind: whatsapp.Kind(), Provider: p, Settings: settings(p.URL()), HTTP: p.Client(),
		Message: func(n int) *delivery.Outgoing {
			m := message("hello " + strconv.Itoa(n))
			m.ID = delivery.MessageID{1, byte(n)}
			return m
		},
		RetryAfter: 2 * time.Second, Callbacks: callbackCases(),
		Idle: func() { p.Idle(); transport.CloseIdleConnections() },
	})
}

func TestRequestOnTheWire(t *testing.T) {
	var path, auth string
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, auth = r.URL.Path, r.Header.Get("Authorization")
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"messaging_product":"whatsapp","contacts":[{}],"messages":[{"id":"wamid.Q","message_status":"accepted"}]}`)
	}))
	defer srv.Close()
	c := openAccount(t, loopbackClient(t), settings(srv.URL+"/"))
	sent, err := c.Send(context.Background(), message("Grüße 👋"))
	require.NoError(t, err)
	require.Equal(t, delivery.Sent{ProviderID: "wamid.Q", Detail: "accepted"}, sent)
	require.Equal(t, "/v25.0/"+number+"/messages", path)
	require.Equal(t, "Bearer "+token, auth)
	require.JSONEq(t, `{"messaging_product":"whatsapp","recipient_type":"individual","to":"+12025550100","type":"text",
		"text":{"preview_url":false,"body":"Grüße 👋"},"biz_opaque_callback_data":"`+msgID.String()+`"}`, string(body))

	m := message("")
	m.From = "42"
	m.Content.Approved = &delivery.ProviderTemplate{Name: "otp", Language: "pt_BR", Params: []string{"123456", "a\"b"}}
	_, err = c.Send(context.Background(), m)
	require.NoError(t, err)
	require.Equal(t, "/v25.0/42/messages", path)
	require.JSONEq(t, `{"messaging_product":"whatsapp","recipient_type":"individual","to":"+12025550100","type":"template",
		"template":{"name":"otp","language":{"code":"pt_BR"},"components":[{"type":"body","parameters":[{"type":"text","text":"123456"},
		{"type":"text","text":"a\"b"}]}]},"biz_opaque_callback_data":"`+msgID.String()+`"}`, string(body))
	m.Content.Approved.Params = nil
	_, err = c.Send(context.Background(), m)
	require.NoError(t, err)
	require.NotContains(t, string(body), "components")
}

func TestWhatCannotBeSent(t *testing.T) {
	c := openAccount(t, &http.Client{Transport: refuseAll{t}}, settings("https://graph.example"))
	for name, m := range map[string]func(m *delivery.Outgoing){
		"empty_content":    func(m *delivery.Outgoing) { m.Content.Text = "" },
		"text_too_long":    func(m *delivery.Outgoing) { m.Content.Text = strings.Repeat("é", 4097) },
		"invalid_sender":   func(m *delivery.Outgoing) { m.From = "../../me" },
		"invalid_template": func(m *delivery.Outgoing) { m.Content.Approved = &delivery.ProviderTemplate{Name: "x"} },
		"invalid_encoding": func(m *delivery.Outgoing) { m.Content.Text = "\xff" },
	} {
		out := message("x")
		m(out)
		_, err := c.Send(context.Background(), out)
		f := delivery.AsFailure(err)
		require.Equal(t, delivery.Rejected, f.Class, name)
		require.Equal(t, name, f.Code)
	}
}

type refuseAll struct{ t *testing.T }

func (r refuseAll) RoundTrip(*http.Request) (*http.Response, error) {
	r.t.Error("something was sent")
	return nil, io.EOF
}

func TestErrorCodes(t *testing.T) {
	var status int
	var answer string
	var retryAfter string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	c := openAccount(t, loopbackClient(t), settings(srv.URL))
	send := func() *delivery.Failure {
		_, err := c.Send(context.Background(), message("x"))
		require.Error(t, err)
		return delivery.AsFailure(err)
	}
	for class, codes := range map[delivery.Class][]int{
		delivery.Throttled:     {4, 80007, 130429, 131048, 131056},
		delivery.Transient:     {1, 2, 131000, 131016, 131049, 131057, 133004},
		delivery.BadRecipient:  {131026},
		delivery.Consent:       {131050},
		delivery.ConnectorDown: {0, 3, 10, 33, 190, 200, 210, 299, 368, 131005, 131031, 131042, 133010},
		delivery.Rejected:      {100, 130472, 131008, 131009, 131021, 131047, 131051, 132000, 132001, 132012, 132015, 132999},
	} {
		for _, code := range codes {
			status, answer = 400, fmt.Sprintf(`{"error":{"message":"(#%d) to +12025550100","code":%d,"error_data":{"details":"token %s"},"fbtrace_id":"x"}}`, code, code, token)
			f := send()
			require.Equal(t, class, f.Class, code)
			require.Equal(t, strconv.Itoa(code), f.Code)
			require.True(t, f.Known, code)
			require.NotContains(t, f.Detail, "2025550100")
			require.NotContains(t, f.Detail, token)
			status = 200 // an error is an error under any status
			require.Equal(t, class, send().Class, code)
		}
	}
	status, answer = 400, `{"error":{"code":131049}}`
	require.Equal(t, 24*time.Hour, send().RetryAfter)
	status, answer, retryAfter = 429, `{"error":{"code":130429}}`, "9"
	require.Equal(t, 9*time.Second, send().RetryAfter)
	retryAfter = ""
	status, answer = 401, `{"error":{"code":777}}`
	f := send()
	require.Equal(t, delivery.Transient, f.Class)
	require.False(t, f.Known)

	for _, tc := range []struct {
		status int
		answer string
		class  delivery.Class
	}{
		{502, "<html>bad gateway</html>", delivery.Transient}, {401, "", delivery.ConnectorDown}, {302, "", delivery.Rejected},
		{200, "", delivery.InDoubt}, {200, "<html>", delivery.InDoubt}, {200, "{}", delivery.InDoubt}, {200, `{"messages":[]}`, delivery.InDoubt},
		{200, `{"messages":[{"id":""}]}`, delivery.InDoubt}, {200, `{"error":{}}`, delivery.InDoubt}, {200, `{"messages":[{"id":"a"},{"id":"b"}]}`, delivery.InDoubt},
		{200, strings.Repeat("[", 100_000), delivery.InDoubt}, {200, `{"messages":[{"id":"` + strings.Repeat("a", 600) + `"}]}`, delivery.InDoubt},
	} {
		status, answer = tc.status, tc.answer
		require.Equal(t, tc.class, send().Class, "%d %.40s", tc.status, tc.answer)
	}
}

func TestSettings(t *testing.T) {
	k := whatsapp.Kind()
	for key, bad := range map[string][]string{
		"phone_number_id": {"abc", "+1202", "1/2", "1 2"}, "token": {"a b", "a\nb"}, "api_version": {"25", "v25", "vx.y", "v1.0/x"},
		"base_url": {"https://graph.example/?x=1"},
	} {
		for _, v := range bad {
			s := settings("https://graph.example")
			s[key] = v
			full, err := k.Validate(s)
			require.NoError(t, err)
			_, err = k.Open(&connectors.Account{Settings: full})
			var wrong *connectors.SettingError
			require.ErrorAs(t, err, &wrong, "%s=%q", key, v)
			require.Equal(t, key, wrong.Key)
		}
	}
}

func TestCheck(t *testing.T) {
	sim := startSim(t, simulator.Options{WhatsAppToken: token})
	c := openAccount(t, loopbackClient(t), settings(sim.URL()))
	require.NoError(t, c.(connectors.Checker).Check(context.Background()))
	sim.Fail(number, -1, simulator.BadLogin)
	require.Equal(t, delivery.ConnectorDown, delivery.AsFailure(c.(connectors.Checker).Check(context.Background())).Class)
	sim.Heal(number)
	s := settings(sim.URL())
	s["token"] = "wrong"
	c = openAccount(t, loopbackClient(t), s)
	require.Equal(t, "190", delivery.AsFailure(c.(connectors.Checker).Check(context.Background())).Code)
}

// TestAgainstTheSimulator sends through the simulator and reads what it posts back.
func TestAgainstTheSimulator(t *testing.T) {
	type got struct {
		receipts []delivery.Receipt
		inbound  []delivery.Inbound
	}
	var mu sync.Mutex
	var all got
	changed := make(chan struct{}, 1000)
	var reader connectors.CallbackReader
	refuse := 1 // the first callback is answered 500 and must come again
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rep, err := reader.ReadCallback(&connectors.Callback{Method: r.Method, URL: r.URL.String(), Header: r.Header, Body: body, Now: time.Now()})
		mu.Lock()
		defer mu.Unlock()
		if refuse > 0 || err != nil {
			refuse--
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		all.receipts, all.inbound = append(all.receipts, rep.Receipts...), append(all.inbound, rep.Inbound...)
		changed <- struct{}{}
	}))
	defer sink.Close()
	sim := startSim(t, simulator.Options{WhatsAppToken: token, WhatsAppSecret: appSecret})
	sim.SetWhatsAppCallback(sink.URL)
	c := openAccount(t, loopbackClient(t), settings(sim.URL()))
	reader = c.(connectors.CallbackReader)
	ids := delivery.NewIDs(time.Now)
	send := func(to string) (delivery.MessageID, delivery.Sent, error) {
		m := message("hi")
		m.ID, m.To = ids.Message(), to
		sent, err := c.Send(context.Background(), m)
		return m.ID, sent, err
	}
	wait := func(done func() bool) {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			mu.Lock()
			ok := done()
			mu.Unlock()
			if ok {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("callbacks missing: %+v", all)
			}
		}
	}
	statusesOf := func(id delivery.MessageID) (out []delivery.Status) {
		for _, r := range all.receipts {
			if r.Message == id {
				out = append(out, r.Status)
			}
		}
		return out
	}

	id, sent, err := send("+12025550100")
	require.NoError(t, err)
	wait(func() bool { return len(statusesOf(id)) == 1 })
	require.Equal(t, sent.ProviderID, all.receipts[0].ProviderID)
	require.Equal(t, delivery.StatusDelivered, all.receipts[0].Status)

	lost, _, err := send("+12025550130")
	require.Equal(t, delivery.InDoubt, delivery.AsFailure(err).Class)
	wait(func() bool { return len(statusesOf(lost)) == 1 })

	read, _, err := send("+12025550102")
	require.NoError(t, err)
	wait(func() bool { return len(statusesOf(read)) == 2 })
	twice, _, err := send("+12025550131")
	require.NoError(t, err)
	wait(func() bool { return len(statusesOf(twice)) == 2 })

	_, _, err = send("+12025550121")
	require.Equal(t, "131026", delivery.AsFailure(err).Code)
	_, _, err = send("+12025550112")
	require.Equal(t, 30*time.Second, delivery.AsFailure(err).RetryAfter)
	blocked, _, err := send("+12025550123")
	require.NoError(t, err)
	wait(func() bool { return len(statusesOf(blocked)) == 1 })
	require.Equal(t, delivery.Consent, all.receipts[len(all.receipts)-1].Class)
	absent, _, err := send("+12025550122")
	require.NoError(t, err)
	wait(func() bool { return len(statusesOf(absent)) == 1 })
	require.Zero(t, all.receipts[len(all.receipts)-1].Class, "an absent person is no bad address")

	_, _, err = send("+12025550140")
	require.NoError(t, err)
	wait(func() bool { return len(all.inbound) == 1 })
	require.Equal(t, "STOP", all.inbound[0].Text)
	require.Equal(t, "+12025550140", all.inbound[0].From)
	require.Equal(t, number, all.inbound[0].To)
	require.NoError(t, sim.Reply(delivery.WhatsApp, number, "+12025550199", number, "hello"))
	wait(func() bool { return len(all.inbound) == 2 })
}

func BenchmarkSend(b *testing.B) {
	sim := startSim(b, simulator.Options{LedgerLimit: 10_000})
	c := openAccount(b, loopbackClient(b), settings(sim.URL()))
	m := message("Your code is 123456")
	const workers = 32
	var wg sync.WaitGroup
	work := make(chan struct{}, 1024)
	b.ReportAllocs()
	b.ResetTimer()
	for range workers {
		wg.Go(func() {
			for range work {
				if _, err := c.Send(context.Background(), m); err != nil {
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
