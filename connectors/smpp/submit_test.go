package smpp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	wire "github.com/msgctl/msgctl/smpp"
)

func TestClasses(t *testing.T) {
	for status, want := range map[wire.Status]delivery.Class{
		0x58: delivery.Throttled, 0x14: delivery.Throttled, 0x08: delivery.Transient, 0x45: delivery.Transient,
		0x64: delivery.Transient, 0x0B: delivery.BadRecipient, 0x04: delivery.ConnectorDown, 0x01: delivery.Rejected,
		0x0A: delivery.Rejected, 0x66: delivery.Rejected, 0xC4: delivery.Rejected, 0x400: delivery.Transient,
	} {
		for _, command := range []wire.Command{wire.SubmitSMResp, wire.GenericNack} {
			t.Run(fmt.Sprintf("%v by %x", status, uint32(command)), func(t *testing.T) {
				scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
					c := p.bound()
					s := o.sending(t.Context(), message("+12025559900", "x"))
					h, _ := c.submitted()
					c.send(wire.Header{Command: command, Status: status, Sequence: h.Sequence}.Append(nil))
					r := <-s
					requireClass(t, r, want, status.String())
					require.Equal(t, status != 0x400, failure(t, r.err).Known)
				})
			})
		}
	}
}

func TestParts(t *testing.T) {
	text := strings.Repeat("a", 400)
	t.Run("all taken", func(t *testing.T) {
		scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
			c := p.bound()
			s := o.sending(t.Context(), message("+12025559900", text))
			var joined string
			for i := range 3 {
				h, m := c.submitted()
				part, found, octets, err := m.Part()
				require.NoError(t, err)
				require.True(t, found)
				require.Equal(t, wire.Concat{Ref: 0x34, Total: 3, Seq: byte(i + 1)}, part)
				require.Equal(t, i == 2, m.RegisteredDelivery == 1, "one receipt for the whole")
				joined += string(octets)
				c.answer(h, wire.ROK, fmt.Sprint("p", i))
			}
			require.Equal(t, "p2", (<-s).sent.ProviderID)
			require.Equal(t, text, joined)
		})
	})
	t.Run("the first refused", func(t *testing.T) {
		scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
			c := p.bound()
			s := o.sending(t.Context(), message("+12025559900", text))
			h, _ := c.submitted()
			c.answer(h, wire.RThrottled, "")
			requireClass(t, <-s, delivery.Throttled, "ESME_RTHROTTLED")
		})
	})
	t.Run("the second refused", func(t *testing.T) {
		scripted(t, nil, func(t *testing.T, o *opened, p *peer) {
			c := p.bound()
			s := o.sending(t.Context(), message("+12025559900", text))
			h, _ := c.submitted()
			c.answer(h, wire.ROK, "p0")
			h, _ = c.submitted()
			c.answer(h, wire.RThrottled, "")
			requireClass(t, <-s, delivery.InDoubt, "ESME_RTHROTTLED")
		})
	})
}

func TestSubmitFields(t *testing.T) {
	for _, tc := range []struct {
		name     string
		settings map[string]string
		change   func(m *delivery.Outgoing)
		want     func(t *testing.T, m wire.Message)
	}{
		{"plain", nil, func(*delivery.Outgoing) {}, func(t *testing.T, m wire.Message) {
			require.Equal(t, wire.Message{
				Source: wire.Address{TON: 5, Addr: "ACME"}, Dest: wire.Address{TON: 1, NPI: 1, Addr: "12025559900"},
				RegisteredDelivery: 1, Short: []byte("x"),
			}, m)
		}},
		{"number as sender", nil,
			func(m *delivery.Outgoing) { m.From = "+15550001" }, func(t *testing.T, m wire.Message) {
				require.Equal(t, wire.Address{TON: 1, NPI: 1, Addr: "15550001"}, m.Source)
			}},
		{"short code as sender", nil,
			func(m *delivery.Outgoing) { m.From = "12345" }, func(t *testing.T, m wire.Message) {
				require.Equal(t, wire.Address{TON: 3, Addr: "12345"}, m.Source)
			}},
		{"the account's sender, types set",
			map[string]string{"from": "Shop", "source_ton": "0", "source_npi": "1", "dest_ton": "2", "dest_npi": "8"},
			func(m *delivery.Outgoing) { m.From = "" }, func(t *testing.T, m wire.Message) {
				require.Equal(t, wire.Address{TON: 0, NPI: 1, Addr: "Shop"}, m.Source)
				require.Equal(t, wire.Address{TON: 2, NPI: 8, Addr: "12025559900"}, m.Dest)
			}},
		{"no sender, no receipt", map[string]string{"registered_delivery": "false"},
			func(m *delivery.Outgoing) { m.From = "" },
			func(t *testing.T, m wire.Message) {
				require.Zero(t, m.Source)
				require.Zero(t, m.RegisteredDelivery)
			}},
		{"UCS-2", nil,
			func(m *delivery.Outgoing) { m.Content.Text = "я" }, func(t *testing.T, m wire.Message) {
				require.EqualValues(t, 8, m.DataCoding)
				require.Equal(t, []byte{0x04, 0x4F}, m.Short)
			}},
		{"payload", map[string]string{"long_messages": "payload"},
			func(m *delivery.Outgoing) { m.Content.Text = strings.Repeat("a", 400) },
			func(t *testing.T, m wire.Message) {
				require.Empty(t, m.Short)
				require.Len(t, m.Payload(), 400)
				require.EqualValues(t, 1, m.RegisteredDelivery)
			}},
		{"relative expiry", nil,
			func(m *delivery.Outgoing) { m.ExpiresAt = time.Now().Add(90 * time.Minute) },
			func(t *testing.T, m wire.Message) { require.Equal(t, "000000013000000R", m.ValidityPeriod) }},
		{"absolute expiry", map[string]string{"validity": "absolute"},
			func(m *delivery.Outgoing) { m.ExpiresAt = time.Now().Add(time.Minute) },
			func(t *testing.T, m wire.Message) { require.Equal(t, "000101000100000+", m.ValidityPeriod) }}, // synctest starts in 2000
		{"expiry not passed on", map[string]string{"validity": "none"},
			func(m *delivery.Outgoing) { m.ExpiresAt = time.Now().Add(time.Minute) },
			func(t *testing.T, m wire.Message) { require.Empty(t, m.ValidityPeriod) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			scripted(t, tc.settings, func(t *testing.T, o *opened, p *peer) {
				c := p.bound()
				m := message("+12025559900", "x")
				tc.change(m)
				s := o.sending(t.Context(), m)
				h, got := c.submitted()
				c.answer(h, wire.ROK, "1")
				require.NoError(t, (<-s).err)
				tc.want(t, got)
			})
		})
	}
}

func TestNotSent(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(m *delivery.Outgoing)
		class  delivery.Class
		code   string
	}{
		{"no text", func(m *delivery.Outgoing) { m.Content.Text = "" }, delivery.Rejected, "empty_text"},
		{"too long", func(m *delivery.Outgoing) {
			m.Content.Text = strings.Repeat("a", 153*255+1)
		}, delivery.Rejected, "too_long"},
		{"not a number", func(m *delivery.Outgoing) { m.To = "+49abc" }, delivery.Rejected, "invalid_recipient"},
		{"no recipient", func(m *delivery.Outgoing) { m.To = "" }, delivery.Rejected, "invalid_recipient"},
		{"NUL in the recipient", func(m *delivery.Outgoing) { m.To = "+49\x00123" }, delivery.Rejected, "invalid_recipient"},
		{"long sender", func(m *delivery.Outgoing) { m.From = "TwelveLetter" }, delivery.Rejected, "invalid_sender"},
		{"sender outside ASCII", func(m *delivery.Outgoing) { m.From = "Café" }, delivery.Rejected, "invalid_sender"},
		{"NUL in the sender", func(m *delivery.Outgoing) { m.From = "A\x00B" }, delivery.Rejected, "invalid_sender"},
		{"expired", func(m *delivery.Outgoing) { m.ExpiresAt = time.Now() }, delivery.Transient, "expired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			scripted(t, nil, func(t *testing.T, o *opened, _ *peer) {
				m := message("+12025559900", "x")
				tc.change(m)
				_, err := o.Send(t.Context(), m)
				requireClass(t, result{err: err}, tc.class, tc.code)
			})
		})
	}
}
