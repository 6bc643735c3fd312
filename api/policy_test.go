package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// answers is a Routes that keeps the question.
type answers struct {
	tenant delivery.TenantID
	asked  RouteQuestion
	err    error
}

func (a *answers) ExplainRoute(_ context.Context, t delivery.TenantID, q RouteQuestion) (RouteAnswer, error) {
	a.tenant, a.asked = t, q
	return RouteAnswer{Rule: "rule 1: +91", Connector: "alpha", Candidates: []RouteCandidate{
		{Connector: "alpha", Weight: 3, State: "ready", Failing: 0.25},
		{Connector: "beta", State: "resting", Detail: "refused", Until: start},
	}}, a.err
}

func (r *rig) put(key, path, body string) answer {
	r.t.Helper()
	return r.send(request{method: "PUT", path: path, key: key, body: body})
}

func TestRoutes(t *testing.T) {
	why := &answers{}
	r := newRig(t, func(d *Deps) { d.Routes = why })
	r.fill(r.acme)
	c := r.sdk(r.acme, "")
	require.Equal(t, 201, r.put(r.acme, "/v1/connectors/mail", `{"kind":"smtp"}`).status)
	require.Equal(t, 201, r.put(r.admin, "/v1/connectors/alpha", `{"kind":"smtp","shared":true}`).status)
	require.Equal(t, 201, r.put(r.admin, "/v1/connectors/common", `{"kind":"hook","shared":true}`).status)
	none, err := c.Routes.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, none)

	want := []sdk.Route{
		{Channel: sdk.ChannelSMS, Prefix: "+91", Category: "otp", Tag: "t 1", Targets: []sdk.RouteTarget{{Connector: "alpha", Weight: 1000}}},
		{Prefix: "example.com", Targets: []sdk.RouteTarget{{Connector: "mail"}, {Connector: "common", Weight: 7}}},
		{Channel: sdk.ChannelWebhook, Prefix: "https://example.com", Targets: []sdk.RouteTarget{{Connector: "common"}}},
		{Channel: sdk.ChannelWebhook, Prefix: "hooks.example.com", Targets: []sdk.RouteTarget{{Connector: "common"}}},
		{Targets: []sdk.RouteTarget{{Connector: "alpha", Weight: 1}}},
	}
	asked := append([]sdk.Route{}, want...)
	asked[1].Prefix, asked[2].Prefix, asked[3].Prefix = "Example.COM", "HTTPS://Example.com", "Hooks.Example.com"
	got, err := c.Routes.Set(t.Context(), asked)
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = c.Routes.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, []delivery.TenantID{"acme"}, r.operator.tenants, "the running engine was not told")
	require.JSONEq(t, `{"rules":[]}`, r.get(r.globex, "/v1/routes").body)

	e, err := c.Routes.Explain(t.Context(), sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+1 202 555 0100", Category: "otp", Tag: "x"})
	require.NoError(t, err)
	require.Equal(t, RouteQuestion{Channel: delivery.SMS, To: "+12025550100", Category: "otp", Tag: "x"}, why.asked)
	require.Equal(t, delivery.TenantID("acme"), why.tenant)
	until := start
	require.Equal(t, &sdk.RouteExplanation{Rule: "rule 1: +91", Connector: "alpha", Candidates: []sdk.RouteCandidate{
		{Connector: "alpha", Weight: 3, State: "ready", Failing: 0.25}, {Connector: "beta", State: "resting", Detail: "refused", Until: &until},
	}}, e)
	why.err = fmt.Errorf("secret cause")
	a := r.post(r.acme, "/v1/routes:explain", `{"channel":"sms","to":"+12025550100"}`)
	require.Equal(t, "internal_error", a.problem(t).Code)
	require.NotContains(t, a.body, "secret")

	got, err = c.Routes.Set(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, got)
	bare := newRig(t)
	require.Equal(t, 404, bare.post(bare.acme, "/v1/routes:explain", `{}`).status, "without a router there is nothing to explain")
}

func TestRetries(t *testing.T) {
	r := newRig(t)
	c := r.sdk(r.acme, "")
	want := []sdk.RetryRule{
		{Channel: sdk.ChannelSMS, Class: "transient", Delays: []string{"100ms", "5s", "5m", "168h"}, GiveUpAfter: "2h"},
		{Class: "ambiguous", Delays: []string{"1h30m"}},
		{Delays: []string{"1m1s"}},
	}
	asked := append([]sdk.RetryRule{}, want...)
	asked[1].Delays = []string{"90m"}
	got, err := c.Retries.Set(t.Context(), asked)
	require.NoError(t, err)
	require.Equal(t, want, got)
	row, err := r.store.Tenant(t.Context(), system(), "acme")
	require.NoError(t, err)
	require.Equal(t, delivery.RetryRule{
		Channel: delivery.SMS, Class: delivery.Transient, GiveUpAfter: 2 * time.Hour,
		Delays: []time.Duration{100 * time.Millisecond, 5 * time.Second, 5 * time.Minute, 168 * time.Hour},
	}, row.Retry[0])
	require.Equal(t, delivery.InDoubt, row.Retry[1].Class)

	got, err = c.Retries.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = c.Retries.Set(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, got)
	require.Equal(t, []delivery.TenantID{"acme", "acme"}, r.operator.tenants)
}

// A tenant's settings and its rules are changed apart and at once, and none undoes another.
func TestTenantKeepsItsRules(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	route := `{"rules":[{"targets":[{"connector":"alpha","weight":1}]}]}`
	retry := `{"rules":[{"delays":["7s"]}]}`
	require.Equal(t, 200, r.put(r.acme, "/v1/routes", route).status)
	require.Equal(t, 200, r.put(r.acme, "/v1/retries", retry).status)
	a := r.put(r.admin, "/v1/tenants/acme", `{"name":"Acme","weight":7,"accept_rate":2.5,"reroute_in_doubt":true,"daily_quota":9}`)
	var shown sdk.Tenant
	a.decode(t, &shown)
	require.Equal(t, sdk.Tenant{ID: "acme", Name: "Acme", DailyQuota: 9, OnAmbiguous: "retry", Weight: 7, AcceptRate: 2.5, RerouteInDoubt: true,
		CreatedAt: shown.CreatedAt, UsedToday: 1}, shown)
	var again sdk.Tenant
	r.get(r.admin, "/v1/tenants/acme").decode(t, &again)
	require.Equal(t, shown, again)
	require.JSONEq(t, route, r.get(r.acme, "/v1/routes").body)
	require.JSONEq(t, retry, r.get(r.acme, "/v1/retries").body)
	require.Equal(t, 200, r.put(r.acme, "/v1/routes", `{"rules":[]}`).status)
	r.get(r.admin, "/v1/tenants/acme").decode(t, &again)
	require.Equal(t, shown, again)
	row, err := r.store.Tenant(t.Context(), system(), "acme")
	require.NoError(t, err)
	require.NotEmpty(t, row.DataKey)

	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { r.put(r.acme, "/v1/routes", route) })
		wg.Go(func() { r.put(r.acme, "/v1/retries", `{"rules":[{"delays":["8s"]}]}`) })
		wg.Go(func() { r.put(r.admin, "/v1/tenants/acme", `{"name":"New"}`) })
	}
	wg.Wait()
	require.JSONEq(t, route, r.get(r.acme, "/v1/routes").body)
	require.Contains(t, r.get(r.acme, "/v1/retries").body, "8s")
	again = sdk.Tenant{}
	r.get(r.admin, "/v1/tenants/acme").decode(t, &again)
	require.Equal(t, "New", again.Name)
	require.Equal(t, 1, again.Weight, "PUT replaces the settings: a weight that is not given is the default")
	require.False(t, again.RerouteInDoubt)

	made := r.post(r.admin, "/v1/tenants", `{"id":"initech"}`)
	made.decode(t, &again)
	require.Equal(t, 1, again.Weight)
}

// unsaved is a store that cannot keep a tenant.
type unsaved struct{ store.Store }

func (unsaved) UpdateTenant(context.Context, store.System, store.Tenant) error {
	return store.ErrUnavailable
}

func TestRulesThatAreNotStored(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Store = unsaved{d.Store} })
	for range 2 { // the second finds the lock free
		require.Equal(t, "storage_unavailable", r.put(r.acme, "/v1/retries", `{"rules":[]}`).problem(t).Code)
	}
	require.Empty(t, r.operator.tenants, "the engine was told of what is not there")
}

// contested is a store on which another node changes the tenant between each read and write, so many times.
type contested struct {
	store.Store
	times *int
}

func (c contested) UpdateTenant(ctx context.Context, sys store.System, t store.Tenant) error {
	if *c.times > 0 {
		*c.times--
		row, err := c.Store.Tenant(ctx, sys, t.ID)
		if err != nil {
			return err
		}
		row.DailyQuota++
		if err := c.Store.UpdateTenant(ctx, sys, row); err != nil {
			return err
		}
	}
	return c.Store.UpdateTenant(ctx, sys, t)
}

// Another node's change between this node's look and its own is kept: both are in the row.
func TestAChangeOfAnotherNodeIsKept(t *testing.T) {
	times := 0
	r := newRig(t, func(d *Deps) { d.Store = contested{d.Store, &times} })
	row := func() store.Tenant {
		row, err := r.store.Tenant(t.Context(), system(), "acme")
		require.NoError(t, err)
		return row
	}
	before := row().DailyQuota
	times = 3
	require.Equal(t, 200, r.put(r.acme, "/v1/retries", `{"rules":[{"class":"transient","delays":["8s"]}]}`).status)
	require.EqualValues(t, before+3, row().DailyQuota)
	require.Len(t, row().Retry, 1)

	times = 2
	require.Equal(t, 200, r.put(r.admin, "/v1/tenants/acme", `{"name":"New","daily_quota":9}`).status)
	require.Equal(t, []any{"New", int64(9), 1}, []any{row().Name, row().DailyQuota, len(row().Retry)},
		"the settings are replaced, the rules stay")

	times = 1 << 30
	told := len(r.operator.tenants)
	p := r.put(r.acme, "/v1/retries", `{"rules":[]}`).problem(t)
	require.Equal(t, "conflict", p.Code)
	require.Contains(t, p.Detail, "try again")
	require.Len(t, row().Retry, 1)
	require.Len(t, r.operator.tenants, told, "the engine was told of what is not there")
}

func TestBadRoutes(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Routes = &answers{} })
	r.fill(r.acme)
	r.fill(r.globex)
	require.Equal(t, 201, r.put(r.globex, "/v1/connectors/theirs", `{"kind":"smtp"}`).status)
	rule := func(fields string) string {
		return `{"rules":[{` + fields + `,"targets":[{"connector":"alpha","weight":1}]}]}`
	}
	for body, want := range map[string]string{
		`{}`:                       "/rules field_required",
		`{"rules":null}`:           "/rules field_required",
		`{"rules":{}}`:             "/rules invalid_type",
		`{"rule":[]}`:              "/rule unknown_field",
		`{"rules":["alpha"]}`:      "/rules/0 invalid_type",
		`{"rules":[{}]}`:           "/rules/0/targets field_required",
		`{"rules":[null]}`:         "/rules/0/targets field_required",
		`{"rules":[{"target":1}]}`: "/rules/0/target unknown_field",
		`{"rules":[` + strings.Repeat(`{},`, 100) + `{}]}`:                                 "/rules invalid_value",
		`{"rules":[{"targets":[` + strings.Repeat(`{},`, 20) + `{}]}]}`:                    "/rules/0/targets invalid_value",
		`{"rules":[{"targets":[{}]}]}`:                                                     "/rules/0/targets/0/connector field_required",
		`{"rules":[{"targets":[{"connector":"none"}]}]}`:                                   "/rules/0/targets/0/connector unknown_connector",
		`{"rules":[{"targets":[{"connector":"theirs"}]}]}`:                                 "/rules/0/targets/0/connector unknown_connector",
		`{"rules":[{"targets":[{"connector":"../x"}]}]}`:                                   "/rules/0/targets/0/connector unknown_connector",
		`{"rules":[{"channel":"email","targets":[{"connector":"alpha"}]}]}`:                "/rules/0/targets/0/connector connector_channel",
		`{"rules":[{"targets":[{"connector":"alpha"},{"connector":"alpha","weight":1}]}]}`: "/rules/0/targets/1/connector invalid_value",
		`{"rules":[{"targets":[{"connector":"alpha","weight":1001}]}]}`:                    "/rules/0/targets/0/weight invalid_value",
		`{"rules":[{"targets":[{"connector":"alpha","weight":-1}]}]}`:                      "/rules/0/targets/0/weight invalid_value",
		`{"rules":[{"targets":[{"connector":"alpha","weight":1.5}]}]}`:                     "/rules/0/targets/0/weight out_of_range",
		`{"rules":[{"targets":[{"connector":"alpha","weight":"1"}]}]}`:                     "/rules/0/targets/0/weight invalid_type",
		`{"rules":[{"targets":[{"connector":"alpha"}]},{"targets":[]}]}`:                   "/rules/1/targets field_required",
		rule(`"channel":"fax"`):                                                            "/rules/0/channel invalid_channel",
		rule(`"channel":"sms","prefix":"91"`):                                              "/rules/0/prefix invalid_value",
		rule(`"channel":"sms","prefix":"+"`):                                               "/rules/0/prefix invalid_value",
		rule(`"channel":"sms","prefix":"+09"`):                                             "/rules/0/prefix invalid_value",
		rule(`"prefix":"+9x"`):                                                             "/rules/0/prefix invalid_value",
		rule(`"prefix":"+1234567890123456"`):                                               "/rules/0/prefix invalid_value",
		rule(`"prefix":"+٩١"`):                                                             "/rules/0/prefix invalid_value",
		rule(`"prefix":"a b"`):                                                             "/rules/0/prefix invalid_value",
		rule(`"prefix":"user@example.com"`):                                                "/rules/0/prefix invalid_value",
		rule(`"prefix":"com"`):                                                             "/rules/0/prefix invalid_value",
		rule(`"channel":"webhook","prefix":"example.com/x"`):                               "/rules/0/prefix invalid_value",
		rule(`"channel":"webhook","prefix":"a@example.com"`):                               "/rules/0/prefix invalid_value",
		rule(`"channel":"webhook","prefix":"+91"`):                                         "/rules/0/prefix invalid_value",
		rule(`"channel":"email","prefix":"https://example.com"`):                           "/rules/0/prefix invalid_value",
		rule(`"prefix":"https://"`):                                                        "/rules/0/prefix invalid_value",
		rule(`"category":"` + strings.Repeat("a", 65) + `"`):                               "/rules/0/category text_too_long",
		rule(`"tag":"a\u200bb"`):                                                           "/rules/0/tag control_character",
		rule(`"category":7`):                                                               "/rules/0/category invalid_type",
	} {
		p := r.put(r.acme, "/v1/routes", body).problem(t)
		require.NotEmpty(t, p.Fields, body)
		require.Equal(t, want, p.Fields[0].Pointer+" "+p.Fields[0].Code, body)
	}
	for body, want := range map[string]string{
		`{}`:                             "/channel field_required",
		`{"channel":"fax","to":"x"}`:     "/channel invalid_channel",
		`{"channel":"sms"}`:              "/to field_required",
		`{"channel":"sms","to":"+1"}`:    "/to invalid_phone",
		`{"channel":"email","to":"a@b"}`: "/to invalid_email",
		`{"channel":"sms","to":"+12025550100","tag":"a\nb"}`:  "/tag control_character",
		`{"channel":"sms","to":"+12025550100","lane":"bulk"}`: "/lane unknown_field",
	} {
		p := r.post(r.acme, "/v1/routes:explain", body).problem(t)
		require.Equal(t, want, p.Fields[0].Pointer+" "+p.Fields[0].Code, body)
	}
	require.JSONEq(t, `{"rules":[]}`, r.get(r.acme, "/v1/routes").body, "something was stored")
	require.Empty(t, r.operator.tenants)
	for _, path := range []string{"/v1/routes", "/v1/retries"} {
		require.Equal(t, "tenant_required", r.get(r.admin, path).problem(t).Code)
		require.Equal(t, "tenant_required", r.put(r.admin, path, `{"rules":[]}`).problem(t).Code)
		named := http.Header{TenantHeader: {"acme"}}
		require.Equal(t, 200, r.send(request{path: path, key: r.admin, header: named}).status)
		require.Equal(t, "method_not_allowed", r.post(r.acme, path, `{"rules":[]}`).problem(t).Code)
	}
}

func TestBadRetries(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]string{
		`{}`:                          "/rules field_required",
		`{"rules":[{}]}`:              "/rules/0/delays field_required",
		`{"rules":[{"delays":[]}]}`:   "/rules/0/delays field_required",
		`{"rules":[{"delays":"5s"}]}`: "/rules/0/delays invalid_type",
		`{"rules":[{"delays":[5]}]}`:  "/rules/0/delays/0 invalid_type",
		`{"rules":[` + strings.Repeat(`{},`, 100) + `{}]}`:                 "/rules invalid_value",
		`{"rules":[{"delays":[` + strings.Repeat(`"5s",`, 20) + `"5s"]}]}`: "/rules/0/delays invalid_value",
		`{"rules":[{"delays":["5s","99ms"]}]}`:                             "/rules/0/delays/1 invalid_time",
		`{"rules":[{"delays":["168h1s"]}]}`:                                "/rules/0/delays/0 invalid_time",
		`{"rules":[{"delays":["-5s"]}]}`:                                   "/rules/0/delays/0 invalid_time",
		`{"rules":[{"delays":["5"]}]}`:                                     "/rules/0/delays/0 invalid_time",
		`{"rules":[{"delays":[""]}]}`:                                      "/rules/0/delays/0 invalid_time",
		`{"rules":[{"class":"throttled","delays":["5s"]}]}`:                "/rules/0/class invalid_value",
		`{"rules":[{"class":"Transient","delays":["5s"]}]}`:                "/rules/0/class invalid_value",
		`{"rules":[{"channel":"fax","delays":["5s"]}]}`:                    "/rules/0/channel invalid_channel",
		`{"rules":[{"delays":["5s"],"give_up_after":"0s"}]}`:               "/rules/0/give_up_after invalid_time",
		`{"rules":[{"delays":["5s"],"give_up_after":"169h"}]}`:             "/rules/0/give_up_after invalid_time",
		`{"rules":[{"delays":["5s"],"giveup":"1h"}]}`:                      "/rules/0/giveup unknown_field",
	} {
		p := r.put(r.acme, "/v1/retries", body).problem(t)
		require.NotEmpty(t, p.Fields, body)
		require.Equal(t, want, p.Fields[0].Pointer+" "+p.Fields[0].Code, body)
	}
	require.JSONEq(t, `{"rules":[]}`, r.get(r.acme, "/v1/retries").body, "something was stored")
}
