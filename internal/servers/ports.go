package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// port is a TCP port of 127.0.0.1 that this process has to itself.
type port struct {
	number int
	hold   net.PacketConn
}

// reservePort finds a free port. A server that is down for a while must find it free again, so it lies below the range
// from which kernels take the ports of outgoing connections (32768 on Linux, 49152 elsewhere), and a UDP socket on
// the same number, which only one process can have, keeps other test processes away.
func reservePort() (*port, error) {
	for range 200 {
		n := 15000 + rand.IntN(15000)
		addr := "127.0.0.1:" + strconv.Itoa(n)
		hold, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			_ = hold.Close()
			continue
		}
		_ = l.Close()
		return &port{n, hold}, nil
	}
	return nil, errors.New("no free loopback port between 15000 and 29999 in 200 tries")
}

func (p *port) release() { _ = p.hold.Close() }

func (p *port) addr() string { return "127.0.0.1:" + p.String() }

func (p *port) String() string { return fmt.Sprint(p.number) }

// dials tells whether somebody listens.
func dials(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
