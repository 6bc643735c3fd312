// Package servers starts private PostgreSQL, RabbitMQ and Redis servers for tests.
//
// It is a test kit: release code never imports it. Every server is a direct child of the test process, listens on a
// free loopback port and keeps its data in a temporary folder. There are two ways to get one:
//
//   - [Postgres], [Rabbit] and [Redis] share one server of each kind per test process, started by the first call. Each
//     call gives a database (virtual host, database number) of the test's own. A shared server cannot be killed.
//   - [NewPostgres], [NewRabbit] and [NewRedis] start a server for one test, which may kill, stall and wipe it.
//
// Nothing has to be stopped by hand. A server of one test ends with the test. The shared ones end with the process,
// even when it is killed (keeper.go), and cost no goroutine, so that a package may still look for leaks.
//
// A program that is not installed is installed by apt-get when the tests run as root on Debian or Ubuntu. Otherwise the
// test fails and says what to install. MSGCTL_TEST_POSTGRES_URL (of a superuser), MSGCTL_TEST_AMQP_URL and
// MSGCTL_TEST_REDIS_URL name servers to use in place of the shared ones.
package servers

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Option is a wish for a server of the test's own.
type Option func(*options)

type options struct {
	settings [][2]string
	tmpfs    int64
}

// With sets a parameter of the server: of postgresql.conf, redis.conf or rabbitmq.conf. The last one wins.
func With(key, value string) Option {
	return func(o *options) { o.settings = append(o.settings, [2]string{key, value}) }
}

// Tmpfs puts the data on a file system in memory of so many bytes, for tests of a full disk. It takes root on Linux;
// elsewhere the test fails. PostgreSQL needs at least 128 MiB, see [PG.Fill].
func Tmpfs(bytes int64) Option { return func(o *options) { o.tmpfs = bytes } }

func collect(opts []Option) options {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Server is the life of one server process. Its methods fail the test when they do not succeed, return when the change
// is complete, and may be called from any goroutine while the test runs. Address and data stay the same throughout.
type Server struct {
	t testing.TB
	s *server
	// refused says why the process is not the test's to touch; empty when it is.
	refused string
}

// Start starts the server and returns when it serves. On one that runs already it only waits for that. It also starts
// one that has died by itself.
func (h *Server) Start() { h.t.Helper(); h.do("start", h.s.start) }

// Stop asks the server to end in good order and waits for it.
func (h *Server) Stop() { h.t.Helper(); h.do("stop", h.s.stop) }

// Kill ends the server and all processes that it started with SIGKILL, and waits until they are gone.
func (h *Server) Kill() { h.t.Helper(); h.do("kill", h.s.kill) }

// Stall stops the server and all its processes with SIGSTOP: connections stay open and are accepted by the kernel, but
// nothing answers.
func (h *Server) Stall() { h.t.Helper(); h.do("stall", h.s.stall) }

// Resume undoes Stall.
func (h *Server) Resume() { h.t.Helper(); h.do("resume", h.s.resume) }

// Running says whether the process lives, stalled or not.
func (h *Server) Running() bool { return h.s != nil && h.s.running() }

// Log returns the end of what the server has written to its log, at most 8 KiB.
func (h *Server) Log() string {
	if h.s == nil {
		return ""
	}
	return h.s.logTail()
}

func (h *Server) do(what string, f func() error) {
	h.t.Helper()
	if h.refused != "" {
		h.t.Fatalf("%s: %s", what, h.refused)
		return
	}
	if err := f(); err != nil {
		h.t.Fatalf("%s: %v", what, err)
	}
}

// newServer starts s for one test and ends it with the test.
func newServer(t testing.TB, s *server) Server {
	t.Helper()
	h := Server{t: t, s: s}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", s.name, s.logTail())
		}
		if err := s.remove(); err != nil {
			t.Errorf("remove %s: %v", s.name, err)
		}
	})
	h.Start()
	return h
}

// errGone means that the process ended while somebody waited for it to serve.
var errGone = errors.New("the process has ended")

// await asks ready again and again until it agrees, the process is gone or the time is over.
func (s *server) await(limit time.Duration) error {
	end := time.Now().Add(limit)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := s.ready()
		if err == nil {
			return nil
		}
		if !s.proc.running() {
			err = errGone
		} else if time.Now().Before(end) {
			time.Sleep(pause)
			continue
		}
		return fmt.Errorf("%s does not serve: %w; its log ends:\n%s", s.name, err, s.logTail())
	}
}

func (s *server) logTail() string {
	f, err := os.Open(s.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	buf := make([]byte, 8<<10)
	if info, err := f.Stat(); err == nil && info.Size() > int64(len(buf)) {
		_, _ = f.Seek(-int64(len(buf)), 2)
	}
	n, _ := f.Read(buf)
	return strings.TrimSpace(string(buf[:n]))
}
