package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// channel measures one channel: the limit, the peak, the latency at half of it.
func (b *bench) channel(ctx context.Context, c channel) (err error) {
	p, err := b.start(ctx, roleSim)
	if err != nil {
		return err
	}
	sim := simulated{p}
	defer func() { err = errors.Join(err, sim.stop()) }()

	var limits, rates, cpu, rss, p50, p99 []float64
	for i := range b.runs {
		limit, err := b.limit(ctx, c, sim)
		if err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		f, err := b.peak(ctx, c, sim, "")
		if err != nil {
			return err
		}
		half, slow, err := b.latency(ctx, c, sim, f.rate/2)
		if err != nil {
			return fmt.Errorf("latency: %w", err)
		}
		b.say("%s run %d: %.0f/s of %.0f/s, p50 %.1f ms, p99 %.1f ms, %.1f CPU-s per 100k, %.0f MiB",
			c.name, i+1, f.rate, limit, half, slow, f.cpu, f.rss)
		limits, rates, cpu, rss = append(limits, limit), append(rates, f.rate), append(cpu, f.cpu), append(rss, f.rss)
		p50, p99 = append(p50, half), append(p99, slow)
	}
	r := row{
		Name: c.name, Rate: median(rates), Limit: median(limits), P50: median(p50), P99: median(p99), CPU: median(cpu),
		RSS: slices.Max(rss), aim: c.aim,
	}
	b.add(r)
	return b.profiled(ctx, c.name, func(file string) error {
		_, err := b.peak(ctx, c, sim, file)
		return err
	})
}

// profiled does a run that is not counted, because a profile costs time of its own.
func (b *bench) profiled(ctx context.Context, name string, run func(file string) error) error {
	if b.profile == "" {
		return nil
	}
	file := filepath.Join(b.profile, name+".pprof")
	if err := run(file); err != nil {
		return err
	}
	s, err := readShare(ctx, name, file)
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
