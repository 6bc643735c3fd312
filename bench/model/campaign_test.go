package model_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/bench/model"
)

// The model of an expansion: two nodes turn the people of an audience into messages, a slice at a time, while somebody
// pauses and stops the campaign and either node may die at every step.

const crowd = 3

type expander struct {
	step uint8 // 0 = idle, 1 = has read the cursor and the people behind it, 2 = of a planted bug: halfway
	from uint8
	to   uint8
}

type expansion struct {
	state    uint8 // 0 = running, 1 = paused, 2 = stopped
	cursor   uint8
	messages [crowd]uint8 // per person
	after    bool         // a message was made of a campaign that was not running
	crashes  uint8
	moves    uint8 // pauses and resumes
	nodes    [2]expander
}

func campaignModel(bug string) model.Model[expansion] {
	insert := func(e *expansion, n *expander) {
		for p := n.from; p < n.to; p++ {
			e.messages[p] = min(e.messages[p]+1, 2)
		}
		e.after = e.after || e.state != 0
	}
	next := func(s expansion) (steps []model.Step[expansion]) {
		do := func(name string, change func(e *expansion)) {
			e := s
			change(&e)
			if e != s {
				steps = append(steps, model.Step[expansion]{Name: name, To: e})
			}
		}
		for i := range s.nodes {
			n := s.nodes[i]
			as := func(name string, change func(e *expansion, n *expander)) {
				do(fmt.Sprintf("%s by %d", name, i+1), func(e *expansion) { change(e, &e.nodes[i]) })
			}
			if n.step > 0 && s.crashes < 2 {
				as("kill", func(e *expansion, n *expander) { *n = expander{}; e.crashes++ })
			}
			idle := func(n *expander) { *n = expander{} }
			fits := func(e *expansion, n *expander) bool { return e.cursor == n.from && e.state == 0 }
			switch {
			case n.step == 0 && s.state == 0 && s.cursor < crowd:
				for size := uint8(1); size <= 2; size++ {
					as(fmt.Sprintf("read %d", size), func(e *expansion, n *expander) {
						n.step, n.from, n.to = 1, e.cursor, min(e.cursor+size, crowd)
					})
				}
			case n.step == 1 && bug == "the cursor moves first":
				as("move the cursor", func(e *expansion, n *expander) {
					if !fits(e, n) {
						idle(n)
						return
					}
					e.cursor, n.step = n.to, 2
				})
			case n.step == 2 && bug == "the cursor moves first":
				as("insert", func(e *expansion, n *expander) {
					if e.state == 0 {
						insert(e, n)
					}
					idle(n)
				})
			case n.step == 1 && bug == "the messages go first":
				as("insert", func(e *expansion, n *expander) {
					if !fits(e, n) {
						idle(n)
						return
					}
					insert(e, n)
					n.step = 2
				})
			case n.step == 2 && bug == "the messages go first":
				as("move the cursor", func(e *expansion, n *expander) { e.cursor = max(e.cursor, n.to); idle(n) })
			case n.step == 1:
				as("expand", func(e *expansion, n *expander) {
					ok := fits(e, n)
					if bug == "nobody compares the cursor" {
						ok = e.state == 0
					}
					if bug == "nobody looks at the state" {
						ok = e.cursor == n.from
					}
					if ok {
						insert(e, n)
						e.cursor = max(e.cursor, n.to)
					}
					idle(n)
				})
			}
		}
		if s.state == 0 && s.moves < 3 {
			do("pause", func(e *expansion) { e.state, e.moves = 1, e.moves+1 })
		}
		if s.state == 1 {
			do("resume", func(e *expansion) { e.state = 0 })
			do("stop", func(e *expansion) { e.state = 2 })
		}
		return steps
	}
	return model.Model[expansion]{
		Start: []expansion{{}},
		Next:  next,
		Broken: func(e expansion) string {
			if e.after {
				return "a message was made while the campaign was not running"
			}
			for p, n := range e.messages {
				if n > 1 {
					return "a person got two messages"
				}
				idle := e.nodes[0].step == 0 && e.nodes[1].step == 0
				if n == 0 && p < int(e.cursor) && idle {
					return "a person was left out"
				}
			}
			return ""
		},
		Done: func(e expansion) bool { return e.cursor == crowd || e.state == 2 },
	}
}

func TestCampaign(t *testing.T) {
	r := model.Check(campaignModel(""), maxStates)
	fmt.Printf("model: campaign states=%d\n", r.States)
	require.Empty(t, r.Broken, r.String())
}

func TestCampaignBugsAreFound(t *testing.T) {
	for _, bug := range []string{
		"the cursor moves first", "the messages go first", "nobody compares the cursor", "nobody looks at the state",
	} {
		r := model.Check(campaignModel(bug), maxStates)
		t.Logf("%s: %s", bug, r)
		require.NotEmpty(t, r.Broken, bug)
	}
}
