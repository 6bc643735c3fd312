package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
)

func TestHealthURL(t *testing.T) {
	for _, c := range []struct{ listen, given, want string }{
		{"127.0.0.1:8020", "", "http://127.0.0.1:8020/readyz"},
		{":8020", "", "http://127.0.0.1:8020/readyz"},
		{"0.0.0.0:9", "", "http://127.0.0.1:9/readyz"},
		{"[::]:9", "", "http://[::1]:9/readyz"},
		{"[::1]:9", "", "http://[::1]:9/readyz"},
		{"10.1.2.3:9", "", "http://10.1.2.3:9/readyz"},
		{"node-1:9", "", "http://node-1:9/readyz"},
		{"127.0.0.1:1", "http://h:2", "http://h:2/readyz"},
		{"127.0.0.1:1", "https://h/", "https://h/readyz"},
		{"127.0.0.1:1", "http://h:2/healthz", "http://h:2/healthz"},
	} {
		got, err := healthURL(options{dir: "x", listen: c.listen}, c.given)
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.want, got, "%+v", c)
	}
}

func TestHealthcheckRefusesWhatItCannotAsk(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--url", "h:1"}, "--url"},
		{[]string{"--url", "ftp://h"}, "--url"},
		{[]string{"--url", "http://"}, "--url"},
		{[]string{"--wait", "-1s"}, "--wait -1s is negative"},
		{[]string{"--wait", "soon"}, "soon"},
		{[]string{"--listen", "8020"}, "listen"},
		{[]string{"now"}, `"now"`},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, exitUsage, run(append([]string{"healthcheck"}, c.args...), &out, &errs), "%v", c.args)
		require.Contains(t, errs.String(), c.says)
	}
	var out, errs bytes.Buffer
	require.Equal(t, exitUsage, run([]string{"healthcheck", "--url", "htp://u:hunter2@h"}, &out, &errs))
	require.NotContains(t, errs.String(), "hunter2")
}

// answers serves the given statuses and bodies in turn; the last one stays.
func answers(t *testing.T, list ...string) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := min(int(asked.Add(1)), len(list))
		status, body, _ := strings.Cut(list[n-1], " ")
		w.WriteHeader(map[string]int{"200": 200, "302": 302, "404": 404, "503": 503}[status])
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestHealthcheckSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ answer, says string }{
		{`503 {"ok":false,"parts":{"store":"cannot be written","disk":"ok","broker":"away"}}`, "not ready: broker: away; store: cannot be written"},
		{`503 busy`, "not ready: 503 Service Unavailable"},
		{`503 {"parts":{"store":"ok"}}`, "not ready: 503"},
		{`404 {"title":"nothing here"}`, "not ready: 404"},
		{`302 `, "not ready: 302"},
		{"503 " + strings.Repeat("x", 1<<20), "not ready: 503"},
	} {
		url, _ := answers(t, c.answer)
		var out, errs bytes.Buffer
		require.Equal(t, exitFailed, run([]string{"healthcheck", "--url", url}, &out, &errs))
		require.Contains(t, errs.String(), c.says)
		require.Less(t, errs.Len(), 500)
	}
	var out, errs bytes.Buffer
	require.Equal(t, exitFailed, run([]string{"healthcheck", "--url", "http://127.0.0.1:1"}, &out, &errs))
	require.Contains(t, errs.String(), "refused")
}

func TestHealthcheckWaits(t *testing.T) {
	url, asked := answers(t, "503 a", "503 b", "200 ok")
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"healthcheck", "--wait", "1m", "--url", url}, &out, &errs), errs.String())
	require.EqualValues(t, 3, asked.Load())

	url, asked = answers(t, `503 {"parts":{"store":"away"}}`)
	require.Equal(t, exitFailed, run([]string{"healthcheck", "--wait", "400ms", "--url", url}, &out, &errs))
	require.Contains(t, errs.String(), "store: away")
	require.Greater(t, asked.Load(), int32(1))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, awaitHealth(ctx, url, time.Hour), "canceled")
}

// TestHealthcheckOfAnEngine asks a real one by its configuration.
func TestHealthcheckOfAnEngine(t *testing.T) {
	e, err := engine.New(engine.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	require.NoError(t, e.Start(t.Context()))
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"healthcheck", "--listen", e.Addr()}, &out, &errs), errs.String())
	require.Zero(t, run([]string{"healthcheck", "--url", "http://" + e.Addr() + "/healthz"}, &out, &errs), errs.String())
	require.NoError(t, e.Close())
	require.Equal(t, exitFailed, run([]string{"healthcheck", "--listen", e.Addr()}, &out, &errs))
}
