package simulator

import (
	"errors"
	"net"
	"sync"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/smpp"
)

// smscConn is one connection of a client: one goroutine reads and answers, one writes.
type smscConn struct {
	smsc *smsc
	nc   net.Conn
	out  *smpp.Writer

	// Only the reading goroutine uses these.
	account  *smscAccount // nil until bound
	transmit bool

	// The account's mu guards these.
	unacked  map[uint32][]byte // deliver_sm without answer, by sequence
	sequence uint32
}

func newSMSCConn(c *smsc, nc net.Conn) *smscConn {
	return &smscConn{smsc: c, nc: nc, out: smpp.NewWriter(nc), unacked: map[uint32][]byte{}}
}

// run serves the connection until either side ends it.
func (c *smscConn) run() {
	var writer sync.WaitGroup
	writer.Go(func() {
		_ = c.out.Run()
		_ = c.nc.Close()
	})
	late := c.smsc.sim.clock.AfterFunc(bindDeadline, func() { _ = c.nc.Close() })
	r := smpp.NewReader(c.nc)
	for {
		h, body, err := r.Next()
		var length *smpp.LengthError
		if errors.As(err, &length) {
			c.send(smpp.Header{Command: smpp.GenericNack, Status: smpp.RInvCmdLen}.Append(nil))
		}
		if err != nil || !c.handle(h, body) {
			break
		}
		if c.account != nil {
			late.Stop()
		}
	}
	late.Stop()
	if c.account != nil {
		c.account.leave(c)
	}
	// What is queued is still written, an unbind_resp say; closing ends a write that the client does not read.
	c.out.Close()
	stuck := c.smsc.sim.clock.AfterFunc(bindDeadline, func() { _ = c.nc.Close() })
	writer.Wait()
	stuck.Stop()
	c.smsc.forget(c)
}

// send queues a PDU. A client that does not read loses its connection.
func (c *smscConn) send(pdu []byte) {
	if _, err := c.out.Add(pdu); errors.Is(err, smpp.ErrBacklog) {
		_ = c.nc.Close()
	}
}

// answer sends the header-only or one-string answer to a request.
func (c *smscConn) answer(h smpp.Header, status smpp.Status, id string) {
	c.send(smpp.AppendID(nil, smpp.Header{Command: h.Command.Resp(), Status: status, Sequence: h.Sequence}, id))
}

// deliver sends a deliver_sm when the window has room. The account's mu is held.
func (c *smscConn) deliver(pdu []byte) bool {
	if len(c.unacked) >= deliverWindow {
		return false
	}
	c.sequence = c.sequence%smpp.MaxSequence + 1
	smpp.SetSequence(pdu, c.sequence)
	if _, err := c.out.Add(pdu); err != nil {
		return false
	}
	c.unacked[c.sequence] = pdu
	return true
}

// handle serves one PDU and reports whether the connection goes on.
func (c *smscConn) handle(h smpp.Header, body []byte) bool {
	if c.account != nil && c.smsc.sim.script.broken(c.account.systemID) == Down {
		if h.Command != smpp.SubmitSM { // a submission counts the fault down and enters the ledger
			return false
		}
	}
	switch h.Command {
	case smpp.BindTransceiver, smpp.BindTransmitter, smpp.BindReceiver:
		return c.bind(h, body)
	case smpp.SubmitSM:
		if c.account == nil || !c.transmit {
			c.answer(h, smpp.RInvBndSts, "")
			return true
		}
		return c.submit(h, body)
	case smpp.DeliverSMResp:
		if c.account != nil {
			c.account.acknowledge(c, h.Sequence, h.Status)
		}
	case smpp.EnquireLink:
		c.send(smpp.Header{Command: smpp.EnquireLinkResp, Sequence: h.Sequence}.Append(nil))
	case smpp.Unbind:
		c.send(smpp.Header{Command: smpp.UnbindResp, Sequence: h.Sequence}.Append(nil))
		return false
	default:
		if !h.Command.IsResp() {
			c.send(smpp.Header{Command: smpp.GenericNack, Status: smpp.RInvCmdID, Sequence: h.Sequence}.Append(nil))
		}
	}
	return true
}

// bind opens the session (§4.1). A refused client may try again on the same connection.
func (c *smscConn) bind(h smpp.Header, body []byte) bool {
	if c.account != nil {
		c.answer(h, smpp.RAlyBnd, "")
		return true
	}
	b, err := smpp.ParseBind(body)
	var field *smpp.FieldError
	switch {
	case errors.As(err, &field):
		c.answer(h, field.Status(), "")
		return true
	case b.SystemID == "" || len(b.SystemID) > 15:
		c.answer(h, smpp.RInvSysID, "")
		return true
	}
	if fault := c.smsc.sim.script.broken(b.SystemID); fault != NoFault {
		// A refused bind counts as one of the submissions that the fault was ordered for: without a session there would
		// never be one, and so no end to the fault.
		c.smsc.sim.script.decide(delivery.SMS, b.SystemID, "")
		if fault == Down {
			return false
		}
		c.answer(h, smpp.RInvPaswd, "")
		return true
	}
	if want := c.smsc.sim.opt.Password; want != "" && b.Password != want {
		c.answer(h, smpp.RInvPaswd, "")
		return true
	}
	a := c.smsc.account(b.SystemID, true)
	if a == nil {
		c.answer(h, smpp.RBindFail, "")
		return true
	}
	c.account = a
	c.transmit = h.Command != smpp.BindReceiver
	c.answer(h, smpp.ROK, "msgctl-sim")
	if h.Command != smpp.BindTransmitter {
		a.join(c)
	}
	return true
}
