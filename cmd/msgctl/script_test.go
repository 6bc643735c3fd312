package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/sdk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScripts runs the transcripts in testdata. Each has an engine of its own, whose answers are files of the script:
// api/METHOD/path.http holds a status, headers as K=V, and on the next lines the body; path.2.http … are what follows.
//
//	msgctl ARGS            must exit 0
//	exits CODE ARGS        must exit CODE
//	fed FILE CODE ARGS     the same with stdin from FILE
//	typed FILE CODE ARGS   the same on a terminal
//	requests               prints what the engine was asked
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			e := &fileEngine{dir: filepath.Join(env.WorkDir, "api"), asked: map[string]int{}}
			srv := httptest.NewServer(e)
			env.Defer(srv.Close)
			env.Values["engine"] = e
			env.Setenv("MSGCTL_URL", srv.URL)
			env.Setenv("PORT", srv.URL[strings.LastIndexByte(srv.URL, ':')+1:])
			env.Setenv("MSGCTL_API_KEY", "mk_test_good")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"msgctl": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg {
					ts.Fatalf("use: exits CODE")
				}
				drive(ts, "", 0, false, args)
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				drive(ts, "", number0(ts, args[0]), false, args[1:])
			},
			"fed": func(ts *testscript.TestScript, _ bool, args []string) {
				drive(ts, ts.ReadFile(args[0]), number0(ts, args[1]), false, args[2:])
			},
			"typed": func(ts *testscript.TestScript, _ bool, args []string) {
				drive(ts, ts.ReadFile(args[0]), number0(ts, args[1]), true, args[2:])
			},
			"requests": func(ts *testscript.TestScript, _ bool, _ []string) {
				e := ts.Value("engine").(*fileEngine)
				e.mu.Lock()
				defer e.mu.Unlock()
				_, _ = ts.Stdout().Write(e.log.Bytes())
				e.log.Reset()
			},
		},
	})
}

func number0(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

func drive(ts *testscript.TestScript, in string, want int, tty bool, args []string) {
	a := testApp(strings.NewReader(in), ts.Stdout(), ts.Stderr(), ts.Getenv)
	a.inTTY, a.outTTY, a.errTTY = tty, tty, tty
	if got := a.run(context.Background(), args); got != want {
		ts.Fatalf("msgctl %s: exit %d, want %d", strings.Join(args, " "), got, want)
	}
}

// testApp is a program that never waits.
func testApp(in io.Reader, out, errw io.Writer, env func(string) string) *app {
	at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	return &app{
		in: in, out: out, err: errw, env: env, width: 80, now: func() time.Time { return at },
		sleep:  func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		tuning: []sdk.Option{sdk.WithMaxRetries(0)},
	}
}

// fileEngine answers from files.
type fileEngine struct {
	dir   string
	mu    sync.Mutex
	asked map[string]int
	log   bytes.Buffer
}

func (e *fileEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(&e.log, "%s %s", r.Method, r.URL.RequestURI())
	if t := r.Header.Get("X-Msgctl-Tenant"); t != "" {
		fmt.Fprintf(&e.log, " tenant=%s", t)
	}
	fmt.Fprintf(&e.log, " %s\n", bytes.TrimSpace(body))
	if r.Header.Get("Authorization") != "Bearer mk_test_good" && strings.HasPrefix(r.URL.Path, "/v1/") {
		refuse(w, 401, "unauthorized", "the key is missing or not valid")
		return
	}
	name := r.Method + r.URL.EscapedPath()
	e.asked[name]++
	text, err := e.answer(name, e.asked[name])
	if errors.Is(err, fs.ErrNotExist) {
		switch name {
		case "POST/v1/messages/batch":
			acceptBatch(w, body)
			return
		case "GET/v1/events":
			e.events(w, r)
			return
		}
		refuse(w, 404, "not_found", "there is no such thing")
		return
	}
	head, text, _ := strings.Cut(text, "\n")
	words := strings.Fields(head)
	w.Header().Set("Content-Type", "application/json")
	for _, h := range words[1:] {
		k, v, _ := strings.Cut(h, "=")
		w.Header().Set(k, v)
	}
	status, _ := strconv.Atoi(words[0])
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// answer reads the nth answer of a route, or the last there is.
func (e *fileEngine) answer(name string, n int) (string, error) {
	for ; n > 1; n-- {
		if b, err := os.ReadFile(filepath.Join(e.dir, name+"."+strconv.Itoa(n)+".http")); err == nil {
			return string(b), nil
		}
	}
	b, err := os.ReadFile(filepath.Join(e.dir, name+".http"))
	return string(b), err
}

// events answers from events.jsonl as an engine does.
func (e *fileEngine) events(w http.ResponseWriter, r *http.Request) {
	var all []sdk.Event
	b, _ := os.ReadFile(filepath.Join(e.dir, "events.jsonl"))
	for dec := json.NewDecoder(bytes.NewReader(b)); dec.More(); {
		var ev sdk.Event
		if err := dec.Decode(&ev); err != nil {
			refuse(w, 500, "broken_script", err.Error())
			return
		}
		all = append(all, ev)
	}
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil && r.URL.Query().Get("after") == "latest" && len(all) > 0 {
		after = all[len(all)-1].Seq
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		limit = 100
	}
	p := sdk.Page[sdk.Event]{Data: []sdk.Event{}, NextCursor: strconv.FormatInt(after, 10)}
	for _, ev := range all {
		if ev.Seq > after && len(p.Data) < limit {
			p.Data = append(p.Data, ev)
			p.NextCursor = strconv.FormatInt(ev.Seq, 10)
		}
	}
	_ = json.NewEncoder(w).Encode(p)
}

func refuse(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(sdk.Error{Code: code, Title: code, Detail: detail, Status: status, RequestID: "req_1"})
}

func acceptBatch(w http.ResponseWriter, body []byte) {
	sc := bufio.NewScanner(bytes.NewReader(body))
	for n := 1; sc.Scan(); n++ {
		var m sdk.MessageRequest
		row := sdk.BatchRow{Row: n}
		if err := json.Unmarshal(sc.Bytes(), &m); err != nil || strings.HasPrefix(m.To, "bad") {
			row.Error = &sdk.Error{Code: "invalid_phone", Status: 422, Detail: "is no phone number"}
		} else {
			row.ID, row.Status, row.ClientRef = "msg_"+strings.TrimPrefix(m.To, "+"), sdk.Queued, m.ClientRef
		}
		_ = json.NewEncoder(w).Encode(row)
	}
}
