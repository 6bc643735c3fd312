package news

import (
	"context"
	"net"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// quietly makes a client's failed dials ordinary failures of the call that needed a connection. go-redis would write a
// line to stderr for each, then refuse calls without trying, and dial once a second in a goroutine of its own.
func quietly(ro *goredis.Options) {
	dial := goredis.NewDialer(ro)
	ro.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return unconnected{err}, nil
		}
		return c, nil
	}
}

// unconnected is a connection that could not be made: it says so when it is used.
type unconnected struct{ err error }

func (c unconnected) Read([]byte) (int, error)         { return 0, c.err }
func (c unconnected) Write([]byte) (int, error)        { return 0, c.err }
func (c unconnected) Close() error                     { return nil }
func (c unconnected) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c unconnected) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c unconnected) SetDeadline(time.Time) error      { return nil }
func (c unconnected) SetReadDeadline(time.Time) error  { return nil }
func (c unconnected) SetWriteDeadline(time.Time) error { return nil }
