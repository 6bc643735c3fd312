// Command bench measures the engine against the limits of the machine it runs on.
//
// It runs a provider simulator and an engine as processes of their own, on loopback, and loads the engine over its API.
// CPU and memory are those of the engine's process alone; the load and the simulator share the machine with it, so that
// rates are those of one machine that does all three.
//
// A row for each channel says how many messages a second went from the first accept to the last hand-off (SMS, WhatsApp:
// to the last receipt in the store), and beside it the limit: the same bodies, built before, in the plainest loop that
// the protocol allows, to the same simulator, without any engine. Ratio is the one over the other: what the engine keeps
// of the machine. p50 and p99 are the time from accept to hand-off while half of the rate comes in on a fixed schedule,
// so that a message that has to wait counts with its wait. CPU is in seconds per 100,000 messages, memory the most that
// was resident, in MiB.
//
// accept_single and accept_batched are accepts of messages that are due in an hour; p50 and p99 are those of a request.
// Their limits are an HTTP server that does nothing and a SQLite table that takes the same rows in durable transactions
// of 500. The row queue shows the memory of an engine in which many messages wait.
//
// overload offers single accepts at three times the peak of a closed loop, over 1,000 connections that ask again at once
// when they are refused: its limit is that peak, its ratio what is left of it.
//
// Three experiments run only when -only names them, and print tables of their own: noisy sends one tenant's urgent
// messages beside another tenant's blast, faults lets three of five providers fail, cluster lets one, two and three
// engines share a PostgreSQL, a RabbitMQ and a Redis that it starts. Those keep their data in the system's temporary
// directory.
//
// The numbers of a row are medians over the runs, its memory the largest. CPU and memory are 0 where the system is not
// a Unix. The program ends with status 1 when a message
// was lost or handed off twice, and never because a number is low.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-role" {
		os.Exit(role(os.Args[2], os.Args[3:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// config is what the flags say.
type config struct {
	n, runs, queue int
	time           time.Duration // of the phases that are not counted in messages
	only           []string
	given          map[string]bool // flags that were
	out, profile   string
	dir            string
	nodes          []int // of a cluster, one number after the other
	scanRows       int   // most rows among which a cluster finds work
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	var only, nodes string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&c.n, "n", 30_000, "messages of one run of a channel")
	f.IntVar(&c.runs, "runs", 3, "runs of a channel; the median counts")
	f.IntVar(&c.queue, "queue", 200_000, "messages that wait while memory is read")
	f.DurationVar(&c.time, "time", 5*time.Second, "how long latency and accepts are measured")
	f.StringVar(&only, "only", "", "rows to measure, such as email,queue; default "+strings.Join(names(), ","))
	f.StringVar(&c.out, "out", "", "write the rows to this file as JSON")
	f.StringVar(&c.profile, "profile", "", "keep a CPU profile of the engine for each row in this directory; of a cluster "+
		"the statements of PostgreSQL")
	f.StringVar(&c.dir, "dir", "", "where engines keep their data while they run; default the system's temporary one")
	f.StringVar(&nodes, "nodes", "1,2,3", "numbers of engines of the experiment cluster")
	f.IntVar(&c.scanRows, "rows", 1_000_000, "most rows among which the experiment cluster finds work; 10000000 takes "+
		"minutes and some gigabytes")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.given = map[string]bool{}
	f.Visit(func(f *flag.Flag) { c.given[f.Name] = true })
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if c.n < 1 || c.runs < 1 || c.queue < 1 || c.time <= 0 {
		return c, errors.New("-n, -runs, -queue and -time must be above 0")
	}
	var err error
	if c.nodes, err = wholes(nodes); err != nil {
		return c, fmt.Errorf("-nodes: %w", err)
	}
	if c.scanRows < leastRows {
		return c, fmt.Errorf("-rows must be at least %d", leastRows)
	}
	for _, name := range strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' }) {
		if all := append(names(), experiments()...); !slices.Contains(all, name) {
			return c, fmt.Errorf("-only: %q is unknown: choose from %s", name, strings.Join(all, ", "))
		}
		c.only = append(c.only, name)
	}
	return c, nil
}

// run measures and returns the exit status: 1 when messages were lost or doubled or something did not work, 2 for wrong
// flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	b := &bench{config: cfg, log: stderr}
	err = b.all(ctx)
	if len(b.rows) > 0 || len(b.tables) == 0 {
		printTable(stdout, b.rows)
	}
	for _, t := range b.tables {
		t.print(stdout)
	}
	for _, s := range b.shares {
		s.print(stdout)
	}
	if cfg.out != "" {
		err = errors.Join(err, writeRows(cfg.out, b.rows))
	}
	for _, p := range b.problems {
		fmt.Fprintln(stderr, "bench: WRONG:", p)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	if err != nil || len(b.problems) > 0 {
		return 1
	}
	return 0
}

// bench is one run of the program.
type bench struct {
	config
	log      io.Writer
	work     string // a temporary directory
	exe      string
	engines  int // so far
	people   int // recipients given out so far
	rows     []row
	shares   []share
	tables   []table  // of experiments
	problems []string // messages lost or doubled
}

// names are the rows in their order.
func names() []string {
	var list []string
	for _, c := range channels() {
		list = append(list, c.name)
	}
	return append(list, "accept_single", "accept_batched", "queue", "overload")
}

func (b *bench) wanted(name string) bool { return len(b.only) == 0 || slices.Contains(b.only, name) }

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func (b *bench) wrong(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
	b.say("WRONG: "+format, args...)
}

// all measures every row that is wanted. What was measured before a failure stays in rows.
func (b *bench) all(ctx context.Context) (err error) {
	if b.exe, err = os.Executable(); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp(b.dir, "msgctl-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
	}
	for _, c := range channels() {
		if !b.wanted(c.name) {
			continue
		}
		if err := b.channel(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for name, measure := range b.accepts() {
		if !b.wanted(name) {
			continue
		}
		if err := measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, measure := range b.experiments() {
		if !slices.Contains(b.only, name) {
			continue
		}
		if err := measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
