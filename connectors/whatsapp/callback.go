package whatsapp

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/connectors/httpapi"
	"github.com/msgctl/msgctl/delivery"
)

// maxCallback bounds a callback's body, in bytes. Meta sends up to 3 MB ("Webhooks", payload size).
const maxCallback = 3 << 20

// envelope is the body of a callback: entries of business accounts, in them changes, in them what happened.
type envelope struct {
	Object string `json:"object"`
	Entry  []struct {
		Changes []struct {
			Field string `json:"field"`
			Value value  `json:"value"`
		} `json:"changes"`
	} `json:"entry"`
}

type value struct {
	Metadata struct {
		PhoneNumberID string `json:"phone_number_id"`
	} `json:"metadata"`
	Statuses []status  `json:"statuses"`
	Messages []message `json:"messages"`
}

type status struct {
	ID        string     `json:"id"`
	Status    string     `json:"status"`
	Timestamp string     `json:"timestamp"`
	Opaque    string     `json:"biz_opaque_callback_data"`
	Errors    []apiError `json:"errors"`
}

type message struct {
	From      string `json:"from"`
	ID        string `json:"id"`
	Timestamp string `json:"timestamp"`
	Type      string `json:"type"`
	Text      struct {
		Body string `json:"body"`
	} `json:"text"`
	Button struct {
		Text string `json:"text"`
	} `json:"button"`
	Interact struct {
		Button struct {
			Title string `json:"title"`
		} `json:"button_reply"`
		List struct {
			Title string `json:"title"`
		} `json:"list_reply"`
	} `json:"interactive"`
}

// ReadCallback verifies and reads a callback: the subscription handshake (GET) or statuses and messages (POST).
func (c *connector) ReadCallback(cb *connectors.Callback) (connectors.Report, error) {
	if cb.Method == http.MethodGet {
		return c.handshake(cb)
	}
	if !c.signed(cb) {
		return connectors.Report{}, connectors.ErrForged
	}
	if len(cb.Body) > maxCallback {
		return connectors.Report{}, fmt.Errorf("%w: larger than 3 MB", connectors.ErrMalformed)
	}
	// Meta adds fields and repeats none; the decoder itself bounds nesting at 10,000.
	var e envelope
	if err := json.Unmarshal(cb.Body, &e, jsontext.AllowInvalidUTF8(true)); err != nil {
		return connectors.Report{}, fmt.Errorf("%w: %s", connectors.ErrMalformed, reason(err))
	}
	if e.Object != "whatsapp_business_account" {
		return connectors.Report{}, fmt.Errorf("%w: not about a WhatsApp business account", connectors.ErrMalformed)
	}
	var r connectors.Report
	for _, entry := range e.Entry {
		for _, change := range entry.Changes {
			if change.Field == "messages" { // account alerts, template reviews and the like are not ours
				c.value(&r, &change.Value, cb.Now)
			}
		}
	}
	return r, nil
}

// signed compares X-Hub-Signature-256, the HMAC-SHA256 of the raw body under the app secret, in constant time. The
// older X-Hub-Signature (SHA-1) is not looked at.
func (c *connector) signed(cb *connectors.Callback) bool {
	given := cb.Header.Values("X-Hub-Signature-256")
	if len(given) != 1 {
		return false
	}
	encoded, ok := strings.CutPrefix(given[0], "sha256=")
	if !ok || len(encoded) != 2*sha256.Size {
		return false
	}
	sum, err := hex.DecodeString(encoded)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, c.appSecret)
	mac.Write(cb.Body)
	return hmac.Equal(sum, mac.Sum(nil))
}

// handshake answers Meta's check of a new callback URL with the challenge (page "Webhooks: getting started").
func (c *connector) handshake(cb *connectors.Callback) (connectors.Report, error) {
	u, err := url.Parse(cb.URL)
	if err != nil || c.verifyToken == "" {
		return connectors.Report{}, connectors.ErrForged
	}
	q := u.Query()
	token := q["hub.verify_token"]
	if len(token) != 1 || q.Get("hub.mode") != "subscribe" ||
		subtle.ConstantTimeCompare([]byte(token[0]), []byte(c.verifyToken)) != 1 {
		return connectors.Report{}, connectors.ErrForged
	}
	// Digits so far; what goes back is kept to what no browser can take for a page.
	challenge := q.Get("hub.challenge")
	if challenge == "" || len(challenge) > 128 || strings.ContainsFunc(challenge, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || r == '-' || r == '.')
	}) {
		return connectors.Report{}, fmt.Errorf("%w: hub.challenge", connectors.ErrMalformed)
	}
	return connectors.Report{Reply: []byte(challenge)}, nil
}

// value adds what one change says to r.
func (c *connector) value(r *connectors.Report, v *value, now time.Time) {
	for i := range v.Statuses {
		if rc, known := c.receipt(&v.Statuses[i], now); known {
			r.Receipts = append(r.Receipts, rc)
		} else {
			r.Unknown = append(r.Unknown, httpapi.Snippet(v.Statuses[i].Status, 40))
		}
	}
	for i := range v.Messages {
		m := &v.Messages[i]
		from := strings.TrimPrefix(m.From, "+")
		if !digits(from) || m.ID == "" || len(m.ID) > 512 {
			r.Unknown = append(r.Unknown, "message without sender or id")
			continue
		}
		// A picture or a place has no text; it still opens the 24 hours in which text may be sent.
		r.Inbound = append(r.Inbound, delivery.Inbound{
			Channel: delivery.WhatsApp, From: "+" + from, To: v.Metadata.PhoneNumberID,
			Text: m.text(), ID: m.ID, At: stamp(m.Timestamp, now),
		})
	}
}

// text is what the person wrote or chose.
func (m *message) text() string {
	for _, s := range [...]string{m.Text.Body, m.Button.Text, m.Interact.Button.Title, m.Interact.List.Title} {
		if s != "" {
			return s
		}
	}
	return ""
}

func (c *connector) receipt(s *status, now time.Time) (delivery.Receipt, bool) {
	r := delivery.Receipt{ProviderID: s.ID, At: stamp(s.Timestamp, now)}
	switch s.Status {
	case "sent":
		r.Status = delivery.StatusSent
	case "delivered":
		r.Status = delivery.StatusDelivered
	case "read", "played": // a voice message was listened to
		r.Status = delivery.StatusRead
	case "failed":
		r.Status = delivery.StatusUndelivered
	default:
		return r, false
	}
	// The opaque data is ours or absent; anything else was written by another program with the same number.
	if id, err := delivery.ParseMessageID(s.Opaque); err == nil {
		r.Message = id
	}
	if len(r.ProviderID) > 512 || r.ProviderID == "" && r.Message.IsZero() {
		return r, false
	}
	if len(s.Errors) > 0 && s.Errors[0].Code != nil {
		e := &s.Errors[0]
		r.Code, r.Detail = strconv.Itoa(*e.Code), c.detail(e)
		class, _, _ := classOf(*e.Code)
		if s.Status == "failed" && (class == delivery.BadRecipient || class == delivery.Consent) {
			r.Class = class // the others say nothing about the address
		}
	}
	return r, true
}

// stamp reads Unix seconds; a time that is missing, absurd or ahead of us becomes now.
func stamp(s string, now time.Time) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return now.UTC()
	}
	at := time.Unix(n, 0).UTC()
	if at.After(now) {
		return now.UTC()
	}
	return at
}

// reason shortens a decoder's error: it may quote the input.
func reason(err error) string { return httpapi.Snippet(err.Error(), 120) }
