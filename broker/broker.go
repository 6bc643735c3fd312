// Package broker opens the Watermill publisher and subscriber that a URL names.
//
// It adds no interface of its own. What goes through it are hints: ids of work that the store already holds. Losing all
// of them costs latency and nothing else.
package broker

import (
	"fmt"
	"log/slog"
	"net/url"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// Memory is the URL of the in-process broker.
const Memory = "memory:"

// Broker is an open connection. Both halves are safe for concurrent use; Close ends both and is safe twice.
type Broker struct {
	message.Publisher
	message.Subscriber
	close func() error
}

// Open connects to the broker at rawURL: "memory:" or "" for the one inside the process.
//
// The in-process broker makes Publish wait until every subscriber has acknowledged. That is what bounds its memory: it
// never holds more messages than there are publishers.
func Open(rawURL string, log *slog.Logger) (*Broker, error) {
	if rawURL == "" {
		rawURL = Memory
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if u.Scheme != "memory" {
		return nil, fmt.Errorf("broker: unknown scheme %q in %q: use %s", u.Scheme, u.Redacted(), Memory)
	}
	ps := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, Logger(log))
	return &Broker{Publisher: ps, Subscriber: ps, close: ps.Close}, nil
}

// Close ends publishing and subscribing.
func (b *Broker) Close() error { return b.close() }

// Logger lets Watermill write to an slog logger. Watermill's info lines are about its own wiring and become debug lines.
func Logger(log *slog.Logger) watermill.LoggerAdapter {
	if log == nil {
		return watermill.NopLogger{}
	}
	return watermill.NewSlogLoggerWithLevelMapping(log.With("part", "watermill"), map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug,
	})
}
