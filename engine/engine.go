// Package engine assembles the whole of msgctl and runs it: the same for the server, for programs that embed it, for
// features and for examples.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jonboulle/clockwork"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/msgctl/msgctl/api"
	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/cluster"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/egress"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/news"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
	"github.com/msgctl/msgctl/tracing"
	"github.com/msgctl/msgctl/vault"
)

// system is the scope of the engine's own work.
var system = store.AsSystem("engine")

// Engine is one assembled engine. Its methods are safe for concurrent use; Start and Shutdown are safe twice.
type Engine struct {
	cfg       Config
	log       *slog.Logger
	store     store.Store
	lock      *dirLock        // of a directory without a database; else nil
	member    *cluster.Member // nil = the store is this engine's alone
	news      *news.News      // with member; without Redis it stays in the process
	began     time.Time
	vault     *vault.Vault
	registry  *connectors.Registry
	guard     *egress.Guard
	wires     wires
	limiter   limits.Limiter
	metrics   *prometheus.Registry
	tracer    *tracing.Tracer // nil = nothing is traced
	router    *message.Router
	pipeline  *pipeline.Pipeline
	campaigns *campaigns.Service
	ids       *delivery.IDs
	handler   *api.Handler
	accounts  accounts
	sessions  sessions
	door      door

	addr atomic.Value // string

	mu       sync.Mutex
	server   *http.Server
	cancel   context.CancelFunc // set once anything runs
	wg       sync.WaitGroup
	routing  bool // the router runs
	started  bool
	closed   bool
	shutdown sync.Once
	stopErr  error
	clients  map[delivery.TenantID]clientKey
}

// New opens the store and assembles an engine that knows the given kinds of connectors. Nothing runs before Start.
func New(cfg Config, kinds ...connectors.Kind) (_ *Engine, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return build(cfg.withDefaults(), openStore, kinds)
}

// opener opens the store of a configuration.
type opener func(ctx context.Context, cfg *Config, now func() time.Time) (store.Store, error)

func build(cfg Config, open opener, kinds []connectors.Kind) (_ *Engine, err error) {
	// The clock is set by the store's when that is shared. Everything of the engine goes by it, unless it is turned by hand:
	// then nothing sets it, and only signs of life go by the store's time.
	elapsed := cfg.Clock
	clock := cluster.NewClock(elapsed)
	if byHand(elapsed) {
		clock = cluster.NewClock(clockwork.NewRealClock())
	} else if cfg.shared() {
		cfg.Clock = clock
	}
	began := elapsed.Now()
	e := &Engine{cfg: cfg, log: cfg.Logger, registry: connectors.NewRegistry(kinds...), clients: map[delivery.TenantID]clientKey{}}
	e.ids = delivery.NewIDs(cfg.Clock.Now)
	e.guard = egress.New(egress.Policy{AllowLoopback: cfg.AllowPrivate, AllowPrivate: cfg.AllowPrivate, AllowHTTP: cfg.AllowPrivate})
	e.accounts.http = e.guard.HTTPClient()
	e.began = cfg.Clock.Now().UTC()
	ctx := context.Background()
	defer func() {
		if err != nil {
			err = errors.Join(err, e.closeParts())
		}
	}()
	if cfg.shared() {
		if e.lock, err = lockDir(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if e.store, err = open(ctx, &cfg, cfg.Clock.Now); err != nil {
		return nil, err
	}
	if e.vault, err = openVault(ctx, &cfg, e.store); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	e.metrics = metrics
	if err := e.openTracer(ctx); err != nil {
		return nil, err
	}
	e.openMember(clock)
	if e.member != nil {
		if e.news, err = openNews(ctx, &cfg); err != nil {
			return nil, err
		}
	}
	if e.wires, err = openWires(&cfg, cfg.Clock.Now); err != nil {
		return nil, err
	}
	if e.limiter, err = openLimits(ctx, &cfg, e.senders, elapsed); err != nil {
		return nil, err
	}
	if e.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, broker.Logger(cfg.Logger)); err != nil {
		return nil, err
	}
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(cfg.Version))
	e.openDoor(metrics)
	options := pipeline.Options{
		Store: e.store, Limiter: e.limiter, Templates: templates.NewCache(4096), Router: e.router,
		Publish: e.wires, Subscribe: e.wires, Clock: cfg.Clock, Log: cfg.Logger, Metrics: metrics,
		Node: alone, Dir: filepath.Join(cfg.Dir, "journal"), Retry: cfg.Retry, Jitter: cfg.RetryJitter,
		Lease: cfg.Lease, Linger: linger(elapsed),
		Elapsed:    func() time.Duration { return elapsed.Since(began) },
		NoDelivery: !cfg.has(cluster.Deliver), NoUpkeep: !cfg.has(cluster.Schedule),
	}
	if e.member != nil {
		options.Node, options.Run, options.Past = cfg.Node, e.member.RunText(), []string{alone}
		options.Held, options.Settle, options.Lives = e.heldBack, e.settle, e.member.Lives
	}
	if e.tracer != nil {
		options.Tracer = e.tracer
	}
	if e.pipeline, err = pipeline.New(options); err != nil {
		return nil, err
	}
	metrics.MustRegister(partMetrics{e})
	e.campaigns = campaigns.New(campaigns.Deps{
		Store: e.store, IDs: e.ids, Clock: cfg.Clock, Log: cfg.Logger, Dir: cfg.Dir,
		Accepted: e.hint, PausedChanged: e.campaignPaused, Rates: e.rateInForce, Mine: e.mine,
		Yield: func() bool { return e.door.gate.Yields(cfg.Clock.Now()) },
	})
	deps := api.Deps{
		Store: e.store, Accept: e.pipeline, Registry: e.registry, Vault: e.vault, IDs: e.ids, Now: cfg.Clock.Now, Log: cfg.Logger,
		Campaigns: e.campaigns, Traffic: e.pipeline, Operator: e, Callbacks: e.pipeline, URLAllowed: e.guard.CheckURL,
		Admission: e.door.gate, Parts: e.parts, Aids: e.aids, Hints: e.pipeline, Routes: routes{e.pipeline},
		Cluster: e.Cluster, Backup: e.backup(), NoAPI: e.missing(cluster.API, "serve the API"),
		NoCallbacks: e.missing(cluster.Webhook, "take reports of providers"),
		Metrics:     promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), Version: cfg.Version, PublicURL: e.publicURL(),
	}
	if e.tracer != nil {
		deps.Tracing = e.tracer
	}
	e.handler = api.New(deps)
	return e, nil
}

// alone names the one process of an embedded store in claims.
const alone = "embedded"

// closeParts ends what New has opened.
func (e *Engine) closeParts() error {
	var errs []error
	if e.wires.near != nil {
		errs = append(errs, e.wires.Close())
	}
	if e.news != nil {
		errs = append(errs, e.news.Close())
	}
	if e.limiter != nil {
		errs = append(errs, closer(e.limiter))
	}
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	if err := e.tracer.Close(context.Background()); err != nil { // what is lost are spans: no reason to have failed
		e.log.Warn("the last spans are lost", "err", err)
	}
	return errors.Join(append(errs, e.lock.release())...)
}

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "msgctl_build_info", Help: "The version that runs; always 1."}, []string{"version"})
	g.WithLabelValues(version).Set(1)
	return g
}

func (e *Engine) publicURL() string {
	if e.cfg.PublicURL != "" || e.cfg.Listen == "" {
		return e.cfg.PublicURL
	}
	return "http://" + e.cfg.Listen
}

// hint tells the pipeline about a slice of a campaign.
func (e *Engine) hint(results []store.AcceptResult, q delivery.Queue) {
	e.pipeline.Expanded(q, results)
}

// Start settles what an earlier process left, opens the connectors, runs the pipeline and listens.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.started:
		return nil
	case e.cancel != nil:
		return errors.New("an engine whose start failed cannot be started again: close it and make a new one")
	}
	// The port comes first: when it is taken nothing has begun, and a later Start can try again.
	var ln net.Listener
	if e.cfg.Listen != "" {
		var err error
		if ln, err = net.Listen("tcp", e.cfg.Listen); err != nil {
			return fmt.Errorf("listen on %s: %w: stop what uses the port or set another with --listen", e.cfg.Listen, err)
		}
	}
	addr := ""
	if ln != nil {
		addr = ln.Addr().String()
	}
	if err := e.start(ctx, addr); err != nil {
		if ln != nil {
			_ = ln.Close()
		}
		return err
	}
	if ln != nil {
		e.addr.Store(ln.Addr().String())
		e.server = api.Server(e.handler, e.log)
		bounded := api.Connections(e.server, ln, e.cfg.Admission.MaxConnections)
		e.wg.Go(func() { _ = e.server.Serve(bounded) })
	}
	e.started = true
	attrs := []any{"listen", e.Addr(), "dir", e.cfg.Dir, "version", e.cfg.Version}
	if e.member != nil {
		attrs = append(attrs, "node", e.cfg.Node, "roles", e.cfg.roles())
	}
	e.log.Info("engine is ready", attrs...)
	return nil
}

// start runs everything but the server. After a failure the engine can only be closed.
func (e *Engine) start(ctx context.Context, addr string) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	// A node joins before it reads anything that it remembers: what is changed from then on, it is told of.
	if err := e.join(ctx, addr); err != nil {
		return err
	}
	if e.member != nil {
		e.wg.Go(func() { e.member.Run(run) })
		heard := e.news.Subscribe(newsOfChanges)
		e.wg.Go(func() { e.hear(heard) })
	}
	if err := e.ensureOperator(ctx); err != nil {
		return err
	}
	e.checkDisk()
	e.wg.Go(func() { e.watchDisk(run) })
	e.routing = true
	e.wg.Go(func() {
		if err := e.router.Run(run); err != nil {
			e.log.Error("the message router stopped", "err", err)
		}
	})
	select {
	case <-e.router.Running():
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := e.loadAccounts(ctx); err != nil {
		return err
	}
	if err := e.pipeline.Start(ctx); err != nil {
		return err
	}
	if !e.cfg.has(cluster.Schedule) {
		return nil
	}
	e.wg.Go(func() {
		if err := e.campaigns.Run(run); err != nil && run.Err() == nil {
			e.log.Error("the expansion of campaigns stopped", "err", err)
		}
	})
	return nil
}

// Addr returns the address the API listens on, "" when it does not.
func (e *Engine) Addr() string {
	addr, _ := e.addr.Load().(string)
	return addr
}

// ErrClosed is what Start and Client return after Shutdown.
var ErrClosed = errors.New("the engine is closed")

// Handler returns the HTTP API for an embedder's own server.
func (e *Engine) Handler() http.Handler { return e.handler }

// Quiet reports whether nothing is under way and nothing that is due could go. Tests with a clock of their own turn it
// when the engine is quiet.
func (e *Engine) Quiet(ctx context.Context) (bool, error) { return e.pipeline.Quiet(ctx) }

// NextDue returns the earliest time after now at which something can happen by itself, or the zero time.
func (e *Engine) NextDue(ctx context.Context) (time.Time, error) { return e.pipeline.NextDue(ctx) }

// Shutdown drains: no new requests, no new attempts; attempts under way may end within the drain timeout or ctx. The
// error wraps pipeline.ErrUnanswered when some had to be left without an answer.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.shutdown.Do(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.closed = true
		ctx, cancel := context.WithTimeout(ctx, e.cfg.DrainTimeout)
		defer cancel()
		var errs []error
		if e.member != nil { // first, so that nobody leaves work to this node
			e.member.Drain(ctx)
		}
		if e.server != nil {
			quick, stop := context.WithTimeout(ctx, 5*time.Second)
			if err := e.server.Shutdown(quick); err != nil {
				errs = append(errs, e.server.Close())
			}
			stop()
		}
		errs = append(errs, e.pipeline.Shutdown(ctx))
		if e.cancel != nil {
			e.cancel()
		}
		if e.routing { // a router that never ran would wait for its handlers
			errs = append(errs, e.router.Close())
		}
		errs = append(errs, e.wires.Close())
		if e.news != nil {
			errs = append(errs, e.news.Close())
		}
		e.wg.Wait()
		errs = append(errs, e.dropClients())
		if e.member != nil { // last: until then its name and its sessions are its own
			errs = append(errs, e.member.Leave(context.WithoutCancel(ctx)))
		}
		errs = append(errs, e.closeParts())
		e.stopErr = errors.Join(errs...)
	})
	return e.stopErr
}

// Close is Shutdown with the drain timeout as the only bound.
func (e *Engine) Close() error { return e.Shutdown(context.Background()) }
