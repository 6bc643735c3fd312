//go:build unix

package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// judged is up to how many queued messages TestQueued waits for and judges each of them.
const judged = 100_000

// TestQueued kills an engine that has a great many messages in its queue, all of them due, and tells how long the next
// one takes to be ready and to hand over the first message.
func TestQueued(t *testing.T) {
	l := newLab(t, 4*time.Minute+time.Duration(*queued)*time.Millisecond)
	asked := l.fill(*queued)
	l.start()
	d := &load{l: l, stop: make(chan struct{}), requests: asked}
	first := d.resumed(0)
	d.watch(time.Duration(l.rnd.IntN(300)) * time.Millisecond)
	before := len(d.look())
	l.engine.kill()
	left := len(asked) - before
	l.start()
	ready := time.Since(l.engine.began)
	again := d.resumed(before)
	fmt.Printf("queued: n=%d left=%d ready_ms=%d first_handoff_ms=%d after_a_clean_stop_ms=%d database_mb=%d "+
		"peak_rss_mb=%d\n", *queued, left, ready.Milliseconds(), again.Milliseconds(), first.Milliseconds(), l.databaseMB(), l.engine.peakMB())
	if *queued > judged {
		l.audit()
		return
	}
	v := Check(d.finish())
	l.True(v.OK(), "%s", v.Explain())
	l.Equal(*queued, v.Acknowledged)
}

// fill stops the engine and puts n messages into its database, a quarter for each channel, all of them due.
func (l *lab) fill(n int) []Request {
	l.t.Helper()
	var sample [4]store.NewMessage // one that the API made, for each channel
	var asked []Request
	for i := range sample {
		m, err := l.client.Send(l.ctx, l.message(person(i), strconv.Itoa(i)))
		l.NoError(err)
		asked = append(asked, Request{person(i), m.ID})
	}
	l.untilNothingWaits(func() {})
	l.engine.signal(syscall.SIGTERM)
	l.Zero(l.engine.wait())
	began := time.Now()
	s, err := sqlite.Open(l.ctx, sqlite.Options{Dir: l.dir})
	l.NoError(err)
	for i := range sample {
		id, err := delivery.ParseMessageID(asked[i].ID)
		l.NoError(err)
		m, err := s.Message(l.ctx, tenant, id)
		l.NoError(err)
		sample[i] = store.NewMessage{
			Channel: m.Channel, Lane: m.Lane, To: m.To, Payload: m.Payload, Segments: m.Segments, Account: m.Account,
		}
	}
	ids := delivery.NewIDs(time.Now)
	for len(asked) < n {
		a := store.Acceptance{Now: time.Now()}
		for range min(1000, n-len(asked)) {
			p := person(len(asked))
			m := sample[len(asked)%4]
			m.ID, m.To, m.DueAt, m.ExpiresAt = ids.Message(), p.To, a.Now, a.Now.Add(24*time.Hour)
			if p.Channel == "webhook" {
				m.To = l.sim.at.HTTP + p.To
			}
			a.Messages = append(a.Messages, m)
			asked = append(asked, Request{p, m.ID.String()})
		}
		got, err := s.Accept(l.ctx, tenant, a)
		l.NoError(err)
		l.Equal(delivery.StatusQueued, got.Results[0].Status)
	}
	l.NoError(s.Close())
	l.t.Logf("%d messages were put into the database in %s", n, time.Since(began).Round(10*time.Millisecond))
	return asked
}

// peakMB is how much memory the process has held at most; 0 where the system does not say.
func (p *process) peakMB() int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(b, []byte("VmHWM:"))
	var kb int
	_, _ = fmt.Sscan(string(rest), &kb)
	return kb >> 10
}
