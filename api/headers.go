package api

import (
	"strings"
	"unicode"
)

// Bounds of the header fields that a sender adds to an e-mail. A line has at most 998 characters (RFC 5322 §2.1.1).
const (
	maxHeaders     = 50
	maxHeaderName  = 76
	maxHeaderValue = 998
)

// senderHeaders are the fields besides X-… that a sender may set. Everything that says who sent what to whom, or that a
// receiver trusts, is written by the engine alone.
var senderHeaders = []string{
	"Precedence", "Auto-Submitted", "In-Reply-To", "References", "Feedback-ID", "List-Id",
}

// headers checks the header fields of an e-mail.
func headers(in []headerIn, f *faults) {
	if len(in) > maxHeaders {
		f.add("/headers", "invalid_value", "an e-mail has at most %d headers of its own, here are %d", maxHeaders, len(in))
		return
	}
	for i, h := range in {
		pointer := "/headers/" + itoa(i)
		switch {
		case !fieldName(h.Name):
			f.add(pointer+"/name", controlOr(h.Name, "header_not_allowed"),
				"a header's name has 1 to %d printable ASCII characters without colon and space", maxHeaderName)
		case !headerAllowed(h.Name):
			f.add(pointer+"/name", "header_not_allowed", "the header %s is not yours to set: use X-… or one of %s; "+
				"for Reply-To use reply_to, for List-Unsubscribe use unsubscribe_url", h.Name, strings.Join(senderHeaders, ", "))
		}
		line(pointer+"/value", h.Value, maxHeaderValue, f)
	}
}

func controlOr(s, code string) string {
	if strings.IndexFunc(s, breaksLine) >= 0 {
		return "control_character"
	}
	return code
}

// fieldName reports whether s is a field name (RFC 5322 §2.2).
func fieldName(s string) bool {
	if s == "" || len(s) > maxHeaderName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return true
}

func headerAllowed(name string) bool {
	if len(name) > 2 && strings.EqualFold(name[:2], "X-") {
		return len(name) < 9 || !strings.EqualFold(name[:9], "X-Msgctl-")
	}
	for _, ok := range senderHeaders {
		if strings.EqualFold(ok, name) {
			return true
		}
	}
	return false
}

// breaksLine reports a character that may end a line for somebody: the control characters, and the line and paragraph
// separators of Unicode. Tab is among them: in a subject it has no meaning.
func breaksLine(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}

// line checks a value that must stay on one line.
func line(pointer, s string, max int, f *faults) {
	if len(s) > max {
		f.add(pointer, "text_too_long", "this has %d bytes; %d is the most", len(s), max)
		return
	}
	if i := strings.IndexFunc(s, breaksLine); i >= 0 {
		f.add(pointer, "control_character", "there is a line break or control character at byte %d", i)
	}
}

// block checks a text of several lines.
func block(pointer, s string, max int, f *faults) {
	if len(s) > max {
		f.add(pointer, "text_too_long", "this has %d bytes; %d is the most", len(s), max)
		return
	}
	i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' })
	if i >= 0 {
		f.add(pointer, "control_character", "there is a control character at byte %d", i)
	}
}
