// Package steps is the step pack: the words in which features speak about the engine.
//
// Each scenario runs on an engine and a provider simulator of its own, on a clock that only moves when a step turns it.
// Everything else is real: sockets, protocols, the store.
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

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// patience bounds how long a step waits, in real time, for what it expects. It is generous because it is only used up by
// a failure.
const patience = 20 * time.Second

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
}

// sentText says which message a text went as.
type sentText struct{ tenant, id string }

type worldKey struct{}

func of(ctx context.Context) *world { return ctx.Value(worldKey{}).(*world) }

// start is the time at which every scenario begins.
var start = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

// Register adds the step pack to a suite.
func Register(sc *godog.ScenarioContext) {
	sc.Before(func(ctx context.Context, _ *godog.Scenario) (context.Context, error) {
		w := &world{
			clock: clockwork.NewFakeClockAt(start), tenants: map[string]*sdk.Client{}, texts: map[string]sentText{},
		}
		var err error
		// Without jitter, so that a feature can say when an attempt is made.
		exact := 0.0
		w.box, err = sandbox.Start(ctx, sandbox.Options{Tenant: "acme", Clock: w.clock, RetryJitter: &exact})
		if err != nil {
			return ctx, err
		}
		w.tenants["acme"] = w.box.Client
		return context.WithValue(ctx, worldKey{}, w), nil
	})
	sc.After(func(ctx context.Context, _ *godog.Scenario, err error) (context.Context, error) {
		w, ok := ctx.Value(worldKey{}).(*world)
		if !ok {
			return ctx, nil
		}
		if err != nil && w.last != nil {
			godog.Log(ctx, w.timeline(ctx))
		}
		return ctx, w.box.Close()
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
}

// client returns a tenant's client, making the tenant when the scenario names it first.
func (w *world) client(name string) (*sdk.Client, error) {
	if c, ok := w.tenants[name]; ok {
		return c, nil
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
	}
	return err
}

// timeline tells what happened to the last message, for whoever reads a failure.
func (w *world) timeline(ctx context.Context) string {
	facts, err := w.tenants[w.tenant].Messages.Timeline(ctx, w.last.ID)
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
