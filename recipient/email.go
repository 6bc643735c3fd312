package recipient

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of a mailbox. RFC 5321 §4.5.3.1.1 gives the local part 64 octets. A path is 256 with its angle brackets
// (§4.5.3.1.3), which leaves 254 for the mailbox. Labels and names are those of RFC 1035 §2.3.4.
const (
	maxLocal   = 64
	maxDomain  = 253
	maxMailbox = 254
	maxLabel   = 63
)

func badEmail(rule string) (string, error) { return "", &Invalid{CodeEmail, rule} }

// Email normalises a mailbox, as in asha@example.com. It takes the Mailbox of RFC 5321 §4.1.2 with a dot-string as its
// local part: quoted local parts and address literals are refused, because they are how parameters are smuggled into
// SMTP and no person has one. Spaces around the mailbox are dropped, the domain is lower-cased and written in A-labels
// (RFC 5890), the local part is kept as it is.
func Email(raw string) (string, error) {
	s := strings.Trim(raw, " \t")
	if len(s) > 4*maxMailbox { // a domain may shrink on its way to A-labels, but not so much
		return badEmail("too long: an address has at most 254 characters")
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return badEmail("an address looks like name@example.com")
	}
	local, domain := s[:at], s[at+1:]
	if rule := checkLocal(local); rule != "" {
		return badEmail(rule)
	}
	host, rule := hostname(domain)
	if rule != "" {
		return badEmail(rule)
	}
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	switch {
	case len(labels) < 2:
		return badEmail("the part after @ needs a dot, as in example.com")
	case allDigits(last) || len(last) < 2:
		return badEmail("the part after @ must end in a domain such as .com: addresses in numbers are not taken")
	case len(local)+1+len(host) > maxMailbox:
		return badEmail("too long: an address has at most 254 characters")
	}
	if local+"@"+host == raw {
		return raw, nil
	}
	return local + "@" + host, nil
}

// checkLocal accepts a Dot-string (RFC 5321 §4.1.2): atoms with single dots between them.
func checkLocal(local string) string {
	switch {
	case local == "":
		return "the part before @ is missing"
	case len(local) > maxLocal:
		return "too long: the part before @ has at most 64 characters"
	case local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, ".."):
		return "a dot stands between two other characters"
	}
	for i := range len(local) {
		switch c := local[i]; {
		case isAlnum(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) >= 0:
		case c < 0x20 || c == 0x7f:
			return "control characters are not allowed"
		case c == '"':
			return "quoted names before @ are not taken"
		case c == '@':
			return "an address has one @"
		case c == '<' || c == '>' || c == ' ' || c == ',' || c == ';':
			return "give one bare address, without a name or angle brackets"
		case c >= 0x80:
			return "the part before @ must be ASCII"
		default:
			return "the part before @ has a character that is not allowed"
		}
	}
	return ""
}

// hostname normalises a domain name to lower-case A-labels and checks it against RFC 1123 §2.1: labels of letters,
// digits and inner hyphens. It returns the broken rule.
func hostname(domain string) (host, rule string) {
	switch {
	case domain == "":
		return "", "the domain is missing"
	case domain[0] == '[':
		return "", "address literals are not taken: use a domain name"
	}
	for i := range len(domain) {
		if c := domain[i]; c < 0x20 || c == 0x7f {
			return "", "control characters are not allowed"
		}
	}
	host = asciiLower(domain)
	if !isASCII(domain) || strings.Contains(host, "xn--") {
		ascii, err := idna.Lookup.ToASCII(host)
		if err == nil && utf8.ValidString(domain) {
			host, err = idna.Lookup.ToASCII(ascii) // a few names that it writes it does not read
		}
		if err != nil || host != ascii {
			return "", "the domain is not a valid internationalised name"
		}
	}
	if len(host) > maxDomain {
		return "", "too long: a domain has at most 253 characters"
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" {
			return "", "the domain has an empty label: check its dots"
		}
		if len(label) > maxLabel {
			return "", "too long: each part of a domain has at most 63 characters"
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", "a part of a domain begins and ends with a letter or a digit"
		}
		for i := range len(label) {
			if c := label[i]; !isAlnum(c) && c != '-' {
				return "", "a domain has only letters, digits, hyphens and dots"
			}
		}
	}
	return host, ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// asciiLower leaves the other scripts to IDNA, whose mapping is not that of strings.ToLower.
func asciiLower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j, c := range b {
				if c >= 'A' && c <= 'Z' {
					b[j] = c | 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
