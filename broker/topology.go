package broker

import (
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What RabbitMQ holds for us. Every topic has a durable queue of its name, reached through the default exchange:
// a queue for each topic is what keeps urgent hints from waiting behind others, for quorum queues know no priorities.
// Its memory and disk are bounded: the oldest hints, which the sweeper finds first, make room for the newest.
//
// What comes back too often or was refused for good goes to one bounded queue where people can look at it. What has
// only grown old or was pushed out does not: an idle or overloaded cluster would fill it with what says nothing. That
// choice needs the x-match of RabbitMQ 3.10, as TTL in quorum queues does.
const (
	deliveryLimit = 20
	queueLength   = 10_000
	queueBytes    = 32 << 20
	deadName      = "msgctl.dead" // an exchange and a queue
	deadLength    = 1_000
	deadTTL       = 24 * time.Hour
)

func queueArgs(classic bool) amqp.Table {
	args := amqp.Table{
		amqp.QueueTypeArg:        amqp.QueueTypeQuorum,
		"x-delivery-limit":       int32(deliveryLimit),
		amqp.QueueMaxLenArg:      int32(queueLength),
		amqp.QueueMaxLenBytesArg: int32(queueBytes),
		amqp.QueueOverflowArg:    amqp.QueueOverflowDropHead,
		"x-dead-letter-exchange": deadName,
	}
	if classic { // these know no limit; the age of a message bounds how often it can come again
		args[amqp.QueueTypeArg] = amqp.QueueTypeClassic
		delete(args, "x-delivery-limit")
	}
	return args
}

func deadArgs(classic bool) amqp.Table {
	args := amqp.Table{
		amqp.QueueTypeArg:       amqp.QueueTypeQuorum,
		amqp.QueueMaxLenArg:     int32(deadLength),
		amqp.QueueOverflowArg:   amqp.QueueOverflowDropHead,
		amqp.QueueMessageTTLArg: deadTTL.Milliseconds(),
	}
	if classic {
		args[amqp.QueueTypeArg] = amqp.QueueTypeClassic
	}
	return args
}

// declare sees to it that a topic has its queue. A queue that is there with other settings is used as it is, and so is
// one that this user may not make. The server answers a refusal by closing the channel, so each step has its own.
//
// One declaration goes after the other: who declares a quorum queue while somebody else makes it is told that it is
// there before it is, and what is asked of it then ends in an internal error or never. Against other processes there is
// no such help: their first moments on an empty server may cost them a connection.
func (s *session) declare(topic string, wait time.Duration) error {
	defer s.within(wait)()
	select {
	case s.declaring <- struct{}{}:
		defer func() { <-s.declaring }()
	case <-s.over:
		return s.because(ErrDisconnected)
	}
	if err := s.step(s.declareDead); err != nil {
		s.log.Warn("the queue for refused hints cannot be made; they are dropped", "queue", deadName, "err", err)
	}
	err := s.step(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(topic, true, false, false, false, queueArgs(s.classic))
		return err
	})
	if !refused(err) {
		return err
	}
	passive := s.step(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(topic, true, false, false, false, nil)
		return err
	})
	if passive != nil {
		return fmt.Errorf("queue %s: %w", topic, err)
	}
	s.log.Warn("a queue is used that was not made by this version; delete it to have it made anew: it holds hints only",
		"queue", topic, "err", err)
	return nil
}

func (s *session) declareDead(ch *amqp.Channel) error {
	if err := ch.ExchangeDeclare(deadName, amqp.ExchangeHeaders, true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(deadName, true, false, false, false, deadArgs(s.classic)); err != nil {
		return err
	}
	for _, reason := range []string{"rejected", "delivery_limit"} {
		match := amqp.Table{"x-match": "any-with-x", "x-first-death-reason": reason}
		if err := ch.QueueBind(deadName, "", deadName, false, match); err != nil {
			return err
		}
	}
	return nil
}

// step does something on a channel of its own.
func (s *session) step(do func(*amqp.Channel) error) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return s.because(err)
	}
	if err := do(ch); err != nil {
		return s.because(err) // the server has closed the channel
	}
	return s.because(ch.Close())
}

// refused reports whether the server understood a request and said no: it may not be, or not like this.
func refused(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && (e.Code == amqp.AccessRefused || e.Code == amqp.PreconditionFailed)
}
