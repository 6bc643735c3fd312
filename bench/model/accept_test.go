package model_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/bench/model"
)

// The model of an acceptance: two nodes of the API get the same request with the same idempotency key, because the client
// did not hear an answer and asked again. Each may die at every step. There is room for one message in the quota.

type acceptor struct {
	step   uint8 // how far the request has come; 0 = not begun
	looked bool  // of a planted bug: it has seen no row under the key
	quota  bool  // of a planted bug: it has seen room in the quota
}

type acceptance struct {
	messages uint8 // committed
	key      bool  // the key's row is committed
	used     uint8 // of the quota, committed
	told     bool  // the client has heard 202
	other    bool  // another request, without this key, has been accepted meanwhile
	crashes  uint8
	nodes    [2]acceptor
}

func acceptModel(bug string) model.Model[acceptance] {
	const room = 1
	next := func(s acceptance) (steps []model.Step[acceptance]) {
		do := func(name string, change func(a *acceptance)) {
			a := s
			change(&a)
			if a != s {
				steps = append(steps, model.Step[acceptance]{Name: name, To: a})
			}
		}
		for i := range s.nodes {
			n := s.nodes[i]
			as := func(name string, change func(a *acceptance, n *acceptor)) {
				do(fmt.Sprintf("%s by %d", name, i+1), func(a *acceptance) { change(a, &a.nodes[i]) })
			}
			if n.step > 0 && n.step < 9 && s.crashes < 2 {
				as("kill", func(a *acceptance, n *acceptor) { *n = acceptor{}; a.crashes++ })
			}
			// commit is the one transaction of an acceptance: key, messages and quota together, the key by its unique index.
			commit := func(a *acceptance, n *acceptor) {
				if !a.key && a.used < room {
					a.key, a.messages, a.used = true, a.messages+1, a.used+1
				}
				n.step = 5
			}
			switch {
			case n.step == 0 && !s.told:
				as("request", func(_ *acceptance, n *acceptor) { n.step = 1 })
			case n.step == 1 && bug == "answer before the commit":
				as("answer", func(a *acceptance, n *acceptor) { a.told, n.step = true, 4 })
			case n.step == 4:
				as("commit", commit)
			case n.step == 1 && bug == "look first, insert later":
				as("look", func(a *acceptance, n *acceptor) { n.looked, n.step = !a.key, 2 })
			case n.step == 2 && bug == "look first, insert later":
				as("insert", func(a *acceptance, n *acceptor) {
					if n.looked && a.used < room+1 {
						a.messages, a.key = a.messages+1, true
					}
					n.step = 5
				})
			case n.step == 1 && bug == "the key in a commit of its own":
				as("insert", func(a *acceptance, n *acceptor) {
					if !a.key {
						a.messages++
					}
					n.step = 2
				})
			case n.step == 2 && bug == "the key in a commit of its own":
				as("keep the key", func(a *acceptance, n *acceptor) { a.key, n.step = true, 5 })
			case n.step == 1 && bug == "the quota is read before":
				as("look at the quota", func(a *acceptance, n *acceptor) { n.quota, n.step = a.used < room, 2 })
			case n.step == 2 && bug == "the quota is read before":
				as("commit", func(a *acceptance, n *acceptor) {
					if !a.key && n.quota {
						a.key, a.messages, a.used = true, a.messages+1, a.used+1
					}
					n.step = 5
				})
			case n.step == 1:
				as("commit", commit)
			case n.step == 5:
				as("answer", func(a *acceptance, n *acceptor) { a.told, n.step = a.told || a.key, 9 })
			}
		}
		if !s.other && !s.key && s.used < room {
			do("another request takes the room", func(a *acceptance) { a.other, a.used = true, a.used+1 })
		}
		return steps
	}
	return model.Model[acceptance]{
		Start: []acceptance{{}},
		Next:  next,
		Broken: func(a acceptance) string {
			switch {
			case a.messages > 1:
				return "the same request was accepted twice"
			case a.used > room:
				return "the quota was exceeded"
			case a.told && a.messages == 0 && a.nodes[0].step == 0 && a.nodes[1].step == 0:
				return "202 was answered, and there is no message"
			}
			return ""
		},
		Done: func(a acceptance) bool { return a.told || a.other },
	}
}

func TestAccept(t *testing.T) {
	r := model.Check(acceptModel(""), maxStates)
	fmt.Printf("model: accept states=%d\n", r.States)
	require.Empty(t, r.Broken, r.String())
}

func TestAcceptBugsAreFound(t *testing.T) {
	for _, bug := range []string{
		"answer before the commit", "look first, insert later", "the key in a commit of its own", "the quota is read before",
	} {
		r := model.Check(acceptModel(bug), maxStates)
		t.Logf("%s: %s", bug, r)
		require.NotEmpty(t, r.Broken, bug)
	}
}
