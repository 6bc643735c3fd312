//go:build unix

package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// wobbly is an engine on a clock that somebody sets.
type wobbly struct {
	*require.Assertions
	ctx   context.Context
	box   *sandbox.Sandbox
	clock *clockwork.FakeClock
	set   time.Duration // by how much the clock has been set in all
	back  time.Duration // how much of it back
	went  []handOff
}

// handOff is what the provider saw.
type handOff struct {
	to       string
	at       time.Time     // by the clock
	trueTime time.Time     // by one that nobody has set
	back     time.Duration // by how much the clock had been set back before
}

// trueTime is the time that a clock would show which nobody has set.
func (w *wobbly) trueTime() time.Time { return w.clock.Now().Add(-w.set) }

// settle waits until the engine has nothing to do at this time.
func (w *wobbly) settle() {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		quiet, err := w.box.Engine.Quiet(w.ctx)
		w.NoError(err)
		if quiet {
			for _, e := range w.box.Sim.Ledger().Entries(len(w.went)) { // since the clock was last set
				w.went = append(w.went, handOff{e.To, e.At, e.At.Add(-w.set), w.back})
			}
			return
		}
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.FailNow("the engine does not come to rest")
		}
	}
}

// pass lets time go by, with a stop wherever something is due.
func (w *wobbly) pass(d time.Duration) {
	for end := w.clock.Now().Add(d); ; {
		w.settle()
		now := w.clock.Now()
		if !now.Before(end) {
			return
		}
		step := end.Sub(now)
		next, err := w.box.Engine.NextDue(w.ctx)
		w.NoError(err)
		if !next.IsZero() {
			step = min(step, max(next.Sub(now), time.Millisecond))
		}
		w.clock.Advance(step)
	}
}

// jump sets the clock.
func (w *wobbly) jump(d time.Duration) {
	w.settle()
	w.clock.Advance(d)
	w.set += d
	if d < 0 {
		w.back -= d
	}
}

// due is a message that was promised for a time.
type due struct {
	at       time.Time     // by the clock, whatever it shows
	in       time.Duration // that is so much after it was accepted
	accepted time.Time     // true time
	back     time.Duration // by how much the clock had been set back before
}

// TestClockIsSet sets the clock by an hour to and fro, with restarts between, while messages wait for their time. Each
// goes once, none before its time, and none later than the clock was set back.
func TestClockIsSet(t *testing.T) {
	for n := range 3 {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Logf("to repeat: -seed=%d", seed)
			rnd := rand.New(rand.NewPCG(seed, 0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			w := &wobbly{Assertions: require.New(t), ctx: ctx}
			w.clock = clockwork.NewFakeClockAt(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
			var err error
			w.box, err = sandbox.Start(ctx, sandbox.Options{Dir: t.TempDir(), Clock: w.clock})
			w.NoError(err)
			defer func() { w.NoError(w.box.Close()) }()
			promised := map[string]due{}
			for len(promised) < 40 {
				w.send(promised, time.Duration(rnd.IntN(7200))*time.Second)
				w.send(promised, 0)
				switch rnd.IntN(5) {
				case 0:
					w.jump(-time.Hour)
				case 1:
					w.jump(time.Hour)
				case 2:
					w.settle()
					w.NoError(w.box.Restart(ctx))
				default:
					w.pass(time.Duration(rnd.IntN(1800)) * time.Second)
				}
			}
			w.pass(3*time.Hour + w.back)
			w.judge(promised)
			audit, err := w.box.Client.Audit.Verify(ctx)
			w.NoError(err)
			w.True(audit.OK, "%+v", audit)
		})
	}
}

// send promises a message to somebody new. 0 = now.
func (w *wobbly) send(promised map[string]due, in time.Duration) {
	p := person(4*len(promised) + 2) // mail
	d := due{at: w.clock.Now().Add(in), in: in, accepted: w.trueTime(), back: w.back}
	opts := []sdk.SendOption{sdk.TTL(48 * time.Hour)}
	if in > 0 {
		opts = append(opts, sdk.At(d.at))
	}
	_, err := w.box.Client.Send(w.ctx, sdk.With(sdk.Email{To: p.To, Subject: "Hello", Text: "Hello"}, opts...))
	w.NoError(err)
	promised[p.To] = d
}

// judge compares what the provider saw with what was promised.
func (w *wobbly) judge(promised map[string]due) {
	const slack = time.Second // the engine looks at its queues that often
	seen := map[string]int{}
	for _, h := range w.went {
		seen[h.to]++
		d, found := promised[h.to]
		w.True(found, "nobody asked for %s", h.to)
		w.False(h.at.Before(d.at), "%s was promised for %s and went at %s", h.to, d.at, h.at)
		late := h.trueTime.Sub(d.accepted) - d.in
		w.LessOrEqual(late, h.back-d.back+slack, "%s was late by more than the clock was set back", h.to)
	}
	w.Len(seen, len(promised), "a message did not go")
	for to, n := range seen {
		w.Equal(1, n, "%s got %d copies", to, n)
	}
}
