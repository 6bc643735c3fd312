package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// share says where a profile's CPU time went.
type share struct {
	name  string
	total time.Duration
	parts map[string]time.Duration
}

// readShare reads a CPU profile with the pprof of the Go tool.
func readShare(ctx context.Context, name, file string) (share, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return share{}, err
	}
	if err := cmd.Start(); err != nil {
		return share{}, fmt.Errorf("profile: %w", err)
	}
	s, err := readTraces(out)
	s.name = name
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("profile: go tool pprof: %w", werr)
	}
	return s, err
}

// readTraces adds up the stacks that "pprof -traces" prints: a rule, then a line with the time and the innermost
// function, then one line for each caller.
func readTraces(r io.Reader) (share, error) {
	s := share{parts: map[string]time.Duration{}}
	var stack []string
	var took time.Duration
	flush := func() {
		if len(stack) > 0 {
			s.parts[group(stack)] += took
			s.total += took
		}
		stack = stack[:0]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	started := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, "-----------+"):
			flush()
			started = true
		case !started || line == "":
		case len(stack) == 0:
			value, function, ok := strings.Cut(line, " ")
			d, err := time.ParseDuration(value)
			if !ok || err != nil {
				continue // a label of the stack
			}
			took = d
			stack = append(stack, strings.TrimSpace(function))
		default:
			stack = append(stack, line)
		}
	}
	flush()
	return s, lines.Err()
}

const own = "github.com/msgctl/msgctl/"

// group names the part of the program that a stack, innermost function first, is counted under: the first that says
// something on the way out.
func group(stack []string) string {
	for _, f := range stack {
		if strings.HasPrefix(f, "runtime.gcBgMarkWorker") || strings.HasPrefix(f, "runtime.gcAssistAlloc") ||
			strings.HasPrefix(f, "runtime.bgsweep") || strings.HasPrefix(f, "runtime.bgscavenge") {
			return "runtime/gc"
		}
	}
	for _, f := range stack {
		switch {
		case strings.HasPrefix(f, own):
			pkg, _, _ := strings.Cut(strings.TrimPrefix(f, own), ".")
			top, _, _ := strings.Cut(pkg, "/")
			return top
		case strings.HasPrefix(f, "zombiezen.com/"), strings.HasPrefix(f, "modernc.org/"):
			return "store"
		case strings.HasPrefix(f, "net."), strings.HasPrefix(f, "net/http"), strings.HasPrefix(f, "crypto/tls"):
			return "net"
		case strings.HasPrefix(f, "github.com/ThreeDotsLabs/"):
			return "broker"
		}
	}
	return "runtime"
}

func (s share) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %.1f CPU-s\n", s.name, s.total.Seconds())
	names := slices.SortedFunc(maps.Keys(s.parts), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.parts[b], s.parts[a]), cmp.Compare(a, b))
	})
	for _, n := range names {
		fmt.Fprintf(w, "  %5.1f %%  %s\n", 100*s.parts[n].Seconds()/s.total.Seconds(), n)
	}
}
