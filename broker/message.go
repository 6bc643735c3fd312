package broker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// hintTTL is how long RabbitMQ keeps a message that nobody takes. By then the sweeper has found the work.
const hintTTL = time.Minute

// Bounds of what is published. AMQP 0-9-1 §4.2.5.3 has short strings of 255 bytes, and the headers of a message have
// to fit into one frame of 128 KiB. Payloads are bounded because RabbitMQ keeps them.
const (
	maxShort    = 255
	maxMetadata = 64 << 10
	maxPayload  = 1 << 20
)

// check finds what RabbitMQ would answer by closing the channel, to the harm of everybody else who publishes.
func check(topic string, msgs []*message.Message) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	for _, m := range msgs {
		size := 0
		for k, v := range m.Metadata {
			if k == "" || len(k) > maxShort {
				return fmt.Errorf("broker: message %.40q: a metadata key of %d bytes: 1 to %d are possible",
					m.UUID, len(k), maxShort)
			}
			size += len(k) + len(v)
		}
		switch {
		case len(m.UUID) > maxShort:
			return fmt.Errorf("broker: message %.40q…: an id of %d bytes: at most %d are possible",
				m.UUID, len(m.UUID), maxShort)
		case size > maxMetadata:
			return fmt.Errorf("broker: message %s: %d bytes of metadata: at most %d are possible", m.UUID, size, maxMetadata)
		case len(m.Payload) > maxPayload:
			return fmt.Errorf("broker: message %s: %d bytes: at most %d are possible", m.UUID, len(m.Payload), maxPayload)
		}
	}
	return nil
}

func checkTopic(topic string) error {
	switch {
	case topic == "":
		return errors.New("broker: no topic")
	case len(topic) > maxShort:
		return fmt.Errorf("broker: topic %.40q… has %d bytes: at most %d are possible", topic, len(topic), maxShort)
	case strings.HasPrefix(topic, "amq."):
		return fmt.Errorf("broker: topic %q: names that begin with amq. belong to RabbitMQ", topic)
	}
	return nil
}

// pack makes an AMQP message of m. tag comes back with it should there be no queue for it.
func pack(m *message.Message, tag uint64) amqp.Publishing {
	p := amqp.Publishing{
		MessageId: m.UUID, CorrelationId: strconv.FormatUint(tag, 10), DeliveryMode: amqp.Persistent,
		Expiration: strconv.FormatInt(hintTTL.Milliseconds(), 10), Body: m.Payload,
	}
	if len(m.Metadata) > 0 {
		p.Headers = make(amqp.Table, len(m.Metadata))
		for k, v := range m.Metadata {
			p.Headers[k] = v
		}
	}
	return p
}

// unpack makes a message of what RabbitMQ delivered. Headers that are no text are RabbitMQ's own or a stranger's.
func unpack(d *amqp.Delivery) *message.Message {
	m := message.NewMessage(d.MessageId, d.Body)
	for k, v := range d.Headers {
		if text, ok := v.(string); ok {
			m.Metadata[k] = text
		}
	}
	return m
}

// returns counts how often a message has been given out before. Quorum queues count in a header.
func returns(d *amqp.Delivery) int {
	switch n := d.Headers["x-delivery-count"].(type) {
	case int64:
		return int(min(max(n, 0), deliveryLimit))
	case int32:
		return int(min(max(n, 0), deliveryLimit))
	}
	if d.Redelivered {
		return 1
	}
	return 0
}
