package whatsapp

import (
	"strconv"
	"time"

	"github.com/msgctl/msgctl/connectors/httpapi"
	"github.com/msgctl/msgctl/delivery"
)

// apiError is the error object of the Graph API. Codes decide; messages are for people and change.
type apiError struct {
	Code    *int   `json:"code"`
	Message string `json:"message"`
	Title   string `json:"title"` // in statuses
	Data    struct {
		Details string `json:"details"`
	} `json:"error_data"`
}

// marketingCooldown is how long to leave a person alone after 131049. Meta's page asks not to resend at once and to
// wait for longer and longer, at least a day.
const marketingCooldown = 24 * time.Hour

// classOf is the table of the page "Error codes", by what each code asks for. ok is false for a code that is not in it.
func classOf(code int) (c delivery.Class, retryAfter time.Duration, ok bool) {
	switch code {
	case 4, // app's call rate
		80007,  // business account's rate
		130429, // number's throughput
		131048, // too many messages of this number were marked as spam
		131056: // too many messages to this one person
		return delivery.Throttled, 0, true
	case 1, 2, // unknown, service away
		131000, // something went wrong
		131016, // overloaded
		131057, // account in maintenance
		133004: // server away
		return delivery.Transient, 0, true
	case 131049: // held back so as not to annoy this person
		return delivery.Transient, marketingCooldown, true
	case 131026: // not on WhatsApp, or cannot take this
		return delivery.BadRecipient, 0, true
	case 131050: // stopped marketing messages from this business
		return delivery.Consent, 0, true
	case 0, 3, 10, 190, // token, permission
		33,     // the number was deleted
		368,    // blocked for policy violations
		131005, // access denied
		131031, // account locked
		131037, // display name not approved
		131042, // payment
		131045, // registration
		133010: // number not registered
		return delivery.ConnectorDown, 0, true
	case 100, // parameter
		130472, // the person is part of an experiment
		130497, // not allowed in this country
		131008, // parameter missing
		131009, // parameter value
		131021, // sender is recipient
		131030, // recipient not on the test number's list
		131047, // more than 24 h since the person wrote: template needed
		131051, // message type
		131052, // media download
		131053, // media upload
		135000: // generic, "parameters"
		return delivery.Rejected, 0, true
	}
	switch {
	case code >= 200 && code <= 299: // permissions
		return delivery.ConnectorDown, 0, true
	case code >= 132000 && code <= 132999: // templates
		return delivery.Rejected, 0, true
	}
	return delivery.Transient, 0, false
}

// failure classifies an error of the API; an unknown code is transient, whatever status came with it.
func (c *connector) failure(e *apiError, resp httpapi.Response) *delivery.Failure {
	class, wait, known := classOf(*e.Code)
	f := &delivery.Failure{Class: class, Code: strconv.Itoa(*e.Code), Detail: c.detail(e), RetryAfter: wait, Known: known}
	if class == delivery.Throttled {
		f.RetryAfter = httpapi.RetryAfter(resp.Header, c.now())
	}
	return f
}

// detail joins the texts for people, safe to show.
func (c *connector) detail(e *apiError) string {
	text := e.Message
	if text == "" {
		text = e.Title
	}
	if e.Data.Details != "" && e.Data.Details != text {
		text += ": " + e.Data.Details
	}
	return httpapi.Snippet(text, httpapi.MaxDetail, c.secrets...)
}
