package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// Several pipelines may work on one store. They need not know each other: a claim is taken once, leases run out for
// everybody, and every later write names its epoch. What is left are the rules of this file:
//
//  1. Each process claims under a name of its own (Options.Node and Run). What was claimed under a name that this
//     directory's journal has written for can be settled exactly; what anybody else claimed cannot.
//  2. The owner of a claim knows best what became of it, so the others leave it alone for a moment after its lease has
//     ended (ownersGrace), and for longer while it gives signs of life (ownersLife), or after a time in which the store
//     could not be reached: then its owner, who is alive, could not write down what it knows (ownersReturn). Then they
//     call it a doubt: only its owner could tell whether the attempt had begun.
//  3. A process that may not claim (Options.Held) leaves everything that is due to the others, and begins nothing that it
//     has claimed: whoever changes something does not wait for it.
//  4. A message whose account another process serves (routing.Account.Elsewhere) is left to that process.

const (
	// ownersGrace is how long after its end the lease of another process's claim is left to that process. It is longer
	// than the sweeper's longest wait, so that whoever is alive comes first.
	ownersGrace = time.Second
	// ownersLife is how long that lease is left to a process that lives: it ends its leases itself, as soon as the store
	// takes what it writes. One that cannot for so long is not to be waited for.
	ownersLife = 30 * time.Second
	// ownersReturn is how long the processes have to write down what they know, after the store came back. It is longer
	// than the recorder's longest wait, with time for the writing.
	ownersReturn = 5 * time.Second
	// heldLook is how often a process that may not claim looks whether it may again.
	heldLook = 200 * time.Millisecond
	// elsewherePause is how long a queue is left to the others whose messages go by an account that is served elsewhere.
	elsewherePause = 2 * time.Second
	// pastFile lists, a line each, the names under which the processes of a journal's directory have claimed.
	pastFile = "names"
)

// Local reports whether the hints of a topic are for the process that publishes them: they say what its planner has
// chosen to claim, and its books wait for the answer. All other hints may go to any process.
func Local(topic string) bool {
	return topic == topicOf("route", true) || topic == topicOf("route", false)
}

// node is the name that this process claims under.
func (p *Pipeline) node() string {
	if p.opt.Run == "" {
		return p.opt.Node
	}
	return p.opt.Node + "#" + p.opt.Run
}

// held says why nothing may be claimed now; "" = it may.
func (p *Pipeline) held() string {
	if p.opt.Held == nil {
		return ""
	}
	return p.opt.Held()
}

// isOthers reports whether an overdue claim is to be left to the process that has it.
func (p *Pipeline) isOthers(o store.Overdue, now time.Time, elapsed time.Duration) bool {
	since := now.Sub(o.DueAt)
	return since < ownersGrace || !p.sight.steady(elapsed) ||
		since < ownersLife && p.opt.Lives != nil && p.opt.Lives(o.Node)
}

// sight is since when the sweeper sees the store without a break, as a reading of Pipeline.elapsed. The zero sight has
// seen nothing. One goroutine uses it.
type sight struct {
	since time.Duration
	seen  bool
}

// saw notes a look into the store, and whether it failed.
func (s *sight) saw(elapsed time.Duration, err error) {
	switch {
	case err != nil:
		s.seen = false
	case !s.seen:
		s.since, s.seen = elapsed, true
	}
}

// steady reports whether everybody else has had the time to write down what they know.
func (s *sight) steady(elapsed time.Duration) bool { return s.seen && elapsed-s.since >= ownersReturn }

// lostDoubt is the outcome of a claim that another process has left behind. The account of the attempt is known only when
// it was pinned: what the store names otherwise is that of an attempt before. Then any account that the message might
// have gone by is given its time to tell, and none is asked.
func (p *Pipeline) lostDoubt(o store.Overdue, now time.Time) store.Outcome {
	out := p.inDoubt(unlessPinned(o), reasonLeaseEnded, "its node did not come back in time", now)
	if o.Pinned {
		return out
	}
	for _, a := range p.Accounts.Usable(o.Queue.Tenant, o.Queue.Channel) {
		out.Until = later(now.Add(resolveWindow(a.Kind)), out.Until)
	}
	return out
}

// unlessPinned takes away the account of an attempt before, of which nobody knows whether it made this one too.
func unlessPinned(o store.Overdue) store.Overdue {
	if !o.Pinned {
		o.Account = delivery.AccountID{}
	}
	return o
}

// leaveElsewhere leaves a message, and for a moment its queue, to the processes that serve its account.
func (p *Pipeline) leaveElsewhere(m *passage, c routing.Choice, b *batch) {
	until := b.now.Add(elsewherePause)
	b.stuck = b.stuck || m.Queue == b.queue && !c.Alone
	p.planner.blockAsOf(m.ways, m.Queue, until, delivery.Standing{
		Reason: c.Reason, Account: c.Blocked.Name, Until: until,
	})
	m.giveBack(c.Reason)
}

// names returns under which names earlier processes over this journal have claimed, and writes down this one's before
// its first claim. A name is forgotten only after its claims are settled.
func (p *Pipeline) names(past past) ([]string, error) {
	if p.opt.Run == "" {
		return []string{p.opt.Node}, nil
	}
	b, err := os.ReadFile(p.pastPath())
	names := strings.Fields(string(b))
	switch {
	case os.IsNotExist(err):
		if len(past.files) > 0 { // written by a process that was alone with its store
			names = slices.Clone(p.opt.Past)
		}
	case err != nil:
		return nil, fmt.Errorf("attempt journal: %w", err)
	}
	return names, p.writeNames(append(slices.Clone(names), p.node()))
}

func (p *Pipeline) pastPath() string { return filepath.Join(p.opt.Dir, pastFile) }

// writeNames replaces the list of names, for good.
func (p *Pipeline) writeNames(names []string) (err error) {
	path := p.pastPath()
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("attempt journal: %w", err)
	}
	_, err = f.WriteString(strings.Join(names, "\n") + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("attempt journal: %w", err)
	}
	return nil
}

// forgetNames drops the names whose claims are settled.
func (p *Pipeline) forgetNames() error {
	if p.opt.Run == "" {
		return nil
	}
	return p.writeNames([]string{p.node()})
}

// overdueOwn lists what this process has under lease.
func (p *Pipeline) overdueOwn(ctx context.Context, now time.Time, most int) ([]store.Overdue, error) {
	return p.store.Overdue(ctx, system, now, p.node(), most)
}
