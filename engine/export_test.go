package engine

import (
	"context"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/store"
)

// InProcess is the transport of clients inside the process.
func InProcess(h http.Handler) http.RoundTripper { return inProcess{h} }

// SetSpace makes the disk check ask f. It must be called before Start.
func (e *Engine) SetSpace(f func(dir string) (free, total uint64, err error)) { e.door.space = f }

// NewOn is New on a store that the test has opened.
func NewOn(cfg Config, s store.Store, kinds ...connectors.Kind) (*Engine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return build(cfg.withDefaults(), func(context.Context, *Config, func() time.Time) (store.Store, error) {
		return s, nil
	}, kinds)
}

// Vanish ends the engine as a kill would, as far as the others can see: it claims nothing more, sends nothing more, says
// nothing more, and leaves everything as it is. What it holds in this process is freed all the same.
func (e *Engine) Vanish() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if e.cancel != nil {
		e.cancel()
	}
	_ = e.pipeline.Shutdown(ctx)
	if e.routing {
		_ = e.router.Close()
	}
	if e.news != nil {
		_ = e.news.Close()
	}
	e.wg.Wait()
	_ = e.closeParts()
	e.shutdown.Do(func() {})
}
