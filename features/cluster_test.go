package features_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/features/steps"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/store/postgres"
)

// land is what the grounds of all scenarios are parts of.
type land struct {
	t *testing.T
	// Scenarios take turns at the virtual hosts, because to make and delete one takes longer than most scenarios. The
	// hints that one leaves behind name nothing that the next one has: they are only hints.
	hosts chan *servers.AMQP
}

func survey(t *testing.T) *land {
	l := &land{t: t, hosts: make(chan *servers.AMQP, atOnce)}
	for range atOnce {
		l.hosts <- servers.Rabbit(t)
	}
	return l
}

// lay is steps.Shape.Lay.
func (l *land) lay(context.Context) (steps.Ground, error) {
	g := l.ground()
	if err := g.take(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (l *land) ground() *ground { return &ground{lease: lease{TB: l.t}, land: l} }

// ground is a database, a virtual host and a Redis of one scenario.
type ground struct {
	lease
	land   *land
	db     *servers.DB
	broker *servers.AMQP
	limits *servers.RedisServer
}

func (g *ground) take() (err error) {
	defer g.caught(&err)
	g.broker = <-g.land.hosts
	g.Cleanup(func() { g.land.hosts <- g.broker })
	g.db = servers.Postgres(g).DatabaseLike(g, "features", prepare)
	g.limits = servers.Redis(g)
	return nil
}

// prepare makes a database in which all days lie in the partitions of last resort: it is copied in a third of the time.
func prepare(db *servers.DB) error {
	ctx := context.Background()
	if err := postgres.Migrate(ctx, postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole}); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, db.Owner)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname NOT LIKE '%_default'
		LOOP EXECUTE format('DROP TABLE %I', t); END LOOP; END $$`)
	return errors.Join(err, conn.Close(ctx))
}

// Engine implements steps.Ground.
func (g *ground) Engine(cfg *engine.Config) {
	cfg.Store, cfg.Broker, cfg.Limits, cfg.Node = g.db.App, g.broker.URL, g.limits.URL, "one"
}

// lease is a testing.TB whose life is a scenario's: the test that godog runs the scenario in has no TB of its own.
type lease struct {
	testing.TB
	ends []func()
}

// Cleanup implements testing.TB.
func (l *lease) Cleanup(f func()) { l.ends = append(l.ends, f) }

// Close ends what was taken for the scenario.
func (l *lease) Close() (err error) {
	for _, f := range slices.Backward(l.ends) {
		func() {
			defer l.caught(&err)
			f()
		}()
	}
	l.ends = nil
	return err
}

// refusal is what a server could not be had for.
type refusal struct{ error }

// Fatal implements testing.TB.
func (l *lease) Fatal(args ...any) { panic(refusal{errors.New(fmt.Sprint(args...))}) }

// Fatalf implements testing.TB.
func (l *lease) Fatalf(format string, args ...any) { panic(refusal{fmt.Errorf(format, args...)}) }

// caught makes an error of a refusal.
func (l *lease) caught(err *error) {
	switch v := recover().(type) {
	case nil:
	case refusal:
		*err = errors.Join(*err, v.error)
	default:
		panic(v)
	}
}
