// Package acmesms sends text messages through the JSON API of a provider.
//
// The API is the simplest that is worth connecting: POST {url}/messages with a bearer token and {"to", "from", "text",
// "ref"} answers {"id"}. Put your provider's page here, with its section and the date you read it.
package acmesms

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/httpapi"
	"github.com/msgctl/msgctl/delivery"
)

// Kind returns the kind of connector: what it is called, what it needs, and how it is opened.
func Kind() connectors.Kind {
	return connectors.Kind{
		Name:    "acmesms",
		Channel: delivery.SMS,
		Doc:     "Text messages through the JSON API of Acme.",
		Settings: []connectors.Setting{
			{Key: "url", Type: connectors.URL, Required: true, Doc: "Base URL of the API."},
			{Key: "token", Type: connectors.Text, Required: true, Secret: true, Doc: "Bearer token."},
			{Key: "from", Type: connectors.Text, Default: "Acme", Doc: "Sender when a message names none."},
		},
		// The provider drops a second request with the same ref, so that an attempt without an answer may be made again.
		// Say None where a provider has no such thing: then the tenant's policy decides, and nobody guesses.
		Ambiguity: connectors.DedupeKey,
		Open:      open,
	}
}

type connector struct {
	account *connectors.Account
	url     string
	token   string
}

// open checks the settings. It makes no traffic: an account opens while its provider is away.
func open(a *connectors.Account) (connectors.Connector, error) {
	token := a.Settings.Text("token")
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &connectors.SettingError{Key: "token", Reason: "must be printable ASCII without spaces"}
	}
	return &connector{account: a, url: strings.TrimRight(a.Settings.Text("url"), "/"), token: token}, nil
}

// Send makes one attempt. It may be called from many goroutines, does not retry, and keeps nothing of m.
func (c *connector) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	from := m.From
	if from == "" {
		from = c.account.Settings.Text("from")
	}
	body, err := json.Marshal(map[string]string{"to": m.To, "from": from, "text": m.Content.Text, "ref": m.ID.String()})
	if err != nil {
		return delivery.Sent{}, &delivery.Failure{Class: delivery.Rejected, Code: "invalid_text", Known: true, Err: err}
	}
	// Do knows whether the request may have left when something goes wrong, and classifies that.
	resp, err := httpapi.Do(ctx, c.account.HTTP, httpapi.Request{
		Method: http.MethodPost, URL: c.url + "/messages", Body: body,
		Header: http.Header{"Authorization": {"Bearer " + c.token}, "Content-Type": {"application/json"}},
	})
	if err != nil {
		return delivery.Sent{}, err
	}
	if f := c.classify(resp); f != nil {
		return delivery.Sent{}, f
	}
	var answer struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil || answer.ID == "" {
		return delivery.Sent{}, &delivery.Failure{
			Class: delivery.InDoubt, Code: "no_id", Known: true, Detail: "the provider took it and gave no id", Err: err,
		}
	}
	return delivery.Sent{ProviderID: answer.ID}, nil
}

// classify maps the provider's own codes, and leaves the rest to the table of HTTP statuses.
func (c *connector) classify(resp httpapi.Response) *delivery.Failure {
	f := httpapi.Classify(resp, c.account.Now())
	if f == nil {
		return nil
	}
	var answer struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(resp.Body, &answer) // a body that is no JSON has no code
	switch answer.Code {
	case "unknown_subscriber":
		f.Class, f.Code = delivery.BadRecipient, answer.Code
	case "opted_out":
		f.Class, f.Code = delivery.Consent, answer.Code
	}
	return f
}
