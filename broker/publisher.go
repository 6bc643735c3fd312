package broker

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// publisher sends messages and waits until RabbitMQ has confirmed each of them. Its argument, in order:
//
//  1. A Publish writes all its messages before it waits, and others write while it waits: confirms are pipelined.
//  2. A message that no queue took is confirmed all the same; RabbitMQ returns it before (mandatory), and one goroutine
//     reads returns and confirms, so that the return is known when the confirm comes.
//  3. Nobody waits longer than the deadline. When it passes and nothing at all has been confirmed meanwhile, the
//     connection is taken for dead and ended, so that the next Publish fails at once and not after the deadline again.
//  4. A session that never confirmed anything does not count as a success: attempts to connect get rarer, and a server
//     that takes connections but confirms nothing costs little.
//  5. While RabbitMQ says that it is blocked, nothing is written, and what waits is given up.
type publisher struct {
	cfg    *config
	link   *link
	status *status

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup // Publish under way
}

func newPublisher(cfg *config, st *status) *publisher {
	p := &publisher{cfg: cfg, status: st}
	p.link = newLink(cfg, "publish", st, p.prepare)
	return p
}

// Publish sends messages and returns when all of them are safe with RabbitMQ, or after 5 s, or when the context of one
// of them ends. Without a connection, and while RabbitMQ is blocked, it fails at once. After an error any of the
// messages may have been published or not.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if err := check(topic, messages); err != nil || len(messages) == 0 {
		return err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return fmt.Errorf("broker: publish to %s: %w", topic, ErrClosed)
	}
	p.busy.Add(1)
	p.mu.Unlock()
	defer p.busy.Done()
	s, err := p.link.session()
	if err == nil {
		err = s.out.publish(topic, messages)
	}
	if err != nil {
		return fmt.Errorf("broker: publish to %s: %w", topic, err)
	}
	return nil
}

// Close waits for every Publish under way and ends the connection.
func (p *publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.busy.Wait()
	p.link.close()
	return nil
}

// outlet is what a session has for publishing.
type outlet struct {
	s    *session
	ch   *amqp.Channel
	wait time.Duration
	turn chan struct{} // whoever writes holds its one place

	mu      sync.Mutex
	settled uint64 // counts confirms
	tag     uint64 // of the last message written; RabbitMQ counts the same
	pending map[uint64]*batch
	known   map[string]bool // topics that have a queue
	blocked string
}

// batch is one Publish.
type batch struct {
	left, returned, refused int    // guarded by outlet.mu, as are the next two
	written                 bool   // at least begun
	seen                    uint64 // outlet.settled then
	over                    chan struct{}
	once                    sync.Once
	err                     error // readable after over
}

// end ends the wait for a batch. The first cause is kept.
func (b *batch) end(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.over)
	})
}

// prepare opens a channel with confirms.
func (p *publisher) prepare(s *session) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	o := &outlet{
		s: s, ch: ch, wait: p.cfg.confirmWait, turn: make(chan struct{}, 1),
		pending: map[uint64]*batch{}, known: map[string]bool{},
	}
	s.out = o
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	// The library gives a return away before it reads on. Without a buffer, whoever takes it has it before the confirm.
	returned := ch.NotifyReturn(make(chan amqp.Return))
	confirmed := ch.NotifyPublish(make(chan amqp.Confirmation, 256))
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	go o.settle(returned, confirmed)
	go func() {
		defer p.status.block("") // the next connection is told anew
		for b := range blocked {
			p.status.block(o.block(b))
		}
	}()
	go func() { // the server closes a channel on what it takes for our mistake; without it the session is of no use
		if err := <-closed; err != nil {
			s.end(err)
		}
	}()
	return ch.Confirm(false)
}

// publish writes msgs and waits for their confirms.
func (o *outlet) publish(topic string, msgs []*message.Message) error {
	b := &batch{left: len(msgs), over: make(chan struct{})}
	deadline := time.Now().Add(o.wait)
	defer time.AfterFunc(o.wait, func() { o.expire(b) }).Stop()
	var last context.Context
	for _, m := range msgs {
		if ctx := m.Context(); ctx != last && ctx.Done() != nil {
			defer context.AfterFunc(ctx, func() { b.end(context.Cause(ctx)) })()
			last = ctx
		}
	}
	select {
	case o.turn <- struct{}{}:
		err := o.write(topic, msgs, b, deadline)
		<-o.turn
		if err != nil {
			return err
		}
	case <-b.over:
		return b.err
	case <-o.s.over:
		return o.s.because(ErrDisconnected)
	}
	select {
	case <-b.over:
		return b.err
	case <-o.s.over:
		select {
		case <-b.over: // the answer may have come with the end
			return b.err
		default:
			return o.s.because(ErrDisconnected)
		}
	}
}

// write sends msgs, as long as somebody waits for them. The caller holds the turn.
func (o *outlet) write(topic string, msgs []*message.Message, b *batch, deadline time.Time) error {
	o.mu.Lock()
	known, blocked := o.known[topic], o.blocked
	o.mu.Unlock()
	if blocked != "" {
		return fmt.Errorf("%w (%s)", ErrBlocked, blocked)
	}
	if !known {
		if err := o.s.declare(topic, time.Until(deadline)); err != nil {
			return err
		}
	}
	o.mu.Lock()
	o.known[topic] = true
	b.written, b.seen = true, o.settled // from now on RabbitMQ owes an answer
	o.mu.Unlock()
	for _, m := range msgs {
		select {
		case <-b.over:
			return b.err
		default:
		}
		o.mu.Lock()
		o.tag++
		tag := o.tag
		o.pending[tag] = b
		o.mu.Unlock()
		if err := o.ch.Publish(amqp.DefaultExchange, topic, true, false, pack(m, tag)); err != nil {
			o.s.end(err) // from here on nobody knows what RabbitMQ counts
			return o.s.because(err)
		}
	}
	return nil
}

// settle reads what RabbitMQ says of messages, until the channel is closed.
func (o *outlet) settle(returned <-chan amqp.Return, confirmed <-chan amqp.Confirmation) {
	for returned != nil || confirmed != nil {
		select {
		case r, ok := <-returned:
			if !ok {
				returned = nil
				continue
			}
			tag, _ := strconv.ParseUint(r.CorrelationId, 10, 64)
			o.mu.Lock()
			delete(o.known, r.RoutingKey) // the next Publish makes the queue anew
			if b := o.pending[tag]; b != nil {
				b.returned++
			}
			o.mu.Unlock()
		case c, ok := <-confirmed:
			if !ok {
				confirmed = nil
				continue
			}
			o.confirm(c)
		}
	}
}

func (o *outlet) confirm(c amqp.Confirmation) {
	o.s.useful.Store(true)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settled++
	b := o.pending[c.DeliveryTag]
	if b == nil {
		return // given up
	}
	delete(o.pending, c.DeliveryTag)
	b.left--
	if !c.Ack {
		b.refused++
	}
	switch {
	case b.left > 0:
	case b.returned > 0:
		b.end(fmt.Errorf("%w: %d messages came back", ErrUnroutable, b.returned))
	case b.refused > 0:
		b.end(fmt.Errorf("%w: it refused %d messages", ErrUnconfirmed, b.refused))
	default:
		b.end(nil)
	}
}

// expire gives a batch up whose time has passed, and the connection with it when nothing else has moved either.
func (o *outlet) expire(b *batch) {
	o.mu.Lock()
	still := b.written && b.seen == o.settled
	o.mu.Unlock()
	err := fmt.Errorf("%w within %v", ErrUnconfirmed, o.wait)
	b.end(err)
	if still {
		o.s.end(err)
	}
}

// block takes note of what RabbitMQ says of itself, and returns the reason why it takes no messages.
func (o *outlet) block(b amqp.Blocking) string {
	reason := ""
	if b.Active {
		reason = b.Reason
		if reason == "" {
			reason = "no reason given"
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocked = reason
	if reason != "" {
		for tag, waiting := range o.pending {
			waiting.end(fmt.Errorf("%w (%s)", ErrBlocked, reason))
			delete(o.pending, tag)
		}
	}
	return reason
}
