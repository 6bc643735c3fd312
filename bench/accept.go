package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

const (
	singles = 50 // connections of single accepts
	// distinct is how many different recipients accepts go to, in turn.
	distinct = 20_000
)

// accepts are the measurements without hand-off. Every message is due in an hour.
func (b *bench) accepts() iter.Seq2[string, func(context.Context) error] {
	return func(yield func(string, func(context.Context) error) bool) {
		_ = yield("accept_single", b.acceptSingle) && yield("accept_batched", b.acceptBatched) &&
			yield("queue", b.waiting) && yield("overload", b.overload)
	}
}

// stored is what a load of accepts came to.
type stored struct {
	figures
	took []time.Duration
	idle float64 // MiB before the load
}

// load is a way to accept messages.
type load struct {
	conns, status int
	rows          int // of a request
	requests      func(e *served) (next func() []byte)
}

// accept loads an engine and checks that its books have what it accepted.
func (b *bench) accept(ctx context.Context, l load, profile string) (s stored, err error) {
	e, err := b.serve(ctx, nil, profile)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, e.end()) }()
	next := l.requests(e)
	before, err := e.usage()
	if err != nil {
		return s, err
	}
	start := time.Now()
	if s.took, err = pump(ctx, e.URL, l.conns, l.status, next); err != nil {
		return s, err
	}
	n := float64(len(s.took) * l.rows)
	s.rate = n / time.Since(start).Seconds()
	after, err := e.usage()
	if err == nil {
		err = e.ask("profiled", &struct{}{})
	}
	if err != nil {
		return s, err
	}
	s.cpu, s.rss, s.idle = (after.CPU-before.CPU)/n*100_000, after.RSS, before.RSS
	audit, err := e.client.Audit.Verify(ctx)
	if err == nil && (!audit.OK || audit.Accepted != int64(n)) {
		b.wrong("accepts: %.0f messages were accepted, the books have %d: %+v", n, audit.Accepted, audit.Problems)
	}
	return s, err
}

// accepted measures a way to accept messages beside its limit.
func (b *bench) accepted(
	ctx context.Context, name string, a aim, l load, limit func(context.Context) (float64, error),
) error {
	var rates, limits, cpu []float64
	var took []time.Duration
	rss := 0.0
	for i := range b.runs {
		most, err := limit(ctx)
		if err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		s, err := b.accept(ctx, l, "")
		if err != nil {
			return err
		}
		b.say("%s run %d: %.0f/s of %.0f/s, %.1f CPU-s per 100k", name, i+1, s.rate, most, s.cpu)
		rates, limits, cpu = append(rates, s.rate), append(limits, most), append(cpu, s.cpu)
		took = append(took, s.took...)
		rss = max(rss, s.rss)
	}
	b.add(row{
		Name: name, Rate: median(rates), Limit: median(limits), CPU: median(cpu), RSS: rss,
		P50: percentile(took, 50), P99: percentile(took, 99), aim: a,
	})
	return b.profiled(ctx, name, func(file string) error {
		_, err := b.accept(ctx, l, file)
		return err
	})
}

func (b *bench) acceptSingle(ctx context.Context) error {
	requests := func(e *served) func() []byte {
		list := make([][]byte, distinct)
		extra := inAnHour()
		for i := range list {
			list[i] = e.request("/v1/messages", "application/json", lines(channels()[0], "", i, 1, extra))
		}
		return during(b.time, list)
	}
	l := load{conns: singles, status: 202, rows: 1, requests: requests}
	limit := func(ctx context.Context) (float64, error) { return b.bare(ctx, requests) }
	return b.accepted(ctx, "accept_single", aim{rate: 8_000, ratio: 0.4, rss: 150}, l, limit)
}

func (b *bench) acceptBatched(ctx context.Context) error {
	l := load{conns: pushers, status: 200, rows: batchRows, requests: func(e *served) func() []byte {
		return during(b.time, e.batches(channels()[0], "", 0, distinct, inAnHour()))
	}}
	return b.accepted(ctx, "accept_batched", aim{rate: 40_000, ratio: 0.4, rss: 150}, l, b.rawStore)
}

// bare is the limit of single accepts: the same requests to a server that reads them and answers 202.
func (b *bench) bare(ctx context.Context, requests func(*served) func() []byte) (rate float64, err error) {
	p, err := b.start(ctx, roleBare)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	next := requests(&served{process: p, key: "mk_test_0000000000000000000000000000"})
	start := time.Now()
	took, err := pump(ctx, p.URL, singles, 202, next)
	return float64(len(took)) / time.Since(start).Seconds(), err
}

// waiting reads the memory of an engine in which many messages wait.
func (b *bench) waiting(ctx context.Context) error {
	limit, err := b.rawStore(ctx)
	if err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	n := (b.queue + batchRows - 1) / batchRows * batchRows
	s, err := b.accept(ctx, load{conns: pushers, status: 200, rows: batchRows, requests: func(e *served) func() []byte {
		return each(e.batches(channels()[0], "", 0, n, inAnHour()))
	}}, "")
	if err != nil {
		return err
	}
	b.say("queue: %d messages wait; %.0f MiB, %.0f MiB before", n, s.rss, s.idle)
	b.add(row{
		Name: "queue", Rate: s.rate, Limit: limit, CPU: s.cpu, RSS: s.rss,
		P50: percentile(s.took, 50), P99: percentile(s.took, 99), aim: aim{rss: 150},
	})
	return nil
}
