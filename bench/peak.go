package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

const (
	warmUp = 100 // messages before a measurement, so that connections are there
	// stalled is after how long without any progress messages are given up as lost.
	stalled = 15 * time.Second
	poll    = 10 * time.Millisecond
	// tick is the schedule of the latency load.
	tick = 10 * time.Millisecond
)

// errStalled is why a wait was given up.
var errStalled = errors.New("no progress")

// channel measures one channel: the limit, the peak, the latency at half of it.
func (b *bench) channel(ctx context.Context, c channel) (err error) {
	p, err := b.start(ctx, roleSim)
	if err != nil {
		return err
	}
	sim := simulated{p}
	defer func() { err = errors.Join(err, sim.stop()) }()

	var limits, rates, cpu, rss []float64
	for i := range b.runs {
		limit, err := b.limit(ctx, c, sim)
		if err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		limits = append(limits, limit)
		got, err := b.peak(ctx, c, sim, "")
		if err != nil {
			return err
		}
		b.say("%s run %d: %.0f/s of %.0f/s, %.1f CPU-s per 100k, %.0f MiB", c.name, i+1, got.rate, limit, got.cpu, got.rss)
		rates, cpu, rss = append(rates, got.rate), append(cpu, got.cpu), append(rss, got.rss)
	}
	r := row{Name: c.name, Rate: median(rates), Limit: median(limits), CPU: median(cpu), RSS: slices.Max(rss), aim: c.aim}
	if r.P50, r.P99, err = b.latency(ctx, c, sim, r.Rate/2); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	b.add(r)
	if b.profile == "" {
		return nil
	}
	file := filepath.Join(b.profile, c.name+".pprof")
	if _, err := b.peak(ctx, c, sim, file); err != nil {
		return err
	}
	s, err := readShare(ctx, c.name, file)
	b.shares = append(b.shares, s)
	return err
}

// limit runs the plain loop and checks that the simulator saw as many messages as it counted.
func (b *bench) limit(ctx context.Context, c channel, sim simulated) (float64, error) {
	before, err := sim.count()
	if err != nil {
		return 0, err
	}
	rate, err := c.raw(ctx, sim, b.n)
	if err != nil {
		return 0, err
	}
	after, err := sim.count()
	if err == nil && after-before != b.n {
		err = fmt.Errorf("the simulator saw %d messages of %d", after-before, b.n)
	}
	return rate, err
}

// figures are what one run gave.
type figures struct{ rate, cpu, rss float64 }

// trip is one engine with one load whose every message is looked for in the simulator's ledger afterwards.
type trip struct {
	b       *bench
	c       channel
	sim     simulated
	e       *served
	before  int // entries of the ledger before the load
	first   int // recipient
	n       int
	settled int // outcomes before the load
	reports int // receipts before the load
}

// depart starts an engine and warms it up.
func (b *bench) depart(ctx context.Context, c channel, sim simulated, profile string) (_ *trip, err error) {
	e, err := b.serve(ctx, &sim, profile)
	if err != nil {
		return nil, err
	}
	t := &trip{b: b, c: c, sim: sim, e: e, n: warmUp, first: b.next(warmUp)}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.end())
		}
	}()
	if t.before, err = sim.count(); err != nil {
		return nil, err
	}
	if _, err := pump(ctx, e.URL, 1, 200, each(e.batches(c, sim.URL, t.first, t.n, ""))); err != nil {
		return nil, err
	}
	if err := t.arrive(ctx); err != nil {
		return nil, fmt.Errorf("warm-up: %w", err)
	}
	t.before, t.settled, t.reports = t.before+warmUp, warmUp, warmUp
	return t, nil
}

// arrive waits until the simulator has every message and the engine has stored what became of it, its receipt included.
func (t *trip) arrive(ctx context.Context) error {
	if err := t.await(ctx, "handed off", t.n, func() (int, error) {
		n, err := t.sim.count()
		return n - t.before, err
	}); err != nil {
		return err
	}
	label := `channel="` + t.c.name + `"`
	if err := t.await(ctx, "settled", t.n, func() (int, error) {
		n, err := t.e.metric(ctx, "msgctl_outcomes_total", label)
		return n - t.settled, err
	}); err != nil || !t.c.receipts {
		return err
	}
	return t.await(ctx, "with a receipt", t.n, func() (int, error) {
		// A receipt that overtakes the outcome of its own attempt is stored as parked, and takes effect with the outcome.
		n, err := t.e.metric(ctx, "msgctl_receipts_total", label, `status="delivered"`)
		return n - t.reports, err
	})
}

// await polls until the count has been reached.
func (t *trip) await(ctx context.Context, what string, want int, count func() (int, error)) error {
	last, since := -1, time.Now()
	for {
		n, err := count()
		switch {
		case err != nil:
			return err
		case n >= want:
			return nil
		case n != last:
			last, since = n, time.Now()
		case time.Since(since) > stalled:
			return fmt.Errorf("%d of %d messages are %s: %w for %s", n, want, what, errStalled, stalled)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// books reports what is wrong with the messages of the load. It ends the engine first: what would be handed off twice
// while it drains must be in the ledger.
func (t *trip) books(ctx context.Context, stall error) (seen, error) {
	if stall != nil {
		t.b.wrong("%s: %v; %s", t.c.name, stall, t.waiting(ctx))
	}
	if t.c.receipts && stall == nil {
		page, err := t.e.client.Messages.Page(ctx, sdk.MessageQuery{Status: sdk.Sent, Limit: 1})
		if err != nil {
			return seen{}, err
		}
		for _, m := range page.Data {
			t.b.wrong("%s: message %s is %s although its receipt was taken", t.c.name, m.ID, m.Status)
		}
	}
	audit, err := t.e.client.Audit.Verify(ctx)
	if err == nil && (!audit.OK || audit.Accepted != int64(warmUp+t.n)) {
		t.b.wrong("%s: the books say %d accepted of %d: %+v", t.c.name, audit.Accepted, warmUp+t.n, audit.Problems)
	}
	if err := errors.Join(err, t.e.end()); err != nil {
		return seen{}, err
	}
	s, err := t.sim.entries(t.before)
	if err != nil {
		return s, err
	}
	for _, p := range compare(t.c, t.first, t.n, s.To) {
		t.b.wrong("%s: %s", t.c.name, p)
	}
	return s, nil
}

// waiting says what became of messages that did not arrive.
func (t *trip) waiting(ctx context.Context) string {
	said := ""
	for _, status := range []sdk.Status{sdk.Queued, sdk.Sending, sdk.Held, sdk.Deferred, sdk.Ambiguous, sdk.Sent, sdk.Failed} {
		page, err := t.e.client.Messages.Page(ctx, sdk.MessageQuery{Status: status, Limit: 1})
		if err != nil {
			return err.Error()
		}
		for _, m := range page.Data {
			said += fmt.Sprintf(" [%s %s %s %s after %d attempts]", m.ID, m.Status, m.Reason, m.Detail, m.Attempts)
		}
	}
	return "one message of each status that is left:" + said
}

// compare looks for messages lost and doubled: each of the n recipients must be there once.
func compare(c channel, first, n int, to []string) (problems []string) {
	times := make(map[string]int, n)
	for _, k := range to {
		times[k]++
	}
	lost, doubled := 0, 0
	for i := range n {
		k := c.key(first + i)
		switch times[k] {
		case 0:
			lost++
		case 1:
		default:
			doubled++
		}
		delete(times, k)
	}
	if lost > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d messages were not handed off", lost, n))
	}
	if doubled > 0 {
		problems = append(problems, fmt.Sprintf("%d of %d messages were handed off more than once", doubled, n))
	}
	if len(times) > 0 {
		problems = append(problems, fmt.Sprintf("%d recipients got a message that nobody sent", len(times)))
	}
	return problems
}

// peak pushes messages as fast as the engine takes them.
func (b *bench) peak(ctx context.Context, c channel, sim simulated, profile string) (f figures, err error) {
	t, err := b.depart(ctx, c, sim, profile)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, t.e.end()) }()
	t.n, t.first = b.n, b.next(b.n)
	requests := t.e.batches(c, sim.URL, t.first, t.n, "")
	before, err := t.e.usage()
	if err != nil {
		return f, err
	}
	start := time.Now()
	if _, err := pump(ctx, t.e.URL, pushers, 200, each(requests)); err != nil {
		return f, err
	}
	stall := t.arrive(ctx)
	end := time.Now()
	if stall != nil && !errors.Is(stall, errStalled) {
		return f, stall
	}
	after, err := t.e.usage()
	if err == nil {
		err = t.e.ask("profiled", &struct{}{})
	}
	if err != nil {
		return f, err
	}
	s, err := t.books(ctx, stall)
	if err != nil {
		return f, err
	}
	if !c.receipts && len(s.At) > 0 {
		end = time.UnixMicro(slices.Max(s.At))
	}
	n := float64(b.n)
	return figures{rate: n / end.Sub(start).Seconds(), cpu: (after.CPU - before.CPU) / n * 100_000, rss: after.RSS}, nil
}

// latency sends on a fixed schedule, whatever the engine does, and joins each message's scheduled moment with the
// moment at which the simulator had it. A request that starts late because the machine is busy counts from when it
// should have started.
func (b *bench) latency(ctx context.Context, c channel, sim simulated, rate float64) (p50, p99 float64, err error) {
	t, err := b.depart(ctx, c, sim, "")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, t.e.end()) }()
	ticks := max(int(b.time/tick), 1)
	perTick := rate * tick.Seconds()
	t.n = max(int(perTick*float64(ticks)), 1)
	t.first = b.next(t.n)
	requests := make([][]byte, ticks)
	due := make([]time.Duration, t.n) // of each message, from the start
	done := 0
	for i := range ticks {
		rows := min(int(perTick*float64(i+1)), t.n) - done
		if i == ticks-1 {
			rows = t.n - done
		}
		if rows > 0 {
			requests[i] = t.e.batch(lines(c, sim.URL, t.first+done, rows, ""))
		}
		for range rows {
			due[done] = time.Duration(i) * tick
			done++
		}
	}
	start, err := b.schedule(ctx, t.e.URL, requests)
	if err != nil {
		return 0, 0, err
	}
	stall := t.arrive(ctx)
	if stall != nil && !errors.Is(stall, errStalled) {
		return 0, 0, stall
	}
	s, err := t.books(ctx, stall)
	if err != nil {
		return 0, 0, err
	}
	at := make(map[string]int64, len(s.To))
	for i, k := range s.To {
		at[k] = s.At[i]
	}
	var took []time.Duration
	for i, d := range due {
		if arrived, ok := at[c.key(t.first+i)]; ok {
			took = append(took, max(time.UnixMicro(arrived).Sub(start.Add(d)), time.Microsecond))
		}
	}
	return percentile(took, 50), percentile(took, 99), nil
}

// schedule sends each request at its tick, on as many connections as that takes.
func (b *bench) schedule(ctx context.Context, url string, requests [][]byte) (start time.Time, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var idle sync.Pool
	var mu sync.Mutex
	var wires []*wire
	defer func() {
		for _, w := range wires {
			_ = w.nc.Close()
		}
	}()
	send := func(request []byte) error {
		w, _ := idle.Get().(*wire)
		if w == nil {
			var err error
			if w, err = dial(ctx, url); err != nil {
				return err
			}
			mu.Lock()
			wires = append(wires, w)
			mu.Unlock()
		}
		if err := w.do(request, 200); err != nil {
			return err
		}
		idle.Put(w)
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	start = time.Now()
	for i, request := range requests {
		if wait := time.Until(start.Add(time.Duration(i) * tick)); wait > 0 {
			select {
			case <-ctx.Done():
				return start, context.Cause(ctx)
			case <-time.After(wait):
			}
		}
		if request == nil {
			continue
		}
		wg.Go(func() {
			if err := send(request); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return start, context.Cause(ctx)
}
