package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sdk"
)

// engineEnv is the environment for an engine that h plays.
func engineEnv(t *testing.T, h http.HandlerFunc) func(string) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	vars := map[string]string{"MSGCTL_URL": srv.URL, "MSGCTL_API_KEY": "mk_test_good", "HOME": t.TempDir()}
	return func(k string) string { return vars[k] }
}

func noEnv(string) string { return "" }

func answerJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func report(state string, people, accepted int) sdk.CampaignReport {
	return sdk.CampaignReport{
		Campaign: "diwali", State: state, People: people, Accepted: accepted, ToExpand: people - accepted,
		ByStatus: map[sdk.Status]int{sdk.Delivered: accepted},
	}
}

// Ctrl-C ends the command and says that the campaign goes on.
func TestInterruptedCampaignGoesOn(t *testing.T) {
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal %t", tty), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var asked atomic.Int32
			var stopped atomic.Bool
			env := engineEnv(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet {
					stopped.Store(true)
				}
				if asked.Add(1) == 3 {
					cancel()
				}
				answerJSON(w, report("running", 100, int(asked.Load())))
			})
			var out, errw bytes.Buffer
			a := testApp(nil, &out, &errw, env)
			a.errTTY = tty
			require.Equal(t, exitInterrupted, a.run(ctx, []string{"campaign", "watch", "diwali"}))
			require.Contains(t, errw.String(), `interrupted; "diwali" goes on in the engine  fix: follow it: msgctl campaign watch diwali`)
			require.Empty(t, out.String())
			require.False(t, stopped.Load())
		})
	}
}

func TestInterruptedRunNamesHowToGoOn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	env := engineEnv(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	path := filepath.Join(t.TempDir(), "rows.csv")
	require.NoError(t, os.WriteFile(path, []byte("to,text\n+1,hi\n"), 0o600))
	var out, errw bytes.Buffer
	code := testApp(nil, &out, &errw, env).run(ctx, []string{"send", "sms", "--file", path})
	require.Equal(t, exitInterrupted, code)
	require.Regexp(t, `interrupted  fix: msgctl send … --file \S+rows.csv --resume run_[0-9a-f]{16}`, errw.String())
}

// On a terminal the bar is drawn, and gone when the report is printed.
func TestProgressBar(t *testing.T) {
	n := 0
	env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		r := report("running", 100, n*40)
		if n == 3 {
			r = report("completed", 100, 100)
		}
		answerJSON(w, r)
	})
	var out, errw bytes.Buffer
	a := testApp(nil, &out, &errw, env)
	a.errTTY = true
	require.Equal(t, exitOK, a.run(t.Context(), []string{"campaign", "watch", "diwali"}))
	require.Contains(t, out.String(), "accounted for: accepted=100 delivered=100")
	require.NotContains(t, out.String(), "▕")
}

// A campaign that is done is looked at a little longer while receipts come, and not for ever.
func TestFollowWaitsForReceipts(t *testing.T) {
	for _, tc := range []struct{ pending, asked, left int }{{0, 1, 0}, {3, 4, 0}, {1000, receiptLooks + 1, 1000 - receiptLooks}} {
		n := 0
		env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) {
			r := report("completed", 100, 100)
			r.AwaitingReceipt = max(tc.pending-n, 0)
			n++
			answerJSON(w, r)
		})
		var out, errw bytes.Buffer
		require.Equal(t, exitOK, testApp(nil, &out, &errw, env).run(t.Context(), []string{"campaign", "watch", "diwali"}))
		require.Equal(t, tc.asked, n)
		if tc.left > 0 {
			require.Contains(t, errw.String(), fmt.Sprintf("%d receipts to come; look again: msgctl campaign report diwali", tc.left))
		} else {
			require.NotContains(t, errw.String(), "receipts to come")
		}
	}
}

func TestProgressLine(t *testing.T) {
	a := testApp(nil, io.Discard, io.Discard, noEnv)
	p := a.progress()
	begin := a.now()
	p.begin = begin.Add(-10e9)
	r := report("running", 9641, 6850)
	r.Accepted, r.Waiting = 6967, 117
	r.ToExpand = 9641 - 6967
	r.ByStatus = map[sdk.Status]int{sdk.Delivered: 6702, sdk.Failed: 31, sdk.Sent: 117, sdk.Queued: 117}
	require.Equal(t, " 71%  6,850/9,641  685/s  delivered 6,702  failed 31  waiting 117  4 s left", p.status(&r, done(&r)))
}

// brokenPipe fails as a pipe does whose reader has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestClosedPipeIsQuiet(t *testing.T) {
	env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, sdk.Page[sdk.Message]{Data: []sdk.Message{{ID: "msg_1"}}})
	})
	for _, format := range formats() {
		var errw bytes.Buffer
		require.Equal(t, exitOK, testApp(nil, brokenPipe{}, &errw, env).run(t.Context(), []string{"message", "ls", "-o", format}), format)
		require.Empty(t, errw.String(), format)
	}
}

func TestFullDisk(t *testing.T) {
	env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, sdk.Identity{Mode: "test"}) })
	full := writerFunc(func([]byte) (int, error) { return 0, &os.PathError{Op: "write", Path: "out", Err: syscall.ENOSPC} })
	var errw bytes.Buffer
	require.Equal(t, exitFailed, testApp(nil, full, &errw, env).run(t.Context(), []string{"whoami"}))
	require.Equal(t, "msgctl: whoami: out: the disk is full\n", errw.String())
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// --debug shows what goes over the wire, and never a key, an address's body or a secret.
func TestDebugMasks(t *testing.T) {
	env := engineEnv(t, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, sdk.Message{ID: "msg_1"}) })
	long := "mk_live_abcdefghijklmnopqrstuvwxyz0123x7Qd"
	with := func(k string) string {
		if k == "MSGCTL_API_KEY" {
			return long
		}
		return env(k)
	}
	var out, errw bytes.Buffer
	require.Equal(t, exitOK, testApp(nil, &out, &errw, with).run(t.Context(), []string{"send", "sms", "+12025550123", "canary", "--debug"}))
	require.Contains(t, errw.String(), "> POST http://127.0.0.1:")
	require.Contains(t, errw.String(), "> Authorization: Bearer mk_live_••••x7Qd")
	for _, s := range []string{long, "canary", "2025550123"} {
		require.NotContains(t, errw.String(), s)
	}
}

// Every help fits into 80 columns, and each command says what it is for.
func TestHelp(t *testing.T) {
	a := testApp(nil, io.Discard, io.Discard, noEnv)
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		var out, errw bytes.Buffer
		require.Equal(t, exitOK, testApp(nil, &out, &errw, noEnv).run(t.Context(), append(path, "--help")), path)
		require.Empty(t, errw.String())
		require.NotEmpty(t, c.Short, path)
		for line := range strings.SplitSeq(out.String(), "\n") {
			if utf8.RuneCountInString(line) > helpWidth {
				t.Errorf("%v: too wide: %q", path, line)
			}
		}
		for _, sub := range c.Commands() {
			if sub.Name() != "completion" && sub.Name() != "help" {
				walk(sub, append(append([]string{}, path...), sub.Name()))
			}
		}
	}
	walk(a.root(), nil)
	for name, args := range map[string][]string{"root": nil, "send": {"send"}, "campaign": {"campaign"}} {
		var out bytes.Buffer
		require.Equal(t, exitOK, testApp(nil, &out, io.Discard, noEnv).run(t.Context(), append(args, "--help")))
		path := filepath.Join("testdata", "help_"+name+".golden")
		if os.Getenv("UPDATE") != "" {
			require.NoError(t, os.WriteFile(path, out.Bytes(), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), out.String())
	}
}

// A command that prints columns prints fields that exist.
func TestColumnsExist(t *testing.T) {
	for name, c := range map[string]struct {
		v view
		t any
	}{
		"message": {messageView(), sdk.Message{}}, "campaign": {campaignView(), sdk.Campaign{}}, "audience": {audienceView(), sdk.Audience{}},
		"template": {oneTemplate(), sdk.StoredTemplate{}}, "connector": {connectorView(), sdk.Connector{}}, "tenant": {tenantView(), sdk.Tenant{}},
		"key": {keyView(), sdk.Key{}}, "suppression": {suppressView(), sdk.Suppression{}},
		"route": {routeView(), routeRow{}}, "retry": {retryView(), retryRow{}}, "receipt": {receiptView(), sdk.UnmatchedReceipt{}},
		"timeline": {timelineView(), sdk.Fact{}}, "one tenant": {oneTenant(), sdk.Tenant{}},
	} {
		known := fieldsOf(typeOf(c.t), "")
		for _, k := range append(c.v.cols, c.v.wide...) {
			require.Contains(t, known, k, name)
		}
	}
}
