package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	singles = 50 // connections of single accepts
	// distinct is how many different recipients accepts go to, in turn.
	distinct = 20_000
)

// accepts are the measurements without hand-off. Every message is due in an hour.
func (b *bench) accepts() iter.Seq2[string, func(context.Context) error] {
	return func(yield func(string, func(context.Context) error) bool) {
		_ = yield("accept_single", b.acceptSingle) && yield("accept_batched", b.acceptBatched) && yield("queue", b.waiting)
	}
}

// stored is what a load of accepts came to.
type stored struct {
	figures
	took []time.Duration
	idle float64 // MiB before the load
}

// accept loads the engine with requests, of which each has the given number of messages, and checks that its books have
// them all.
func (b *bench) accept(ctx context.Context, conns, status, rows int, make func(e *served) (next func() []byte)) (s stored, err error) {
	e, err := b.serve(ctx, nil, "")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, e.end()) }()
	next := make(e)
	before, err := e.usage()
	if err != nil {
		return s, err
	}
	start := time.Now()
	if s.took, err = pump(ctx, e.URL, conns, status, next); err != nil {
		return s, err
	}
	n := float64(len(s.took) * rows)
	s.rate = n / time.Since(start).Seconds()
	after, err := e.usage()
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

func (b *bench) acceptSingle(ctx context.Context) error {
	var rates, limits, cpu []float64
	var took []time.Duration
	rss := 0.0
	sms := channels()[0]
	bodies := func(e *served) [][]byte {
		requests := make([][]byte, distinct)
		extra := inAnHour()
		for i := range requests {
			requests[i] = e.request("/v1/messages", "application/json", lines(sms, "", i, 1, extra))
		}
		return requests
	}
	for i := range b.runs {
		limit, err := b.bare(ctx, bodies)
		if err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		s, err := b.accept(ctx, singles, 202, 1, func(e *served) func() []byte { return during(b.time, bodies(e)) })
		if err != nil {
			return err
		}
		b.say("accept_single run %d: %.0f/s of %.0f/s, %.1f CPU-s per 100k", i+1, s.rate, limit, s.cpu)
		rates, limits, cpu, took = append(rates, s.rate), append(limits, limit), append(cpu, s.cpu), append(took, s.took...)
		rss = max(rss, s.rss)
	}
	b.add(row{
		Name: "accept_single", Rate: median(rates), Limit: median(limits), CPU: median(cpu), RSS: rss,
		P50: percentile(took, 50), P99: percentile(took, 99), aim: aim{rate: 8_000, ratio: 0.4, rss: 150},
	})
	return nil
}

// bare is the limit of single accepts: the same requests to a server that reads them and answers 202.
func (b *bench) bare(ctx context.Context, bodies func(*served) [][]byte) (rate float64, err error) {
	p, err := b.start(ctx, roleBare)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	requests := bodies(&served{process: p, key: "mk_test_0000000000000000000000000000"})
	start := time.Now()
	took, err := pump(ctx, p.URL, singles, 202, during(b.time, requests))
	return float64(len(took)) / time.Since(start).Seconds(), err
}

func (b *bench) acceptBatched(ctx context.Context) error {
	var rates, limits, cpu []float64
	var took []time.Duration
	rss := 0.0
	for i := range b.runs {
		limit, err := b.raws(ctx)
		if err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		s, err := b.accept(ctx, pushers, 200, batchRows, func(e *served) func() []byte {
			return during(b.time, e.batches(channels()[0], "", 0, distinct, inAnHour()))
		})
		if err != nil {
			return err
		}
		b.say("accept_batched run %d: %.0f/s of %.0f/s, %.1f CPU-s per 100k", i+1, s.rate, limit, s.cpu)
		rates, limits, cpu, took = append(rates, s.rate), append(limits, limit), append(cpu, s.cpu), append(took, s.took...)
		rss = max(rss, s.rss)
	}
	b.add(row{
		Name: "accept_batched", Rate: median(rates), Limit: median(limits), CPU: median(cpu), RSS: rss,
		P50: percentile(took, 50), P99: percentile(took, 99), aim: aim{rate: 40_000, ratio: 0.4, rss: 150},
	})
	return nil
}

// waiting reads the memory of an engine in which many messages wait.
func (b *bench) waiting(ctx context.Context) error {
	limit, err := b.raws(ctx)
	if err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	n := (b.queue + batchRows - 1) / batchRows * batchRows
	s, err := b.accept(ctx, pushers, 200, batchRows, func(e *served) func() []byte {
		return each(e.batches(channels()[0], "", 0, n, inAnHour()))
	})
	if err != nil {
		return err
	}
	b.say("queue: %d messages wait; %.0f MiB, %.0f MiB before", n, s.rss, s.idle)
	b.add(row{
		Name: "queue", Rate: s.rate, Limit: limit, CPU: s.cpu, RSS: s.rss, P50: percentile(s.took, 50), P99: percentile(s.took, 99),
		aim: aim{rss: 150},
	})
	return nil
}

// raws is the limit of batched accepts: durable transactions of 500 rows, of 16 bytes and 400 bytes each, in a plain
// SQLite table, in the directory in which engines keep theirs.
func (b *bench) raws(ctx context.Context) (rate float64, err error) {
	dir, err := os.MkdirTemp(b.work, "raw-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conn, err := sqlite.OpenConn(filepath.Join(dir, "raw.db"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, q := range []string{
		"PRAGMA page_size = 8192", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA wal_autocheckpoint = 4000",
		"CREATE TABLE message (id BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID",
	} {
		if err := sqlitex.ExecuteTransient(conn, q, nil); err != nil {
			return 0, err
		}
	}
	insert, err := conn.Prepare("INSERT INTO message VALUES (?, ?)")
	if err != nil {
		return 0, err
	}
	body, id := []byte(strings.Repeat("x", 400)), make([]byte, 16)
	start, rows := time.Now(), uint64(0)
	for time.Since(start) < b.time/2 && ctx.Err() == nil {
		if err := transaction(conn, func() error {
			for range batchRows {
				rows++
				binary.BigEndian.PutUint64(id, rows)
				insert.BindBytes(1, id)
				insert.BindBytes(2, body)
				if _, err := insert.Step(); err != nil {
					return err
				}
				if err := insert.Reset(); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	return float64(rows) / time.Since(start).Seconds(), ctx.Err()
}

func transaction(conn *sqlite.Conn, write func() error) (err error) {
	end, err := sqlitex.ImmediateTransaction(conn)
	if err != nil {
		return err
	}
	defer end(&err)
	return write()
}
