package simulator

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// The mail server takes messages by SMTP (RFC 5321) with PIPELINING, 8BITMIME, SIZE, SMTPUTF8, ENHANCEDSTATUSCODES,
// AUTH PLAIN and LOGIN, and STARTTLS when Options.TLSConfig is set.
//
// It is stricter than a real provider where strictness shows mistakes of a client: a bare CR or LF in a message, 8-bit
// text without BODY=8BITMIME and lines above 998 bytes are refused and stand in the ledger under their own outcome.

const (
	mailMaxSize   = 25 << 20
	mailMaxRcpts  = 100
	mailMaxConns  = 1024
	mailMaxLine   = 16 << 10 // a command; AUTH may need 12,288 (RFC 4954 §4)
	mailMaxErrors = 20       // refused commands before the session ends
	// mailAnonymous is the account of sessions without a log-in.
	mailAnonymous = "anonymous"
)

type mailServer struct {
	sim *Sim

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func newMailServer(s *Sim) *mailServer {
	return &mailServer{sim: s, conns: map[net.Conn]struct{}{}}
}

// serve accepts connections until ln is closed.
func (m *mailServer) serve(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		if !m.add(nc) {
			_, _ = nc.Write([]byte("421 4.3.2 too many connections\r\n"))
			_ = nc.Close()
			continue
		}
		go func() {
			defer m.remove(nc)
			m.session(ctx, nc).run()
		}()
	}
}

// add registers a connection, so that close can end it.
func (m *mailServer) add(nc net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || len(m.conns) >= mailMaxConns {
		return false
	}
	m.conns[nc] = struct{}{}
	m.wg.Add(1)
	return true
}

func (m *mailServer) remove(nc net.Conn) {
	_ = nc.Close()
	m.mu.Lock()
	delete(m.conns, nc)
	m.mu.Unlock()
	m.wg.Done()
}

// close drops every session and waits for its end.
func (m *mailServer) close() {
	m.mu.Lock()
	m.closed = true
	for nc := range m.conns {
		_ = nc.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *mailServer) session(ctx context.Context, nc net.Conn) *mailSession {
	s := &mailSession{ctx: ctx, sim: m.sim, account: mailAnonymous}
	s.use(nc)
	return s
}

// use makes nc the session's connection: at the start, and again when TLS is on it. Replies are collected and leave
// when the session has read all that the client sent (RFC 2920 §3.2), so that a pipelined group costs one write.
func (s *mailSession) use(nc net.Conn) {
	s.nc = nc
	s.w = bufio.NewWriterSize(nc, 4<<10)
	s.r = bufio.NewReaderSize(flushingReader{nc, s.w}, mailMaxLine)
}

type flushingReader struct {
	nc net.Conn
	w  *bufio.Writer
}

func (f flushingReader) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.nc.Read(p)
}

// startTLS answers and puts TLS on the connection. What the client sent in clear behind the command is thrown away
// with the session's old reader and makes the handshake fail (RFC 3207 §4.2, command injection).
func (s *mailSession) startTLS() bool {
	s.reply("220 2.0.0 go ahead")
	if s.w.Flush() != nil || s.r.Buffered() > 0 {
		return false
	}
	tc := tls.Server(s.nc, s.sim.opt.TLSConfig)
	if tc.HandshakeContext(s.ctx) != nil {
		return false
	}
	s.use(tc)
	s.tls, s.greeted, s.account = true, false, mailAnonymous
	s.reset()
	return true
}
