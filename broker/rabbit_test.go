package broker_test

import (
	"log/slog"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/broker/brokertest"
	"github.com/msgctl/msgctl/internal/servers"
)

// log writes to the test. What comes after its end is lost.
func log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t testing.TB, url string) *broker.Broker {
	t.Helper()
	b, err := broker.Open(url, log(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func TestMemoryKit(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Broker { return open(t, broker.Memory) })
}

func TestRabbitKit(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Broker { return open(t, servers.Rabbit(t).URL) })
}

// TestRabbitPubSub is Watermill's own suite. Several messages are out at once, so no order is promised over redelivery;
// nor is a group of consumers, for every subscription is one of the same group.
func TestRabbitPubSub(t *testing.T) {
	url := servers.Rabbit(t).URL + "?redeliver=20" // the suite refuses a message more than once
	t.Run("suite", func(t *testing.T) {            // waits for the parallel tests before the server goes
		tests.TestPubSub(t, tests.Features{Persistent: true, ForceShort: true},
			func(t *testing.T) (message.Publisher, message.Subscriber) {
				b := open(t, url)
				return b.Publisher, b.Subscriber // closed one by one
			}, nil)
	})
}
