package api

import (
	"net/mail"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sms"
)

// Bounds of content. Those of a provider come on top; these keep any message storable and renderable.
const (
	maxSegments  = 10
	maxText      = 256 << 10 // bytes of an e-mail's text, of its HTML, and of a webhook's data
	maxSubject   = 998       // RFC 5322 §2.1.1
	maxWhatsApp  = 4096      // characters of a WhatsApp text (Cloud API, text object, "body")
	maxParam     = 1024      // characters of a template parameter (Cloud API, parameter object)
	maxParams    = 100
	maxClientRef = 128
	maxMark      = 64 // characters of a category and of a tag
	// maxOrderingKey is in characters too.
	maxOrderingKey = 128
	maxEvent       = 128
	maxSenderWord  = 11 // alphanumeric sender: 11 characters of GSM 03.38 (3GPP TS 23.040 §9.1.2.5)
)

// part is a field of a message that only some channels have.
type part struct {
	name string
	set  func(*messageIn) bool
	// content says that the field is a message's content: it excludes a template.
	content bool
}

// parts lists every such field.
var parts = []part{
	{"text", func(m *messageIn) bool { return m.Text != "" }, true},
	{"subject", func(m *messageIn) bool { return m.Subject != "" }, true},
	{"html", func(m *messageIn) bool { return m.HTML != "" }, true},
	{"approved", func(m *messageIn) bool { return m.Approved != nil }, true},
	{"event", func(m *messageIn) bool { return m.Event != "" }, true},
	{"data", func(m *messageIn) bool { return len(m.Data) > 0 }, true},
	{"reply_to", func(m *messageIn) bool { return m.ReplyTo != "" }, false},
	{"headers", func(m *messageIn) bool { return len(m.Headers) > 0 }, false},
	{"unsubscribe_url", func(m *messageIn) bool { return m.UnsubscribeURL != "" }, false},
}

// contentRule is what a channel asks of a message's content.
type contentRule struct {
	has      string // the fields it knows, with a space around each
	literal  func(*messageIn, *faults)
	sender   func(string) string // returns the rule that a sender breaks, or ""
	segments bool                // it is divided into segments
}

// contentRules is the one table of what each channel carries.
var contentRules = map[delivery.Channel]contentRule{
	delivery.SMS:      {has: " text ", literal: smsContent, sender: smsSender, segments: true},
	delivery.WhatsApp: {has: " text approved ", literal: whatsappContent, sender: whatsappSender},
	delivery.Email: {
		has: " text subject html reply_to headers unsubscribe_url ", literal: emailContent, sender: emailSender,
	},
	delivery.Webhook: {has: " event data ", literal: webhookContent, sender: noSender},
}

// content checks that a message has either a template or content, and only fields of its channel.
func content(in *messageIn, ch delivery.Channel, f *faults) {
	rule, any := contentRules[ch], false
	for _, p := range parts {
		if !p.set(in) {
			continue
		}
		any = any || p.content
		switch {
		case !strings.Contains(rule.has, " "+p.name+" "):
			f.add("/"+p.name, "field_not_allowed", "%s has no %s; it takes %s", ch, p.name,
				strings.Join(strings.Fields(rule.has), ", "))
		case p.content && in.Template != "":
			f.add("/"+p.name, "field_not_allowed", "give a template or content, not both")
		}
	}
	if in.From != "" {
		if broken := rule.sender(in.From); broken != "" {
			f.add("/from", "invalid_sender", "%s", broken)
		}
	}
	if in.UnsubscribeURL != "" {
		unsubscribeURL(in.UnsubscribeURL, f)
	}
	if in.ReplyTo != "" {
		if broken := emailSender(in.ReplyTo); broken != "" {
			f.add("/reply_to", controlOr(in.ReplyTo, "invalid_email"), "%s", broken)
		}
	}
	headers(in.Headers, f)
	switch {
	case in.Template != "":
	case len(in.Vars) > 0:
		f.add("/vars", "field_not_allowed", "vars belong to a template")
	case !any:
		f.add("", "content_required", "give a template, or content: %s", strings.Join(strings.Fields(rule.has), ", "))
	default:
		rule.literal(in, f)
	}
}

func smsContent(in *messageIn, f *faults) {
	block("/text", in.Text, maxText, f)
	if in.Text == "" {
		f.add("/text", "content_required", "an SMS needs text")
	} else if n, enc := sms.Count(in.Text); n > maxSegments {
		f.add("/text", "too_many_segments", "the text needs %d segments in %s; %d is the most", n, enc, maxSegments)
	}
}

func whatsappContent(in *messageIn, f *faults) {
	switch {
	case in.Approved != nil && in.Text != "":
		f.add("/text", "field_not_allowed", "give text or approved, not both")
	case in.Approved != nil:
		approved(in.Approved, f)
	case in.Text == "":
		f.add("/text", "content_required", "a WhatsApp message needs text or approved")
	default:
		block("/text", in.Text, maxText, f)
		if n := utf8.RuneCountInString(in.Text); n > maxWhatsApp {
			f.add("/text", "text_too_long", "the text has %d characters; %d is the most", n, maxWhatsApp)
		}
	}
}

// approved checks the name of a provider's template as Meta writes it: lower case, digits and underscores.
func approved(t *approvedIn, f *faults) {
	bad := func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_') }
	if t.Name == "" || len(t.Name) > 512 || strings.ContainsFunc(t.Name, bad) {
		f.add("/approved/name", "invalid_value", "an approved template's name has 1 to 512 of a-z, 0-9 and underscore")
	}
	word := func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_') }
	if len(t.Language) < 2 || len(t.Language) > 15 || strings.ContainsFunc(t.Language, word) {
		f.add("/approved/language", "invalid_value", "use a language code such as en or pt_BR")
	}
	if len(t.Params) > maxParams {
		f.add("/approved/params", "invalid_value", "%d parameters; %d is the most", len(t.Params), maxParams)
		return
	}
	for i, p := range t.Params {
		if n := utf8.RuneCountInString(p); n > maxParam {
			f.add("/approved/params/"+itoa(i), "text_too_long", "the parameter has %d characters; %d is the most", n, maxParam)
		}
	}
}

func emailContent(in *messageIn, f *faults) {
	line("/subject", in.Subject, maxSubject, f)
	if strings.TrimSpace(in.Subject) == "" {
		f.add("/subject", "content_required", "an e-mail needs a subject")
	}
	if in.Text == "" && in.HTML == "" {
		f.add("/text", "content_required", "an e-mail needs text or html")
	}
	block("/text", in.Text, maxText, f)
	block("/html", in.HTML, maxText, f)
}

func webhookContent(in *messageIn, f *faults) {
	line("/event", in.Event, maxEvent, f)
	if len(in.Data) == 0 {
		f.add("/data", "content_required", "a webhook needs data: any JSON")
	} else if len(in.Data) > maxText {
		f.add("/data", "text_too_long", "data has %d bytes; %d is the most", len(in.Data), maxText)
	}
}

// smsSender takes a phone number, a short code or an alphanumeric sender.
func smsSender(s string) string {
	digits := strings.TrimPrefix(s, "+")
	if digits != "" && strings.Trim(digits, "0123456789") == "" {
		if len(digits) < 3 || len(digits) > 15 {
			return "a number as sender has 3 to 15 digits"
		}
		return ""
	}
	if s == "" || len(s) > maxSenderWord {
		return "an alphanumeric sender has 1 to 11 characters"
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" &.-_", r)) {
			return "an alphanumeric sender has only letters, digits, space and &.-_"
		}
	}
	return ""
}

func whatsappSender(s string) string {
	if len(s) > 32 || strings.Trim(strings.TrimPrefix(s, "+"), "0123456789") != "" {
		return "a WhatsApp sender is a phone number id: digits only"
	}
	return ""
}

// emailSender takes a mailbox, alone or behind a display name.
func emailSender(s string) string {
	if strings.ContainsFunc(s, breaksLine) {
		return "there is a line break or control character"
	}
	if len(s) > 512 {
		return "too long: a name and an address have at most 512 bytes"
	}
	bare := s
	if strings.HasSuffix(s, ">") {
		a, err := mail.ParseAddress(s)
		if err != nil {
			return "use name@example.com or Name <name@example.com>"
		}
		bare = a.Address
	}
	if _, err := recipient.Email(bare); err != nil {
		return "use name@example.com or Name <name@example.com>"
	}
	return ""
}

func noSender(string) string { return "a webhook has no sender: leave from out" }

// unsubscribeURL checks a one-click target: https, as RFC 8058 §3.1 asks.
func unsubscribeURL(raw string, f *faults) {
	u, err := recipient.URL(raw)
	if err != nil || !strings.HasPrefix(u, "https://") {
		f.add("/unsubscribe_url", "url_not_allowed", "use an absolute https URL (RFC 8058)")
	}
}

func itoa(i int) string { return strconv.Itoa(i) }
