package broker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/internal/servers"
)

// full is a hint of 256 ids.
func full() *message.Message {
	m := message.NewMessage(watermill.NewShortUUID(), make([]byte, 4096))
	m.Metadata = message.Metadata{"tenant": "acme", "channel": "1", "lane": "1"}
	return m
}

// BenchmarkPublish publishes hints that nobody takes, one a Publish by so many publishers, or 100 a Publish by one.
// The raw lines are amqp091 without us.
func BenchmarkPublish(b *testing.B) {
	url := servers.Rabbit(b).URL
	for _, publishers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			br := quiet(b, url)
			require.NoError(b, br.Publish("msgctl.bench", full()))
			work := make(chan struct{})
			done := make(chan error, publishers)
			b.ResetTimer()
			for range publishers {
				go func() {
					for range work {
						if err := br.Publish("msgctl.bench", full()); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			for range publishers {
				require.NoError(b, <-done)
			}
			perSecond(b, 1)
		})
	}
	b.Run("batch=100", func(b *testing.B) {
		br := quiet(b, url)
		require.NoError(b, br.Publish("msgctl.bench", full()))
		for b.Loop() {
			msgs := make([]*message.Message, 100)
			for i := range msgs {
				msgs[i] = full()
			}
			require.NoError(b, br.Publish("msgctl.bench", msgs...))
		}
		perSecond(b, 100)
	})
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("raw/batch=%d", batch), func(b *testing.B) {
			ch := raw(b, url)
			require.NoError(b, ch.Confirm(false))
			body := make([]byte, 4096)
			for b.Loop() {
				var last *amqp.DeferredConfirmation
				for range batch {
					var err error
					last, err = ch.PublishWithDeferredConfirm("", "msgctl.bench", true, false, amqp.Publishing{Body: body})
					require.NoError(b, err)
				}
				require.True(b, last.Wait())
			}
			perSecond(b, batch)
		})
	}
}

// BenchmarkPassage publishes and consumes at the same time: 8 publishers, one subscription that acknowledges at once.
func BenchmarkPassage(b *testing.B) {
	for _, kind := range []string{
		broker.Memory, "prefetch=1", "prefetch=16", "prefetch=64", "prefetch=200", "queues=classic",
	} {
		b.Run(kind, func(b *testing.B) {
			url := kind
			if kind != broker.Memory {
				url = servers.Rabbit(b).URL + "?" + kind
			}
			br := quiet(b, url)
			in, err := br.Subscribe(context.Background(), "msgctl.bench")
			require.NoError(b, err)
			work := make(chan struct{})
			for range 8 {
				go func() {
					for range work {
						if br.Publish("msgctl.bench", full()) != nil {
							return
						}
					}
				}()
			}
			go func() {
				defer close(work)
				for range b.N {
					work <- struct{}{}
				}
			}()
			b.ResetTimer()
			for range b.N {
				(<-in).Ack()
			}
			perSecond(b, 1)
		})
	}
}

func quiet(b *testing.B, url string) *broker.Broker {
	br, err := broker.Open(url, nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, br.Close()) })
	return br
}

func perSecond(b *testing.B, each int) {
	b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "hints/s")
}
