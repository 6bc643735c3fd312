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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/msgctl/msgctl/api"
	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/campaigns"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/internal/egress"
	"github.com/msgctl/msgctl/limits/memory"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/templates"
	"github.com/msgctl/msgctl/vault"
)

// system is the scope of the engine's own work.
var system = store.AsSystem("engine")

// Engine is one assembled engine. Its methods are safe for concurrent use; Start and Shutdown are safe twice.
type Engine struct {
	cfg       Config
	log       *slog.Logger
	store     *sqlite.Store
	vault     *vault.Vault
	registry  *connectors.Registry
	guard     *egress.Guard
	broker    *broker.Broker
	router    *message.Router
	pipeline  *pipeline.Pipeline
	campaigns *campaigns.Service
	ids       *delivery.IDs
	handler   http.Handler
	accounts  accounts
	door      door

	addr atomic.Value // string

	mu       sync.Mutex
	server   *http.Server
	cancel   context.CancelFunc // set once anything runs
	wg       sync.WaitGroup
	started  bool
	closed   bool
	shutdown sync.Once
	stopErr  error
	clients  map[delivery.TenantID]clientKey
}

// New opens the store and assembles an engine that knows the given kinds of connectors. Nothing runs before Start.
func New(cfg Config, kinds ...connectors.Kind) (_ *Engine, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, log: cfg.Logger, registry: connectors.NewRegistry(kinds...), clients: map[delivery.TenantID]clientKey{}}
	e.ids = delivery.NewIDs(cfg.Clock.Now)
	e.guard = egress.New(egress.Policy{AllowLoopback: cfg.AllowPrivate, AllowPrivate: cfg.AllowPrivate, AllowHTTP: cfg.AllowPrivate})
	e.accounts.http = e.guard.HTTPClient()
	ctx := context.Background()
	if e.store, err = sqlite.Open(ctx, sqlite.Options{Dir: cfg.Dir, Log: cfg.Logger, Now: cfg.Clock.Now}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.store.Close())
		}
	}()
	if e.vault, err = vault.LoadOrCreate(filepath.Join(cfg.Dir, "master.key")); err != nil {
		return nil, err
	}
	if e.broker, err = broker.Open(cfg.Broker, cfg.Logger); err != nil {
		return nil, err
	}
	if e.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, broker.Logger(cfg.Logger)); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(cfg.Version))
	e.openDoor(metrics)
	e.pipeline, err = pipeline.New(pipeline.Options{
		Store: e.store, Limiter: memory.New(), Templates: templates.NewCache(4096), Router: e.router,
		Publish: e.broker, Subscribe: e.broker, Clock: cfg.Clock, Log: cfg.Logger, Metrics: metrics,
		Node: "embedded", Dir: filepath.Join(cfg.Dir, "journal"), Retry: cfg.Retry, Jitter: cfg.RetryJitter,
		Lease: cfg.Lease,
	})
	if err != nil {
		return nil, err
	}
	e.campaigns = campaigns.New(campaigns.Deps{
		Store: e.store, IDs: e.ids, Clock: cfg.Clock, Log: cfg.Logger, Dir: cfg.Dir,
		Accepted: e.hint, PausedChanged: e.pipeline.CampaignPaused, Rates: e.rateInForce,
		Yield: func() bool { return e.door.gate.Yields(cfg.Clock.Now()) },
	})
	e.handler = api.New(api.Deps{
		Store: e.store, Accept: e.pipeline, Registry: e.registry, Vault: e.vault, IDs: e.ids, Now: cfg.Clock.Now, Log: cfg.Logger,
		Campaigns: e.campaigns, Traffic: e.pipeline, Operator: e, Callbacks: e.pipeline, URLAllowed: e.guard.CheckURL,
		Admission: e.door.gate, Parts: e.parts, Hints: e.pipeline, Routes: routes{e.pipeline},
		Metrics: promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), Version: cfg.Version, PublicURL: e.publicURL(),
	})
	return e, nil
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
	ids := make([]delivery.MessageID, 0, len(results))
	for _, r := range results {
		if r.Status == delivery.StatusQueued {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) > 0 {
		e.pipeline.Hint(q, ids)
	}
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
	if err := e.start(ctx); err != nil {
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
	e.log.Info("engine is ready", "listen", e.Addr(), "dir", e.cfg.Dir, "version", e.cfg.Version)
	return nil
}

// start runs everything but the server. After a failure the engine can only be closed.
func (e *Engine) start(ctx context.Context) error {
	if err := e.ensureOperator(ctx); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	e.checkDisk()
	e.wg.Go(func() { e.watchDisk(run) })
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
		if e.server != nil {
			quick, stop := context.WithTimeout(ctx, 5*time.Second)
			if err := e.server.Shutdown(quick); err != nil {
				errs = append(errs, e.server.Close())
			}
			stop()
		}
		errs = append(errs, e.pipeline.Shutdown(ctx))
		if e.cancel != nil { // a router that never ran would wait for its handlers
			e.cancel()
			errs = append(errs, e.router.Close())
		}
		errs = append(errs, e.broker.Close())
		e.wg.Wait()
		errs = append(errs, e.dropClients(), e.store.Close())
		e.stopErr = errors.Join(errs...)
	})
	return e.stopErr
}

// Close is Shutdown with the drain timeout as the only bound.
func (e *Engine) Close() error { return e.Shutdown(context.Background()) }
