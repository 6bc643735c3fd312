package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// problemType is one kind of problem that the API reports. Its code is stable; its texts may change.
type problemType struct {
	code   string
	status int
	title  string
	fix    string // what the caller can do
}

// problemTypes is the one list of what can go wrong. GET /docs shows it, and the type URI of a problem points there.
var problemTypes = []problemType{
	{"unauthorized", 401, "Not signed in", "Send Authorization: Bearer with a valid API key."},
	{"forbidden", 403, "Not allowed", "Use a key that may do this."},
	{"not_found", 404, "Not found", "Check the address. What belongs to another tenant does not exist for you."},
	{"method_not_allowed", 405, "Method not allowed", "Use a method from the Allow header."},
	{"tenant_required", 400, "Tenant missing", "With an operator's key, name the tenant in the X-Msgctl-Tenant header."},

	{"body_required", 400, "Body missing", "Send a JSON object."},
	{"invalid_json", 400, "Invalid JSON", "Correct the body at the place named (RFC 8259)."},
	{"invalid_type", 400, "Wrong JSON type", "Use the type that the API description gives for the field."},
	{"json_too_deep", 400, "JSON nested too deeply", "Nest at most 100 levels."},
	{"duplicate_field", 400, "Field given twice", "Give each field once."},
	{"unknown_field", 400, "Unknown field", "Check the spelling; nothing is ignored silently."},
	{"invalid_encoding", 400, "Invalid encoding", "Send UTF-8 without U+0000 and without lone surrogates."},
	{"out_of_range", 400, "Number out of range", "Use a number that the field can hold."},
	{"trailing_data", 400, "Data after the body", "Send one JSON object and nothing behind it."},
	{"invalid_parameter", 400, "Invalid parameter", "Correct the query parameter named."},
	{"invalid_idempotency_key", 400, "Invalid Idempotency-Key", "Use 1 to 255 printable ASCII characters."},
	{"duplicate_parameter", 400, "Parameter given twice", "A provider's report has each parameter once."},
	{"invalid_callback", 400, "Report cannot be read", "The request is signed rightly and makes no sense."},
	{"callback_forged", 401, "Report not from the provider", "Check the connector's secret and the URL at the provider."},
	{"request_timeout", 408, "Body came too slowly", "Send the body without long pauses."},
	{"payload_too_large", 413, "Body too large", "Send less: 1 MiB for one message, 10 MiB for a batch."},
	{"unsupported_media_type", 415, "Unsupported media type", "Set the Content-Type that the route takes."},
	{"unsupported_encoding", 415, "Unsupported content encoding", "Send the body as it is, or with Content-Encoding: gzip."},

	{"invalid_value", 422, "Invalid value", "Use one of the values named."},
	{"invalid_name", 422, "Invalid name", "Use letters, digits, dot, underscore and hyphen, 1 to 64 characters."},
	{"field_required", 422, "Field missing", "Add the field."},
	{"field_not_allowed", 422, "Field does not belong here", "Leave the field out, or use the channel it belongs to."},
	{"invalid_channel", 422, "Unknown channel", "Use sms, whatsapp, email or webhook."},
	{"invalid_phone", 422, "Invalid phone number", "Use E.164: +, country code and number."},
	{"invalid_email", 422, "Invalid e-mail address", "Use one bare address such as name@example.com."},
	{"invalid_region", 422, "Unknown region", "Use a two-letter country code such as IN."},
	{"url_not_allowed", 422, "URL not allowed", "Use a public https URL on an allowed port."},
	{"invalid_sender", 422, "Invalid sender", "Use a sender that the channel knows."},
	{"control_character", 422, "Control character", "Remove line breaks and control characters from the field."},
	{"header_not_allowed", 422, "Header not allowed", "Use X-… headers or one of Precedence, Auto-Submitted, In-Reply-To, References, Feedback-ID and List-Id."},
	{"text_too_long", 422, "Too long", "Shorten the field."},
	{"too_many_segments", 422, "SMS too long", "An SMS has at most 10 segments."},
	{"content_required", 422, "Content missing", "Give content of the channel, or a template."},
	{"unknown_template", 422, "Unknown template", "Put the template first: msgctl template put."},
	{"template_channel", 422, "Template is for another channel", "Use a template of the message's channel."},
	{"missing_variable", 422, "Variable missing", "Give every variable that the template needs."},
	{"invalid_template", 422, "Template cannot be used", "Correct it at the line and column named."},
	{"render_failed", 422, "Template cannot be rendered", "Correct the variables or the template."},
	{"unknown_connector", 422, "Unknown connector", "See msgctl connector ls."},
	{"connector_channel", 422, "Connector is of another channel", "Use a connector of the message's channel."},
	{"unknown_connector_type", 422, "Unknown kind of connector", "See msgctl connector types."},
	{"invalid_setting", 422, "Invalid connector setting", "See msgctl connector types KIND."},
	{"invalid_time", 422, "Invalid time", "Use RFC 3339 with a zone, at most one year ahead."},
	{"unknown_timezone", 422, "Unknown time zone", "Use an IANA name such as Asia/Kolkata."},
	{"expires_before_send", 422, "Expires before it is sent", "Use an expires_at after send_at."},
	{"batch_too_large", 422, "Too many rows", "Split the batch: at most 10,000 rows."},
	{"idempotency_mismatch", 422, "Idempotency-Key used for another request", "Use a new key for a new request."},
	{"row_not_accepted", 422, "Row was refused the first time", "Send the row again with a new Idempotency-Key."},
	{"unknown_audience", 422, "Unknown audience", "Import it first: msgctl audience import."},
	{"invalid_file", 422, "File cannot be imported", "Correct the file as described."},
	{"campaign_blocked", 422, "Campaign cannot start", "Solve the problems listed; see msgctl campaign check."},

	{"already_exists", 409, "Name is taken", "Use another name."},
	{"conflict", 409, "Not possible in this state", "See what is possible now in actions."},
	{"too_late", 409, "Too late", "The message has left or has ended."},
	{"request_in_progress", 409, "The same request is running", "Ask again after Retry-After with the same key."},
	{"quota_exceeded", 429, "Daily quota exceeded", "Wait until it resets, or ask the operator for more."},

	{"tenant_rate_limited", 429, "Too much at once", "Wait for Retry-After, or ask the operator for more."},

	{"internal_error", 500, "Something broke", "Tell the operator the request id."},
	{"storage_unavailable", 503, "Storage unavailable", "Nothing was stored. Try again after Retry-After."},
	{"overloaded", 503, "The engine has too much to do", "Nothing was done. Try again after Retry-After."},
	{"storage_low", 503, "The disk is nearly full", "Nothing was stored. The operator frees space; try again after Retry-After."},
	{"outcome_unknown", 503, "Outcome unknown", "Ask again with the same Idempotency-Key: nothing is done twice."},
}

func problemOf(code string) problemType {
	for _, p := range problemTypes {
		if p.code == code {
			return p
		}
	}
	panic("api: problem " + code + " is not in the list")
}

// fail makes a problem of the list.
func fail(code, format string, args ...any) *sdk.Error {
	p := problemOf(code)
	return &sdk.Error{Code: code, Status: p.status, Title: p.title, Detail: fmt.Sprintf(format, args...)}
}

// failAt makes a problem about one place in the body or one parameter.
func failAt(pointer, code, format string, args ...any) *sdk.Error {
	e := fail(code, format, args...)
	e.Fields = []sdk.FieldError{{Pointer: pointer, Code: code, Detail: e.Detail}}
	return e
}

// faults collects what is wrong with one body, so that a caller can correct everything at once.
type faults struct{ list []sdk.FieldError }

func (f *faults) add(pointer, code, format string, args ...any) {
	f.list = append(f.list, sdk.FieldError{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
}

// below adds what is wrong with a part of the body, whose places lie below at.
func (f *faults) below(at string, part faults) {
	for _, e := range part.list {
		e.Pointer = at + e.Pointer
		f.list = append(f.list, e)
	}
}

// problem returns the faults as one problem with the code of the first, or nil.
func (f *faults) problem() error {
	if e := f.first(); e != nil {
		return e
	}
	return nil
}

func (f *faults) first() *sdk.Error {
	if len(f.list) == 0 {
		return nil
	}
	first := f.list[0]
	e := fail(first.Code, "%s", first.Detail)
	if first.Pointer != "" {
		e.Detail = first.Pointer + ": " + first.Detail
	}
	if n := len(f.list) - 1; n > 0 {
		e.Detail += fmt.Sprintf(" (and %d more)", n)
	}
	e.Fields = f.list
	return e
}

// quotaProblem is a problem with the figures of the quota.
type quotaProblem struct {
	sdk.Error
	Limit  int64     `json:"limit"`
	Used   int64     `json:"used"`
	Resets time.Time `json:"resets"`
}

// asProblem turns any error into the document that the caller sees. What it does not know is an internal error, whose
// cause only the log tells.
func asProblem(err error, now time.Time) (doc any, p *sdk.Error) {
	var quota *store.QuotaError
	switch {
	case errors.As(err, &p):
		return p, p
	case errors.As(err, &quota):
		q := &quotaProblem{Limit: quota.Limit, Used: quota.Used, Resets: quota.Resets.UTC()}
		q.Error = *fail("quota_exceeded", "%s; it resets at %s", quota.Error(), q.Resets.Format(time.RFC3339))
		q.RetryAfter = max(time.Second, quota.Resets.Sub(now))
		return q, &q.Error
	case errors.Is(err, store.ErrKeyReused):
		p = fail("idempotency_mismatch", "this Idempotency-Key was used with another request: use a new key")
	case errors.Is(err, store.ErrOutcomeUnknown):
		p = fail("outcome_unknown", "the request may or may not have been stored: ask again with the same Idempotency-Key")
		p.RetryAfter = time.Second
	case errors.Is(err, store.ErrParkedFull):
		p = fail("storage_unavailable", "too many reports of unknown messages wait already: report again later")
		p.RetryAfter = time.Minute
	case errors.Is(err, store.ErrUnavailable):
		p = fail("storage_unavailable", "the engine cannot store anything now; nothing was changed")
		p.RetryAfter = 2 * time.Second
	case errors.Is(err, store.ErrNotFound):
		p = fail("not_found", "there is no such thing here")
	case errors.Is(err, context.Canceled): // the caller is gone, or the engine stops
		p = fail("request_timeout", "the request ended before it was answered")
	case errors.Is(err, context.DeadlineExceeded):
		p = fail("storage_unavailable", "the engine took too long; ask again with the same Idempotency-Key")
		p.RetryAfter = 2 * time.Second
	default:
		p = fail("internal_error", "the engine failed; the request id tells the operator where to look")
	}
	return p, p
}

// problem answers with err.
func (c *call) problem(err error) {
	doc, p := asProblem(err, c.a.Now())
	c.cause = err
	complete := func(e *sdk.Error) {
		e.Type = c.a.problemURI(e.Code)
		e.RequestID = c.rid
	}
	if q, ok := doc.(*quotaProblem); ok {
		complete(&q.Error)
	} else {
		// A problem may be shared between calls: it is copied before the request id is written into it.
		own := *p
		complete(&own)
		doc, p = &own, &own
	}
	h := c.w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(p.RetryAfter.Seconds())), 10))
	}
	switch p.Status {
	case http.StatusUnauthorized:
		if p.Code == "unauthorized" {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout, http.StatusUnsupportedMediaType:
		h.Set("Connection", "close") // what is left of the body is not read
	}
	body, merr := encode(nil, doc)
	if merr != nil { // only strings and numbers: cannot happen
		body = []byte(`{"code":"internal_error","status":500}`)
	}
	c.write(p.Status, "application/problem+json", body)
}

func (a *api) problemURI(code string) string { return a.PublicURL + "/docs#" + code }
