package smpp

// Version34 is the interface_version of this protocol (§5.2.4).
const Version34 = 0x34

// Bind is the body of bind_transceiver, bind_transmitter and bind_receiver (§4.1).
type Bind struct {
	SystemID     string // at most 15 octets
	Password     string // 8 octets by the specification; up to 64 here, because centres hand out longer ones
	SystemType   string // at most 12 octets
	Version      byte   // 0 is written as Version34
	TON, NPI     byte
	AddressRange string // at most 40 octets
}

// Check returns a *FieldError for the first field that cannot be written.
func (b *Bind) Check() error {
	for _, f := range [...]struct {
		name, s string
		limit   int
	}{
		{"system_id", b.SystemID, 15}, {"password", b.Password, 64}, {"system_type", b.SystemType, 12},
		{"address_range", b.AddressRange, 40},
	} {
		if err := checkCString(f.name, f.s, f.limit); err != nil {
			return err
		}
	}
	return nil
}

// Append adds the PDU of the given bind command. The fields must have passed Check.
func (b *Bind) Append(dst []byte, command Command, sequence uint32) []byte {
	start := len(dst)
	dst = Header{Command: command, Sequence: sequence}.open(dst)
	dst = appendCString(dst, b.SystemID)
	dst = appendCString(dst, b.Password)
	dst = appendCString(dst, b.SystemType)
	version := b.Version
	if version == 0 {
		version = Version34
	}
	dst = append(dst, version, b.TON, b.NPI)
	dst = appendCString(dst, b.AddressRange)
	return finish(dst, start)
}

// ParseBind reads the body of a bind. The error is a *FieldError.
func ParseBind(body []byte) (Bind, error) {
	f := newFields(body)
	b := Bind{
		SystemID: f.cstring("system_id"), Password: f.cstring("password"), SystemType: f.cstring("system_type"),
		Version: f.octet("interface_version"), TON: f.octet("addr_ton"), NPI: f.octet("addr_npi"),
		AddressRange: f.cstring("address_range"),
	}
	if f.err != nil {
		return Bind{}, f.err
	}
	return b, nil
}

// AppendID adds a PDU whose body is one C-Octet string: the answer to a bind (system_id, §4.1.2) and to submit_sm and
// deliver_sm (message_id, §4.4.2 and §4.6.2). With a status other than ROK it has no body (§4.4.2, note 1).
func AppendID(dst []byte, h Header, id string) []byte {
	if h.Status != ROK {
		return h.Append(dst)
	}
	start := len(dst)
	return finish(appendCString(h.open(dst), id), start)
}

// MaxID is how many octets of an id are kept. The specification allows 64 (§5.2.23); some centres write more.
const MaxID = 255

// ParseID reads what AppendID writes, at most MaxID octets. A missing body reads as "", a missing NUL is forgiven, and
// optional parameters after the string are passed over.
func ParseID(body []byte) string {
	body = body[:min(len(body), MaxID)]
	for i, c := range body {
		if c == 0 {
			return string(body[:i])
		}
	}
	return string(body)
}
