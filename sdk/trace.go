package sdk

import (
	"encoding/hex"
	"strings"
)

// TraceID is the id of the message's OpenTelemetry trace, 32 hexadecimal digits: the message's own id, written another
// way. There is such a trace when the engine writes traces and this message is among those traced. "" = the message has
// no id.
func (m *Message) TraceID() string {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32
	text, ok := strings.CutPrefix(m.ID, "msg_")
	if !ok || len(text) != 26 {
		return ""
	}
	var hi, lo uint64
	for i := range len(text) {
		d := strings.IndexByte(digits, text[i])
		if d < 0 || i == 0 && d > 7 { // 128 bits: the first digit has three of them
			return ""
		}
		hi, lo = hi<<5|lo>>59, lo<<5|uint64(d)
	}
	var id [16]byte
	for i := range 8 {
		id[i], id[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	return hex.EncodeToString(id[:])
}
