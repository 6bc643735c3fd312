package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store/sqlite"
)

var (
	seeds = flag.Int("seeds", 300, "how many seeds TestSeeds runs")
	first = flag.Uint64("first", 1, "the first of them")
	show  = flag.Bool("show", false, "print the log of every seed")
	twice = flag.Int("twice", 20, "how many seeds TestReplay runs twice")
	steps = flag.Bool("steps", false, "the log has every step of the driver")
)

// TestMain keeps the scheduler of the runtime out of the game: goroutines that could run at the same time take turns.
func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1)
	os.Exit(m.Run())
}

// options makes what every seed starts from.
func options(t *testing.T) Options {
	dir, err := os.MkdirTemp(ramDir(), "sim")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	o := Options{Dir: filepath.Join(dir, "run"), Steps: *steps}
	require.NoError(t, os.Mkdir(o.Dir, 0o700))
	blank := filepath.Join(dir, "blank")
	s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: blank})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	o.Blank, err = os.ReadFile(filepath.Join(blank, "msgctl.db"))
	require.NoError(t, err)
	return o
}

// ramDir is a directory in memory, where the system has one: a seed is to cost processor time only.
func ramDir() string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// run runs a seed without the collector in between, which would change the turns that goroutines take.
func run(t *testing.T, seed uint64, o Options) Result {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	return Run(t, seed, o)
}

// TestSeeds keeps every promise under every seed's faults.
func TestSeeds(t *testing.T) {
	o := options(t)
	var sum Sum
	sum.Ends = map[delivery.Status]int{}
	began := time.Now()
	for seed := *first; seed < *first+uint64(*seeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := run(t, seed, o)
			if *show {
				fmt.Println(r.Log)
			}
			if len(r.Violations) > 0 {
				t.Errorf("seed %d: %s\nreplay: go test ./bench/sim -run TestSeeds -first %d -seeds 1 -show", seed, r.Violations[0], seed)
			}
			sum.add(r.Sum)
		})
	}
	t.Logf("%d seeds in %s: %+v", *seeds, time.Since(began), sum)
}

// TestReplay runs seeds twice: what happens must be the same, byte for byte.
func TestReplay(t *testing.T) {
	o := options(t)
	o.Steps = true
	for seed := *first; seed < *first+uint64(*twice); seed++ {
		one, two := run(t, seed, o), run(t, seed, o)
		assert.Empty(t, difference(one.Log, two.Log), "seed %d", seed)
	}
}

// difference is the first line in which two logs differ, with the lines before it.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d:\n%s\nis\n%s\nand\n%s", i, strings.Join(x[max(0, i-5):i], "\n"), x[i], y[i])
		}
	}
	if len(x) != len(y) {
		return "one log goes on where the other ends"
	}
	return ""
}

func (s *Sum) add(o Sum) {
	s.Messages += o.Messages
	s.HandOvers += o.HandOvers
	s.Taken += o.Taken
	s.Doubled += o.Doubled
	s.Doubts += o.Doubts
	s.Kills += o.Kills
	s.Drains += o.Drains
	s.Steps += o.Steps
	s.AfterStop += o.AfterStop
	s.AfterProof += o.AfterProof
	s.CanceledTaken += o.CanceledTaken
	for k, n := range o.Ends {
		s.Ends[k] += n
	}
}
