package model_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/bench/model"
)

// Two lamps that may be switched; the checker must find what there is to find, by the shortest way.
func TestCheck(t *testing.T) {
	lamps := func(broken, done func([2]bool) bool) model.Model[[2]bool] {
		return model.Model[[2]bool]{
			Start: []([2]bool){{}},
			Next: func(s [2]bool) []model.Step[[2]bool] {
				return []model.Step[[2]bool]{{Name: "left", To: [2]bool{true, s[1]}}, {Name: "right", To: [2]bool{s[0], true}}}
			},
			Broken: func(s [2]bool) string {
				if broken(s) {
					return "dark no more"
				}
				return ""
			},
			Done: done,
		}
	}
	never := func([2]bool) bool { return false }
	both := func(s [2]bool) bool { return s[0] && s[1] }

	r := model.Check(lamps(never, both), 100)
	require.Equal(t, model.Result{States: 4, Steps: 8, Depth: 2}, r)
	r = model.Check(lamps(both, both), 100)
	require.Equal(t, []string{"left", "right"}, r.Trace)
	require.Equal(t, "dark no more", r.Broken)
	r = model.Check(lamps(never, never), 100)
	require.Equal(t, "it never comes to an end", r.Broken)
	require.Contains(t, model.Check(lamps(never, both), 2).Broken, "more than 2 states")
}
