package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

func keyed(key string) http.Header { return http.Header{"Idempotency-Key": {key}} }

func TestSend(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	a := r.post(r.acme, "/v1/messages", `{"channel":"sms","to":"+1 (202) 555-0100","template":"welcome","vars":{"name":"Ashā","n":12345678901234567890},
		"connector":"alpha","lane":"urgent","client_ref":"order 7","delivery":"at_most_once","from":"ACME"}`)
	var m sdk.Message
	a.decode(t, &m)
	require.Equal(t, 202, a.status)
	require.Equal(t, "/v1/messages/"+m.ID, a.header.Get("Location"))
	at, expires := start, start.Add(24*time.Hour)
	require.Equal(t, sdk.Message{
		ID: m.ID, Channel: "sms", Lane: "urgent", Status: "queued", To: "+12025550100", Template: "welcome", TemplateVersion: 1, Segments: 1,
		Connector: "alpha", ClientRef: "order 7", AcceptedAt: &at, UpdatedAt: &at, DueAt: &at, ExpiresAt: &expires,
	}, m)
	var again sdk.Message
	r.get(r.acme, "/v1/messages/"+m.ID).decode(t, &again)
	require.Equal(t, m, again, "the answer and the stored message differ")

	id, err := delivery.ParseMessageID(m.ID)
	require.NoError(t, err)
	row, err := r.store.Message(context.Background(), "acme", id)
	require.NoError(t, err)
	require.True(t, row.AtMostOnce)
	require.JSONEq(t, `{"from":"ACME","template":"welcome","version":1,"vars":{"name":"Ashā","n":12345678901234567890}}`, string(row.Payload))
	require.Contains(t, string(row.Payload), "12345678901234567890", "a number has lost digits")
	var draft delivery.Draft
	require.NoError(t, json.Unmarshal(row.Payload, &draft))
}

// The draft that is stored reads back as what was sent, whatever the channel.
func TestDraft(t *testing.T) {
	for _, body := range []string{
		hello,
		`{"channel":"email","to":"a@example.com","from":"A <a@example.com>","subject":"Ünïcode \"quoted\" </script>","text":"a\r\nb\t\\","html":"<p>\u2028</p>",
			"reply_to":"r@example.com","headers":[{"name":"X-A","value":"1"},{"name":"List-Id","value":"<l.example.com>"}],"unsubscribe_url":"https://example.com/u?a=1&b=2"}`,
		`{"channel":"whatsapp","to":"+12025550100","approved":{"name":"order_paid","language":"en_US","params":["7","Ā"]}}`,
		`{"channel":"webhook","to":"https://example.com/","event":"order.paid","data":{"n":[1,2.50,{"x":null}]}}`,
		`{"channel":"webhook","to":"https://example.com/","data":null}`,
		`{"channel":"email","to":"a@example.com","template":"t","vars":{},"unsubscribe_url":"https://example.com/u"}`,
	} {
		var want sdk.MessageRequest
		require.NoError(t, json.Unmarshal([]byte(body), &want))
		var in messageIn
		require.NoError(t, decode([]byte(body), &in))
		ch, err := delivery.ParseChannel(in.Channel)
		require.NoError(t, err)
		version := 0
		if in.Template != "" {
			version = 3
		}
		var got delivery.Draft
		payload := appendDraft(nil, &in, ch, version)
		require.NoError(t, json.Unmarshal(payload, &got), string(payload))
		require.Equal(t, want.From, got.From)
		require.Equal(t, want.Template, got.Template)
		require.Equal(t, version, got.Version)
		c := delivery.Content{}
		if got.Content != nil {
			c = *got.Content
		}
		require.Equal(t, want.Text, c.Text)
		require.Equal(t, want.Subject, c.Subject)
		require.Equal(t, want.HTML, c.HTML)
		require.Equal(t, want.ReplyTo, c.ReplyTo)
		require.Equal(t, want.UnsubscribeURL, c.UnsubscribeURL)
		require.Equal(t, want.Event, c.Event)
		require.Equal(t, string(want.Data), string(c.Data))
		require.Len(t, c.Headers, len(want.Headers))
		for i, h := range want.Headers {
			require.Equal(t, delivery.Header(h), c.Headers[i])
		}
		if want.Approved != nil {
			require.Equal(t, delivery.ProviderTemplate(*want.Approved), *c.Approved)
		}
	}
}

// The server's forms of requests have exactly the fields of the SDK's.
func TestFormsAgreeWithSDK(t *testing.T) {
	names := func(v any) (out []string) {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			out = append(out, jsonName(typ.Field(i)))
		}
		return out
	}
	require.Equal(t, names(sdk.MessageRequest{}), names(messageIn{}))
	require.Equal(t, names(sdk.Header{}), names(headerIn{}))
	require.Equal(t, names(sdk.Approved{}), names(approvedIn{}))
	require.Equal(t, names(sdk.Leg{}), names(legIn{}))
	require.Equal(t, names(sdk.DeadLetterRequest{}), names(deadLetterIn{}))
	require.Equal(t, names(sdk.DeadLetterFilter{}), names(filterIn{}))
	require.Equal(t, names(sdk.Suppression{}), names(suppressionIn{}))
}

func TestTemplateVariables(t *testing.T) {
	r := newRig(t)
	put := func(name, text string) {
		a := r.send(request{method: "PUT", path: "/v1/templates/" + name, key: r.acme, body: fmt.Sprintf(`{"channel":"sms","text":%q}`, text)})
		require.Equal(t, 201, a.status, a.body)
	}
	put("t", "{{ a }} {{ b.c }} {{ d | default: 'x' }}{% if e %}{{ e }}{% endif %}")
	for vars, want := range map[string]string{
		`{"a":1,"b":{"c":2}}`:                  "",
		`{"a":1,"b":{"c":2},"d":null,"f":[1]}`: "",
		`{"a":1}`:                              "/vars/b missing_variable",
		`{"a":null,"b":{}}`:                    "/vars/a missing_variable",
		`{"b":{"a":1}}`:                        "/vars/a missing_variable",
		`{}`:                                   "/vars/a missing_variable /vars/b missing_variable",
		`null`:                                 "/vars/a missing_variable /vars/b missing_variable",
		`[1]`:                                  "/vars invalid_value",
		`"a"`:                                  "/vars invalid_value",
		`{"a":1,"b":{"c":1e400}}`:              "/vars/b/c out_of_range",
	} {
		a := r.post(r.acme, "/v1/messages", `{"channel":"sms","to":"+12025550100","template":"t","vars":`+vars+`}`)
		if want == "" {
			require.Equal(t, 202, a.status, vars+a.body)
			continue
		}
		var at []string
		for _, f := range a.problem(t).Fields {
			at = append(at, f.Pointer+" "+f.Code)
		}
		require.Equal(t, want, strings.Join(at, " "), vars)
	}
	put("t", "now without")
	m := r.accept(r.acme, `{"channel":"sms","to":"+12025550100","template":"t"}`)
	require.Equal(t, 2, m.TemplateVersion, "the newest version is pinned")
	require.Equal(t, "template_channel", r.post(r.acme, "/v1/messages",
		`{"channel":"email","to":"a@example.com","template":"t"}`).problem(t).Code)
	r.fill(r.globex)
	require.Equal(t, "connector_channel", r.post(r.globex, "/v1/messages", email(`,"subject":"S","connector":"alpha"`)).problem(t).Code)
}

// A number without + is read by the tenant's region.
func TestRegion(t *testing.T) {
	r := newRig(t)
	body := to("sms", "0171 5550123")
	require.Equal(t, "invalid_phone", r.post(r.acme, "/v1/messages", body).problem(t).Code)
	a := r.send(request{method: "PUT", path: "/v1/tenants/acme", key: r.admin, body: `{"region":"DE"}`})
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, "+491715550123", r.accept(r.acme, body).To)
	require.Equal(t, []delivery.TenantID{"acme"}, r.operator.tenants)
}

func TestIdempotency(t *testing.T) {
	r := newRig(t)
	send := func(key, idem, body string) answer {
		return r.send(request{path: "/v1/messages", key: key, body: body, header: keyed(idem)})
	}
	first := send(r.acme, "k1", hello)
	require.Equal(t, 202, first.status, first.body)
	require.Empty(t, first.header.Get("Idempotency-Replayed"))
	for _, idem := range []string{"k1", `"k1"`} {
		for _, body := range []string{hello, `{ "text":"Hello", "to":"\u002b12025550100","channel":"sms" }`} { // the same in another order
			again := send(r.acme, idem, body)
			require.Equal(t, 202, again.status, again.body)
			require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
			require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
			var a, b sdk.Message
			first.decode(t, &a)
			again.decode(t, &b)
			b.DueAt = a.DueAt // when something happens next is not repeated: it may have happened
			require.Equal(t, a, b)
		}
	}
	require.Equal(t, "idempotency_mismatch", send(r.acme, "k1", smsWith("")).problem(t).Code)
	other := send(r.globex, "k1", smsWith("")) // another tenant's keys are its own
	require.Equal(t, 202, other.status)
	require.Empty(t, other.header.Get("Idempotency-Replayed"))
	batch := r.send(request{path: "/v1/messages/batch", key: r.acme, body: hello, media: batchMedia[0], header: keyed("k1")})
	require.Equal(t, 200, batch.status)
	require.Empty(t, batch.header.Get("Idempotency-Replayed"), "another route is another scope")

	var list sdk.Page[sdk.Message]
	r.get(r.acme, "/v1/messages").decode(t, &list)
	require.Len(t, list.Data, 2)
	require.Equal(t, 202, send(r.acme, "k2", hello).status)
	require.Equal(t, "invalid_phone", send(r.acme, "k3", to("sms", "+1")).problem(t).Code)
	require.Equal(t, 202, send(r.acme, "k3", hello).status, "a refused request does not use up its key")
}

// stuck is an Accepter that waits until it is let go.
type stuck struct {
	store.Accepter
	in, out chan struct{}
}

func (s *stuck) Accept(ctx context.Context, t delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	s.in <- struct{}{}
	<-s.out
	return s.Accepter.Accept(ctx, t, a)
}

// Row 20: the same key while the first request is still running.
func TestRequestInProgress(t *testing.T) {
	gate := &stuck{in: make(chan struct{}, 10), out: make(chan struct{})}
	r := newRig(t, func(d *Deps) {
		gate.Accepter = d.Store
		d.Accept = gate
		d.Limits.KeyWait = time.Millisecond
	})
	done := make(chan answer)
	send := func() answer {
		return r.send(request{path: "/v1/messages", key: r.acme, body: hello, header: keyed("k")})
	}
	go func() { done <- send() }()
	<-gate.in
	a := send()
	require.Equal(t, "request_in_progress", a.problem(t).Code)
	require.Equal(t, 409, a.status)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	close(gate.out)
	first := <-done
	require.Equal(t, 202, first.status)
	again := send()
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
	require.Empty(t, r.api.running.runs)
}

// Many requests with one key at once: one message.
func TestSameKeyAtOnce(t *testing.T) {
	r := newRig(t)
	answers := make([]answer, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			answers[i] = r.send(request{path: "/v1/messages", key: r.acme, body: hello, header: keyed("k")})
		})
	}
	wg.Wait()
	replayed := 0
	for _, a := range answers {
		require.Equal(t, 202, a.status, a.body)
		require.Equal(t, answers[0].header.Get("Location"), a.header.Get("Location"))
		if a.header.Get("Idempotency-Replayed") != "" {
			replayed++
		}
	}
	require.Equal(t, len(answers)-1, replayed)
}

func TestBatch(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	lines := []string{
		hello,
		`{"channel":"sms","to":"+1","text":"x","client_ref":"r2"}`,
		"",
		`not json`,
		`{"channel":"sms","to":"+12025550199","text":"to somebody suppressed","client_ref":"r4"}`,
		`{"channel":"sms","to":"+12025550102","template":"welcome","vars":{"name":"Asha"},"send_at":"2026-03-02T00:00:00Z"}`,
		hello + hello,
		`{"channel":"sms","to":"+12025550102","text":"` + strings.Repeat("a", 1<<20) + `"}`,
	}
	q := request{path: "/v1/messages/batch", key: r.acme, media: batchMedia[0], body: strings.Join(lines, "\r\n"), header: keyed("b")}
	a := r.send(q)
	require.Equal(t, 200, a.status, a.body)
	require.Equal(t, batchMedia[0], a.header.Get("Content-Type"))
	rows := batchRows(t, a)
	var shown []string
	for i, row := range rows {
		require.Equal(t, i+1, row.Row)
		code := ""
		if row.Error != nil {
			code = row.Error.Code
			require.Equal(t, 0, strings.Count(row.ID, "msg_"))
			require.Contains(t, row.Error.Type, "/docs#"+code)
		}
		shown = append(shown, fmt.Sprint(row.Status, " ", row.Reason, " ", row.ClientRef, " ", code))
	}
	require.Equal(t, []string{
		"queued   ", "  r2 invalid_phone", "   invalid_json", "suppressed manual r4 ", "scheduled   ", "   trailing_data", "   payload_too_large",
	}, shown)

	// The same batch later, when the row that was to be sent in the future could not be accepted any more.
	r.clock.Advance(48 * time.Hour)
	again := r.send(q)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, a.body, again.body, "the answer differs")
	q.body = strings.Join(lines[1:], "\n")
	require.Equal(t, "idempotency_mismatch", r.send(q).problem(t).Code)
}

func batchRows(t *testing.T, a answer) (rows []sdk.BatchRow) {
	t.Helper()
	for line := range strings.Lines(a.body) {
		var row sdk.BatchRow
		require.NoError(t, json.Unmarshal([]byte(line), &row), line)
		rows = append(rows, row)
	}
	return rows
}

// Row 18.
func TestBatchTooLarge(t *testing.T) {
	r := newRig(t)
	line := `{"channel":"sms","to":"+12025550100","text":"Hello"}` + "\n"
	body := strings.Repeat(line, 100_001)
	p := r.send(request{path: "/v1/messages/batch", key: r.acme, media: batchMedia[0], body: body}).problem(t)
	require.Equal(t, "batch_too_large", p.Code)
	require.Contains(t, p.Detail, "10000")
	_, latest, err := r.store.Events(context.Background(), "acme", 0, 1)
	require.NoError(t, err)
	require.Zero(t, latest)
	a := r.send(request{path: "/v1/messages/batch", key: r.acme, media: batchMedia[0], body: strings.Repeat(line, 10_000)})
	require.Equal(t, 200, a.status, a.body[:min(len(a.body), 200)])
	require.Len(t, batchRows(t, a), 10_000)
}

func TestQuota(t *testing.T) {
	r := newRig(t)
	require.Equal(t, 200, r.send(request{method: "PUT", path: "/v1/tenants/acme", key: r.admin, body: `{"daily_quota":2}`}).status)
	r.accept(r.acme, hello)
	a := r.send(request{path: "/v1/messages/batch", key: r.acme, media: batchMedia[0], body: hello + "\n" + hello})
	require.Equal(t, "quota_exceeded", a.problem(t).Code)
	require.Equal(t, 429, a.status)
	require.Equal(t, "43200", a.header.Get("Retry-After"), "it is noon")
	var q struct {
		Limit, Used int64
		Resets      time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &q))
	require.EqualValues(t, 2, q.Limit)
	require.EqualValues(t, 1, q.Used)
	require.Equal(t, start.Add(12*time.Hour), q.Resets)
	r.accept(r.acme, hello)
	require.Equal(t, "quota_exceeded", r.post(r.acme, "/v1/messages", hello).problem(t).Code)
	r.accept(r.globex, hello)
}

// broken is an Accepter that fails.
type broken struct{ err error }

func (b *broken) Accept(context.Context, delivery.TenantID, store.Acceptance) (store.Accepted, error) {
	return store.Accepted{}, b.err
}

func TestStoreFailures(t *testing.T) {
	b := &broken{}
	r := newRig(t, func(d *Deps) { d.Accept = b })
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{fmt.Errorf("disk: %w", store.ErrUnavailable), 503, "storage_unavailable", "2"},
		{store.ErrOutcomeUnknown, 503, "outcome_unknown", "1"},
		{context.DeadlineExceeded, 503, "storage_unavailable", "2"},
		{errors.New("secret cause"), 500, "internal_error", ""},
	} {
		b.err = c.err
		a := r.post(r.acme, "/v1/messages", hello)
		require.Equal(t, c.code, a.problem(t).Code)
		require.Equal(t, c.status, a.status)
		require.Equal(t, c.retry, a.header.Get("Retry-After"))
		require.NotContains(t, a.body, "secret cause")
	}
	require.Contains(t, r.log.String(), "secret cause")
}

// panicking is an Accepter with a mistake in it.
type panicking struct{}

func (panicking) Accept(context.Context, delivery.TenantID, store.Acceptance) (store.Accepted, error) {
	panic("a mistake")
}

func TestPanic(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Accept = panicking{} })
	a := r.post(r.acme, "/v1/messages", hello)
	p := a.problem(t)
	require.Equal(t, "internal_error", p.Code)
	require.NotContains(t, a.body, "mistake")
	require.NotContains(t, a.body, "goroutine")
	require.Contains(t, r.log.String(), "a mistake")
	require.Contains(t, r.log.String(), p.RequestID)
	require.Equal(t, 200, r.get(r.acme, "/v1/whoami").status)
}

// Neither recipients nor texts nor keys nor secrets come into the log.
func TestLogIsClean(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	r.accept(r.acme, `{"channel":"email","to":"asha.canary@example.com","subject":"S","text":"body canary"}`)
	r.get(r.acme, "/v1/suppressions/check?to=%2B12025550199")
	r.get(r.acme, "/v1/messages?to=asha.canary@example.com")
	r.post(r.acme, "/v1/messages", to("email", "asha.canary@"))
	log := r.log.String()
	require.Contains(t, log, "route=/v1/messages")
	for _, canary := range []string{"canary", "2025550", r.acme, r.acme[8:40], "s3cret"} {
		require.NotContains(t, log, canary)
	}
	raw, err := r.store.Account(context.Background(), "acme", "alpha")
	require.NoError(t, err)
	require.NotContains(t, string(raw.Sealed), "canary")
}
