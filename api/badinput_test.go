package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func smsWith(fields string) string {
	return `{"channel":"sms","to":"+12025550100","text":"Hi"` + fields + `}`
}

func to(channel, to string) string {
	content := map[string]string{
		"sms": `"text":"Hi"`, "email": `"subject":"S","text":"Hi"`, "webhook": `"data":{}`, "whatsapp": `"text":"Hi"`,
	}[channel]
	return fmt.Sprintf(`{"channel":%q,"to":%q,%s}`, channel, to, content)
}

func email(fields string) string {
	return `{"channel":"email","to":"asha@example.com","text":"Hi"` + fields + `}`
}

// TestBadInput sends what people and attackers send by mistake or on purpose. Each must get its own clear problem and
// must store nothing.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	deep := `{"channel":"webhook","to":"https://example.com/","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`
	for _, c := range []struct {
		row     int
		name    string
		body    string
		status  int
		code    string
		pointer string // of the first error; "-" = there is none
		detail  string // part of it
	}{
		{1, "empty", " ", 400, "body_required", "-", "empty"},
		{1, "array", "[]", 400, "body_required", "-", "array"},
		{1, "array of messages", "[" + hello + "]", 400, "body_required", "-", "array"},
		{1, "null", "null", 400, "body_required", "-", "null"},
		{1, "string", `"hi"`, 400, "invalid_type", "", "object"},
		{3, "20,000 deep", deep, 400, "json_too_deep", "-", "100"},
		{3, "101 deep", smsWith(`,"vars":` + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)), 400, "json_too_deep", "-", ""},
		{4, "field twice", `{"to":"a","to":"b"}`, 400, "duplicate_field", "/to", "to"},
		{4, "field twice below", `{"channel":"webhook","to":"https://example.com/","data":{"x":[{"a":1,"a":2}]}}`, 400, "duplicate_field", "/data/x/0/a", ""},
		{5, "invalid UTF-8", "{\"channel\":\"sms\",\n\"text\":\"\xff\"}", 400, "invalid_encoding", "-", "line 2, column 9"},
		{5, "lone high surrogate", `{"text":"\ud800"}`, 400, "invalid_encoding", "-", "surrogate"},
		{5, "lone low surrogate", `{"text":"\udc00"}`, 400, "invalid_encoding", "-", "surrogate"},
		{5, "two high surrogates", `{"text":"\ud83d\ud83d"}`, 400, "invalid_encoding", "-", "surrogate"},
		{5, "escaped NUL", `{"text":"a\u0000b"}`, 400, "invalid_encoding", "-", "U+0000"},
		{5, "raw NUL", "{\"text\":\"a\x00b\"}", 400, "invalid_encoding", "-", "U+0000"},
		{5, "NUL in data", `{"channel":"webhook","to":"https://example.com/","data":{"a":"\u0000"}}`, 400, "invalid_encoding", "-", ""},
		{6, "unknown field", smsWith(`,"tenant_id":"other"`), 400, "unknown_field", "/tenant_id", "tenant_id"},
		{6, "misspelt field", smsWith(`,"tempate":"x"`), 400, "unknown_field", "/tempate", `did you mean "template"?`},
		{6, "other case", `{"Channel":"sms"}`, 400, "unknown_field", "/Channel", `did you mean "channel"?`},
		{6, "status", smsWith(`,"status":"delivered"`), 400, "unknown_field", "/status", ""},
		{7, "number for a string", smsWith(`,"lane":1`), 400, "invalid_type", "/lane", "string"},
		{8, "two objects", hello + hello, 400, "trailing_data", "-", "behind"},
		{8, "garbage behind", hello + " x", 400, "trailing_data", "-", "column 54"},
		{8, "comma behind", hello + ",", 400, "trailing_data", "-", ""},
		{8, "cut", hello[:20], 400, "invalid_json", "-", "ends"},
		{8, "trailing comma", `{"channel":"sms",}`, 400, "invalid_json", "-", "line 1, column 17"},
		{8, "single quotes", `{'channel':'sms'}`, 400, "invalid_json", "-", "column 2"},
		{8, "comment", "{/* x */}", 400, "invalid_json", "-", ""},
		{8, "NaN", smsWith(`,"vars":{"a":NaN}`), 400, "invalid_json", "-", ""},
		{8, "garbage", "hello", 400, "invalid_json", "-", "column 1"},

		{10, "+1", to("sms", "+1"), 422, "invalid_phone", "/to", "short"},
		{10, "0049", to("sms", "004930123456"), 422, "invalid_phone", "/to", "start with +"},
		{10, "30 digits", to("sms", "+1555"+strings.Repeat("1", 30)), 422, "invalid_phone", "/to", "15 digits"},
		{10, "Arabic-Indic digits", to("sms", "+١٢٠٢٥٥٥٠١٠٠"), 422, "invalid_phone", "/to", "0-9"},
		{10, "WhatsApp too", to("whatsapp", "+1"), 422, "invalid_phone", "/to", ""},
		{10, "no recipient", `{"channel":"sms","text":"Hi"}`, 422, "field_required", "/to", ""},
		{10, "no channel", `{"to":"+12025550100"}`, 422, "field_required", "/channel", ""},
		{10, "unknown channel", `{"channel":"fax","to":"+12025550100"}`, 422, "invalid_channel", "/channel", "fax"},
		{11, "a@b", to("email", "a@b"), 422, "invalid_email", "/to", "dot"},
		{11, "smuggled RCPT", to("email", "\"a\r\nRCPT TO:<x>\"@d"), 422, "invalid_email", "/to", ""},
		{11, "255-char local part", to("email", strings.Repeat("a", 255)+"@example.com"), 422, "invalid_email", "/to", "64"},
		{11, "address literal", to("email", "a@[127.0.0.1]"), 422, "invalid_email", "/to", ""},
		{12, "CRLF in subject", email(`,"subject":"a\r\nBcc: x"`), 422, "control_character", "/subject", ""},
		{12, "LF in subject", email(`,"subject":"a\nb"`), 422, "control_character", "/subject", ""},
		{12, "U+2028 in subject", email(`,"subject":"a\u2028b"`), 422, "control_character", "/subject", ""},
		{12, "U+2029 in subject", email(`,"subject":"a\u2029b"`), 422, "control_character", "/subject", ""},
		{12, "CRLF in header", email(`,"subject":"S","headers":[{"name":"X-A","value":"a\r\nBcc: x"}]`), 422, "control_character", "/headers/0/value", ""},
		{12, "U+2028 in header", email(`,"subject":"S","headers":[{"name":"X-A","value":"a\u2028"}]`), 422, "control_character", "/headers/0/value", ""},
		{12, "LF in header", email(`,"subject":"S","headers":[{"name":"X-A","value":"\nBcc: x"}]`), 422, "control_character", "/headers/0/value", ""},
		{12, "NEL in subject", email(`,"subject":"a\u0085b"`), 422, "control_character", "/subject", ""},
		{12, "CRLF in unsubscribe_url", email(`,"subject":"S","unsubscribe_url":"https://example.com/u\r\nBcc: x"`), 422, "url_not_allowed", "/unsubscribe_url", ""},
		{12, "CRLF in the event", `{"channel":"webhook","to":"https://example.com/","data":{},"event":"a\r\nX: y"}`, 422, "control_character", "/event", ""},
		{12, "CRLF in header name", email(`,"subject":"S","headers":[{"name":"X-A\r\nBcc","value":"a"}]`), 422, "control_character", "/headers/0/name", ""},
		{12, "CRLF in reply_to", email(`,"subject":"S","reply_to":"a@example.com\r\nBcc: x"`), 422, "control_character", "/reply_to", ""},
		{12, "CRLF in from", email(`,"subject":"S","from":"A\r\nBcc: x <a@example.com>"`), 422, "invalid_sender", "/from", ""},
		{12, "CRLF in client_ref", smsWith(`,"client_ref":"a\r\nb"`), 422, "control_character", "/client_ref", ""},
		{12, "escape in text", smsWith(``)[:len(smsWith(``))-2] + `\u001b"}`, 422, "control_character", "/text", ""},
		{13, "DKIM-Signature", email(`,"subject":"S","headers":[{"name":"DKIM-Signature","value":"a"}]`), 422, "header_not_allowed", "/headers/0/name", ""},
		{13, "Received", email(`,"subject":"S","headers":[{"name":"X-A","value":"a"},{"name":"received","value":"a"}]`), 422, "header_not_allowed", "/headers/1/name", ""},
		{13, "Bcc", email(`,"subject":"S","headers":[{"name":"Bcc","value":"a"}]`), 422, "header_not_allowed", "/headers/0/name", ""},
		{13, "List-Unsubscribe", email(`,"subject":"S","headers":[{"name":"List-Unsubscribe","value":"a"}]`), 422, "header_not_allowed", "/headers/0/name", "unsubscribe_url"},
		{13, "X-Msgctl-", email(`,"subject":"S","headers":[{"name":"x-msgctl-id","value":"a"}]`), 422, "header_not_allowed", "/headers/0/name", ""},
		{13, "colon in name", email(`,"subject":"S","headers":[{"name":"X-A: b","value":"a"}]`), 422, "header_not_allowed", "/headers/0/name", ""},
		{14, "10,000 characters", `{"channel":"sms","to":"+12025550100","text":"` + strings.Repeat("a", 10_000) + `"}`, 422, "too_many_segments", "/text", "66 segments"},
		{14, "256 segments", `{"channel":"sms","to":"+12025550100","text":"` + strings.Repeat("a", 256*153) + `"}`, 422, "too_many_segments", "/text", "256 segments"},
		{14, "11 segments of UCS-2", `{"channel":"sms","to":"+12025550100","text":"` + strings.Repeat("я", 671) + `"}`, 422, "too_many_segments", "/text", "11 segments"},
		{14, "no text", `{"channel":"sms","to":"+12025550100"}`, 422, "content_required", "", ""},
		{14, "HTML in an SMS", smsWith(`,"html":"<b>"`), 422, "field_not_allowed", "/html", "text"},
		{14, "subject in an SMS", smsWith(`,"subject":"x"`), 422, "field_not_allowed", "/subject", ""},
		{14, "vars without template", smsWith(`,"vars":{"a":1}`), 422, "field_not_allowed", "/vars", ""},
		{14, "template and text", smsWith(`,"template":"t"`), 422, "field_not_allowed", "/text", "not both"},
		{14, "HTML over 256 KiB", email(`,"subject":"S","html":"` + strings.Repeat("a", 256<<10+1) + `"`), 422, "text_too_long", "/html", "262144"},
		{14, "webhook without data", `{"channel":"webhook","to":"https://example.com/","event":"a"}`, 422, "content_required", "/data", ""},
		{14, "unknown lane", smsWith(`,"lane":"fast"`), 422, "invalid_value", "/lane", "fast"},
		{14, "unknown delivery", smsWith(`,"delivery":"twice"`), 422, "invalid_value", "/delivery", ""},
		{14, "unknown connector", smsWith(`,"connector":"none"`), 422, "unknown_connector", "/connector", "none"},
		{14, "path as connector", smsWith(`,"connector":"../x"`), 422, "unknown_connector", "/connector", ""},
		{14, "unknown template", `{"channel":"sms","to":"+12025550100","template":"none"}`, 422, "unknown_template", "/template", "none"},
		{14, "client_ref", smsWith(`,"client_ref":"` + strings.Repeat("a", 129) + `"`), 422, "text_too_long", "/client_ref", ""},
		{14, "sender", smsWith(`,"from":"Twelve chars"`), 422, "invalid_sender", "/from", "11"},
		{14, "category", smsWith(`,"category":"` + strings.Repeat("ä", 65) + `"`), 422, "text_too_long", "/category", "64"},
		{14, "invisible tag", smsWith(`,"tag":"spring\u200b"`), 422, "control_character", "/tag", "printed"},
		{14, "tag", smsWith(`,"tag":"` + strings.Repeat("a", 65) + `"`), 422, "text_too_long", "/tag", "64"},
		{14, "CRLF in ordering_key", smsWith(`,"ordering_key":"a\r\nb"`), 422, "control_character", "/ordering_key", ""},
		{14, "ordering_key", smsWith(`,"ordering_key":"` + strings.Repeat("a", 129) + `"`), 422, "text_too_long", "/ordering_key", "128"},
		{14, "number as tag", smsWith(`,"tag":7`), 400, "invalid_type", "/tag", "string"},
		{14, "within without fallback", smsWith(`,"within":"5m"`), 422, "field_not_allowed", "/within", "fallback"},
		{14, "until without fallback", smsWith(`,"until":"sent"`), 422, "field_not_allowed", "/until", "fallback"},
		{14, "within, empty fallback", smsWith(`,"within":"5m","fallback":[]`), 422, "field_not_allowed", "/within", ""},
		{14, "fallback as object", smsWith(`,"fallback":{}`), 400, "invalid_type", "/fallback", "array"},
		{14, "fallback as a list of texts", smsWith(`,"fallback":["email"]`), 400, "invalid_type", "/fallback/0", "object"},
		{14, "null as leg", smsWith(`,"fallback":[null]`), 422, "field_required", "/fallback/0/channel", ""},
		{14, "misspelt field of a leg", smsWith(`,"fallback":[{"channel":"email","tempate":"x"}]`), 400, "unknown_field", "/fallback/0/tempate", `did you mean "template"?`},
		{14, "ttl of a leg", smsWith(`,"fallback":[{"channel":"email","ttl":"1h"}]`), 400, "unknown_field", "/fallback/0/ttl", ""},
		{14, "fallback of a leg", smsWith(`,"fallback":[{"channel":"email","fallback":[]}]`), 400, "unknown_field", "/fallback/0/fallback", ""},
		{14, "four further legs", smsWith(`,"fallback":[{},{},{},{}]`), 422, "invalid_value", "/fallback", "3"},
		{14, "same channel again", smsWith(`,"fallback":[` + to("sms", "+12025550101") + `]`), 422, "invalid_value", "/fallback/0/channel", "the message itself"},
		{14, "same channel below", smsWith(`,"fallback":[` + email(`,"subject":"S"`) + `,` + email(`,"subject":"S"`) + `]`), 422, "invalid_value", "/fallback/1/channel", "/fallback/0"},
		{14, "unknown channel of a leg", smsWith(`,"fallback":[{"channel":"fax"}]`), 422, "invalid_channel", "/fallback/0/channel", "fax"},
		{14, "recipient of a leg", smsWith(`,"fallback":[` + to("email", "a@b") + `]`), 422, "invalid_email", "/fallback/0/to", ""},
		{14, "URL of a leg", smsWith(`,"fallback":[` + to("webhook", "https://169.254.169.254/") + `]`), 422, "url_not_allowed", "/fallback/0/to", ""},
		{14, "content of a leg", smsWith(`,"fallback":[{"channel":"email","to":"a@example.com","text":"x"}]`), 422, "content_required", "/fallback/0/subject", ""},
		{14, "foreign content of a leg", smsWith(`,"fallback":[{"channel":"webhook","to":"https://example.com/","data":1,"html":"x"}]`), 422, "field_not_allowed", "/fallback/0/html", ""},
		{14, "header of a leg", smsWith(`,"fallback":[` + email(`,"subject":"S","headers":[{"name":"Bcc","value":"a"}]`) + `]`), 422, "header_not_allowed", "/fallback/0/headers/0/name", ""},
		{14, "template of a leg", smsWith(`,"fallback":[{"channel":"email","to":"a@example.com","template":"none"}]`), 422, "unknown_template", "/fallback/0/template", ""},
		{14, "connector of a leg", smsWith(`,"fallback":[` + email(`,"subject":"S","connector":"none"`) + `]`), 422, "unknown_connector", "/fallback/0/connector", ""},
		{14, "segments of a leg", email(`,"subject":"S","fallback":[{"channel":"sms","to":"+12025550100","text":"` + strings.Repeat("a", 2000) + `"}]`), 422, "too_many_segments", "/fallback/0/text", ""},
		{14, "within of no time", smsWith(`,"within":"999ms","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_time", "/within", "1s to 168h"},
		{14, "within of a word", smsWith(`,"within":"soon","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_time", "/within", ""},
		{14, "within beyond the week", smsWith(`,"within":"168h1s","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_time", "/within", ""},
		{14, "within beyond the ttl", smsWith(`,"within":"10m","ttl":"10m","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_time", "/within", "10m"},
		{14, "within of two legs beyond the ttl", smsWith(`,"within":"5m","ttl":"10m","fallback":[` + email(`,"subject":"S","within":"5m"`) + `,` + to("webhook", "https://example.com/") + `]`), 422, "invalid_time", "/fallback/0/within", "never begin"},
		{14, "within of the last leg", smsWith(`,"fallback":[` + email(`,"subject":"S","within":"5m"`) + `]`), 422, "field_not_allowed", "/fallback/0/within", "last"},
		{14, "until failed", smsWith(`,"until":"failed","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_value", "/until", "failed"},
		{14, "until read by SMS", smsWith(`,"until":"read","fallback":[` + email(`,"subject":"S"`) + `]`), 422, "invalid_value", "/until", "never say read"},
		{14, "until read of a leg", smsWith(`,"fallback":[{"channel":"webhook","to":"https://example.com/","data":1,"until":"read"}]`), 422, "invalid_value", "/fallback/0/until", ""},
		{15, "year 9999", smsWith(`,"send_at":"9999-01-01T00:00:00Z"`), 422, "invalid_time", "/send_at", "year"},
		{15, "1970", smsWith(`,"send_at":"1970-01-01T00:00:00Z"`), 422, "invalid_time", "/send_at", "past"},
		{15, "30 February", smsWith(`,"send_at":"2026-02-30T10:00:00Z"`), 422, "invalid_time", "/send_at", ""},
		{15, "no zone", smsWith(`,"send_at":"2026-03-02T10:00:00"`), 422, "invalid_time", "/send_at", "zone is missing"},
		{15, "a word", smsWith(`,"send_at":"tomorrow"`), 422, "invalid_time", "/send_at", "RFC 3339"},
		{15, "offset and zone", smsWith(`,"send_at":"2026-03-02T10:00:00Z","zone":"Asia/Kolkata"`), 422, "invalid_time", "/zone", ""},
		{15, "zone alone", smsWith(`,"zone":"Asia/Kolkata"`), 422, "field_not_allowed", "/zone", ""},
		{15, "ttl", smsWith(`,"ttl":"8d"`), 422, "invalid_time", "/ttl", ""},
		{15, "ttl of 8 days", smsWith(`,"ttl":"192h"`), 422, "invalid_time", "/ttl", ""},
		{15, "ttl and expires_at", smsWith(`,"ttl":"1h","expires_at":"2026-03-02T10:00:00Z"`), 422, "invalid_time", "/ttl", ""},
		{15, "8 days", smsWith(`,"expires_at":"2026-03-09T12:00:01Z"`), 422, "invalid_time", "/expires_at", "7 days"},
		{16, "Mars/Phobos", smsWith(`,"send_at":"2026-03-02T10:00:00","zone":"Mars/Phobos"`), 422, "unknown_timezone", "/zone", "Mars/Phobos"},
		{16, "Local", smsWith(`,"send_at":"2026-03-02T10:00:00","zone":"Local"`), 422, "unknown_timezone", "/zone", ""},
		{16, "path as zone", smsWith(`,"send_at":"2026-03-02T10:00:00","zone":"../../etc/passwd"`), 422, "unknown_timezone", "/zone", ""},
		{17, "expires before send", smsWith(`,"send_at":"2026-03-02T10:00:00Z","expires_at":"2026-03-02T09:00:00Z"`), 422, "expires_before_send", "/expires_at", ""},
		{17, "expired", smsWith(`,"expires_at":"2026-03-01T11:00:00Z"`), 422, "expires_before_send", "/expires_at", ""},

		{22, "metadata", to("webhook", "http://169.254.169.254/latest"), 422, "url_not_allowed", "/to", "scheme"},
		{22, "metadata over TLS", to("webhook", "https://169.254.169.254/latest"), 422, "url_not_allowed", "/to", "address"},
		{22, "file", to("webhook", "file:///etc/passwd"), 422, "url_not_allowed", "/to", ""},
		{22, "gopher", to("webhook", "gopher://example.com/"), 422, "url_not_allowed", "/to", ""},
		{22, "mapped", to("webhook", "https://[::ffff:127.0.0.1]/"), 422, "url_not_allowed", "/to", "address"},
		{22, "hex", to("webhook", "https://0x7f.1/"), 422, "url_not_allowed", "/to", ""},
		{22, "decimal", to("webhook", "https://2130706433/"), 422, "url_not_allowed", "/to", ""},
		{22, "NAT64", to("webhook", "https://[64:ff9b::a9fe:a9fe]/"), 422, "url_not_allowed", "/to", "address"},
		{22, "http", to("webhook", "http://localtest.example/"), 422, "url_not_allowed", "/to", "scheme"},
		{22, "mapped by http", to("webhook", "http://[::ffff:127.0.0.1]"), 422, "url_not_allowed", "/to", "scheme"},
		{22, "hex by http", to("webhook", "http://0x7f.1"), 422, "url_not_allowed", "/to", ""},
		{22, "decimal by http", to("webhook", "http://2130706433"), 422, "url_not_allowed", "/to", ""},
		{22, "NAT64 by http", to("webhook", "http://[64:ff9b::a9fe:a9fe]"), 422, "url_not_allowed", "/to", "scheme"},
		{22, "octal", to("webhook", "https://0177.0.0.1/"), 422, "url_not_allowed", "/to", ""},
		{22, "6to4", to("webhook", "https://[2002:7f00:1::]/"), 422, "url_not_allowed", "/to", "address"},
		{22, "localhost", to("webhook", "https://localhost/"), 422, "url_not_allowed", "/to", ""},
		{22, "user", to("webhook", "https://user:pass@example.com/"), 422, "url_not_allowed", "/to", ""},
		{22, "port 25", to("webhook", "https://example.com:25/"), 422, "url_not_allowed", "/to", "port"},
		{22, "unsubscribe by http", email(`,"subject":"S","unsubscribe_url":"http://example.com/u"`), 422, "url_not_allowed", "/unsubscribe_url", ""},
	} {
		t.Run(fmt.Sprintf("%02d %s", c.row, c.name), func(t *testing.T) {
			a := r.post(r.acme, "/v1/messages", c.body)
			p := a.problem(t)
			require.Equal(t, c.code, p.Code, a.body)
			require.Equal(t, c.status, a.status)
			require.Contains(t, p.Detail, c.detail)
			switch {
			case c.pointer == "-":
				require.Empty(t, p.Fields)
			case c.pointer != "":
				require.NotEmpty(t, p.Fields)
				require.Equal(t, c.pointer, p.Fields[0].Pointer)
				require.Equal(t, c.code, p.Fields[0].Code)
			}
		})
	}
	_, latest, err := r.store.Events(context.Background(), "acme", 0, 1)
	require.NoError(t, err)
	require.Zero(t, latest, "something was stored")
}

// Everything that is wrong is told at once.
func TestAllFaultsAtOnce(t *testing.T) {
	r := newRig(t)
	p := r.post(r.acme, "/v1/messages", `{"channel":"sms","to":"+1","text":"x","html":"<b>","lane":"fast","ttl":"x"}`).problem(t)
	var at []string
	for _, f := range p.Fields {
		at = append(at, f.Pointer+" "+f.Code)
	}
	require.Equal(t, []string{"/to invalid_phone", "/html field_not_allowed", "/lane invalid_value", "/ttl invalid_time"}, at)
	require.Equal(t, "invalid_phone", p.Code)
	require.Contains(t, p.Detail, "(and 3 more)")
}

// Row 7: numbers in fields for numbers, on a route that has them.
func TestBadNumbers(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]string{
		`{"id":"x1","daily_quota":1e400}`:               "out_of_range",
		`{"id":"x2","daily_quota":9223372036854775808}`: "out_of_range",
		`{"id":"x3","daily_quota":-0}`:                  "out_of_range",
		`{"id":"x4","daily_quota":1.5}`:                 "out_of_range",
		`{"id":"x5","daily_quota":"1"}`:                 "invalid_type",
		`{"id":"x6","rates":[{"per_second":1e400}]}`:    "out_of_range",
		`{"id":"x7","daily_quota":-1}`:                  "invalid_value",
		`{"id":"x8","rates":[{"per_second":0}]}`:        "invalid_value",
		`{"id":"x9","rates":[{"per_secnd":1}]}`:         "unknown_field",
		`{"id":"X","daily_quota":1}`:                    "invalid_name",
		`{"id":"../x"}`:                                 "invalid_name",
		`{"id":"x10","region":"XX"}`:                    "invalid_region",
		`{"id":"x11","on_ambiguous":"maybe"}`:           "invalid_value",
		`{"id":"x12","weight":101}`:                     "invalid_value",
		`{"id":"x13","weight":-1}`:                      "invalid_value",
		`{"id":"x14","weight":1.5}`:                     "out_of_range",
		`{"id":"x15","accept_rate":-0.5}`:               "invalid_value",
		`{"id":"x16","accept_rate":1000001}`:            "invalid_value",
		`{"id":"x17","accept_rate":"fast"}`:             "invalid_type",
		`{"id":"x18","reroute_in_doubt":"yes"}`:         "invalid_type",
	} {
		p := r.post(r.admin, "/v1/tenants", body).problem(t)
		require.Equal(t, want, p.Code, body)
		require.NotEmpty(t, p.Fields, body)
	}
}

// Rows 2 and 9: how the body comes.
func TestBadBodies(t *testing.T) {
	r := newRig(t)
	big := strings.Repeat(" ", 11<<20)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(make([]byte, 11<<20))
	require.NoError(t, z.Close())
	for _, c := range []struct {
		name   string
		q      request
		status int
		code   string
	}{
		{"11 MB", request{body: big}, 413, "payload_too_large"},
		{"11 MB in chunks", request{reader: io.MultiReader(strings.NewReader(big))}, 413, "payload_too_large"},
		{"1 MiB and a byte", request{body: big[:1<<20+1]}, 413, "payload_too_large"},
		{"gzip", request{body: zipped.String(), header: http.Header{"Content-Encoding": {"gzip"}}}, 413, "payload_too_large"},
		{"gzip that is none", request{body: hello, header: http.Header{"Content-Encoding": {"gzip"}}}, 400, "invalid_encoding"},
		{"brotli", request{body: hello, header: http.Header{"Content-Encoding": {"br"}}}, 415, "unsupported_encoding"},
		{"gzip unsaid", request{body: zipped.String()}, 400, "invalid_encoding"},
		{"text/xml", request{body: hello, media: "text/xml"}, 415, "unsupported_media_type"},
		{"no type", request{body: hello, media: "-"}, 415, "unsupported_media_type"},
		{"broken type", request{body: hello, media: "application"}, 415, "unsupported_media_type"},
		{"form", request{body: "channel=sms", media: "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		{"UTF-16", request{body: hello, media: "application/json; charset=utf-16"}, 415, "unsupported_media_type"},
		{"no body", request{method: "POST", media: "application/json"}, 400, "body_required"},
		{"batch of 11 MB", request{path: "/v1/messages/batch", media: "application/x-ndjson", body: big}, 413, "payload_too_large"},
		{"batch of 11 MB in chunks", request{path: "/v1/messages/batch", media: "application/x-ndjson", reader: io.MultiReader(strings.NewReader(big))}, 413, "payload_too_large"},
		{"batch as JSON", request{path: "/v1/messages/batch", body: "[" + hello + "]"}, 415, "unsupported_media_type"},
		{"empty batch", request{path: "/v1/messages/batch", media: "application/x-ndjson", body: "\n \r\n\n"}, 400, "body_required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.q.key = r.acme
			if c.q.path == "" {
				c.q.path = "/v1/messages"
			}
			a := r.send(c.q)
			require.Equal(t, c.code, a.problem(t).Code, a.body)
			require.Equal(t, c.status, a.status)
		})
	}
	for _, media := range []string{"application/json; charset=utf-8", "Application/JSON", "application/json;charset=\"UTF-8\""} {
		require.Equal(t, 202, r.send(request{path: "/v1/messages", key: r.acme, body: hello, media: media}).status, media)
	}
	require.Equal(t, 202, r.send(request{path: "/v1/messages", key: r.acme, body: "\xef\xbb\xbf" + hello}).status, "byte order mark")
}

// Row 19.
func TestBadIdempotencyKeys(t *testing.T) {
	r := newRig(t)
	for _, key := range []string{"", strings.Repeat("k", 256), "a\tb", "naïve", "😀", `"open`, `"a"b`, `"a\nb"`, `""`} {
		a := r.send(request{path: "/v1/messages", key: r.acme, body: hello, header: http.Header{"Idempotency-Key": {key}}})
		require.Equal(t, "invalid_idempotency_key", a.problem(t).Code, "%q", key)
	}
	a := r.send(request{path: "/v1/messages", key: r.acme, body: hello, header: http.Header{"Idempotency-Key": {"a", "b"}}})
	require.Equal(t, "invalid_idempotency_key", a.problem(t).Code)
	// A line break cannot get through a correct client: it is sent by hand.
	raw := r.raw("POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + r.acme + "\r\nContent-Type: application/json\r\n" +
		"Idempotency-Key: a\rb\r\nContent-Length: 2\r\n\r\n{}")
	require.Contains(t, raw, "400 Bad Request")
	for _, key := range []string{"k", strings.Repeat("k", 255), "a b", `"quoted \"key\""`, "-", "k,l"} {
		a := r.send(request{path: "/v1/messages", key: r.acme, body: hello, header: http.Header{"Idempotency-Key": {key}}})
		require.Equal(t, 202, a.status, "%q: %s", key, a.body)
	}
}

// raw writes bytes to the server and returns what it answers before it closes.
func (r *rig) raw(text string) string {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(r.t, err)
	defer conn.Close()
	require.NoError(r.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = io.WriteString(conn, text) // the server may hang up in the middle
	out, _ := io.ReadAll(conn)
	return string(out)
}

// Row 46: headers.
func TestBadHeaders(t *testing.T) {
	r := newRig(t)
	head := "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " + r.acme + "\r\n"
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"10,000 headers":     {head + strings.Repeat("X-A: b\r\n", 10_000) + "\r\n", " 431 "},
		"1 MB cookie":        {head + "Cookie: " + strings.Repeat("c", 1<<20) + "\r\n\r\n", " 431 "},
		"two lengths":        {head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", " 400 "},
		"negative length":    {head + "Content-Length: -1\r\n\r\n{}", " 400 "},
		"no Host":            {"GET /healthz HTTP/1.1\r\n\r\n", " 400 "},
		"bad Host":           {"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", " 400 "},
		"unknown encoding":   {head + "Transfer-Encoding: gzip\r\n\r\n{}", " 501 "},
		"not HTTP":           {"\x16\x03\x01\r\n\r\n", " 400 "},
		"line without colon": {head + "X\r\n\r\n", " 400 "},
		// Both at once: the body is read as chunks and the connection ends, so that nothing can hide behind it.
		"length and chunks": {head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" +
			"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "Connection: close"},
		// HTTP/2 is not spoken on the plain port, so its streams cannot be opened and reset.
		"HTTP/2 preface": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "HTTP/1.1 "},
		"HTTP/1.0":       {"GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"},
	} {
		out := r.raw(c.text)
		require.Contains(t, out, c.want, name)
		require.LessOrEqual(t, strings.Count(out, "HTTP/1."), 1, name)
	}
}

// Row 26: nobody learns from the answer why a key is not taken.
func TestUnauthorized(t *testing.T) {
	r := newRig(t)
	revoked := r.key("acme", false, apikey.Live)
	parsed, err := apikey.Parse(revoked)
	require.NoError(t, err)
	row, err := r.store.KeyByHash(context.Background(), system(), apikey.Hash(r.vault.Pepper(), parsed))
	require.NoError(t, err)
	require.Equal(t, 204, r.send(request{method: "DELETE", path: "/v1/keys/" + row.ID.String(), key: r.acme}).status)
	var first string
	for name, auth := range map[string][]string{
		"none": nil, "empty": {""}, "scheme alone": {"Bearer"}, "no key": {"Bearer "}, "other scheme": {"Basic " + r.acme},
		"bad checksum": {"Bearer " + r.acme[:len(r.acme)-1] + "!"}, "changed": {"Bearer " + swapLast(r.acme)},
		"unknown": {"Bearer " + apikey.New(apikey.Live).Reveal()}, "revoked": {"Bearer " + revoked},
		"long": {"Bearer " + strings.Repeat(".", 30_000)}, "twice": {"Bearer " + r.acme, "Bearer " + r.globex},
		"JWT": {"Bearer eyJhbGciOiJub25lIn0.e30."}, "raw": {r.acme},
	} {
		a := r.send(request{path: "/v1/whoami", header: http.Header{"Authorization": auth, "X-Request-Id": {"same"}}})
		require.Equal(t, 401, a.status, name)
		require.Equal(t, "Bearer", a.header.Get("WWW-Authenticate"), name)
		if first == "" {
			first = a.body
		}
		require.Equal(t, first, a.body, name)
	}
	require.Equal(t, 200, r.send(request{path: "/v1/whoami", header: http.Header{"Authorization": {"bearer  " + r.acme}}}).status)
}

func swapLast(s string) string {
	c := byte('0')
	if s[len(s)-1] == c {
		c = '1'
	}
	return s[:len(s)-1] + string(c)
}

// A key that is revoked here stops working at once, although it was used a moment ago.
func TestRevokedKeyIsForgotten(t *testing.T) {
	r := newRig(t)
	var k struct{ ID, Secret string }
	r.post(r.acme, "/v1/keys", `{"name":"ci","mode":"live"}`).decode(t, &k)
	require.Equal(t, 200, r.get(k.Secret, "/v1/whoami").status)
	require.Equal(t, 404, r.send(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: r.globex}).status)
	require.Equal(t, 200, r.get(k.Secret, "/v1/whoami").status)
	require.Equal(t, 204, r.send(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: r.acme}).status)
	require.Equal(t, 401, r.get(k.Secret, "/v1/whoami").status)
}

// Row 29: what is not yours does not exist, whatever it looks like.
func TestForeignIDs(t *testing.T) {
	r := newRig(t)
	m := r.accept(r.acme, hello)
	guess := []byte(m.ID)
	guess[len(guess)-1] ^= 1
	var first string
	for _, id := range []string{m.ID, "..%2f", "%2e%2e%2f", "%00", strings.Repeat("a", 3000), string(guess), "msg_", "1", m.ID + "%20"} {
		for _, path := range []string{"/v1/messages/%s", "/v1/messages/%s/timeline", "/v1/messages/%s/explain"} {
			a := r.send(request{path: fmt.Sprintf(path, id), key: r.globex, header: http.Header{"X-Request-Id": {"same"}}})
			require.Equal(t, 404, a.status, id)
			if first == "" {
				first = a.body
			}
			require.Equal(t, first, a.body, id)
		}
		a := r.send(request{method: "POST", path: "/v1/messages/" + id + ":cancel", key: r.globex, header: http.Header{"X-Request-Id": {"same"}}})
		require.Equal(t, first, a.body, id)
	}
	for _, path := range []string{"/v1/messages/" + strings.Repeat("a", 10_000), "/v1/messages/../x", "/v1/messages/../../x", "/v1//messages", "/v1/messages/", "/"} {
		a := r.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + r.globex + "\r\n\r\n")
		require.Contains(t, a, "404 Not Found", path)
		require.Contains(t, a, `"code":"not_found"`, path)
	}
	require.Equal(t, 200, r.get(r.acme, "/v1/messages/"+m.ID).status)
}

// Row 29 for everything else: each route with a name of another tenant.
func TestForeignNames(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	for _, rt := range routes() {
		if rt.scope != tenant && rt.scope != either || !strings.Contains(rt.path, "{") {
			continue
		}
		name := map[string]string{"campaigns": "spring", "audiences": "people", "templates": "welcome", "connectors": "alpha"}[strings.Split(rt.path, "/")[2]]
		if name == "" {
			continue
		}
		if rt.method == "PUT" || rt.id == "importAudience" {
			continue // they make one's own
		}
		path := strings.NewReplacer("{name}", name).Replace(rt.path)
		theirs := r.send(request{method: rt.method, path: path, key: r.globex, header: http.Header{"X-Request-Id": {"same"}}})
		nobody := r.send(request{method: rt.method, path: strings.Replace(path, name, "nobody", 1), key: r.globex, header: http.Header{"X-Request-Id": {"same"}}})
		require.Equal(t, 404, theirs.status, rt.id+": "+theirs.body)
		require.Equal(t, nobody.body, theirs.body, rt.id)
	}
	for _, path := range []string{"/v1/messages", "/v1/events", "/v1/campaigns", "/v1/audiences", "/v1/templates", "/v1/connectors", "/v1/suppressions"} {
		require.Contains(t, r.get(r.globex, path).body, `"data":[]`, path)
		require.NotContains(t, r.get(r.acme, path).body, `"data":[]`, path)
	}
}

// fill gives a tenant one of everything.
func (r *rig) fill(key string) {
	r.t.Helper()
	ok := func(a answer) { r.t.Helper(); require.Less(r.t, a.status, 300, a.body) }
	ok(r.send(request{method: "PUT", path: "/v1/templates/welcome", key: key, body: `{"channel":"sms","text":"Hi {{ name }}"}`}))
	ok(r.send(request{path: "/v1/audiences/people/import", key: key, media: "text/csv", body: "phone,name\n+12025550100,Asha\n+12025550101,Ben\nbad,C\n"}))
	ok(r.send(request{method: "PUT", path: "/v1/connectors/alpha", key: key, body: `{"kind":"smpp","settings":{"host":"127.0.0.1","password":"s3cret-canary"}}`}))
	ok(r.post(key, "/v1/campaigns", `{"name":"spring","audience":"people","templates":["welcome"]}`))
	ok(r.post(key, "/v1/suppressions", `{"to":"+12025550199"}`))
	r.accept(key, hello)
}

// Row 30: lists.
func TestBadLists(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.accept(r.acme, hello)
		r.accept(r.globex, hello)
	}
	next := func(key, path string) string {
		var p struct {
			Next string `json:"next_cursor"`
		}
		r.get(key, path).decode(t, &p)
		require.NotEmpty(t, p.Next)
		return p.Next
	}
	mine, theirs := next(r.acme, "/v1/messages?limit=1"), next(r.globex, "/v1/messages?limit=1")
	require.Equal(t, 200, r.get(r.acme, "/v1/messages?limit=1&cursor="+mine).status)
	for _, query := range []string{
		"limit=-1", "limit=0", "limit=1e9", "limit=1001", "limit=abc", "limit=", "limit=1&limit=2", "sort=id;drop", "sort=id%3Bdrop",
		"order=x", "statuss=sent", "status=lost", "channel=fax", "to=xyz", "connector=none", "campaign=none", "since=yesterday",
		"tag=" + strings.Repeat("a", 65), "tag=%E2%80%8B", "category=x",
		"cursor=x", "cursor=" + swapLast(mine), "cursor=" + mine[:10], "cursor=" + theirs, "cursor=" + strings.Repeat("A", 9000), "to=%00", "%zz",
	} {
		a := r.get(r.acme, "/v1/messages?"+query)
		require.Equal(t, "invalid_parameter", a.problem(t).Code, query)
		require.Equal(t, 400, a.status)
	}
	require.Contains(t, r.get(r.acme, "/v1/messages?statuss=sent").body, `did you mean \"status\"?`)
	for _, query := range []string{"after=-1", "after=x", "wait=31s", "wait=-1s", "wait=x", "limit=0"} {
		require.Equal(t, "invalid_parameter", r.get(r.acme, "/v1/events?"+query).problem(t).Code, query)
	}
	require.Equal(t, "invalid_parameter", r.get(r.acme, "/v1/templates?cursor="+mine).problem(t).Code, "cursor of another list")
}

// signed is a Callbacks that knows one account and one secret.
type signed struct {
	account delivery.AccountID
	secret  string
	got     []string
	err     error
}

func (s *signed) Callback(_ context.Context, id delivery.AccountID, c *connectors.Callback) ([]byte, error) {
	if id != s.account {
		return nil, store.ErrNotFound
	}
	mac := hmac.New(sha256.New, []byte(s.secret))
	mac.Write(c.Body)
	if c.Header.Get("X-Hub-Signature-256") != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		return nil, connectors.ErrForged
	}
	if s.err != nil {
		return nil, s.err
	}
	s.got = append(s.got, c.Method+" "+c.URL+" "+string(c.Body))
	return []byte("ok"), nil
}

// Rows 31 and 32: reports of providers.
func TestInbound(t *testing.T) {
	cb := &signed{secret: "s"}
	r := newRig(t, func(d *Deps) { d.Callbacks = cb })
	cb.account = r.ids.Account()
	path, other := "/v1/inbound/"+cb.account.String(), "/v1/inbound/"+r.ids.Account().String()
	body := `{"object":"whatsapp_business_account"}`
	sign := func(body string) http.Header {
		mac := hmac.New(sha256.New, []byte("s"))
		mac.Write([]byte(body))
		return http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}}
	}
	const form = "application/x-www-form-urlencoded"
	twice := "MessageStatus=delivered&MessageStatus=failed"
	large := strings.Repeat("a", 4<<20)
	for name, c := range map[string]struct {
		q      request
		status int
		code   string
	}{
		"no signature":       {request{path: path, body: body}, 401, "callback_forged"},
		"SHA-1":              {request{path: path, body: body, header: http.Header{"X-Hub-Signature": {"sha1=00"}}}, 401, "callback_forged"},
		"re-serialised":      {request{path: path, body: `{ "object":"whatsapp_business_account"}`, header: sign(body)}, 401, "callback_forged"},
		"other account":      {request{path: other, body: body, header: sign(body)}, 404, "not_found"},
		"no id":              {request{path: "/v1/inbound/acme", body: body, header: sign(body)}, 404, "not_found"},
		"4 MB":               {request{path: path, body: large, header: sign(large)}, 413, "payload_too_large"},
		"4 MB in chunks":     {request{path: path, reader: io.MultiReader(strings.NewReader(large)), header: sign(large)}, 413, "payload_too_large"},
		"parameter twice":    {request{path: path, body: twice, media: form, header: sign(twice)}, 400, "duplicate_parameter"},
		"twice in query":     {request{path: path + "?a=1&a=2", body: body, header: sign(body)}, 400, "duplicate_parameter"},
		"query unreadable":   {request{path: path + "?a=%zz", body: body, header: sign(body)}, 400, "invalid_callback"},
		"an API key as well": {request{path: path, body: body, key: "mk_live_x"}, 401, "callback_forged"},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.send(c.q)
			require.Equal(t, c.code, a.problem(t).Code, a.body)
			require.Equal(t, c.status, a.status)
		})
	}
	require.Empty(t, cb.got, "something was stored")

	a := r.send(request{path: path + "?hub.mode=x", body: body, header: sign(body)})
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, "ok", a.body)
	require.Equal(t, []string{"POST https://msgctl.example.com" + path + "?hub.mode=x " + body}, cb.got)
	for err, want := range map[error]string{
		fmt.Errorf("%w: x", connectors.ErrMalformed): "invalid_callback", store.ErrUnavailable: "storage_unavailable",
		fmt.Errorf("secret cause"): "internal_error",
	} {
		cb.err = err
		a := r.send(request{path: path, body: body, header: sign(body)})
		require.Equal(t, want, a.problem(t).Code)
		require.NotContains(t, a.body, "secret cause")
	}
	require.NotContains(t, r.log.String(), cb.account.String(), "an account's address is its secret")
}

// Row 35: templates that cannot work are refused with line and column.
func TestBadTemplates(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ text, code, detail string }{
		{"a\n{% if x %}", "invalid_template", "line 2, column 1"},
		{"{{ a | upcsae }}", "invalid_template", "upcase"},
		{"{% include '/etc/passwd' %}", "invalid_template", "line 1"},
		{"{{ a", "invalid_template", "line 1"},
		{strings.Repeat("{% if a %}", 20_000), "invalid_template", ""},
		{"", "content_required", ""},
	} {
		body := fmt.Sprintf(`{"channel":"sms","text":%q}`, c.text)
		a := r.send(request{method: "PUT", path: "/v1/templates/t", key: r.acme, body: body})
		p := a.problem(t)
		require.Equal(t, c.code, p.Code, a.body)
		require.Contains(t, p.Detail, c.detail)
	}
	put := func(text string) { // one that only shows what it is when it runs
		a := r.send(request{method: "PUT", path: "/v1/templates/t", key: r.acme, body: fmt.Sprintf(`{"channel":"sms","text":%q}`, text)})
		require.Equal(t, 201, a.status, a.body)
	}
	for _, text := range []string{"{% for i in (1..1000000000) %}{% endfor %}", "{{ 1 | divided_by: 0 }}"} {
		put(text)
		require.Equal(t, "render_failed", r.post(r.acme, "/v1/templates/t:render", `{}`).problem(t).Code, text)
	}
	put("Hi {{ name }}")
	p := r.post(r.acme, "/v1/templates/t:render", `{"vars":{"nme":"x"}}`).problem(t)
	require.Equal(t, "missing_variable", p.Code)
	require.Equal(t, "/vars/name", p.Fields[0].Pointer)
	require.Contains(t, r.post(r.acme, "/v1/templates/t:render", `{"vars":{"name":"{{ secrets }}"}}`).body, "Hi {{ secrets }}")
	a := r.send(request{method: "PUT", path: "/v1/templates/t", key: r.acme, body: `{"channel":"email","subject":"S","text":"T"}`})
	require.Equal(t, "conflict", a.problem(t).Code)
	for _, name := range []string{"..%2fx", "a%20b", "%00", "-x", strings.Repeat("a", 65)} {
		a := r.send(request{method: "PUT", path: "/v1/templates/" + name, key: r.acme, body: `{"channel":"sms","text":"T"}`})
		require.Equal(t, "invalid_name", a.problem(t).Code, name)
	}
}

// Row 47: what is for operators does not exist for tenants.
func TestOperatorRoutes(t *testing.T) {
	r := newRig(t)
	same := http.Header{"X-Request-Id": {"same"}}
	nothing := r.send(request{path: "/v1/nothing", key: r.acme, header: same})
	require.Equal(t, 404, nothing.status)
	for _, rt := range routes() {
		if rt.scope != operator {
			continue
		}
		path := strings.Replace(rt.path, "{id}", "acme", 1)
		a := r.send(request{method: rt.method, path: path, key: r.acme, header: same})
		require.Equal(t, nothing.body, a.body, rt.id)
		require.Equal(t, 404, a.status)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/vars", "/metrics/x", "/admin"} {
		require.Equal(t, 404, r.get(r.admin, path).status, path)
	}
	h := http.Header{TenantHeader: {"globex"}, "X-Request-Id": {"same"}}
	a := r.send(request{path: "/v1/messages", key: r.acme, header: h})
	require.Equal(t, nothing.body, a.body, "a tenant names another one")
	h = http.Header{TenantHeader: {"acme"}}
	require.Equal(t, 200, r.send(request{path: "/v1/messages", key: r.acme, header: h}).status)
	require.Equal(t, 200, r.send(request{path: "/v1/messages", key: r.admin, header: h}).status)
	require.Equal(t, "tenant_required", r.get(r.admin, "/v1/messages").problem(t).Code)
	for _, name := range []string{"none", "../acme", "ACME"} {
		a := r.send(request{path: "/v1/messages", key: r.admin, header: http.Header{TenantHeader: {name}}})
		require.Equal(t, "not_found", a.problem(t).Code, name)
	}
	require.Equal(t, "forbidden", r.post(r.acme, "/v1/keys", `{"admin":true}`).problem(t).Code)
	require.Equal(t, "not_found", r.post(r.acme, "/v1/keys", `{"tenant":"globex"}`).problem(t).Code)
	test := r.key("acme", false, apikey.Test)
	require.Equal(t, "forbidden", r.post(test, "/v1/keys", `{"mode":"live"}`).problem(t).Code)
	require.Equal(t, 201, r.post(test, "/v1/keys", `{"mode":"test"}`).status)
	a = r.send(request{method: "PUT", path: "/v1/connectors/x", key: r.acme, body: `{"kind":"smtp","shared":true}`})
	require.Equal(t, "forbidden", a.problem(t).Code)
}

// Method and address.
func TestWrongMethod(t *testing.T) {
	r := newRig(t)
	a := r.send(request{method: "PATCH", path: "/v1/messages", key: r.acme, body: "{}"})
	require.Equal(t, "method_not_allowed", a.problem(t).Code)
	require.Equal(t, "GET, POST", a.header.Get("Allow"))
	a = r.send(request{method: "DELETE", path: "/v1/templates/x", key: r.acme})
	require.Equal(t, "GET, PUT", a.header.Get("Allow"))
	require.Equal(t, 404, r.post(r.acme, "/v1/campaigns/x:explode", "{}").status)
	head := r.send(request{method: "HEAD", path: "/healthz"})
	require.Equal(t, 200, head.status)
	require.Empty(t, head.body)
}
