package smpp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

func TestWindow(t *testing.T) {
	scripted(t, map[string]string{"window": "2"}, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		var sends []<-chan result
		for i := range 4 {
			sends = append(sends, o.sending(t.Context(), message(fmt.Sprintf("+1202555990%d", i), "x")))
			synctest.Wait()
		}
		one, _ := c.submitted()
		two, _ := c.submitted()
		synctest.Wait()
		require.False(t, o.Connector.(connectors.Readier).Ready())
		c.answer(two, wire.ROK, "2") // answers out of order
		three, m := c.submitted()
		require.Equal(t, "12025559902", m.Dest.Addr)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := <-o.sending(ctx, message("+12025559909", "x"))
		requireClass(t, r, delivery.Transient, "window_full")
		c.answer(three, wire.ROK, "3")
		four, _ := c.submitted()
		c.answer(four, wire.ROK, "4")
		c.answer(one, wire.ROK, "1")
		for i, s := range sends {
			r := <-s
			require.NoError(t, r.err)
			require.Equal(t, fmt.Sprint(i+1), r.sent.ProviderID)
		}
		require.True(t, o.Connector.(connectors.Readier).Ready())
	})
}

func TestAnswerLostLateTwiceAndUnknown(t *testing.T) {
	scripted(t, map[string]string{"window": "1"}, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		start := time.Now()
		s := o.sending(t.Context(), message("+12025559900", "x"))
		lost, _ := c.submitted()
		h, _ := c.next() // a missing answer makes the connector ask whether we are there
		require.Equal(t, wire.EnquireLink, h.Command)
		requireClass(t, <-s, delivery.InDoubt, "no_answer")
		require.GreaterOrEqual(t, time.Since(start), 10*time.Second)
		require.Less(t, time.Since(start), 12*time.Second)
		c.answer(h, wire.ROK, "")
		c.answer(lost, wire.ROK, "late")
		c.answer(wire.Header{Command: wire.SubmitSM, Sequence: 777}, wire.ROK, "unknown")
		s = o.sending(t.Context(), message("+12025559900", "x"))
		h, _ = c.submitted()
		c.answer(h, wire.ROK, "right")
		c.answer(h, wire.ROK, "twice")
		require.Equal(t, "right", (<-s).sent.ProviderID)
		require.NoError(t, o.pinged(c))
	})
}

// pinged checks that the session is alive, with the connection's other end in hand.
func (o *opened) pinged(c *conn) error {
	done := make(chan error, 1)
	go func() { done <- o.check(context.Background()) }()
	h, _ := c.next()
	c.answer(h, wire.ROK, "")
	return <-done
}

func TestConnectionLost(t *testing.T) {
	for _, tc := range []struct {
		name string
		read bool // whether the SMSC read the submit_sm
	}{{"after the submit_sm was written", true}, {"before", false}} {
		t.Run(tc.name, func(t *testing.T) {
			scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
				c := p.bound()
				s := o.sending(t.Context(), message("+12025559900", "x"))
				if tc.read {
					c.submitted()
					synctest.Wait()
					require.NoError(t, c.Close())
					requireClass(t, <-s, delivery.InDoubt, "connection_lost")
					return
				}
				_, err := io.ReadFull(c, make([]byte, 20)) // not all of it
				require.NoError(t, err)
				require.NoError(t, c.Close())
				p.bound().taken()
				require.Equal(t, "second", (<-s).sent.ProviderID)
			})
		})
	}
}

func TestUnbindByTheSMSC(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		s := o.sending(t.Context(), message("+12025559900", "x"))
		c.submitted()
		c.send(wire.Header{Command: wire.Unbind, Sequence: 42}.Append(nil))
		h, _ := c.next()
		require.Equal(t, wire.Header{Command: wire.UnbindResp, Sequence: 42}, h)
		c.closed()
		requireClass(t, <-s, delivery.InDoubt, "connection_lost")
		c = p.bound()
		s = o.sending(t.Context(), message("+12025559900", "x"))
		c.taken()
		require.NoError(t, (<-s).err)
	})
}

func TestSilence(t *testing.T) {
	scripted(t, nil, func(t *testing.T, _ *opened, p *peer) {
		c := p.bound()
		start := time.Now()
		h, _ := c.next()
		require.Equal(t, wire.EnquireLink, h.Command)
		require.InDelta(t, 30, time.Since(start).Seconds(), 2)
		c.answer(h, wire.ROK, "")
		h, _ = c.next()
		require.Equal(t, wire.EnquireLink, h.Command)
		require.InDelta(t, 60, time.Since(start).Seconds(), 3)
		c.closed() // no answer this time: the other end is gone
		require.InDelta(t, 70, time.Since(start).Seconds(), 4)
		p.bound()
	})
}

func TestPeerThatDoesNotRead(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		p.bound()
		s := o.sending(t.Context(), message("+12025559900", "x"))
		p.bound().taken() // the first session was given up, and nothing had left over it
		require.Equal(t, "second", (<-s).sent.ProviderID)
	})
}

func TestBadLengths(t *testing.T) {
	for _, length := range []uint32{0, 15, 0xFFFFFFFF} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			scripted(t, nil, func(t *testing.T, _ *opened, p *peer) {
				c := p.bound()
				c.send(binary.BigEndian.AppendUint32(nil, length))
				h, _ := c.next()
				require.Equal(t, wire.Header{Command: wire.GenericNack, Status: wire.RInvCmdLen}, h)
				c.closed()
				p.bound()
			})
		})
	}
}

func TestOneOctetAtATime(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		s := o.sending(t.Context(), message("+12025559900", "x"))
		h, _ := c.submitted()
		pdus := wire.AppendID(nil, wire.Header{Command: wire.SubmitSMResp, Sequence: h.Sequence}, "slow")
		pdus = append(pdus, c.receipt(5, "id:slow stat:DELIVRD", nil)...)
		for _, b := range pdus {
			c.send([]byte{b})
			time.Sleep(10 * time.Millisecond) // of the bubble's clock: it costs nothing
		}
		require.Equal(t, "slow", (<-s).sent.ProviderID)
		require.Equal(t, "slow", (<-o.sink.receipts).ProviderID)
	})
}

func TestUnknownCommands(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		c.send(wire.Header{Command: 0x00000103, Sequence: 9}.Append(nil)) // data_sm
		h, _ := c.next()
		require.Equal(t, wire.Header{Command: wire.GenericNack, Status: wire.RInvCmdID, Sequence: 9}, h)
		c.send(wire.Header{Command: 0x80000103, Sequence: 9}.Append(nil)) // an answer is not answered
		c.send(wire.Header{Command: wire.AlertNotification, Sequence: 10}.Append(nil))
		c.send(wire.Header{Command: wire.EnquireLink, Sequence: 11}.Append(nil))
		h, _ = c.next()
		require.Equal(t, wire.Header{Command: wire.EnquireLinkResp, Sequence: 11}, h)
		require.NoError(t, o.pinged(c))
	})
}

func TestBindRefused(t *testing.T) {
	for _, status := range []wire.Status{wire.RBindFail, wire.RInvPaswd, wire.RInvSysID} {
		t.Run(status.String(), func(t *testing.T) {
			scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
				for range 5 {
					c := p.connection()
					h, _ := c.next()
					c.answer(h, status, "")
					c.closed()
				}
				r := <-o.sending(t.Context(), message("+12025559900", "x"))
				requireClass(t, r, delivery.ConnectorDown, status.String())
				// The sixth attempt works, without anybody's help.
				c := p.bound()
				s := o.sending(t.Context(), message("+12025559900", "x"))
				c.taken()
				require.NoError(t, (<-s).err)
			})
		})
	}
}

func TestBindUnanswered(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.connection()
		c.next()
		start := time.Now()
		r := <-o.sending(t.Context(), message("+12025559900", "x"))
		requireClass(t, r, delivery.ConnectorDown, "not_bound")
		require.Equal(t, 2*time.Second, time.Since(start))
		c.closed()
		require.Equal(t, "bind_timeout", failure(t, o.check(t.Context())).Code)
	})
}

// A hundred sessions one after the other leave nothing behind (TestMain looks for goroutines), and the waits between
// them stay within their bounds.
func TestRebinds(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		for i := range 100 {
			start := time.Now()
			c := p.bound()
			require.LessOrEqual(t, time.Since(start), 30*time.Second)
			synctest.Wait()
			require.True(t, o.Connector.(connectors.Readier).Ready())
			if i%2 == 0 {
				s := o.sending(t.Context(), message("+12025559900", "x"))
				c.taken()
				require.NoError(t, (<-s).err)
			}
			_ = c.Close()
			synctest.Wait()
			require.False(t, o.Connector.(connectors.Readier).Ready())
		}
	})
}

func TestClose(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		s := o.sending(t.Context(), message("+12025559900", "x"))
		sm, _ := c.submitted()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = o.Connector.(io.Closer).Close()
		}()
		h, _ := c.next()
		require.Equal(t, wire.Unbind, h.Command)
		c.answer(sm, wire.ROK, "in time") // what is on its way is still answered
		require.Equal(t, "in time", (<-s).sent.ProviderID)
		c.answer(h, wire.ROK, "")
		c.closed()
		<-closed
		_, err := o.Send(t.Context(), message("+12025559900", "x"))
		requireClass(t, result{err: err}, delivery.ConnectorDown, "closed")
		require.NoError(t, o.Connector.(io.Closer).Close())
	})
}

// An SMSC that does not answer unbind does not hold Close.
func TestCloseUnanswered(t *testing.T) {
	scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
		c := p.bound()
		start := time.Now()
		go func() { _, _, _ = c.r.Next() }()
		require.NoError(t, o.Connector.(io.Closer).Close())
		require.LessOrEqual(t, time.Since(start), 3*time.Second)
	})
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := account(t, nil)
		var dials atomic.Int32
		a.Dial = func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return nil, errors.New("no such host")
		}
		o := open(t, a)
		_, err := o.Send(t.Context(), message("+12025559900", "x"))
		requireClass(t, result{err: err}, delivery.ConnectorDown, "connect_failed")
		time.Sleep(time.Hour)
		require.Less(t, dials.Load(), int32(300), "attempts are at least half of 30 s apart in the end")
		require.Greater(t, dials.Load(), int32(100))
	})
}
