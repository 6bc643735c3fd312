package postgres_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

// porter stands before a database and lets connections in, or turns them away.
type porter struct {
	net.Listener
	to     string
	shut   atomic.Bool
	turned atomic.Int64 // connections that were turned away

	mu   sync.Mutex
	open []net.Conn
}

func (p *porter) serve() {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		if p.shut.Load() {
			p.turned.Add(1)
			_ = in.Close()
			continue
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.open = append(p.open, in, out)
		p.mu.Unlock()
		for from, to := range map[net.Conn]net.Conn{in: out, out: in} {
			go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
		}
	}
}

// shutOut ends all connections and lets nobody in any more.
func (p *porter) shutOut() {
	p.shut.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
}

// A database that takes no connection is not overrun by all who need one, and used as soon as it takes them again.
func TestNobodyBattersAClosedDoor(t *testing.T) {
	db := smallDatabase(t)
	at, err := url.Parse(db.App)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &porter{Listener: l, to: at.Host}
	go p.serve()
	t.Cleanup(func() { _ = l.Close(); p.shutOut() })
	at.Host = l.Addr().String()
	s := openWith(t, postgres.Options{URL: at.String(), Connections: 8, PartitionDays: -1})
	require.NoError(t, s.Check(t.Context()))

	p.shutOut()
	var tries sync.WaitGroup
	for range 16 {
		tries.Go(func() {
			for range 200 {
				require.ErrorIs(t, s.Check(t.Context()), store.ErrUnavailable)
			}
		})
	}
	tries.Wait()
	require.Less(t, p.turned.Load(), int64(640), "of 3,200 tries, each of which knocks twice by itself")
	p.shut.Store(false)
	require.Eventually(t, func() bool { return s.Check(t.Context()) == nil }, patience, beat)
}
