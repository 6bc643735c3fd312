package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sdk"
)

func typeOf(v any) reflect.Type { return reflect.TypeOf(v) }

func TestNeutral(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "abc": "abc", "+12025550100": "+12025550100", "-12.5": "-12.5", "42": "42",
		"=1+1": "'=1+1", "+1+1": "'+1+1", "-": "'-", "+": "'+", "@SUM(A1)": "'@SUM(A1)", "\tx": "'\tx", "\rx": "'\rx",
		"＝1": "'＝1", "＋x": "'＋x", "－x": "'－x", "＠x": "'＠x", "-2+cmd|' /C calc'!A0": "'-2+cmd|' /C calc'!A0",
	} {
		require.Equal(t, want, neutral(in), "%q", in)
	}
}

func FuzzNeutral(f *testing.F) {
	for _, s := range []string{"=1", "+1", "-", "＝", "a=b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := neutral(s)
		if out == "" || !strings.ContainsAny(out[:1], "=+-@\t\r") {
			return
		}
		if strings.Trim(out[1:], "0123456789.") != "" || len(out) == 1 {
			t.Fatalf("neutral(%q) = %q", s, out)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\u009b")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if unicode.IsControl(r) || r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("clean(%q) keeps %U", s, r)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	known := []string{"send", "segments", "message", "campaign", "connector"}
	for in, want := range map[string]string{
		"sned": "send", "mesage": "message", "campain": "campaign", "seg": "segments", "xyz": "", "conector": "connector", "": "", "s": "",
	} {
		require.Equal(t, want, nearest(in, known), in)
	}
}

func TestPerSecond(t *testing.T) {
	for in, want := range map[string]float64{"": 0, "200/s": 200, "30/m": 0.5, "5": 5, "7200/h": 2, "0.5/s": 0.5} {
		got, err := perSecond(in)
		require.NoError(t, err, in)
		require.InDelta(t, want, got, 1e-9, in)
	}
	for _, in := range []string{"0", "-1/s", "x", "1/y", "NaN", "Inf", "1e9/s", "/s"} {
		_, err := perSecond(in)
		require.Error(t, err, in)
	}
}

func TestTexts(t *testing.T) {
	for in, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 9641: "9,641", 1234567: "1,234,567", -1234: "-1,234"} {
		require.Equal(t, want, thousands(in))
	}
	for in, want := range map[float64]string{0: "0 s", 0.2: "1 s", 51: "51 s", 200: "3 min 20 s", 7500: "2 h 5 min"} {
		require.Equal(t, want, span(in))
	}
	require.Equal(t, "customers-1", audienceName("/x/Customers (1).csv"))
	require.Equal(t, "a_b", audienceName("_a_b-.csv"))
	require.Equal(t, `'it'\''s'`, quoted("it's"))
	d, err := duration("2d")
	require.NoError(t, err)
	require.Equal(t, 48*time.Hour, d)
	for _, bad := range []string{"d", "x", "99999999d", "1.5d"} {
		_, err := duration(bad)
		require.Error(t, err, bad)
	}
}

func TestExitOf(t *testing.T) {
	for _, tc := range []struct {
		e    sdk.Error
		want int
	}{
		{sdk.Error{Status: 400}, 2}, {sdk.Error{Status: 413}, 2}, {sdk.Error{Status: 422}, 2}, {sdk.Error{Status: 401}, 4},
		{sdk.Error{Status: 403}, 4}, {sdk.Error{Status: 404}, 3}, {sdk.Error{Status: 409}, 5}, {sdk.Error{Status: 429}, 6},
		{sdk.Error{Status: 429, Code: "quota_exceeded"}, 6}, {sdk.Error{Status: 500}, 1}, {sdk.Error{Status: 503}, 7}, {sdk.Error{Status: 408}, 7},
	} {
		require.Equal(t, tc.want, exitOf(&tc.e), fmt.Sprint(tc.e.Status))
	}
}

// What is printed as accounted for adds up to what was accepted, whatever the statuses; else it is an error.
func TestAccountedFor(t *testing.T) {
	r := &sdk.CampaignReport{Accepted: 15, People: 18, ToExpand: 1, Skipped: map[string]int{"x": 2}, ByStatus: map[sdk.Status]int{}}
	for _, s := range statuses() {
		r.ByStatus[sdk.Status(s)] = 1
	}
	line, err := accountedFor(r)
	require.NoError(t, err)
	require.Equal(t, "accounted for: accepted=15 delivered=3 failed=3 suppressed=1 expired=1 canceled=1 waiting=6", line)
	r.AwaitingReceipt = 1
	line, err = accountedFor(r)
	require.NoError(t, err)
	require.Equal(t, "accounted for: accepted=15 delivered=2 failed=3 suppressed=1 expired=1 canceled=1 waiting=7", line)
	r.ByStatus["new_status"] = 1
	_, err = accountedFor(r)
	var o *outcomeError
	require.ErrorAs(t, err, &o)
	require.Equal(t, exitUnmet, o.code)
	delete(r.ByStatus, "new_status")
	r.People++
	_, err = accountedFor(r)
	require.ErrorAs(t, err, &o)
}

func FuzzRows(f *testing.F) {
	for _, s := range []string{"to,text\n+1,hi\n", "\xef\xbb\xbfto\n\"", `{"to":"+1"}`, "{\"a\":1}\n{", "to\n\x00", "to,to\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rows, err := readRows(strings.NewReader(s), "x", sdk.MessageRequest{Channel: "sms"})
		if err != nil {
			var u *usageError
			if !errors.As(err, &u) {
				t.Fatal(err)
			}
			return
		}
		n := 0
		for range rows {
			if n++; n > len(s)+1 {
				t.Fatal("more rows than bytes")
			}
		}
	})
}

func FuzzSuppressions(f *testing.F) {
	for _, s := range []string{"+1\n+2", "to,channel\n+1,sms", "\ufeffto\n", "\"", "a,b,c\n"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		_ = readSuppressions(strings.NewReader(s), "x", sdk.Suppression{}, func(rows []sdk.Suppression) error {
			for _, r := range rows {
				if r.To == "" {
					panic("an empty address")
				}
			}
			return nil
		})
	})
}

// A source that never ends its line does not keep a run from ending.
func TestPumpedEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	blocked := make(chan struct{})
	source := func(yield func(sdk.Sendable) bool) {
		if yield(sdk.SMS{To: "1"}) {
			<-blocked
		}
	}
	n := 0
	for range pumped(ctx, source) {
		n++
		cancel()
	}
	require.Equal(t, 1, n)
	close(blocked)
}

// A row never changes what the next one starts from.
func TestRowsShareNothing(t *testing.T) {
	base := sdk.MessageRequest{
		Channel: "whatsapp", Vars: sdk.Vars{"a": "1"}, Template: "t", Approved: &sdk.Approved{Name: "n", Params: []string{"x"}},
	}
	in := `{"to":"+1","vars":{"b":"2"},"approved":{"name":"m","params":["y"]}}` + "\n" + `{"to":"+2"}`
	var got []sdk.MessageRequest
	for m := range jsonRows(bufio.NewReader(strings.NewReader(in)), "x", base) {
		r, ok := m.(sdk.MessageRequest)
		require.True(t, ok)
		got = append(got, r)
	}
	require.Equal(t, sdk.Vars{"a": "1"}, got[1].Vars)
	require.Equal(t, "n", got[1].Approved.Name)
	require.Equal(t, []string{"x"}, got[1].Approved.Params)
}
