package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits/memory"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/templates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sys = store.AsSystem("test")

// fake is a connector whose answer is decided by its field. The zero fake takes everything.
type fake struct {
	answer func(m *delivery.Outgoing, nth int) (delivery.Sent, error)

	mu   sync.Mutex
	seen []delivery.Outgoing
	nth  map[delivery.MessageID]int
}

func (f *fake) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	f.mu.Lock()
	if f.nth == nil {
		f.nth = map[delivery.MessageID]int{}
	}
	f.nth[m.ID]++
	n := f.nth[m.ID]
	f.seen = append(f.seen, *m)
	f.mu.Unlock()
	if f.answer != nil {
		return f.answer(m, n)
	}
	return delivery.Sent{ProviderID: m.ID.String()}, nil
}

func (f *fake) sends() []delivery.Outgoing {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]delivery.Outgoing(nil), f.seen...)
}

// rig is a pipeline on a real store with a fake connector.
type rig struct {
	t     testing.TB
	dir   string
	store *sqlite.Store
	pipe  *pipeline.Pipeline
	clock clockwork.Clock
	ids   *delivery.IDs
	fake  *fake
	kind  connectors.Kind
	acct  *routing.Account
	more  []*routing.Account        // open beside acct
	tune  func(o *pipeline.Options) // changes what the pipeline is made of; nil = nothing
	fault *faulty                   // the store as the pipeline sees it; nil = as it is

	router *message.Router
	broker *broker.Broker
	stop   func()
	once   sync.Once
}

const (
	patience = time.Minute
	tick     = 5 * time.Millisecond
)

const tenant = delivery.TenantID("acme")

func newRig(t testing.TB, clock clockwork.Clock, f *fake, change func(*rig)) *rig {
	r := &rig{t: t, dir: t.TempDir(), clock: clock, ids: delivery.NewIDs(clock.Now), fake: f}
	r.kind = connectors.Kind{
		Name: "fake", Channel: delivery.SMS, Ambiguity: connectors.None,
		Open: func(*connectors.Account) (connectors.Connector, error) { return f, nil },
	}
	r.acct = &routing.Account{
		ID: r.ids.Account(), Tenant: tenant, Name: "fake", Channel: delivery.SMS, Kind: &r.kind, Connector: f,
		Timeout: 5 * time.Second, Parallel: 8,
	}
	if change != nil {
		change(r)
	}
	r.open()
	require.NoError(t, r.store.CreateTenant(context.Background(), sys, store.Tenant{ID: tenant, CreatedAt: clock.Now()}))
	r.start()
	t.Cleanup(r.close)
	return r
}

func testLog() *slog.Logger {
	if testing.Verbose() && os.Getenv("TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

func (r *rig) open() {
	var err error
	r.store, err = sqlite.Open(context.Background(), sqlite.Options{Dir: r.dir, Now: r.clock.Now})
	require.NoError(r.t, err)
}

// start runs a pipeline on the open store.
func (r *rig) start() {
	var err error
	r.broker, err = broker.Open(broker.Memory, testLog())
	require.NoError(r.t, err)
	r.router, err = message.NewRouter(message.RouterConfig{}, broker.Logger(testLog()))
	require.NoError(r.t, err)
	opt := pipeline.Options{
		Store: r.store, Limiter: memory.New(), Templates: templates.NewCache(8), Router: r.router, Publish: r.broker,
		Subscribe: r.broker, Clock: r.clock, Log: testLog(), Metrics: prometheus.NewRegistry(), Node: "test",
		Dir: filepath.Join(r.dir, "journal"),
	}
	if r.fault != nil {
		r.fault.Store = r.store
		opt.Store = r.fault
	}
	if r.tune != nil {
		r.tune(&opt)
	}
	r.pipe, err = pipeline.New(opt)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.router.Run(ctx) }()
	<-r.router.Running()
	r.stop = func() { cancel(); <-done }
	r.pipe.SetAccounts(append([]*routing.Account{r.acct}, r.more...))
	require.NoError(r.t, r.pipe.Start(ctx))
	r.once = sync.Once{}
}

// shutdown drains the pipeline; the store stays open.
func (r *rig) shutdown() {
	r.once.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if r.t.Failed() { // its connector may stand still for ever
			cancel()
		}
		if err := r.pipe.Shutdown(ctx); !r.t.Failed() {
			require.NoError(r.t, err)
		}
		r.stop()
		require.NoError(r.t, r.router.Close())
		require.NoError(r.t, r.broker.Close())
	})
}

func (r *rig) close() {
	r.shutdown()
	require.NoError(r.t, r.store.Close())
}

// accept accepts n messages and returns their ids.
func (r *rig) accept(n int, change func(i int, m *store.NewMessage)) []delivery.MessageID {
	return r.acceptBy(r.pipe, n, change)
}

// acceptBy accepts n messages through an accepter: past the pipeline, nobody hints at them.
func (r *rig) acceptBy(by interface {
	Accept(context.Context, delivery.TenantID, store.Acceptance) (store.Accepted, error)
}, n int, change func(i int, m *store.NewMessage)) []delivery.MessageID {
	now := r.clock.Now()
	a := store.Acceptance{Now: now}
	ids := make([]delivery.MessageID, n)
	for i := range n {
		ids[i] = r.ids.Message()
		m := store.NewMessage{
			ID: ids[i], Channel: delivery.SMS, Lane: delivery.Normal, To: fmt.Sprintf("+1202%07d", i+6000000), Segments: 1,
			Payload: []byte(`{"content":{"text":"hello"}}`), DueAt: now, ExpiresAt: now.Add(time.Hour),
		}
		if change != nil {
			change(i, &m)
		}
		a.Messages = append(a.Messages, m)
	}
	_, err := by.Accept(context.Background(), tenant, a)
	require.NoError(r.t, err)
	return ids
}

// message reads a message.
func (r *rig) message(id delivery.MessageID) store.Message {
	r.t.Helper()
	m, err := r.store.Message(context.Background(), tenant, id)
	require.NoError(r.t, err)
	return m
}

// count is how many messages have a status.
func (r *rig) count(s delivery.Status) int {
	r.t.Helper()
	t, err := r.store.Tally(context.Background(), tenant, delivery.CampaignID{})
	require.NoError(r.t, err)
	return t[delivery.SMS][s]
}

// order is the ids of what the connector was given, in that order.
func (f *fake) order() []delivery.MessageID {
	ids := []delivery.MessageID{}
	for _, m := range f.sends() {
		ids = append(ids, m.ID)
	}
	return ids
}

// await waits until every message has one of the statuses.
func (r *rig) await(ids []delivery.MessageID, want ...delivery.Status) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		for _, id := range ids {
			m, err := r.store.Message(context.Background(), tenant, id)
			require.NoError(r.t, err)
			ok := false
			for _, w := range want {
				ok = ok || m.Status == w
			}
			if !ok {
				return false
			}
		}
		return true
	}, patience, tick, "not all are %v; the first is %v", want, lazily(func() string {
		m, _ := r.store.Message(context.Background(), tenant, ids[0])
		return m.Status.String() + " " + m.Reason + " " + m.Detail
	}))
}

type lazily func() string

func (f lazily) String() string { return f() }

// audited proves the books.
func (r *rig) audited() {
	r.t.Helper()
	a, err := r.store.Audit(context.Background(), tenant)
	require.NoError(r.t, err)
	require.Empty(r.t, a.Problems)
}
