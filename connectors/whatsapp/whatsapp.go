// Package whatsapp sends through the WhatsApp Cloud API of Meta and reads its callbacks.
//
// Every message carries our id in biz_opaque_callback_data, and every status brings it back: an attempt whose answer
// was lost is settled by the first status that names it. Sources: developers.facebook.com, "Cloud API", pages
// "Messages", "Error codes" (updated 15 May 2026) and "messages webhook reference" (updated 17 June 2026), read
// October 2026.
package whatsapp

import (
	"context"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/httpapi"
	"github.com/msgctl/msgctl/delivery"
)

const (
	maxText   = 4096     // characters of a text message
	maxAnswer = 64 << 10 // bytes; an honest answer has less than 1 KiB
)

// Kind returns the kind of connector.
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:      "whatsapp",
		Channel:   delivery.WhatsApp,
		Doc:       "WhatsApp through Meta's Cloud API.",
		Ambiguity: connectors.Correlate,
		Receipts:  true,
		Settings: []connectors.Setting{
			{Key: "phone_number_id", Type: connectors.Text, Required: true,
				Doc: "The id of the sending number, as WhatsApp Manager shows it."},
			{Key: "token", Type: connectors.Text, Required: true, Secret: true,
				Doc: "Access token of a system user with whatsapp_business_messaging."},
			{Key: "app_secret", Type: connectors.Text, Required: true, Secret: true,
				Doc: "The app's secret, which signs callbacks."},
			{Key: "verify_token", Type: connectors.Text, Secret: true,
				Doc: "The verify token entered where the callback URL was set up at Meta."},
			{Key: "base_url", Type: connectors.URL, Default: "https://graph.facebook.com", Doc: "Where the Graph API is."},
			{Key: "api_version", Type: connectors.Text, Default: "v25.0", Doc: "Version of the Graph API, such as v25.0."},
			{Key: "timeout", Type: connectors.Duration, Default: "30s", Doc: "How long Meta may take to answer."},
			{Key: "concurrency", Type: connectors.Number, Default: "64", Doc: "Requests at the same time."},
			{Key: "resolve_window", Type: connectors.Duration, Default: "90s",
				Doc: "How long a message whose request had no answer waits for a status before it is sent again."},
		},
		Concurrency: 64,
		SendTimeout: 30 * time.Second,
		Open:        open,
	}
}

type connector struct {
	client      *http.Client
	now         func() time.Time
	base        string // with the version, without a slash at the end
	number      string
	bearer      string
	secrets     []string
	appSecret   []byte
	verifyToken string
}

func open(a *connectors.Account) (connectors.Connector, error) {
	s := a.Settings
	c := &connector{
		client: a.HTTP, now: a.Now,
		base:   strings.TrimRight(s.Text("base_url"), "/") + "/" + s.Text("api_version"),
		number: s.Text("phone_number_id"), bearer: "Bearer " + s.Text("token"),
		appSecret: []byte(s.Text("app_secret")), verifyToken: s.Text("verify_token"),
		secrets: []string{s.Text("token"), s.Text("app_secret"), s.Text("verify_token")},
	}
	for _, bad := range []struct {
		is          bool
		key, reason string
	}{
		{!digits(c.number), "phone_number_id", "must be a number, and is not the phone number itself"},
		{!printable(s.Text("token")), "token", "must be printable ASCII without spaces"},
		{len(c.appSecret) == 0, "app_secret", "is required: callbacks cannot be verified without it"},
		{!version(s.Text("api_version")), "api_version", "must look like v25.0"},
		{strings.ContainsAny(c.base, "?#"), "base_url", "must not have a query or fragment"},
	} {
		if bad.is {
			return nil, &connectors.SettingError{Key: bad.key, Reason: bad.reason}
		}
	}
	return c, nil
}

// request is the body of POST /{phone-number-id}/messages.
type request struct {
	Product   string     `json:"messaging_product"`
	Recipient string     `json:"recipient_type"`
	To        string     `json:"to"`
	Type      string     `json:"type"`
	Text      *text      `json:"text,omitzero"`
	Template  *templated `json:"template,omitzero"`
	Opaque    string     `json:"biz_opaque_callback_data"`
}

type text struct {
	Preview bool   `json:"preview_url"`
	Body    string `json:"body"`
}

type templated struct {
	Name       string      `json:"name"`
	Language   language    `json:"language"`
	Components []component `json:"components,omitempty"`
}

type language struct {
	Code string `json:"code"`
}

type component struct {
	Type       string      `json:"type"`
	Parameters []parameter `json:"parameters"`
}

type parameter struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// answer is what the API says to it: messages or an error, and some proxies' 200 holds an error too.
type answer struct {
	Messages []struct {
		ID     string `json:"id"`
		Status string `json:"message_status"`
	} `json:"messages"`
	Error *apiError `json:"error"`
}

// Send makes one attempt.
func (c *connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	req, f := c.request(m)
	if f != nil {
		return delivery.Sent{}, f
	}
	body, err := json.Marshal(req)
	if err != nil { // invalid UTF-8
		return delivery.Sent{}, rejected("invalid_encoding", "the text is not valid UTF-8")
	}
	number := c.number
	if m.From != "" {
		number = m.From
	}
	resp, err := httpapi.Do(ctx, c.client, httpapi.Request{
		Method: http.MethodPost, URL: c.base + "/" + number + "/messages", Body: body, MaxBody: maxAnswer,
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {c.bearer}, "User-Agent": {"msgctl/1"}},
	})
	if err != nil {
		return delivery.Sent{}, err
	}
	return c.read(resp)
}

// read tells what an answer means.
func (c *connector) read(resp httpapi.Response) (delivery.Sent, error) {
	var a answer
	err := json.Unmarshal(resp.Body, &a, jsontext.AllowDuplicateNames(true))
	switch {
	case err == nil && a.Error != nil && a.Error.Code != nil:
		return delivery.Sent{}, c.failure(a.Error, resp)
	case resp.Status < 200 || resp.Status > 299:
		// No error of the API: something in front of it answered.
		f := httpapi.Classify(resp, c.now())
		if s := httpapi.Snippet(string(resp.Body), httpapi.MaxDetail-len(f.Detail)-2, c.secrets...); s != "" {
			f.Detail += ": " + s
		}
		return delivery.Sent{}, f
	case err == nil && len(a.Messages) == 1 && a.Messages[0].ID != "" && len(a.Messages[0].ID) <= 512:
		detail := httpapi.Snippet(a.Messages[0].Status, httpapi.MaxDetail, c.secrets...)
		return delivery.Sent{ProviderID: a.Messages[0].ID, Detail: detail}, nil
	}
	return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "unreadable_answer", Known: true,
		Detail: "the provider said yes without saying what to"}
}

// request makes the body, or says why there can be none.
func (c *connector) request(m *delivery.Outgoing) (*request, *delivery.Failure) {
	r := &request{Product: "whatsapp", Recipient: "individual", To: m.To, Opaque: m.ID.String()}
	if m.From != "" && !digits(m.From) {
		return nil, rejected("invalid_sender", "the sender must be a phone number id")
	}
	switch t := m.Content.Approved; {
	case t != nil:
		if t.Name == "" || t.Language == "" {
			return nil, rejected("invalid_template", "an approved template needs its name and language")
		}
		r.Type, r.Template = "template", &templated{Name: t.Name, Language: language{t.Language}}
		if len(t.Params) > 0 {
			body := component{Type: "body", Parameters: make([]parameter, len(t.Params))}
			for i, p := range t.Params {
				body.Parameters[i] = parameter{"text", p}
			}
			r.Template.Components = []component{body}
		}
	case m.Content.Text == "":
		return nil, rejected("empty_content", "a WhatsApp message needs a text or an approved template")
	case utf8.RuneCountInString(m.Content.Text) > maxText:
		return nil, rejected("text_too_long", "a WhatsApp text has at most 4096 characters")
	default:
		r.Type, r.Text = "text", &text{Body: m.Content.Text}
	}
	return r, nil
}

// Check asks for the phone number's profile.
func (c *connector) Check(ctx context.Context) error {
	resp, err := httpapi.Do(ctx, c.client, httpapi.Request{
		Method: http.MethodGet, URL: c.base + "/" + c.number + "?fields=verified_name", MaxBody: maxAnswer,
		Header: http.Header{"Authorization": {c.bearer}, "User-Agent": {"msgctl/1"}},
	})
	if err != nil {
		return err
	}
	var a answer
	err = json.Unmarshal(resp.Body, &a, jsontext.AllowDuplicateNames(true))
	if err == nil && a.Error != nil && a.Error.Code != nil {
		return c.failure(a.Error, resp)
	}
	if f := httpapi.Classify(resp, c.now()); f != nil {
		return f
	}
	return nil
}

func rejected(code, detail string) *delivery.Failure {
	return &delivery.Failure{Class: delivery.Rejected, Code: code, Detail: detail, Known: true}
}

func digits(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "0123456789") == ""
}

func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// version reports whether s is v and a number such as 25.0.
func version(s string) bool {
	major, minor, ok := strings.Cut(strings.TrimPrefix(s, "v"), ".")
	return ok && s[0] == 'v' && digits(major) && digits(minor)
}
