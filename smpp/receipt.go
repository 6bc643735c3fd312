package smpp

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// State is a message_state (§5.2.28).
type State byte

// The states.
const (
	StateNone          State = 0 // a receipt that names none, or one that is not known
	StateEnroute       State = 1
	StateDelivered     State = 2
	StateExpired       State = 3
	StateDeleted       State = 4
	StateUndeliverable State = 5
	StateAccepted      State = 6
	StateUnknown       State = 7
	StateRejected      State = 8
)

var stateWords = [...]string{"", "ENROUTE", "DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD"}

// String returns the word that receipts use (Appendix B, table B-2), or "".
func (s State) String() string {
	if int(s) < len(stateWords) {
		return stateWords[s]
	}
	return ""
}

// ParseState reads a receipt's word, in any case. Centres cut and write out words as they like: the first five letters
// decide.
func ParseState(s string) State {
	for i, w := range stateWords[1:] {
		if len(s) >= 5 && strings.EqualFold(s[:5], w[:5]) {
			return State(i + 1)
		}
	}
	return StateNone
}

// ErrNotReceipt is returned for text without any field of a receipt that matters.
var ErrNotReceipt = errors.New("smpp: text has neither the id nor the state of a delivery receipt")

// Receipt is a delivery receipt (Appendix B).
type Receipt struct {
	ID        string
	Sub       int       // messages submitted, delivered; 0 when missing
	Dlvrd     int       //
	Submitted time.Time // by the centre's own clock, whose zone the text does not tell; read as UTC, zero when missing
	Done      time.Time
	State     State
	Stat      string // the word as it came
	Err       string // the centre's error code as it came
	Text      string // the start of the message
	// NetworkType and NetworkCode are those of network_error_code (§5.3.2.31): type 3 is GSM, its codes are MAP errors.
	NetworkType byte
	NetworkCode uint16
}

var receiptKeys = [...]string{"id", "sub", "dlvrd", "submit date", "done date", "stat", "err", "text"}

// ParseReceipt reads the text of a receipt. Appendix B calls its form vendor specific, so that every field may be
// missing, in any case and any order, with blanks after its colon; text takes all that follows it. The first of two
// fields of one name counts. The error is ErrNotReceipt.
func ParseReceipt(text string) (Receipt, error) {
	var (
		r    Receipt
		seen [len(receiptKeys)]bool
	)
	for at := 0; at < len(text); {
		key, n := receiptKey(text[at:])
		if key < 0 {
			at = nextWord(text, at)
			continue
		}
		at += n
		for at < len(text) && text[at] == ' ' {
			at++
		}
		value := text[at:]
		if receiptKeys[key] != "text" {
			if k, _ := receiptKey(value); k >= 0 { // an empty field before the next one
				continue
			}
			if end := strings.IndexAny(value, " \x00\r\n\t"); end >= 0 {
				value = value[:end]
			}
		}
		if !seen[key] {
			seen[key] = true
			r.set(receiptKeys[key], value)
		}
		at += len(value)
	}
	if r.ID == "" && r.Stat == "" {
		return Receipt{}, ErrNotReceipt
	}
	return r, nil
}

// receiptKey returns the key that s starts with, colon included in n, or -1.
func receiptKey(s string) (key, n int) {
	for i, k := range receiptKeys {
		if len(s) > len(k) && s[len(k)] == ':' && strings.EqualFold(s[:len(k)], k) {
			return i, len(k) + 1
		}
	}
	return -1, 0
}

// nextWord returns where the word after the one at the given place starts.
func nextWord(s string, at int) int {
	i := strings.IndexAny(s[at:], " \x00\r\n\t")
	if i < 0 {
		return len(s)
	}
	return at + i + 1
}

func (r *Receipt) set(key, value string) {
	switch key {
	case "id":
		r.ID = value
	case "sub":
		r.Sub, _ = strconv.Atoi(value)
	case "dlvrd":
		r.Dlvrd, _ = strconv.Atoi(value)
	case "submit date":
		r.Submitted = receiptTime(value)
	case "done date":
		r.Done = receiptTime(value)
	case "stat":
		r.Stat, r.State = value, ParseState(value)
	case "err":
		r.Err = value
	case "text":
		r.Text = value
	}
}

// receiptTime reads YYMMDDhhmm with or without seconds; anything else is zero.
func receiptTime(s string) time.Time {
	layout := "0601021504"
	if len(s) == 12 {
		layout = "060102150405"
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Apply lets receipted_message_id, message_state and network_error_code speak over the text: they are defined to the
// bit and the text is not. It reports whether the receipt is worth anything now, which the text alone may not have
// made it.
func (r *Receipt) Apply(t TLVs) bool {
	if id, ok := t.Text(TagReceiptedMessageID); ok && id != "" {
		r.ID = id
	}
	if s, ok := t.Octet(TagMessageState); ok && s != 0 && int(s) < len(stateWords) {
		r.State, r.Stat = State(s), State(s).String()
	}
	if e, ok := t.Get(TagNetworkErrorCode); ok && len(e) == 3 {
		r.NetworkType, r.NetworkCode = e[0], binary.BigEndian.Uint16(e[1:])
	}
	return r.ID != ""
}

// Append adds the text of the receipt as Appendix B lays it out: times in UTC, text cut to 20 octets.
func (r *Receipt) Append(dst []byte) []byte {
	dst = append(append(dst, "id:"...), r.ID...)
	dst = appendThree(append(dst, " sub:"...), r.Sub)
	dst = appendThree(append(dst, " dlvrd:"...), r.Dlvrd)
	dst = r.Submitted.UTC().AppendFormat(append(dst, " submit date:"...), "0601021504")
	dst = r.Done.UTC().AppendFormat(append(dst, " done date:"...), "0601021504")
	dst = append(append(dst, " stat:"...), r.State.String()...)
	dst = append(append(dst, " err:"...), r.Err...)
	return append(append(dst, " text:"...), r.Text[:min(len(r.Text), 20)]...)
}

func appendThree(dst []byte, n int) []byte {
	n = max(0, min(n, 999))
	return append(dst, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}
