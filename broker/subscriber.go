package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// subscriber gives out what the queues hold. A subscription outlives its connections: whoever reads its channel does
// not notice that one was lost, but that messages which were not acknowledged come again.
type subscriber struct {
	cfg    *config
	link   *link
	status *status

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	made   int            // subscriptions so far
	open   sync.WaitGroup // subscriptions
}

func newSubscriber(cfg *config, st *status) *subscriber {
	s := &subscriber{cfg: cfg, status: st, link: newLink(cfg, "consume", st, nil)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Subscribe gives out the messages of a topic until ctx or the subscriber ends; then the channel is closed. It does not
// wait for a connection. Every subscription to a topic, of this process or another, gets a share of its messages.
//
// Up to prefetch messages are out at once, in the order of the queue. Each is to be acknowledged. A Nack brings a
// message back as often as redeliver says, to any subscription; after that it is dropped. The end of a message's
// context says that it was acknowledged or that the subscription is over; what was not by then comes again.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if err := checkTopic(topic); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("broker: subscribe to %s: %w", topic, ErrClosed)
	}
	s.made++
	sub := &subscription{
		cfg: s.cfg, status: s.status, link: s.link, topic: topic,
		part: fmt.Sprintf("consume %s (%d)", topic, s.made),
		tag:  fmt.Sprintf("%.200s-%d", s.cfg.node, s.made),
		out:  make(chan *message.Message), room: make(chan struct{}, s.cfg.prefetch),
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	s.open.Go(func() {
		defer cancel()
		defer stop()
		sub.run(ctx)
	})
	return sub.out, nil
}

// Close ends all subscriptions and the connection.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.open.Wait()
	s.link.close()
	return nil
}

// subscription is one channel of messages.
type subscription struct {
	cfg    *config
	link   *link
	status *status
	topic  string
	part   string // its name in Health
	tag    string // its name in RabbitMQ
	out    chan *message.Message

	// room has a place for each message that is out. It belongs to the subscription and not to a session: messages of a
	// lost connection that nobody has answered yet count, so that reconnecting again and again piles up nothing.
	room    chan struct{}
	waiting sync.WaitGroup // messages that are out
}

// errCanceled says that RabbitMQ has ended a subscription, as it does when its queue is deleted.
var errCanceled = errors.New("RabbitMQ has ended the subscription")

// errIdle is why a subscription asks anew after a time without messages. RabbitMQ does not always say that it has ended
// one: when a queue is deleted and made anew at once, whoever listened to the old one waits for ever.
var errIdle = errors.New("nothing came for long")

func (s *subscription) run(ctx context.Context) {
	defer close(s.out)
	defer s.waiting.Wait()
	defer s.status.trouble(s.part, nil)
	for fails := 0; ; fails++ {
		conn := s.link.await(ctx)
		if conn == nil {
			return
		}
		worked, err := s.consume(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errIdle) {
			fails = -1
			continue
		}
		if worked {
			fails = 0
		}
		select {
		case <-conn.over: // that is the link's trouble
		default:
			s.status.trouble(s.part, err)
		}
		if !pause(ctx, s.cfg.delay(fails)) {
			return
		}
	}
}

// consume gives out messages as long as the connection and ctx last. It reports whether any subscription came about.
func (s *subscription) consume(ctx context.Context, conn *session) (worked bool, err error) {
	ch, deliveries, err := s.listen(conn)
	if err != nil {
		return false, conn.because(err)
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	conn.useful.Store(true)
	s.status.trouble(s.part, nil)
	defer func() {
		defer conn.within(s.cfg.closeWait)()
		if ctx.Err() != nil {
			s.waiting.Wait() // what has been acknowledged is to be so for RabbitMQ too
		}
		_ = ch.Close() // the server takes back the rest; an error says that it was closed already
	}()
	idle := time.NewTimer(s.cfg.renew)
	defer idle.Stop()
	for {
		select {
		case d, ok := <-deliveries:
			idle.Reset(s.cfg.renew)
			if !ok {
				select {
				case e := <-closed:
					if e != nil {
						return true, conn.because(e)
					}
				default:
				}
				return true, conn.because(errCanceled)
			}
			if !s.give(ctx, conn, d) {
				return true, ctx.Err()
			}
		case <-idle.C:
			if len(s.room) == 0 { // else it would bring back what is being worked on
				return true, errIdle
			}
			idle.Reset(s.cfg.renew)
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// listen asks for the messages of the topic.
func (s *subscription) listen(conn *session) (*amqp.Channel, <-chan amqp.Delivery, error) {
	if err := conn.declare(s.topic, s.cfg.confirmWait); err != nil {
		return nil, nil, err
	}
	defer conn.within(s.cfg.confirmWait)()
	ch, err := conn.conn.Channel()
	if err != nil {
		return nil, nil, err
	}
	if err := ch.Qos(s.cfg.prefetch, 0, false); err != nil {
		return nil, nil, err
	}
	deliveries, err := ch.Consume(s.topic, s.tag, false, false, false, false, nil)
	return ch, deliveries, err
}

// give hands a message to the reader of the channel and waits for the answer beside it. false = ctx has ended.
func (s *subscription) give(ctx context.Context, conn *session, d amqp.Delivery) bool {
	select {
	case s.room <- struct{}{}:
	case <-conn.over: // it comes again
		return true
	case <-ctx.Done():
		return false
	}
	m := unpack(&d)
	mctx, cancel := context.WithCancel(ctx)
	m.SetContext(mctx)
	select {
	case s.out <- m:
	case <-conn.over:
		cancel()
		<-s.room
		return true
	case <-ctx.Done():
		cancel()
		<-s.room
		return false
	}
	s.waiting.Go(func() {
		defer func() { <-s.room }()
		defer cancel()
		s.answer(ctx, m, d)
	})
	return true
}

// answer tells RabbitMQ what became of a message. An error says that the connection is gone: the message comes again.
func (s *subscription) answer(ctx context.Context, m *message.Message, d amqp.Delivery) {
	select {
	case <-m.Acked():
		_ = d.Ack(false)
	case <-m.Nacked():
		_ = d.Nack(false, returns(&d) < s.cfg.redeliver)
	case <-ctx.Done():
		select {
		case <-m.Acked():
			_ = d.Ack(false)
		default:
		}
	}
}
