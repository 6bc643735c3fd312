package engine_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// patience bounds what a test waits for. Only a failure uses it up.
const patience = time.Minute

// box is a whole engine behind its sockets, with the provider simulator, for a test that attacks it.
type box struct {
	*sandbox.Sandbox
	t    *testing.T
	ctx  context.Context
	log  *logBuffer
	http *http.Client
}

func newBox(t *testing.T, change ...func(*sandbox.Options)) *box {
	t.Helper()
	b := &box{t: t, ctx: context.Background(), log: &logBuffer{}}
	o := sandbox.Options{
		Dir: t.TempDir(), Tenant: "acme",
		Logger: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	b.Sandbox, err = sandbox.Start(b.ctx, o)
	require.NoError(t, err)
	transport := &http.Transport{DisableCompression: true}
	b.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, b.Close())
	})
	return b
}

// onFakeClock makes a box whose time only moves when the test turns it.
func onFakeClock(clock *clockwork.FakeClock) func(*sandbox.Options) {
	return func(o *sandbox.Options) { o.Clock = clock }
}

// logBuffer keeps what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// until waits for something to become true.
func (b *box) until(what string, check func() bool) {
	b.t.Helper()
	require.Eventually(b.t, check, patience, 2*time.Millisecond, what)
}

func (b *box) settle() {
	b.t.Helper()
	b.until("the engine is quiet", func() bool {
		quiet, err := b.Engine.Quiet(b.ctx)
		return err == nil && quiet
	})
}

// message waits until a message is no longer on its way and returns it.
func (b *box) message(id string) *sdk.Message {
	b.t.Helper()
	var m *sdk.Message
	b.until("the message has come to rest", func() bool {
		var err error
		m, err = b.Client.Messages.Get(b.ctx, id)
		return err == nil && m.Status != sdk.Queued && m.Status != sdk.Sending && m.Status != sdk.Ambiguous
	})
	return m
}

func (b *box) send(m sdk.Sendable, opts ...sdk.SendOption) string {
	b.t.Helper()
	got, err := b.Client.Send(b.ctx, m, opts...)
	require.NoError(b.t, err)
	return got.ID
}

// answer is what came back over HTTP.
type answer struct {
	status int
	header http.Header
	body   string
}

func (b *box) do(method, path, media string, body io.Reader, header http.Header) answer {
	b.t.Helper()
	req, err := http.NewRequest(method, b.URL+path, body)
	require.NoError(b.t, err)
	req.Header.Set("Authorization", "Bearer "+b.Key)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := b.http.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *box) get(path string) answer { return b.do("GET", path, "", nil, nil) }

// report posts a provider's callback, signed with the given secret.
func (b *box) report(connector, body, secret string) answer {
	b.t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	sign := http.Header{"X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))}, "Authorization": nil}
	return b.do("POST", "/v1/inbound/"+connector, "application/json", strings.NewReader(body), sign)
}

// connector returns the id of a connector.
func (b *box) connector(name string) string {
	b.t.Helper()
	c, err := b.Client.Connectors.Get(b.ctx, name)
	require.NoError(b.t, err)
	return c.ID
}

// metric returns the line of a metric whose text contains all of the parts, or "".
func (b *box) metric(parts ...string) string {
	b.t.Helper()
lines:
	for line := range strings.Lines(b.get("/metrics").body) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue lines
			}
		}
		return strings.TrimSpace(line)
	}
	return ""
}

// endpoint serves a webhook receiver on loopback.
func endpoint(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
