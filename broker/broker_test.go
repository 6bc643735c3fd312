package broker_test

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryCarriesInOrderAndWaitsForAcks(t *testing.T) {
	b, err := broker.Open("", nil)
	require.NoError(t, err)
	in, err := b.Subscribe(context.Background(), "topic")
	require.NoError(t, err)
	done := make(chan []string)
	go func() {
		var got []string
		for m := range in {
			got = append(got, string(m.Payload))
			m.Ack()
		}
		done <- got
	}()
	for _, p := range []string{"1", "2", "3"} {
		require.NoError(t, b.Publish("topic", message.NewMessage(p, []byte(p))))
	}
	require.NoError(t, b.Close())
	require.Equal(t, []string{"1", "2", "3"}, <-done)
	require.Error(t, b.Publish("topic", message.NewMessage("4", nil)), "after Close")
	require.NoError(t, b.Close(), "twice")
}

func TestUnknownBroker(t *testing.T) {
	for _, u := range []string{"kafka://u:secret@h/x", "amqp", "::"} {
		_, err := broker.Open(u, nil)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
