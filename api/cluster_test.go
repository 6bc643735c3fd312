package api

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// A node serves what its roles say, and always how it is.
func TestRolesOfANode(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(d *Deps) {
		d.NoAPI, d.NoCallbacks = "no role api", "no role webhook"
		d.Parts = func(context.Context) map[string]string { return map[string]string{"disk": "ok"} }
		d.Aids = func(context.Context) map[string]string { return map[string]string{"broker": "away"} }
	})
	for path, says := range map[string]string{
		"/v1/messages": "no role api", "/v1/whoami": "no role api", "/v1/cluster": "no role api",
		"/v1/inbound/x": "no role webhook",
	} {
		a := r.get(r.acme, path)
		require.Equal(t, http.StatusNotFound, a.status, path)
		require.Contains(t, string(a.body), says, path)
	}
	for _, path := range []string{"/healthz", "/version", "/openapi.json", "/docs"} {
		require.Equal(t, http.StatusOK, r.get("", path).status, path)
	}
	a := r.get("", "/readyz")
	require.Equal(t, http.StatusOK, a.status, "what only makes it slower does not take it out of service")
	var h sdk.Health
	a.decode(t, &h)
	require.True(t, h.OK)
	require.Equal(t, "away", h.Parts["broker"], "and is shown")
}

func TestClusterIsTheOperators(t *testing.T) {
	t.Parallel()
	answer := sdk.Cluster{
		Answered: "a", Parts: map[string]string{"store": "ok"},
		Nodes: []sdk.Node{{Name: "a", State: sdk.NodeAlive, Roles: []string{"api"}}},
	}
	var fails error
	r := newRig(t, func(d *Deps) {
		d.Cluster = func(context.Context) (sdk.Cluster, error) { return answer, fails }
		d.Backup = func(context.Context) (sdk.Backup, error) { return sdk.Backup{Path: "/x"}, fails }
	})
	require.Equal(t, http.StatusNotFound, r.get(r.acme, "/v1/cluster").status, "a tenant learns nothing")
	require.Equal(t, http.StatusNotFound, r.post(r.acme, "/v1/backup", "").status)
	a := r.get(r.admin, "/v1/cluster")
	require.Equal(t, http.StatusOK, a.status)
	var got sdk.Cluster
	a.decode(t, &got)
	require.Equal(t, answer, got)
	require.Equal(t, http.StatusCreated, r.post(r.admin, "/v1/backup", "").status)
	fails = errors.Join(store.ErrUnavailable)
	require.Equal(t, http.StatusServiceUnavailable, r.get(r.admin, "/v1/cluster").status)
	require.Equal(t, http.StatusServiceUnavailable, r.post(r.admin, "/v1/backup", "").status)

	bare := newRig(t)
	require.Equal(t, http.StatusNotFound, bare.get(bare.admin, "/v1/cluster").status)
	require.Contains(t, string(bare.post(bare.admin, "/v1/backup", "").body), "PostgreSQL")
}

// What another process has stored takes effect when the handler is told, not before the caches are over.
func TestForget(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(h *Handler, k delivery.KeyID){
		"the key": func(h *Handler, k delivery.KeyID) { h.ForgetKey(k) },
		"all":     func(h *Handler, _ delivery.KeyID) { h.ForgetAll() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			require.Equal(t, http.StatusOK, r.get(r.acme, "/v1/whoami").status)
			keys, err := r.store.KeyList(t.Context(), system(), "acme")
			require.NoError(t, err)
			require.NoError(t, r.store.RevokeKey(t.Context(), system(), "acme", keys[0].ID, r.clock.Now()))
			require.Equal(t, http.StatusOK, r.get(r.acme, "/v1/whoami").status, "it is remembered")
			forget(&Handler{r.api}, keys[0].ID)
			require.Equal(t, http.StatusUnauthorized, r.get(r.acme, "/v1/whoami").status)
		})
	}
	r := newRig(t)
	require.Zero(t, r.api.rates.of(t.Context(), "acme"))
	row, err := r.store.Tenant(t.Context(), system(), "acme")
	require.NoError(t, err)
	row.AcceptRate = 7
	require.NoError(t, r.store.UpdateTenant(t.Context(), system(), row))
	require.Zero(t, r.api.rates.of(t.Context(), "acme"))
	(&Handler{r.api}).ForgetTenant("acme")
	require.Equal(t, 7.0, r.api.rates.of(t.Context(), "acme"))
}
