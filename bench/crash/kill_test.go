//go:build unix

package crash

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// window is how long a WhatsApp message in doubt waits for its receipt, in a lab whose engine goes down n times. The
// simulator reports at once, and again after up to 5 s for as long as it meets an engine that is down: the more kills,
// the longer the worst row of misses. It is never longer than the connector's default.
func window(n int) string { return fmt.Sprintf("%ds", min(20+n/12, 90)) }

// TestKill takes the engine away again and again, on one directory, under load of every kind. Nobody may be left out,
// and whoever may have got a second copy must be named.
func TestKill(t *testing.T) {
	require.Positive(t, *cycles)
	l := newLab(t, time.Duration(*cycles)*6*time.Second+10*time.Minute)
	l.whatsApp(window(*cycles))
	d := l.newLoad()
	l.until("the load is under way", 5*time.Millisecond, func() bool { return len(d.look()) > backlog/10 })
	var recovery []time.Duration
	began := time.Now()
	for n := range *cycles {
		before := len(d.look())
		l.engine.kill()
		l.launch()
		moment := time.Duration(l.rnd.IntN(800)) * time.Millisecond
		switch how := l.rnd.IntN(20); {
		case how < 2 && n < *cycles-1: // the next kill meets it while it recovers
			d.watch(moment / 5)
		case how < 10 && n < *cycles-1: // or whatever it does by then
			l.ready()
			d.watch(moment)
		default:
			// Recovery is measured only where the kill waits for its end: else the slow ones would be missing.
			l.ready()
			recovery = append(recovery, d.resumed(before))
			d.watch(moment)
		}
	}
	killed := time.Now()
	t.Logf("%d kills took %s", *cycles, killed.Sub(began).Round(time.Second))
	h := d.finish()
	t.Logf("all was finished, audited and read %s later", time.Since(killed).Round(time.Second))
	if fault := os.Getenv(plantEnv); fault != "" {
		h = doctor(h, fault)
	}
	v := Check(h)
	slices.Sort(recovery)
	fmt.Printf("crash: cycles=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d "+
		"recovery_p99_ms=%d\n",
		*cycles, v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated, v.Flagged, len(v.Unflagged),
		percentile(recovery, 99).Milliseconds())
	fmt.Printf("copies: dedupe_key=%d dropped_by_key=%d correlate=%d none=%d doubts=%d in_doubt_at_starts=%d excess=%d "+
		"unknown=%d recovered=%d recovery_p50_ms=%d recovery_max_ms=%d\n",
		v.Copies[dedupeKey], v.Repeats, v.Copies[correlate], v.Copies[none], v.Doubts, l.inDoubt(), len(v.Excess),
		v.Unknown, len(recovery), percentile(recovery, 50).Milliseconds(), percentile(recovery, 100).Milliseconds())
	t.Logf("%d requests were answered, %d of them twice; %d tries got no answer; the database has %d MB",
		d.answered.Load(), d.repeated.Load(), d.broken.Load(), l.databaseMB())
	t.Logf("the last WhatsApp report came %s after the last hand-off", d.reported.Round(time.Millisecond))
	if d.unreported != "" {
		v.Suspects = append(v.Suspects, d.unreported)
	}
	for _, id := range v.Suspects {
		t.Logf("message %s:%s", id, l.timeline(id))
	}
	l.True(v.OK(), "%s", v.Explain())
	l.Empty(d.unreported, "its receipt never came")
	l.NotZero(d.broken.Load(), "no kill met a request")
	if *cycles >= 10 {
		l.NotZero(l.inDoubt(), "no kill met an attempt")
	}
}

// percentile returns the pth percentile of durations in order.
func percentile(of []time.Duration, p int) time.Duration { return of[(len(of)*p+99)/100-1] }

// inDoubt sums up what the engines said at their starts about attempts that a kill had cut off. A start that was killed
// itself may have said nothing.
func (l *lab) inDoubt() (n int) {
	f, err := os.Open(l.log)
	l.NoError(err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "claims of the stopped process are settled") {
			continue
		}
		var line struct {
			InDoubt int `json:"in_doubt"`
		}
		l.NoError(json.Unmarshal(lines.Bytes(), &line))
		n += line.InDoubt
	}
	l.NoError(lines.Err())
	return n
}

// TestTerm drains and restarts the engine again and again under the same load. Nobody gets a second copy, and nobody is
// said to.
func TestTerm(t *testing.T) {
	require.Positive(t, *restarts)
	l := newLab(t, time.Duration(*restarts)*10*time.Second+3*time.Minute)
	d := l.newLoad()
	l.until("the load is under way", 5*time.Millisecond, func() bool { return len(d.look()) > backlog/10 })
	var drain, recovery []time.Duration
	for range *restarts {
		before := len(d.look())
		asked := time.Now()
		l.engine.signal(syscall.SIGTERM)
		l.Zero(l.engine.wait(), "a drain ends well")
		drain = append(drain, time.Since(asked))
		l.start()
		recovery = append(recovery, d.resumed(before))
		d.watch(time.Duration(l.rnd.IntN(800)) * time.Millisecond)
	}
	v := Check(d.finish())
	slices.Sort(drain)
	slices.Sort(recovery)
	fmt.Printf("restarts: n=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d "+
		"drain_p99_ms=%d recovery_p99_ms=%d\n",
		*restarts, v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated+v.Repeats, v.Flagged, len(v.Unflagged),
		percentile(drain, 99).Milliseconds(), percentile(recovery, 99).Milliseconds())
	l.True(v.OK(), "%s", v.Explain())
	l.Zero(v.Duplicated)
	l.Zero(v.Repeats)
	l.Zero(v.Flagged)
	l.Zero(v.Unknown)
}
