package smpp

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
	"github.com/msgctl/msgctl/sms"
)

// Bounds of what the SMSC has delivered and we have not acknowledged. Beyond them a deliver_sm is answered with a
// temporary error, and the SMSC sends it again later.
const (
	maxInbox      = 4096
	maxInboxBytes = 4 << 20
	maxBatch      = 256 // per call of the sink
)

// inbox holds deliver_sm PDUs between the reading goroutine and the one that stores them. While one batch is being
// stored the next one gathers; a lone receipt goes at once.
type inbox struct {
	wake chan struct{}

	mu    sync.Mutex
	items []delivered
	bytes int
}

type delivered struct {
	sequence uint32
	body     []byte
}

func (b *inbox) init() { b.wake = make(chan struct{}, 1) }

// put keeps a copy of the body; false means that there is no room.
func (b *inbox) put(sequence uint32, body []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.items) >= maxInbox || b.bytes+len(body) > maxInboxBytes {
		return false
	}
	b.items = append(b.items, delivered{sequence, append([]byte(nil), body...)})
	b.bytes += len(body)
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return true
}

// take returns up to maxBatch of what is there.
func (b *inbox) take() []delivered {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(len(b.items), maxBatch)
	batch := b.items[:n:n]
	for _, d := range batch {
		b.bytes -= len(d.body)
	}
	if b.items = b.items[n:]; len(b.items) == 0 {
		b.items = nil
	}
	return batch
}

// receive stores what the SMSC delivers, until the session ends. What is left then was not acknowledged and comes
// again.
func (s *session) receive(ctx context.Context, c *Connector) {
	flush := time.NewTicker(joinWait / 4)
	defer flush.Stop()
	for !s.over() {
		if batch := s.inbox.take(); len(batch) > 0 {
			s.acknowledge(ctx, c, batch)
			continue
		}
		select {
		case <-s.inbox.wake:
		case <-s.ended:
		case <-flush.C:
			if c != nil {
				c.flushParts(ctx)
			}
		}
	}
}

// acknowledge hands a batch to the sink and answers each PDU after the sink has answered.
func (s *session) acknowledge(ctx context.Context, c *Connector, batch []delivered) {
	var b intake
	if c == nil || c.link.sink.Load() == nil {
		for _, d := range batch {
			b.answer(d.sequence, smpp.RXTAppn)
		}
	} else {
		b.store(ctx, c, batch)
	}
	if _, err := s.out.Add(b.answers); errors.Is(err, smpp.ErrBacklog) {
		s.end(errStuck)
	}
}

// intake sorts a batch into what its PDUs are.
type intake struct {
	receipts   []delivery.Receipt
	receiptSeq []uint32
	inbound    []delivery.Inbound
	inboundSeq []uint32
	joined     []partKey // messages in parts that are complete with this batch
	unreadable int
	answers    []byte
}

func (b *intake) answer(sequence uint32, status smpp.Status) {
	h := smpp.Header{Command: smpp.DeliverSMResp, Status: status, Sequence: sequence}
	b.answers = smpp.AppendID(b.answers, h, "")
}

func (b *intake) answerAll(sequences []uint32, err error) {
	status := smpp.ROK
	if err != nil {
		status = smpp.RXTAppn // the SMSC tries again later
	}
	for _, n := range sequences {
		b.answer(n, status)
	}
}

func (b *intake) store(ctx context.Context, c *Connector, batch []delivered) {
	sink := *c.link.sink.Load()
	now := c.account.Now()
	b.receipts, b.receiptSeq = make([]delivery.Receipt, 0, len(batch)), make([]uint32, 0, len(batch))
	b.answers = make([]byte, 0, len(batch)*(smpp.HeaderLen+1))
	for _, d := range batch {
		m, err := smpp.ParseMessage(d.body)
		var field *smpp.FieldError
		if errors.As(err, &field) {
			b.unreadable++
			b.answer(d.sequence, field.Status())
			continue
		}
		if isReceipt(&m) {
			b.receipt(c, d.sequence, &m, now)
		} else {
			b.message(c, d.sequence, &m, now)
		}
	}
	if len(b.receipts) > 0 {
		err := sink.Receipts(ctx, b.receipts)
		b.answerAll(b.receiptSeq, err)
		if err != nil {
			c.log.Error("smpp receipts could not be stored", "account", c.account.Name, "count", len(b.receipts), "err", err)
		}
	}
	if len(b.inbound) > 0 {
		err := sink.Inbound(ctx, b.inbound)
		b.answerAll(b.inboundSeq, err)
		if err != nil {
			c.log.Error("smpp messages could not be stored", "account", c.account.Name, "count", len(b.inbound), "err", err)
		} else {
			c.inbound.forget(b.joined)
		}
	}
	if b.unreadable > 0 {
		c.log.Warn("smpp deliver_sm could not be read", "account", c.account.Name, "count", b.unreadable)
	}
}

// isReceipt tells receipts from messages by esm_class (§5.2.12), or by receipted_message_id, because some SMSCs leave
// esm_class 0.
func isReceipt(m *smpp.Message) bool {
	switch m.ESMClass & smpp.ESMTypeMask {
	case smpp.ESMReceipt, smpp.ESMIntermediate:
		return true
	}
	_, ok := m.Optional.Get(smpp.TagReceiptedMessageID)
	return ok
}

// receipt reads a receipt. One that says nothing (on its way, a state of the provider's own) is acknowledged; one that
// cannot be read is refused for good: sending it again would not help.
func (b *intake) receipt(c *Connector, sequence uint32, m *smpp.Message, now time.Time) {
	_, _, octets, err := m.Part()
	if err != nil {
		octets = nil
	}
	text := string(octets)
	if m.DataCoding == smpp.CodingUCS2 {
		text = sms.Decode(octets, sms.UCS2)
	}
	r, _ := smpp.ParseReceipt(text) // without text the parameters may still say it
	if !r.Apply(m.Optional) || len(r.ID) > smpp.MaxID {
		b.unreadable++
		b.answer(sequence, smpp.RXPAppn)
		return
	}
	out, skip := outcome(&r)
	if skip {
		b.answer(sequence, smpp.ROK)
		return
	}
	out.Account, out.ProviderID, out.At = c.account.ID, c.ids.receipted(r.ID), now
	b.receipts = append(b.receipts, out)
	b.receiptSeq = append(b.receiptSeq, sequence)
}

// message reads a message from a person. A part of a longer one is kept and acknowledged at once, because an SMSC
// with a window of 1 would never send the next; the parts are lost should the process end before the last one comes.
func (b *intake) message(c *Connector, sequence uint32, m *smpp.Message, now time.Time) {
	part, found, octets, err := m.Part()
	if err != nil {
		b.unreadable++
		b.answer(sequence, smpp.RInvMsgLen)
		return
	}
	in := delivery.Inbound{
		Account: c.account.ID, Channel: delivery.SMS, From: phone(m.Source), To: phone(m.Dest), At: now,
	}
	if found && part.Total > 1 {
		key := partKey{from: m.Source.Addr, to: m.Dest.Addr, ref: part.Ref, wide: part.Wide, total: part.Total}
		whole, complete := c.inbound.add(key, part.Seq, m.DataCoding, octets, in)
		if !complete {
			b.answer(sequence, smpp.ROK)
			return
		}
		b.joined = append(b.joined, key)
		in = whole
	} else {
		in.Text = text(m.DataCoding, octets)
	}
	b.inbound = append(b.inbound, in)
	b.inboundSeq = append(b.inboundSeq, sequence)
}

// text decodes what a phone sent. The classes 0xF0–0xFF say 8 bit by bit 2 (3GPP TS 23.038 §4); what is not text shows
// as Latin-1, octet by octet.
func text(coding byte, b []byte) string {
	switch {
	case coding == smpp.CodingUCS2:
		return sms.Decode(b, sms.UCS2)
	case coding == smpp.CodingDefault, coding&0xF4 == 0xF0:
		return sms.Decode(b, sms.GSM7)
	}
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// phone writes an address as the engine knows it: a number of a subscriber with plus, a short code or a name as it is.
// Many SMSCs leave the type of number 0 for a number in international form; 8 digits are more than a short code has.
func phone(a smpp.Address) string {
	if digits(a.Addr) && (a.TON == smpp.TONInternational || a.TON == smpp.TONUnknown && len(a.Addr) >= 8) {
		return "+" + a.Addr
	}
	return a.Addr
}
