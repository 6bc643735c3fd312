package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/sdk"
)

func rulesFrom[T any](text string) (*rulesFile, []T, error) {
	return readRules[T](testApp(strings.NewReader(text), io.Discard, io.Discard, noEnv), "route", "-")
}

// Rules that ls writes are those that set reads, whatever stands in them.
func TestRulesComeBack(t *testing.T) {
	word := rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "+91", "007", "true", "null", "~", "1.50", "0x10", "1e3", "2026-11-20", "- a", "a: b", "#x", "<<", ".inf",
		}),
		rapid.StringMatching(`[ ->@-~]{0,12}`), // the YAML writer does not quote "? x", which then is refused
	)
	rapid.Check(t, func(rt *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) sdk.Route {
			return sdk.Route{
				Channel: sdk.Channel(word.Draw(rt, "channel")), Prefix: word.Draw(rt, "prefix"), Category: word.Draw(rt, "category"),
				Tag: word.Draw(rt, "tag"),
				Targets: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) sdk.RouteTarget {
					return sdk.RouteTarget{Connector: word.Draw(rt, "connector"), Weight: rapid.IntRange(0, 1000).Draw(rt, "weight")}
				}), 1, 3).Draw(rt, "targets"),
			}
		}), 1, 4).Draw(rt, "rules")
		doc, err := marshal(rules)
		require.NoError(rt, err)
		_, back, err := rulesFrom[sdk.Route](string(doc))
		require.NoError(rt, err, string(doc))
		require.Equal(rt, rules, back)
		y, err := yaml.JSONToYAML(doc)
		require.NoError(rt, err)
		_, back, err = rulesFrom[sdk.Route](string(y))
		require.NoError(rt, err, string(y))
		require.Equal(rt, rules, back)
	})
}

// Every file is read or refused with a reason; none ends the program.
func FuzzRules(f *testing.F) {
	for _, s := range []string{
		"", "[]", "{}", "- channel: sms\n  prefix: +91\n  targets: [{connector: a, weight: 1}]\n", "- &a [*a]", "a: &x {b: *x}",
		"rules:\n- delays: [5s, 5]\n", "- targets: [{weight: 1.5}]", "- <<: {channel: sms}\n", "---\n---\n", "? a\n: b\n",
		"- channel: !!int x", "- |\n  x\n", "\xff", "- weight: ~\n", `{"rules":[{"prefix":"+1","weight":}]}`, "!!x", "- ? \n",
		"- {channel: sms,, }", "- tag: .nan\n", "rules: [\n", "-\n", "\t", "- channel: 'x\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, rules, err := rulesFrom[sdk.Route](text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		for i := range rules {
			refusal := &sdk.Error{Status: 422, Code: "x", Fields: []sdk.FieldError{{
				Pointer: fmt.Sprintf("/rules/%d/targets/0/weight", i), Detail: "is too large",
			}}}
			require.ErrorIs(t, file.refused(refusal), sdk.ErrInvalid)
		}
		_, _, _ = rulesFrom[sdk.RetryRule](text)
	})
}

func TestPlace(t *testing.T) {
	for at, want := range map[int][]int{0: {1, 2, 9}, 1: {9, 1, 2}, 2: {1, 9, 2}, 3: {1, 2, 9}} {
		got, err := place([]int{1, 2}, 9, at)
		require.NoError(t, err)
		require.Equal(t, want, got, at)
	}
	for _, at := range []int{-1, 4} {
		_, err := place([]int{1, 2}, 9, at)
		require.ErrorContains(t, err, "there is no such place")
	}
}

func TestRulesWithout(t *testing.T) {
	stay, gone, err := rulesWithout("route", []string{"a", "b", "c"}, []string{"3", "1", "3"})
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, stay)
	require.Equal(t, []string{"a", "c"}, gone)
	for _, n := range []string{"0", "-1", "4", "x", "1.0"} {
		_, _, err := rulesWithout("route", []string{"a", "b", "c"}, []string{"1", n})
		require.Error(t, err, n)
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Minute: "5m", 90 * time.Minute: "1h30m", 6 * time.Hour: "6h", 48 * time.Hour: "48h", 30 * time.Second: "30s",
		500 * time.Millisecond: "500ms", time.Hour + 10*time.Second: "1h0m10s", 20 * time.Second: "20s", 10 * time.Hour: "10h",
	} {
		require.Equal(t, want, durationText(d))
		back, err := time.ParseDuration(durationText(d))
		require.NoError(t, err)
		require.Equal(t, d, back)
	}
}
