package api

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/delivery"
)

// messageIn is sdk.MessageRequest as the server reads it: what the engine only passes on stays the bytes it came as, so
// that a number such as 12345678901234567890 is stored as it was sent, and nothing is built that is not needed.
type messageIn struct {
	Channel        string         `json:"channel"`
	To             string         `json:"to"`
	From           string         `json:"from"`
	Text           string         `json:"text"`
	Subject        string         `json:"subject"`
	HTML           string         `json:"html"`
	ReplyTo        string         `json:"reply_to"`
	Headers        []headerIn     `json:"headers"`
	UnsubscribeURL string         `json:"unsubscribe_url"`
	Approved       *approvedIn    `json:"approved"`
	Event          string         `json:"event"`
	Data           jsontext.Value `json:"data"`
	Template       string         `json:"template"`
	Vars           jsontext.Value `json:"vars"`
	Lane           string         `json:"lane"`
	SendAt         string         `json:"send_at"`
	Zone           string         `json:"zone"`
	ExpiresAt      string         `json:"expires_at"`
	TTL            string         `json:"ttl"`
	Connector      string         `json:"connector"`
	Delivery       string         `json:"delivery"`
	ClientRef      string         `json:"client_ref"`
	Category       string         `json:"category"`
	Tag            string         `json:"tag"`
	OrderingKey    string         `json:"ordering_key"`
	Within         string         `json:"within"`
	Until          string         `json:"until"`
	Fallback       []legIn        `json:"fallback"`
}

// legIn is sdk.Leg as the server reads it.
type legIn struct {
	Channel        string         `json:"channel"`
	To             string         `json:"to"`
	From           string         `json:"from"`
	Text           string         `json:"text"`
	Subject        string         `json:"subject"`
	HTML           string         `json:"html"`
	ReplyTo        string         `json:"reply_to"`
	Headers        []headerIn     `json:"headers"`
	UnsubscribeURL string         `json:"unsubscribe_url"`
	Approved       *approvedIn    `json:"approved"`
	Event          string         `json:"event"`
	Data           jsontext.Value `json:"data"`
	Template       string         `json:"template"`
	Vars           jsontext.Value `json:"vars"`
	Connector      string         `json:"connector"`
	Within         string         `json:"within"`
	Until          string         `json:"until"`
}

// message is the leg as a message of its channel, so that the very same checks apply to both.
func (l *legIn) message() messageIn {
	return messageIn{
		Channel: l.Channel, To: l.To, From: l.From, Text: l.Text, Subject: l.Subject, HTML: l.HTML, ReplyTo: l.ReplyTo,
		Headers: l.Headers, UnsubscribeURL: l.UnsubscribeURL, Approved: l.Approved, Event: l.Event, Data: l.Data,
		Template: l.Template, Vars: l.Vars, Connector: l.Connector, Within: l.Within, Until: l.Until,
	}
}

type headerIn struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type approvedIn struct {
	Name     string   `json:"name"`
	Language string   `json:"language"`
	Params   []string `json:"params"`
}

// appendDraft appends the delivery.Draft of a checked message as JSON. It is written by hand because it is built once
// per message and because vars and data go through as they are.
func appendDraft(b []byte, in *messageIn, ch delivery.Channel, version int) []byte {
	b = append(b, '{')
	b = appendText(b, "from", in.From)
	if in.Template != "" {
		b = appendText(b, "template", in.Template)
		b = appendInt(b, "version", int64(version))
		if len(in.Vars) > 0 {
			b = appendRaw(b, "vars", in.Vars)
		}
	}
	if in.Template == "" || in.ReplyTo != "" || in.UnsubscribeURL != "" || len(in.Headers) > 0 {
		b = appendKey(b, "content")
		b = append(b, '{')
		b = appendText(b, "text", in.Text)
		b = appendText(b, "subject", in.Subject)
		b = appendText(b, "html", in.HTML)
		b = appendText(b, "reply_to", in.ReplyTo)
		if len(in.Headers) > 0 {
			b = appendKey(b, "headers")
			for i, h := range in.Headers {
				b = append(b, "[,"[min(i, 1)], '{')
				b = appendText(b, "name", h.Name)
				b = appendKey(b, "value")
				b = quote(b, h.Value)
				b = append(b, '}')
			}
			b = append(b, ']')
		}
		b = appendText(b, "unsubscribe_url", in.UnsubscribeURL)
		if in.Approved != nil {
			b = appendKey(b, "approved")
			b = append(b, '{')
			b = appendText(b, "name", in.Approved.Name)
			b = appendText(b, "language", in.Approved.Language)
			if len(in.Approved.Params) > 0 {
				b = appendKey(b, "params")
				for i, p := range in.Approved.Params {
					b = append(b, "[,"[min(i, 1)])
					b = quote(b, p)
				}
				b = append(b, ']')
			}
			b = append(b, '}')
		}
		b = appendText(b, "event", in.Event)
		if len(in.Data) > 0 {
			b = appendRaw(b, "data", in.Data)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendKey appends a comma, unless an object has just begun, and a name that needs no escapes.
func appendKey(b []byte, name string) []byte {
	if n := len(b); n > 0 && b[n-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendText appends a member with a string, or nothing when it is empty.
func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return quote(appendKey(b, name), value)
}

func appendInt(b []byte, name string, value int64) []byte {
	return appendNumber(appendKey(b, name), value)
}

func appendRaw(b []byte, name string, value []byte) []byte {
	return append(appendKey(b, name), value...)
}

// quote appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
