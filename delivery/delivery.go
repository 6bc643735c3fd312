// Package delivery is the vocabulary of the engine: what a message is, which states it may be in, who may move it, and
// what a failure means.
//
// It does no I/O and imports only the standard library, so that every other package, and every connector written
// outside this repository, can speak it.
package delivery

import (
	"encoding/json"
	"fmt"
	"time"
)

// TenantID names a tenant: a lower-case slug of 1–40 characters, [a-z0-9-]. It comes from a credential or from a
// stored row, never from a request body. The zero value names no tenant.
type TenantID string

// Shared owns the connectors that an operator offers to every tenant.
const Shared TenantID = ""

// Channel is a way to reach a person or a program.
type Channel uint8

// The channels. The numbers are stored: never renumber.
const (
	SMS      Channel = 1
	WhatsApp Channel = 2
	Email    Channel = 3
	Webhook  Channel = 4
)

// Channels lists every channel in the order in which people see them.
var Channels = []Channel{SMS, WhatsApp, Email, Webhook}

var channelNames = map[Channel]string{SMS: "sms", WhatsApp: "whatsapp", Email: "email", Webhook: "webhook"}

func (c Channel) String() string {
	switch c {
	case SMS:
		return "sms"
	case WhatsApp:
		return "whatsapp"
	case Email:
		return "email"
	case Webhook:
		return "webhook"
	}
	return fmt.Sprintf("channel(%d)", uint8(c))
}

// ParseChannel reads a channel's name as String writes it.
func ParseChannel(s string) (Channel, error) {
	for c, name := range channelNames {
		if name == s {
			return c, nil
		}
	}
	return 0, fmt.Errorf("unknown channel %q: use sms, whatsapp, email or webhook", s)
}

// Lane says how urgent a message is. Lanes share an account's rate; a lower number goes first.
type Lane uint8

// The lanes. The numbers are stored: never renumber.
const (
	Urgent Lane = 1 // one-time codes, alerts
	Normal Lane = 2 // what a program sends one at a time
	Bulk   Lane = 3 // campaigns
)

func (l Lane) String() string {
	switch l {
	case Urgent:
		return "urgent"
	case Normal:
		return "normal"
	case Bulk:
		return "bulk"
	}
	return fmt.Sprintf("lane(%d)", uint8(l))
}

// ParseLane reads a lane's name as String writes it; the empty string is Normal.
func ParseLane(s string) (Lane, error) {
	switch s {
	case "urgent":
		return Urgent, nil
	case "normal", "":
		return Normal, nil
	case "bulk":
		return Bulk, nil
	}
	return 0, fmt.Errorf("unknown lane %q: use urgent, normal or bulk", s)
}

// Queue is the unit of flow: messages of one tenant, channel and lane wait in order of their due time. A hint, a claim
// and a limit never mix two queues.
type Queue struct {
	Tenant  TenantID
	Channel Channel
	Lane    Lane
}

func (q Queue) String() string {
	return string(q.Tenant) + "/" + q.Channel.String() + "/" + q.Lane.String()
}

// Header is one e-mail header field that a sender adds.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ProviderTemplate names a message template that the provider has approved (WhatsApp).
type ProviderTemplate struct {
	Name     string   `json:"name"`
	Language string   `json:"language"` // a provider's code such as en or pt_BR
	Params   []string `json:"params,omitempty"`
}

// Content is a message as its channel will carry it. Fields that a channel does not know stay empty.
type Content struct {
	Text           string            `json:"text,omitempty"`            // SMS, WhatsApp text, e-mail text part
	Subject        string            `json:"subject,omitempty"`         // e-mail
	HTML           string            `json:"html,omitempty"`            // e-mail HTML part
	ReplyTo        string            `json:"reply_to,omitempty"`        // e-mail
	Headers        []Header          `json:"headers,omitempty"`         // e-mail, already checked against the allow-list
	UnsubscribeURL string            `json:"unsubscribe_url,omitempty"` // e-mail: one-click target, RFC 8058
	Approved       *ProviderTemplate `json:"approved,omitempty"`        // WhatsApp template message
	Event          string            `json:"event,omitempty"`           // webhook event type
	Data           json.RawMessage   `json:"data,omitempty"`            // webhook payload
}

// Draft is what a sender asked for: literal content, or a template with its variables. It is stored as it was asked and
// becomes Content in the render stage, so that a template's text is kept once and not once per person.
type Draft struct {
	From     string         `json:"from,omitempty"` // sender id, phone number id or mailbox; empty = the connector's own
	Template string         `json:"template,omitempty"`
	Version  int            `json:"version,omitempty"` // pinned at accept; 0 only when Template is empty
	Vars     map[string]any `json:"vars,omitempty"`
	Content  *Content       `json:"content,omitempty"`
}

// Outgoing is one message on its way into one attempt. A connector reads it and keeps nothing of it.
type Outgoing struct {
	ID      MessageID
	Tenant  TenantID
	Channel Channel
	Attempt int // 1 for the first attempt
	// PossibleDuplicate is set when an earlier attempt may have reached the provider. A connector passes it on where its
	// protocol has a place for it, and uses the same deduplication key as before where the provider knows one.
	PossibleDuplicate bool
	To                string // E.164 phone number, mailbox or URL, normalised
	From              string // empty = the connector's own sender
	Content           Content
	Segments          int       // SMS parts, 1 for the other channels
	ExpiresAt         time.Time // no hand-off starts after this; pass the rest on as the protocol's validity period
}

// Sent says that the provider took the message: HTTP 2xx with an id, SMTP 250 after DATA, submit_sm_resp status 0.
type Sent struct {
	ProviderID string // the provider's id; receipts come back under it
	Detail     string // what the provider answered, safe to show, at most 200 bytes
}

// Receipt is what a provider reports about a message after it took it.
type Receipt struct {
	Account    AccountID // the connector account it came through
	Message    MessageID // set when the provider gave our token back; else found by ProviderID
	ProviderID string
	Status     Status // Sent, Delivered, Read, Undelivered or Failed
	Class      Class  // for Undelivered and Failed: what it means for the address; zero = nothing
	Code       string // the provider's own code
	Detail     string // safe to show
	At         time.Time
}

// Inbound is a message that a person sent to us.
type Inbound struct {
	Account AccountID
	Channel Channel
	From    string // the person, normalised
	To      string // our number or sender
	Text    string
	ID      string // the provider's id, for deduplication
	At      time.Time
}
