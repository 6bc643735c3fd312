package redis

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/msgctl/msgctl/limits"
)

// Options say where Redis is and who this node is.
type Options struct {
	// URL is redis://[user:password@]host[:port][/db], rediss:// for TLS, or unix://path. Required.
	URL string
	// Node is this node's name in the cluster. No two limiters that live at the same time have the same name. "" = one
	// that nobody else has.
	Node string
	// Nodes is how many nodes are alive that have a Limiter; 0 or nil = unknown. It is asked some ten times per second and
	// must not block. A node that it counts must open its Limiter soon, or the others leave that node its share of every
	// rate.
	Nodes func() int
	// Members are the names of those nodes, this one among them, and whether they have agreed: each of the others that
	// lives counts this one too, or did. It replaces Nodes where it is given, and is asked as often as that. While they
	// have not agreed, or nobody is known, this node passes nothing without Redis. A node must not say that it has agreed
	// any more once others may not count it. Names decide which node has a limit with a small burst while Redis is away;
	// without them, who has last been seen there.
	Members func() (names []string, agreed bool)
	// Sign is how long a node counts as alive after it has looked at the members; 0 = 3 s. Two nodes may disagree about
	// them for as long.
	Sign time.Duration
	// MaxNodes is what an unknown number of nodes counts as; 0 = 16.
	MaxNodes int
	// Prefix begins the name of every key in Redis: clusters that share one Redis have different ones. "" = msgctl.
	Prefix string
	// Log hears when Redis goes and comes back; nil = nobody.
	Log *slog.Logger
	// Now is the clock; nil = time.Now. It has to run on while the process lives, at the pace of real time.
	Now func() time.Time
}

// Limiter implements limits.Limiter for the nodes that share a Redis. It is safe for concurrent use. Reserve and Pause
// never wait for the network.
type Limiter struct {
	opt    Options
	log    *slog.Logger
	client *goredis.Client
	script *goredis.Script
	pace   pace
	base   time.Time
	kick   chan struct{}
	stop   context.CancelFunc
	done   chan struct{}

	// For tests. virtual makes Redis go by our clock; asking makes Reserve call Redis by itself, at the caller's time.
	virtual, asking bool
	latest          int64         // the clock of an asking limiter
	turns           sync.Mutex    // at an asking limiter
	skew            int64         // microseconds by which a virtual Redis is ahead of us
	patience        time.Duration // 0 = calls take as long as pace says

	mu      sync.Mutex
	closed  bool
	kicked  bool
	buckets buckets
	active  []*bucket // those that Redis should hear of

	link   link
	alone  alone
	chance *rand.Rand // differs from node to node
	stats  Stats
}

// pace is how often and for how long.
type pace struct {
	ttl      time.Duration // of a session after a call
	timeout  time.Duration // of a call
	dial     time.Duration // of the first call, which may have to connect
	beat     time.Duration // between calls when nothing else is to be said
	gapLeast time.Duration // between calls under load
	gapMost  time.Duration // the same, for up to ten nodes
	ahead    time.Duration // a permit that is free this soon is given now
	giveBack time.Duration // an unused lease goes back after this
	renew    time.Duration // and one in use, to be asked for anew
	retry    time.Duration // at most between attempts to come back
	settled  time.Duration // how long the members have been the same before a limit becomes one's or is divided again
	spread   time.Duration // until everybody goes by what everybody has been told of the members
	credit   int64         // microseconds that a new epoch has behind it
}

func defaultPace() pace {
	return pace{
		ttl: 250 * time.Millisecond, timeout: 100 * time.Millisecond, dial: time.Second, beat: 80 * time.Millisecond,
		gapLeast: 2 * time.Millisecond, gapMost: 10 * time.Millisecond,
		ahead: 20 * time.Millisecond, giveBack: 50 * time.Millisecond, renew: 200 * time.Millisecond,
		retry: 800 * time.Millisecond, settled: 5 * time.Second, spread: 500 * time.Millisecond,
	}
}

// closedFor is how long after the last call that may have reached Redis a node passes nothing. The call may be executed
// late (a timeout for its deadline, one for what is not known about Redis' clock). Its session ends a ttl after that; and
// one more ttl later no node uses a lease that it was given before then.
func (p *pace) closedFor() time.Duration { return 2*p.ttl + 2*p.timeout }

// Stats say how it stands. They are for people and metrics.
type Stats struct {
	Shared   bool      // the limits are those of all nodes; else this node goes by its share
	Since    time.Time // of that
	Err      string    // why it is not shared
	Keys     int       // limits that are remembered
	Calls    int64     // to Redis
	Failures int64     // calls without a usable answer
	Epoch    int64     // how often Redis has begun anew
	Nodes    int       // that the limits are divided by
}

var _ limits.Limiter = (*Limiter)(nil)

// Open connects to Redis and begins to share limits. A Redis that cannot be reached is no error: the node goes by its
// share until it can. One that refuses is: a wrong password, a replica, something that is not Redis.
func Open(ctx context.Context, opt Options) (*Limiter, error) {
	return open(ctx, opt, defaultPace())
}

func open(ctx context.Context, opt Options, p pace) (*Limiter, error) {
	l, err := prepare(opt, p)
	if err != nil {
		return nil, err
	}
	if err := l.check(ctx); err != nil {
		_ = l.client.Close()
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go l.loop(run)
	return l, nil
}

// Stats returns how it stands.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Keys = len(l.buckets.byKey)
	s.Shared = l.link.session != 0 && l.clock() < l.link.valid
	s.Nodes = l.nodes()
	s.Epoch = l.link.epoch
	if s.Shared {
		s.Err = ""
	}
	return s
}

// Close gives back what this node holds and ends. It takes no longer than one call. It is safe twice.
func (l *Limiter) Close() error {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if l.stop != nil {
		l.stop()
		<-l.done
	}
	if was {
		return nil
	}
	return l.client.Close()
}

// Pause implements limits.Limiter. It holds on this node at once, and on the others with their next call to Redis.
func (l *Limiter) Pause(_ context.Context, key limits.Key, until time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	b := l.buckets.of(key, l.opt.Prefix)
	if until.After(b.ownPause) {
		b.ownPause, b.tellPause = until, true
		l.activate(b)
		l.wake()
	}
	if until.After(b.paused) {
		b.paused = until
	}
	return nil
}

// clock is the time since the limiter began, in nanoseconds, on the clock that real time passes by.
func (l *Limiter) clock() int64 {
	if l.asking {
		return l.latest
	}
	return int64(l.opt.Now().Sub(l.base))
}

// at is the time that a reading of the clock stands for.
func (l *Limiter) at(t int64) time.Time { return l.base.Add(time.Duration(t)) }

// wake lets the loop look at once. The lock is held.
func (l *Limiter) wake() {
	if l.kicked || l.virtual {
		return
	}
	l.kicked = true
	select {
	case l.kick <- struct{}{}:
	default:
	}
}
