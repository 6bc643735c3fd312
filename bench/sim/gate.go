package sim

import (
	"slices"
	"strings"
	"sync"
)

// gate is where everything that the engine does to the world stops and waits for its turn: calls of the store, hints,
// hand-overs and their answers. The driver lets one through, waits until the whole process stands still again, and
// chooses the next. Which one comes next is the seed's choice, so a seed is one interleaving, and the same one each time.
type gate struct {
	mu     sync.Mutex
	calls  []*call
	came   chan struct{} // a call has come since the driver looked
	serial int
}

// call is one that waits.
type call struct {
	what    string // sorts the calls that wait; the same in each run of a seed
	nth     int
	by      *process
	verdict chan verdict
}

// verdict is what the driver makes of a call.
type verdict uint8

const (
	pass       verdict = iota
	hold               // done, and the answer waits for another turn
	refuse             // not done: the store cannot be written now
	loseBefore         // not done, and the caller cannot know
	loseAfter          // done, and the caller cannot know
	dead               // the process was killed
)

func newGate() *gate { return &gate{came: make(chan struct{}, 1)} }

// wait blocks until the driver decides.
func (g *gate) wait(by *process, what string) verdict {
	g.mu.Lock()
	if by.dead.Load() {
		g.mu.Unlock()
		return dead
	}
	c := &call{what: what, nth: g.serial, by: by, verdict: make(chan verdict, 1)}
	g.serial++
	g.calls = append(g.calls, c)
	g.mu.Unlock()
	select {
	case g.came <- struct{}{}:
	default:
	}
	return <-c.verdict
}

// waiting lists the calls that wait, in an order that does not depend on which goroutine ran first.
func (g *gate) waiting() []*call {
	g.mu.Lock()
	defer g.mu.Unlock()
	slices.SortFunc(g.calls, func(a, b *call) int {
		if n := strings.Compare(a.what, b.what); n != 0 {
			return n
		}
		return a.nth - b.nth
	})
	return slices.Clone(g.calls)
}

// decide ends a wait.
func (g *gate) decide(c *call, v verdict) {
	g.mu.Lock()
	g.calls = slices.DeleteFunc(g.calls, func(o *call) bool { return o == c })
	g.mu.Unlock()
	c.verdict <- v
}

// kill ends every wait of a process, and all that would come.
func (g *gate) kill(p *process) {
	g.mu.Lock()
	p.dead.Store(true)
	close(p.gone)
	var mine []*call
	g.calls = slices.DeleteFunc(g.calls, func(c *call) bool {
		if c.by == p {
			mine = append(mine, c)
		}
		return c.by == p
	})
	g.mu.Unlock()
	for _, c := range mine {
		c.verdict <- dead
	}
}
