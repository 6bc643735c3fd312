// Package model is an explicit-state model checker, with models of the engine's protocols as its tests.
//
// A model is a start state and a function that lists every step that could happen next: of each worker, of the
// provider, of the clock, of a crash. Check visits every state that can be reached, breadth first, so that the trace to
// a broken promise is a shortest one.
package model

import (
	"fmt"
	"strings"
)

// Model describes a protocol over states of type S.
type Model[S comparable] struct {
	Start []S
	// Next lists every step from s.
	Next func(s S) []Step[S]
	// Broken says which promise s breaks; "" = none.
	Broken func(s S) string
	// Done reports whether s may stay as it is for ever. From every state such a state must be reachable.
	Done func(s S) bool
}

// Step is something that may happen.
type Step[S comparable] struct {
	Name string
	To   S
}

// Result is what Check found.
type Result struct {
	States, Steps, Depth int
	// Broken is the promise that does not hold, "" = all do; Trace are the steps that lead there.
	Broken string
	Trace  []string
}

func (r Result) String() string {
	s := fmt.Sprintf("%d states, %d steps, depth %d", r.States, r.Steps, r.Depth)
	if r.Broken != "" {
		s += ": " + r.Broken + " after " + strings.Join(r.Trace, " · ")
	}
	return s
}

// Check visits every reachable state of m, at most max of them, and stops at the first broken promise. A state from
// which no Done state can be reached breaks the promise "it comes to an end".
func Check[S comparable](m Model[S], max int) Result {
	var r Result
	number := map[S]int32{}
	var states []S
	var parent []int32
	var by []string
	var back [][]int32 // for each state, the states that lead to it
	add := func(s S, from int32, name string) {
		n, known := number[s]
		if !known {
			n = int32(len(states))
			number[s] = n
			states, parent, by, back = append(states, s), append(parent, from), append(by, name), append(back, nil)
		}
		if from >= 0 && from != n {
			back[n] = append(back[n], from)
		}
	}
	trace := func(n int32) (names []string) {
		for ; parent[n] >= 0; n = parent[n] {
			names = append([]string{by[n]}, names...)
		}
		return names
	}
	for _, s := range m.Start {
		add(s, -1, "")
	}
	for level := len(states); r.States < len(states); r.States++ {
		if r.States == level { // breadth first: the states of one depth stand together
			r.Depth++
			level = len(states)
		}
		s := states[r.States]
		if what := m.Broken(s); what != "" {
			r.Broken, r.Trace = what, trace(int32(r.States))
			return r
		}
		for _, step := range m.Next(s) {
			r.Steps++
			add(step.To, int32(r.States), step.Name)
		}
		if len(states) > max {
			r.Broken = fmt.Sprintf("more than %d states", max)
			return r
		}
	}
	ends := make([]bool, len(states))
	var todo []int32
	for n, s := range states {
		if m.Done(s) {
			ends[n] = true
			todo = append(todo, int32(n))
		}
	}
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, from := range back[n] {
			if !ends[from] {
				ends[from] = true
				todo = append(todo, from)
			}
		}
	}
	for n := range states {
		if !ends[n] {
			r.Broken, r.Trace = "it never comes to an end", trace(int32(n))
			return r
		}
	}
	return r
}
