package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Sendable is something to send to one recipient: SMS, WhatsApp, Email, Hook, Template, MessageRequest, or one of them
// in With.
type Sendable interface {
	request() (MessageRequest, error)
}

// SMS is a text message.
type SMS struct {
	To   string // E.164, such as +12025550100
	Text string
	From string // sender; empty = the connector's own
}

// WhatsApp is a message on WhatsApp: a Text within the 24 hours after the person wrote, else an approved template.
type WhatsApp struct {
	To       string   // E.164
	Text     string   // free text; leave empty with Template
	Template string   // name of a template that WhatsApp approved
	Lang     string   // its language, such as en_US
	Params   []string // its body parameters, in order
}

// Email is a mail.
type Email struct {
	To             string
	From           string // mailbox; empty = the connector's own
	Subject        string
	Text           string // at least one of Text and HTML
	HTML           string
	ReplyTo        string
	Headers        []Header
	UnsubscribeURL string // adds the one-click headers of RFC 8058
}

// Hook is an event for another program.
type Hook struct {
	URL   string // https
	Event string // type, such as order.paid
	Data  any    // marshalled as JSON
}

// Template is a stored template with the values of its variables.
type Template struct {
	Name    string
	Channel Channel
	To      string
	From    string
	Vars    Vars
}

func (m SMS) request() (MessageRequest, error) {
	return MessageRequest{Channel: ChannelSMS, To: m.To, Text: m.Text, From: m.From}, nil
}

func (m WhatsApp) request() (MessageRequest, error) {
	r := MessageRequest{Channel: ChannelWhatsApp, To: m.To, Text: m.Text}
	if m.Template != "" {
		r.Approved = &Approved{Name: m.Template, Language: m.Lang, Params: m.Params}
	}
	return r, nil
}

func (m Email) request() (MessageRequest, error) {
	return MessageRequest{
		Channel: ChannelEmail, To: m.To, From: m.From, Subject: m.Subject, Text: m.Text, HTML: m.HTML,
		ReplyTo: m.ReplyTo, Headers: m.Headers, UnsubscribeURL: m.UnsubscribeURL,
	}, nil
}

func (m Hook) request() (MessageRequest, error) {
	data, err := json.Marshal(m.Data)
	if err != nil {
		return MessageRequest{}, fmt.Errorf("%w: data of the hook: %w", ErrInvalid, err)
	}
	return MessageRequest{Channel: ChannelWebhook, To: m.URL, Event: m.Event, Data: data}, nil
}

func (m Template) request() (MessageRequest, error) {
	return MessageRequest{Channel: m.Channel, To: m.To, From: m.From, Template: m.Name, Vars: m.Vars}, nil
}

func (m MessageRequest) request() (MessageRequest, error) { return m, nil }

// envelope is a request under construction.
type envelope struct {
	MessageRequest
	key string
	err error
}

// SendOption changes one message or, with SendAll, is put on a row by With.
type SendOption func(*envelope)

// IdempotencyKey names the request: while the engine remembers it, 72 hours, the same key makes no second message. 1 to
// 255 printable ASCII characters. Without it each Send gets a key of its own. It has no effect within SendAll.
func IdempotencyKey(k string) SendOption { return func(e *envelope) { e.key = k } }

// At sends at t instead of now.
func At(t time.Time) SendOption {
	return func(e *envelope) { e.SendAt = t.UTC().Format(time.RFC3339Nano) }
}

// AtLocal sends at a wall-clock time, such as 2026-11-20T09:00, in an IANA zone.
func AtLocal(wall, zone string) SendOption {
	return func(e *envelope) { e.SendAt, e.Zone = wall, zone }
}

// TTL bounds how long the message may wait for its hand-off, from its send time. Default 24 h.
func TTL(d time.Duration) SendOption { return func(e *envelope) { e.TTL = d.String() } }

// ExpiresAt is TTL as an instant.
func ExpiresAt(t time.Time) SendOption {
	return func(e *envelope) { e.MessageRequest.ExpiresAt = t.UTC().Format(time.RFC3339Nano) }
}

// Via sends through the named connector instead of the one that routing would choose.
func Via(connector string) SendOption { return func(e *envelope) { e.Connector = connector } }

// InLane sets how urgent the message is.
func InLane(l Lane) SendOption { return func(e *envelope) { e.Lane = l } }

// AtMostOnce makes one attempt only: when its outcome stays unknown, the message ends as Unknown rather than risking a
// second copy.
func AtMostOnce() SendOption { return func(e *envelope) { e.Delivery = "at_most_once" } }

// Ref sets your own reference, at most 128 characters.
func Ref(s string) SendOption { return func(e *envelope) { e.ClientRef = s } }

// Category says what the message is, such as otp or marketing; routing rules may ask for it.
func Category(s string) SendOption { return func(e *envelope) { e.MessageRequest.Category = s } }

// Tag marks the message for routing rules and lists.
func Tag(s string) SendOption { return func(e *envelope) { e.MessageRequest.Tag = s } }

// InOrder makes messages to the same recipient with the same key go one after the other, as they were accepted.
func InOrder(key string) SendOption { return func(e *envelope) { e.OrderingKey = key } }

// Within bounds how long the way so far (the message itself, or the last Fallback before this option) has to reach a
// status before the next Fallback begins; an empty status means delivered, for e-mail and webhooks sent. The
// last way has the rest of the message's time: the engine refuses one of its own for it.
func Within(d time.Duration, until Status) SendOption {
	return func(e *envelope) {
		if n := len(e.MessageRequest.Fallback); n > 0 {
			e.MessageRequest.Fallback[n-1].Within, e.MessageRequest.Fallback[n-1].Until = d.String(), until
			return
		}
		e.MessageRequest.Within, e.Until = d.String(), until
	}
}

// Fallback adds one more way to reach the person, on another channel. Of the options only Via and Within may stand
// here: the others, such as TTL, are about the message as a whole, and Send refuses them with ErrInvalid.
func Fallback(m Sendable, opts ...SendOption) SendOption {
	return func(e *envelope) {
		way, err := seal(m, opts)
		if err == nil && way.wholeMessage() {
			err = fmt.Errorf("%w: a fallback has content, an address and a connector: give other options to Send", ErrInvalid)
		}
		if err != nil && e.err == nil {
			e.err = err
		}
		r := &way.MessageRequest
		e.MessageRequest.Fallback = append(e.MessageRequest.Fallback, Leg{
			Channel: r.Channel, To: r.To, From: r.From, Text: r.Text, Subject: r.Subject, HTML: r.HTML, ReplyTo: r.ReplyTo,
			Headers: r.Headers, UnsubscribeURL: r.UnsubscribeURL, Approved: r.Approved, Event: r.Event, Data: r.Data,
			Template: r.Template, Vars: r.Vars, Connector: r.Connector, Within: r.Within, Until: r.Until,
		})
	}
}

// wholeMessage reports whether something is set that a fallback has no place for.
func (e *envelope) wholeMessage() bool {
	r := &e.MessageRequest
	return e.key != "" || r.Lane != "" || r.SendAt != "" || r.Zone != "" || r.ExpiresAt != "" || r.TTL != "" ||
		r.Delivery != "" || r.ClientRef != "" || r.Category != "" || r.Tag != "" || r.OrderingKey != "" || len(r.Fallback) > 0
}

// With puts options on a row of SendAll.
func With(m Sendable, opts ...SendOption) Sendable { return withOptions{m, opts} }

type withOptions struct {
	m    Sendable
	opts []SendOption
}

func (w withOptions) request() (MessageRequest, error) {
	e, err := seal(w.m, w.opts)
	return e.MessageRequest, err
}

// Unsendable is a row of SendAll that could not be read: its result carries err, and the rows around it go on.
func Unsendable(err error) Sendable { return unsendable{err} }

type unsendable struct{ err error }

func (u unsendable) request() (MessageRequest, error) { return MessageRequest{}, u.err }

func seal(m Sendable, opts []SendOption) (envelope, error) {
	if m == nil {
		return envelope{}, fmt.Errorf("%w: nothing to send", ErrInvalid)
	}
	r, err := m.request()
	e := envelope{MessageRequest: r}
	for _, o := range opts {
		o(&e)
	}
	if err == nil {
		err = e.err
	}
	return e, err
}

// Send hands one message to the engine. It returns when the engine has stored it: the message then survives a crash of
// either side, and its delivery can be followed by its id.
func (c *Client) Send(ctx context.Context, m Sendable, opts ...SendOption) (*Message, error) {
	e, err := seal(m, opts)
	if err != nil {
		return nil, err
	}
	if len(e.key) > 255 || !printable(e.key) {
		return nil, fmt.Errorf("%w: an idempotency key has 1 to 255 printable ASCII characters", ErrInvalid)
	}
	out := new(Message)
	err = c.do(ctx, call{method: http.MethodPost, path: "/v1/messages", in: e.MessageRequest, key: e.key}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}
