package engine_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/cluster/clustertest"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/vault"
)

const testTTL = 600 * time.Millisecond

// provider counts what engines hand over, and can keep their attempts.
type provider struct {
	mu    sync.Mutex
	sent  map[string]int            // message → hand-offs
	by    map[string]map[string]int // node → message → hand-offs
	open  map[string]int            // node → connectors that can send
	stuck map[string]chan struct{}  // node → its attempts stand still until it is closed or their time is over
	began map[string]bool           // messages of attempts that stand or stood still
	gate  chan struct{}             // what is taken is answered once it is closed; nil = at once
}

func newProvider() *provider {
	return &provider{
		sent: map[string]int{}, by: map[string]map[string]int{}, open: map[string]int{}, stuck: map[string]chan struct{}{},
		began: map[string]bool{},
	}
}

func (p *provider) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.sent {
		n += c
	}
	return n
}

func (p *provider) of(node string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.by[node])
}

// stick keeps what a node attempts from now on.
func (p *provider) stick(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck[node] = make(chan struct{})
}

// once checks that everybody got their message once.
func (p *provider) once(t *testing.T, want int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Len(t, p.sent, want)
	for id, n := range p.sent {
		require.Equal(t, 1, n, id)
	}
}

// line is a connector of one node to the provider.
type line struct {
	p    *provider
	node string
}

func (l line) Send(ctx context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	l.p.mu.Lock()
	stuck := l.p.stuck[l.node]
	if stuck != nil {
		l.p.began[m.ID.String()] = true
	} else {
		if l.p.by[l.node] == nil {
			l.p.by[l.node] = map[string]int{}
		}
		l.p.by[l.node][m.ID.String()]++
		l.p.sent[m.ID.String()]++
	}
	gate := l.p.gate
	l.p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
		return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "stuck", Known: true}
	}
	return delivery.Sent{ProviderID: m.ID.String()}, nil
}

// kindAt is the kind that connects a node.
func (p *provider) kindAt(node string) connectors.Kind {
	return connectors.Kind{
		Name: "line", Channel: delivery.SMS, Doc: "Takes everything.", Ambiguity: connectors.None,
		Settings: []connectors.Setting{
			{Key: "password", Type: connectors.Text, Secret: true, Doc: "A secret."},
			{Key: "max_binds", Type: connectors.Number, Default: "0", Doc: "How many nodes may bind."},
			{Key: "timeout", Type: connectors.Duration, Default: "400ms", Doc: "How long an attempt may stand still."},
		},
		Open: func(*connectors.Account) (connectors.Connector, error) { return line{p, node}, nil },
	}
}

// rig is several engines on one store: SQLite with the role of store.Nodes kept in memory, or PostgreSQL.
type rig struct {
	t        *testing.T
	shared   *clustertest.Shared
	db       *servers.DB // nil = shared
	provider *provider
	key      string // path of the master key
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Now: time.Now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = vault.LoadOrCreate(dir + "/master.key")
	require.NoError(t, err)
	return &rig{t: t, shared: clustertest.New(s, time.Now), provider: newProvider(), key: dir + "/master.key"}
}

// onEach runs a test on both stores.
func onEach(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, newRig(t))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.shared = nil
		r.db = servers.Postgres(t).DatabaseLike(t, "engine", func(db *servers.DB) error {
			return postgres.Migrate(context.Background(), postgres.MigrateOptions{URL: db.Owner, Role: db.AppRole})
		})
		test(t, r)
	})
}

// member is one engine of a rig.
type member struct {
	*engine.Engine
	name string
	dir  string
	view *clustertest.View
	link *servers.Link
}

// cut takes the store away from an engine, or gives it back.
func (m *member) cut(away bool) {
	switch {
	case m.view != nil:
		m.view.Cut(away)
	case away:
		m.link.Cut()
	default:
		m.link.Heal()
	}
}

// make makes an engine that does not run yet.
func (r *rig) make(name string, change ...func(*engine.Config)) (*member, error) {
	r.t.Helper()
	m := &member{name: name, dir: r.t.TempDir()}
	cfg := engine.Config{
		Dir: m.dir, Store: "postgres://shared.invalid/x", Node: name, Heartbeat: testTTL, Lease: time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	m.dir = cfg.Dir
	copyKey(r.t, r.key, m.dir)
	var err error
	if r.db == nil {
		m.view = r.shared.View()
		m.Engine, err = engine.NewOn(cfg, m.view, r.provider.kindAt(name))
		return m, err
	}
	m.link, cfg.Store = servers.ProxyURL(r.t, r.db.App)
	m.Engine, err = engine.New(cfg, r.provider.kindAt(name))
	return m, err
}

// begin makes an engine and starts it. It is closed when the test ends.
func (r *rig) begin(name string, change ...func(*engine.Config)) *member {
	r.t.Helper()
	m, err := r.make(name, change...)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, m.Close()) })
	require.NoError(r.t, m.Start(r.t.Context()))
	return m
}

// kill ends an engine without a word to the store.
func (m *member) kill() {
	m.cut(true)
	m.Vanish()
}

func (r *rig) client(m *member) *sdk.Client {
	r.t.Helper()
	c, err := m.Client("acme")
	require.NoError(r.t, err)
	return c
}

// connect makes the connector that all use.
func (r *rig) connect(c *sdk.Client, settings map[string]string) {
	r.t.Helper()
	_, err := c.Connectors.Put(r.t.Context(), "main", sdk.ConnectorRequest{Kind: "line", Settings: settings})
	require.NoError(r.t, err)
}

// stand accepts messages that stand still at a node, and returns how many once all of them are under lease.
func (r *rig) stand(c *sdk.Client, node string, n int) int {
	r.t.Helper()
	r.connect(c, map[string]string{"timeout": "5s"}) // they are to be under lease together, on a busy machine too
	r.provider.stick(node)
	rows := func(yield func(sdk.Sendable) bool) {
		for i := range n {
			if !yield(sdk.SMS{To: fmt.Sprintf("+1202555%04d", i), Text: "Hello"}) {
				return
			}
		}
	}
	for _, err := range c.SendAll(r.t.Context(), rows) {
		require.NoError(r.t, err)
	}
	eventually(r.t, "all are under lease", func() bool { return sending(r.t, c) == n })
	return n
}

// send accepts messages and returns how many.
func (r *rig) send(c *sdk.Client, n int) int {
	r.t.Helper()
	for i := range n {
		_, err := c.Send(r.t.Context(), sdk.SMS{To: fmt.Sprintf("+1202555%04d", i%10_000), Text: "Hello"})
		require.NoError(r.t, err)
	}
	return n
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, time.Minute, 10*time.Millisecond, what)
}

func withRoles(r ...string) func(*engine.Config) { return func(c *engine.Config) { c.Roles = r } }

func TestSeveralEnginesSendEachMessageOnce(t *testing.T) {
	onEach(t, severalEnginesSendEachMessageOnce)
}

func severalEnginesSendEachMessageOnce(t *testing.T, r *rig) {
	nodes := []*member{r.begin("a"), r.begin("b"), r.begin("c")}
	r.connect(r.client(nodes[0]), nil)
	var wg sync.WaitGroup
	for _, m := range nodes {
		c := r.client(m)
		wg.Go(func() { r.send(c, 60) })
	}
	wg.Wait()
	eventually(t, "all are sent", func() bool { return r.provider.total() >= 180 })
	r.provider.once(t, 180)
	for _, m := range nodes {
		require.Positive(t, r.provider.of(m.name), "each has its part")
	}
	audit, err := r.client(nodes[2]).Audit.Verify(t.Context())
	require.NoError(t, err)
	require.True(t, audit.OK)
	require.NoError(t, nodes[0].Close())
	status, err := mustClient(t, nodes[1]).Cluster(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a gone", "b alive", "c alive"}, states(status), "who stops says so")
}

func TestAChangeIsInForceOnAllNodesWhenItIsAnsweredFor(t *testing.T) {
	onEach(t, aChangeIsInForceOnAllNodesWhenItIsAnsweredFor)
}

func aChangeIsInForceOnAllNodesWhenItIsAnsweredFor(t *testing.T, r *rig) {
	ctx := t.Context()
	a, b := r.begin("a"), r.begin("b")
	ca, cb := r.client(a), r.client(b)
	r.connect(ca, nil)
	seen, err := cb.Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
	require.NoError(t, err)
	require.Equal(t, "main", seen.Connector, "the other node has opened the connector")

	_, err = ca.Connectors.Pause(ctx, "main")
	require.NoError(t, err)
	seen, err = cb.Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
	require.NoError(t, err)
	require.Empty(t, seen.Connector, "and paused it")
	_, err = ca.Connectors.Resume(ctx, "main")
	require.NoError(t, err)

	// Rules are the tenant's, and cached by the pipeline.
	_, err = ca.Routes.Set(ctx, []sdk.Route{{Prefix: "+1", Targets: []sdk.RouteTarget{{Connector: "main"}}}})
	require.NoError(t, err)
	seen, err = cb.Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
	require.NoError(t, err)
	require.Equal(t, "rule 1: +1", seen.Rule)

	// A key that one node has revoked opens nothing on the other one, which has just seen it.
	op, err := a.Client("")
	require.NoError(t, err)
	key, err := ca.Keys.Create(ctx, sdk.KeyRequest{Name: "short"})
	require.NoError(t, err)
	who := func() error {
		_, err := sdk.New(sdk.WithURL("http://engine.invalid"), sdk.WithKey(key.Secret), sdk.WithMaxRetries(0),
			sdk.WithHTTPClient(&http.Client{Transport: engine.InProcess(b.Handler())})).Whoami(ctx)
		return err
	}
	require.NoError(t, who())
	require.NoError(t, op.Keys.Revoke(ctx, key.ID))
	require.ErrorIs(t, who(), sdk.ErrUnauthorized)

	// A node that does not follow holds up nobody for ever.
	if b.view == nil {
		return
	}
	b.view.Late(true)
	_, err = ca.Connectors.Pause(ctx, "main")
	require.NoError(t, err)
	require.Contains(t, metricsOf(t, a), "msgctl_cluster_unconfirmed_total 1")
	b.view.Late(false)
	eventually(t, "it follows later", func() bool {
		seen, err := cb.Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
		return err == nil && seen.Connector == ""
	})
}

func metricsOf(t *testing.T, m *member) string {
	t.Helper()
	return get(t, m, "/metrics").body
}

type got struct {
	status int
	body   string
}

func get(t *testing.T, m *member, path string) got {
	t.Helper()
	client := &http.Client{Transport: engine.InProcess(m.Handler())}
	resp, err := client.Get("http://engine.invalid" + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return got{resp.StatusCode, string(b)}
}

func TestACampaignIsExpandedOnceAndPausedEverywhere(t *testing.T) {
	onEach(t, aCampaignIsExpandedOnceAndPausedEverywhere)
}

func aCampaignIsExpandedOnceAndPausedEverywhere(t *testing.T, r *rig) {
	ctx := t.Context()
	nodes := []*member{r.begin("a"), r.begin("b"), r.begin("c")}
	c := r.client(nodes[0])
	r.connect(c, nil)
	_, err := c.Templates.Put(ctx, "hello", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hello"})
	require.NoError(t, err)
	var rows strings.Builder
	rows.WriteString("phone\n")
	const people = 3000
	for i := range people {
		fmt.Fprintf(&rows, "+1202555%04d\n", i)
	}
	_, err = c.Audiences.Import(ctx, "all", strings.NewReader(rows.String()), sdk.ImportOptions{})
	require.NoError(t, err)
	for _, m := range nodes {
		r.provider.stick(m.name)
	}
	_, err = c.Campaigns.Create(ctx, sdk.CampaignRequest{
		Name: "news", Audience: "all", Templates: []string{"hello"},
	})
	require.NoError(t, err)
	_, err = c.Campaigns.Start(ctx, "news")
	require.NoError(t, err)
	_, err = r.client(nodes[1]).Campaigns.Pause(ctx, "news")
	require.NoError(t, err)
	r.provider.mu.Lock()
	for node, stuck := range r.provider.stuck {
		close(stuck)
		delete(r.provider.stuck, node)
	}
	before := len(r.provider.sent)
	r.provider.mu.Unlock()
	for range 20 { // nothing of it goes while it is paused, however often anybody looks
		report, err := r.client(nodes[2]).Campaigns.Report(ctx, "news")
		require.NoError(t, err)
		require.Equal(t, "paused", report.State)
	}
	require.Equal(t, before, r.provider.total())
	_, err = r.client(nodes[2]).Campaigns.Resume(ctx, "news")
	require.NoError(t, err)
	eventually(t, "it completes", func() bool {
		report, err := c.Campaigns.Report(ctx, "news")
		return err == nil && report.State == "completed"
	})
	r.provider.mu.Lock()
	defer r.provider.mu.Unlock()
	require.Len(t, r.provider.sent, people)
}

func TestWhatAKilledNodeLeavesBehindIsTakenUp(t *testing.T) {
	onEach(t, whatAKilledNodeLeavesBehindIsTakenUp)
}

func whatAKilledNodeLeavesBehindIsTakenUp(t *testing.T, r *rig) {
	ctx := t.Context()
	a := r.begin("a", func(c *engine.Config) { c.Lease = 5 * time.Second }) // so that all are under lease at once
	c := r.client(a)
	n := r.stand(c, "a", 30)
	b := r.begin("b")
	cb := r.client(b)
	a.kill()
	// Whether a had begun their attempts only a could tell.
	eventually(t, "the other node sends them", func() bool { return r.provider.of("b") == n })
	page, err := cb.Messages.Page(ctx, sdk.MessageQuery{Limit: 100})
	require.NoError(t, err)
	r.provider.mu.Lock()
	require.NotEmpty(t, r.provider.began)
	for _, m := range page.Data {
		// What a had no time for it may have given back, when it could not be sure any more that it counts as alive.
		require.True(t, m.PossibleDuplicate || !r.provider.began[m.ID],
			"a person who may get it twice is told so: %s", m.ID)
	}
	r.provider.mu.Unlock()
	audit, err := cb.Audit.Verify(ctx)
	require.NoError(t, err)
	require.True(t, audit.OK)
}

// sending counts messages under lease.
func sending(t *testing.T, c *sdk.Client) int {
	page, err := c.Messages.Page(t.Context(), sdk.MessageQuery{Status: sdk.Sending, Limit: 1000})
	if err != nil {
		return -1
	}
	return len(page.Data)
}

// A killed node that comes back over its own directory settles what it had exactly: only what had begun is in doubt.
func TestAKilledNodeThatComesBackKnowsWhatItDid(t *testing.T) {
	t.Parallel()
	aKilledNodeThatComesBackKnowsWhatItDid(t, newRig(t))
}

func aKilledNodeThatComesBackKnowsWhatItDid(t *testing.T, r *rig) {
	ctx := t.Context()
	lease := func(c *engine.Config) { c.Lease = time.Minute }
	a := r.begin("a", lease)
	c := r.client(a)
	n := r.stand(c, "a", 30)
	a.kill()
	r.provider.mu.Lock()
	delete(r.provider.stuck, "a")
	r.provider.mu.Unlock()
	again := r.begin("a", lease, func(c *engine.Config) { c.Dir = a.dir })
	eventually(t, "all are sent", func() bool { return r.provider.of("a") == n })
	page, err := r.client(again).Messages.Page(ctx, sdk.MessageQuery{Limit: 100})
	require.NoError(t, err)
	marked := 0
	for _, m := range page.Data {
		if m.PossibleDuplicate {
			marked++
		}
	}
	require.Positive(t, marked, "what had begun is in doubt")
	require.Less(t, marked, n, "what had not is none")
}

// The journal of another directory knows nothing: what the name had under lease then counts as begun.
func TestANodeThatLostItsDirectoryGuessesNothing(t *testing.T) {
	t.Parallel()
	aNodeThatLostItsDirectoryGuessesNothing(t, newRig(t))
}

func aNodeThatLostItsDirectoryGuessesNothing(t *testing.T, r *rig) {
	ctx := t.Context()
	a := r.begin("a", func(c *engine.Config) { c.Lease = 5 * time.Second })
	c := r.client(a)
	n := r.stand(c, "a", 10)
	a.kill()
	r.provider.mu.Lock()
	delete(r.provider.stuck, "a")
	r.provider.mu.Unlock()
	again := r.begin("a")
	eventually(t, "all are sent", func() bool { return r.provider.of("a") == n })
	page, err := r.client(again).Messages.Page(ctx, sdk.MessageQuery{Limit: 100})
	require.NoError(t, err)
	for _, m := range page.Data {
		require.True(t, m.PossibleDuplicate, "%s", m.ID)
	}
}

func TestTwoNodesOfOneName(t *testing.T) {
	onEach(t, twoNodesOfOneName)
}

func twoNodesOfOneName(t *testing.T, r *rig) {
	r.begin("a")
	twin, err := r.make("a")
	require.NoError(t, err)
	err = twin.Start(t.Context())
	require.ErrorContains(t, err, `"a" is in use`)
	require.ErrorContains(t, err, "--node")
	require.NoError(t, twin.Close())
}

func TestTwoEnginesOfOneDirectory(t *testing.T) {
	t.Parallel()
	twoEnginesOfOneDirectory(t, newRig(t))
}

func twoEnginesOfOneDirectory(t *testing.T, r *rig) {
	a := r.begin("a")
	_, err := r.make("b", func(c *engine.Config) { c.Dir = a.dir })
	require.ErrorContains(t, err, a.dir)
	require.ErrorContains(t, err, "in use by process")
}

func TestAnotherMasterKey(t *testing.T) {
	t.Parallel()
	anotherMasterKey(t, newRig(t))
}

func anotherMasterKey(t *testing.T, r *rig) {
	a := r.begin("a")
	own := t.TempDir() + "/master.key"
	_, err := vault.LoadOrCreate(own)
	require.NoError(t, err)
	r.key = own
	b, err := r.make("b")
	require.NoError(t, err, "there is nothing in the store yet that was sealed")
	require.ErrorContains(t, b.Start(t.Context()), "another master key")
	require.NoError(t, b.Close())
	r.client(a) // makes a tenant, with a data key
	_, err = r.make("c")
	require.ErrorContains(t, err, "is not the master key")
	r.key = ""
	_, err = r.make("d")
	require.ErrorContains(t, err, "master.key is missing")
}

func TestANodeThatIsCutOffClaimsNothing(t *testing.T) {
	onEach(t, aNodeThatIsCutOffClaimsNothing)
}

func aNodeThatIsCutOffClaimsNothing(t *testing.T, r *rig) {
	ctx := t.Context()
	a, b := r.begin("a"), r.begin("b")
	c := r.client(b)
	r.connect(c, nil)
	a.cut(true)
	eventually(t, "it says so", func() bool {
		got := get(t, a, "/readyz")
		return got.status == http.StatusServiceUnavailable && strings.Contains(got.body, "cut off from the store")
	})
	require.Equal(t, http.StatusOK, get(t, a, "/healthz").status, "a restart would mend nothing")
	require.Contains(t, metricsOf(t, a), "msgctl_cluster_held 1")
	n := r.send(c, 50)
	eventually(t, "the other one does the work", func() bool { return r.provider.of("b") == n })
	require.Zero(t, r.provider.of("a"))
	status, err := mustClient(t, b).Cluster(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"a gone", "b alive"}, states(status))
	a.cut(false)
	eventually(t, "it comes back by itself", func() bool { return get(t, a, "/readyz").status == http.StatusOK })
	require.NoError(t, b.Close())
	r.send(r.client(a), 50)
	eventually(t, "and works", func() bool { return r.provider.total() == 2*n })
	r.provider.once(t, 2*n)
}

// While the store is away all leases run out. When it is back, every node knows what became of its own attempts, and
// nobody calls them a doubt before it could say so.
func TestNobodyGetsAMessageTwiceBecauseTheStoreWasAway(t *testing.T) {
	onEach(t, nobodyGetsAMessageTwiceBecauseTheStoreWasAway)
}

func nobodyGetsAMessageTwiceBecauseTheStoreWasAway(t *testing.T, r *rig) {
	a, b := r.begin("a"), r.begin("b")
	c := r.client(a)
	r.connect(c, nil)
	for range 3 {
		gate := make(chan struct{})
		r.provider.mu.Lock()
		r.provider.gate = gate
		before := len(r.provider.sent)
		r.provider.mu.Unlock()
		n := r.send(c, 10)
		eventually(t, "all are on the wire", func() bool {
			r.provider.mu.Lock()
			defer r.provider.mu.Unlock()
			return len(r.provider.sent) == before+n
		})
		a.cut(true)
		b.cut(true)
		close(gate)
		over := time.Now().Add(2500 * time.Millisecond)
		eventually(t, "their leases and the grace are over", func() bool { return time.Now().After(over) })
		a.cut(false)
		b.cut(false)
		eventually(t, "both are back", func() bool {
			return get(t, a, "/readyz").status == http.StatusOK && get(t, b, "/readyz").status == http.StatusOK
		})
		eventually(t, "and write down what they know", func() bool {
			page, err := c.Messages.Page(t.Context(), sdk.MessageQuery{Status: sdk.Sent, Limit: 1000})
			return err == nil && len(page.Data) == before+n
		})
	}
	r.provider.once(t, 30)
}

// A node whose clock is far from the store's cannot tell what is due and whose lease is over.
func TestAWrongClockClaimsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var off atomic.Int64
	r.shared = clustertest.New(r.shared.View().Store, func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
	a := r.begin("a")
	c := r.client(a)
	r.connect(c, nil)
	off.Store(-int64(time.Minute))
	eventually(t, "it says so", func() bool {
		got := get(t, a, "/readyz")
		return got.status == http.StatusServiceUnavailable && strings.Contains(got.body, "the clock is wrong")
	})
	n := r.send(c, 20)
	before := time.Now()
	eventually(t, "some beats go by", func() bool { return time.Since(before) > 2*testTTL })
	require.Zero(t, r.provider.total())
	off.Store(0)
	eventually(t, "it goes on once the clock is right", func() bool { return r.provider.total() == n })
	r.provider.once(t, n)
}

func mustClient(t *testing.T, m *member) *sdk.Client {
	t.Helper()
	c, err := m.Client("")
	require.NoError(t, err)
	return c
}

func states(c *sdk.Cluster) (out []string) {
	for _, n := range c.Nodes {
		out = append(out, n.Name+" "+n.State)
	}
	return out
}

func TestRoles(t *testing.T) {
	t.Parallel()
	roles(t, newRig(t))
}

func roles(t *testing.T, r *rig) {
	ctx := t.Context()
	front, back, hooks := r.begin("front", withRoles("api")), r.begin("back", withRoles("deliver", "schedule")),
		r.begin("hooks", withRoles("webhook"))
	c := r.client(front)
	r.connect(c, nil)
	n := r.send(c, 20)
	eventually(t, "the node that delivers has sent them", func() bool { return r.provider.of("back") == n })
	require.Equal(t, n, r.provider.total())

	for _, m := range []*member{front, back, hooks} {
		require.Equal(t, http.StatusOK, get(t, m, "/readyz").status)
		require.Equal(t, http.StatusOK, get(t, m, "/metrics").status)
	}
	got := get(t, back, "/v1/messages")
	require.Equal(t, http.StatusNotFound, got.status)
	require.Contains(t, got.body, "it has not the role api, only deliver, schedule")
	require.Equal(t, http.StatusNotFound, get(t, front, "/v1/inbound/x").status)
	require.Contains(t, get(t, front, "/v1/inbound/x").body, "role webhook")
	require.NotContains(t, get(t, hooks, "/v1/inbound/x").body, "role webhook")

	status, err := mustClient(t, front).Cluster(ctx)
	require.NoError(t, err)
	require.False(t, status.Embedded)
	require.Equal(t, "front", status.Answered)
	require.Equal(t, "ok", status.Parts["store"])
	i := slices.IndexFunc(status.Nodes, func(n sdk.Node) bool { return n.Name == "back" })
	require.Equal(t, []string{"deliver", "schedule"}, status.Nodes[i].Roles)
}

func TestFewerSessionsThanNodes(t *testing.T) {
	onEach(t, fewerSessionsThanNodes)
}

func fewerSessionsThanNodes(t *testing.T, r *rig) {
	a := r.begin("a")
	c := r.client(a)
	r.connect(c, map[string]string{"max_binds": "1"})
	b := r.begin("b")
	n := r.send(c, 60) + r.send(r.client(b), 60)
	eventually(t, "the node with the session has sent all", func() bool { return r.provider.of("a") == n })
	require.Zero(t, r.provider.of("b"))
	seen, err := r.client(b).Routes.Explain(t.Context(), sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
	require.NoError(t, err)
	require.Equal(t, "elsewhere", seen.Candidates[0].State)

	require.NoError(t, a.Close())
	r.send(r.client(b), 40)
	eventually(t, "the other one has it now", func() bool { return r.provider.of("b") == 40 })
	r.provider.once(t, n+40)
}

func TestASessionEndsWithItsNode(t *testing.T) {
	t.Parallel()
	aSessionEndsWithItsNode(t, newRig(t))
}

func aSessionEndsWithItsNode(t *testing.T, r *rig) {
	a := r.begin("a")
	r.connect(r.client(a), map[string]string{"max_binds": "1"})
	b := r.begin("b")
	a.cut(true)
	n := r.send(r.client(b), 40)
	eventually(t, "the node that is there gets it", func() bool { return r.provider.of("b") == n })
	a.cut(false)
	eventually(t, "a is back", func() bool { return get(t, a, "/readyz").status == http.StatusOK })
	r.send(r.client(a), 40)
	eventually(t, "and leaves the connector to who has the session", func() bool { return r.provider.of("b") == n+40 })
	r.provider.once(t, n+40)
}

func TestMissedChangesAreReadAnew(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := newRig(t)
	a, b := r.begin("a"), r.begin("b")
	b.view.Late(true)
	r.connect(r.client(a), nil)
	r.shared.Forget()
	b.view.Late(false)
	eventually(t, "the connector is there", func() bool {
		seen, err := r.client(b).Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+12025550100"})
		return err == nil && seen.Connector == "main"
	})
}

// An engine with a store of its own is no member of anything, and says so.
func TestAloneIsNoCluster(t *testing.T) {
	t.Parallel()
	e, err := engine.New(engine.Config{Dir: t.TempDir()}, kind())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	require.NoError(t, e.Start(t.Context()))
	m := &member{Engine: e}
	require.NotContains(t, metricsOf(t, m), "msgctl_cluster")
	require.NotContains(t, get(t, m, "/readyz").body, "cluster")
	status, err := mustClient(t, m).Cluster(t.Context())
	require.NoError(t, err)
	require.True(t, status.Embedded)
	require.Len(t, status.Nodes, 1)
	require.Equal(t, sdk.NodeAlive, status.Nodes[0].State)
	require.Equal(t, []string{"api", "deliver", "schedule", "webhook"}, status.Nodes[0].Roles)
}

// copyKey gives a directory the master key of another; "" = none.
func copyKey(t *testing.T, from, dir string) {
	t.Helper()
	if from == "" {
		return
	}
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(dir+"/master.key", b, 0o600))
}

// All that a cluster stands on but the broker, which starts slowly and has its own tests.
func TestSharedRatesAndNews(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := newRig(t)
	cache := servers.Redis(t).URL
	with := func(c *engine.Config) { c.Limits = cache }
	a, b := r.begin("a", with), r.begin("b", with)
	c := r.client(a)
	const rate, burst = 100, 10
	_, err := c.Connectors.Put(ctx, "main", sdk.ConnectorRequest{Kind: "line", Rate: rate, Burst: burst})
	require.NoError(t, err)
	eventually(t, "the limits are shared", func() bool {
		status, err := mustClient(t, a).Cluster(ctx)
		return err == nil && status.Parts["limits"] == "ok"
	})
	began := time.Now()
	n := r.send(c, 100) + r.send(r.client(b), 100)
	eventually(t, "all are sent", func() bool { return r.provider.total() == n })
	require.GreaterOrEqual(t, time.Since(began).Seconds()*rate+2*burst, float64(n), "no faster than the connector's rate")
	r.provider.once(t, n)
}
