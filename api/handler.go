package api

import (
	"context"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

// Handler is the whole API. It remembers a little of what the store says; where another process may change that, the
// Forget methods make it look again. They are safe for concurrent use, as all of it is.
type Handler struct{ api *api }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.api.ServeHTTP(w, r) }

// ForgetKey makes a revocation take effect that another process has stored.
func (h *Handler) ForgetKey(id delivery.KeyID) { h.api.keys.forget(id) }

// ForgetTenant makes changes of a tenant take effect that another process has stored.
func (h *Handler) ForgetTenant(id delivery.TenantID) { h.api.rates.forget(id) }

// ForgetAll makes it look everything up anew.
func (h *Handler) ForgetAll() {
	h.api.keys.forgetAll()
	h.api.rates.forgetAll()
}

// KeyOperator is an optional capability of an Operator.
type KeyOperator interface {
	// KeyRevoked is called after a key was revoked, before that is answered for.
	KeyRevoked(ctx context.Context)
}

// Cluster answers questions about the nodes that share the store.
type Cluster func(ctx context.Context) (sdk.Cluster, error)

func cluster(c *call) error {
	if c.a.Cluster == nil {
		return noRoute()
	}
	out, err := c.a.Cluster(c.ctx())
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, out)
}

// Backup copies the database into a new file, while everything goes on.
type Backup func(ctx context.Context) (sdk.Backup, error)

// backupTime bounds a backup: 100 GB at 30 MB a second.
const backupTime = time.Hour

func backup(c *call) error {
	if c.a.Backup == nil {
		return fail("not_found", "this engine has no database of its own: back up the PostgreSQL that it uses")
	}
	c.extend(backupTime)
	out, err := c.a.Backup(c.ctx())
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, out)
}

// closed says why a route is not served here; "" = it is. What says how the node is, is served by every node.
func (a *api) closed(rt *route) string {
	switch {
	case rt.scope == public:
		return ""
	case rt.scope == provider:
		return a.NoCallbacks
	}
	return a.NoAPI
}
