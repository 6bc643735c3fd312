// Package cluster keeps one engine in step with the others that work on the same store.
//
// Nothing here is needed for correctness: claims, leases and epochs in the store are. A member says that it lives, knows
// who else does, follows what others have changed, and stops claiming when it cannot know any more what is so.
package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// system is the scope of a member's calls.
var system = store.AsSystem("cluster")

// The roles that a node may have.
const (
	API      = "api"      // it serves the HTTP API
	Deliver  = "deliver"  // it claims and sends
	Schedule = "schedule" // it expands campaigns and takes over what others have left
	Webhook  = "webhook"  // it takes the reports of providers
)

// Roles lists all roles, in the order in which they are shown.
func Roles() []string { return []string{API, Deliver, Schedule, Webhook} }

const (
	// DefaultTTL is how long a sign of life holds when Options does not say.
	DefaultTTL = 3 * time.Second
	// MinTTL is the shortest that leaves a busy store time to answer.
	MinTTL = 300 * time.Millisecond
	// MaxTTL is the longest: for as long, a dead node's name and sessions are not given to another.
	MaxTTL = time.Minute

	warnSkew = 2 * time.Second
	stopSkew = 30 * time.Second
	// mostStep is how far the own clock may have been set since the last sign of life. A machine that stood still wakes up
	// with a clock like that, and with readings of elapsed which say that no time has gone by.
	mostStep = time.Second
)

// Options is what a member is made of. Nodes, Name, Roles and Clock are required.
type Options struct {
	Nodes   store.Nodes
	Name    string
	Roles   []string
	Version string
	TTL     time.Duration // 0 = DefaultTTL
	Clock   *Clock
	Log     *slog.Logger          // nil = silent
	Metrics prometheus.Registerer // nil = none

	// Apply makes the engine follow changes, its own included. When it fails they are offered again. With Gap set, some
	// are not listed: everything that is remembered must go.
	Apply func(ctx context.Context, c store.Changes) error
	// Beaten is called after each attempt to give a sign of life: Held may say something else by then. One call at a time;
	// while it lasts the signs go on, and the attempts in between are not told of.
	Beaten func(ctx context.Context)
}

// Member is one run of a node. Join comes first, then Run; everything else may be called at any time and from many
// goroutines.
type Member struct {
	opt     Options
	log     *slog.Logger
	clock   clockwork.Clock // the node's own
	run     store.RunID
	started time.Time
	began   time.Time // of elapsed
	metrics *metrics
	shared  shared

	kick chan struct{} // give a sign of life now
	poke chan struct{} // look for changes now

	beating sync.Mutex // one beat at a time
	skews   skew       // guarded by beating

	mu       sync.Mutex
	address  string
	roster   store.Roster
	until    time.Duration // elapsed until which the last sign holds
	seen     time.Duration // elapsed when the changes were last known to be applied
	reborn   time.Duration // elapsed when it began to count as alive again after it had not
	shown    time.Time     // by the store's clock, a moment from which on whoever looks sees this run; zero = none yet
	agreed   bool          // nobody goes by what was read before
	applied  int64
	skew     reading
	stepped  time.Duration // of the clock, at the last sign
	draining bool
	taken    bool   // another run has the name
	said     string // what Held said when the log was last told
	failed   error  // of the last beat
}

// New makes a member that nobody knows of yet.
func New(opt Options) *Member {
	if opt.TTL == 0 {
		opt.TTL = DefaultTTL
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Beaten == nil {
		opt.Beaten = func(context.Context) {}
	}
	m := &Member{
		opt: opt, log: opt.Log.With("part", "cluster", "node", opt.Name), clock: opt.Clock.Clock,
		kick: make(chan struct{}, 1), poke: make(chan struct{}, 1),
	}
	_, _ = rand.Read(m.run[:]) // never fails
	m.started, m.began = opt.Clock.Now(), m.clock.Now()
	m.shared.fetch = func(ctx context.Context) (store.Roster, error) { return opt.Nodes.Roster(ctx, system) }
	m.metrics = newMetrics(m, opt.Metrics)
	return m
}

// Name is the node's name.
func (m *Member) Name() string { return m.opt.Name }

// RunID tells this process apart from all others that have had or will have its name.
func (m *Member) RunID() store.RunID { return m.run }

// RunText is the beginning of RunID, enough to tell runs apart.
func (m *Member) RunText() string { return runText(m.run) }

func runText(run store.RunID) string { return hex.EncodeToString(run[:6]) }

// elapsed is a reading of a clock that nobody sets.
func (m *Member) elapsed() time.Duration { return m.clock.Since(m.began) }

// NameTakenError says that another process has the node's name.
type NameTakenError struct {
	Name    string
	Address string // where its API listens; "" = nowhere
	Started time.Time
	Ago     time.Duration // since its last sign of life
}

func (e *NameTakenError) Error() string {
	where := "another process"
	if e.Address != "" {
		where += " at " + e.Address
	}
	return fmt.Sprintf("the node name %q is in use: %s has had it since %s and gave a sign of life %s ago; "+
		"give this one a name of its own with --node", e.Name, where, e.Started.UTC().Format(time.RFC3339),
		e.Ago.Round(100*time.Millisecond))
}

// Join makes the node known. When the name's last sign of life still holds, Join waits until it is over: a killed
// process may come back at once. When that process gives another sign, it is alive: *NameTakenError.
func (m *Member) Join(ctx context.Context, address string) error {
	m.mu.Lock()
	m.address = address
	m.mu.Unlock()
	var first *store.Node
	for began := m.elapsed(); ; {
		err := m.beat(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("the node cannot join the cluster: %w", err)
		}
		roster, rerr := m.opt.Nodes.Roster(ctx, system)
		if rerr != nil {
			return fmt.Errorf("the node cannot join the cluster: %w", rerr)
		}
		i := slices.IndexFunc(roster.Nodes, func(n store.Node) bool { return n.Name == m.opt.Name })
		if i < 0 {
			return fmt.Errorf("the node cannot join the cluster: %w", err)
		}
		other := roster.Nodes[i]
		patience := other.TTL + m.opt.TTL
		if first == nil {
			first = &other
			m.log.Warn("an earlier process of this name may still be alive; waiting until its last sign of life is over",
				"address", other.Address, "until", other.Until)
		}
		if other.Run != first.Run || other.Seen.After(first.Seen) || m.elapsed()-began > patience {
			return &NameTakenError{
				Name: m.opt.Name, Address: other.Address, Started: other.Started, Ago: roster.Now.Sub(other.Seen),
			}
		}
		if err := m.sleep(ctx, min(max(other.Until.Sub(roster.Now), 10*time.Millisecond), m.opt.TTL/4)); err != nil {
			return err
		}
	}
}

// sleep waits for a while, or until ctx ends.
func (m *Member) sleep(ctx context.Context, d time.Duration) error {
	t := m.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.Chan():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run keeps the node alive and its engine in step until ctx ends. It does not leave: see Leave.
func (m *Member) Run(ctx context.Context) {
	var wg sync.WaitGroup
	var telling atomic.Bool
	wg.Go(func() { m.follow(ctx) })
	pause := m.pause(0, nil)
	for ctx.Err() == nil {
		t := m.clock.NewTimer(pause)
		select {
		case <-t.Chan():
		case <-m.kick:
		case <-ctx.Done():
			t.Stop()
			continue
		}
		t.Stop()
		began := m.elapsed()
		err := m.beat(ctx)
		if err != nil && ctx.Err() == nil {
			m.metrics.failures.Inc()
		}
		pause = m.pause(m.elapsed()-began, err)
		if ctx.Err() == nil {
			m.tell()
			if telling.CompareAndSwap(false, true) {
				wg.Go(func() {
					defer telling.Store(false)
					m.opt.Beaten(ctx)
				})
			}
		}
	}
	wg.Wait()
}

// pause is how long to wait after a sign of life that took so long: a third of the time that it holds passes between the
// beginnings of two. After a failure the store may be back any moment, and until then nothing goes; and whoever has just
// come wants to know soon that all others count it.
func (m *Member) pause(took time.Duration, err error) time.Duration {
	least := m.opt.TTL / 10
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || !m.agreed {
		return least
	}
	return max(m.opt.TTL/3-took, least)
}

// beat gives one sign of life.
func (m *Member) beat(ctx context.Context) error {
	m.beating.Lock()
	defer m.beating.Unlock()
	m.mu.Lock()
	b := store.Beat{
		Name: m.opt.Name, Run: m.run, TTL: m.opt.TTL, Roles: m.opt.Roles, Version: m.opt.Version, Address: m.address,
		Started: m.started, Applied: m.applied, Draining: m.draining,
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.opt.TTL/2)
	defer cancel()
	began, before := m.elapsed(), m.opt.Clock.steady()
	r, err := m.opt.Nodes.Beat(ctx, system, b)
	after, ended := m.opt.Clock.steady(), m.elapsed()
	stepped := m.opt.Clock.stepped()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = err
	if err != nil {
		if errors.Is(err, store.ErrConflict) && m.until > 0 {
			m.taken = true
		}
		return err
	}
	switch {
	case m.until == 0: // what is read from now on is newer than all changes up to here
		m.applied, m.seen = r.Changed, ended
	case ended >= m.until || m.stoodStill(stepped):
		// Nobody has waited for it meanwhile: it follows what it has missed before it goes on.
		m.reborn = ended
		m.shown, m.agreed = time.Time{}, false
		signal(m.poke)
	case m.shown.IsZero(): // the sign before this one had been stored when this one began
		m.shown = r.Now
	}
	m.agreed = m.agreed || m.isAgreed(r)
	// By the store's clock the sign holds for TTL from some moment after began: here it ends no later than there.
	m.until, m.stepped = began+m.opt.TTL, stepped
	m.skew = m.skews.add(read(before, r.Now, after))
	m.opt.Clock.set(m.skew)
	m.roster = r
	return nil
}

// tell lets the log say when the node stops and goes on, and when its clock is wrong.
func (m *Member) tell() {
	why := m.Held()
	if warn := m.warning(); why == "" {
		why = warn
	}
	m.mu.Lock()
	said, failed := m.said, m.failed
	m.said = kindOf(why)
	m.mu.Unlock()
	switch {
	case kindOf(why) == said:
	case why == "":
		m.log.Info("the node is in step with the cluster again")
	default:
		m.log.Warn("the node is not in step with the cluster", "why", why, "err", failed)
	}
}

// Reasons why a member holds back. What follows in a text may change from moment to moment.
const (
	whyTaken  = "another process has taken over the node's name"
	whyCut    = "cut off from the store"
	whyBehind = "changes of other nodes cannot be followed"
	whySkew   = "the clock is wrong"
	whyStill  = "the clock was set, or the machine stood still"
)

// kindOf is the part of a reason that does not change from moment to moment.
func kindOf(why string) string {
	for _, k := range [...]string{whyTaken, whyCut, whyBehind, whySkew, whyStill} {
		if len(why) >= len(k) && why[:len(k)] == k {
			return k
		}
	}
	return why
}

// Held says why the node must not claim anything now; "" = it may. A node whose last sign of life is over counts as dead
// for the others, and must assume that it is. It takes no time to ask.
func (m *Member) Held() string {
	now := m.elapsed()
	m.mu.Lock()
	defer m.mu.Unlock()
	stepped := m.opt.Clock.stepped()
	ahead := m.skew.ahead + stepped
	switch {
	case m.taken:
		return whyTaken + ": stop this one, or start it again under another"
	case now >= m.until:
		return whyCut + ": no sign of life has reached it for " + (now - m.until + m.opt.TTL).Round(time.Second).String()
	case m.stoodStill(stepped):
		return whyStill + " since its last sign of life"
	case m.seen < m.reborn:
		return whyBehind + ": it has just come back"
	case now >= m.seen+m.opt.TTL+lookEvery:
		return whyBehind + " for " + (now - m.seen).Round(time.Second).String()
	case ahead.Abs()-m.skew.slack > stopSkew:
		return skewText(ahead)
	}
	return ""
}

// stoodStill reports whether time may have gone by since the last sign that elapsed does not know of.
func (m *Member) stoodStill(stepped time.Duration) bool {
	return (stepped - m.stepped).Abs() > mostStep
}

// warning says what is wrong and does not yet keep the node from working; "" = nothing.
func (m *Member) warning() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ahead := m.skew.ahead + m.opt.Clock.stepped(); ahead.Abs()-m.skew.slack > warnSkew {
		return skewText(ahead)
	}
	return ""
}

func skewText(ahead time.Duration) string {
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	return fmt.Sprintf("%s: it is %s %s the store's; set it by NTP", whySkew, ahead.Abs().Round(100*time.Millisecond), side)
}

// Skew is how far the node's own clock is ahead of the store's, as well as it is known.
func (m *Member) Skew() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.skew.ahead + m.opt.Clock.stepped()
}

// Drain tells the others that the node takes on nothing new. It waits for the store as long as for any sign of life; a
// failure is no matter.
func (m *Member) Drain(ctx context.Context) {
	m.mu.Lock()
	joined := m.until > 0
	m.draining = true
	m.mu.Unlock()
	if joined {
		_ = m.beat(ctx)
	}
}

// Leave ends the run: its name and sessions are free at once. Call it when Run has ended and nothing is under way.
func (m *Member) Leave(ctx context.Context) error {
	m.mu.Lock()
	joined := m.until > 0
	m.mu.Unlock()
	if !joined {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.opt.TTL)
	defer cancel()
	if err := m.opt.Nodes.Leave(ctx, system, m.opt.Name, m.run); err != nil {
		return fmt.Errorf("the node cannot leave the cluster, and counts as alive for %s more: %w", m.opt.TTL, err)
	}
	return nil
}

// Session asks for one of the sessions that an account allows, or renews the one that this run has.
func (m *Member) Session(ctx context.Context, account delivery.AccountID, max int) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, m.opt.TTL/2)
	defer cancel()
	return m.opt.Nodes.Session(ctx, system, account, m.opt.Name, m.run, max)
}

// Drop gives a session back.
func (m *Member) Drop(ctx context.Context, account delivery.AccountID) error {
	ctx, cancel := context.WithTimeout(ctx, m.opt.TTL/2)
	defer cancel()
	return m.opt.Nodes.EndSession(ctx, system, account, m.opt.Name, m.run)
}
