package smpp

import (
	"errors"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
	"github.com/msgctl/msgctl/sms"
)

// submitConfig is what the settings say about submit_sm. A type or plan of -1 follows from the address.
type submitConfig struct {
	from, serviceType    string
	sourceTON, sourceNPI int
	destTON, destNPI     int
	receipt              byte   // registered_delivery
	long                 string // udh, udh16, payload
	validity             string // relative, absolute, none
}

var errSender = errors.New("not a sender that SMPP can carry")

// source returns the address of a sender: +number, a short code, or a name of printable ASCII.
func (c *submitConfig) source(from string) (smpp.Address, error) {
	a := smpp.Address{}
	switch {
	case from == "": // the SMSC puts its own
	case from[0] == '+' && digits(from[1:]) && len(from) <= 16:
		a = smpp.Address{TON: smpp.TONInternational, NPI: smpp.NPIISDN, Addr: from[1:]}
	case digits(from) && len(from) <= 8:
		a = smpp.Address{TON: smpp.TONNetwork, Addr: from}
	case digits(from) && len(from) <= 15:
		a = smpp.Address{TON: smpp.TONInternational, NPI: smpp.NPIISDN, Addr: from}
	case len(from) <= 11 && printable(from): // 3GPP TS 23.040 §9.1.2.5: 11 characters of a name fit
		a = smpp.Address{TON: smpp.TONAlphanumeric, Addr: from}
	default:
		return a, errSender
	}
	if c.sourceTON >= 0 {
		a.TON = byte(c.sourceTON)
	}
	if c.sourceNPI >= 0 {
		a.NPI = byte(c.sourceNPI)
	}
	return a, nil
}

// outgoing is a message on its way: what its PDUs share, and its text in segments.
type outgoing struct {
	pdu   smpp.Message
	text  string // of a message of one segment
	plan  sms.Plan
	parts int // PDUs
	wide  bool
	ref   uint16
}

// prepare checks m and says how it travels. The error is a *delivery.Failure.
func (c *submitConfig) prepare(m *delivery.Outgoing, now time.Time) (outgoing, error) {
	o := outgoing{parts: 1, text: m.Content.Text}
	if o.text == "" {
		return o, refuse("empty_text", "the message has no text")
	}
	to := m.To
	if to != "" && to[0] == '+' {
		to = to[1:]
	}
	if !digits(to) || len(to) > 15 {
		return o, refuse("invalid_recipient", "the recipient is not a phone number")
	}
	from := m.From
	if from == "" {
		from = c.from
	}
	source, err := c.source(from)
	if err != nil {
		return o, refuse("invalid_sender", "the sender must be +number, a short code or up to 11 letters and digits")
	}
	o.pdu = smpp.Message{
		ServiceType: c.serviceType, Source: source,
		Dest:               smpp.Address{TON: byte(max(c.destTON, 0)), NPI: byte(max(c.destNPI, 0)), Addr: to},
		RegisteredDelivery: c.receipt,
	}
	if !m.ExpiresAt.IsZero() {
		left := m.ExpiresAt.Sub(now)
		if left <= 0 {
			return o, &delivery.Failure{
				Class: delivery.Transient, Code: "expired", Detail: "the message expired before it was handed over", Known: true,
			}
		}
		switch c.validity {
		case "relative":
			o.pdu.ValidityPeriod = smpp.FormatRelative(max(left, time.Second))
		case "absolute":
			o.pdu.ValidityPeriod = smpp.FormatAbsolute(m.ExpiresAt)
		}
	}
	n, enc := sms.Count(o.text)
	if enc == sms.UCS2 {
		o.pdu.DataCoding = smpp.CodingUCS2
	}
	if n == 1 {
		return o, nil
	}
	if n > sms.MaxSegments {
		return o, refuse("too_long", "the text needs more than 255 parts")
	}
	if c.long == "payload" {
		return o, nil
	}
	o.plan, o.parts = sms.Split(o.text), n
	// The reference comes from the message's id: an attempt after an ambiguous one uses the same, so that a phone that
	// has some parts already fills them up instead of showing the message twice.
	o.wide = c.long == "udh16"
	o.ref = uint16(m.ID[15])
	if o.wide {
		o.ref |= uint16(m.ID[14]) << 8
	}
	return o, nil
}

// part adds the PDU of part i, from 0, with room for its sequence number.
func (o *outgoing) part(dst []byte, i int) []byte {
	var room [smpp.MaxShort]byte
	pdu := o.pdu
	enc := sms.GSM7
	if pdu.DataCoding == smpp.CodingUCS2 {
		enc = sms.UCS2
	}
	text, short := o.text, room[:0]
	if o.parts > 1 {
		text = o.plan.Segments[i].Text
		pdu.ESMClass = smpp.ESMUDHI
		short = smpp.Concat{Ref: o.ref, Wide: o.wide, Total: byte(o.parts), Seq: byte(i + 1)}.Append(short)
		if i < o.parts-1 {
			// Only the last part asks for a receipt: parts are answered in order, so its id, which becomes the message's,
			// is the one that a single receipt must carry; one per part would say the same several times over.
			pdu.RegisteredDelivery = 0
		}
	}
	short, _ = sms.Append(short, text, enc) // Count and Split chose the encoding: it fits
	if len(short) > smpp.MaxShort {
		pdu.Optional = pdu.Optional.Append(smpp.TagMessagePayload, short)
		short = nil
	}
	pdu.Short = short
	return pdu.Append(dst, smpp.SubmitSM, 0)
}

func refuse(code, detail string) error {
	return &delivery.Failure{Class: delivery.Rejected, Code: code, Detail: detail, Known: true}
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
