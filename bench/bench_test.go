package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain lets the test's own binary play the roles.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "-role" {
		os.Exit(role(os.Args[2], os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

func TestEveryRow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows.json")
	var stdout, stderr bytes.Buffer
	args := []string{"-n", "200", "-runs", "1", "-queue", "1000", "-time", "150ms", "-out", file, "-dir", t.TempDir()}
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), "%s", &stderr)

	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var rows []map[string]any
	require.NoError(t, json.Unmarshal(b, &rows))
	var got []string
	for _, r := range rows {
		got = append(got, r["name"].(string))
		require.Contains(t, stdout.String(), "\n"+r["name"].(string)+" ")
		delete(r, "name")
		require.Len(t, r, 7)
		for k, v := range r {
			require.Positive(t, v, "%s of %s", k, got[len(got)-1])
		}
	}
	require.Equal(t, []string{"sms", "whatsapp", "email", "webhook", "accept_single", "accept_batched", "queue", "overload"}, got)
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1, "the engines' directories are still there")
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	require.Equal(t, 1, run(ctx, []string{"-n", "10", "-dir", t.TempDir()}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "context canceled")
}

func TestWrongFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"-n 0": "above 0", "-runs -1": "above 0", "-only email,fax": `"fax" is unknown`, "now": "not a flag",
		"-x": "not defined",
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, run(t.Context(), strings.Fields(flags), &stdout, &stderr), flags)
		require.Contains(t, stderr.String(), want)
		require.Empty(t, stdout.String())
	}
}

func TestCompare(t *testing.T) {
	mail := channels()[2]
	to := func(people ...int) (list []string) {
		for _, p := range people {
			list = append(list, mail.key(p))
		}
		return list
	}
	const lost, doubled = "messages were not handed off", "messages were handed off more than once"
	for name, c := range map[string]struct {
		to   []string
		want []string
	}{
		"all once": {to(7, 5, 6), nil},
		"lost":     {to(5, 7), []string{"1 of 3 " + lost}},
		"doubled":  {to(5, 6, 7, 6), []string{"1 of 3 " + doubled}},
		"stranger": {to(5, 6, 7, 8), []string{"1 recipients got a message that nobody sent"}},
		"both":     {to(5, 5, 5), []string{"2 of 3 " + lost, "1 of 3 " + doubled}},
	} {
		require.Equal(t, c.want, compare(mail, 5, 3, c.to), name)
	}
}

func TestBodies(t *testing.T) {
	sizes := map[string]int{"sms": 60, "whatsapp": 200, "email": 1500, "webhook": 600}
	for _, c := range channels() {
		b := lines(c, "http://sim", 3, 2, inAnHour())
		rows := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
		require.Len(t, rows, 2)
		var m struct {
			Channel, To, Text, HTML string
			Data                    json.RawMessage
			SendAt                  time.Time `json:"send_at"`
		}
		require.NoError(t, json.Unmarshal(rows[1], &m))
		require.Equal(t, c.name, m.Channel)
		require.True(t, strings.HasSuffix(m.To, c.key(4)), "%s: the ledger would have %s as %s", c.name, m.To, c.key(4))
		size := len(m.Text) + len(m.HTML) + len(m.Data)
		require.InDelta(t, sizes[c.name], size, 0.1*float64(sizes[c.name]), c.name)
		require.True(t, m.SendAt.After(time.Now()))
	}
}

func TestSum(t *testing.T) {
	const text = `# HELP msgctl_receipts_total x
msgctl_receipts_total{channel="sms",effect="changed",status="delivered"} 12
msgctl_receipts_total{channel="sms",effect="parked",status="delivered"} 3e+01
msgctl_receipts_total{channel="whatsapp",effect="changed",status="read"} 7
msgctl_receipts_total_created{channel="sms"} 1000
up 1
`
	for want, labels := range map[int][]string{
		42: {`channel="sms"`}, 49: nil, 12: {`channel="sms"`, `effect="changed"`}, 0: {`channel="email"`},
	} {
		got, err := sum(strings.NewReader(text), "msgctl_receipts_total", labels)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := sum(strings.NewReader(text), "up", nil)
	require.NoError(t, err)
	require.Equal(t, 1, got)
}

func TestTraces(t *testing.T) {
	const text = `File: bench
Type: cpu
-----------+-------------------------------------------------------
      30ms   runtime.memmove
             github.com/msgctl/msgctl/store/sqlite.(*tx).insert
             github.com/msgctl/msgctl/pipeline.(*Pipeline).Accept
-----------+-------------------------------------------------------
      20ms   runtime.scanobject
             runtime.gcBgMarkWorker
-----------+-------------------------------------------------------
     1.05s   internal/poll.(*FD).Write
             net.(*conn).Write
             github.com/msgctl/msgctl/connectors/smtp.(*conn).data
-----------+-------------------------------------------------------
      10ms   runtime.futex
`
	s, err := readTraces(strings.NewReader(text))
	require.NoError(t, err)
	ms := time.Millisecond
	want := map[string]time.Duration{"store": 30 * ms, "runtime/gc": 20 * ms, "net": 1050 * ms, "runtime": 10 * ms}
	require.Equal(t, want, s.parts)
	require.Equal(t, 1110*ms, s.total)
}

func TestStatistics(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
	require.Zero(t, median(nil))
	var v []time.Duration
	for i := 100; i > 0; i-- {
		v = append(v, time.Duration(i)*time.Millisecond)
	}
	require.Equal(t, 50.0, percentile(v, 50))
	require.Equal(t, 99.0, percentile(v, 99))
	require.Equal(t, 7.0, percentile([]time.Duration{7 * time.Millisecond}, 99))
	require.Zero(t, percentile(nil, 99))
}

func TestVerdict(t *testing.T) {
	a := aim{rate: 100, ratio: 0.5, cpu: 10, p99: 20, rss: 90}
	r := row{Rate: 100, Ratio: 0.5, CPU: 10, P99: 20, RSS: 90, aim: a}
	require.Equal(t, "ok", r.verdict())
	require.Equal(t, "≥100/s, ≤10 CPU-s, ratio ≥0.5, p99 ≤20 ms, ≤90 MiB", r.aim.String())
	r.Rate, r.Ratio, r.CPU, r.P99, r.RSS = 99, 0.49, 11, 21, 91
	require.Equal(t, "below: rate, CPU, ratio, p99, memory", r.verdict())
	require.Equal(t, "ok", row{P99: 1e9, CPU: 1e9, RSS: 1e9}.verdict(), "nothing is asked")
}
