package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/msgctl/msgctl/sdk"
)

const (
	warmUp = 100 // messages before a measurement, so that connections are there
	// stalled is after how long without any progress messages are given up as lost.
	stalled = 15 * time.Second
	poll    = 10 * time.Millisecond
)

// errStalled is why a wait was given up.
var errStalled = errors.New("no progress")

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
	if err := await(ctx, "handed off", t.n, func() (int, error) {
		n, err := t.sim.count()
		return n - t.before, err
	}); err != nil {
		return err
	}
	label := `channel="` + t.c.name + `"`
	if err := await(ctx, "settled", t.n, func() (int, error) {
		n, err := t.e.metric(ctx, "msgctl_outcomes_total", label)
		return n - t.settled, err
	}); err != nil || !t.c.receipts {
		return err
	}
	return await(ctx, "with a receipt", t.n, func() (int, error) {
		// A receipt that overtakes the outcome of its own attempt is parked, and takes effect with the outcome.
		n, err := t.e.metric(ctx, "msgctl_receipts_total", label, `status="delivered"`)
		return n - t.reports, err
	})
}

// await polls until the count has been reached.
func await(ctx context.Context, what string, want int, count func() (int, error)) error {
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
	for _, status := range []sdk.Status{
		sdk.Queued, sdk.Sending, sdk.Held, sdk.Deferred, sdk.Ambiguous, sdk.Sent, sdk.Failed,
	} {
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
