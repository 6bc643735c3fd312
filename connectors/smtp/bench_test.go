//go:build unix

package smtp

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/simulator"
)

// article is 1.5 KB of HTML with its text, as a campaign has them.
func article(to string) *delivery.Outgoing {
	m := message(to)
	m.Content.Subject = "Your weekly digest is here"
	m.Content.Text = strings.Repeat("Prices fell again this week; here is what changed.\n", 8)
	m.Content.HTML = "<html><body>" + strings.Repeat("<p>Prices fell again <b>this week</b>; here is what changed.</p>\n", 22) + "</body></html>"
	m.Content.UnsubscribeURL = "https://acme.test/u/0123456789abcdef"
	return m
}

const connections = 20

// spread runs n calls of send on the connections and reports the rate and the CPU time of the process.
func spread(b *testing.B, send func(worker int) error) {
	var before, after syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range connections {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := send(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := func(r syscall.Rusage) float64 {
		return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric((cpu(after)-cpu(before))/float64(b.N)*100_000, "CPU-s/100k")
}

func BenchmarkSend(b *testing.B) {
	sim := startSim(b, simulator.Options{})
	c, _ := openWith(b, sim.SMTPAddr(), nil)
	ids := delivery.NewIDs(time.Now)
	spread(b, func(worker int) error {
		m := article(fmt.Sprintf("person%d@example.test", worker))
		m.ID = ids.Message()
		_, err := c.Send(context.Background(), m)
		return err
	})
	require.Equal(b, b.N, sim.Ledger().Summary().Taken)
}

// BenchmarkRawLoop is the bound: the same bytes, built before, in the plainest pipelined loop.
func BenchmarkRawLoop(b *testing.B) {
	sim := startSim(b, simulator.Options{})
	var conns [connections]net.Conn
	var readers [connections]*bufio.Reader
	line := func(i int) error {
		l, err := readers[i].ReadString('\n')
		if err == nil && l[0] != '2' && l[0] != '3' {
			err = fmt.Errorf("answer %q", l)
		}
		return err
	}
	for i := range conns {
		nc, err := net.Dial("tcp", sim.SMTPAddr())
		require.NoError(b, err)
		b.Cleanup(func() { _ = nc.Close() })
		conns[i], readers[i] = nc, bufio.NewReader(nc)
		require.NoError(b, line(i))
		_, _ = nc.Write([]byte("HELO raw.test\r\n"))
		require.NoError(b, line(i))
	}
	c, _ := openWith(b, sim.SMTPAddr(), nil)
	m := article("person@example.test")
	e, err := c.prepare(m)
	require.NoError(b, err)
	cn := &conn{}
	require.NoError(b, c.compose(cn, e, m))
	body := append(cn.msg, ".\r\n"...)
	envelope := []byte("MAIL FROM:<news@acme.test>\r\nRCPT TO:<person@example.test>\r\nDATA\r\n")
	spread(b, func(i int) error {
		if _, err := conns[i].Write(envelope); err != nil {
			return err
		}
		for range 3 {
			if err := line(i); err != nil {
				return err
			}
		}
		if _, err := conns[i].Write(body); err != nil {
			return err
		}
		return line(i)
	})
}

func BenchmarkCompose(b *testing.B) {
	for _, bench := range []struct {
		name string
		edit func(*delivery.Outgoing)
	}{
		{"ascii", func(*delivery.Outgoing) {}},
		{"quoted-printable", func(m *delivery.Outgoing) {
			m.Content.Subject = "Zażółć gęślą jaźń"
			m.Content.HTML = strings.ReplaceAll(m.Content.HTML, "fell", "spadły")
			m.Content.Text = strings.ReplaceAll(m.Content.Text, "fell", "spadły")
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c, _ := openWith(b, "127.0.0.1:25", nil)
			m := article("person@example.test")
			bench.edit(m)
			cn := &conn{}
			b.ReportAllocs()
			for b.Loop() {
				e, err := c.prepare(m)
				require.NoError(b, err)
				require.NoError(b, c.compose(cn, e, m))
			}
			b.ReportMetric(float64(len(cn.msg)), "bytes")
		})
	}
}
