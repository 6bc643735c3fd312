package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// What a phase takes when no flag says it: all of them must fit into ten minutes.
	clusterN    = 20_000
	clusterTime = 3 * time.Second
	// withoutAim is what must be left of the rate while RabbitMQ is stopped.
	withoutAim = 0.5
)

// cluster measures engines that share a PostgreSQL, a RabbitMQ and a Redis, all on this machine.
func (b *bench) cluster(ctx context.Context) (err error) {
	c := &cluster{bench: b, n: clusterN, d: clusterTime}
	if b.given["n"] {
		c.n = b.n
	}
	if b.given["time"] {
		c.d = b.time
	}
	c.begin()
	b.say("cluster: starting PostgreSQL, RabbitMQ and Redis")
	if c.on, err = b.back(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.on.close()) }()
	p, err := b.start(ctx, roleSim)
	if err != nil {
		return err
	}
	c.sim = simulated{p}
	defer func() { err = errors.Join(err, c.sim.stop()) }()
	for _, step := range []func(context.Context) error{c.ceilings, c.fleets} {
		if err = step(ctx); err != nil {
			break
		}
	}
	c.report()
	if err != nil {
		return err
	}
	return b.scan(ctx, c.on)
}

// cluster is one run of the experiment.
type cluster struct {
	*bench
	n      int           // messages of a flood
	d      time.Duration // of accepts and latencies
	on     *backing
	sim    simulated
	limits map[string]float64
	others []float64 // shares of the machine, of all phases
	load   string    // average, at the beginning
	start  time.Time

	ceiling, accepts, handOff, without, size table
}

func (c *cluster) begin() {
	c.start, c.load, c.limits = time.Now(), loadAverage(), map[string]float64{}
	c.ceiling.title = "cluster: what the servers do by themselves"
	c.ceiling.add("what", "a second", "unit")
	c.accepts.title = "cluster: accepts"
	c.accepts.add(heads("nodes", "kind", "messages/s", "ratio", "p50 ms", "p99 ms")...)
	c.handOff.title = "cluster: accept to hand-off"
	c.handOff.add(heads("nodes", "channel", "messages/s", "p50 ms", "p99 ms")...)
	c.without.title = "cluster: SMS while RabbitMQ is stopped"
	c.without.add(heads("nodes", "messages/s with", "without", "share", "verdict")...)
	c.size.title = "cluster: memory, MiB"
	c.size.add(append([]any{"nodes", "an engine, at most"}, anys(parts[1:])...)...)
}

func anys(list []string) (out []any) {
	for _, s := range list {
		out = append(out, s)
	}
	return out
}

// heads are the columns of a table with costs.
func heads(first ...any) []any {
	for _, p := range parts {
		first = append(first, "CPU "+p)
	}
	return append(first, "others %")
}

// ceilings measures what the servers do by themselves.
func (c *cluster) ceilings(ctx context.Context) error {
	for _, l := range c.on.limits() {
		var rates []float64
		for range c.runs {
			rate, err := l.run(ctx, c.d/3)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			rates = append(rates, rate)
		}
		c.limits[l.name] = median(rates)
		c.say("cluster: %s: %.0f %s", l.name, median(rates), l.unit)
		c.ceiling.add(l.name, fmt.Sprintf("%.0f", median(rates)), l.unit)
	}
	return nil
}

// fleets measures one number of nodes after the other.
func (c *cluster) fleets(ctx context.Context) error {
	for _, n := range c.nodes {
		c.say("cluster: %d nodes, after %.0f s", n, time.Since(c.start).Seconds())
		if err := c.fleet(ctx, n); err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
	}
	return nil
}

func (c *cluster) fleet(ctx context.Context, n int) (err error) {
	f, err := c.launch(ctx, c.on, c.sim, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.end(), c.on.drop(ctx, f.db)) }()
	with := map[string]float64{}
	var kinds []channel
	for _, ch := range channels() {
		if ch.name == "sms" || ch.name == "webhook" {
			kinds = append(kinds, ch)
		}
	}
	for _, ch := range kinds {
		if _, _, err := f.flood(ctx, ch, warmUp*n); err != nil { // so that connections are there
			return err
		}
		if with[ch.name], err = c.deliver(ctx, f, ch); err != nil {
			return fmt.Errorf("%s: %w", ch.name, err)
		}
	}
	if err := c.explain(ctx, f, "hand-off"); err != nil {
		return err
	}
	if err := c.stopped(ctx, f, kinds[0], with[kinds[0].name]); err != nil {
		return fmt.Errorf("without RabbitMQ: %w", err)
	}
	if err := c.explain(ctx, f, "without"); err != nil {
		return err
	}
	if err := c.accept(ctx, f); err != nil {
		return fmt.Errorf("accepts: %w", err)
	}
	if err := c.explain(ctx, f, "accepts"); err != nil {
		return err
	}
	if err := c.weigh(f); err != nil {
		return err
	}
	return f.audit(ctx)
}

// explain keeps what PostgreSQL did in a phase, when profiles are asked for.
func (c *cluster) explain(ctx context.Context, f *fleet, phase string) error {
	if c.profile == "" {
		return nil
	}
	file := fmt.Sprintf("cluster-%d-%s.statements", len(f.nodes), phase)
	if err := c.on.statements(ctx, f.db, filepath.Join(c.profile, file)); err != nil {
		return fmt.Errorf("statements of PostgreSQL: %w", err)
	}
	return nil
}

// deliver measures a channel: the peak, and how long a message takes at half of it.
func (c *cluster) deliver(ctx context.Context, f *fleet, ch channel) (float64, error) {
	var rates, p50, p99 []float64
	var spent []costs
	for i := range c.runs {
		rate, cost, err := f.flood(ctx, ch, c.n)
		if err != nil {
			return 0, err
		}
		took, err := f.steady(ctx, ch, rate/2, c.d)
		if err != nil {
			return 0, fmt.Errorf("latency: %w", err)
		}
		half, slow := percentile(took, 50), percentile(took, 99)
		c.say("cluster: %d nodes, %s, run %d: %.0f/s, p50 %.1f ms, p99 %.1f ms, %.1f CPU-s per 100k in engines, "+
			"%.0f%% of the machine used by others", len(f.nodes), ch.name, i+1, rate, half, slow, cost.per[0], 100*cost.others)
		rates, p50, p99, spent = append(rates, rate), append(p50, half), append(p99, slow), append(spent, cost)
	}
	cells := []any{len(f.nodes), ch.name, fmt.Sprintf("%.0f", median(rates)), median(p50), median(p99)}
	c.handOff.add(append(cells, c.spent(spent)...)...)
	return median(rates), nil
}

// spent are the cells of costs, each the median of the runs.
func (c *cluster) spent(runs []costs) (cells []any) {
	for i := range parts {
		var v []float64
		for _, r := range runs {
			v = append(v, r.per[i])
		}
		cells = append(cells, median(v))
	}
	var others []float64
	for _, r := range runs {
		others = append(others, 100*r.others)
	}
	c.others = append(c.others, others...)
	return append(cells, median(others))
}

// stopped measures the same without RabbitMQ: the sweepers alone find the work. It is started again afterwards.
func (c *cluster) stopped(ctx context.Context, f *fleet, ch channel, with float64) error {
	if err := c.on.try(c.on.rabbit.Stop); err != nil {
		return err
	}
	var rates []float64
	var spent []costs
	for i := range c.runs {
		rate, cost, err := f.flood(ctx, ch, c.n)
		if err != nil {
			return err
		}
		c.say("cluster: %d nodes, RabbitMQ stopped, run %d: %.0f/s, %.0f%% of the machine used by others", len(f.nodes), i+1,
			rate, 100*cost.others)
		rates, spent = append(rates, rate), append(spent, cost)
	}
	without := median(rates)
	cells := []any{len(f.nodes), fmt.Sprintf("%.0f", with), fmt.Sprintf("%.0f", without),
		fmt.Sprintf("%.2f", without/with), shareVerdict(with, without)}
	c.without.add(append(cells, c.spent(spent)...)...)
	return c.on.try(c.on.rabbit.Start)
}

// shareVerdict says whether enough is left.
func shareVerdict(with, without float64) string {
	if without < with*withoutAim {
		return fmt.Sprintf("below %g", withoutAim)
	}
	return "ok"
}

// accept measures accepts of messages that are due in an hour, in batches and one by one.
func (c *cluster) accept(ctx context.Context, f *fleet) error {
	sms := channels()[0]
	extra := inAnHour()
	first := f.nodes[0]
	one := make([][]byte, distinct)
	for i := range one {
		one[i] = first.request("/v1/messages", "application/json", lines(sms, "", i, 1, extra))
	}
	for _, k := range []struct {
		name, limit         string
		conns, status, rows int
		list                [][]byte
	}{
		{"batches of 500", limitInsert, pushers, http.StatusOK, batchRows, first.batches(sms, "", 0, distinct, extra)},
		{"single", limitCommits, singles, http.StatusAccepted, 1, one},
	} {
		var rates []float64
		var took []time.Duration
		var spent []costs
		for i := range c.runs {
			rate, times, cost, err := f.accept(ctx, k.conns, k.status, k.rows, c.d, k.list)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			c.say("cluster: %d nodes, accepts, %s, run %d: %.0f/s, %.1f CPU-s per 100k in engines", len(f.nodes), k.name,
				i+1, rate, cost.per[0])
			rates, took, spent = append(rates, rate), append(took, times...), append(spent, cost)
		}
		cells := []any{len(f.nodes), k.name, fmt.Sprintf("%.0f", median(rates)),
			fmt.Sprintf("%.2f", median(rates)/c.limits[k.limit]), percentile(took, 50), percentile(took, 99)}
		c.accepts.add(append(cells, c.spent(spent)...)...)
	}
	return nil
}

// weigh reads how much memory everybody has.
func (c *cluster) weigh(f *fleet) error {
	most, err := f.rss()
	if err != nil {
		return err
	}
	cells := []any{len(f.nodes), most}
	found := trees(processes(), os.Getpid())
	for _, p := range parts[1:] {
		cells = append(cells, memory(found[p]))
	}
	c.size.add(cells...)
	return nil
}

// report puts the tables in their order. What was measured before a failure is in them.
func (c *cluster) report() {
	c.ceiling.notes = []string{
		fmt.Sprintf("durable, rows of %d bytes; %d connections for batches, %d for single rows and scripts", rawBody,
			rawBatchers, rawSingles),
	}
	c.accepts.notes = []string{
		"messages of one tenant, due in an hour; p50 and p99 are those of a request; CPU in seconds per 100,000 messages;",
		"ratio: to the insert of batches by unnest, and of one row, in the table above",
	}
	c.handOff.notes = []string{
		fmt.Sprintf("%d messages as fast as they are taken, SMS until the receipt is stored; p50 and p99 from the moment at",
			c.n),
		"which a message was to be accepted to the provider's having it, at half of that rate; CPU as above",
	}
	c.without.notes = []string{
		fmt.Sprintf("the sweepers alone find the work; the aim is a share of at least %g; CPU and others are those without",
			withoutAim),
	}
	c.size.notes = []string{
		"at the end, PostgreSQL's shared buffers counted once; an engine's is the most it ever had"}
	c.ceiling.notes = append(c.ceiling.notes,
		fmt.Sprintf("all on this machine: %d CPUs, shared with the load and the simulator;", runtime.NumCPU()),
		fmt.Sprintf("load average %s before, %s after; others used %.0f%% of it (median of the phases), at most %.0f%%;",
			c.load, loadAverage(), median(c.others), slices.Max(append(c.others, 0))),
		"medians of "+strconv.Itoa(c.runs)+"; PostgreSQL with shared_buffers 256MB, max_wal_size 2GB, else as it comes")
	for _, t := range []table{c.ceiling, c.accepts, c.handOff, c.without, c.size} {
		if len(t.rows) > 1 {
			c.tables = append(c.tables, t)
		}
	}
}

// wholes reads a list of whole numbers above 0.
func wholes(list string) (out []int, err error) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number above 0", s)
		}
		out = append(out, n)
	}
	return out, nil
}
