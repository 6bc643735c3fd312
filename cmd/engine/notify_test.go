package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// listenFor is a service manager's socket.
func listenFor(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	require.NoError(t, err)
	return string(b[:n])
}

// managed makes a supervisor from an environment, and returns what it logs.
func managed(env map[string]string) (*supervisor, *bytes.Buffer) {
	var log bytes.Buffer
	return newSupervisor(func(k string) string { return env[k] }, 77, slog.New(slog.NewTextHandler(&log, nil))), &log
}

func TestSupervisorIsTold(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such socket on Windows")
	}
	names := []string{filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		names = append(names, "@msgctl-notify-"+strconv.Itoa(os.Getpid())) // the abstract namespace
	}
	for _, name := range names {
		conn := listenFor(t, name)
		s, _ := managed(map[string]string{"NOTIFY_SOCKET": name})
		s.ready("serving on 127.0.0.1:8020")
		require.Equal(t, "READY=1\nSTATUS=serving on 127.0.0.1:8020", next(t, conn))
		s.stopping()
		require.Equal(t, "STOPPING=1\nSTATUS=draining", next(t, conn))
		s.close()
	}
}

func TestSupervisorGetsSignsOfLife(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such socket on Windows")
	}
	name := filepath.Join(t.TempDir(), "notify")
	conn := listenFor(t, name)
	s, _ := managed(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "77"})
	require.Equal(t, 10*time.Millisecond, s.every, "half of what is asked for")
	s.ready("x")
	require.True(t, strings.HasPrefix(next(t, conn), "READY=1"))
	require.Equal(t, "WATCHDOG=1", next(t, conn))
	require.Equal(t, "WATCHDOG=1", next(t, conn))
	s.stopping()
	told := next(t, conn)
	for n := 0; told == "WATCHDOG=1" && n < 100; n++ { // signs of life may lie before it
		told = next(t, conn)
	}
	require.Equal(t, "STOPPING=1\nSTATUS=draining", told)
	require.Equal(t, "WATCHDOG=1", next(t, conn), "a drain lives too")
	s.close()
	s.close()
}

func TestSupervisorWithoutUse(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		warn string
	}{
		"nobody":            {nil, ""},
		"watchdog alone":    {map[string]string{"WATCHDOG_USEC": "1000"}, ""},
		"relative socket":   {map[string]string{"NOTIFY_SOCKET": "notify"}, "NOTIFY_SOCKET"},
		"of another":        {map[string]string{"NOTIFY_SOCKET": "/nowhere/n", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "78"}, "cannot be told"},
		"no number":         {map[string]string{"NOTIFY_SOCKET": "/nowhere/n", "WATCHDOG_USEC": "1s"}, "WATCHDOG_USEC"},
		"zero":              {map[string]string{"NOTIFY_SOCKET": "/nowhere/n", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC"},
		"more than a day":   {map[string]string{"NOTIFY_SOCKET": "/nowhere/n", "WATCHDOG_USEC": "9223372036854775807"}, "WATCHDOG_USEC"},
		"socket gone again": {map[string]string{"NOTIFY_SOCKET": "/nowhere/n"}, "cannot be told"},
	} {
		t.Run(name, func(t *testing.T) {
			s, log := managed(c.env)
			require.Zero(t, s.every)
			s.ready("x")
			s.stopping()
			s.close()
			if c.warn == "" {
				require.Empty(t, log.String())
			} else {
				require.Contains(t, log.String(), c.warn)
			}
		})
	}
}
