package msgctl_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	promises  = 15 // in docs/guarantees.md
	fewShowns = 45
)

var (
	// promiseRow is a row of the table of promises: number, promise, shape, and what shows it there.
	promiseRow = regexp.MustCompile("^\\| (\\d+) ([^|]+) \\| (\\w+) \\| `([^`]+)` \\|$")
	// shownBy is a feature, one of its rules or scenarios, or package.TestName.
	shownBy = regexp.MustCompile(`^(?:(features/\w+\.feature)(?::(.+))?|([\w/]+)\.(Test\w+))$`)
	// shapes says on which shapes of the engine a row shows its promise.
	shapes = map[string][]string{"embedded": {"embedded"}, "cluster": {"cluster"}, "both": {"embedded", "cluster"}}
)

// promiseFaults says what is wrong with the table of promises in a page.
func promiseFaults(t *testing.T, text string) (faults []string, rows int) {
	shown, names, before := map[string]bool{}, map[int]string{}, 0
	say := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for line := range strings.Lines(text) {
		m := promiseRow.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		rows++
		n, _ := strconv.Atoi(m[1])
		if n < before || names[n] != "" && names[n] != m[2] {
			say("promise %d is out of order or has two names: %s", n, m[2])
		}
		before, names[n] = n, m[2]
		if shapes[m[3]] == nil {
			say("promise %d: there is no shape %q", n, m[3])
		}
		for _, s := range shapes[m[3]] {
			shown[fmt.Sprint(n, s)] = true
		}
		if why := unshown(t, m[3], m[4]); why != "" {
			say("promise %d: %s: %s", n, m[4], why)
		}
	}
	for n := 1; n <= promises; n++ {
		for _, s := range shapes["both"] {
			if !shown[fmt.Sprint(n, s)] {
				say("nothing shows promise %d on %s", n, s)
			}
		}
	}
	return faults, rows
}

// unshown says why something cannot show a promise on a shape, or "".
func unshown(t *testing.T, shape, what string) string {
	m := shownBy.FindStringSubmatch(what)
	if m == nil {
		return "it is neither package.TestName nor a feature"
	}
	if m[3] != "" {
		return testsOf(t, m[3]).missing(m[4], "")
	}
	b, err := os.ReadFile(m[1])
	if err != nil {
		return err.Error()
	}
	title := regexp.MustCompile(`(?m)^\s*(Rule|Scenario|Scenario Outline): ` + regexp.QuoteMeta(m[2]) + `$`)
	if m[2] != "" && !title.Match(b) {
		return "the feature has no such rule or scenario"
	}
	// A feature's tags say where it runs: one for clusters does not run elsewhere, and the others run on both.
	only := regexp.MustCompile(`(?m)^@cluster\nFeature:`).Match(b)
	if want := map[bool]string{true: "cluster", false: "both"}[only]; shape != want {
		return "by its tags it runs on " + want
	}
	return ""
}

func TestEachPromiseIsShownOnBothShapes(t *testing.T) {
	b, err := os.ReadFile("docs/guarantees.md")
	require.NoError(t, err)
	faults, rows := promiseFaults(t, string(b))
	require.Empty(t, faults)
	require.Greater(t, rows, fewShowns, "the pattern has missed rows")
}

func TestATableOfPromisesCanBeWrong(t *testing.T) {
	b, err := os.ReadFile("docs/guarantees.md")
	require.NoError(t, err)
	for _, c := range []struct{ old, new, want string }{
		{"4 a drain doubles nothing | embedded", "4 a drain doubles nothing | cluster", "nothing shows promise 4 on embedded"},
		{"`bench/crash.TestRolling`", "`bench/crash.TestRollingStone`", "there is no TestRollingStone"},
		{":A node is killed`", ":A node is stroked`", "no such rule or scenario"},
		{"cluster | `features/cluster.feature:Rabbit", "both | `features/cluster.feature:Rabbit", "runs on cluster"},
		{"| 6 order by key | both |", "| 6 order by key | embedded |", "runs on both"},
		{"`engine.TestDoubtsByKindAndPolicy`", "`doubts`", "neither"},
		{"| 9 a cancel never lies | embedded |", "| 9 a cancel never lies | sqlite |", `no shape "sqlite"`},
		{"| 9 a cancel never lies | embedded |", "| 9 a cancel lies | embedded |", "two names"},
	} {
		text := strings.Replace(string(b), c.old, c.new, 1)
		require.NotEqual(t, string(b), text, "nothing was changed: %s", c.old)
		faults, _ := promiseFaults(t, text)
		found := slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.want) })
		require.True(t, found, "%s: %v", c.new, faults)
	}
}
