// Package sim runs the whole pipeline on a virtual clock, with everything around it going wrong as a seed decides.
//
// What is real: the pipeline, the SQLite store, limits, routing, templates, the in-process broker. What is simulated:
// time, providers, people, and everything that can fail between them. A run happens in a testing/synctest bubble. All
// that the engine does to the world stops at a gate (gate.go); the driver lets one thing through, waits until the whole
// engine stands still again, and lets the seed choose the next: a call, a timer, an act of the scene, or that time passes.
// So a seed is one interleaving of all of them, and the same one each time.
//
// The promises are checked while it runs (watch.go), by what the providers saw, and at the end (verdict.go), by what
// the store says became of each message.
package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Options says how to run a seed.
type Options struct {
	Dir   string       // an empty directory, best in memory
	Blank []byte       // a database file as store/sqlite makes it, to save the time of making one
	Log   *slog.Logger // of the engine; nil = none
	Steps bool         // the log has every step of the driver
	plant plant
}

// plant is a mistake that is made on purpose, to see that it is found.
type plant uint8

const (
	noPlant plant = iota
	plantNoSweep
	plantLostOutcome
	plantForgetDoubt
	plantLyingCancel
	plantNoJournal
	plantNoLimits
	plantUnmarked
)

// Result is what a run came to.
type Result struct {
	Log        string   // the same, byte for byte, in each run of a seed
	Violations []string // promises that were broken; none = all is well
	Sum        Sum
}

// Sum counts what happened, to see that a set of seeds has tried everything.
type Sum struct {
	Messages, HandOvers, Taken, Doubled, Doubts, Kills, Drains, Steps int
	Ends                                                              map[delivery.Status]int
	AfterStop                                                         int // hand-overs claimed before a suppression, made after it
	AfterProof                                                        int // hand-overs after a receipt that came too late to count
	CanceledTaken                                                     int // canceled, and an attempt in doubt had been taken
}

type world struct {
	*scene
	opt    Options
	ctx    context.Context
	dir    string
	clock  *clock
	gate   *gate
	rnd    *rand.Rand // of the driver only
	began  time.Time
	now    *process // the one that lives; nil = none
	healed bool

	launched  int
	killIn    int // steps until the process is killed; 0 = nobody wants to
	outUntil  time.Duration
	busySince time.Duration
	torn      bool
	turned    bool
	stretched time.Duration // when time last passed though there was work

	byID    map[delivery.MessageID]*message
	byRef   map[string]*message // by the id that a provider gave it
	anyStop atomic.Bool         // an address may be suppressed

	mu         sync.Mutex
	planned    []act
	reports    int
	order      int
	ledger     []*handover
	log        strings.Builder
	violations []string
	sum        Sum
}

// Run runs a seed in a bubble of t. It fails t only when the simulation itself cannot go on.
func Run(t *testing.T, seed uint64, o Options) (r Result) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			scene: draw(seed), opt: o, ctx: context.Background(), dir: o.Dir, clock: newClock(), gate: newGate(),
			rnd: rand.New(rand.NewPCG(seed, 0xd21fe5)), began: time.Now(), byID: map[delivery.MessageID]*message{}, byRef: map[string]*message{},
		}
		w.sum.Ends = map[delivery.Status]int{}
		for _, a := range w.accounts {
			a.tries, a.asked = map[int]int{}, map[int]int{}
		}
		w.prepare()
		w.drive()
		w.finish()
		r = Result{Log: w.log.String(), Violations: w.violations, Sum: w.sum}
	})
	return r
}

// passed is the time since the start, whatever the wall clock says.
func (w *world) passed() time.Duration { return time.Since(w.began) }

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.write(format, args...)
}

func (w *world) write(format string, args ...any) {
	fmt.Fprintf(&w.log, "%10.3f ", w.passed().Seconds())
	fmt.Fprintf(&w.log, format+"\n", args...)
}

// bad notes a broken promise. Callers do not hold mu.
func (w *world) bad(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken(format, args...)
}

func (w *world) broken(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	w.write("BROKEN: %s", v)
	w.violations = append(w.violations, v)
}

// plan puts an act on the list.
func (w *world) plan(a act) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := len(w.planned)
	for i > 0 && w.planned[i-1].at > a.at {
		i--
	}
	w.planned = slices.Insert(w.planned, i, a)
}

// next returns the first act on the list.
func (w *world) next() (a act, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.planned) == 0 {
		return a, false
	}
	return w.planned[0], true
}

// prepare makes the tenants and plans everything that the scene wants.
func (w *world) prepare() {
	must(w.fill())
	w.launch(w.dir + "/journal-0")
	for _, t := range w.tenants {
		t.CreatedAt = w.clock.Now()
		must(w.now.store.CreateTenant(w.ctx, system, t))
		_, err := w.now.store.PutTemplate(w.ctx, t.ID, store.Template{
			Name: "sim", Channel: delivery.SMS, Text: "this is {{ who }} by way {{ way }}", CreatedAt: t.CreatedAt,
		})
		must(err)
	}
	for _, a := range w.accounts {
		must(w.now.store.PutAccount(w.ctx, a.tenant, store.Account{
			ID: a.id, Tenant: a.tenant, Name: a.name, Kind: "sim", Channel: a.channel, CreatedAt: w.clock.Now(),
		}))
	}
	batch := -1
	for _, m := range w.messages {
		if m.batch != batch {
			batch = m.batch
			w.plan(act{at: m.at, what: "accept", n: batch})
		}
	}
	for _, a := range w.acts {
		w.plan(a)
	}
	w.plan(act{at: w.chaos, what: "heal"})
}

var system = store.AsSystem("simulation")

// Bounds of a run, far beyond what a healthy one needs.
const (
	mostSteps = 40_000
	mostTime  = 100 * time.Hour
	mostBusy  = 20 * time.Minute // healed, and never at rest
)

// drive lets one thing after the other happen, until nothing is left to happen.
func (w *world) drive() {
	for {
		synctest.Wait()
		w.sum.Steps++
		switch {
		case len(w.violations) > 0:
			return
		case w.sum.Steps > mostSteps || w.passed() > mostTime:
			w.bad("the engine does not come to rest: %d steps, %s", w.sum.Steps, w.passed())
			return
		}
		if w.supervise() {
			continue
		}
		if !w.healed && w.rnd.Float64() < w.weather.stall {
			w.stall()
			continue
		}
		calls := w.gate.waiting()
		ring := w.clock.due()
		do, ok := w.next()
		ok = ok && do.at <= w.passed()
		n := len(calls)
		if ring != nil {
			n++
		}
		if ok {
			n++
		}
		if n == 0 {
			if !w.advance() {
				return
			}
			continue
		}
		switch i := w.rnd.IntN(n); {
		case i < len(calls):
			v := w.judge(calls[i])
			if w.opt.Steps {
				w.logf("step: %s: %d", calls[i].what, v)
			}
			w.gate.decide(calls[i], v)
		case i == len(calls) && ring != nil:
			if w.opt.Steps {
				w.logf("step: timer")
			}
			w.clock.ring(ring)
		default:
			w.mu.Lock()
			w.planned = w.planned[1:]
			w.mu.Unlock()
			w.perform(do)
		}
	}
}

// supervise ends and restarts processes. It returns true when it has done something.
func (w *world) supervise() bool {
	p := w.now
	if p == nil {
		return false
	}
	if w.killIn > 0 {
		if w.killIn--; w.killIn == 0 {
			w.sum.Kills++
			w.logf("kill")
			w.down(w.kill())
			return true
		}
	}
	if p.failed.Load() {
		w.logf("the start failed")
		w.down(w.kill())
		return true
	}
	select {
	case err := <-p.drained:
		w.logf("drained: %v", err)
		w.sum.Drains++
		w.gate.kill(p)
		must(p.stop())
		w.clock.forget()
		w.now = nil
		w.down(p.journal)
		return true
	default:
		return false
	}
}

// down plans the next start.
func (w *world) down(journal string) {
	w.killIn = 0
	after := time.Duration(w.rnd.Int64N(int64(5 * time.Second)))
	w.plan(act{at: w.passed() + after, what: "launch " + journal})
}

// stall lets time pass though there is work: a slow disk, a busy machine, a suspended process.
func (w *world) stall() {
	took := []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second}
	d := took[w.rnd.IntN(len(took))]
	w.logf("stall %s", d)
	time.Sleep(d)
	w.stretched = w.passed()
}

// judge decides about a call.
func (w *world) judge(c *call) verdict {
	head, _, _ := strings.Cut(c.what, " ")
	switch {
	case w.healed, head == "send", head == "answer", head == "query", strings.HasSuffix(c.what, " answer"):
		return pass
	case head == "hint":
		if w.rnd.Float64() < w.weather.hints {
			return []verdict{loseBefore, loseBefore, loseAfter, refuse}[w.rnd.IntN(4)]
		}
		return pass
	case w.passed() < w.outUntil:
		return refuse
	case w.rnd.Float64() < w.weather.store:
		return []verdict{refuse, refuse, loseBefore, loseAfter}[w.rnd.IntN(4)]
	case w.rnd.Float64() < w.weather.held:
		return hold
	}
	return pass
}

// advance lets time pass until something can happen. It returns false when nothing can any more.
func (w *world) advance() bool {
	now := time.Now()
	var to time.Time
	sooner := func(t time.Time) {
		if to.IsZero() || t.Before(to) {
			to = t
		}
	}
	if a, ok := w.next(); ok {
		sooner(w.began.Add(a.at))
	}
	quiet := false
	if w.now != nil {
		if w.now.up.Load() && w.now.hurry == nil {
			ctx := context.WithValue(w.ctx, direct{}, true)
			var err error
			quiet, err = w.now.pipe.Quiet(ctx)
			must(err)
			if quiet {
				due, err := w.now.pipe.NextDue(ctx)
				must(err)
				if !due.IsZero() {
					sooner(now.Add(max(w.clock.Until(due), time.Millisecond)))
				}
			}
		}
		if !quiet {
			if w.healed && w.passed()-w.busySince > mostBusy {
				w.bad("the engine is never at rest, though all is well")
				return false
			}
			sooner(now.Add(time.Second))
			if t := w.clock.first(); t != nil {
				sooner(t.at)
			}
		}
	}
	if to.IsZero() && w.waits() { // due now, and left to the sweeper
		to = now.Add(time.Second)
	}
	if to.IsZero() {
		return false
	}
	select {
	case <-w.gate.came: // of a call that has been decided
	default:
	}
	t := time.NewTimer(max(to.Sub(now), 0))
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.gate.came:
	}
	if quiet {
		w.busySince = w.passed()
	}
	return true
}

// waits reports whether any message is not at its end.
func (w *world) waits() bool {
	for _, t := range w.tenants {
		tally, err := w.now.store.Tally(w.ctx, t.ID, delivery.CampaignID{})
		must(err)
		for _, by := range tally {
			for s, n := range by {
				if s.Waiting() && n > 0 {
					return true
				}
			}
		}
	}
	return false
}
