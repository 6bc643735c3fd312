// Package broker opens the Watermill publisher and subscriber that a URL names.
//
// It adds no interface of its own. What goes through it are hints: ids of work that the store already holds. Losing all
// of them costs latency and nothing else.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// Memory is the URL of the in-process broker.
const Memory = "memory:"

// Why a Publish to RabbitMQ failed. None of them loses work: whoever publishes hints lets the sweeper find it.
var (
	ErrClosed       = errors.New("the broker is closed")
	ErrDisconnected = errors.New("RabbitMQ is not connected")
	ErrBlocked      = errors.New("RabbitMQ takes no messages: it is short of memory or disk")
	ErrUnroutable   = errors.New("RabbitMQ has no queue for the topic")
	ErrUnconfirmed  = errors.New("RabbitMQ has not confirmed")
)

// Broker is an open connection. Both halves are safe for concurrent use; Close ends both and is safe twice.
type Broker struct {
	message.Publisher
	message.Subscriber
	close  func() error
	health func() Health
}

// Options is what is not in the URL. The zero value is useful.
type Options struct {
	Node string           // names this process in RabbitMQ's lists of connections and consumers
	Now  func() time.Time // dates Health; nil = time.Now. Deadlines of the network run on real time whatever it says
}

// Open connects to the broker at rawURL: "memory:" or "" for the one inside the process, "amqp://" or "amqps://" for
// RabbitMQ (see OpenWith).
//
// The in-process broker makes Publish wait until every subscriber has acknowledged. That is what bounds its memory: it
// never holds more messages than there are publishers.
func Open(rawURL string, log *slog.Logger) (*Broker, error) { return OpenWith(rawURL, log, nil) }

// OpenWith is Open with options; nil is the same as none.
//
// A RabbitMQ URL reads amqp[s]://user:password@host[:port][/vhost][?…]. What is left out is guest:guest, 5672 or 5671
// and the vhost "/". Its parameters:
//
//   - prefetch=N (1–1000, default 16): how many messages of a subscription are with the process at once
//   - redeliver=N (0–20, default 1): how often a message comes back that was refused by Nack
//   - queues=quorum or classic (default quorum): what kind of queues to make. Quorum queues are for a RabbitMQ of
//     several nodes; on a single one classic queues do as well, and start more surely after a crash
//   - cacert=FILE: PEM certificates of the authorities to trust instead of the system's (amqps only)
//   - cert=FILE and key=FILE: the certificate that this process shows (amqps only)
//
// OpenWith waits for the first attempt to connect, 5 s at most. What only a human can put right (a wrong password, an
// unknown vhost, a certificate that does not hold) is an error. A server that cannot be reached is none: the process
// starts, Publish fails at once and Health says why until the server is there.
func OpenWith(rawURL string, log *slog.Logger, opt *Options) (*Broker, error) {
	if opt == nil {
		opt = &Options{}
	}
	now := opt.Now
	if now == nil {
		now = time.Now
	}
	if rawURL == "" {
		rawURL = Memory
	}
	u, err := url.Parse(rawURL)
	if err != nil { // its text may hold a part of the password
		return nil, errors.New("broker: the URL cannot be read: write special characters of user and password as %XX, " +
			"for example @ as %40 and / as %2F")
	}
	switch u.Scheme {
	case "memory":
		ps := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, Logger(log))
		opened := now()
		return &Broker{
			Publisher: ps, Subscriber: ps, close: ps.Close,
			health: func() Health { return Health{Connected: true, Since: opened} },
		}, nil
	case "amqp", "amqps":
		cfg, err := parse(u)
		if err != nil {
			return nil, fmt.Errorf("broker: %w", err) // not the URL: a part of the password may stand where the host does
		}
		cfg.node, cfg.now = opt.Node, now
		return open(cfg, log)
	default:
		return nil, fmt.Errorf("broker: unknown scheme %q: use %s, amqp:// or amqps://", u.Scheme, Memory)
	}
}

// Close ends publishing and subscribing.
func (b *Broker) Close() error { return b.close() }

// Health says how the broker is now. It is cheap and never waits for the network.
func (b *Broker) Health() Health { return b.health() }

// Logger lets Watermill write to an slog logger. Watermill's info lines are about its own wiring and become debug
// lines.
func Logger(log *slog.Logger) watermill.LoggerAdapter {
	if log == nil {
		return watermill.NopLogger{}
	}
	return watermill.NewSlogLoggerWithLevelMapping(log.With("part", "watermill"), map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug,
	})
}
