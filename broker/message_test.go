package broker_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/broker"
)

// TestPackUnpack: what can be published comes out as it went in, whatever RabbitMQ adds on the way.
func TestPackUnpack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := message.NewMessage(rapid.StringN(0, 60, 255).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "payload"))
		m.Metadata = rapid.MapOf(rapid.StringN(1, 60, 255), rapid.String()).Draw(t, "metadata")
		if err := broker.Check("topic", m); err != nil {
			t.Fatalf("it cannot be published: %v", err)
		}
		p := broker.Pack(m, rapid.Uint64().Draw(t, "tag"))
		d := amqp.Delivery{MessageId: p.MessageId, Headers: amqp.Table{}, Body: p.Body}
		for k, v := range p.Headers {
			d.Headers[k] = v
		}
		for _, own := range []string{"x-delivery-count", "x-death"} {
			if _, ours := m.Metadata[own]; !ours {
				d.Headers[own] = int64(3)
			}
		}
		if got := broker.Unpack(&d); !got.Equals(m) {
			t.Fatalf("%v went in, %v came out", m, got)
		}
	})
}

func TestImpossibleMessages(t *testing.T) {
	meta := func(k, v string) *message.Message {
		m := message.NewMessage("id", nil)
		m.Metadata[k] = v
		return m
	}
	ok := message.NewMessage(strings.Repeat("i", 255), make([]byte, 1<<20))
	ok.Metadata[strings.Repeat("k", 255)] = strings.Repeat("v", 64<<10-255)
	require.NoError(t, broker.Check(strings.Repeat("t", 255), ok))
	for says, c := range map[string]struct {
		topic string
		m     *message.Message
	}{
		"no topic":               {"", ok},
		"topic":                  {strings.Repeat("t", 256), ok},
		"belong to RabbitMQ":     {"amq.direct", ok},
		"an id of 256 bytes":     {"t", message.NewMessage(strings.Repeat("i", 256), nil)},
		"metadata key of 0":      {"t", meta("", "v")},
		"metadata key of 256":    {"t", meta(strings.Repeat("k", 256), "v")},
		"bytes of metadata":      {"t", meta("k", strings.Repeat("v", 64<<10))},
		"1048577 bytes: at most": {"t", message.NewMessage("id", make([]byte, 1<<20+1))},
	} {
		require.ErrorContains(t, broker.Check(c.topic, c.m), says)
	}
}

// FuzzDelivery feeds what a stranger may have put into the queue: it must come out as a message with an answer.
func FuzzDelivery(f *testing.F) {
	f.Add("id", "tenant", "acme", int64(1), []byte("body"), true)
	f.Add("", "x-delivery-count", "one", int64(-1), []byte(nil), false)
	f.Fuzz(func(t *testing.T, id, key, text string, number int64, body []byte, again bool) {
		for _, v := range []any{
			text, number, int32(number), int8(number), nil, true, []byte(text), amqp.Table{key: text}, []any{number},
		} {
			headers := amqp.Table{"x-delivery-count": number, key: v}
			d := amqp.Delivery{MessageId: id, Headers: headers, Body: body, Redelivered: again}
			m := broker.Unpack(&d)
			if m.UUID != id || !bytes.Equal(m.Payload, body) || len(m.Metadata) > 1 || !m.Ack() {
				t.Errorf("%v came of %v", m, d)
			}
			if n := broker.Returns(&d); n < 0 || n > broker.DeliveryLimit {
				t.Errorf("%v was given out %d times before", d.Headers, n)
			}
		}
	})
}

func TestReturns(t *testing.T) {
	for _, c := range []struct {
		count any
		again bool
		want  int
	}{
		{nil, false, 0}, {nil, true, 1}, {int64(0), true, 0}, {int64(1), true, 1}, {int32(7), true, 7},
		{int64(1 << 40), true, 20},
		{"3", true, 1}, {"3", false, 0},
	} {
		d := amqp.Delivery{Headers: amqp.Table{"x-delivery-count": c.count}, Redelivered: c.again}
		require.Equal(t, c.want, broker.Returns(&d), "%v", c)
	}
}
