// Package steps is the step pack: the words in which features speak about the engine.
//
// Each scenario runs on an engine and a provider simulator of its own, on a clock that only moves when a step turns it.
// Everything else is real: sockets, protocols, the store. What the engine stands on is a Shape's. Scenarios with the tag
// @cluster run on several engines, each a process, in real time (cluster.go).
package steps

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cucumber/godog"
	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// patience bounds how long a step waits, in real time, for what it expects. It is generous because it is only used up
// by a failure.
const patience = time.Minute

// world is the state of one scenario.
type world struct {
	box     *sandbox.Sandbox
	clock   *clockwork.FakeClock
	tenants map[string]*sdk.Client
	last    *sdk.Message          // the message the scenario talks about
	sent    []string              // ids of all messages, in order
	texts   map[string]sentText   // the message of each text; the last one when a text was sent twice
	tenant  string                // who sent last
	err     error                 // of the last request
	refused []error               // of the last messages that were handed in together
	moved   *sdk.DeadLetterResult // of the last retry or drop
	keys    []*sdk.Key
	ground  Ground // nil = a directory of its own
	fleet   Fleet  // instead of an engine in this process; else nil
	raise   func(context.Context, int) (Fleet, error)
}

// Shape says what scenarios run on.
type Shape struct {
	// Lay gives a scenario its ground; nil = a directory of its own.
	Lay func(ctx context.Context) (Ground, error)
	// Raise starts a fleet of so many nodes for a scenario with the tag @cluster; nil = there are none.
	Raise func(ctx context.Context, nodes int) (Fleet, error)
}

// Ground is what the engine of a scenario stands on when that is not a directory of its own.
type Ground interface {
	// Engine makes the configuration one of an engine on this ground.
	Engine(cfg *engine.Config)
	// Close takes the ground away. The engine has ended before.
	Close() error
}

// sentText says which message a text went as.
type sentText struct{ tenant, id string }

type worldKey struct{}

func of(ctx context.Context) *world { return ctx.Value(worldKey{}).(*world) }

// start is the time at which every scenario begins.
var start = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// Register adds the step pack to a suite of scenarios with an embedded engine each.
func Register(sc *godog.ScenarioContext) { Shape{}.Register(sc) }

// Register adds the step pack to a suite.
func (s Shape) Register(sc *godog.ScenarioContext) {
	sc.Before(func(ctx context.Context, scenario *godog.Scenario) (context.Context, error) {
		w := &world{
			clock: clockwork.NewFakeClockAt(start), tenants: map[string]*sdk.Client{}, texts: map[string]sentText{},
			raise: s.Raise,
		}
		ctx = context.WithValue(ctx, worldKey{}, w)
		for _, t := range scenario.Tags {
			if t.Name == "@cluster" { // it begins with "a cluster of … nodes"
				return ctx, nil
			}
		}
		return ctx, w.begin(ctx, s.Lay)
	})
	sc.After(func(ctx context.Context, _ *godog.Scenario, err error) (context.Context, error) {
		w, ok := ctx.Value(worldKey{}).(*world)
		if !ok {
			return ctx, nil
		}
		if err != nil && w.last != nil {
			godog.Log(ctx, w.timeline(ctx, w.last.ID))
		}
		if err != nil && w.fleet != nil {
			godog.Log(ctx, w.fleet.Story())
		}
		return ctx, w.end()
	})
	registerSetup(sc)
	registerActions(sc)
	registerOutcomes(sc)
	registerCampaigns(sc)
	registerWays(sc)
	registerOrder(sc)
	registerDeadLetters(sc)
	registerRouting(sc)
	registerPolicies(sc)
	registerClock(sc)
	registerCluster(sc)
}

// begin starts the engine and the simulator of the scenario.
func (w *world) begin(ctx context.Context, lay func(context.Context) (Ground, error)) (err error) {
	// Without jitter, so that a feature can say when an attempt is made.
	exact := 0.0
	o := sandbox.Options{Tenant: "acme", Clock: w.clock, RetryJitter: &exact}
	if lay != nil {
		if w.ground, err = lay(ctx); err != nil {
			return err
		}
		o.Engine = w.ground.Engine
	}
	if w.box, err = sandbox.Start(ctx, o); err != nil {
		return err
	}
	w.tenants["acme"] = w.box.Client
	return nil
}

// end takes away what begin has made, as far as it came.
func (w *world) end() error {
	var errs []error
	if w.fleet != nil {
		errs = append(errs, w.fleet.Close())
	}
	if w.box != nil {
		errs = append(errs, w.box.Close())
	}
	if w.ground != nil {
		errs = append(errs, w.ground.Close())
	}
	return errors.Join(errs...)
}

// client returns a tenant's client, making the tenant when the scenario names it first.
func (w *world) client(name string) (*sdk.Client, error) {
	if c, ok := w.tenants[name]; ok {
		return c, nil
	}
	if w.fleet != nil {
		c, err := w.join(context.Background(), name)
		if err == nil {
			w.tenants[name] = c
		}
		return c, err
	}
	c, err := w.box.Engine.Client(name)
	if err != nil {
		return nil, err
	}
	at := sandbox.Addresses{SMPP: w.box.Sim.SMPPAddr(), SMTP: w.box.Sim.SMTPAddr(), HTTP: w.box.Sim.URL()}
	if _, err := sandbox.Connect(context.Background(), c, at, w.box.URL); err != nil {
		return nil, err
	}
	// An SMSC gives the receipts of an account to any of its connections: each tenant has an account of its own.
	if err := c.Connectors.Delete(context.Background(), "sim-sms"); err != nil {
		return nil, err
	}
	if _, err := c.Connectors.Put(context.Background(), "sim-sms", w.connector("SMS", "sim-sms-"+name)); err != nil {
		return nil, err
	}
	w.tenants[name] = c
	return c, nil
}

// settle waits until the engine is quiet.
func (w *world) settle(ctx context.Context) error {
	if w.fleet != nil {
		return errors.New("nobody turns the clock of a cluster: use steps that wait for what they expect")
	}
	return eventually(func() error {
		quiet, err := w.box.Engine.Quiet(ctx)
		if err == nil && !quiet {
			err = errors.New("the engine is still busy")
		}
		return err
	})
}

// pass turns the clock by d, stopping wherever something becomes due.
func (w *world) pass(ctx context.Context, d time.Duration) error {
	end := w.clock.Now().Add(d)
	for {
		if err := w.settle(ctx); err != nil {
			return err
		}
		now := w.clock.Now()
		if !now.Before(end) {
			return nil
		}
		step := end.Sub(now)
		next, err := w.box.Engine.NextDue(ctx)
		if err != nil {
			return err
		}
		if !next.IsZero() {
			step = min(step, max(next.Sub(now), time.Millisecond))
		}
		w.clock.Advance(step)
	}
}

// number reads the digits of an optional part of a step; a part that is not there counts as 0.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

// eventually repeats check until it returns nil, or its last error when patience ends.
func eventually(check func() error) error {
	var err error
	pause := 2 * time.Millisecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(pause) {
		if err = check(); err == nil {
			return nil
		}
		pause = min(pause*5/4, 50*time.Millisecond)
	}
	return err
}

// timeline tells what happened to a message, for whoever reads a failure.
func (w *world) timeline(ctx context.Context, id string) string {
	facts, err := w.tenants[w.tenant].Messages.Timeline(ctx, id)
	if err != nil {
		return "timeline: " + err.Error()
	}
	var b strings.Builder
	b.WriteString("timeline:")
	for _, f := range facts {
		fmt.Fprintf(&b, "\n  +%-8s %-10s %-11s %s %s", f.At.Sub(start), f.Kind, f.Status, f.Code, f.Detail)
	}
	return b.String()
}
