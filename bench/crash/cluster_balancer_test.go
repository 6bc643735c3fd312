//go:build unix

package crash

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// balancer stands before the nodes as one does in a deployment: it hands each connection to a node in turn that takes
// it, and finds out within moments when one does not answer any more.
type balancer struct {
	ln       net.Listener
	backends []*backend
	turn     atomic.Int64
	wg       sync.WaitGroup
	stop     chan struct{}
}

type backend struct {
	addr string
	mute atomic.Bool // it does not answer

	mu    sync.Mutex
	conns map[net.Conn]bool
}

const (
	askEvery     = 100 * time.Millisecond
	answerWithin = time.Second
)

func newBalancer(t *testing.T, nodes []*node) *balancer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{ln: ln, stop: make(chan struct{})}
	for _, n := range nodes {
		b.backends = append(b.backends, &backend{addr: n.addr, conns: map[net.Conn]bool{}})
	}
	for _, k := range b.backends {
		b.wg.Go(func() { b.ask(k) })
	}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		close(b.stop)
		_ = ln.Close()
		for _, k := range b.backends {
			k.cut()
		}
		b.wg.Wait()
	})
	return b
}

func (b *balancer) addr() string { return b.ln.Addr().String() }

func (b *balancer) accept() {
	for {
		conn, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() { b.serve(conn) })
	}
}

// serve joins a client with the next node that takes a connection.
func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	start := int(b.turn.Add(1))
	for i := range b.backends {
		k := b.backends[(start+i)%len(b.backends)]
		if k.mute.Load() {
			continue
		}
		server, err := net.DialTimeout("tcp", k.addr, answerWithin)
		if err != nil {
			continue
		}
		defer server.Close()
		if !k.add(server, b.stop) {
			return
		}
		defer k.remove(server)
		done := make(chan struct{})
		go func() {
			defer close(done)
			pass(server, client)
		}()
		pass(client, server)
		<-done
		return
	}
}

// pass copies one way until its end, and says so on the other side.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil { // the connection is broken both ways
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.(*net.TCPConn).CloseWrite()
}

// add keeps a connection that a node has; false when everything ends.
func (k *backend) add(c net.Conn, stop <-chan struct{}) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-stop:
		return false
	default:
	}
	k.conns[c] = true
	return true
}

func (k *backend) remove(c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, c)
}

// cut closes what a node has.
func (k *backend) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		_ = c.Close()
	}
}

// ask finds out whether a node answers. One that is there and says nothing for too long loses its connections.
func (b *balancer) ask(k *backend) {
	client := &http.Client{Timeout: answerWithin, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-b.stop:
			return
		}
		resp, err := client.Get("http://" + k.addr + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
		}
		// One that refuses is about to end, in good order perhaps: what it has taken it may finish.
		var late net.Error
		if was := k.mute.Swap(err != nil); !was && errors.As(err, &late) && late.Timeout() {
			k.cut()
		}
	}
}
