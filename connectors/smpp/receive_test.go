package smpp_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors/smpp"
	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

func TestDelivered(t *testing.T) {
	tlv := func(tag wire.Tag, v ...byte) wire.TLVs { return wire.TLVs(nil).Append(tag, v) }
	delivered := func(id string) *delivery.Receipt {
		return &delivery.Receipt{ProviderID: id, Status: delivery.StatusDelivered, Code: "DELIVRD"}
	}
	undelivered := func(class delivery.Class, code string) *delivery.Receipt {
		return &delivery.Receipt{ProviderID: "7", Status: delivery.StatusUndelivered, Class: class, Code: code}
	}
	for _, tc := range []struct {
		name   string
		text   string
		tlvs   wire.TLVs
		answer wire.Status
		want   *delivery.Receipt
	}{
		{"delivered", "id:7 stat:DELIVRD err:000", nil, wire.ROK, delivered("7")},
		{"expired", "id:7 stat:EXPIRED err:000", nil, wire.ROK, undelivered(0, "EXPIRED/000")},
		{"rejected", "id:7 stat:REJECTD", nil, wire.ROK, undelivered(0, "REJECTD")},
		{"deleted", "id:7 stat:DELETED", nil, wire.ROK, undelivered(0, "DELETED")},
		{"unknown", "id:7 stat:UNKNOWN", nil, wire.ROK, undelivered(0, "UNKNOWN")},
		{"absent", "id:7 stat:UNDELIV err:027", nil, wire.ROK, undelivered(0, "UNDELIV/027")},
		{"unknown subscriber", "id:7 stat:UNDELIV err:001", nil, wire.ROK, undelivered(delivery.BadRecipient, "UNDELIV/001")},
		{"the network says another reason than err", "id:7 stat:UNDELIV err:001", tlv(wire.TagNetworkErrorCode, 3, 0, 27),
			wire.ROK, undelivered(0, "UNDELIV/001")},
		{"unknown subscriber by parameter", "id:7 stat:UNDELIV", tlv(wire.TagNetworkErrorCode, 3, 0, 1),
			wire.ROK, undelivered(delivery.BadRecipient, "UNDELIV")},
		{"parameters only", "", tlv(wire.TagReceiptedMessageID, '9', 0).Append(wire.TagMessageState, []byte{2}),
			wire.ROK, delivered("9")},
		{"on its way", "id:7 stat:ENROUTE", nil, wire.ROK, nil},
		{"accepted", "id:7 stat:ACCEPTD", nil, wire.ROK, nil},
		{"a state of its own", "id:7 stat:BUFFERED", nil, wire.ROK, nil},
		{"no id", "stat:DELIVRD", nil, wire.RXPAppn, nil},
		{"no receipt at all", "\x00\xff lorem ipsum", nil, wire.RXPAppn, nil},
		{"broken parameter", "id:7 stat:DELIVRD", wire.TLVs{4, 0x27, 0xFF, 0xFF}, wire.RInvOptParStream, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
				c := p.bound()
				c.send(c.receipt(5, tc.text, tc.tlvs))
				h, _ := c.next()
				require.Equal(t, wire.Header{Command: wire.DeliverSMResp, Status: tc.answer, Sequence: 5}, h)
				if tc.want == nil {
					require.Empty(t, o.sink.receipts)
					return
				}
				got := <-o.sink.receipts
				require.NotEmpty(t, got.Detail)
				require.False(t, got.At.IsZero())
				got.Detail, got.At, got.Account = "", time.Time{}, delivery.AccountID{}
				require.Equal(t, *tc.want, got)
			})
		})
	}
	t.Run("string without NUL", func(t *testing.T) {
		scripted(t, nil, func(t *testing.T, _ *opened, p *peer) {
			c := p.bound()
			c.send([]byte{0, 0, 0, 19, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 8, 'a', 'b', 'c'})
			h, _ := c.next()
			require.Equal(t, wire.Header{Command: wire.DeliverSMResp, Status: wire.RInvParLen, Sequence: 8}, h)
		})
	})
}

// blockingSink holds every batch until it is let go.
type blockingSink struct {
	*sink
	batches chan int
	release chan error
}

func (s *blockingSink) Receipts(ctx context.Context, rs []delivery.Receipt) error {
	s.batches <- len(rs)
	select {
	case err := <-s.release:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// While the sink is busy the link is answered at once, what comes gathers into batches, nothing is acknowledged, and
// what is too much is put off.
func TestBusySink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &peer{t: t, conns: make(chan net.Conn, 10)}
		a := account(t, nil)
		a.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			p.conns <- theirs
			return ours, nil
		}
		kind := smpp.Kind()
		connector, err := kind.Open(a)
		require.NoError(t, err)
		s := &blockingSink{sink: newSink(), batches: make(chan int, 100), release: make(chan error)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = connector.(*smpp.Connector).Stream(ctx, s) })
		c := p.bound()
		c.send(c.receipt(1, "id:1 stat:DELIVRD", nil))
		require.Equal(t, 1, <-s.batches)
		for i := range 4096 {
			c.send(c.receipt(uint32(i+2), fmt.Sprintf("id:%d stat:DELIVRD", i+2), nil))
		}
		c.send(wire.Header{Command: wire.EnquireLink, Sequence: 9999}.Append(nil))
		h, _ := c.next()
		require.Equal(t, wire.Header{Command: wire.EnquireLinkResp, Sequence: 9999}, h)
		c.send(c.receipt(5000, "id:5000 stat:DELIVRD", nil))
		h, _ = c.next()
		require.Equal(t, wire.Header{Command: wire.DeliverSMResp, Status: wire.RXTAppn, Sequence: 5000}, h)
		s.release <- nil
		h, _ = c.next()
		require.Equal(t, wire.Header{Command: wire.DeliverSMResp, Sequence: 1}, h)
		require.Equal(t, 256, <-s.batches)
		s.release <- errSink
		for range 256 {
			h, _ = c.next()
			require.Equal(t, wire.RXTAppn, h.Status)
		}
		require.Equal(t, 256, <-s.batches)
		cancel()
		for { // the batch under way fails with the context; then the connector unbinds
			h, _ := c.next()
			if h.Command == wire.Unbind {
				c.answer(h, wire.ROK, "")
				break
			}
			require.NotEqual(t, wire.ROK, h.Status)
		}
		_ = c.Close()
		wg.Wait()
	})
}
