package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/egress"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when every rig's clock begins: a Sunday.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is the whole API behind a real listener, over a real store in a temporary folder.
type rig struct {
	t        testing.TB
	clock    *clockwork.FakeClock
	store    *sqlite.Store
	ids      *delivery.IDs
	vault    *vault.Vault
	api      *api
	server   *http.Server
	client   *http.Client
	url      string
	log      *safeBuffer
	operator *fakeOperator

	admin, acme, globex string // keys
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

type fakeOperator struct {
	mu      sync.Mutex
	changes int
	tenants []delivery.TenantID
	refused []delivery.TenantID
	err     error // of TestConnector
}

func (f *fakeOperator) TestConnector(context.Context, delivery.TenantID, string) error { return f.err }

func (f *fakeOperator) ConnectorsChanged(context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
}

func (f *fakeOperator) Suppressed(t delivery.TenantID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, t)
}

func (f *fakeOperator) TenantChanged(_ context.Context, t delivery.TenantID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tenants = append(f.tenants, t)
}

// kinds are connectors that only have settings.
func kinds() *connectors.Registry {
	open := func(*connectors.Account) (connectors.Connector, error) { return nil, fmt.Errorf("not opened in tests") }
	return connectors.NewRegistry(
		connectors.Kind{
			Name: "smpp", Channel: delivery.SMS, Doc: "Speaks SMPP.", Ambiguity: connectors.None, Receipts: true, Open: open,
			Settings: []connectors.Setting{
				{Key: "host", Type: connectors.Text, Doc: "Where the SMSC is.", Required: true},
				{Key: "password", Type: connectors.Text, Doc: "Opens the bind.", Required: true, Secret: true},
				{Key: "window", Type: connectors.Number, Doc: "Requests without answer.", Default: "10"},
			},
		},
		connectors.Kind{Name: "smtp", Channel: delivery.Email, Doc: "Speaks SMTP.", Ambiguity: connectors.None, Open: open},
		connectors.Kind{Name: "hook", Channel: delivery.Webhook, Doc: "Calls URLs.", Ambiguity: connectors.DedupeKey, Open: open},
	)
}

func newRig(t testing.TB, change ...func(*Deps)) *rig {
	t.Helper()
	r := &rig{t: t, clock: clockwork.NewFakeClockAt(start), log: &safeBuffer{}, operator: &fakeOperator{}}
	dir := t.TempDir()
	var err error
	r.store, err = sqlite.Open(context.Background(), sqlite.Options{Dir: dir, Now: r.clock.Now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.store.Close()) })
	r.vault, err = vault.LoadOrCreate(filepath.Join(dir, "master.key"))
	require.NoError(t, err)
	r.ids = delivery.NewIDs(r.clock.Now)
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := Deps{
		Store: r.store, Registry: kinds(), Vault: r.vault, IDs: r.ids, Now: r.clock.Now, Log: log,
		Operator: r.operator, URLAllowed: egress.New(egress.Policy{}).CheckURL, Version: "1.2.3",
		PublicURL: "https://msgctl.example.com",
		Campaigns: campaigns.New(campaigns.Deps{Store: r.store, IDs: r.ids, Clock: r.clock, Dir: dir}),
	}
	for _, f := range change {
		f(&d)
	}
	r.api = newAPI(d)
	r.server = Server(r.api, log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.url = "http://" + l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = r.server.Serve(l) }()
	tr := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	r.client = &http.Client{Transport: tr}
	t.Cleanup(func() { tr.CloseIdleConnections(); _ = r.server.Close(); <-done })

	r.admin = r.key("", true, apikey.Live)
	for id, key := range map[delivery.TenantID]*string{"acme": &r.acme, "globex": &r.globex} {
		require.NoError(t, r.store.CreateTenant(context.Background(), system(), store.Tenant{
			ID: id, Name: string(id), DataKey: r.vault.NewDataKey(string(id)), CreatedAt: start,
		}))
		*key = r.key(id, false, apikey.Live)
	}
	return r
}

func (r *rig) key(t delivery.TenantID, admin bool, mode apikey.Mode) string {
	k := apikey.New(mode)
	require.NoError(r.t, r.store.PutKey(context.Background(), system(), store.Key{
		ID: r.ids.Key(), Tenant: t, Mode: string(mode), Admin: admin, Hash: apikey.Hash(r.vault.Pepper(), k),
		Hint: k.Hint(), CreatedAt: start,
	}))
	return k.Reveal()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem(t testing.TB) sdk.Error {
	t.Helper()
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), a.body)
	var p sdk.Error
	require.NoError(t, json.Unmarshal([]byte(a.body), &p), a.body)
	require.Equal(t, a.status, p.Status, a.body)
	require.NotEmpty(t, p.RequestID)
	require.Equal(t, a.header.Get("X-Request-Id"), p.RequestID)
	require.Equal(t, "https://msgctl.example.com/docs#"+p.Code, p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	return p
}

func (a answer) decode(t testing.TB, v any) {
	t.Helper()
	require.Less(t, a.status, 300, a.body)
	require.NoError(t, json.Unmarshal([]byte(a.body), v), a.body)
}

// request is what goes out; the zero Method is POST when there is a body.
type request struct {
	method, path, key, body string
	media                   string // default application/json with a body
	header                  http.Header
	reader                  io.Reader // instead of body: sent in chunks
}

func (r *rig) send(q request) answer {
	r.t.Helper()
	var body io.Reader
	if q.body != "" {
		body = strings.NewReader(q.body)
	}
	if q.reader != nil {
		body = q.reader
	}
	if q.method == "" {
		q.method = "GET"
		if body != nil {
			q.method = "POST"
		}
	}
	req, err := http.NewRequest(q.method, r.url+q.path, body)
	require.NoError(r.t, err)
	if q.key != "" {
		req.Header.Set("Authorization", "Bearer "+q.key)
	}
	if q.media == "" && body != nil {
		q.media = "application/json"
	}
	if q.media != "" && q.media != "-" {
		req.Header.Set("Content-Type", q.media)
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	resp, err := r.client.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (r *rig) get(key, path string) answer { return r.send(request{path: path, key: key}) }

func (r *rig) post(key, path, body string) answer {
	return r.send(request{method: "POST", path: path, key: key, body: body})
}

// accept sends a message that must be taken.
func (r *rig) accept(key, body string) sdk.Message {
	r.t.Helper()
	var m sdk.Message
	a := r.post(key, "/v1/messages", body)
	require.Equal(r.t, 202, a.status, a.body)
	a.decode(r.t, &m)
	return m
}

const hello = `{"channel":"sms","to":"+12025550100","text":"Hello"}`
