package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/sdk"
)

// deadEngine plays an engine with dead letters, newest first.
type deadEngine struct {
	mu      sync.Mutex
	ids     []string
	gone    map[string]bool // done with: in the list no more
	fails   map[string]bool // comes back to the list at once: it fails again
	busy    map[string]bool // not dead any more when it is decided on
	asked   map[string]int  // how often each was decided on
	largest int             // most ids of one call
	page    int             // most rows of a page; 0 = as many as are asked for
	calls   int
	on      func(call int) // before the answer to a decision
}

func newDeadEngine(n int) *deadEngine {
	e := &deadEngine{gone: map[string]bool{}, fails: map[string]bool{}, busy: map[string]bool{}, asked: map[string]int{}}
	for i := range n {
		e.ids = append(e.ids, fmt.Sprintf("msg_%07d", n-i))
	}
	return e
}

func (e *deadEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Method == http.MethodGet {
		answerJSON(w, e.list(r.URL.Query()))
		return
	}
	var in sdk.DeadLetterRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Filter != nil {
		refuse(w, 422, "invalid_value", "only ids are expected")
		return
	}
	e.calls++
	if e.on != nil {
		e.on(e.calls)
	}
	if r.Context().Err() != nil {
		return
	}
	e.largest = max(e.largest, len(in.IDs))
	var out sdk.DeadLetterResult
	for _, id := range in.IDs {
		e.asked[id]++
		if e.busy[id] {
			out.Skipped = append(out.Skipped, sdk.DeadLetterNoMove{ID: id, Status: sdk.Sent})
			continue
		}
		out.Done++
		e.gone[id] = !e.fails[id]
	}
	answerJSON(w, out)
}

func (e *deadEngine) list(q url.Values) sdk.Page[sdk.Message] {
	limit, _ := strconv.Atoi(q.Get("limit"))
	if e.page > 0 {
		limit = min(limit, e.page)
	}
	p := sdk.Page[sdk.Message]{Data: []sdk.Message{}}
	for _, id := range e.ids {
		if c := q.Get("cursor"); c != "" && id >= c || e.gone[id] {
			continue
		}
		if len(p.Data) == limit {
			p.HasMore, p.NextCursor = true, p.Data[limit-1].ID
			break
		}
		p.Data = append(p.Data, sdk.Message{ID: id, Status: sdk.Failed})
	}
	return p
}

func (e *deadEngine) run(t *testing.T, ctx context.Context, args ...string) (int, string, string) {
	t.Helper()
	var out, errw bytes.Buffer
	code := testApp(nil, &out, &errw, engineEnv(t, e.ServeHTTP)).run(ctx, append([]string{"dlq"}, args...))
	return code, out.String(), errw.String()
}

// Whatever becomes of dead letters meanwhile, each that matched is decided on once, and the counts add up. One that
// fails again at once is not sent for ever.
func TestEachDeadLetterOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, 1700).Draw(rt, "n")
		limit := rapid.IntRange(0, n+2).Draw(rt, "limit")
		e := newDeadEngine(n)
		e.page = rapid.SampledFrom([]int{0, 100, 499}).Draw(rt, "page")
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, max(n-1, 0)), 0, 20).Draw(rt, "busy") {
			if n > 0 {
				e.busy[e.ids[i]] = true
			}
		}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, max(n-1, 0)), 0, 20).Draw(rt, "fails") {
			if n > 0 {
				e.fails[e.ids[i]] = true
			}
		}
		args := []string{"retry", "--all", "--yes", "-o", "json"}
		want := n
		if limit > 0 {
			args, want = append(args, "--limit", strconv.Itoa(limit)), min(n, limit)
		}
		code, out, _ := e.run(t, t.Context(), args...)
		var got deadResult
		require.NoError(rt, json.Unmarshal([]byte(out), &got))
		skipped := 0
		for _, id := range e.ids[:want] {
			require.Equal(rt, 1, e.asked[id], id)
			if e.busy[id] {
				skipped++
			}
		}
		require.Len(rt, e.asked, want)
		require.Equal(rt, want-skipped, got.Done)
		require.Equal(rt, skipped, got.SkippedCount)
		require.Len(rt, got.Skipped, skipped)
		require.LessOrEqual(rt, e.largest, batchOfDead)
		require.Equal(rt, skipped > 0, code == exitPartly)
	})
}

// More than are counted are decided on nevertheless, in one walk, with progress on stderr.
func TestManyDeadLetters(t *testing.T) {
	e := newDeadEngine(knownDead + 700)
	code, out, errs := e.run(t, t.Context(), "drop", "--all", "--yes")
	require.Equal(t, exitOK, code)
	require.Equal(t, "10,700 dead letters put away\n", out)
	require.Equal(t, "dlq drop: 10,000 so far\n", errs)
	require.Len(t, e.asked, knownDead+700)

	e = newDeadEngine(knownDead + 700)
	code, _, errs = e.run(t, t.Context(), "drop", "--all")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "more than 10,000 dead letters would be put away")
	require.Empty(t, e.asked)

	e = newDeadEngine(7000)
	_, _, errs = e.run(t, t.Context(), "retry", "--status", "failed", "--yes")
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	require.Len(t, lines, 10, errs)
	require.Equal(t, "dlq retry: 35%  2,500/7,000", lines[2])
	_, _, errs = newDeadEngine(5000).run(t, t.Context(), "retry", "--status", "failed", "--yes", "-q")
	require.Empty(t, errs)
	_, _, errs = newDeadEngine(batchOfDead).run(t, t.Context(), "retry", "--status", "failed", "--yes")
	require.Empty(t, errs, "what one call does needs no progress")
}

// Ctrl-C says how far it came, what is not known, and how to go on.
func TestInterruptedRetry(t *testing.T) {
	for name, tty := range map[string]bool{"pipe": false, "terminal": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			e := newDeadEngine(2000)
			e.on = func(call int) {
				if call == 3 {
					cancel()
				}
			}
			srv := engineEnv(t, func(w http.ResponseWriter, r *http.Request) {
				e.ServeHTTP(w, r)
				if ctx.Err() != nil { // the answer is lost
					<-r.Context().Done()
				}
			})
			var out, errw bytes.Buffer
			a := testApp(nil, &out, &errw, srv)
			a.errTTY = tty
			code := a.run(ctx, []string{"dlq", "retry", "--reason", "it's off", "--channel", "sms", "--ttl", "6h", "--yes"})
			require.Equal(t, exitInterrupted, code)
			require.Empty(t, out.String())
			require.Contains(t, errw.String(),
				"dlq retry: interrupted: 1,000 of 2,000 sent again; whether the next 500 are too is not known  "+
					`fix: go on: msgctl dlq retry --reason 'it'\''s off' --channel sms --ttl 6h`)
			e.mu.Lock() // the last call may still be under way
			defer e.mu.Unlock()
			require.LessOrEqual(t, len(e.asked), 1500)
		})
	}
	t.Run("by id, between two calls", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := newDeadEngine(700)
		a := testApp(nil, io.Discard, nil, engineEnv(t, e.ServeHTTP))
		errw := writerFunc(func(b []byte) (int, error) {
			if bytes.Contains(b, []byte("71%")) {
				cancel()
			}
			return len(b), nil
		})
		var said bytes.Buffer
		a.err = io.MultiWriter(errw, &said)
		require.Equal(t, exitInterrupted, a.run(ctx, append([]string{"dlq", "drop"}, e.ids...)))
		require.Contains(t, said.String(), "interrupted: 500 of 700 put away  fix: see what is left: msgctl dlq ls")
		require.Len(t, e.asked, 500)
	})
}

// What was done before a failure is said.
func TestRetryThatFails(t *testing.T) {
	e := newDeadEngine(1200)
	calls := 0
	var out, errw bytes.Buffer
	a := testApp(nil, &out, &errw, engineEnv(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if calls++; calls == 2 {
				refuse(w, 503, "storage_unavailable", "the disk is full")
				return
			}
		}
		e.ServeHTTP(w, r)
	}))
	require.Equal(t, exitUnreachable, a.run(t.Context(), []string{"dlq", "retry", "--all", "--yes"}))
	require.Contains(t, errw.String(), "500 sent again, 0 skipped, then it stopped\n")
	require.Contains(t, errw.String(), "storage_unavailable: the disk is full")
	require.Empty(t, out.String())
}

// An engine whose pages lead nowhere does not hold the command for ever.
func TestDeadPagesThatLeadNowhere(t *testing.T) {
	for _, cursor := range []string{"", "same"} {
		env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) {
			answerJSON(w, sdk.Page[sdk.Message]{Data: []sdk.Message{{ID: "msg_1"}}, HasMore: true, NextCursor: cursor})
		})
		for _, args := range [][]string{{"dlq", "ls", "--all"}, {"dlq", "drop", "--all", "--yes"}} {
			var errw bytes.Buffer
			require.Equal(t, exitUnreachable, testApp(nil, io.Discard, &errw, env).run(t.Context(), args))
			require.Contains(t, errw.String(), "there are more rows, and not where")
		}
	}
}

func TestManySkipped(t *testing.T) {
	e := newDeadEngine(600)
	for _, id := range e.ids[:30] {
		e.busy[id] = true
	}
	code, out, errs := e.run(t, t.Context(), "retry", "--all", "--yes")
	require.Equal(t, exitPartly, code)
	require.Equal(t, "570 dead letters sent again\n", out)
	require.Equal(t, toldSkipped, strings.Count(errs, "skipped: msg_"))
	require.Contains(t, errs, "… and 10 more; -o json names them")
	require.Contains(t, errs, "30 of 600 skipped")
}

// The list says that there are more only when there are.
func TestMoreDeadLetters(t *testing.T) {
	for limit, more := range map[string]bool{"2": true, "3": false, "4": false} {
		code, out, errs := newDeadEngine(3).run(t, t.Context(), "ls", "-o", "id", "--limit", limit)
		require.Equal(t, exitOK, code)
		require.Equal(t, more, strings.Contains(errs, "there are more"), limit)
		require.Equal(t, map[bool]int{true: 2, false: 3}[more], strings.Count(out, "msg_"))
	}
}

// One of several that is no dead letter does not make the whole a failure.
func TestOneOfSeveralSkipped(t *testing.T) {
	e := newDeadEngine(2)
	e.busy[e.ids[1]] = true
	code, out, errs := e.run(t, t.Context(), "drop", e.ids[0], e.ids[1])
	require.Equal(t, exitPartly, code)
	require.Equal(t, "1 dead letter put away\n", out)
	require.Contains(t, errs, "1 of 2 skipped")
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"failed": "failed", "+12025550100": "+12025550100", "a@b.test": "a@b.test", "": "''", "a b": "'a b'",
		"it's": `'it'\''s'`, "$(x)": "'$(x)'", "https://x.test/a": "https://x.test/a", "é": "'é'", "*": "'*'",
	} {
		require.Equal(t, want, shellWord(in))
	}
}

func TestUnique(t *testing.T) {
	in := []string{"b", "a", "b", "c", "a"}
	require.Equal(t, []string{"b", "a", "c"}, unique(in))
	require.Equal(t, []string{"b", "a", "b", "c", "a"}, slices.Clone(in), "the arguments stay as they are")
}
