// Package webhook delivers events to HTTP endpoints, signed by the Standard Webhooks scheme.
//
// One attempt is one POST to the message's own URL (specification 1.0.0, standardwebhooks.com, read October 2026). The
// id, the body and its timestamp are the same over every attempt; only webhook-timestamp and the signature change. A
// receiver drops a repeated id, which is why an attempt without an answer may simply be made again.
package webhook

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/httpapi"
	"github.com/msgctl/msgctl/delivery"
)

// maxAnswer is how much of an endpoint's answer is read, in bytes: nothing in it is needed.
const maxAnswer = 16 << 10

// Kind returns the kind of connector.
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:      "webhook",
		Channel:   delivery.Webhook,
		Doc:       "HTTP POST to the endpoint that each message names, signed by the Standard Webhooks scheme.",
		Ambiguity: connectors.DedupeKey,
		Settings: []connectors.Setting{
			{Key: "secret", Type: connectors.Text, Required: true, Secret: true,
				Doc: "Signing secret: whsec_ and the base64 form of 24 to 64 random bytes."},
			{Key: "previous_secret", Type: connectors.Text, Secret: true,
				Doc: "The secret before a rotation; deliveries carry a second signature with it while it is set."},
			{Key: "timeout", Type: connectors.Duration, Default: "15s", Doc: "How long an endpoint may take to answer."},
			{Key: "concurrency", Type: connectors.Number, Default: "64", Doc: "Deliveries at the same time."},
			{Key: "user_agent", Type: connectors.Text, Default: "msgctl-webhook/1", Doc: "The User-Agent header."},
		},
		Concurrency: 64,
		SendTimeout: 15 * time.Second,
		Peers:       true,
		Open:        open,
	}
}

type connector struct {
	client    *http.Client
	now       func() time.Time
	userAgent string
	secrets   []string // to keep out of what is shown
	signers   []*signer
}

func open(a *connectors.Account) (connectors.Connector, error) {
	c := &connector{client: a.HTTP, now: a.Now, userAgent: a.Settings.Text("user_agent")}
	for _, key := range []string{"secret", "previous_secret"} {
		text := a.Settings.Text(key)
		if text == "" && key != "secret" {
			continue
		}
		s, ok := newSigner(text)
		if !ok {
			return nil, &connectors.SettingError{Key: key, Reason: "must be whsec_ and base64 of 24 to 64 bytes"}
		}
		c.signers, c.secrets = append(c.signers, s), append(c.secrets, text, strings.TrimPrefix(text, "whsec_"))
	}
	if strings.ContainsFunc(c.userAgent, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, &connectors.SettingError{Key: "user_agent", Reason: "must be printable ASCII"}
	}
	return c, nil
}

// Send makes one delivery.
func (c *connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	body, ok := payload(m)
	if !ok {
		return delivery.Sent{}, &delivery.Failure{
			Class: delivery.Rejected, Code: "invalid_payload", Detail: "the payload is not JSON", Known: true,
		}
	}
	now := c.now()
	resp, err := httpapi.Do(ctx, c.client, httpapi.Request{
		Method: http.MethodPost, URL: m.To, Header: c.header(m.ID.String(), now, body), Body: body,
		MaxBody: maxAnswer, PerMessage: true,
	})
	if err != nil {
		return delivery.Sent{}, err
	}
	if f := c.classify(resp); f != nil {
		return delivery.Sent{}, f
	}
	return delivery.Sent{Detail: strconv.Itoa(resp.Status)}, nil
}

// classify bends the table of HTTP statuses to a receiver that belongs to the message: 410 asks never to be called
// again (specification, "Response and error handling"), and a refused login is the endpoint's own affair and not our
// account's.
func (c *connector) classify(resp httpapi.Response) *delivery.Failure {
	f := httpapi.Classify(resp, c.now())
	if f == nil {
		return nil
	}
	switch {
	case resp.Status == http.StatusGone:
		f.Class, f.Code, f.Detail = delivery.BadRecipient, "gone", "the endpoint is gone for good (410)"
	case f.Class == delivery.ConnectorDown:
		f.Class = delivery.Rejected
	}
	if text := httpapi.Snippet(string(resp.Body), httpapi.MaxDetail-len(f.Detail)-2, c.secrets...); text != "" {
		f.Detail += ": " + text
	}
	return f
}

// header makes the delivery's headers. The keys are in canonical form already, so they are set without Set.
func (c *connector) header(id string, now time.Time, body []byte) http.Header {
	stamp := strconv.FormatInt(now.Unix(), 10)
	sig := make([]byte, 0, 2*(len("v1,")+base64.StdEncoding.EncodedLen(32)+1))
	for i, s := range c.signers {
		if i > 0 {
			sig = append(sig, ' ')
		}
		sig = s.append(append(sig, "v1,"...), id, stamp, body)
	}
	v := [...]string{"application/json", c.userAgent, id, stamp, string(sig)}
	return http.Header{
		"Content-Type":      v[0:1:1],
		"User-Agent":        v[1:2:2],
		"Webhook-Id":        v[2:3:3],
		"Webhook-Timestamp": v[3:4:4],
		"Webhook-Signature": v[4:5:5],
	}
}

// payload makes the body: {"type", "timestamp", "data"}. The timestamp is when the message was made, so that the body
// is the same over every attempt.
func payload(m *delivery.Outgoing) ([]byte, bool) {
	data := m.Content.Data
	if len(data) == 0 {
		data = json.RawMessage("{}")
	} else if !json.Valid(data) {
		return nil, false
	}
	event := m.Content.Event
	if event == "" {
		event = "message"
	}
	b := make([]byte, 0, len(data)+len(event)+80)
	b = append(b, `{"type":`...)
	b, err := jsontext.AppendQuote(b, event)
	if err != nil { // invalid UTF-8
		return nil, false
	}
	b = append(b, `,"timestamp":"`...)
	b = m.ID.Time().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","data":`...)
	b = append(b, data...)
	return append(b, '}'), true
}
