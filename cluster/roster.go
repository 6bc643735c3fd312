package cluster

import (
	"context"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/store"
)

// Senders lists the nodes that share the work of sending, this one included if it does; none = that is not known now.
// agreed says that nobody goes by a list without this node any more.
func (m *Member) Senders() (names []string, agreed bool) {
	if m.Held() != "" {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range m.roster.Nodes {
		if node.Alive && slices.Contains(node.Roles, Deliver) {
			names = append(names, node.Name)
		}
	}
	return names, m.agreed
}

// isAgreed reports whether all lists that others may go by have this node: those from before others could see it hold no
// longer. That a node has looked since is not enough, for its answer may not have come. Callers hold mu.
func (m *Member) isAgreed(r store.Roster) bool {
	var oldest time.Duration
	for _, n := range r.Nodes {
		if n.Alive && n.Run != m.run {
			oldest = max(oldest, n.TTL)
		}
	}
	return !m.shown.IsZero() && r.Now.Sub(m.shown) >= oldest
}

// Lives reports whether the process that claims as name#run, with the run as RunText shows it, gives signs of life, as far
// as is known here. It takes no time to ask.
func (m *Member) Lives(claimant string) bool {
	name, run, _ := strings.Cut(claimant, "#")
	if m.Held() != "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.roster.Nodes, func(n store.Node) bool {
		return n.Alive && n.Name == name && runText(n.Run) == run
	})
}

// Live is how many senders there are; 0 = that is not known now.
func (m *Member) Live() int {
	names, _ := m.Senders()
	return len(names)
}

// Mine reports whether a piece of work that one node should do, such as the expansion of a campaign, falls to this one.
// All nodes that know of each other agree; when they do not, two may do the same, or for a moment nobody: whoever asks
// must be right in either case.
func (m *Member) Mine(role, work string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	best, weight := "", uint64(0)
	for _, node := range m.roster.Nodes {
		if !node.Alive || node.Draining || !slices.Contains(node.Roles, role) {
			continue
		}
		if w := rendezvous(node.Name, work); best == "" || w > weight || w == weight && node.Name < best {
			best, weight = node.Name, w
		}
	}
	if best == "" { // nobody is known, not even this node: it has been cut off
		return slices.Contains(m.opt.Roles, role) && !m.draining
	}
	return best == m.opt.Name
}

// rendezvous is the weight of a node for a piece of work (highest random weight, Thaler and Ravishankar 1996): when a
// node goes, only its own work moves.
func rendezvous(node, work string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(work))
	x := h.Sum64() // its high bits depend too little on the last bytes: mix them (the finalizer of SplitMix64)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Roster asks the store who there is.
func (m *Member) Roster(ctx context.Context) (store.Roster, error) { return m.shared.get(ctx) }

// Claims asks the store how many messages each node has under lease, by name.
func (m *Member) Claims(ctx context.Context) (map[string]int, error) {
	return m.opt.Nodes.Claims(ctx, system)
}

// shared lets many callers at once share one look at the roster. Each gets one that was begun after it asked.
type shared struct {
	fetch func(ctx context.Context) (store.Roster, error)

	mu      sync.Mutex
	running *look
	next    *look // waits for running to end
}

// look is one look at the roster.
type look struct {
	done   chan struct{}
	roster store.Roster
	err    error
}

func (s *shared) get(ctx context.Context) (store.Roster, error) {
	s.mu.Lock()
	var l *look
	lead := false
	before := s.running
	switch {
	case before == nil:
		l, lead = &look{done: make(chan struct{})}, true
		s.running = l
	case s.next == nil:
		l, lead = &look{done: make(chan struct{})}, true
		s.next = l
	default:
		l, before = s.next, nil
	}
	s.mu.Unlock()
	if lead {
		// The look is for all who wait for it: it must not end with the one who came first.
		go s.run(context.WithoutCancel(ctx), before, l)
	}
	select {
	case <-l.done:
		return l.roster, l.err
	case <-ctx.Done():
		return store.Roster{}, ctx.Err()
	}
}

// run makes one look, once the one before it has ended.
func (s *shared) run(ctx context.Context, before, l *look) {
	if before != nil {
		<-before.done
		s.mu.Lock()
		s.running, s.next = l, nil
		s.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	l.roster, l.err = s.fetch(ctx)
	s.mu.Lock()
	if s.running == l {
		s.running = nil
	}
	s.mu.Unlock()
	close(l.done)
}
