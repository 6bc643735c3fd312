package redis

import (
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
)

func TestOpenRefuses(t *testing.T) {
	primary := servers.NewRedis(t)
	u, err := url.Parse(primary.URL)
	require.NoError(t, err)
	pw, _ := u.User.Password()
	replica := servers.NewRedis(t, servers.With("replicaof", "127.0.0.1 "+u.Port()), servers.With("masterauth", pw))
	bare, other := *u, *u
	bare.User = nil
	other.User = url.UserPassword("", "not-it")
	for raw, want := range map[string]string{
		"":                         "not a Redis URL",
		"amqp://u:secret@h/":       "not a Redis URL",
		"redis://:secret@h:port/0": "not a Redis URL",
		"redis://:secret@h/zero":   "not a Redis URL",
		bare.String():              "NOAUTH",
		other.String():             "WRONGPASS",
		replica.URL:                "is a replica",
		"redis://" + speaks(t, "HTTP/1.1 400 Bad Request\r\n\r\n"): "is that a Redis?",
	} {
		l, err := Open(background, Options{URL: raw})
		require.ErrorContains(t, err, want, raw)
		require.Nil(t, l)
		for _, secret := range []string{"secret", "not-it", pw} {
			require.NotContains(t, err.Error(), secret)
		}
	}
	_, err = Open(background, Options{URL: primary.URL, Prefix: "a{b}"})
	require.ErrorContains(t, err, "prefix")
	_, err = Open(background, Options{URL: primary.URL, MaxNodes: -1})
	require.ErrorContains(t, err, "number of nodes")
}

// speaks is a server that answers everything with the same.
func speaks(t *testing.T, words string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Read(make([]byte, 100))
			_, _ = c.Write([]byte(words))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// A node starts without Redis, goes by its share, and joins when Redis comes.
func TestRedisAbsentFromTheStart(t *testing.T) {
	server := servers.NewRedis(t)
	server.Stop()
	var log strings.Builder
	p := defaultPace()
	l, err := open(background, Options{
		URL: server.URL, Nodes: func() int { return 4 }, Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, p)
	require.NoError(t, err)
	b := limit(1, 1000, 40)
	require.Eventually(t, func() bool { return reserve(t, l, b) }, time.Minute, 10*time.Millisecond)
	require.False(t, l.Stats().Shared)
	require.Equal(t, 4, l.Stats().Nodes)
	require.NotEmpty(t, l.Stats().Err)
	server.Start()
	require.Eventually(t, func() bool { return l.Stats().Shared }, time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return reserve(t, l, b) }, time.Minute, 10*time.Millisecond)
	require.Empty(t, l.Stats().Err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	require.Contains(t, log.String(), "cannot be reached yet")
	require.Contains(t, log.String(), "Redis is back")
	require.NotContains(t, log.String(), servers.Password)
	_, err = l.Reserve(background, time.Now(), nil, 1)
	require.ErrorIs(t, err, errClosed)
	require.ErrorIs(t, l.Pause(background, b.Key, time.Now()), errClosed)
}

// NOSCRIPT: somebody has flushed the scripts.
func TestScriptsAreFlushed(t *testing.T) {
	server := servers.NewRedis(t)
	l, err := Open(background, Options{URL: server.URL, Nodes: func() int { return 1 }})
	require.NoError(t, err)
	defer l.Close()
	require.Eventually(t, func() bool { return reserve(t, l, limit(1, 1000, 10)) }, time.Minute, time.Millisecond)
	before := l.Stats()
	c, err := prepare(Options{URL: server.URL}, defaultPace())
	require.NoError(t, err)
	defer c.client.Close()
	require.NoError(t, c.client.ScriptFlush(background).Err())
	require.Eventually(t, func() bool { return l.Stats().Calls > before.Calls+3 }, time.Minute, time.Millisecond)
	require.Equal(t, before.Failures, l.Stats().Failures)
	require.Equal(t, before.Epoch, l.Stats().Epoch)
}
