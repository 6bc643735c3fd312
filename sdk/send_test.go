package sdk

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the options of a message say is in the body that goes out.
func TestSendBody(t *testing.T) {
	wa := WhatsApp{To: "+12025550100", Text: "hi"}
	mail := Email{To: "a@example.com", Subject: "S", HTML: "<p>", ReplyTo: "r@example.com", Headers: []Header{{"X-A", "1"}}, UnsubscribeURL: "https://u"}
	for name, c := range map[string]struct {
		m    Sendable
		opts []SendOption
		want string
	}{
		"marks": {wa, []SendOption{Category("otp"), Tag("t 1"), InOrder("order 7")},
			`{"channel":"whatsapp","to":"+12025550100","text":"hi","category":"otp","tag":"t 1","ordering_key":"order 7"}`},
		"a fallback": {wa, []SendOption{Fallback(SMS{To: "+1", Text: "x", From: "ACME"})},
			`{"channel":"whatsapp","to":"+12025550100","text":"hi","fallback":[{"channel":"sms","to":"+1","text":"x","from":"ACME"}]}`},
		"times": {wa, []SendOption{Within(5*time.Minute, Read), Fallback(SMS{To: "+1", Text: "x"}), Within(time.Hour, ""), Fallback(mail, Via("mail"))},
			`{"channel":"whatsapp","to":"+12025550100","text":"hi","within":"5m0s","until":"read","fallback":[{"channel":"sms","to":"+1","text":"x","within":"1h0m0s"},
			{"channel":"email","to":"a@example.com","subject":"S","html":"<p>","reply_to":"r@example.com","headers":[{"name":"X-A","value":"1"}],
			"unsubscribe_url":"https://u","connector":"mail"}]}`},
		"a time within the leg": {wa, []SendOption{Fallback(Template{Name: "t", Channel: ChannelSMS, To: "+1", Vars: Vars{"a": 1}}, Within(time.Second, Sent)),
			Fallback(Hook{URL: "https://h", Event: "e", Data: 7}), TTL(time.Hour)},
			`{"channel":"whatsapp","to":"+12025550100","text":"hi","ttl":"1h0m0s","fallback":[
			{"channel":"sms","to":"+1","template":"t","vars":{"a":1},"within":"1s","until":"sent"},{"channel":"webhook","to":"https://h","event":"e","data":7}]}`},
		"in a row": {With(wa, Fallback(SMS{To: "+1", Text: "x"})), nil,
			`{"channel":"whatsapp","to":"+12025550100","text":"hi","fallback":[{"channel":"sms","to":"+1","text":"x"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			body := ""
			cl, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				body = string(b)
				answer(w, 202, Message{ID: "m"})
			})
			_, err := cl.Send(t.Context(), c.m, c.opts...)
			require.NoError(t, err)
			require.JSONEq(t, c.want, body)
		})
	}
}

// What a fallback cannot carry is refused here and never dropped silently.
func TestFallbackRefuses(t *testing.T) {
	c, _ := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("something was sent") })
	text := SMS{To: "+1", Text: "x"}
	for name, o := range map[string]SendOption{
		"lane": InLane(Urgent), "time": At(time.Unix(0, 0)), "local time": AtLocal("2026-01-01T00:00", "Asia/Kolkata"), "ttl": TTL(time.Hour),
		"expiry": ExpiresAt(time.Unix(0, 0)), "once": AtMostOnce(), "ref": Ref("r"), "category": Category("c"), "tag": Tag("t"), "order": InOrder("k"),
		"key": IdempotencyKey("k"), "a fallback of its own": Fallback(text),
	} {
		_, err := c.Send(t.Context(), WhatsApp{To: "+1", Text: "x"}, Fallback(text, o))
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	for name, m := range map[string]Sendable{
		"nothing": nil, "a request with a tag": MessageRequest{Channel: ChannelSMS, Tag: "t"}, "data that is no JSON": Hook{URL: "https://h", Data: func() {}},
	} {
		_, err := c.Send(t.Context(), WhatsApp{To: "+1", Text: "x"}, Fallback(m), Fallback(text))
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

// A leg has every field of a message that is about one way to a person.
func TestLegHasTheFieldsOfAWay(t *testing.T) {
	whole := MessageRequest{
		Channel: ChannelEmail, To: "to", From: "from", Text: "text", Subject: "subject", HTML: "html", ReplyTo: "reply", Headers: []Header{{"a", "b"}},
		UnsubscribeURL: "u", Approved: &Approved{Name: "n"}, Event: "e", Data: json.RawMessage("1"), Template: "t", Vars: Vars{"a": "b"},
		Connector: "c", Within: "1s", Until: Sent,
	}
	e, err := seal(SMS{}, []SendOption{Fallback(whole)})
	require.NoError(t, err)
	want, err := json.Marshal(whole)
	require.NoError(t, err)
	got, err := json.Marshal(e.MessageRequest.Fallback[0])
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}
