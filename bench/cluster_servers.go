package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store/postgres"
)

// backing is a PostgreSQL, a RabbitMQ and a Redis of this program's own.
type backing struct {
	*kit
	pg     *servers.PG
	rabbit *servers.AMQP
	redis  *servers.RedisServer
	raw    *servers.DB // for limits; nil = none yet
}

// kit lets the test kit that starts servers work in a program: it stands where a test would. One goroutine uses it.
type kit struct {
	testing.TB // nobody calls what is not below
	say        func(format string, args ...any)
	cleanups   []func()
	failures   []error
}

// kitFailed ends a call of the kit as FailNow ends a test.
type kitFailed struct{ err error }

func (k *kit) Helper()                      {}
func (k *kit) Failed() bool                 { return len(k.failures) > 0 }
func (k *kit) Cleanup(f func())             { k.cleanups = append(k.cleanups, f) }
func (k *kit) Fatal(args ...any)            { panic(kitFailed{errors.New(fmt.Sprint(args...))}) }
func (k *kit) Error(args ...any)            { k.failures = append(k.failures, errors.New(fmt.Sprint(args...))) }
func (k *kit) Log(args ...any)              { k.say("%s", fmt.Sprint(args...)) }
func (k *kit) Logf(f string, args ...any)   { k.say(f, args...) }
func (k *kit) Errorf(f string, args ...any) { k.failures = append(k.failures, fmt.Errorf(f, args...)) }
func (k *kit) Fatalf(f string, args ...any) { panic(kitFailed{fmt.Errorf(f, args...)}) }

// try calls the kit and returns what would have failed the test.
func (k *kit) try(do func()) (err error) {
	before := len(k.failures)
	defer func() {
		switch r := recover().(type) {
		case nil:
		case kitFailed:
			err = r.err
		default:
			panic(r)
		}
		err = errors.Join(append(slices.Clone(k.failures[before:]), err)...)
	}()
	do()
	return nil
}

// close does what is done at the end of a test. Safe twice.
func (k *kit) close() (err error) {
	for len(k.cleanups) > 0 {
		last := k.cleanups[len(k.cleanups)-1]
		k.cleanups = k.cleanups[:len(k.cleanups)-1]
		err = errors.Join(err, k.try(last))
	}
	return err
}

// back starts the servers. PostgreSQL has the memory of a small server; all that makes commits durable is on.
func (b *bench) back() (s *backing, err error) {
	s = &backing{kit: &kit{say: b.say}}
	settings := []servers.Option{
		servers.With("shared_buffers", "256MB"), servers.With("max_wal_size", "2GB"),
	}
	if b.profile != "" {
		settings = append(settings, servers.With("shared_preload_libraries", "pg_stat_statements"))
	}
	err = s.try(func() {
		s.pg = servers.NewPostgres(s.kit, settings...)
		s.redis = servers.NewRedis(s.kit)
		s.rabbit = servers.NewRabbit(s.kit)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("servers: %w", err), s.close())
	}
	return s, nil
}

// database makes an empty database with the schema of the engine.
func (s *backing) database(ctx context.Context) (db *servers.DB, err error) {
	if err := s.try(func() { db = s.pg.Database(s.kit) }); err != nil {
		return nil, err
	}
	return db, postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole})
}

// drop removes a database before the end: one that has been measured holds a gigabyte.
func (s *backing) drop(ctx context.Context, db *servers.DB) error {
	conn, err := pgx.Connect(ctx, s.pg.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "DROP DATABASE "+db.Name+" WITH (FORCE)")
	return err
}

// statements writes down which statements of a database took longest since the last call.
func (s *backing) statements(ctx context.Context, db *servers.DB, file string) error {
	conn, err := pgx.Connect(ctx, db.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, `SELECT calls, round(total_exec_time), round(mean_exec_time::numeric, 3), rows,
		shared_blks_hit, shared_blks_read, round(wal_bytes / 1048576), regexp_replace(query, '\s+', ' ', 'g')
		FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
		ORDER BY total_exec_time DESC LIMIT 40`)
	if err != nil {
		return err
	}
	t := table{title: "calls, total ms, mean ms, rows, pages hit, pages read, MiB of log, statement"}
	var calls, count, hit, read int64
	var total, mean, wal float64
	var query string
	_, err = pgx.ForEachRow(rows, []any{&calls, &total, &mean, &count, &hit, &read, &wal, &query}, func() error {
		t.add(calls, int64(total), fmt.Sprintf("%.3f", mean), count, hit, read, int64(wal), query)
		return nil
	})
	if err != nil {
		return err
	}
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	t.print(w)
	_, err = conn.Exec(ctx, "SELECT pg_stat_statements_reset()")
	return errors.Join(err, w.Close())
}
