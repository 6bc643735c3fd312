package smpp

import "encoding/binary"

// Tag names an optional parameter (§5.3.2).
type Tag uint16

// The optional parameters that this package's users read or write.
const (
	TagReceiptedMessageID Tag = 0x001E
	TagSARMsgRefNum       Tag = 0x020C
	TagSARTotalSegments   Tag = 0x020E
	TagSARSegmentSeqnum   Tag = 0x020F
	TagSCInterfaceVersion Tag = 0x0210
	TagNetworkErrorCode   Tag = 0x0423
	TagMessagePayload     Tag = 0x0424
	TagMessageState       Tag = 0x0427
)

// TLVs is the optional part of a body as it stands on the wire: tag, length and value one after the other (§3.2.4).
type TLVs []byte

// check returns a *FieldError when a parameter reaches past the end.
func (t TLVs) check() error {
	for len(t) > 0 {
		if len(t) < 4 || len(t)-4 < int(binary.BigEndian.Uint16(t[2:])) {
			return &FieldError{Field: "optional parameter", Err: ErrTLV}
		}
		t = t[4+int(binary.BigEndian.Uint16(t[2:])):]
	}
	return nil
}

// Get returns the value of the first parameter with the tag; it shares the PDU's memory.
func (t TLVs) Get(tag Tag) ([]byte, bool) {
	for len(t) >= 4 {
		n := int(binary.BigEndian.Uint16(t[2:]))
		if len(t)-4 < n {
			return nil, false
		}
		if Tag(binary.BigEndian.Uint16(t)) == tag {
			return t[4 : 4+n : 4+n], true
		}
		t = t[4+n:]
	}
	return nil, false
}

// Octet returns the value of a parameter of one octet.
func (t TLVs) Octet(tag Tag) (byte, bool) {
	v, ok := t.Get(tag)
	if !ok || len(v) != 1 {
		return 0, false
	}
	return v[0], true
}

// Text returns the value of a C-Octet string parameter, without its NUL. A value without NUL counts: some centres send
// it so.
func (t TLVs) Text(tag Tag) (string, bool) {
	v, ok := t.Get(tag)
	if !ok {
		return "", false
	}
	for i, c := range v {
		if c == 0 {
			return string(v[:i]), true
		}
	}
	return string(v), true
}

// Append adds a parameter. A value is at most 65,535 octets; what is beyond is a mistake of the caller and panics.
func (t TLVs) Append(tag Tag, value []byte) TLVs {
	if len(value) > 0xFFFF {
		panic("smpp: value of an optional parameter is longer than 65,535 octets")
	}
	t = binary.BigEndian.AppendUint16(t, uint16(tag))
	t = binary.BigEndian.AppendUint16(t, uint16(len(value)))
	return append(t, value...)
}
