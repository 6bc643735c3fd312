// Package recipient turns what people type as a phone number, a mailbox or a URL into the one form that is stored.
package recipient

import (
	"fmt"

	"github.com/msgctl/msgctl/delivery"
)

// The codes of Invalid. They are part of the API: never change one.
const (
	CodePhone   = "invalid_phone"
	CodeEmail   = "invalid_email"
	CodeURL     = "url_not_allowed"
	CodeRegion  = "invalid_region"
	CodeChannel = "invalid_channel"
)

// Invalid says why a recipient was refused. Neither field repeats the recipient, so both are safe to log and to show.
type Invalid struct {
	Code string // one of the constants above
	Rule string // the rule that was broken, as an instruction to a person
}

func (e *Invalid) Error() string { return e.Code + ": " + e.Rule }

// Normalize returns the stored form of raw for a channel: an E.164 number for SMS and WhatsApp, a mailbox with a
// lower-case ASCII domain for e-mail, an absolute URL for webhooks. Two spellings of one recipient become the same
// string, and a normalised recipient normalises to itself.
//
// Region is an ISO 3166-1 alpha-2 code such as IN. It is used only for phone numbers without a +, which are refused
// when it is empty. Every error is an *Invalid. Whether a URL may be called is decided by the egress
// policy and not here.
// Normalize keeps no state and may be called from many goroutines.
func Normalize(ch delivery.Channel, raw, region string) (string, error) {
	switch ch {
	case delivery.SMS, delivery.WhatsApp:
		return Phone(raw, region)
	case delivery.Email:
		return Email(raw)
	case delivery.Webhook:
		return URL(raw)
	}
	return "", &Invalid{CodeChannel, fmt.Sprintf("%v has no recipients", ch)}
}
