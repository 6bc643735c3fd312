package news_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/news"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func debug(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t *testing.T, url string) *news.News {
	t.Helper()
	n, err := news.Open(context.Background(), url, debug(t.Output()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// next is the next notice, within a time that nothing needs unless it is broken.
func next(t *testing.T, s *news.Subscription) news.Notice {
	t.Helper()
	select {
	case x, ok := <-s.C():
		require.True(t, ok, "the channel is closed")
		return x
	case <-time.After(time.Minute):
		require.FailNow(t, "no notice")
	}
	return news.Notice{}
}

func begun(t *testing.T, s *news.Subscription) {
	t.Helper()
	require.Equal(t, news.Notice{Gap: true}, next(t, s), "a subscription begins with a gap")
}

func TestNodesHearEachOther(t *testing.T) {
	for _, url := range []string{"", servers.Redis(t).URL} {
		a := open(t, url)
		b := a
		if url != "" {
			b = open(t, url)
		}
		sa, sb, other := a.Subscribe("changes"), b.Subscribe("changes"), b.Subscribe("events.acme")
		begun(t, sa)
		begun(t, sb)
		begun(t, other)
		late := a.Subscribe("changes")
		begun(t, late)
		for i := range 20 {
			payload := []byte(strconv.Itoa(i))
			a.Publish(context.Background(), "changes", payload)
			payload[0] = 'x' // is not kept
		}
		for _, s := range []*news.Subscription{sa, sb, late} {
			for i := range 20 {
				require.Equal(t, news.Notice{Payload: []byte(strconv.Itoa(i))}, next(t, s))
			}
		}
		b.Publish(context.Background(), "events.acme", []byte("one"))
		require.Equal(t, "one", string(next(t, other).Payload))
		require.Empty(t, sa.C())
	}
}

func TestDatabasesAreApart(t *testing.T) {
	server := servers.NewRedis(t)
	a, b := open(t, server.URL), open(t, server.URL[:len(server.URL)-1]+"1")
	sa, sb := a.Subscribe("x"), b.Subscribe("x")
	begun(t, sa)
	begun(t, sb)
	a.Publish(context.Background(), "x", []byte("a"))
	b.Publish(context.Background(), "x", []byte("b"))
	require.Equal(t, "a", string(next(t, sa).Payload))
	require.Equal(t, "b", string(next(t, sb).Payload))
}

func TestClosedSubscriptionsHearNothing(t *testing.T) {
	for _, url := range []string{"", servers.Redis(t).URL} {
		n := open(t, url)
		one, two := n.Subscribe("x"), n.Subscribe("x")
		begun(t, one)
		begun(t, two)
		one.Close()
		one.Close()
		_, open := <-one.C()
		require.False(t, open)
		n.Publish(context.Background(), "x", []byte("1"))
		require.Equal(t, "1", string(next(t, two).Payload))
		two.Close()
		again := n.Subscribe("x") // Redis has been told to stop in between, or not
		begun(t, again)
		require.Eventually(t, func() bool {
			n.Publish(context.Background(), "x", []byte("2"))
			select {
			case x := <-again.C():
				return string(x.Payload) == "2"
			default:
				return false
			}
		}, time.Minute, 10*time.Millisecond)
		require.NoError(t, n.Close())
		require.NoError(t, n.Close())
		for range again.C() {
		}
		again.Close()
		n.Publish(context.Background(), "x", []byte("3"))
		_, open = <-n.Subscribe("x").C()
		require.False(t, open)
	}
}

// A receiver that does not look keeps the newest notices, and is told that older ones are gone.
func TestSlowReceiversLoseTheOldest(t *testing.T) {
	n := open(t, "")
	s := n.Subscribe("x")
	for i := range 1000 {
		n.Publish(context.Background(), "x", []byte(strconv.Itoa(i)))
	}
	gaps, last := 0, -1
	for range 64 {
		x := next(t, s)
		i, err := strconv.Atoi(string(x.Payload))
		require.NoError(t, err)
		require.Greater(t, i, last)
		if x.Gap {
			gaps++
		}
		last = i
	}
	require.Equal(t, 999, last)
	require.NotZero(t, gaps)
	require.Empty(t, s.C())
	n.Publish(context.Background(), "x", make([]byte, news.MaxPayload+1))
	require.Empty(t, s.C())
}

func TestRedisComesAndGoes(t *testing.T) {
	server := servers.NewRedis(t)
	a, b := open(t, server.URL), open(t, server.URL)
	s := b.Subscribe("x")
	begun(t, s)
	for _, trouble := range []func(){server.Kill, server.Stop} {
		trouble()
		for i := range 2000 { // nothing blocks, nothing piles up
			a.Publish(context.Background(), "x", []byte(fmt.Sprint("away ", i)))
		}
		added := b.Subscribe(fmt.Sprintf("added %p", trouble))
		server.Start()
		for x := next(t, s); ; x = next(t, s) { // some that were put down while Redis was away may come
			if x.Gap {
				break
			}
		}
		begun(t, added)
		require.Eventually(t, func() bool {
			a.Publish(context.Background(), "x", []byte("back"))
			for len(s.C()) > 0 {
				if string(next(t, s).Payload) == "back" {
					return true
				}
			}
			return false
		}, time.Minute, 20*time.Millisecond)
	}
}

func TestRedisAbsentFromTheStart(t *testing.T) {
	server := servers.NewRedis(t)
	server.Stop()
	n := open(t, server.URL)
	s := n.Subscribe("x")
	n.Publish(context.Background(), "x", []byte("lost"))
	server.Start()
	for !next(t, s).Gap {
	}
}

// A connection over which nothing comes any more is given up, and its end is a gap.
func TestHungRedisIsGivenUp(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t)
	link, url := servers.ProxyURL(t, server.URL)
	var log lines
	n, err := news.Open(context.Background(), url, debug(&log))
	require.NoError(t, err)
	defer n.Close()
	s := n.Subscribe("x")
	begun(t, s)
	link.Hang()
	n.Publish(context.Background(), "x", []byte("lost"))
	require.Eventually(t, func() bool { return log.contains("Redis is away") }, time.Minute, 10*time.Millisecond)
	link.Heal()
	for !next(t, s).Gap {
	}
	require.False(t, log.contains(servers.Password))
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

func TestConcurrentUse(t *testing.T) {
	n := open(t, servers.Redis(t).URL)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				s := n.Subscribe(strconv.Itoa(j % 5))
				n.Publish(context.Background(), strconv.Itoa(i%5), []byte("x"))
				s.Close()
			}
		})
	}
	wg.Wait()
}

func TestBadURLs(t *testing.T) {
	for _, url := range []string{
		"amqp://localhost", "redis://:secret@host:port", "redis://u:secret@h/x", "redis://u:secret@h?foo=1", "%",
	} {
		_, err := news.Open(context.Background(), url, nil)
		require.ErrorContains(t, err, "news: not a Redis URL", url)
		require.NotContains(t, err.Error(), "secret")
	}
}
