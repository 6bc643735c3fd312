package smtp

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"github.com/msgctl/msgctl/delivery"
)

const (
	maxFieldName  = 76      // bytes
	maxFieldValue = 4 << 10 // bytes, before encoding
	maxFields     = 50      // that a sender adds
	maxName       = 256     // bytes of a display name
	maxListURL    = 900     // bytes: a line holds 998, and a URL cannot be folded
	foldAt        = 78      // RFC 5322 §2.1.1
)

// checkHeaders refuses fields that the message already has or that a relay trusts, and values that would break out of
// their line. The API checks the same; this is the last place before the wire.
func checkHeaders(headers []delivery.Header) error {
	if len(headers) > maxFields {
		return reject("header_too_long", "there are more than 50 headers")
	}
	for _, h := range headers {
		if h.Name == "" || len(h.Name) > maxFieldName {
			return reject("header_not_allowed", "a header's name must have 1 to 76 characters")
		}
		for i := range len(h.Name) {
			if c := h.Name[i]; c <= ' ' || c >= 0x7f || c == ':' { // RFC 5322 §2.2
				return reject("header_not_allowed", "a header's name holds a character that is not allowed")
			}
		}
		if isReserved(h.Name) {
			return reject("header_not_allowed", "header "+h.Name+" is not a sender's to set")
		}
		if hasControl(h.Value) {
			return reject("control_character", "header "+h.Name+" holds a control character")
		}
		if len(h.Value) > maxFieldValue {
			return reject("header_too_long", "header "+h.Name+" is longer than 4 KiB")
		}
	}
	return nil
}

// isReserved reports whether a field is written by us, by relays, or names recipients.
func isReserved(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version", "received",
		"return-path", "dkim-signature", "domainkey-signature", "authentication-results", "received-spf",
		"list-unsubscribe", "list-unsubscribe-post":
		return true
	}
	for _, prefix := range []string{"content-", "resent-", "arc-", "x-msgctl-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// hasControl reports whether s holds anything that could end a line or hide in one: C0 and C1 controls, the line and
// paragraph separators, or bytes that are not UTF-8.
func hasControl(s string) bool {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return true
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r < 0xa0 || r == 0x2028 || r == 0x2029 || r == utf8.RuneError && n == 1 {
			return true
		}
		i += n
	}
	return false
}

// isListURL reports whether u can stand between angle brackets in a header as it is.
func isListURL(u string) bool {
	if u == "" || len(u) > maxListURL {
		return false
	}
	for i := range len(u) {
		if c := u[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`<>"\,`, c) >= 0 {
			return false
		}
	}
	scheme, rest, ok := strings.Cut(u, ":")
	return ok && rest != "" && (scheme == "https" || scheme == "http" || scheme == "mailto")
}

// appendRaw writes a field whose value is encoded already.
func appendRaw(dst []byte, name, value string) []byte {
	dst = append(append(dst, name...), ": "...)
	return append(append(dst, value...), "\r\n"...)
}

// appendText writes a field of free text, folded, and encoded where it is not plain ASCII (RFC 2047).
func appendText(dst []byte, name, value string) []byte {
	value = strings.Trim(value, " ")
	dst = append(append(dst, name...), ':')
	col := len(name) + 1
	// Readers disagree on how many spaces a fold within several of them leaves.
	if needsEncoding(value) || col+len(value) >= foldAt && strings.Contains(value, "  ") {
		dst = appendWords(append(dst, ' '), col+1, value)
	} else {
		dst = appendFolded(dst, col, value)
	}
	return append(dst, "\r\n"...)
}

// needsEncoding reports whether text cannot stand in a header as it is: not ASCII, something that readers would decode,
// or a word too long for a line.
func needsEncoding(s string) bool {
	word := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf, c == '=' && i+1 < len(s) && s[i+1] == '?':
			return true
		case c == ' ':
			word = 0
		default:
			if word++; word > maxListURL {
				return true
			}
		}
	}
	return false
}

// appendFolded writes " value", breaking in front of spaces so that lines stay within 78 characters where they can.
func appendFolded(dst []byte, col int, value string) []byte {
	value = " " + value
	for first := true; value != ""; first = false {
		end := 0
		for end < len(value) && value[end] == ' ' {
			end++
		}
		for end < len(value) && value[end] != ' ' {
			end++
		}
		if !first && col+end > foldAt {
			dst = append(dst, "\r\n"...)
			col = 0
		}
		dst = append(dst, value[:end]...)
		col += end
		value = value[end:]
	}
	return dst
}

// appendWords writes s as encoded words of base64, each of whole characters and at most 75 bytes, on lines of at most
// 76 (RFC 2047 §2). Base64 has no special cases between a subject and a display name.
func appendWords(dst []byte, col int, s string) []byte {
	const open, shut = "=?utf-8?b?", "?="
	for first := true; s != ""; first = false {
		if !first {
			dst = append(dst, "\r\n "...)
			col = 1
		}
		room := (min(76-col, 75) - len(open) - len(shut)) / 4 * 3
		if room < utf8.UTFMax {
			dst = append(dst, "\r\n "...)
			room = 45
		}
		n := min(room, len(s))
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		dst = append(dst, open...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(s[:n]))
		dst = append(dst, shut...)
		s = s[n:]
	}
	return dst
}

// phrase writes a display name: words as they are, a quoted string, or encoded words (RFC 5322 §3.2.5).
func phrase(name string) string {
	if needsEncoding(name) {
		return string(appendWords(nil, len("Reply-To: "), name))
	}
	plain := true
	for i := range len(name) {
		plain = plain && (isAtext(name[i]) || name[i] == ' ')
	}
	if plain {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
