package sms

import (
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrNotGSM7 is returned for a text that the GSM alphabet cannot write.
var ErrNotGSM7 = errors.New("text has a character outside the GSM 7 bit alphabet")

// ErrEncoding is returned for an encoding that is neither GSM7 nor UCS2.
var ErrEncoding = errors.New("unknown SMS encoding")

// Encode returns text as octets: one septet per octet for GSM7 (as SMPP carries data_coding 0), UTF-16 big endian for
// UCS2 (data_coding 8). The error is ErrNotGSM7 or ErrEncoding.
func Encode(text string, enc Encoding) ([]byte, error) { return Append(nil, text, enc) }

// Append is Encode behind what dst holds. On an error it returns dst unchanged.
func Append(dst []byte, text string, enc Encoding) ([]byte, error) {
	out := dst
	switch enc {
	case GSM7:
		for _, r := range text {
			code, cost := septets(r)
			switch cost {
			case 0:
				return dst, ErrNotGSM7
			case 2:
				out = append(out, escape)
			}
			out = append(out, code)
		}
	case UCS2:
		for _, r := range text {
			if r >= 0x10000 {
				hi, lo := utf16.EncodeRune(r)
				out = append(out, byte(hi>>8), byte(hi), byte(lo>>8), byte(lo))
				continue
			}
			out = append(out, byte(r>>8), byte(r))
		}
	default:
		return dst, ErrEncoding
	}
	return out, nil
}

// Decode reads what Encode wrote. What cannot be read (an octet above 127 or a lone escape in GSM7, an odd octet or
// half a surrogate pair in UCS2) becomes U+FFFD: a text from a phone is shown as far as it can be. An encoding that
// is neither gives "".
func Decode(b []byte, enc Encoding) string {
	switch enc {
	case GSM7:
		return decodeGSM7(b)
	case UCS2:
		return decodeUCS2(b)
	}
	return ""
}

func decodeGSM7(b []byte) string {
	out := make([]byte, 0, len(b)+8)
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c > 127:
			out = utf8.AppendRune(out, utf8.RuneError)
		case c != escape:
			out = utf8.AppendRune(out, defaultAlphabet[c])
		case i+1 == len(b):
			out = utf8.AppendRune(out, utf8.RuneError)
		default:
			// A code that the extension table does not have shows the default alphabet's character, and a second escape,
			// kept for another table, shows a space (§6.2.1.1). The table holds a space there.
			i++
			switch r := extended(b[i]); {
			case r != 0:
				out = utf8.AppendRune(out, r)
			case b[i] > 127:
				out = utf8.AppendRune(out, utf8.RuneError)
			default:
				out = utf8.AppendRune(out, defaultAlphabet[b[i]])
			}
		}
	}
	return string(out)
}

func decodeUCS2(b []byte) string {
	out := make([]byte, 0, len(b)+len(b)/2)
	for len(b) >= 2 {
		r := rune(b[0])<<8 | rune(b[1])
		b = b[2:]
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if len(b) >= 2 {
				pair = utf16.DecodeRune(r, rune(b[0])<<8|rune(b[1]))
			}
			if pair != utf8.RuneError {
				b = b[2:]
			}
			r = pair
		}
		out = utf8.AppendRune(out, r)
	}
	if len(b) == 1 {
		out = utf8.AppendRune(out, utf8.RuneError)
	}
	return string(out)
}
