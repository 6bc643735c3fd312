package simulator

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

// esme is a client of the SMSC that does what the test says, PDU by PDU.
type esme struct {
	t *testing.T
	net.Conn
	r   *smpp.Reader
	seq uint32
}

func smscSim(t *testing.T, opt Options) (*Sim, *clockwork.FakeClock) {
	t.Helper()
	clock := clockwork.NewFakeClock()
	opt.Clock = clock
	s, err := Start(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s, clock
}

func dialSMSC(t *testing.T, s *Sim) *esme {
	t.Helper()
	c, err := net.Dial("tcp", s.SMPPAddr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &esme{t: t, Conn: c, r: smpp.NewReader(c)}
}

// next reads a PDU.
func (e *esme) next() (smpp.Header, []byte) {
	e.t.Helper()
	h, body, err := e.r.Next()
	require.NoError(e.t, err)
	return h, append([]byte(nil), body...)
}

// ask sends a PDU and returns the answer to it.
func (e *esme) ask(pdu []byte) (smpp.Header, []byte) {
	e.t.Helper()
	e.post(pdu)
	h, body := e.next()
	require.Equal(e.t, e.seq, h.Sequence)
	return h, body
}

func (e *esme) post(pdu []byte) {
	e.t.Helper()
	e.seq++
	smpp.SetSequence(pdu, e.seq)
	_, err := e.Write(pdu)
	require.NoError(e.t, err)
}

func (e *esme) bind(command smpp.Command, id, password string) smpp.Status {
	e.t.Helper()
	h, _ := e.ask((&smpp.Bind{SystemID: id, Password: password}).Append(nil, command, 0))
	require.Equal(e.t, command.Resp(), h.Command)
	return h.Status
}

func shortMessage(to, s string) smpp.Message {
	return smpp.Message{
		Source: smpp.Address{TON: 5, Addr: "ACME"}, Dest: smpp.Address{TON: 1, NPI: 1, Addr: to}, RegisteredDelivery: 1, Short: []byte(s),
	}
}

func submitPDU(m smpp.Message) []byte { return m.Append(nil, smpp.SubmitSM, 0) }

// delivered reads a deliver_sm and answers it.
func (e *esme) delivered(status smpp.Status) smpp.Message {
	e.t.Helper()
	h, body := e.next()
	require.Equal(e.t, smpp.DeliverSM, h.Command)
	m, err := smpp.ParseMessage(body)
	require.NoError(e.t, err)
	_, err = e.Write(smpp.AppendID(nil, smpp.Header{Command: smpp.DeliverSMResp, Status: status, Sequence: h.Sequence}, ""))
	require.NoError(e.t, err)
	return m
}

func TestSMSCBind(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{Password: "secret"})
	e := dialSMSC(t, s)
	h, _ := e.ask(submitPDU(shortMessage("12025550100", "x")))
	require.Equal(t, smpp.RInvBndSts, h.Status)
	require.Equal(t, smpp.RInvSysID, e.bind(smpp.BindTransceiver, "", "secret"))
	require.Equal(t, smpp.RInvPaswd, e.bind(smpp.BindTransceiver, "acme", "guess"))
	s.Fail("acme", -1, BadLogin)
	require.Equal(t, smpp.RInvPaswd, e.bind(smpp.BindTransceiver, "acme", "secret"))
	s.Fail("acme", 1, BadLogin)
	require.Equal(t, smpp.RInvPaswd, e.bind(smpp.BindTransceiver, "acme", "secret"))
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", "secret"))
	require.Equal(t, smpp.RAlyBnd, e.bind(smpp.BindTransceiver, "acme", "secret"))
	h, _ = e.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil))
	require.Equal(t, smpp.EnquireLinkResp, h.Command)
	h, _ = e.ask(smpp.Header{Command: 0x103}.Append(nil))
	require.Equal(t, smpp.GenericNack, h.Command)
	require.Equal(t, smpp.RInvCmdID, h.Status)
	h, _ = e.ask(smpp.Header{Command: smpp.Unbind}.Append(nil))
	require.Equal(t, smpp.UnbindResp, h.Command)
	_, _, err := e.r.Next()
	require.ErrorIs(t, err, io.EOF)

	s.Fail("acme", -1, Down)
	e = dialSMSC(t, s)
	e.post((&smpp.Bind{SystemID: "acme", Password: "secret"}).Append(nil, smpp.BindTransceiver, 0))
	_, _, err = e.r.Next()
	require.Error(t, err)
}

func TestSMSCUnboundConnectionEnds(t *testing.T) {
	t.Parallel()
	s, clock := smscSim(t, Options{})
	e := dialSMSC(t, s)
	e.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil)) // it is being served
	clock.Advance(bindDeadline)
	_, _, err := e.r.Next()
	require.Error(t, err)
}

func TestSMSCVerdicts(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{})
	e := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", "any"))
	for _, tc := range []struct {
		to     string
		status smpp.Status
		states []string
	}{
		{"12025550100", smpp.ROK, []string{"stat:DELIVRD err:000"}},
		{"12025550102", smpp.ROK, []string{"stat:DELIVRD"}}, // an SMS cannot be read
		{"12025550110", smpp.RSysErr, nil},
		{"12025550112", smpp.RThrottled, nil},
		{"12025550120", smpp.RInvDstAdr, nil},
		{"12025550122", smpp.ROK, []string{"stat:UNDELIV err:027"}},
		{"12025550123", smpp.ROK, []string{"stat:UNDELIV err:013"}},
		{"12025550131", smpp.ROK, []string{"stat:DELIVRD", "stat:DELIVRD"}},
		{"12025550133", smpp.ROK, nil},
		{"12025550140", smpp.ROK, []string{"stat:DELIVRD", "STOP"}},
	} {
		h, body := e.ask(submitPDU(shortMessage(tc.to, "hello")))
		require.Equal(t, tc.status, h.Status, tc.to)
		for _, want := range tc.states {
			m := e.delivered(smpp.ROK)
			require.Contains(t, string(m.Short), want)
			require.Equal(t, tc.to, m.Source.Addr)
			if want == "STOP" {
				require.Zero(t, m.ESMClass)
				continue
			}
			require.EqualValues(t, smpp.ESMReceipt, m.ESMClass)
			r, err := smpp.ParseReceipt(string(m.Short))
			require.NoError(t, err)
			require.Equal(t, smpp.ParseID(body), r.ID)
			require.Equal(t, "hello", r.Text)
			id, _ := m.Optional.Text(smpp.TagReceiptedMessageID)
			require.Equal(t, r.ID, id)
		}
	}
	// The receipt before the answer.
	e.post(submitPDU(shortMessage("12025550134", "hello")))
	e.delivered(smpp.ROK)
	h, _ := e.next()
	require.Equal(t, smpp.SubmitSMResp, h.Command)
	// No answer, and a receipt all the same.
	e.post(submitPDU(shortMessage("12025550130", "hello")))
	require.Contains(t, string(e.delivered(smpp.ROK).Short), "DELIVRD")
	require.Len(t, s.Ledger().To(delivery.SMS, "+12025550130"), 1)
	// A fault of the account.
	s.Fail("acme", 1, RejectedFault)
	h, _ = e.ask(submitPDU(shortMessage("12025550100", "hello")))
	require.Equal(t, smpp.RXRAppn, h.Status)
	s.Fail("acme", 1, Absent)
	h, _ = e.ask(submitPDU(shortMessage("12025550100", "hello")))
	require.Equal(t, smpp.ROK, h.Status)
	require.Contains(t, string(e.delivered(smpp.ROK).Short), "err:027")
	s.Fail("acme", 1, Down)
	e.post(submitPDU(shortMessage("12025550100", "hello")))
	_, _, err := e.r.Next()
	require.Error(t, err)
}

func TestSMSCRefuses(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{})
	e := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", ""))
	long, noUDH := shortMessage("1", "x"), shortMessage("12025550100", "")
	long.Source.Addr = strings.Repeat("1", 21)
	noUDH.ESMClass = smpp.ESMUDHI
	for _, tc := range []struct {
		name string
		pdu  []byte
		want smpp.Status
	}{
		{"no recipient", submitPDU(shortMessage("", "x")), smpp.RInvDstAdr},
		{"letters as recipient", submitPDU(shortMessage("abc", "x")), smpp.RInvDstAdr},
		{"long sender", submitPDU(long), smpp.RInvSrcAdr},
		{"header missing", submitPDU(noUDH), smpp.RInvMsgLen},
		{"string without NUL", append([]byte{0, 0, 0, 18, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0}, 'a', 'b'), smpp.RInvParLen},
	} {
		h, _ := e.ask(tc.pdu)
		require.Equal(t, tc.want, h.Status, tc.name)
		require.Equal(t, smpp.SubmitSMResp, h.Command)
	}
	require.Zero(t, s.Ledger().Len())
	for _, length := range []uint32{0, 15, 0xFFFFFFFF} {
		e := dialSMSC(t, s)
		_, err := e.Write(binary.BigEndian.AppendUint32(nil, length))
		require.NoError(t, err)
		h, _ := e.next()
		require.Equal(t, smpp.Header{Command: smpp.GenericNack, Status: smpp.RInvCmdLen}, h)
		_, _, err = e.r.Next()
		require.Error(t, err)
	}
}

func TestSMSCParts(t *testing.T) {
	t.Parallel()
	s, clock := smscSim(t, Options{})
	e := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", ""))
	part := func(ref uint16, seq byte, to, body string) []byte {
		m := shortMessage(to, "")
		m.ESMClass = smpp.ESMUDHI
		m.Short = append(smpp.Concat{Ref: ref, Total: 3, Seq: seq}.Append(nil), body...)
		return submitPDU(m)
	}
	for _, seq := range []byte{3, 1, 1} { // out of order, and one twice
		h, _ := e.ask(part(1, seq, "12025550100", fmt.Sprint(seq)))
		require.Equal(t, smpp.ROK, h.Status)
	}
	require.Zero(t, s.Ledger().Len())
	_, body := e.ask(part(1, 2, "12025550100", "2"))
	entries := s.Ledger().Entries(0)
	require.Len(t, entries, 1)
	require.Equal(t, "123", entries[0].Text)
	require.Equal(t, 3, entries[0].Parts)
	require.Equal(t, smpp.ParseID(body), entries[0].ProviderID)
	require.Contains(t, string(e.delivered(smpp.ROK).Short), "id:"+entries[0].ProviderID)
	// The verdict on the whole message is the answer to its last part.
	for seq := range byte(3) {
		h, _ := e.ask(part(2, seq+1, "12025550120", "x"))
		require.Equal(t, seq == 2, h.Status == smpp.RInvDstAdr)
	}
	// Parts that are too old do not complete anything.
	e.ask(part(3, 1, "12025550100", "old"))
	e.ask(part(3, 2, "12025550100", "old"))
	clock.Advance(partsExpire + time.Second)
	e.ask(part(3, 3, "12025550100", "new"))
	require.Len(t, s.Ledger().Entries(0), 2)
	a := s.smsc.account("acme", false)
	for i := range 2 * maxIncomplete {
		m := shortMessage(fmt.Sprint(i), "")
		a.part(clock.Now(), &m, smpp.Concat{Ref: 1, Total: 2, Seq: 1}, nil)
	}
	require.LessOrEqual(t, len(a.parts), maxIncomplete)
}

func TestSMSCDelays(t *testing.T) {
	t.Parallel()
	s, clock := smscSim(t, Options{Latency: time.Second, ReceiptDelay: 3 * time.Second})
	e := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", ""))
	s.Slow("acme", 2*time.Second)
	e.post(submitPDU(shortMessage("12025550100", "hello")))
	e.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil)) // answered at once; the submit_sm before it waits
	clock.Advance(3 * time.Second)
	h, _ := e.next()
	require.Equal(t, smpp.SubmitSMResp, h.Command)
	require.NoError(t, clock.BlockUntilContext(t.Context(), 1))
	clock.Advance(3 * time.Second)
	e.delivered(smpp.ROK)
}

func TestSMSCBound(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{})
	require.Zero(t, s.Bound("acme"), "nobody has ever bound")
	a, b := dialSMSC(t, s), dialSMSC(t, s)
	require.Equal(t, smpp.ROK, a.bind(smpp.BindTransceiver, "acme", ""))
	require.Equal(t, smpp.ROK, b.bind(smpp.BindReceiver, "acme", ""))
	require.Equal(t, 2, s.Bound("acme"))
	require.NoError(t, a.Close())
	require.Eventually(t, func() bool { return s.Bound("acme") == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, b.Close())
	require.Eventually(t, func() bool { return s.Bound("acme") == 0 }, time.Minute, time.Millisecond)
}

func TestSMSCReceiptsWaitForAcknowledgement(t *testing.T) {
	t.Parallel()
	s, clock := smscSim(t, Options{})
	tx := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, tx.bind(smpp.BindTransmitter, "acme", ""))
	for i := range deliverWindow + 10 {
		h, _ := tx.ask(submitPDU(shortMessage(fmt.Sprintf("4915100%06d", i), "hello")))
		require.Equal(t, smpp.ROK, h.Status)
	}
	rx := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, rx.bind(smpp.BindReceiver, "acme", ""))
	h, _ := tx.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil))
	require.Equal(t, smpp.ROK, h.Status)
	seen := map[string]bool{}
	for range deliverWindow { // what the window lets through, and no answer
		h, body := rx.next()
		require.Equal(t, smpp.DeliverSM, h.Command)
		m, err := smpp.ParseMessage(body)
		require.NoError(t, err)
		seen[m.Source.Addr] = true
	}
	require.Len(t, seen, deliverWindow)
	h, _ = rx.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil)) // and not one more
	require.Equal(t, smpp.EnquireLinkResp, h.Command)
	h, _ = rx.ask(submitPDU(shortMessage("12025550100", "x")))
	require.Equal(t, smpp.RInvBndSts, h.Status, "a receiver does not submit")
	_ = rx.Close()

	again := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, again.bind(smpp.BindTransceiver, "acme", ""))
	refused := again.delivered(smpp.RXTAppn).Source.Addr
	clear(seen)
	for range deliverWindow + 9 {
		seen[again.delivered(smpp.ROK).Source.Addr] = true
	}
	require.NotContains(t, seen, refused)
	again.ask(smpp.Header{Command: smpp.EnquireLink}.Append(nil)) // every answer is read
	clock.Advance(redeliverWait)
	require.Equal(t, refused, again.delivered(smpp.ROK).Source.Addr)
}

func TestSMSCReply(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{})
	require.Error(t, s.Reply(delivery.SMS, "acme", "+1", "ACME", "x"))
	e := dialSMSC(t, s)
	require.Equal(t, smpp.ROK, e.bind(smpp.BindTransceiver, "acme", ""))
	require.NoError(t, s.Reply(delivery.SMS, "acme", "+12025550100", "12345", strings.Repeat("я", 100)))
	for seq := range byte(2) {
		m := e.delivered(smpp.ROK)
		c, found, _, err := m.Part()
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, seq+1, c.Seq)
		require.Equal(t, smpp.Address{TON: 1, NPI: 1, Addr: "12025550100"}, m.Source)
		require.Equal(t, smpp.Address{TON: 3, Addr: "12345"}, m.Dest)
	}
}

func TestSMSCBounds(t *testing.T) {
	t.Parallel()
	s, _ := smscSim(t, Options{})
	a := s.smsc.account("acme", true)
	for range maxQueued + 100 {
		a.push([]byte{0})
	}
	require.Len(t, a.queue, maxQueued)
	require.Equal(t, 100, a.dropped)
	for i := range 2 * maxAccounts {
		s.smsc.account(fmt.Sprint(i), true)
	}
	require.Len(t, s.smsc.accounts, maxAccounts)
}
