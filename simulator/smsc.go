package simulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/smpp"
	"github.com/msgctl/msgctl/sms"
)

// Bounds of the SMSC.
const (
	maxBinds      = 2_000
	maxAccounts   = 10_000
	bindDeadline  = 10 * time.Second // from connection to bind
	redeliverWait = time.Second      // after a deliver_sm that was answered with an error
)

// smsc is a short message service centre that speaks SMPP 3.4. An account is a system_id.
type smsc struct {
	sim    *Sim
	lastID atomic.Uint64
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	conns    map[*smscConn]struct{}
	accounts map[string]*smscAccount
}

func newSMSC(s *Sim) *smsc {
	c := &smsc{sim: s, conns: map[*smscConn]struct{}{}, accounts: map[string]*smscAccount{}}
	// Ids go on from the time of the start: a later simulator does not give out those of an earlier one again.
	c.lastID.Store(uint64(s.clock.Now().UnixMilli()) << 20)
	return c
}

func (c *smsc) newID() string { return strconv.FormatUint(c.lastID.Add(1), 10) }

// serve accepts until the listener closes.
func (c *smsc) serve(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			c.accept(nc)
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return
		default: // out of file descriptors, say
			c.sim.log.Warn("smsc cannot accept", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-c.sim.clock.After(50 * time.Millisecond):
			}
		}
	}
}

func (c *smsc) accept(nc net.Conn) {
	conn := newSMSCConn(c, nc)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.conns) >= maxBinds {
		_ = nc.Close()
		return
	}
	c.conns[conn] = struct{}{}
	c.wg.Go(conn.run)
}

func (c *smsc) forget(conn *smscConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// close drops every connection and waits for their goroutines.
func (c *smsc) close() {
	c.mu.Lock()
	c.closed = true
	for conn := range c.conns {
		_ = conn.nc.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// account returns the account of a system_id, made at its first bind; nil when there are too many.
func (c *smsc) account(systemID string, create bool) *smscAccount {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.accounts[systemID]
	if a == nil && create && len(c.accounts) < maxAccounts {
		a = &smscAccount{smsc: c, systemID: systemID}
		c.accounts[systemID] = a
	}
	return a
}

// bound counts the sessions of an account that receive.
func (c *smsc) bound(account string) int {
	a := c.account(account, false)
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.binds)
}

// reply queues text from a person for the account. It goes out now, or with the account's next bind.
func (c *smsc) reply(account, from, to, text string) error {
	a := c.account(account, false)
	if a == nil {
		return fmt.Errorf("simulator: no SMPP client has bound as %q", account)
	}
	a.inbound(smscAddress(from), smscAddress(to), text)
	return nil
}

// inbound queues a mobile originated message, in parts where it is long.
func (a *smscAccount) inbound(from, to smpp.Address, text string) {
	plan := sms.Split(text)
	ref := uint16(a.smsc.lastID.Add(1))
	for i, seg := range plan.Segments {
		m := smpp.Message{Source: from, Dest: to}
		if plan.Encoding == sms.UCS2 {
			m.DataCoding = smpp.CodingUCS2
		}
		if n := len(plan.Segments); n > 1 && n <= sms.MaxSegments {
			m.ESMClass = smpp.ESMUDHI
			m.Short = smpp.Concat{Ref: ref, Total: byte(n), Seq: byte(i + 1)}.Append(nil)
		}
		m.Short, _ = sms.Append(m.Short, seg.Text, plan.Encoding)
		a.push(m.Append(nil, smpp.DeliverSM, 0))
	}
}

// smscAddress writes an E.164 number without its plus, and anything else as a name.
func smscAddress(s string) smpp.Address {
	if len(s) > 1 && s[0] == '+' {
		return smpp.Address{TON: smpp.TONInternational, NPI: smpp.NPIISDN, Addr: s[1:]}
	}
	if smscDigits(s) {
		return smpp.Address{TON: smpp.TONNetwork, Addr: s}
	}
	return smpp.Address{TON: smpp.TONAlphanumeric, Addr: s}
}

func smscDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// smscAccount is what belongs to a system_id: its binds, what waits to be delivered to them, and messages of which some
// parts are missing.
type smscAccount struct {
	smsc     *smsc
	systemID string

	mu      sync.Mutex
	binds   []*smscConn // those that receive
	next    int         // round robin
	queue   [][]byte    // deliver_sm PDUs that wait for a bind with room
	dropped int
	parts   map[smscPartKey]*smscParts
}

// Bounds of an account.
const (
	maxQueued     = 200_000 // receipts and replies that wait for a bind
	deliverWindow = 512     // deliver_sm without answer, per bind
)

// push queues a deliver_sm. When 200,000 wait already the oldest is dropped.
func (a *smscAccount) push(pdu []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) >= maxQueued {
		if a.dropped++; a.dropped == 1 {
			a.smsc.sim.log.Warn("smsc drops receipts: nobody takes them", "account", a.systemID)
		}
		a.queue = a.queue[1:]
	}
	a.queue = append(a.queue, pdu)
	a.dispatch()
}

// dispatch hands what waits to the binds that have room. The caller holds mu.
func (a *smscAccount) dispatch() {
	for idle := 0; len(a.queue) > 0 && idle < len(a.binds); {
		conn := a.binds[a.next%len(a.binds)]
		a.next++
		if !conn.deliver(a.queue[0]) {
			idle++
			continue
		}
		a.queue[0] = nil
		if a.queue, idle = a.queue[1:], 0; len(a.queue) == 0 {
			a.queue = nil
		}
	}
}

func (a *smscAccount) join(conn *smscConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.binds = append(a.binds, conn)
	a.dispatch()
}

// leave queues again what the bind has not acknowledged.
func (a *smscAccount) leave(conn *smscConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.binds, conn)
	if i < 0 {
		return
	}
	a.binds = slices.Delete(a.binds, i, i+1)
	for _, pdu := range conn.unacked {
		a.queue = append(a.queue, pdu)
	}
	conn.unacked = nil
	a.dispatch()
}

// acknowledge ends a deliver_sm, or queues it again a while later when it was refused.
func (a *smscAccount) acknowledge(conn *smscConn, sequence uint32, status smpp.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pdu, ok := conn.unacked[sequence]
	if !ok {
		return
	}
	delete(conn.unacked, sequence)
	if status != smpp.ROK {
		a.smsc.sim.clock.AfterFunc(redeliverWait, func() { a.push(pdu) })
	}
	a.dispatch()
}
