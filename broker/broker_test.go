package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/broker"
)

func TestMain(m *testing.M) {
	const multiplier = "github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe."
	goleak.VerifyTestMain(m, // Watermill's suite leaves a message unread when it has seen enough
		goleak.IgnoreAnyFunction(multiplier+"func2"), goleak.IgnoreAnyFunction(multiplier+"func3"))
}

func TestMemoryCarriesInOrderAndWaitsForAcks(t *testing.T) {
	opened := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b, err := broker.OpenWith("", nil, &broker.Options{Now: func() time.Time { return opened }})
	require.NoError(t, err)
	require.Equal(t, broker.Health{Connected: true, Since: opened}, b.Health())
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
