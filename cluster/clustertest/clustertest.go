// Package clustertest lets several engines of one process share a store, and takes the store away from some of them.
package clustertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Shared is a store with the role store.Nodes, kept in memory. What it promises is what store.Nodes says; that the two
// belong to one transaction is only true as long as nothing is killed.
type Shared struct {
	store store.Store
	now   func() time.Time // the store's own clock

	mu       sync.Mutex
	nodes    map[string]*node
	changes  []store.Change
	cut      int64 // changes up to here are gone
	sessions map[delivery.AccountID][]store.RunID
}

type node struct {
	store.Node
	former map[store.RunID]bool
}

// New shares a store. The caller closes it.
func New(s store.Store, now func() time.Time) *Shared {
	return &Shared{store: s, now: now, nodes: map[string]*node{}, sessions: map[delivery.AccountID][]store.RunID{}}
}

// View is one engine's connection to the store.
type View struct {
	store.Store
	s    *Shared
	gone atomic.Bool
	late atomic.Bool // it reads no changes
}

// View makes a connection.
func (s *Shared) View() *View { return &View{Store: s.store, s: s} }

// Cut takes the store away, or gives it back.
func (v *View) Cut(gone bool) { v.gone.Store(gone) }

// Late makes the view read no changes, or read them again.
func (v *View) Late(late bool) { v.late.Store(late) }

// Close leaves the store to the others.
func (v *View) Close() error { return nil }

func (v *View) there() error {
	if v.gone.Load() {
		return fmt.Errorf("%w: the connection is cut", store.ErrUnavailable)
	}
	return nil
}

// Forget drops all changes so far, as a store does that they are too old for.
func (s *Shared) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = int64(len(s.changes))
}

// Rewind takes back the newest changes, as a store does that is put back to an earlier state.
func (s *Shared) Rewind(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = s.changes[:len(s.changes)-n]
}

// Note adds a change, as if somebody had made it.
func (s *Shared) Note(kind store.ChangeKind, tenant delivery.TenantID, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, store.Change{Seq: int64(len(s.changes) + 1), Kind: kind, Tenant: tenant, ID: id})
}

// note notes a change that was made.
func (v *View) note(err error, kind store.ChangeKind, tenant delivery.TenantID, id string) error {
	if err == nil {
		v.s.Note(kind, tenant, id)
	}
	return err
}

// ---- store.Nodes

// Beat implements store.Nodes.
func (v *View) Beat(_ context.Context, _ store.System, b store.Beat) (store.Roster, error) {
	if err := v.there(); err != nil {
		return store.Roster{}, err
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	n := s.nodes[b.Name]
	switch {
	case n == nil:
		n = &node{former: map[store.RunID]bool{}}
		s.nodes[b.Name] = n
	case n.former[b.Run], n.Run != b.Run && n.Until.After(now):
		return store.Roster{}, store.ErrConflict
	case n.Run != b.Run:
		n.former[n.Run] = true
	}
	n.Node = store.Node{Beat: b, Seen: now, Until: now.Add(b.TTL)}
	return s.roster(now), nil
}

func (s *Shared) roster(now time.Time) store.Roster {
	r := store.Roster{Now: now, Changed: int64(len(s.changes))}
	for _, n := range s.nodes {
		shown := n.Node
		shown.Alive = n.Until.After(now)
		r.Nodes = append(r.Nodes, shown)
	}
	slices.SortFunc(r.Nodes, func(a, b store.Node) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return r
}

// Leave implements store.Nodes.
func (v *View) Leave(_ context.Context, _ store.System, name string, run store.RunID) error {
	if err := v.there(); err != nil {
		return err
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.nodes[name]; n != nil && n.Run == run {
		n.Until = s.now()
		n.former[run] = true
	}
	return nil
}

// Claims implements store.Nodes. Nothing is claimed here.
func (v *View) Claims(context.Context, store.System) (map[string]int, error) { return nil, v.there() }

// Roster implements store.Nodes.
func (v *View) Roster(context.Context, store.System) (store.Roster, error) {
	if err := v.there(); err != nil {
		return store.Roster{}, err
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return v.s.roster(v.s.now()), nil
}

// Changes implements store.Nodes.
func (v *View) Changes(_ context.Context, _ store.System, after int64, limit int) (store.Changes, error) {
	if err := v.there(); err != nil {
		return store.Changes{}, err
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.late.Load() {
		return store.Changes{Upto: after}, nil
	}
	newest := int64(len(s.changes))
	c := store.Changes{Gap: after < s.cut || after > newest}
	from := min(max(after, s.cut), newest)
	to := min(newest, from+int64(limit))
	c.List, c.Upto = slices.Clone(s.changes[from:to]), to
	return c, nil
}

// Session implements store.Nodes.
func (v *View) Session(
	_ context.Context, _ store.System, a delivery.AccountID, name string, run store.RunID, most int,
) (bool, error) {
	if err := v.there(); err != nil {
		return false, err
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	alive := map[store.RunID]bool{}
	for _, n := range s.nodes {
		alive[n.Run] = n.Until.After(now)
	}
	if !alive[run] {
		return false, store.ErrConflict
	}
	have := slices.DeleteFunc(s.sessions[a], func(r store.RunID) bool { return !alive[r] })
	s.sessions[a] = have
	if at := slices.Index(have, run); at >= 0 {
		return at < most, nil
	}
	if len(have) >= most {
		return false, nil
	}
	s.sessions[a] = append(have, run)
	return true, nil
}

// EndSession implements store.Nodes.
func (v *View) EndSession(
	_ context.Context, _ store.System, a delivery.AccountID, _ string, run store.RunID,
) error {
	if err := v.there(); err != nil {
		return err
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.sessions[a] = slices.DeleteFunc(v.s.sessions[a], func(r store.RunID) bool { return r == run })
	return nil
}
