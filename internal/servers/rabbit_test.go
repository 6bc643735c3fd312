package servers_test

import (
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
)

// channel opens a connection, which ends with the test, and a channel in confirm mode.
func channel(t *testing.T, raw string) (*amqp.Connection, *amqp.Channel) {
	t.Helper()
	conn, err := dialRabbit(raw)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) })
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	return conn, ch
}

func dialRabbit(raw string) (*amqp.Connection, error) {
	return amqp.DialConfig(raw, amqp.Config{Heartbeat: 10 * time.Second, Dial: amqp.DefaultDial(5 * time.Second)})
}

func queue(t *testing.T, ch *amqp.Channel, name string) {
	t.Helper()
	_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	require.NoError(t, err)
}

func publish(t *testing.T, ch *amqp.Channel, queue string) {
	t.Helper()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(within(t), "", queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("hint")})
	require.NoError(t, err)
	acked, err := confirm.WaitContext(within(t))
	require.NoError(t, err)
	require.True(t, acked)
}

func TestRabbitHostsAreApart(t *testing.T) {
	t.Parallel()
	a, b := servers.Rabbit(t), servers.Rabbit(t)
	_, in := channel(t, a.URL)
	queue(t, in, "q")
	publish(t, in, "q")
	_, there := channel(t, b.URL)
	_, err := there.QueueDeclarePassive("q", true, false, false, false, nil)
	require.ErrorContains(t, err, "NOT_FOUND")
	require.Contains(t, failure(t, func(tb testing.TB) { servers.Rabbit(tb).Kill() }), "shared; use NewRabbit")

	var ended string
	t.Run("test", func(t *testing.T) { ended = servers.Rabbit(t).URL })
	_, err = dialRabbit(ended)
	require.Error(t, err, "the virtual host outlives its test")
}

func TestRabbitHostsAreMadeAtOnce(t *testing.T) {
	t.Parallel()
	servers.Rabbit(t) // the server has started
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { servers.Rabbit(t) })
	}
	all.Wait()
}

func TestRabbitLife(t *testing.T) {
	t.Parallel()
	r := servers.NewRabbit(t, servers.With("log.console.level", "error"))
	conn, ch := channel(t, r.URL)
	queue(t, ch, "q")
	publish(t, ch, "q")
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 4))
	r.Alarm()
	// The server blocks a connection with its next message.
	require.NoError(t, ch.PublishWithContext(within(t), "", "q", false, false, amqp.Publishing{Body: []byte("more")}))
	state := func() bool {
		select {
		case b := <-blocked:
			return b.Active
		case <-within(t).Done():
			t.Fatal("nothing said of the alarm")
			return false
		}
	}
	require.True(t, state())
	r.Calm()
	require.False(t, state())

	r.Stall()
	_, err := dialRabbit(r.URL)
	require.Error(t, err, "a stalled server has answered")
	r.Resume()
	publish(t, ch, "q")

	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	r.Settle()
	r.Kill()
	require.NotNil(t, <-closed)
	r.Start()
	conn, _ = channel(t, r.URL)
	require.Eventually(t, func() bool { // a quorum queue chooses its leader first
		ch, err := conn.Channel()
		if err != nil {
			return false
		}
		defer ch.Close()
		q, err := ch.QueueDeclarePassive("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		return err == nil && q.Messages >= 2
	}, 20*time.Second, 50*time.Millisecond, "a confirmed message is lost")

	if testing.Short() {
		return
	}
	r.Wipe()
	_, ch = channel(t, r.URL)
	_, err = ch.QueueDeclarePassive("q", true, false, false, false, nil)
	require.ErrorContains(t, err, "NOT_FOUND")
	require.Equal(t, "3", r.Eval("1 + 2"))
	r.Stop()
	require.False(t, r.Running())
}
