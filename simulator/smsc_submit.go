package simulator

import (
	"errors"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
	"github.com/msgctl/msgctl/sms"
)

// submission is one whole message on its way through the SMSC.
type submission struct {
	conn    *smscConn
	header  smpp.Header // of the submit_sm that completed it
	message smpp.Message
	id      string
	text    string
	at      time.Time
	verdict Verdict
}

// submit takes a submit_sm. A part of a longer message is answered and kept; the part that completes it decides for
// all.
func (c *smscConn) submit(h smpp.Header, body []byte) bool {
	m, err := smpp.ParseMessage(body)
	var field *smpp.FieldError
	if errors.As(err, &field) {
		c.answer(h, field.Status(), "")
		return true
	}
	part, found, text, err := m.Part()
	switch {
	case err != nil:
		c.answer(h, smpp.RInvMsgLen, "")
		return true
	case len(m.Source.Addr) > 20:
		c.answer(h, smpp.RInvSrcAdr, "")
		return true
	case len(m.Dest.Addr) > 20 || !smscDigits(m.Dest.Addr):
		c.answer(h, smpp.RInvDstAdr, "")
		return true
	}
	s := &submission{conn: c, header: h, message: m, id: c.smsc.newID(), at: c.smsc.sim.clock.Now()}
	parts := 1
	if found && part.Total > 1 {
		whole, complete := c.account.part(s.at, &m, part, text)
		if !complete {
			c.after(c.smsc.sim.opt.Latency, func() { c.answer(h, smpp.ROK, s.id) })
			return true
		}
		text, parts = whole, int(part.Total)
	}
	s.text = smscText(m.DataCoding, text)
	if _, ok := m.Optional.Get(smpp.TagMessagePayload); ok {
		parts, _ = sms.Count(s.text)
	}
	return s.decide(parts)
}

// decide asks the script, writes the ledger and answers. It reports whether the connection goes on.
func (s *submission) decide(parts int) bool {
	c, sim := s.conn, s.conn.smsc.sim
	to := "+" + s.message.Dest.Addr
	s.verdict = sim.script.decide(delivery.SMS, c.account.systemID, to)
	status, taken := smscStatus(s.verdict.Fault)
	e := Entry{
		At: s.at, Channel: delivery.SMS.String(), Account: c.account.systemID, To: to, From: smscFrom(s.message.Source),
		Taken: taken, Outcome: s.verdict.Outcome, Text: s.text, Parts: parts,
	}
	if taken {
		e.ProviderID = s.id
	}
	sim.ledger.add(e)
	if s.verdict.Fault == Down {
		return false
	}
	c.after(sim.opt.Latency+s.verdict.Latency, func() {
		if taken && s.verdict.ReceiptFirst {
			s.report()
		}
		if s.verdict.Fault != LostAck {
			c.answer(s.header, status, s.id)
		}
		if taken && !s.verdict.ReceiptFirst {
			s.report()
		}
	})
	return true
}

// after runs f now or when the time has come.
func (c *smscConn) after(d time.Duration, f func()) {
	if d <= 0 {
		f()
		return
	}
	c.smsc.sim.clock.AfterFunc(d, f)
}

// smscStatus returns how a submission with the fault is answered, and whether it is taken.
func smscStatus(f Fault) (smpp.Status, bool) {
	switch f {
	case Temporary:
		return smpp.RSysErr, false
	case ThrottledFault:
		return smpp.RThrottled, false
	case UnknownSubscriber:
		return smpp.RInvDstAdr, false
	case RejectedFault:
		return smpp.RXRAppn, false
	case BadLogin, Down:
		return smpp.RInvBndSts, false
	}
	return smpp.ROK, true // absent and blocked show in the receipt
}

// report sends the scripted receipts, if the client asked for any (§5.2.17), and then the person's answer.
func (s *submission) report() {
	account := s.conn.account
	receipts := s.verdict.Receipts
	if f := s.verdict.Fault; (f == Absent || f == Blocked) && len(receipts) == 0 {
		receipts = []ScriptedReceipt{{Status: delivery.StatusUndelivered, After: s.conn.smsc.sim.opt.ReceiptDelay, Fault: f}}
	}
	var last time.Duration
	for _, r := range receipts {
		last = max(last, r.After)
		state, code := smscState(r)
		wanted := s.message.RegisteredDelivery&3 == 1 || s.message.RegisteredDelivery&3 == 2 && state != smpp.StateDelivered
		if state == smpp.StateNone || !wanted {
			continue
		}
		s.conn.after(r.After, func() { account.push(s.receipt(state, code)) })
	}
	if s.verdict.Reply != "" {
		s.conn.after(last, func() { account.inbound(s.message.Dest, s.message.Source, s.verdict.Reply) })
	}
}

// smscState returns the state and error code of a scripted receipt; StateNone for what an SMS cannot report. The codes
// are MAP errors (3GPP TS 29.002 §17.6.6): 1 unknown subscriber, 13 call barred, 27 absent subscriber.
func smscState(r ScriptedReceipt) (smpp.State, string) {
	switch r.Status {
	case delivery.StatusDelivered:
		return smpp.StateDelivered, "000"
	case delivery.StatusUndelivered:
		switch r.Fault {
		case UnknownSubscriber:
			return smpp.StateUndeliverable, "001"
		case Blocked:
			return smpp.StateUndeliverable, "013"
		case Absent:
			return smpp.StateUndeliverable, "027"
		}
		return smpp.StateUndeliverable, "000"
	}
	return smpp.StateNone, ""
}

// receipt builds the deliver_sm that reports on the submission (§2.11 and Appendix B).
func (s *submission) receipt(state smpp.State, code string) []byte {
	r := smpp.Receipt{ID: s.id, Sub: 1, Submitted: s.at, Done: s.conn.smsc.sim.clock.Now(), State: state, Err: code}
	if smscPrintable(s.text) {
		r.Text = s.text
	}
	if state == smpp.StateDelivered {
		r.Dlvrd = 1
	}
	m := smpp.Message{Source: s.message.Dest, Dest: s.message.Source, ESMClass: smpp.ESMReceipt, Short: r.Append(nil)}
	m.Optional = m.Optional.Append(smpp.TagReceiptedMessageID, append([]byte(s.id), 0)).
		Append(smpp.TagMessageState, []byte{byte(state)})
	return m.Append(nil, smpp.DeliverSM, 0)
}

func smscPrintable(s string) bool {
	for i := range min(len(s), 20) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// smscText decodes a submitted text.
func smscText(coding byte, b []byte) string {
	switch coding {
	case smpp.CodingUCS2:
		return sms.Decode(b, sms.UCS2)
	case smpp.CodingDefault:
		return sms.Decode(b, sms.GSM7)
	}
	return string(b)
}

// smscFrom writes a sender as the ledger shows it: a number with a plus, a name or a short code as it is.
func smscFrom(a smpp.Address) string {
	if a.TON == smpp.TONInternational && smscDigits(a.Addr) {
		return "+" + a.Addr
	}
	return a.Addr
}
