package admission

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// served is an HTTP server behind a Listener. /hang answers when release is closed.
type served struct {
	t       *testing.T
	l       *Listener
	addr    string
	entered chan context.Context
	release chan struct{}
}

func serve(t *testing.T, most int) *served {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &served{t: t, addr: ln.Addr().String(), entered: make(chan context.Context, 100), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { s.entered <- r.Context(); <-s.release })
	mux.HandleFunc("/rest", func(_ http.ResponseWriter, r *http.Request) { Rest(r.Context(), time.Hour) })
	mux.HandleFunc("/refuse", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		Linger(r.Context())
		_, _ = io.WriteString(w, "no")
	})
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	full := []byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull")
	s.l = Listen(ln, most, func() []byte { return full })
	s.l.Attach(srv)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(s.l) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		<-done
		require.Zero(t, s.l.Open(), "every connection has given its place back")
		require.Zero(t, s.l.idle.Len())
	})
	return s
}

// idle waits until n connections are.
func (s *served) idle(n int) {
	for ; ; runtime.Gosched() {
		s.l.mu.Lock()
		now := s.l.idle.Len()
		s.l.mu.Unlock()
		if now == n {
			return
		}
	}
}

type peerConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *served) dial() *peerConn {
	nc, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = nc.Close() })
	require.NoError(s.t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	return &peerConn{nc, bufio.NewReader(nc)}
}

func (c *peerConn) ask(path string) {
	_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
}

func (c *peerConn) answer(t *testing.T) (int, string) {
	resp, err := http.ReadResponse(c.r, nil)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func (c *peerConn) get(t *testing.T, path string) int {
	c.ask(path)
	code, _ := c.answer(t)
	return code
}

func TestOneConnectionTooMany(t *testing.T) {
	s := serve(t, 3)
	var busy []*peerConn
	for range 3 {
		c := s.dial()
		c.ask("/hang")
		<-s.entered
		busy = append(busy, c)
	}
	for range partings + 10 { // more than are kept for their peers
		c := s.dial()
		code, body := c.answer(t)
		require.Equal(t, 503, code)
		require.Equal(t, "full", body)
		_, err := c.r.ReadByte()
		require.Error(t, err, "the connection ends after the answer")
	}
	require.Equal(t, 3, s.l.Open())
	close(s.release)
	for _, c := range busy {
		code, _ := c.answer(t)
		require.Equal(t, 200, code)
	}
}

func TestTheLongestIdleMakesRoom(t *testing.T) {
	s := serve(t, 2)
	first, second := s.dial(), s.dial()
	require.Equal(t, 200, first.get(t, "/"))
	s.idle(2) // the second says nothing yet
	require.Equal(t, 200, second.get(t, "/"))
	s.idle(2)
	require.Equal(t, 200, first.get(t, "/"), "now the second has been idle for longer")
	s.idle(2)
	third := s.dial()
	third.ask("/hang")
	<-s.entered
	_, err := second.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 2, s.l.Open())
	require.Equal(t, 200, first.get(t, "/"))
	close(s.release)
	code, _ := third.answer(t)
	require.Equal(t, 200, code)
}

func TestConnectionsThatNeverSendAnything(t *testing.T) {
	s := serve(t, 10)
	for range 200 {
		s.dial()
	}
	require.Equal(t, 200, s.dial().get(t, "/"), "silent ones make room for one that asks")
	require.LessOrEqual(t, s.l.Open(), 10)
}

func TestARestingConnectionCanBeClosed(t *testing.T) {
	s := serve(t, 1)
	c := s.dial()
	require.Equal(t, 200, c.get(t, "/rest"), "the answer itself does not wait")
	s.idle(1)
	c.ask("/hang")
	other := s.dial() // the resting one is idle, and closing it wakes it up
	require.Equal(t, 200, other.get(t, "/"))
	require.Empty(t, s.entered, "nothing of what came during the rest was read")
	Rest(context.Background(), time.Hour) // no connection: nothing happens
}

func TestRestIsTimeNotRead(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := &conn{Conn: a, from: &Listener{open: 1}, gone: make(chan struct{}), poke: make(chan struct{}, 1)}
	began := time.Now()
	Rest(context.WithValue(context.Background(), connKey{}, c), 30*time.Millisecond)
	go func() { _, _ = b.Write([]byte("x")) }()
	_, err := c.Read(make([]byte, 1))
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 30*time.Millisecond)

	// A deadline ends a read that rests, and not the rest.
	c.until.Store(time.Now().Add(time.Hour).UnixNano())
	ended := make(chan error)
	read := func() { _, err := c.Read(make([]byte, 1)); ended <- err }
	go read()
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	go read()
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	go read()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Millisecond)))
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	go read()
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
	require.NoError(t, c.Close(), "safe twice")
	require.Zero(t, c.from.open)
}

// TestAnAnswerInTheMiddleOfABody refuses requests whose bodies are on their way: every peer gets the answer.
func TestAnAnswerInTheMiddleOfABody(t *testing.T) {
	s := serve(t, 10)
	body := make([]byte, 100_000)
	for range 3 * partings {
		c := s.dial()
		_, err := fmt.Fprintf(c, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 2*len(body))
		require.NoError(t, err)
		_, err = c.Write(body)
		require.NoError(t, err)
		code, text := c.answer(t)
		require.Equal(t, 200, code)
		require.Equal(t, "no", text)
		_, err = c.r.ReadByte()
		require.ErrorIs(t, err, io.EOF, "it ends in good order")
		_ = c.Close()
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	require.LessOrEqual(t, len(s.l.parting), partings)
}
