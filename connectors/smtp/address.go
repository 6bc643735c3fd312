package smtp

import (
	"errors"
	"net/mail"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// mailbox is an address, taken apart and checked, so that it is written anew and never copied into a command.
type mailbox struct {
	name   string
	local  string // as it goes on the wire: a dot-atom, or quoted
	domain string // ASCII
}

func (m mailbox) addr() string { return m.local + "@" + m.domain }

// header is the mailbox as a header field's value.
func (m mailbox) header() string {
	if m.name == "" {
		return m.addr()
	}
	return phrase(m.name) + " <" + m.addr() + ">"
}

// needsUTF8 reports whether the address works only where SMTPUTF8 does (RFC 6531 §3.2).
func (m mailbox) needsUTF8() bool { return !isASCII(m.local) }

var (
	errLocal   = errors.New("the part before the @ is not valid")
	errDomain  = errors.New("the domain is not valid")
	errNoAt    = errors.New("there is no @")
	errTooLong = errors.New("the address is longer than 254 bytes")
)

// parseAddress reads an addr-spec without a display name. Limits: RFC 5321 §4.5.3.1.1–3.
func parseAddress(s string) (mailbox, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return mailbox{}, errNoAt
	}
	local, domain := s[:at], s[at+1:]
	if len(local) == 0 || len(local) > 64 || !utf8.ValidString(local) {
		return mailbox{}, errLocal
	}
	if !isDotAtom(local) {
		var ok bool
		if local, ok = requote(local); !ok {
			return mailbox{}, errLocal
		}
	}
	domain, err := asciiDomain(domain)
	if err != nil {
		return mailbox{}, err
	}
	if len(local)+1+len(domain) > 254 {
		return mailbox{}, errTooLong
	}
	return mailbox{local: local, domain: domain}, nil
}

// parseMailbox reads a sender: an address, with or without a display name.
func parseMailbox(s string) (mailbox, error) {
	if hasControl(s) || len(s) > 998 {
		return mailbox{}, errors.New("it holds a control character or is too long")
	}
	if m, err := parseAddress(s); err == nil {
		return m, nil
	}
	a, err := mail.ParseAddress(s)
	if err != nil {
		return mailbox{}, errors.New("it cannot be read")
	}
	m, err := parseAddress(a.Address)
	if hasControl(a.Name) || len(a.Name) > maxName { // an encoded word may hide a control character
		return mailbox{}, errors.New("the name holds a control character or is longer than 256 bytes")
	}
	m.name = a.Name
	return m, err
}

// isAtext reports whether c may stand in an atom (RFC 5322 §3.2.3; RFC 6532 §3.2 adds everything beyond ASCII).
func isAtext(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 ||
		strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func isDotAtom(s string) bool {
	dot := true // a dot may not stand here
	for i := range len(s) {
		switch {
		case s[i] == '.' && !dot:
			dot = true
		case isAtext(s[i]):
			dot = false
		default:
			return false
		}
	}
	return !dot && !hasControl(s)
}

// requote reads a quoted local part and writes it in its one canonical form. Spaces and angle brackets are refused:
// what follows them has been read as ESMTP parameters by real servers (CVE-2025-59937), and no real mailbox needs them.
func requote(s string) (string, bool) {
	if len(s) < 3 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	var text, quoted strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '"' {
			return "", false
		}
		if c == '\\' {
			if i++; i == len(s) {
				return "", false
			}
			c = s[i]
		}
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' {
			return "", false
		}
		if c == '"' || c == '\\' {
			quoted.WriteByte('\\')
		}
		text.WriteByte(c)
		quoted.WriteByte(c)
	}
	if isDotAtom(text.String()) {
		return text.String(), true
	}
	return `"` + quoted.String() + `"`, true
}

// asciiDomain returns a domain name in ASCII: lower case, international labels as xn-- (RFC 5891). Address literals are
// not mail domains here.
func asciiDomain(s string) (string, error) {
	if !isASCII(s) {
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", errDomain
		}
		s = a
	}
	if len(s) == 0 || len(s) > 253 {
		return "", errDomain
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if n := i - start; n == 0 || n > 63 || s[start] == '-' || s[i-1] == '-' {
				return "", errDomain
			}
			start = i + 1
			continue
		}
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return "", errDomain
		}
	}
	return strings.ToLower(s), nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
