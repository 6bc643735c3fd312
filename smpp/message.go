package smpp

// Bits of esm_class (§5.2.12).
const (
	ESMTypeMask     = 0x3C // bits 5–2 of a deliver_sm: what it is
	ESMReceipt      = 0x04 // a delivery receipt
	ESMIntermediate = 0x20 // an intermediate delivery notification
	ESMUDHI         = 0x40 // short_message starts with a user data header
)

// Values of data_coding (§5.2.19).
const (
	CodingDefault = 0x00 // the centre's default alphabet: GSM 03.38, one septet per octet
	CodingASCII   = 0x01
	CodingLatin1  = 0x03
	CodingBinary  = 0x04
	CodingUCS2    = 0x08
)

// Values of type of number and numbering plan (§5.2.5, §5.2.6).
const (
	TONUnknown       = 0
	TONInternational = 1
	TONNetwork       = 3 // short codes
	TONAlphanumeric  = 5
	NPIUnknown       = 0
	NPIISDN          = 1 // E.164
)

// Address is a source or destination with its type of number and numbering plan.
type Address struct {
	TON, NPI byte
	Addr     string // at most 20 octets
}

// MaxShort is how many octets short_message holds (§4.4.1); longer ones travel in message_payload.
const MaxShort = 254

// Message is the body of submit_sm (§4.4.1) and of deliver_sm (§4.6.1), which share one layout.
type Message struct {
	ServiceType          string // at most 5 octets
	Source, Dest         Address
	ESMClass             byte
	ProtocolID           byte
	Priority             byte
	ScheduleDeliveryTime string // "" or 16 octets, §7.1.1
	ValidityPeriod       string // "" or 16 octets, §7.1.1
	RegisteredDelivery   byte   // 1 asks for a receipt of the outcome, §5.2.17
	ReplaceIfPresent     byte
	DataCoding           byte
	DefaultMsgID         byte
	Short                []byte // at most MaxShort octets; of a parsed message it shares the body's memory
	Optional             TLVs   // of a parsed message it shares the body's memory
}

// Check returns a *FieldError for the first field that cannot be written.
func (m *Message) Check() error {
	for _, f := range [...]struct {
		name, s string
		limit   int
	}{
		{"service_type", m.ServiceType, 5}, {"source_addr", m.Source.Addr, 20}, {"destination_addr", m.Dest.Addr, 20},
		{"schedule_delivery_time", m.ScheduleDeliveryTime, 16}, {"validity_period", m.ValidityPeriod, 16},
	} {
		if err := checkCString(f.name, f.s, f.limit); err != nil {
			return err
		}
	}
	if len(m.Short) > MaxShort {
		return &FieldError{Field: "short_message", Err: ErrTooLong}
	}
	if len(m.Optional) > MaxLen-1024 {
		return &FieldError{Field: "optional parameter", Err: ErrTooLong}
	}
	return m.Optional.check()
}

// Append adds the PDU of the given command. The fields must have passed Check.
func (m *Message) Append(dst []byte, command Command, sequence uint32) []byte {
	start := len(dst)
	dst = Header{Command: command, Sequence: sequence}.open(dst)
	dst = appendCString(dst, m.ServiceType)
	dst = appendCString(append(dst, m.Source.TON, m.Source.NPI), m.Source.Addr)
	dst = appendCString(append(dst, m.Dest.TON, m.Dest.NPI), m.Dest.Addr)
	dst = append(dst, m.ESMClass, m.ProtocolID, m.Priority)
	dst = appendCString(dst, m.ScheduleDeliveryTime)
	dst = appendCString(dst, m.ValidityPeriod)
	dst = append(dst, m.RegisteredDelivery, m.ReplaceIfPresent, m.DataCoding, m.DefaultMsgID, byte(len(m.Short)))
	dst = append(dst, m.Short...)
	dst = append(dst, m.Optional...)
	return finish(dst, start)
}

// ParseMessage reads the body of submit_sm or deliver_sm. Strings longer than the specification allows are let through:
// the caller decides. The error is a *FieldError.
func ParseMessage(body []byte) (Message, error) {
	f := newFields(body)
	m := Message{
		ServiceType:          f.cstring("service_type"),
		Source:               f.address("source_addr"),
		Dest:                 f.address("destination_addr"),
		ESMClass:             f.octet("esm_class"),
		ProtocolID:           f.octet("protocol_id"),
		Priority:             f.octet("priority_flag"),
		ScheduleDeliveryTime: f.cstring("schedule_delivery_time"),
		ValidityPeriod:       f.cstring("validity_period"),
		RegisteredDelivery:   f.octet("registered_delivery"),
		ReplaceIfPresent:     f.octet("replace_if_present_flag"),
		DataCoding:           f.octet("data_coding"),
		DefaultMsgID:         f.octet("sm_default_msg_id"),
	}
	m.Short = f.octets("short_message", int(f.octet("sm_length")))
	m.Optional = f.tlvs()
	if f.err != nil {
		return Message{}, f.err
	}
	return m, nil
}

func (f *fields) address(name string) Address {
	return Address{TON: f.octet(name), NPI: f.octet(name), Addr: f.cstring(name)}
}

// Payload returns the message's octets: message_payload where there is no short_message (§5.3.2.32).
func (m *Message) Payload() []byte {
	if len(m.Short) == 0 {
		if p, ok := m.Optional.Get(TagMessagePayload); ok {
			return p
		}
	}
	return m.Short
}
