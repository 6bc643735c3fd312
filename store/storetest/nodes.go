package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// long is a TTL that no test outlives, short one that ends while a test waits for it. The times are of the store's own
// clock, which the kit cannot turn.
const (
	long    = time.Hour
	short   = 300 * time.Millisecond
	patient = 10 * time.Second
)

func isNodes(s store.Store) bool { _, ok := s.(store.Nodes); return ok }

func (k *kit) nodes() store.Nodes { return k.s.(store.Nodes) }

// runID makes the id of a run.
func runID(n byte) store.RunID { return store.RunID{15: n} }

// beat makes name's run live for ttl.
func (k *kit) beat(name string, n byte, ttl time.Duration) error {
	_, err := k.nodes().Beat(k.ctx, k.sys, store.Beat{Name: name, Run: runID(n), TTL: ttl, Started: k.now})
	return err
}

func (k *kit) roster() store.Roster {
	k.Helper()
	r, err := k.nodes().Roster(k.ctx, k.sys)
	k.ok(err)
	return r
}

// alive lists the names that live.
func (k *kit) alive() (names []string) {
	k.Helper()
	for _, n := range k.roster().Nodes {
		if n.Alive {
			names = append(names, n.Name)
		}
	}
	return names
}

// until waits for something that only the store's own clock brings about.
func (k *kit) until(what string, f func() bool) {
	k.Helper()
	end := time.NewTimer(patient)
	defer end.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !f() {
		select {
		case <-end.C:
			k.Fatalf("%s: it did not happen in %s", what, patient)
		case <-again.C:
		}
	}
}

func (k *kit) session(account delivery.AccountID, name string, n byte, max int) bool {
	k.Helper()
	got, err := k.nodes().Session(k.ctx, k.sys, account, name, runID(n), max)
	k.ok(err)
	return got
}

var nodeTests = []sentence{
	{"the first beat joins, and the roster says what the last one said", func(k *kit) {
		b := store.Beat{Name: "a", Run: runID(1), TTL: long, Roles: []string{"api", "deliver"}, Version: "v1.2.3",
			Address: "127.0.0.1:8080", Started: k.now.Add(-time.Hour)}
		first, err := k.nodes().Beat(k.ctx, k.sys, b)
		k.ok(err)
		k.is(len(first.Nodes), 1, "a beat returns the roster with its own node")
		k.ok(k.beat("b", 2, long))
		b.Applied, b.Draining, b.Roles = 7, true, []string{"webhook"}
		got, err := k.nodes().Beat(k.ctx, k.sys, b)
		k.ok(err)
		k.is(len(got.Nodes), 2, "all nodes")
		a := got.Nodes[0]
		k.is(a.Beat, b, "what was said last")
		k.is([]any{a.Alive, a.Until, got.Nodes[1].Name}, []any{true, a.Seen.Add(long), "b"}, "it lives until TTL from now")
		k.is(!a.Seen.After(got.Now) && got.Now.Sub(a.Seen) < time.Minute, true, "seen now: %s, %s", a.Seen, got.Now)
		k.is(got.Now.After(first.Now), true, "the store's clock goes on")
		again := k.roster()
		k.is(again.Nodes, got.Nodes, "somebody who is no node sees the same")
		k.reopen()
		k.is(k.roster().Nodes, got.Nodes, "another process too")
	}},
	{"a name is of one run at a time", func(k *kit) {
		k.ok(k.beat("a", 1, long))
		k.fails(k.beat("a", 2, long), store.ErrConflict, "another run while it lives")
		k.ok(k.beat("a", 1, short))
		k.until("the other run takes over when the first is dead", func() bool { return k.beat("a", 2, long) == nil })
		k.fails(k.beat("a", 1, long), store.ErrConflict, "the first has been taken over")
		k.ok(k.beat("a", 2, short))
		k.until("the second dies", func() bool { return len(k.alive()) == 0 })
		k.fails(k.beat("a", 1, long), store.ErrConflict, "the first stays taken over when the second is dead too")
		k.ok(k.beat("a", 2, long))
		k.is(k.alive(), []string{"a"}, "a run that nobody has taken over comes back")
	}},
	{"of many runs that want one name at once, one gets it", func(k *kit) {
		errs := make([]error, 12)
		together(len(errs), func(i int) { errs[i] = k.beat("a", byte(i+1), long) })
		won := -1
		for i, err := range errs {
			if err == nil {
				k.is(won, -1, "how many have it")
				won = i
				continue
			}
			k.fails(err, store.ErrConflict, "the others")
		}
		k.is(k.roster().Nodes[0].Run, runID(byte(won+1)), "the one that has it")
	}},
	{"a run that leaves is gone at once and its name is free", func(k *kit) {
		k.ok(k.beat("a", 1, long))
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(2)))
		k.is(k.alive(), []string{"a"}, "after another run has left")
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(1)))
		k.is(len(k.alive()), 0, "who lives")
		k.is([]string{k.roster().Nodes[0].Name}, []string{"a"}, "that it was there is still known")
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(1)))
		k.ok(k.nodes().Leave(k.ctx, k.sys, "nobody", runID(1)))
		k.fails(k.beat("a", 1, long), store.ErrConflict, "a beat that was under way while its run left")
		k.ok(k.beat("a", 2, long))
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(1)))
		k.is(k.alive(), []string{"a"}, "the next run")
	}},
	{"claims are counted for each node", func(k *kit) {
		claims := func() map[string]int {
			n, err := k.nodes().Claims(k.ctx, k.sys)
			k.ok(err)
			return n
		}
		k.is(len(claims()), 0, "before anything is claimed")
		ids := k.several(5)
		k.claim(ids[:3]...)
		k.is(claims(), map[string]int{node: 3}, "after a claim of three")
		k.settle(store.Outcome{ID: ids[0], Epoch: 1, Status: delivery.StatusFailed, Reason: "r"})
		k.settle(store.Outcome{ID: ids[1], Epoch: 1, Status: delivery.StatusAmbiguous, Reason: "r",
			Until: k.now.Add(time.Minute)})
		k.is(claims(), map[string]int{node: 1}, "one has ended, and one has no lease any more")
		for _, run := range []string{node + "#1", node + "#2", "idle#1", node + "x#1"} {
			_, err := k.s.Claim(k.ctx, k.sys, store.Claim{
				IDs: []delivery.MessageID{k.accept()}, Node: run, Now: k.now, Until: k.now.Add(time.Minute)})
			k.ok(err)
		}
		k.is(claims(), map[string]int{node: 3, "idle": 1, node + "x": 1}, "what a node's runs have claimed is the node's")
	}},
	{"a beat without a name, a run or a time is refused", func(k *kit) {
		for _, b := range []store.Beat{{Run: runID(1), TTL: long}, {Name: "a", TTL: long}, {Name: "a", Run: runID(1)},
			{Name: "a", Run: runID(1), TTL: -time.Second}} {
			_, err := k.nodes().Beat(k.ctx, k.sys, b)
			k.is(err != nil, true, "%+v", b)
		}
		k.is(len(k.roster().Nodes), 0, "nodes")
	}},
	{"an account has no more sessions than it allows, over all nodes", func(k *kit) {
		names := make([]string, 8)
		for i := range names {
			names[i] = fmt.Sprint("n", i)
			k.ok(k.beat(names[i], byte(i+1), long))
		}
		got := make([]bool, len(names))
		errs := make([]error, len(names))
		together(len(names), func(i int) {
			got[i], errs[i] = k.nodes().Session(k.ctx, k.sys, account, names[i], runID(byte(i+1)), 3)
		})
		has := 0
		for i := range got {
			k.ok(errs[i])
			if got[i] {
				has++
			}
		}
		k.is(has, 3, "how many have one")
		for i := range got {
			k.is(k.session(account, names[i], byte(i+1), 3), got[i], "who has one keeps it, who has none gets none")
			k.is(k.session(delivery.AccountID{9}, names[i], byte(i+1), len(names)), true, "another account")
		}
		first := slices.Index(got, true)
		k.ok(k.nodes().EndSession(k.ctx, k.sys, account, names[first], runID(byte(first+1))))
		k.ok(k.nodes().EndSession(k.ctx, k.sys, account, names[first], runID(byte(first+1))))
		next := slices.Index(got, false)
		k.is(k.session(account, names[next], byte(next+1), 3), true, "in place of the one that was given back")
		k.is(k.session(account, names[first], byte(first+1), 3), false, "the one that gave it back")
	}},
	{"a session ends with the life of its run", func(k *kit) {
		for i, name := range []string{"a", "b", "c"} {
			k.ok(k.beat(name, byte(i+1), long))
		}
		k.is(k.session(account, "a", 1, 1), true, "the first")
		k.is(k.session(account, "b", 2, 1), false, "the second")
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(1)))
		k.is(k.session(account, "b", 2, 1), true, "after the first has left")
		k.ok(k.beat("b", 2, short))
		k.until("the second dies", func() bool { return k.session(account, "c", 3, 1) })
		k.ok(k.beat("b", 2, long))
		k.is(k.session(account, "b", 2, 1), false, "it comes back too late")
		k.ok(k.nodes().Leave(k.ctx, k.sys, "c", runID(3)))
		k.ok(k.beat("c", 4, long))
		k.is(k.session(account, "b", 2, 1), true, "the next run of a name has nothing of the one before it")
	}},
	{"a session is for a run that lives", func(k *kit) {
		_, err := k.nodes().Session(k.ctx, k.sys, account, "nobody", runID(1), 1)
		k.fails(err, store.ErrConflict, "of nobody")
		k.ok(k.beat("a", 1, long))
		_, err = k.nodes().Session(k.ctx, k.sys, account, "a", runID(2), 1)
		k.fails(err, store.ErrConflict, "of another run")
		k.ok(k.nodes().Leave(k.ctx, k.sys, "a", runID(1)))
		_, err = k.nodes().Session(k.ctx, k.sys, account, "a", runID(1), 1)
		k.fails(err, store.ErrConflict, "of one that has left")
	}},
	{"when an account allows fewer sessions than there are, the newest end", func(k *kit) {
		for i, name := range []string{"a", "b", "c"} {
			k.ok(k.beat(name, byte(i+1), long))
			k.is(k.session(account, name, byte(i+1), 3), true, "%s", name)
		}
		k.is(k.session(account, "c", 3, 2), false, "the newest of three")
		k.is([]bool{k.session(account, "a", 1, 2), k.session(account, "b", 2, 2)}, []bool{true, true}, "the others")
		k.ok(k.nodes().EndSession(k.ctx, k.sys, account, "a", runID(1)))
		k.ok(k.beat("d", 4, long))
		k.is(k.session(account, "d", 4, 2), true, "the one that ended takes no place")
		k.is(k.session(account, "b", 2, 0), false, "none is allowed")
	}},
	{"the zero System is refused", func(k *kit) {
		var sys store.System
		calls := map[string]error{}
		_, calls["Beat"] = k.nodes().Beat(k.ctx, sys, store.Beat{Name: "a", Run: runID(1), TTL: long})
		calls["Leave"] = k.nodes().Leave(k.ctx, sys, "a", runID(1))
		_, calls["Roster"] = k.nodes().Roster(k.ctx, sys)
		_, calls["Claims"] = k.nodes().Claims(k.ctx, sys)
		_, calls["Changes"] = k.nodes().Changes(k.ctx, sys, 0, 1)
		_, calls["Session"] = k.nodes().Session(k.ctx, sys, account, "a", runID(1), 1)
		calls["EndSession"] = k.nodes().EndSession(k.ctx, sys, account, "a", runID(1))
		for name, err := range calls {
			k.is(err != nil, true, "%s", name)
		}
	}},
}
