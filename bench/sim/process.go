package sim

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/memory"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/templates"
)

// process is one life of the engine, from its start to its end by a kill or a drain.
type process struct {
	topics  sync.Map // topic → chan struct{}: who publishes on it
	w       *world
	n       int
	dead    atomic.Bool // killed: nothing that it still does has an effect
	gone    chan struct{}
	up      atomic.Bool        // Start has returned
	failed  atomic.Bool        // Start has failed
	drained chan error         // has what Shutdown returned
	hurry   context.CancelFunc // of a drain; nil = there is none

	journal string
	store   *sqlite.Store
	pipe    *pipeline.Pipeline
	open    map[*account]*routing.Account
	stop    func() error // ends what is around the pipeline
}

// node is the name of each process in turn: there is one machine.
const node = "node"

// launch starts the next process on what the last one left behind.
func (w *world) launch(journal string) {
	p := &process{
		w: w, n: w.launched, gone: make(chan struct{}), drained: make(chan error, 1), journal: journal,
		open: map[*account]*routing.Account{},
	}
	w.launched++
	w.now = p
	log := slog.New(slog.DiscardHandler)
	if w.opt.Log != nil {
		log = w.opt.Log.With("process", p.n)
	}
	var err error
	if p.store, err = sqlite.Open(w.ctx, sqlite.Options{Dir: w.dir, Now: w.clock.Now}); err != nil {
		panic(fmt.Sprintf("sim: the store does not open: %v", err))
	}
	b, err := broker.Open(broker.Memory, log)
	must(err)
	router, err := wm.NewRouter(wm.RouterConfig{}, broker.Logger(log))
	must(err)
	var limiter limits.Limiter = memory.New()
	if w.opt.plant == plantNoLimits {
		limiter = generous{}
	}
	p.pipe, err = pipeline.New(pipeline.Options{
		Store: &calls{Store: p.store, p: p}, Limiter: limiter, Templates: templates.NewCache(8), Router: router,
		Publish: hints{b, p}, Subscribe: b, Clock: w.clock, Log: log, Metrics: prometheus.NewRegistry(), Node: node,
		Dir: journal, Lease: w.lease, InFlight: w.inFlight, Retry: w.retry, Elapsed: w.passed,
		Chance: func(id delivery.MessageID, attempt int) float64 { return w.roll("jitter", w.byID[id].n, attempt) },
	})
	must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	ran := make(chan error, 1)
	go func() { ran <- router.Run(ctx) }()
	<-router.Running()
	p.stop = func() error {
		cancel()
		err := <-ran
		if e := router.Close(); err == nil {
			err = e
		}
		if e := b.Close(); err == nil {
			err = e
		}
		if e := p.store.Close(); err == nil {
			err = e
		}
		return err
	}
	p.setAccounts()
	go func() {
		if err := p.pipe.Start(w.ctx); err != nil {
			p.failed.Store(true)
			return
		}
		p.up.Store(true)
	}()
}

// setAccounts opens the accounts as they are now. An account that has not changed stays the same.
func (p *process) setAccounts(changed ...*account) {
	for _, a := range changed {
		delete(p.open, a)
	}
	list := make([]*routing.Account, len(p.w.accounts))
	for i, a := range p.w.accounts {
		if p.open[a] == nil {
			p.open[a] = a.open(p)
		}
		list[i] = p.open[a]
	}
	p.pipe.SetAccounts(list)
}

// kill ends the process where it stands. What it has written stays, what it has not is lost.
func (w *world) kill() (journal string) {
	p := w.now
	w.now = nil
	journal = filepath.Join(w.dir, fmt.Sprintf("journal-%d", w.launched))
	if w.opt.plant != plantNoJournal {
		must(os.CopyFS(journal, os.DirFS(p.journal)))
		if w.rnd.IntN(8) == 0 {
			w.tear(journal)
		}
	}
	w.gate.kill(p)
	w.clock.forget()
	if p.hurry == nil {
		p.drain()
	}
	p.hurry()
	<-p.drained //nolint:errcheck // its goroutines have ended; what a killed process says does not count
	must(p.stop())
	must(os.RemoveAll(p.journal))
	return journal
}

// tear cuts off the end of the newest segment, in the middle of its last record.
func (w *world) tear(journal string) {
	files, err := filepath.Glob(filepath.Join(journal, "*.journal"))
	must(err)
	if len(files) == 0 {
		return
	}
	last := files[len(files)-1]
	st, err := os.Stat(last)
	must(err)
	must(os.Truncate(last, max(0, st.Size()-1-int64(w.rnd.IntN(9)))))
	w.torn = true
	w.logf("the journal's last record is cut")
}

// drain asks the process to end in good order; it has as long as the longest attempt may take, and more.
func (p *process) drain() {
	var ctx context.Context
	ctx, p.hurry = context.WithTimeout(p.w.ctx, 5*time.Minute)
	go func() {
		defer p.hurry()
		p.drained <- p.pipe.Shutdown(ctx)
	}()
}

func must(err error) {
	if err != nil {
		panic("sim: " + err.Error())
	}
}
