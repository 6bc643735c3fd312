package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"
)

const (
	rawBatchers = 4  // connections of batches
	rawSingles  = 16 // connections of single rows and of scripts
	rawBody     = 400
	rawWindow   = 256 // confirms under way
)

// limit is what a server does by itself.
type limit struct {
	name string
	unit string
	run  func(ctx context.Context, d time.Duration) (float64, error)
}

// The names of limits that rows are compared with.
const (
	limitInsert  = "PostgreSQL: insert by unnest, 500 rows"
	limitCommits = "PostgreSQL: insert of one row"
)

// limits are the servers' own, each in its plainest loop, durable where the engine wants it durable.
func (s *backing) limits() []limit {
	return []limit{
		{"PostgreSQL: COPY, 500 rows", "rows/s", func(ctx context.Context, d time.Duration) (float64, error) {
			return s.rawRows(ctx, d, rawBatchers, func(ctx context.Context, conn *pgx.Conn, ids [][16]byte) error {
				body := make([]byte, rawBody)
				_, err := conn.CopyFrom(ctx, pgx.Identifier{"raw"}, []string{"id", "n", "body"},
					pgx.CopyFromSlice(len(ids), func(i int) ([]any, error) { return []any{ids[i], 0, body}, nil }))
				return err
			}, nil)
		}},
		{limitInsert, "rows/s", func(ctx context.Context, d time.Duration) (float64, error) {
			return s.rawRows(ctx, d, rawBatchers, insertRaw, nil)
		}},
		{"PostgreSQL: update by unnest, 500 rows", "rows/s", func(ctx context.Context, d time.Duration) (float64, error) {
			return s.rawRows(ctx, d, rawBatchers, func(ctx context.Context, conn *pgx.Conn, ids [][16]byte) error {
				_, err := conn.Exec(ctx, `UPDATE raw SET n = raw.n + u.add
					FROM unnest($1::uuid[], $2::integer[]) AS u (id, add) WHERE raw.id = u.id`, ids, make([]int32, len(ids)))
				return err
			}, insertRaw)
		}},
		{limitCommits, "commits/s", func(ctx context.Context, d time.Duration) (float64, error) {
			return s.rawRows(ctx, d, rawSingles, func(ctx context.Context, conn *pgx.Conn, ids [][16]byte) error {
				for _, id := range ids {
					if _, err := conn.Exec(ctx, `INSERT INTO raw VALUES ($1, 0, $2)`, id, make([]byte, rawBody)); err != nil {
						return err
					}
				}
				return nil
			}, nil)
		}},
		{"RabbitMQ: confirms of a quorum queue", "confirms/s", s.rawConfirms},
		{"Redis: script of two commands", "calls/s", s.rawScripts},
	}
}

type rawWrite func(ctx context.Context, conn *pgx.Conn, ids [][16]byte) error

func insertRaw(ctx context.Context, conn *pgx.Conn, ids [][16]byte) error {
	bodies := make([][]byte, len(ids))
	body := make([]byte, rawBody)
	for i := range bodies {
		bodies[i] = body
	}
	_, err := conn.Exec(ctx, `INSERT INTO raw SELECT u.id, 0, u.body FROM unnest($1::uuid[], $2::bytea[]) AS u (id, body)`,
		ids, bodies)
	return err
}

// rawRows lets so many connections write to one table for d, in committed transactions, and returns the rows a second.
// With fill set, each first fills in the rows that it then writes again and again; else they are new ones every time.
// Singles count by 20, so that the end is not missed by much.
func (s *backing) rawRows(
	ctx context.Context, d time.Duration, conns int, write rawWrite, fill rawWrite,
) (rate float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	db, err := s.rawTable(ctx)
	if err != nil {
		return 0, err
	}
	size := batchRows
	if conns == rawSingles {
		size = 20
	}
	open := make([]*pgx.Conn, conns)
	for i := range open {
		if open[i], err = pgx.Connect(ctx, db); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, open[i].Close(context.WithoutCancel(ctx))) }()
	}
	var last atomic.Uint64
	fresh := func(ids [][16]byte) {
		for i := range ids {
			binary.BigEndian.PutUint64(ids[i][:], last.Add(1))
		}
	}
	lists := make([][][16]byte, conns)
	for i := range lists {
		lists[i] = make([][16]byte, size)
		if fill != nil {
			fresh(lists[i])
			if err := fill(ctx, open[i], lists[i]); err != nil {
				return 0, err
			}
		}
	}
	return repeat(d, conns, func(i int) (int, error) {
		if fill == nil {
			fresh(lists[i])
		}
		return size, write(ctx, open[i], lists[i])
	})
}

// rawTable makes an empty table in a database for raw ones.
func (s *backing) rawTable(ctx context.Context) (url string, err error) {
	if s.raw == nil {
		if err := s.try(func() { s.raw = s.pg.Database(s.kit) }); err != nil {
			return "", err
		}
	}
	conn, err := pgx.Connect(ctx, s.raw.Owner)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, sql := range []string{
		"DROP TABLE IF EXISTS raw",
		"CREATE TABLE raw (id uuid PRIMARY KEY, n integer NOT NULL, body bytea NOT NULL) WITH (fillfactor = 70)",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", err
		}
	}
	return s.raw.Owner, nil
}

// repeat calls do on so many goroutines until d has passed, and returns how much they say they did, per second.
func repeat(d time.Duration, workers int, do func(worker int) (int, error)) (float64, error) {
	var total atomic.Int64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range workers {
		wg.Go(func() {
			for time.Since(start) < d {
				n, err := do(i)
				if err != nil {
					errs[i] = err
					return
				}
				total.Add(int64(n))
			}
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// rawConfirms publishes hints' size of persistent messages to a quorum queue that keeps the newest, with so many
// confirms under way.
func (s *backing) rawConfirms(ctx context.Context, d time.Duration) (rate float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	config := amqp.Config{Dial: amqp.DefaultDial(5 * time.Second), Heartbeat: 10 * time.Second}
	conn, err := amqp.DialConfig(s.rabbit.URL, config)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.CloseDeadline(time.Now().Add(5*time.Second))) }()
	defer context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now()) })()
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	if err := ch.Confirm(false); err != nil {
		return 0, err
	}
	const queue = "bench.raw"
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{
		amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMaxLenArg: int32(10_000),
	}); err != nil {
		return 0, err
	}
	defer func() {
		_, e := ch.QueueDelete(queue, false, false, false)
		err = errors.Join(err, e)
	}()
	body := make([]byte, 64)
	var under []*amqp.DeferredConfirmation
	oldest := func() (int, error) {
		ok, err := under[0].WaitContext(ctx)
		if under = under[1:]; err == nil && !ok {
			err = errors.New("a message was refused")
		}
		return 1, err
	}
	rate, err = repeat(d, 1, func(int) (int, error) {
		c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body})
		if err != nil {
			return 0, err
		}
		if under = append(under, c); len(under) < rawWindow {
			return 0, nil
		}
		return oldest()
	})
	for err == nil && len(under) > 0 {
		_, err = oldest()
	}
	return rate, err
}

// rawScripts calls a script that reads and writes one hash, as a bucket of permits does, one call at a time on each
// connection.
func (s *backing) rawScripts(ctx context.Context, d time.Duration) (rate float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rawTimeout)
	defer cancel()
	options, err := goredis.ParseURL(s.redis.URL)
	if err != nil {
		return 0, errors.New("the URL of Redis does not parse")
	}
	options.PoolSize, options.MaxRetries = rawSingles, -1
	client := goredis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	script := goredis.NewScript(`local v = redis.call('HMGET', KEYS[1], 'at', 'n')
		redis.call('HSET', KEYS[1], 'at', ARGV[1], 'n', (tonumber(v[2]) or 0) + 1)
		return v[2]`)
	return repeat(d, rawSingles, func(i int) (int, error) {
		err := script.Run(ctx, client, []string{fmt.Sprint("raw:", i)}, 1).Err()
		if errors.Is(err, goredis.Nil) {
			err = nil
		}
		return 1, err
	})
}
