package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/apikey"
)

// makes are the routes that make one's own thing of the name in the path instead of looking for one.
var makes = []string{"putTemplate", "putConnector", "importAudience"}

// TestEveryRouteWithAForeignID goes through the table of routes: whatever id or name stands in a path, a tenant gets the
// same answer for what another tenant has as for what nobody has, and nothing changes.
func TestEveryRouteWithAForeignID(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Callbacks = &signed{} })
	r.fill(r.acme)
	message := r.accept(r.acme, hello).ID
	var key struct{ ID, Secret string }
	r.post(r.acme, "/v1/keys", `{"name":"ci","mode":"live"}`).decode(t, &key)
	theirs := map[string]string{
		"messages": message, "campaigns": "spring", "audiences": "people", "templates": "welcome", "connectors": "alpha",
		"keys": key.ID, "tenants": "acme", "inbound": r.ids.Account().String(),
	}
	same := http.Header{"X-Request-Id": {"same"}}
	before, _, err := r.store.Events(context.Background(), "acme", 0, 1000)
	require.NoError(t, err)
	tried := 0
	for _, rt := range routes() {
		if !strings.Contains(rt.path, "{") {
			continue
		}
		noun := strings.Split(rt.path, "/")[2]
		foreign, ok := theirs[noun]
		require.True(t, ok, "the route %s has no foreign id: add one to this test", rt.path)
		guess := swapLast(foreign)
		ids := []string{
			foreign, guess, "nobody", "..%2f", "%2e%2e%2f" + foreign, "..%5c" + foreign, "%00", foreign + "%00", foreign + "%20",
			foreign + "%2f", "%ff", "*", "'%20or%201=1--", strings.ToUpper(foreign) + "x", strings.Repeat("a", 10_000),
		}
		method := strings.Replace(rt.method, anyMethod, "POST", 1)
		first := ""
		for _, id := range ids {
			if slices.Contains(makes, rt.id) && (id == foreign || id == guess || id == "nobody" || id == ids[13]) {
				continue // a name like any other: it would become one's own
			}
			path := strings.NewReplacer("{id}", id, "{name}", id, "{account}", id).Replace(rt.path)
			require.NotContains(t, path, "{")
			q := request{method: method, path: path, key: r.globex, header: same}
			switch {
			case rt.id == "importAudience":
				q.media, q.body = "text/csv", "phone\n+12025550100\n"
			case rt.in != nil, rt.scope == provider:
				q.body = "{}"
			}
			a := r.send(q)
			what := fmt.Sprintf("%s %s with %.60s", rt.method, rt.path, id)
			tried++
			if len(id) > 1000 { // a path of this length is at no address; nobody's id is as long
				require.Equal(t, "not_found", a.problem(t).Code, what)
				continue
			}
			if slices.Contains(makes, rt.id) {
				require.Equal(t, "invalid_name", a.problem(t).Code, what)
				continue
			}
			require.Equal(t, 404, a.status, what+": "+a.body)
			if first == "" {
				first = a.body
			}
			require.Equal(t, first, a.body, what)
		}
	}
	require.Greater(t, tried, 300, "the walk has missed routes")

	after, _, err := r.store.Events(context.Background(), "acme", 0, 1000)
	require.NoError(t, err)
	require.Equal(t, before, after, "something of the other tenant has changed")
	require.Equal(t, 200, r.get(key.Secret, "/v1/whoami").status, "the other tenant's key was revoked")
	for noun, id := range theirs {
		if noun != "keys" && noun != "tenants" && noun != "inbound" {
			require.Equal(t, 200, r.get(r.acme, "/v1/"+noun+"/"+id).status, noun)
		}
	}
	require.Contains(t, r.get(r.acme, "/v1/campaigns/spring").body, `"draft"`)
	require.NotContains(t, r.get(r.acme, "/v1/connectors/alpha").body, `"paused":true`)
}

// A name that two tenants use stands for two things.
func TestTheSameNameTwice(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	r.fill(r.globex)
	put := r.send(request{method: "PUT", path: "/v1/templates/welcome", key: r.globex, body: `{"channel":"sms","text":"Mine"}`})
	require.Equal(t, 201, put.status, put.body)
	require.Equal(t, 200, r.post(r.globex, "/v1/campaigns/spring:start", "").status)
	require.Equal(t, 200, r.post(r.globex, "/v1/connectors/alpha:pause", "").status)
	require.Contains(t, r.get(r.acme, "/v1/templates/welcome").body, "Hi {{ name }}")
	require.Contains(t, r.get(r.acme, "/v1/campaigns/spring").body, `"draft"`)
	require.NotContains(t, r.get(r.acme, "/v1/connectors/alpha").body, `"paused":true`)
}

// TestEveryRouteNeedsAKey: what is not public by the table answers 401, with one body, whoever asks for whatever.
func TestEveryRouteNeedsAKey(t *testing.T) {
	r := newRig(t)
	same := http.Header{"X-Request-Id": {"same"}}
	first := ""
	for _, rt := range routes() {
		if rt.scope == public || rt.scope == provider {
			continue
		}
		path := strings.NewReplacer("{id}", "x", "{name}", "x").Replace(rt.path)
		for _, key := range []string{"", apikey.New(apikey.Live).Reveal(), apikey.New(apikey.Test).Reveal(), "mk_live_x"} {
			a := r.send(request{method: rt.method, path: path, key: key, header: same})
			require.Equal(t, 401, a.status, rt.id)
			if first == "" {
				first = a.body
			}
			require.Equal(t, first, a.body, rt.id)
		}
	}
	require.NotEmpty(t, first)
}
