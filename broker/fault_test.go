package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/internal/servers"
)

// patience is for what takes as long as it takes on a machine with much else to do.
const patience = time.Minute

// never is a deadline that no test reaches: what waits for it hangs.
const never = 10 * time.Minute

func hasty(t testing.TB, url string, w broker.Waits) *broker.Broker {
	t.Helper()
	if w.BackoffMax == 0 {
		w.BackoffMax = 200 * time.Millisecond
	}
	b, err := broker.OpenHasty(url, log(t), w)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func hint(s string) *message.Message { return message.NewMessage(s, []byte(s)) }

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, patience, 5*time.Millisecond, what)
}

// publish publishes until it succeeds.
func publish(t testing.TB, b *broker.Broker, topic, s string) {
	t.Helper()
	eventually(t, "publish "+s, func() bool { return b.Publish(topic, hint(s)) == nil })
}

func subscribe(t testing.TB, b *broker.Broker, topic string) <-chan *message.Message {
	t.Helper()
	in, err := b.Subscribe(context.Background(), topic)
	require.NoError(t, err)
	return in
}

func next(t testing.TB, in <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m, ok := <-in:
		require.True(t, ok, "the subscription ended")
		return m
	case <-time.After(patience):
		require.Fail(t, "no message came")
		return nil
	}
}

// until acknowledges messages until s comes.
func until(t testing.TB, in <-chan *message.Message, s string) {
	t.Helper()
	for {
		m := next(t, in)
		m.Ack()
		if string(m.Payload) == s {
			return
		}
	}
}

// raw opens a channel as somebody else would.
func raw(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) })
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

// TestOutage cuts the network. While it is away every Publish fails at once, however many there are, and afterwards the
// same subscription goes on.
func TestOutage(t *testing.T) {
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	b := hasty(t, url, broker.Waits{Confirm: never})
	in := subscribe(t, b, "msgctl.plan")
	publish(t, b, "msgctl.plan", "before")
	until(t, in, "before")
	require.True(t, b.Health().Connected, b.Health().Reason)

	link.Cut()
	eventually(t, "it notices", func() bool { return !b.Health().Connected })
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 100 {
				if err := b.Publish("msgctl.plan", hint("lost")); !assertIs(t, err, broker.ErrDisconnected) {
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		require.Fail(t, "Publish waits though there is no connection")
	}
	require.Less(t, runtime.NumGoroutine(), before+10, "goroutines pile up")
	require.Contains(t, b.Health().Reason, "publish: ")
	require.NotContains(t, b.Health().Reason, servers.Password)

	link.Heal()
	publish(t, b, "msgctl.plan", "after")
	until(t, in, "after")
	eventually(t, "it is well again", func() bool { return b.Health().Connected })
	require.Empty(t, b.Health().Reason)
}

func assertIs(t testing.TB, err, want error) bool {
	if !errorIs(err, want) {
		t.Errorf("%v, not %v", err, want)
		return false
	}
	return true
}

// TestSilence holds every byte back: confirms never come. One deadline is waited for; then the connection is given up.
func TestSilence(t *testing.T) {
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	b := hasty(t, url, broker.Waits{Confirm: 500 * time.Millisecond, Dial: 5 * time.Second})
	in := subscribe(t, b, "msgctl.plan")
	publish(t, b, "msgctl.plan", "before")
	until(t, in, "before")

	link.Hang()
	require.ErrorIs(t, b.Publish("msgctl.plan", hint("unheard")), broker.ErrUnconfirmed)
	for range 1000 {
		require.ErrorIs(t, b.Publish("msgctl.plan", hint("lost")), broker.ErrDisconnected)
	}
	link.Heal()
	publish(t, b, "msgctl.plan", "after")
	until(t, in, "after")
}

// TestContextEndsPublish cancels the one who waits for a confirm that never comes.
func TestContextEndsPublish(t *testing.T) {
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	b := hasty(t, url, broker.Waits{Confirm: never})
	publish(t, b, "msgctl.plan", "before")
	link.Hang()
	ctx, cancel := context.WithCancel(context.Background())
	m := hint("canceled")
	m.SetContext(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Publish("msgctl.plan", hint("first"), m) }()
	cancel()
	select {
	case err := <-done:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(patience):
		require.Fail(t, "Publish does not return")
	}
	link.Heal()
	publish(t, b, "msgctl.plan", "the connection still stands")
}

// TestAbsentAtStart opens a broker that is not there yet.
func TestAbsentAtStart(t *testing.T) {
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	link.Cut()
	b := hasty(t, url, broker.Waits{})
	require.False(t, b.Health().Connected)
	require.Contains(t, b.Health().Reason, "refused")
	in := subscribe(t, b, "msgctl.plan")
	require.ErrorIs(t, b.Publish("msgctl.plan", hint("lost")), broker.ErrDisconnected)
	link.Heal()
	publish(t, b, "msgctl.plan", "first")
	until(t, in, "first")

	deaf := server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	quiet, err := broker.OpenHasty("amqp://u:secret@"+deaf+"/", log(t), broker.Waits{Dial: 200 * time.Millisecond})
	require.NoError(t, err)
	require.Contains(t, quiet.Health().Reason, "does not answer within 200ms")
	require.NoError(t, quiet.Close())
}

// TestRefusedAtStart: what only a human can put right is an error of Open, which says what and keeps the password.
func TestRefusedAtStart(t *testing.T) {
	good, err := url.Parse(servers.Rabbit(t).URL)
	require.NoError(t, err)
	wrong := *good
	wrong.User = url.UserPassword(good.User.Username(), "top-secret")
	_, err = broker.Open(wrong.String(), log(t))
	require.ErrorContains(t, err, "check user, password")
	require.NotContains(t, err.Error(), "top-secret")

	wrong = *good
	wrong.Path, wrong.RawPath = "/no such vhost", ""
	_, err = broker.Open(wrong.String(), log(t))
	require.ErrorContains(t, err, "no such vhost")

	wrong = *good
	wrong.Scheme = "amqps" // to a port that speaks in clear
	_, err = broker.Open(wrong.String(), log(t))
	require.ErrorContains(t, err, "TLS")
	require.NotContains(t, err.Error(), servers.Password)
}

// TestTLS goes through a TLS server in front of RabbitMQ, whose authority only cacert names.
func TestTLS(t *testing.T) {
	u, err := url.Parse(servers.Rabbit(t).URL)
	require.NoError(t, err)
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: web.TLS.Certificates})
	require.NoError(t, err)
	var wg sync.WaitGroup
	target := u.Host
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			wg.Go(func() { _, _ = io.Copy(s, c); s.Close() })
			wg.Go(func() { _, _ = io.Copy(c, s); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	require.NoError(t, os.WriteFile(ca, block, 0o600))
	u.Scheme, u.Host, u.RawQuery = "amqps", l.Addr().String(), url.Values{"cacert": {ca}}.Encode()
	b := open(t, u.String())
	require.True(t, b.Health().Connected, b.Health().Reason)
	in := subscribe(t, b, "msgctl.plan")
	publish(t, b, "msgctl.plan", "sealed")
	until(t, in, "sealed")
}

// TestLostConnections resets all connections again and again under way: everything that was confirmed comes, and never
// more messages are out at once than prefetch allows.
func TestLostConnections(t *testing.T) {
	const prefetch, n = 5, 200
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	b := hasty(t, url+"?prefetch=5", broker.Waits{Backoff: time.Millisecond, BackoffMax: 20 * time.Millisecond})
	in := subscribe(t, b, "msgctl.plan")
	var sent, out atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			publish(t, b, "msgctl.plan", fmt.Sprint(i))
			if sent.Add(1)%20 == 0 {
				link.Reset()
			}
		}
	})
	seen := map[string]bool{}
	var held []*message.Message
	for len(seen) < n {
		m := next(t, in)
		seen[string(m.Payload)] = true
		require.LessOrEqual(t, out.Add(1), int64(prefetch), "messages out at once")
		if held = append(held, m); len(held) == prefetch || len(seen) > n-prefetch {
			for _, m := range held {
				out.Add(-1)
				m.Ack()
			}
			held = nil
		}
	}
	wg.Wait()
}

// TestPoison gives a message out whose receivers die: RabbitMQ drops it into the queue for people after its limit. A
// receiver may die with a message that nobody has seen, so it may be seen less often than the limit says, never more.
// Nothing is answered here, and each message takes its place of prefetch.
func TestPoison(t *testing.T) {
	server := servers.Rabbit(t).URL
	link, url := servers.ProxyURL(t, server)
	b := hasty(t, url+"?prefetch=100", broker.Waits{Backoff: time.Millisecond, BackoffMax: 20 * time.Millisecond})
	in, ch := subscribe(t, b, "msgctl.plan"), raw(t, server)
	publish(t, b, "msgctl.plan", "poison")
	seen := 0
	eventually(t, "it died", func() bool {
		select {
		case m := <-in:
			seen++
			require.Equal(t, "poison", string(m.Payload))
			link.Reset()
		default:
		}
		q, err := ch.QueueDeclarePassive(broker.DeadName, true, false, false, false, nil)
		require.NoError(t, err)
		return q.Messages > 0
	})
	require.LessOrEqual(t, seen, broker.DeliveryLimit+1)
	require.Greater(t, seen, broker.DeliveryLimit/2)
	publish(t, b, "msgctl.plan", "harmless")
	until(t, in, "harmless")
	dead(t, ch, "poison", "delivery_limit")
}

// dead expects one message in the queue for people.
func dead(t *testing.T, ch *amqp.Channel, payload, reason string) {
	t.Helper()
	var d amqp.Delivery
	eventually(t, "a dead message", func() bool {
		var ok bool
		var err error
		d, ok, err = ch.Get(broker.DeadName, true)
		require.NoError(t, err)
		return ok
	})
	require.Equal(t, payload, string(d.Body))
	require.Equal(t, reason, d.Headers["x-first-death-reason"])
	_, more, err := ch.Get(broker.DeadName, true)
	require.NoError(t, err)
	require.False(t, more, "something else died")
}

// TestNack: a refused message comes again as often as the URL says, and no more.
func TestNack(t *testing.T) {
	for _, redeliver := range []int{0, 1, 3} {
		t.Run(fmt.Sprint(redeliver), func(t *testing.T) {
			url := servers.Rabbit(t).URL
			b := open(t, fmt.Sprintf("%s?redeliver=%d", url, redeliver))
			in := subscribe(t, b, "msgctl.plan")
			publish(t, b, "msgctl.plan", "refused")
			for range redeliver + 1 {
				m := next(t, in)
				require.Equal(t, "refused", string(m.Payload))
				m.Nack()
			}
			dead(t, raw(t, url), "refused", "rejected")
			publish(t, b, "msgctl.plan", "next")
			require.Equal(t, "next", string(next(t, in).Payload))
		})
	}
}

// TestBounds fills a queue that nobody reads: the oldest go, none of them to the queue for people, and the rest is not
// kept for ever.
func TestBounds(t *testing.T) {
	url := servers.Rabbit(t).URL
	b, ch := open(t, url), raw(t, url)
	const over = 50
	limit := int(broker.QueueArgs()["x-max-length"].(int32))
	for from := 0; from < limit+over; from += 1000 {
		var msgs []*message.Message
		for i := from; i < min(from+1000, limit+over); i++ {
			msgs = append(msgs, hint(fmt.Sprint(i)))
		}
		require.NoError(t, b.Publish("msgctl.plan", msgs...))
	}
	q, err := ch.QueueDeclarePassive("msgctl.plan", true, false, false, false, nil)
	require.NoError(t, err)
	require.Equal(t, limit, q.Messages)
	d, ok, err := ch.Get("msgctl.plan", false)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, fmt.Sprint(over), string(d.Body), "the oldest that is left")
	require.Equal(t, "60000", d.Expiration)
	_, ok, err = ch.Get(broker.DeadName, true)
	require.NoError(t, err)
	require.False(t, ok, "what was pushed out is with the dead")
}

// TestQueueDeleted deletes the queue under everybody: the loss is an error once, and then there is a new one.
func TestQueueDeleted(t *testing.T) {
	url := servers.Rabbit(t).URL
	b, ch := hasty(t, url, broker.Waits{Renew: time.Second}), raw(t, url)
	publish(t, b, "msgctl.plan", "1")
	_, err := ch.QueueDelete("msgctl.plan", false, false, false)
	require.NoError(t, err)
	require.ErrorIs(t, b.Publish("msgctl.plan", hint("2"), hint("3")), broker.ErrUnroutable)
	require.NoError(t, b.Publish("msgctl.plan", hint("4")))
	in := subscribe(t, b, "msgctl.plan")
	until(t, in, "4")
	_, err = ch.QueueDelete("msgctl.plan", false, false, false)
	require.NoError(t, err)
	publish(t, b, "msgctl.plan", "5")
	until(t, in, "5")
}

// TestForeignQueue finds a queue of other making, and uses it.
func TestForeignQueue(t *testing.T) {
	url := servers.Rabbit(t).URL
	_, err := raw(t, url).QueueDeclare("msgctl.plan", true, false, false, false, nil) // a classic one
	require.NoError(t, err)
	var lines locked
	b, err := broker.Open(url, slog.New(slog.NewTextHandler(&lines, nil)))
	require.NoError(t, err)
	defer b.Close()
	in := subscribe(t, b, "msgctl.plan")
	require.NoError(t, b.Publish("msgctl.plan", hint("1")))
	next(t, in).Nack()
	next(t, in).Ack()
	require.Contains(t, lines.String(), "delete it to have it made anew")
	require.NotContains(t, lines.String(), servers.Password)
}

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestManyNodesAtOnce starts a cluster on an empty server: all declare the same queues at the same time.
func TestManyNodesAtOnce(t *testing.T) {
	url := servers.Rabbit(t).URL
	var nodes []*broker.Broker
	got := make(chan string, 1000)
	var wg sync.WaitGroup
	for range 6 {
		b := hasty(t, url, broker.Waits{Confirm: time.Second})
		nodes = append(nodes, b)
		for _, topic := range []string{"msgctl.plan", "msgctl.plan.urgent"} {
			in := subscribe(t, b, topic)
			wg.Go(func() {
				for m := range in {
					got <- string(m.Payload)
					m.Ack()
				}
			})
		}
	}
	for i, b := range nodes {
		wg.Go(func() {
			publish(t, b, "msgctl.plan", fmt.Sprint(i))
			publish(t, b, "msgctl.plan.urgent", fmt.Sprint(i, "!"))
		})
	}
	seen := map[string]bool{}
	for len(seen) < 2*len(nodes) {
		select {
		case s := <-got:
			seen[s] = true
		case <-time.After(patience):
			require.Fail(t, "not all came", "%v", seen)
		}
	}
	for _, b := range nodes {
		require.NoError(t, b.Close())
	}
	wg.Wait()
}

// TestHeldMessages loses the connection while as many messages are out as may be: no more come until one is answered.
func TestHeldMessages(t *testing.T) {
	link, url := servers.ProxyURL(t, servers.Rabbit(t).URL)
	b := hasty(t, url+"?prefetch=3", broker.Waits{Backoff: time.Millisecond})
	in := subscribe(t, b, "msgctl.plan")
	for i := range 20 {
		publish(t, b, "msgctl.plan", fmt.Sprint(i))
	}
	held := []*message.Message{next(t, in), next(t, in), next(t, in)}
	for range 3 {
		before := b.Health().Since
		link.Reset()
		eventually(t, "back anew", func() bool { h := b.Health(); return h.Connected && h.Since.After(before) })
	}
	select {
	case m := <-in:
		require.Fail(t, "a fourth message is out", m.UUID)
	case <-time.After(300 * time.Millisecond):
	}
	held[0].Ack()
	next(t, in)
}

// TestFirstUse publishes to topics that are subscribed to at the same moment and that RabbitMQ does not know.
func TestFirstUse(t *testing.T) {
	b := hasty(t, servers.Rabbit(t).URL, broker.Waits{Confirm: 5 * time.Second})
	for i := range 30 {
		topic := fmt.Sprint("msgctl.plan.", i)
		in := subscribe(t, b, topic)
		require.NoError(t, b.Publish(topic, hint("first")))
		until(t, in, "first")
	}
}
