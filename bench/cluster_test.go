package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
)

func TestClusterInSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers and two engines")
	}
	var stdout, stderr bytes.Buffer
	args := []string{
		"-only", "cluster", "-nodes", "2", "-n", "200", "-runs", "1", "-time", "150ms", "-rows", "10000", "-dir", t.TempDir(),
	}
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), "%s", &stderr)
	out := stdout.String()
	for _, title := range []string{
		"what the servers do by themselves", "accepts", "accept to hand-off", "SMS while RabbitMQ is stopped", "memory, MiB",
		"finding work among many rows",
	} {
		require.Contains(t, out, "cluster: "+title)
	}
	for _, row := range []string{"2 batches of 500 ", "2 single ", "2 sms ", "2 webhook ", "10000 ", "verdict flat"} {
		require.Contains(t, strings.Join(strings.Fields(out), " "), " "+row)
	}
	require.Contains(t, out, limitCommits)
	require.Contains(t, stderr.String(), "RabbitMQ stopped, run 1")
	require.Empty(t, trees(processes(), -1))
}

func TestKit(t *testing.T) {
	var said []string
	k := &kit{say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
	require.NoError(t, k.try(func() { k.Helper(); k.Logf("%d %%", 1) }))
	require.Equal(t, []string{"1 %"}, said)
	require.False(t, k.Failed())

	after := false
	err := k.try(func() {
		k.Errorf("first %d", 1)
		k.Fatalf("second %d", 2)
		after = true
	})
	require.ErrorContains(t, err, "first 1")
	require.ErrorContains(t, err, "second 2")
	require.False(t, after, "Fatalf has returned")
	require.True(t, k.Failed())
	require.NoError(t, k.try(func() {}), "an earlier failure is told once")
	require.Panics(t, func() { _ = k.try(func() { panic(errors.New("another")) }) })

	var order []int
	for i := range 3 {
		k.Cleanup(func() {
			order = append(order, i)
			if i == 1 {
				k.Fatal("cleanup ", i)
			}
		})
	}
	require.ErrorContains(t, k.close(), "cleanup 1")
	require.Equal(t, []int{2, 1, 0}, order)
	require.NoError(t, k.close())
}

func TestParseStat(t *testing.T) {
	const line = "4711 (a (b) c) S 42 4711 4711 0 -1 4194560 1 2 3 4 150 50 1000 300 20 0 1 0 12345 1000 200"
	p, ok := parseStat([]byte(line))
	require.True(t, ok)
	require.Equal(t, "a (b) c", p.name)
	require.Equal(t, 4711, p.pid)
	require.Equal(t, 42, p.parent)
	require.InDelta(t, 15.0, p.cpu, 1e-9)
	for _, bad := range []string{"", "1 (x", ") 1 (", "1 (x) S 2 3", strings.Replace(line, "150", "x", 1), "x" + line} {
		_, ok := parseStat([]byte(bad))
		require.False(t, ok, bad)
	}
}

func TestTrees(t *testing.T) {
	list := []proc{
		{pid: 13, parent: 12, name: "postgres", cpu: 3}, // before its parent in the list
		{pid: 10, parent: 1, name: "bench"},
		{pid: 11, parent: 10, name: "postgres", cpu: 1},
		{pid: 12, parent: 11, name: "postgres", cpu: 2},
		{pid: 14, parent: 10, name: "sh"},
		{pid: 15, parent: 14, name: "redis-server"}, // not ours directly
		{pid: 16, parent: 10, name: "beam.smp"},
		{pid: 17, parent: 16, name: "erl_child_setup"},
		{pid: 18, parent: 1, name: "postgres"}, // somebody else's
	}
	got := trees(list, 10)
	require.Len(t, got, 2)
	require.Equal(t, []proc{list[2], list[3], list[0]}, got["PostgreSQL"])
	require.Equal(t, []proc{list[6], list[7]}, got["RabbitMQ"])
}

func TestParseBusy(t *testing.T) {
	const text = "cpu  100 20 30 9999 8888 4 5 6 70 80\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
	require.InDelta(t, 1.65, parseBusy([]byte(text)), 1e-9) // user nice system irq softirq steal; guests count in user
	require.Zero(t, parseBusy(nil))
}

func TestMemory(t *testing.T) {
	const status = "Name:\tpostgres\nVmHWM:\t  9 kB\nRssAnon:\t    2048 kB\nRssShmem:\t     512 kB\n"
	require.Equal(t, 2048, kibibytes([]byte(status), "RssAnon"))
	require.Equal(t, 512, kibibytes([]byte(status), "RssShmem"))
	require.Zero(t, kibibytes([]byte(status), "RssFile"))
	require.Zero(t, memory([]proc{{pid: 1 << 30}}), "a process that has ended")
}

func TestCosts(t *testing.T) {
	at := time.Unix(1000, 0)
	before := reading{at: at, busy: 100,
		part: map[string]float64{"engines": 10, "PostgreSQL": 20, "RabbitMQ": 9, "load": 5}}
	after := reading{at: at.Add(10 * time.Second), busy: 115,
		part: map[string]float64{"engines": 12, "PostgreSQL": 23, "RabbitMQ": 1, "load": 6}}
	c := after.since(before, 50_000, 2)
	require.Equal(t, []float64{4, 6, 2, 0}, c.per, "RabbitMQ was started anew")
	require.InDelta(t, 0.4, c.others, 1e-9, "15 of 20 CPU seconds were used, 7 by us")

	after.busy = 101
	require.Zero(t, after.since(before, 50_000, 2).others, "what is counted twice is not negative")
	require.Equal(t, []float64{0, 0, 0, 0}, after.since(before, 0, 2).per)
	require.Len(t, reading{}.since(reading{}, 1, 2).per, len(parts))
}

func TestPortion(t *testing.T) {
	for _, c := range []struct {
		whole, of int
		want      []int
	}{
		{8, 1, []int{8}}, {8, 2, []int{4, 4}}, {8, 3, []int{3, 3, 2}}, {50, 3, []int{17, 17, 16}}, {2, 3, []int{1, 1, 1}},
	} {
		var got []int
		for i := range c.of {
			got = append(got, portion(c.whole, c.of, i))
		}
		require.Equal(t, c.want, got)
	}
}

func TestClusterVerdicts(t *testing.T) {
	require.Equal(t, "flat", flat(10, 20))
	require.Equal(t, "2.1 times", flat(10, 20.6))
	require.Equal(t, "flat", flat(0.1, 2.1))
	require.Equal(t, "3.0 times", flat(2, 6))
	require.Equal(t, "ok", shareVerdict(1000, 500))
	require.Equal(t, "below 0.5", shareVerdict(1000, 499))
}

func TestClusterFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"-nodes 0": `-nodes: "0" is not a number above 0`, "-nodes 1,,2": `"" is not`, "-nodes 1,x": `"x" is not`,
		"-rows 9999": "-rows must be at least 10000",
	} {
		var stdout, stderr bytes.Buffer
		require.Equal(t, 2, run(t.Context(), strings.Fields(flags), &stdout, &stderr), flags)
		require.Contains(t, stderr.String(), want)
	}
	got, err := wholes("3, 1")
	require.NoError(t, err)
	require.Equal(t, []int{3, 1}, got)
}

func TestTimetable(t *testing.T) {
	c := channels()[0]
	for _, rate := range []float64{1, 5, 99, 100, 150, 12_345} {
		b := &bench{people: 7}
		first, due, requests := b.timetable(&served{}, c, simulated{&process{}}, rate, 200*time.Millisecond)
		require.Equal(t, 7, first)
		require.InDelta(t, max(rate/5, 1), len(due), 1)
		require.Equal(t, 7+len(due), b.people)
		require.Len(t, requests, 20)
		rows := 0
		for i, r := range requests {
			for range bytes.Count(r, []byte(`"channel"`)) {
				require.Equal(t, time.Duration(i)*tick, due[rows])
				require.Contains(t, string(r), c.key(first+rows))
				rows++
			}
		}
		require.Equal(t, len(due), rows)
	}
}

func TestWaits(t *testing.T) {
	c := channels()[0]
	start := time.UnixMicro(1_000_000)
	ms := time.Millisecond
	s := seen{To: []string{c.key(6), c.key(5)}, At: []int64{1_030_000, 999_000}}
	took := waits(c, 5, start, []time.Duration{0, 10 * ms, 20 * ms}, s)
	require.Equal(t, []time.Duration{time.Microsecond, 20 * ms}, took, "the third has not arrived")
}

// What the table of the scan says of its rows is so, however many there were before.
func TestMixture(t *testing.T) {
	ctx := t.Context()
	on := &backing{kit: &kit{say: t.Logf}, pg: servers.Postgres(t)}
	t.Cleanup(func() { require.NoError(t, on.close()) })
	db, err := on.database(ctx)
	require.NoError(t, err)
	s, err := postgres.Open(ctx, postgres.Options{URL: db.App})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	now := time.Now()
	_, like, err := patterns(ctx, s, now)
	require.NoError(t, err)
	queues := scanTenants * len(scanLanes) * len(scanChannels)
	require.Len(t, like, queues)
	for _, r := range [][2]int{{0, 1000}, {1000, 3000}} {
		_, err := fill(ctx, db, now, like, r[0], r[1])
		require.NoError(t, err)
	}
	conn, err := pgx.Connect(ctx, db.Admin)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	got := map[string]int{}
	rows, err := conn.Query(ctx, `SELECT status || CASE WHEN due IS NULL THEN ' never' WHEN due > $1 THEN ' later'
		ELSE ' now' END || CASE WHEN q = 0 THEN '' ELSE ' queued' END, count(*) FROM messages
		WHERE id <> ALL ($2::uuid[]) GROUP BY 1`, store.Millis(now), like)
	require.NoError(t, err)
	var what string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&what, &n}, func() error { got[what] = n; return nil })
	require.NoError(t, err)
	want := map[string]int{}
	for x := 1; x <= 3000; x++ {
		switch at := x % 1000; {
		case at < 600:
			want["11 never"]++
		case at < 900:
			want["1 later queued"]++
		case at < 980:
			want["2 now queued"]++
		case at < 990:
			want["5 later"]++
		default:
			want["5 now"]++
		}
	}
	require.Equal(t, want, got)
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM (SELECT q FROM messages WHERE q > 0 AND due <= $1
		GROUP BY q HAVING count(*) BETWEEN 15 AND 30) AS of`, store.Millis(now)).Scan(&n))
	require.Equal(t, queues, n, "each queue has its part of the 240 that are due")
}
