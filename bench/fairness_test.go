package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExperiments(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"-only", "noisy,faults", "-n", "500", "-time", "200ms", "-dir", t.TempDir()}
	require.Zero(t, run(t.Context(), args, &stdout, &stderr), "%s", &stderr)
	for _, want := range []string{
		"noisy: 20 urgent messages a second beside a blast of 500", "no limit", "500 per second", "blast is sent",
		"calm-1", "throttling", "the first arrives",
	} {
		require.Contains(t, stdout.String(), want)
	}
	require.NotContains(t, stdout.String(), "CPU-s/100k", "no rows were asked for")
}

func TestExperimentsRunOnlyWhenTheyAreAskedFor(t *testing.T) {
	for _, name := range experiments() {
		require.NotContains(t, names(), name)
		c, err := parse([]string{"-only", name}, &bytes.Buffer{})
		require.NoError(t, err)
		require.Equal(t, []string{name}, c.only)
		require.Empty(t, c.given["n"])
	}
	c, err := parse([]string{"-n", "30000"}, &bytes.Buffer{})
	require.NoError(t, err)
	require.True(t, c.given["n"], "the default, but asked for")
}

func TestABeatsWaits(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	l := beat{start: start, first: 10, n: 4, every: 5, rows: 2}
	c := channels()[0]
	s := seen{}
	for i, after := range []time.Duration{7, 9, 60, 0} { // ms; the last one is never seen
		if after > 0 {
			s.To = append(s.To, c.key(10+i))
			s.At = append(s.At, start.Add(after*time.Millisecond).UnixMicro())
		}
	}
	ms := time.Millisecond
	require.Equal(t, []time.Duration{7 * ms, 9 * ms, 10 * ms}, l.took(s, anyone))
	require.Equal(t, []time.Duration{9 * ms}, l.took(s, func(i int) bool { return i%2 == 1 }))

	drawn := beat{start: start, first: 10, n: 3, of: time.Second, draws: []draw{{0, 1}, {0, 4}, {3, 1}}}
	require.Equal(t, []time.Duration{7 * ms, 9 * ms, 30 * ms}, drawn.took(s, anyone), "in the third tick")
	require.Equal(t, []time.Duration{9 * ms}, drawn.took(s, func(i int) bool { return drawn.who(i) == 4 }))

	b := &bench{log: &bytes.Buffer{}}
	b.check("load", l, s)
	require.Len(t, b.problems, 1)
	require.Contains(t, b.problems[0], "1 of 4 messages were not handed off")
	s.To, s.At = append(s.To, c.key(13), c.key(11), c.key(99)), append(s.At, 1, 1, 1)
	b.problems = nil
	b.check("load", l, s)
	require.Len(t, b.problems, 1, "what is of another load is none of its business")
	require.Contains(t, b.problems[0], "1 of 4 messages were handed off more than once")
}

func TestSecondsAndMost(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	var at []time.Time
	for _, ms := range []int{0, 500, 999, 1000, 1001, 1900, 3500} {
		at = append(at, start.Add(time.Duration(ms)*time.Millisecond))
	}
	require.Equal(t, 4, most(at, time.Second), "from 500 to 1001, or 999 to 1900")
	require.Equal(t, 7, most(at, time.Minute))
	require.Zero(t, most(nil, time.Second))
	require.Equal(t, "3 3 0 1", perSecond(at, 10))
	require.Equal(t, "3 3 …", perSecond(at, 2))
	require.Empty(t, perSecond(nil, 10))
}

func TestATable(t *testing.T) {
	tab := table{title: "title", notes: []string{"note"}}
	tab.add("name", "value")
	tab.add("a long name", 1.25)
	var b bytes.Buffer
	tab.print(&b)
	want := []string{"title", "  name         value", "  a long name  1.2", "  note", ""}
	require.Equal(t, want, strings.Split(b.String(), "\n"))
}
