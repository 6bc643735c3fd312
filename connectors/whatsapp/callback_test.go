package whatsapp_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/connectortest"
	"github.com/msgctl/msgctl/delivery"
)

func signedCallback(body string) *connectors.Callback {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write([]byte(body))
	return &connectors.Callback{
		Method: http.MethodPost, URL: "https://msg.example/callbacks/x", Body: []byte(body), Now: testNow,
		Header: http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}},
	}
}

func handshake(query string) *connectors.Callback {
	return &connectors.Callback{Method: http.MethodGet, URL: "https://msg.example/callbacks/x?" + query, Header: http.Header{}, Now: testNow}
}

// wrap puts values of changes into one body with two entries.
func wrap(values ...string) string {
	changes := make([]string, len(values))
	for i, v := range values {
		changes[i] = `{"field":"messages","value":` + v + `}`
	}
	return `{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[` + strings.Join(changes[:1], ",") +
		`]},{"id":"2","changes":[` + strings.Join(changes[1:], ",") + `]}]}`
}

var (
	delivered = `{"id":"wamid.A","status":"delivered","timestamp":"1790000000","recipient_id":"12025550100","biz_opaque_callback_data":"` + msgID.String() + `","pricing":{"billable":true,"nested":[[{}]]}}`
	readOther = `{"id":"wamid.B","status":"read","timestamp":"1790000001","recipient_id":"12025550100"}`
	failed    = `{"id":"wamid.C","status":"failed","timestamp":"1790000002","biz_opaque_callback_data":"some other program","errors":[{"code":131026,"title":"Message undeliverable","message":"Message undeliverable","error_data":{"details":"to +12025550100"}}]}`
	optedOut  = `{"id":"wamid.D","status":"failed","timestamp":"1790000003","errors":[{"code":131050,"title":"x"}]}`
	held      = `{"id":"wamid.E","status":"failed","timestamp":"1790000003","errors":[{"code":131049,"title":"x"}]}`
	strange   = `{"id":"wamid.F","status":"teleported","timestamp":"1790000003"}`
	inbound   = `{"messaging_product":"whatsapp","metadata":{"phone_number_id":"` + number + `"},"contacts":[{"wa_id":"12025550140"}],` +
		`"messages":[{"from":"12025550140","id":"wamid.X","timestamp":"1790000000","type":"text","text":{"body":"STOP"}}]}`
)

func statuses(list ...string) string { return `{"statuses":[` + strings.Join(list, ",") + `]}` }

func callbackCases() []connectortest.Callback {
	post := func(body string) func() *connectors.Callback {
		return func() *connectors.Callback { return signedCallback(body) }
	}
	a := delivery.Receipt{Message: msgID, ProviderID: "wamid.A", Status: delivery.StatusDelivered}
	return []connectortest.Callback{
		{Name: "one", Request: post(wrap(statuses(delivered))), Receipts: []delivery.Receipt{a}},
		{Name: "twice", Request: post(wrap(statuses(delivered, delivered))), Receipts: []delivery.Receipt{a, a}},
		{Name: "several entries", Request: post(wrap(statuses(delivered), statuses(readOther), inbound)), Inbound: 1,
			Receipts: []delivery.Receipt{a, {ProviderID: "wamid.B", Status: delivery.StatusRead}}},
		{Name: "failures", Request: post(wrap(statuses(failed, optedOut, held))), Receipts: []delivery.Receipt{
			{ProviderID: "wamid.C", Status: delivery.StatusUndelivered, Class: delivery.BadRecipient},
			{ProviderID: "wamid.D", Status: delivery.StatusUndelivered, Class: delivery.Consent},
			{ProviderID: "wamid.E", Status: delivery.StatusUndelivered},
		}},
		{Name: "unknown status", Request: post(wrap(statuses(strange, delivered))), Unknown: 1, Receipts: []delivery.Receipt{a}},
		{Name: "status without any id", Request: post(wrap(statuses(`{"status":"read"}`))), Unknown: 1},
		{Name: "nothing", Request: post(wrap("{}"))},
		{Name: "handshake", Request: func() *connectors.Callback {
			return handshake("hub.mode=subscribe&hub.verify_token=" + verify + "&hub.challenge=1158201444")
		}, Reply: "1158201444"},
	}
}

func TestForgedCallbacks(t *testing.T) {
	c := openAccount(t, nil, settings("https://graph.example")).(connectors.CallbackReader)
	body := wrap(statuses(delivered))
	good := signedCallback(body).Header.Get("X-Hub-Signature-256")
	old := hmac.New(sha1.New, []byte(appSecret))
	old.Write([]byte(body))
	sum1 := hex.EncodeToString(old.Sum(nil))
	for name, head := range map[string]http.Header{
		"none":             {},
		"SHA-1 only":       {"X-Hub-Signature": {"sha1=" + sum1}},
		"SHA-1 in the new": {"X-Hub-Signature-256": {"sha1=" + sum1}},
		"no scheme":        {"X-Hub-Signature-256": {strings.TrimPrefix(good, "sha256=")}},
		"empty":            {"X-Hub-Signature-256": {""}},
		"half":             {"X-Hub-Signature-256": {good[:40]}},
		"more":             {"X-Hub-Signature-256": {good + "00"}},
		"twice":            {"X-Hub-Signature-256": {good, good}},
		"not hex":          {"X-Hub-Signature-256": {"sha256=" + strings.Repeat("zz", 32)}},
	} {
		cb := signedCallback(body)
		cb.Header = head
		_, err := c.ReadCallback(cb)
		require.ErrorIs(t, err, connectors.ErrForged, name)
	}
	// Re-serialised: the same JSON in other bytes.
	var v any
	require.NoError(t, json.Unmarshal([]byte(body), &v))
	cb := signedCallback(body)
	cb.Body, _ = json.MarshalIndent(v, "", " ")
	_, err := c.ReadCallback(cb)
	require.ErrorIs(t, err, connectors.ErrForged)
	// Another account's secret.
	s := settings("https://graph.example")
	s["app_secret"] = "other"
	_, err = openAccount(t, nil, s).(connectors.CallbackReader).ReadCallback(signedCallback(body))
	require.ErrorIs(t, err, connectors.ErrForged)

	for name, q := range map[string]string{
		"wrong token": "hub.mode=subscribe&hub.verify_token=x&hub.challenge=1", "no token": "hub.mode=subscribe&hub.challenge=1",
		"two tokens": "hub.mode=subscribe&hub.verify_token=" + verify + "&hub.verify_token=x&hub.challenge=1",
		"other mode": "hub.mode=unsubscribe&hub.verify_token=" + verify + "&hub.challenge=1",
	} {
		_, err := c.ReadCallback(handshake(q))
		require.ErrorIs(t, err, connectors.ErrForged, name)
	}
	s = settings("https://graph.example")
	delete(s, "verify_token")
	_, err = openAccount(t, nil, s).(connectors.CallbackReader).ReadCallback(handshake("hub.mode=subscribe&hub.verify_token=&hub.challenge=1"))
	require.ErrorIs(t, err, connectors.ErrForged, "no verify token configured")
	_, err = c.ReadCallback(handshake("hub.mode=subscribe&hub.verify_token=" + verify + "&hub.challenge=<script>"))
	require.ErrorIs(t, err, connectors.ErrMalformed)
}

func TestMalformedCallbacks(t *testing.T) {
	c := openAccount(t, nil, settings("https://graph.example")).(connectors.CallbackReader)
	for name, body := range map[string]string{
		"empty": "", "null": "null", "list": "[]", "text": "hello", "other object": `{"object":"page","entry":[]}`,
		"deep": strings.Repeat(`{"a":`, 200_000), "trailing": wrap("{}") + "{}", "twice": `{"object":"whatsapp_business_account","object":"page"}`,
		"statuses is text": wrap(`{"statuses":"x"}`), "4 MB": `{"object":"` + strings.Repeat("a", 4<<20) + `"}`,
	} {
		r, err := c.ReadCallback(signedCallback(body))
		require.ErrorIs(t, err, connectors.ErrMalformed, name)
		require.Empty(t, r)
	}
}

func TestCallbackDetails(t *testing.T) {
	c := openAccount(t, nil, settings("https://graph.example")).(connectors.CallbackReader)
	r, err := c.ReadCallback(signedCallback(wrap(statuses(failed, `{"id":"w","status":"sent","timestamp":"99999999999"}`), inbound)))
	require.NoError(t, err)
	require.Equal(t, "131026", r.Receipts[0].Code)
	require.NotContains(t, r.Receipts[0].Detail, "2025550100")
	require.Equal(t, time.Unix(1790000002, 0).UTC(), r.Receipts[0].At)
	require.Equal(t, delivery.StatusSent, r.Receipts[1].Status)
	require.Equal(t, testNow, r.Receipts[1].At, "a time ahead of us becomes now")
	require.Equal(t, []delivery.Inbound{{Channel: delivery.WhatsApp, From: "+12025550140", To: number, Text: "STOP", ID: "wamid.X",
		At: time.Unix(1790000000, 0).UTC()}}, r.Inbound)
	for _, m := range []string{
		`{"from":"1","id":"a","type":"button","button":{"text":"Yes"}}`,
		`{"from":"1","id":"a","type":"interactive","interactive":{"button_reply":{"title":"Yes"}}}`,
		`{"from":"1","id":"a","type":"interactive","interactive":{"list_reply":{"title":"Yes"}}}`,
	} {
		r, err := c.ReadCallback(signedCallback(wrap(`{"messages":[` + m + `]}`)))
		require.NoError(t, err)
		require.Equal(t, "Yes", r.Inbound[0].Text)
	}
	r, err = c.ReadCallback(signedCallback(wrap(`{"messages":[{"from":"x","id":"a"},{"from":"1"},{"from":"1","id":"p","type":"image"}]}`)))
	require.NoError(t, err)
	require.Len(t, r.Unknown, 2)
	require.Len(t, r.Inbound, 1, "a picture opens the window as well")
}

func FuzzReadCallback(f *testing.F) {
	for _, c := range callbackCases() {
		f.Add(string(c.Request().Body))
	}
	f.Add(`{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":{"statuses":[null],"messages":[{}]}}]}]}`)
	c := openAccount(f, nil, settings("https://graph.example")).(connectors.CallbackReader)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := c.ReadCallback(signedCallback(body))
		if err == nil {
			for _, rc := range r.Receipts {
				if rc.At.After(testNow) || rc.At.IsZero() || rc.Message.IsZero() && rc.ProviderID == "" || len(rc.Detail) > 200 {
					t.Fatalf("%+v", rc)
				}
			}
		}
		cb := signedCallback(body)
		cb.Header.Set("X-Hub-Signature-256", "sha256="+strings.Repeat("00", 32))
		if _, err := c.ReadCallback(cb); err == nil {
			t.Fatal("a forged callback was taken")
		}
	})
}
