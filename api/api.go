// Package api is the engine's HTTP interface under /v1.
//
// One table of routes (routes.go) registers the handlers and writes the OpenAPI document. A request passes, in this
// order: request id, route, key, tenant, query parameters, body, and only then its handler. What it answers when
// something is wrong is always a problem document (RFC 9457) with a stable code.
package api

import (
	"log/slog"
	"sync"

	"github.com/msgctl/msgctl/admission"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/templates"
)

// templateCache is how many compiled templates are kept for checking messages.
const templateCache = 512

type api struct {
	Deps
	router   *router
	keys     *keyCache
	rates    *rateCache
	cursors  cursors
	running  *inFlight
	recount  chan struct{} // one audit at a time: each reads everything that a tenant has
	tenants  sync.Mutex    // one change of a tenant's row at a time
	accounts sync.Mutex    // and of a connector's
	sets     *templates.Cache
	zones    sync.Map // name → *time.Location of zones that exist: bounded by the time zone database
	openapi  []byte
	docs     []byte
}

// New makes the handler of the whole API. It panics when a required dependency is missing.
func New(d Deps) *Handler { return &Handler{newAPI(d)} }

func newAPI(d Deps) *api {
	if d.Store == nil || d.Registry == nil || d.Vault == nil || d.IDs == nil || d.Now == nil {
		panic("api: Store, Registry, Vault, IDs and Now are required")
	}
	if d.Accept == nil {
		d.Accept = d.Store
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.URLAllowed == nil {
		d.URLAllowed = func(string) error { return nil }
	}
	if d.Version == "" {
		d.Version = "dev"
	}
	if d.Admission == nil {
		d.Admission = admission.New(nil)
	}
	d.Accept = paying{d.Accept, d.Admission, d.Now}
	d.Limits = d.Limits.withDefaults()
	a := &api{Deps: d, running: newInFlight(), recount: make(chan struct{}, 1), sets: templates.NewCache(templateCache)}
	a.keys = newKeyCache(d.Store, d.Vault.Pepper(), d.Now)
	a.rates = newRateCache(d.Store, d.Now)
	a.cursors = cursors{key: d.Vault.Derive("cursors v1")}
	routes := routes()
	a.router = newRouter(routes)
	a.openapi = openAPI(routes, d.Version, d.PublicURL)
	a.docs = docsPage(routes, d.Version)
	return a
}

// changed tells the running engine, where there is one, that accounts have changed.
func (a *api) changed(c *call) {
	if a.Operator != nil {
		a.Operator.ConnectorsChanged(c.ctx())
	}
}

// system is the scope of the API's work that belongs to no tenant.
func system() store.System { return store.AsSystem("api") }

// shared reports whether a tenant id stands for the operator.
func shared(t delivery.TenantID) bool { return t == delivery.Shared }
