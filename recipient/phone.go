package recipient

import (
	"strings"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers"
)

// Bounds of an international number: ITU-T E.164 §6.2.1 allows 15 digits; below 7 no calling code has a subscriber.
const (
	minPhoneDigits = 7
	maxPhoneDigits = 15
	maxPhoneInput  = 64 // bytes, as typed
)

func badPhone(rule string) (string, error) { return "", &Invalid{CodePhone, rule} }

// Phone normalises a phone number to E.164, as in +12025550100. Spaces, dashes, dots and parentheses between the digits
// are dropped. A number without a + is read as a national number of region and refused when region is empty.
//
// The check is that of a possible number: the calling code exists and the length fits it. It does not say that anybody
// answers there.
func Phone(raw, region string) (string, error) {
	if isE164(raw) && possible(raw[1:]) == "" {
		return raw, nil
	}
	if len(raw) > maxPhoneInput {
		return badPhone("a phone number has at most 15 digits")
	}
	if strings.Contains(raw, "(0)") {
		return badPhone("leave out the (0): after the country code no trunk prefix is dialled")
	}
	digits, plus, rule := strip(raw)
	switch {
	case rule != "":
		return badPhone(rule)
	case strings.HasPrefix(digits, "00"):
		return badPhone("start with + and the country code, not with 00")
	case plus:
		if rule := possible(digits); rule != "" {
			return badPhone(rule)
		}
		return "+" + digits, nil
	case region == "":
		return badPhone("start with + and the country code, as in +12025550100")
	}
	return national(digits, region)
}

func isE164(s string) bool {
	if len(s) < 1+minPhoneDigits || len(s) > 1+maxPhoneDigits || s[0] != '+' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// possible checks the digits after the +: a known calling code, and a length that its national numbers have. It returns
// the broken rule.
func possible(digits string) string {
	switch {
	case len(digits) < minPhoneDigits:
		return "too short: a phone number has a country code and at least 7 digits in all"
	case len(digits) > maxPhoneDigits:
		return "too long: a phone number has at most 15 digits"
	case digits[0] == '0':
		return "no country code begins with 0"
	}
	code := 0
	for n := 1; n <= 3; n++ { // no calling code is the beginning of another one
		code = code*10 + int(digits[n-1]-'0')
		lengths := callingCodes[code]
		if lengths == 0 {
			continue
		}
		if digits[n] == '0' && lengths&zeroLeads == 0 {
			return "leave out the 0 after the country code"
		}
		if lengths>>(len(digits)-n)&1 == 0 {
			return "the number of digits does not fit the country code"
		}
		return ""
	}
	return "the country code does not exist"
}

// strip drops what people put between digits, and refuses everything else. Digits of other scripts are refused and not
// read: a mixed number is more often an attack or a slip than a wish.
func strip(raw string) (digits string, plus bool, rule string) {
	var buf [maxPhoneInput]byte
	n := 0
	for _, r := range raw {
		switch {
		case r >= '0' && r <= '9':
			buf[n] = byte(r)
			n++
		case r == '+' && n == 0 && !plus:
			plus = true
		case strings.ContainsRune(" \t-.()\u00a0\u202f\u2010\u2011\u2012\u2013", r):
		case r == utf8.RuneError:
			return "", false, "the number is not valid UTF-8"
		case r > '9' && r < utf8.RuneSelf && r|0x20 >= 'a' && r|0x20 <= 'z':
			return "", false, "use digits only: letters and extensions cannot be dialled"
		default:
			return "", false, "use only +, the digits 0-9, spaces, dashes, dots and parentheses"
		}
	}
	if n == 0 {
		return "", false, "start with + and the country code, as in +12025550100"
	}
	return string(buf[:n]), plus, ""
}

// national reads digits as they are dialled inside region.
func national(digits, region string) (string, error) {
	region = strings.ToUpper(region)
	if len(region) != 2 || phonenumbers.GetCountryCodeForRegion(region) == 0 {
		return "", &Invalid{CodeRegion, "use a two-letter country code such as IN"}
	}
	if len(digits) > maxPhoneDigits+5 { // an international prefix such as 00119 comes on top
		return badPhone("too long: a phone number has at most 15 digits")
	}
	num, err := phonenumbers.Parse(digits, region)
	if err != nil {
		return badPhone("this is no phone number of the given country: start with + and the country code")
	}
	if phonenumbers.IsPossibleNumberWithReason(num) != phonenumbers.IS_POSSIBLE {
		return badPhone("the number of digits does not fit the country")
	}
	e164 := phonenumbers.Format(num, phonenumbers.E164)
	if !isE164(e164) {
		return badPhone("this is no phone number of the given country: start with + and the country code")
	}
	if rule := possible(e164[1:]); rule != "" {
		return badPhone(rule)
	}
	return e164, nil
}
