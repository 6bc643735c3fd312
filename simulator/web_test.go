package simulator

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk/webhook"
)

const webSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func startWeb(t testing.TB, opt Options) (*Sim, *http.Client) {
	t.Helper()
	s, err := Start(context.Background(), opt)
	require.NoError(t, err)
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(func() { tr.CloseIdleConnections(); require.NoError(t, s.Close()) })
	return s, &http.Client{Transport: tr}
}

func post(t testing.TB, c *http.Client, url, body string, head http.Header) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	for k, v := range head {
		req.Header[k] = v
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	raw, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header, string(raw)
}

func TestHookOutcomes(t *testing.T) {
	s, c := startWeb(t, Options{})
	for _, tc := range []struct {
		path   string
		fault  Fault
		status int // 0 = the connection closes without an answer
		taken  bool
	}{
		{"200/a", NoFault, 200, true}, {"whatever", NoFault, 200, true}, {"500/a", NoFault, 500, false}, {"gone/a", NoFault, 410, false},
		{"timeout/a", NoFault, 0, true}, {"flaky/a", NoFault, 500, false}, {"flaky/a", NoFault, 500, false}, {"flaky/a", NoFault, 200, true},
		{"200/b", Temporary, 500, false}, {"200/c", ThrottledFault, 429, false}, {"200/d", UnknownSubscriber, 410, false},
		{"200/e", RejectedFault, 400, false}, {"200/f", LostAck, 0, true}, {"200/g", Down, 0, false}, {"200/h", BadLogin, 401, false},
	} {
		if tc.fault != NoFault {
			s.Fail("200", 1, tc.fault)
		}
		before := s.Ledger().Len()
		status, head, _ := post(t, c, s.URL()+"/sim/hook/"+tc.path, "{}", nil)
		require.Equal(t, tc.status, status, tc)
		entries := s.Ledger().Entries(before)
		require.Len(t, entries, 1)
		require.Equal(t, tc.taken, entries[0].Taken, tc)
		require.Equal(t, "/sim/hook/"+tc.path, entries[0].To)
		if tc.status == 429 {
			require.Equal(t, "2", head.Get("Retry-After"))
		}
	}
	status, _, _ := post(t, c, s.URL()+"/sim/hook/200/big", strings.Repeat("x", 1<<20+1), nil)
	require.Equal(t, 413, status)
}

func TestHookSignature(t *testing.T) {
	s, c := startWeb(t, Options{HookSecret: webSecret})
	head, err := webhook.Sign(webSecret, "msg_1", time.Now(), []byte("{}"))
	require.NoError(t, err)
	status, _, _ := post(t, c, s.URL()+"/sim/hook/200/a", "{}", head)
	require.Equal(t, 200, status)
	require.Equal(t, "msg_1", s.Ledger().Entries(0)[0].Ref)
	for _, h := range []http.Header{{}, {"Webhook-Id": {"msg_1"}}} {
		status, _, _ = post(t, c, s.URL()+"/sim/hook/200/a", "{}", h)
		require.Equal(t, 401, status)
	}
	status, _, _ = post(t, c, s.URL()+"/sim/hook/200/a", "{ }", head)
	require.Equal(t, 401, status)
	require.Equal(t, 1, s.Ledger().Len(), "a forged delivery leaves no entry")
}

func metaBody(to string) string {
	return `{"messaging_product":"whatsapp","recipient_type":"individual","to":"` + to +
		`","type":"text","text":{"body":"hi"},"biz_opaque_callback_data":"msg_1"}`
}

func TestMetaAnswers(t *testing.T) {
	s, c := startWeb(t, Options{WhatsAppToken: "tok"})
	good := http.Header{"Authorization": {"Bearer tok"}}
	url := s.URL() + "/v25.0/42/messages"
	code := func(body string) int {
		var e struct {
			Error struct{ Code int }
		}
		require.NoError(t, json.Unmarshal([]byte(body), &e))
		return e.Error.Code
	}
	status, _, body := post(t, c, url, metaBody("+12025550100"), good)
	require.Equal(t, 200, status, body)
	require.Contains(t, body, `"wamid.`)
	for _, h := range []http.Header{{}, {"Authorization": {"Bearer x"}}, {"Authorization": {"tok"}}} {
		status, _, body = post(t, c, url, metaBody("+12025550100"), h)
		require.Equal(t, 401, status)
		require.Equal(t, 190, code(body))
	}
	for fault, want := range map[Fault][2]int{
		Temporary: {500, 131000}, ThrottledFault: {429, 130429}, UnknownSubscriber: {400, 131026}, NotOnWhatsApp: {400, 131026},
		RejectedFault: {400, 132007}, BadLogin: {401, 190}, Down: {503, 2}, Blocked: {403, 131050},
	} {
		s.Fail("42", 1, fault)
		status, _, body = post(t, c, url, metaBody("+12025550100"), good)
		require.Equal(t, want[0], status, fault)
		require.Equal(t, want[1], code(body), fault)
	}
	s.Fail("42", 1, LostAck)
	status, _, _ = post(t, c, url, metaBody("+12025550177"), good)
	require.Zero(t, status)
	require.Len(t, s.Ledger().To(delivery.WhatsApp, "+12025550177"), 1)
	for _, bad := range []string{
		"", "[]", "{", `{"to":"1"}`, metaBody("abc"), strings.Replace(metaBody("+12025550100"), `"hi"`, `""`, 1),
		strings.Replace(metaBody("+12025550100"), `"hi"`, `"`+strings.Repeat("x", 4097)+`"`, 1),
		strings.Replace(metaBody("+12025550100"), `"type":"text"`, `"type":"template"`, 1),
		strings.Replace(metaBody("+12025550100"), "msg_1", strings.Repeat("m", 513), 1),
	} {
		status, _, body = post(t, c, url, bad, good)
		require.Equal(t, 400, status, bad)
		require.Equal(t, 100, code(body))
	}
	for _, path := range []string{"/", "/x", "/v25.0", "/v25.0/42/media", "/a/b/c/d"} {
		status, _, _ = post(t, c, s.URL()+path, metaBody("+12025550100"), good)
		require.Contains(t, []int{404, 400}, status, path)
	}
}

func TestMetaCallbacksAreBundledSignedRepeatedAndInOrder(t *testing.T) {
	type bundle struct {
		Entry []struct {
			Changes []struct{ Value metaValue }
		}
	}
	got := make(chan bundle, 100)
	answer := make(chan int, 100)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("app"))
		mac.Write(body)
		if r.Header.Get("X-Hub-Signature-256") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
			t.Error("the signature does not fit")
		}
		var b bundle
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&b); err != nil {
			t.Error(err)
		}
		got <- b
		w.WriteHeader(<-answer)
	}))
	defer sink.Close()
	clock := clockwork.NewFakeClockAt(time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC))
	s, c := startWeb(t, Options{Clock: clock, WhatsAppSecret: "app", WhatsAppCallback: sink.URL, ReceiptDelay: time.Second})
	const n = 250
	for range n {
		status, _, body := post(t, c, s.URL()+"/v25.0/42/messages", metaBody("+12025550133"), nil) // nobody reports on 33
		require.Equal(t, 200, status, body)
	}
	status, _, _ := post(t, c, s.URL()+"/v25.0/42/messages", metaBody("+12025550102"), nil)
	require.Equal(t, 200, status)
	select {
	case <-got:
		t.Fatal("a receipt before its time")
	default:
	}
	clock.Advance(time.Second) // delivered and read fall due together
	first := <-got
	answer <- 500
	require.NoError(t, clock.BlockUntilContext(context.Background(), 1))
	clock.Advance(100 * time.Millisecond)
	again := <-got
	require.Equal(t, first, again, "what was not taken comes again")
	require.Len(t, first.Entry[0].Changes[0].Value.Statuses, 2, "what falls due together comes together")
	require.Equal(t, "delivered", first.Entry[0].Changes[0].Value.Statuses[0].Status)
	for i := range n { // while the sink thinks, statuses pile up
		s.meta.out.add(item{account: "42", status: &metaStatus{ID: string(rune('a' + i%26)), Status: "delivered"}})
	}
	answer <- 200
	var order []string
	bundles := 0
	for len(order) < n {
		b := <-got
		answer <- 200
		bundles++
		size := 0
		for _, ch := range b.Entry[0].Changes {
			for _, st := range ch.Value.Statuses {
				order = append(order, st.ID)
			}
			size += len(ch.Value.Statuses)
		}
		require.LessOrEqual(t, size, callbackBatch)
	}
	for i, id := range order {
		require.Equal(t, string(rune('a'+i%26)), id, "the order is kept")
	}
	require.Equal(t, 3, bundles, "statuses are bundled")
}

func TestReplyWithoutCallbackSaysSo(t *testing.T) {
	s, _ := startWeb(t, Options{})
	require.ErrorContains(t, s.Reply(delivery.WhatsApp, "42", "+12025550100", "42", "hi"), "callback")
}

func TestNothingRunsAfterClose(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, c := startWeb(t, Options{WhatsAppCallback: "http://127.0.0.1:1/", ReceiptDelay: time.Hour})
	status, _, _ := post(t, c, s.URL()+"/v25.0/42/messages", metaBody("+12025550100"), nil)
	require.Equal(t, 200, status)
	require.NoError(t, s.Reply(delivery.WhatsApp, "42", "+12025550100", "42", "hi")) // is being tried over and over
	require.NoError(t, s.Close())
	c.CloseIdleConnections()
}
