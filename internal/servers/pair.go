package servers

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// pair is one connection over a link: the client's and the server's half. Each way has a reader and a writer with a
// short queue between them, so that a delay is one of distance.
type pair struct {
	link *Link
	ends [2]*net.TCPConn // [way] is where bytes of that way go to
	once sync.Once
	done chan struct{} // closed when the pair is reset
	hung chan struct{} // closed when the server has hung up and its last answer is worked off

	tail  []byte      // the end of what has gone to the server, for markers in two pieces
	quiet atomic.Bool // answers go nowhere
}

// chunk is a piece of the stream and when it came.
type chunk struct {
	data []byte
	came time.Time
}

const (
	queued    = 64       // chunks on their way
	chunkSize = 32 << 10 // bytes
	// finishing is how long a server has to work off what came before a lost answer.
	finishing = 10 * time.Second
)

func (p *pair) run() {
	var work sync.WaitGroup
	for _, way := range []Direction{ToServer, ToClient} {
		queue := make(chan chunk, queued)
		work.Go(func() { p.read(p.ends[1-way], queue) })
		work.Go(func() { p.write(way, queue) })
	}
	work.Wait()
	// Both have said their last word: without RST, which would take away what is not read yet.
	p.end(-1)
}

// reset ends both halves with RST.
func (p *pair) reset() { p.end(0) }

// end closes both halves, once. Linger is as of [net.TCPConn.SetLinger].
func (p *pair) end(linger int) {
	p.once.Do(func() {
		close(p.done)
		for _, end := range p.ends {
			if end != nil {
				_ = end.SetLinger(linger)
				_ = end.Close()
			}
		}
	})
}

func (p *pair) read(from *net.TCPConn, queue chan<- chunk) {
	defer close(queue)
	for {
		buf := make([]byte, chunkSize)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case queue <- chunk{buf[:n], time.Now()}:
			case <-p.done:
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.reset()
			}
			return
		}
	}
}

// write lets the chunks of one way through as the faults of the moment permit.
func (p *pair) write(way Direction, queue <-chan chunk) {
	var meter meter
	for c := range queue {
		if !p.hold(way, c) {
			return
		}
		f, epoch, _ := p.link.now()
		if way == ToServer && f.lose != nil && p.marked(f.lose.marker, c.data) && p.link.take(f.lose) {
			p.spoil(f.lose, c.data)
			return
		}
		data, last := meter.cut(epoch, f.limit[way], c.data)
		if !p.send(way, data, f.rate) {
			return
		}
		if last {
			p.reset()
			return
		}
	}
	if way == ToClient {
		close(p.hung)
	}
	// The sender has said its last word; the other side may still speak.
	if way == ToServer || !p.quiet.Load() {
		_ = p.ends[way].CloseWrite()
	}
}

// hold waits until the chunk may go, and says false when the pair ends before.
func (p *pair) hold(way Direction, c chunk) bool {
	for {
		f, _, changed := p.link.now()
		wait := time.Until(c.came.Add(f.delay))
		if !f.hung[way] && wait <= 0 {
			return true
		}
		var due <-chan time.Time
		if !f.hung[way] {
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-p.done:
			return false
		}
	}
}

// send writes in pieces of a twentieth of a second.
func (p *pair) send(way Direction, data []byte, rate int) bool {
	for len(data) > 0 {
		n := len(data)
		if rate > 0 {
			n = min(n, max(1, rate/20))
		}
		if way == ToServer || !p.quiet.Load() {
			if _, err := p.ends[way].Write(data[:n]); err != nil {
				p.reset()
				return false
			}
		}
		data = data[n:]
		if rate > 0 {
			select {
			case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
			case <-p.done:
				return false
			}
		}
	}
	return true
}

// marked looks for the marker in the stream to the server.
func (p *pair) marked(marker, data []byte) bool {
	seen := lower(append(bytes.Clone(p.tail), data...))
	p.tail = bytes.Clone(seen[max(0, len(seen)-len(marker)+1):])
	return bytes.Contains(seen, marker)
}

// spoil loses the request or the answer.
func (p *pair) spoil(l *loss, request []byte) {
	defer close(l.done)
	defer p.reset()
	if !l.answer {
		return
	}
	p.quiet.Store(true)
	server := p.ends[ToServer]
	if _, err := server.Write(request); err != nil {
		return
	}
	_ = server.CloseWrite()
	select {
	case <-p.hung:
	case <-p.done:
	case <-time.After(finishing):
	}
}

// take gives the loss to one connection only.
func (l *Link) take(loss *loss) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults.lose != loss {
		return false
	}
	l.faults.lose = nil
	return true
}

// meter counts bytes against a limit.
type meter struct {
	epoch  int
	passed int64
}

// cut returns what may pass of data and whether that is the last.
func (m *meter) cut(epoch int, limit int64, data []byte) ([]byte, bool) {
	if m.epoch != epoch {
		m.epoch, m.passed = epoch, 0
	}
	if limit >= 0 && m.passed+int64(len(data)) >= limit {
		return data[:max(0, limit-m.passed)], true
	}
	m.passed += int64(len(data))
	return data, false
}

// lower lowers the letters of ASCII and leaves all other bytes alone.
func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}
