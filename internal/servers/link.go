package servers

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Link is a stretch of network between a client and a server that a test can break: a TCP proxy on a loopback port.
// Faults add up until Heal; all methods may be called at any time from any goroutine. It ends with the test, with every
// goroutine that it has started.
//
// It is written out here, not taken from a library, for two reasons: it can lose exactly the answer to a COMMIT (see
// LoseAnswer), and it never leaves a goroutine behind when a connection breaks with bytes on their way.
type Link struct {
	// Addr is the host:port to dial in place of the server's. It stays the same while the link is cut.
	Addr string

	t      testing.TB
	target string
	port   *port
	work   sync.WaitGroup

	mu       sync.Mutex
	faults   faults
	changed  chan struct{} // closed when faults change
	epoch    int           // of the last LimitData
	listener net.Listener
	pairs    map[*pair]struct{}
	closed   bool
}

// Direction is a way over a link.
type Direction int

// The two ways.
const (
	ToServer Direction = iota
	ToClient
)

// faults is what is wrong with a link now.
type faults struct {
	hung  [2]bool
	delay time.Duration
	rate  int // bytes per second, 0 is unlimited
	limit [2]int64
	lose  *loss
}

// loss waits for a marker on its way to the server.
type loss struct {
	marker []byte // lower case
	answer bool   // lose the answer, not the request
	done   chan struct{}
}

// Proxy opens a link to a server at addr (host:port).
func Proxy(t testing.TB, addr string) *Link {
	t.Helper()
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: p.addr(), t: t, target: addr, port: p, changed: make(chan struct{}), pairs: map[*pair]struct{}{}}
	l.faults.limit = [2]int64{-1, -1}
	if err := l.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// ProxyURL opens a link to the server that a URL names, and returns with it the URL that leads over the link.
func ProxyURL(t testing.TB, raw string) (*Link, string) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil || u.Port() == "" {
		t.Fatal("a link needs a URL with host and port")
	}
	l := Proxy(t, u.Host)
	return l, l.URL(raw)
}

// URL returns raw with the address of the link in place of the server's.
func (l *Link) URL(raw string) string {
	l.t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		l.t.Fatal("the URL for the link does not parse")
	}
	u.Host = l.Addr
	return u.String()
}

// Cut resets all connections and refuses new ones.
func (l *Link) Cut() {
	l.mu.Lock()
	listener := l.listener
	l.listener = nil
	l.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	l.Reset()
}

// Reset resets the connections there are (RST, not FIN). New ones are welcome.
func (l *Link) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.reset()
	}
}

// Hang holds all bytes back, in the ways named or in both. Connections stay open and new ones are accepted, but nothing
// comes through until Heal; then everything held does, as after a short loss of the network.
func (l *Link) Hang(ways ...Direction) {
	if len(ways) == 0 {
		ways = []Direction{ToServer, ToClient}
	}
	l.change(func(f *faults) {
		for _, way := range ways {
			f.hung[way] = true
		}
	})
}

// Slow delays bytes by d each way, as distance does: it costs time, not throughput.
func (l *Link) Slow(d time.Duration) { l.change(func(f *faults) { f.delay = d }) }

// Bandwidth lets so many bytes per second through, for each connection and way.
func (l *Link) Bandwidth(bytesPerSecond int) { l.change(func(f *faults) { f.rate = bytesPerSecond }) }

// LimitData resets each connection once n more bytes have gone that way: an open one counts from now, a new one from
// its start.
func (l *Link) LimitData(way Direction, n int64) {
	l.change(func(f *faults) {
		f.limit[way] = n
		l.epoch++
	})
}

// LoseRequest resets, once, the connection on which the marker is about to go to the server, before the server has got
// it. Case does not matter. The channel is closed when that has happened.
func (l *Link) LoseRequest(marker string) <-chan struct{} { return l.lose(marker, false) }

// LoseAnswer breaks, once, the connection on which the marker goes to the server: the server gets it and the end of the
// stream behind it, and only when it has worked off both and hung up, the client's side is reset, without an answer. A
// COMMIT thus is done, and the client cannot know. Case does not matter. The channel is closed when that has happened.
func (l *Link) LoseAnswer(marker string) <-chan struct{} { return l.lose(marker, true) }

// Heal takes all faults away and lets new connections in. It does not bring back what has been reset.
func (l *Link) Heal() {
	l.t.Helper()
	l.change(func(f *faults) { *f = faults{limit: [2]int64{-1, -1}} })
	l.mu.Lock()
	open := l.listener != nil || l.closed
	l.mu.Unlock()
	if open {
		return
	}
	if err := l.listen(); err != nil {
		l.t.Fatalf("heal the link: %v", err)
	}
}

// Connections counts the open connections.
func (l *Link) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pairs)
}

func (l *Link) lose(marker string, answer bool) <-chan struct{} {
	loss := &loss{lower([]byte(marker)), answer, make(chan struct{})}
	l.change(func(f *faults) { f.lose = loss })
	return loss.done
}

func (l *Link) change(how func(*faults)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how(&l.faults)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) now() (faults, int, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.faults, l.epoch, l.changed
}

func (l *Link) listen() error {
	listener, err := net.Listen("tcp", l.Addr)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.listener != nil {
		return listener.Close()
	}
	l.listener = listener
	l.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			l.work.Go(func() { l.connect(client.(*net.TCPConn)) })
		}
	})
	return nil
}

// connect serves one connection from beginning to end.
func (l *Link) connect(client *net.TCPConn) {
	p := &pair{link: l, done: make(chan struct{}), hung: make(chan struct{})}
	p.ends[ToClient] = client
	server, err := net.DialTimeout("tcp", l.target, 5*time.Second)
	if err != nil {
		p.reset() // a server that is down refuses; so do we, a moment later
		return
	}
	p.ends[ToServer] = server.(*net.TCPConn)
	l.mu.Lock()
	welcome := !l.closed && l.listener != nil
	if welcome {
		l.pairs[p] = struct{}{}
	}
	l.mu.Unlock()
	if !welcome {
		p.reset()
		return
	}
	p.run()
	l.mu.Lock()
	delete(l.pairs, p)
	l.mu.Unlock()
}

func (l *Link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Cut()
	l.work.Wait()
	l.port.release()
}
