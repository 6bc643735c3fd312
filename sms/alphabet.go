// Package sms divides a text into the segments that a phone network carries and bills.
//
// The alphabet is the GSM 7 bit default alphabet with its extension table (3GPP TS 23.038 §6.2.1 and §6.2.1.1); a text
// with any other character travels as UCS-2, here UTF-16 big endian as phones understand it. Count, Split and Encode
// share one table, so that a dry run, a bill and the wire never disagree.
package sms

// Encoding is how a text travels.
type Encoding uint8

// The encodings.
const (
	GSM7 Encoding = 1 // 7 bit default alphabet, unpacked here: one septet per octet
	UCS2 Encoding = 2 // UTF-16 big endian
)

func (e Encoding) String() string {
	switch e {
	case GSM7:
		return "gsm7"
	case UCS2:
		return "ucs2"
	}
	return "unknown"
}

// Limits returns how many units fit into a message that stands alone, and into each part of a longer one. The
// difference is the 6 octets of the concatenation header (3GPP TS 23.040 §9.2.3.24.1): 140 octets carry 160 septets or
// 70 UTF-16 units, 134 octets carry 153 or 67.
func (e Encoding) Limits() (alone, part int) {
	if e == UCS2 {
		return 70, 67
	}
	return 160, 153
}

// MaxSegments is how many parts a concatenated message may have: the total is one octet.
const MaxSegments = 255

const escape = 0x1B

// defaultAlphabet is the table of 3GPP TS 23.038 §6.2.1 by code. The escape at 0x1B holds its place with a space.
var defaultAlphabet = [128]rune([]rune("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ" +
	"§¿abcdefghijklmnopqrstuvwxyzäöñüà"))

// septets returns the code of r, and how many septets it takes: 1 in the default alphabet, 2 with an escape before the
// code, 0 when r is not in the alphabet.
func septets(r rune) (code byte, cost int) {
	if r < 128 {
		a := ascii[r&127]
		return a.code, int(a.cost)
	}
	if r == '€' {
		return 0x65, 2
	}
	c := wide(r)
	if c == 0 {
		return 0, 0
	}
	return c, 1
}

// asciiCode is an ASCII character's code and cost in septets.
type asciiCode struct{ code, cost byte }

var ascii = asciiTable()

func asciiTable() (t [128]asciiCode) {
	for code, r := range defaultAlphabet {
		if r < 128 && code != escape {
			t[r] = asciiCode{byte(code), 1}
		}
	}
	for _, code := range []byte{0x0A, 0x14, 0x28, 0x29, 0x2F, 0x3C, 0x3D, 0x3E, 0x40} {
		t[extended(code)] = asciiCode{code, 2}
	}
	return t
}

// extended returns the character of an extension code (§6.2.1.1), or 0.
func extended(code byte) rune {
	switch code {
	case 0x0A:
		return '\f'
	case 0x14:
		return '^'
	case 0x28:
		return '{'
	case 0x29:
		return '}'
	case 0x2F:
		return '\\'
	case 0x3C:
		return '['
	case 0x3D:
		return '~'
	case 0x3E:
		return ']'
	case 0x40:
		return '|'
	case 0x65:
		return '€'
	}
	return 0
}

// wide returns the code of a character of the default alphabet beyond ASCII, or 0. The code 0 itself is @.
func wide(r rune) byte {
	switch r {
	case '£':
		return 0x01
	case '¥':
		return 0x03
	case 'è':
		return 0x04
	case 'é':
		return 0x05
	case 'ù':
		return 0x06
	case 'ì':
		return 0x07
	case 'ò':
		return 0x08
	case 'Ç':
		return 0x09
	case 'Ø':
		return 0x0B
	case 'ø':
		return 0x0C
	case 'Å':
		return 0x0E
	case 'å':
		return 0x0F
	case 'Δ':
		return 0x10
	case 'Φ':
		return 0x12
	case 'Γ':
		return 0x13
	case 'Λ':
		return 0x14
	case 'Ω':
		return 0x15
	case 'Π':
		return 0x16
	case 'Ψ':
		return 0x17
	case 'Σ':
		return 0x18
	case 'Θ':
		return 0x19
	case 'Ξ':
		return 0x1A
	case 'Æ':
		return 0x1C
	case 'æ':
		return 0x1D
	case 'ß':
		return 0x1E
	case 'É':
		return 0x1F
	case '¤':
		return 0x24
	case '¡':
		return 0x40
	case 'Ä':
		return 0x5B
	case 'Ö':
		return 0x5C
	case 'Ñ':
		return 0x5D
	case 'Ü':
		return 0x5E
	case '§':
		return 0x5F
	case '¿':
		return 0x60
	case 'ä':
		return 0x7B
	case 'ö':
		return 0x7C
	case 'ñ':
		return 0x7D
	case 'ü':
		return 0x7E
	case 'à':
		return 0x7F
	}
	return 0
}

// units returns how many UTF-16 units r takes.
func units(r rune) int {
	if r >= 0x10000 {
		return 2
	}
	return 1
}
