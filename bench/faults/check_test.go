//go:build faults && unix

package faults

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/msgctl/msgctl/bench/crash"
	"github.com/msgctl/msgctl/sdk"
)

// vitals are what an engine has in use. A field is -1 where it cannot be read.
type vitals struct {
	goroutines, files int
	resident, peak    int64 // MiB; peak is the most since the start of the process
}

func (v vitals) most(w vitals) vitals {
	return vitals{max(v.goroutines, w.goroutines), max(v.files, w.files), max(v.resident, w.resident), max(v.peak, w.peak)}
}

// vitals reads what the engine of a node has in use now.
func (n *node) vitals() vitals {
	v := vitals{-1, -1, -1, -1}
	pid := n.cmd.Process.Pid
	if fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		v.files = len(fds)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch name {
			case "VmRSS":
				v.resident = kb >> 10
			case "VmHWM":
				v.peak = kb >> 10
			}
		}
	}
	if g, err := n.metric("go_goroutines"); err == nil {
		v.goroutines = int(g)
	}
	return v
}

// metric reads the sum of a metric over its labels. Without its store an engine takes 2 s to answer.
func (n *node) metric(name string) (sum float64, err error) {
	client := &http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(n.url() + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		x, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += x
	}
	return sum, lines.Err()
}

// wanted is what a row expects of the check beyond what every row must keep.
type wanted struct {
	doubts bool // attempts may be in doubt
	lost   bool // a message that was acknowledged may be lost
}

// finish ends the load, waits until everything is done, and checks it all. The row is noted when the test has ended.
func (l *lab) finish(w wanted) {
	l.t.Helper()
	began := time.Now()
	v := l.check(w)
	checked := time.Now()
	l.calm()
	l.t.Logf("checked in %s, calm %s later", round(checked.Sub(began)), round(time.Since(checked)))
	if l.setup.paced {
		l.rates()
	}
	sum := fmt.Sprintf("%d acknowledged, %d lost", v.Acknowledged, len(v.Lost))
	if w.lost {
		sum += fmt.Sprintf(", %d second copies, %d not marked", v.Duplicated, len(v.Unflagged))
	} else if v.Doubts > 0 || v.Duplicated > 0 {
		sum += fmt.Sprintf(", %d attempts in doubt, %d second copies, all marked", v.Doubts, v.Duplicated)
	} else {
		sum += ", none in doubt"
	}
	l.note("%s", sum)
	l.finished = true
}

// enter notes the row.
func (l *lab) enter() {
	row := Row{
		Fault: l.fault, Name: l.fault.Test, Does: l.fault.Does, Required: l.fault.Required, Verdict: Kept,
		Observed: strings.Join(l.seen, "; "),
	}
	switch {
	case l.t.Failed() || !l.finished:
		row.Verdict = Broken
	case l.late:
		row.Verdict = Late
	}
	if err := book.add(row); err != nil {
		l.t.Error(err)
	}
}

// check compares what everybody saw.
func (l *lab) check(w wanted) crash.Verdict {
	l.t.Helper()
	close(l.load.stop)
	done := make(chan struct{})
	go func() { l.load.ended.Wait(); close(done) }()
	l.until("every request is answered", func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
	l.False(l.t.Failed(), "a request was refused")
	for _, c := range l.load.clients { // their connections are no more in use
		c.Close()
	}
	began := time.Now()
	l.untilNothingWaits()
	l.t.Logf("nothing waits %s after the last request", round(time.Since(began)))
	client := l.reader()
	audit, err := client.Audit.Verify(l.ctx)
	l.NoError(err)
	l.True(audit.OK, "the books: %+v", audit.Problems)
	h := crash.History{Asked: l.load.asked}
	for m, err := range client.Messages.All(l.ctx, sdk.MessageQuery{Limit: 1000}) {
		l.NoError(err)
		h.Messages = append(h.Messages, l.record(client, m))
	}
	l.EqualValues(len(h.Messages), audit.Accepted, "the API shows what the books have")
	var stored int
	l.NoError(l.query(`SELECT count(*) FROM messages`, &stored))
	l.Equal(stored, len(h.Messages), "the API shows what the database has")
	for _, e := range l.sim.Ledger().Entries(0) {
		if !e.Taken {
			continue
		}
		s := crash.Submission{Address: crash.Address{Channel: e.Channel, To: e.To}}
		if e.Channel == "webhook" {
			s.Key = e.Ref
		}
		h.Taken = append(h.Taken, s)
	}
	v := crash.Check(h)
	if w.lost {
		return v
	}
	for _, id := range v.Suspects {
		l.t.Logf("message %s:%s", id, l.timeline(client, id))
	}
	l.True(v.OK(), "%s", v.Explain())
	if !w.doubts {
		l.Zero(v.Doubts+v.Unknown, "nothing may be in doubt: %s", l.doubtful(client, h))
	}
	return v
}

// reader is a client of a node that the row has not ended.
func (l *lab) reader() *sdk.Client {
	for i, n := range l.nodes {
		if !n.down {
			return l.load.clients[i]
		}
	}
	return l.client
}

// record is a message as the engine shows it.
func (l *lab) record(client *sdk.Client, m sdk.Message) crash.Record {
	r := crash.Record{
		ID: m.ID, Address: crash.Address{Channel: string(m.Channel), To: strings.TrimPrefix(m.To, l.sim.URL())},
		Status: string(m.Status), Flagged: m.PossibleDuplicate,
	}
	if !r.Flagged {
		return r
	}
	facts, err := client.Messages.Timeline(l.ctx, m.ID)
	l.NoError(err)
	for _, f := range facts {
		if f.Kind == "ambiguous" {
			r.Doubts++
		}
	}
	return r
}

// doubtful tells of some messages that should not be in doubt.
func (l *lab) doubtful(client *sdk.Client, h crash.History) (text string) {
	shown := 0
	for _, m := range h.Messages {
		if m.Flagged && shown < 3 {
			shown++
			text += "\n" + m.ID + l.timeline(client, m.ID)
		}
	}
	return text
}

// timeline tells what happened to a message.
func (l *lab) timeline(client *sdk.Client, id string) string {
	facts, err := client.Messages.Timeline(l.ctx, id)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "\n  %s %-10s %-10s %s %s", f.At.Format("15:04:05.000"), f.Kind, f.Status, f.Code, f.Detail)
	}
	return b.String()
}

// untilNothingWaits waits until no message has anything to wait for but receipts.
func (l *lab) untilNothingWaits() {
	l.t.Helper()
	client, rounds := l.reader(), 0 // one may move from a status that is yet to be looked at to one that has been
	l.until("every message is sent", func() bool {
		for _, s := range []sdk.Status{sdk.Scheduled, sdk.Queued, sdk.Sending, sdk.Deferred, sdk.Held, sdk.Ambiguous} {
			p, err := client.Messages.Page(l.ctx, sdk.MessageQuery{Status: s, Limit: 1})
			if err != nil || len(p.Data) > 0 {
				rounds = 0
				return false
			}
		}
		rounds++
		return rounds == 2
	})
}

// How much more an engine may have in use after a row than before. Idle connections to providers and buffers are kept for
// a while; what leaks with every message or request passes these.
const (
	moreGoroutines = 200
	moreFiles      = 100
	moreMemory     = 120 // MiB
	mostMemory     = 500 // MiB, at any time
)

// calm waits until the engines have in use again what they had before the fault.
func (l *lab) calm() {
	l.t.Helper()
	var now []vitals
	end := time.Now().Add(30 * time.Second)
	over := func() bool {
		now = now[:0]
		over := false
		for i, n := range l.nodes {
			v := vitals{}
			if !n.down {
				v = n.vitals()
				base := l.normal[i]
				over = over || v.goroutines < 0 || v.goroutines > base.goroutines+moreGoroutines ||
					v.files > base.files+moreFiles || v.resident > base.resident+moreMemory
			}
			now = append(now, v)
		}
		return over
	}
	looked := time.Time{}
	l.until("the engines have in use what they had", func() bool {
		if time.Since(looked) < 500*time.Millisecond { // a look is not for nothing
			return false
		}
		looked = time.Now()
		return !over() || time.Now().After(end)
	})
	peak := int64(0)
	for i, n := range l.nodes {
		if n.down {
			continue
		}
		l.t.Logf("%s: before %+v, after %+v", n.name, l.normal[i], now[i])
		l.LessOrEqual(now[i].goroutines, l.normal[i].goroutines+moreGoroutines, "goroutines of %s", n.name)
		l.LessOrEqual(now[i].files, l.normal[i].files+moreFiles, "files of %s", n.name)
		l.LessOrEqual(now[i].resident, l.normal[i].resident+moreMemory, "memory of %s", n.name)
		peak = max(peak, now[i].peak)
		l.False(n.ended(), "%s has ended by itself", n.name)
	}
	l.LessOrEqual(peak, int64(mostMemory), "MiB of an engine at the most")
	l.note("at most %d MiB in an engine", peak)
}
