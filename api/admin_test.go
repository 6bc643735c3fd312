package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/vault"
)

func (r *rig) sdk(key, tenant string) *sdk.Client {
	return sdk.New(sdk.WithURL(r.url), sdk.WithKey(key), sdk.WithTenant(tenant), sdk.WithHTTPClient(r.client), sdk.WithMaxRetries(0))
}

// The SDK and the API understand each other, over the whole life of a tenant.
func TestThroughSDK(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	op := r.sdk(r.admin, "")

	made, err := op.Tenants.Create(ctx, sdk.TenantRequest{ID: "initech", Name: "Initech", DailyQuota: 100, Region: "IN",
		Rates: []sdk.Rate{{Channel: sdk.ChannelSMS, PerSecond: 5, Burst: 10}}})
	require.NoError(t, err)
	require.Equal(t, "retry", made.OnAmbiguous)
	_, err = op.Tenants.Create(ctx, sdk.TenantRequest{ID: "initech"})
	require.ErrorIs(t, err, sdk.ErrConflict)
	key, err := op.Keys.Create(ctx, sdk.KeyRequest{Name: "ci", Mode: "live", Tenant: "initech"})
	require.NoError(t, err)
	require.Equal(t, key.Secret[len(key.Secret)-4:], key.Hint)

	c := r.sdk(key.Secret, "")
	who, err := c.Whoami(ctx)
	require.NoError(t, err)
	require.Equal(t, &sdk.Identity{Tenant: "initech", Mode: "live", Key: key.ID}, who)
	list, err := c.Keys.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Empty(t, list[0].Secret)

	tpl, err := c.Templates.Put(ctx, "welcome", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hi {{ name }}{{ x | default: '!' }}"})
	require.NoError(t, err)
	require.Equal(t, []sdk.Variable{{Name: "name"}, {Name: "x", Optional: true}}, tpl.Variables)
	_, err = c.Templates.Put(ctx, "welcome", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hello {{ name }} ₹"})
	require.NoError(t, err)
	old, err := c.Templates.Get(ctx, "welcome", 1)
	require.NoError(t, err)
	require.Equal(t, tpl, old)
	versions, err := c.Templates.Versions(ctx, "welcome")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	shown, err := c.Templates.Render(ctx, "welcome", sdk.RenderRequest{Vars: sdk.Vars{"name": "Asha"}})
	require.NoError(t, err)
	require.Equal(t, "Hello Asha ₹", shown.Text)
	require.Equal(t, 1, shown.Segments)

	types, err := c.Connectors.Types(ctx)
	require.NoError(t, err)
	require.Len(t, types, 3)
	con, err := c.Connectors.Put(ctx, "alpha", sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{"host": "127.0.0.1", "password": "s3cret"}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"host": "127.0.0.1"}, con.Settings)
	require.Equal(t, []string{"password"}, con.Secrets)
	require.Equal(t, "https://msgctl.example.com/v1/inbound/"+con.ID, con.CallbackURL)
	con, err = c.Connectors.Pause(ctx, "alpha")
	require.NoError(t, err)
	require.Equal(t, "paused", con.State)
	con, err = c.Connectors.Resume(ctx, "alpha")
	require.NoError(t, err)
	require.Equal(t, "ready", con.State)
	test, err := c.Connectors.Test(ctx, "alpha")
	require.NoError(t, err)
	require.True(t, test.OK)
	require.Equal(t, 3, r.operator.changes)

	m, err := c.Send(ctx, sdk.SMS{To: "098765 43210", Text: "Hello"})
	require.NoError(t, err)
	require.Equal(t, "+919876543210", m.To)
	again, err := c.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, m.ID, again.ID)
	facts, err := c.Messages.Timeline(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, "accepted", facts[0].Kind)
	why, err := c.Messages.Explain(ctx, m.ID)
	require.NoError(t, err)
	require.Contains(t, why.Summary, "goes next")
	gone, err := c.Messages.Cancel(ctx, m.ID)
	require.NoError(t, err)
	require.Equal(t, sdk.Canceled, gone.Status)
	_, err = c.Messages.Cancel(ctx, m.ID)
	require.NoError(t, err, "canceling what is canceled changes nothing")

	require.NoError(t, c.Suppressions.Add(ctx, sdk.Suppression{Channel: sdk.ChannelSMS, To: "+919876543210", Reason: "asked"}))
	require.NoError(t, c.Suppressions.AddAll(ctx, []sdk.Suppression{{To: "a@example.com"}, {To: "https://example.com/h"}}))
	sup, err := c.Suppressions.Check(ctx, sdk.ChannelSMS, "+91 98765 43210")
	require.NoError(t, err)
	require.Equal(t, "asked", sup.Reason)
	require.NoError(t, c.Suppressions.Delete(ctx, sdk.ChannelSMS, "+919876543210"))
	_, err = c.Suppressions.Check(ctx, sdk.ChannelSMS, "+919876543210")
	require.ErrorIs(t, err, sdk.ErrNotFound)

	a, err := c.Audiences.Import(ctx, "people", strings.NewReader("mobile,name\n09876543211,Asha\n+12025550101,Ben\nbad,C\n"), sdk.ImportOptions{Phone: "mobile"})
	require.NoError(t, err)
	require.Equal(t, 2, a.People)
	require.True(t, a.Rejected)
	require.NotEmpty(t, a.First)
	require.Equal(t, "mobile", a.Mapping["phone"])
	people, err := c.Audiences.People(ctx, "people", 1)
	require.NoError(t, err)
	require.Len(t, people, 1)
	var rejected strings.Builder
	require.NoError(t, c.Audiences.Rejected(ctx, "people", &rejected))
	require.Contains(t, rejected.String(), "bad")

	_, err = c.Campaigns.Create(ctx, sdk.CampaignRequest{Name: "spring", Audience: "people", Templates: []string{"welcome"}, TTL: "2h"})
	require.NoError(t, err)
	check, err := c.Campaigns.Check(ctx, "spring")
	require.NoError(t, err)
	require.Empty(t, check.Problems)
	require.Equal(t, 2, check.People)
	cmp, err := c.Campaigns.Start(ctx, "spring")
	require.NoError(t, err)
	require.Equal(t, "running", cmp.State)
	require.Equal(t, 2, cmp.Legs[0].Version)
	report, err := c.Campaigns.Report(ctx, "spring")
	require.NoError(t, err)
	require.Equal(t, 2, report.People)
	require.Equal(t, 2, report.ToExpand+report.Accepted)

	books, err := c.Audit.Verify(ctx)
	require.NoError(t, err)
	require.True(t, books.OK, "%+v", books)
	require.EqualValues(t, 1, books.Ended)
	books, err = op.Audit.Verify(ctx)
	require.NoError(t, err)
	require.True(t, books.OK)
	require.Equal(t, "*", books.Tenant)
	tenants, err := op.Tenants.List(ctx)
	require.NoError(t, err)
	require.Len(t, tenants, 3)
	health, err := c.Health(ctx)
	require.NoError(t, err)
	require.True(t, health.OK)
	v, err := c.Version(ctx)
	require.NoError(t, err)
	require.Equal(t, "1.2.3", v)
	acting := r.sdk(r.admin, "initech")
	_, err = acting.Messages.Get(ctx, m.ID)
	require.NoError(t, err)
}

// Row 45: what a campaign's state does not allow.
func TestCampaignConflicts(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	require.Equal(t, "already_exists", r.post(r.acme, "/v1/campaigns", `{"name":"spring","audience":"people","templates":["welcome"]}`).problem(t).Code)
	// A request that is repeated, because its answer was lost, finds its own campaign; any other one does not.
	create := func(key, body string) answer {
		return r.send(request{path: "/v1/campaigns", key: r.acme, body: body, header: http.Header{"Idempotency-Key": {key}}})
	}
	const summer = `{"name":"summer","audience":"people","templates":["welcome"]}`
	first := create("k1", summer)
	require.Equal(t, 201, first.status, first.body)
	again := create("k1", summer)
	require.Equal(t, 201, again.status, again.body)
	require.JSONEq(t, first.body, again.body)
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, "already_exists", create("k2", summer).problem(t).Code)
	require.Equal(t, "already_exists", create("k1", `{"name":"summer","audience":"people","templates":["welcome"],"rate":5}`).problem(t).Code)
	require.Equal(t, "already_exists", r.post(r.acme, "/v1/campaigns", summer).problem(t).Code)
	require.Equal(t, "invalid_idempotency_key", create("", summer).problem(t).Code)
	p := r.post(r.acme, "/v1/campaigns/spring:pause", "").problem(t)
	require.Equal(t, "conflict", p.Code)
	require.Equal(t, []string{"start", "stop"}, p.Actions)

	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for range 8 { // starts at once: one wins
		wg.Go(func() {
			a := r.post(r.acme, "/v1/campaigns/spring:start", "")
			mu.Lock()
			defer mu.Unlock()
			codes[a.status]++
		})
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: 1, 409: 7}, codes)
	for range 100 {
		require.Equal(t, 200, r.post(r.acme, "/v1/campaigns/spring:pause", "").status)
		require.Equal(t, 200, r.post(r.acme, "/v1/campaigns/spring:resume", "").status)
	}
	a := r.send(request{method: "DELETE", path: "/v1/audiences/people", key: r.acme})
	require.Equal(t, "conflict", a.problem(t).Code)
	put := r.send(request{method: "PUT", path: "/v1/templates/welcome", key: r.acme, body: `{"channel":"sms","text":"edited"}`})
	require.Equal(t, 201, put.status)
	var c sdk.Campaign
	r.get(r.acme, "/v1/campaigns/spring").decode(t, &c)
	require.Equal(t, 1, c.Legs[0].Version, "the version of the start stays")
	require.Equal(t, 200, r.post(r.acme, "/v1/campaigns/spring:stop", "").status)
	p = r.post(r.acme, "/v1/campaigns/spring:resume", "").problem(t)
	require.Equal(t, "conflict", p.Code)
	require.Empty(t, p.Actions)
	require.Equal(t, 204, r.send(request{method: "DELETE", path: "/v1/audiences/people", key: r.acme}).status)
	require.Equal(t, "not_found", r.post(r.acme, "/v1/campaigns/none:start", "").problem(t).Code)
}

func TestBadCampaigns(t *testing.T) {
	r := newRig(t)
	r.fill(r.acme)
	for body, want := range map[string]string{
		`{"name":"x"}`: "/audience field_required /templates field_required",
		`{"name":"a b","audience":"none","templates":["none"],"rate":-1,"ttl":"1y"}`:                               "/name invalid_name /rate invalid_value /ttl invalid_time /audience unknown_audience /templates/0 unknown_template",
		`{"name":"x","audience":"people","templates":["welcome","welcome"]}`:                                       "/templates/1 invalid_value",
		`{"name":"x","audience":"people","templates":["welcome"],"legs":[{"channel":"sms","template":"welcome"}]}`: "/templates field_not_allowed",
		`{"name":"x","audience":"people","legs":[{"channel":"email","template":"welcome"}]}`:                       "/legs/0/channel template_channel",
		`{"name":"x","audience":"people","legs":[{"channel":"sms","template":"welcome","connector":"none"}]}`:      "/legs/0/connector unknown_connector",
		`{"name":"x","audience":"people","legs":[{"channel":"sms","template":"welcome","version":9}]}`:             "/legs/0 unknown_template",
		`{"name":"cmp_00000000000000000000000000","audience":"people","templates":["welcome"]}`:                    "/name invalid_name",
	} {
		var at []string
		for _, f := range r.post(r.acme, "/v1/campaigns", body).problem(t).Fields {
			at = append(at, f.Pointer+" "+f.Code)
		}
		require.Equal(t, want, strings.Join(at, " "), body)
	}
	a := r.send(request{path: "/v1/audiences/empty/import", key: r.acme, media: "text/csv", body: "phone\n"})
	require.Equal(t, "invalid_file", a.problem(t).Code)
	a = r.send(request{path: "/v1/audiences/people/import", key: r.acme, media: "text/csv", body: "phone\n+12025550100\n"})
	require.Equal(t, "already_exists", a.problem(t).Code)
	a = r.send(request{path: "/v1/audiences/x/import", key: r.acme, media: "application/pdf", body: "phone\n"})
	require.Equal(t, "unsupported_media_type", a.problem(t).Code)
	a = r.send(request{path: "/v1/audiences/..%2fx/import", key: r.acme, media: "text/csv", body: "phone\n+12025550100\n"})
	require.Equal(t, "invalid_name", a.problem(t).Code)
}

// A store that goes away while it takes an audience is no fault of the file.
func TestImportAndTheStoreGoes(t *testing.T) {
	t.Parallel()
	for _, gone := range []error{store.ErrUnavailable, store.ErrOutcomeUnknown} {
		err := importProblem(fmt.Errorf("%w: %w", gone, io.ErrUnexpectedEOF))
		require.ErrorIs(t, err, gone)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	var p *sdk.Error
	require.ErrorAs(t, importProblem(io.ErrUnexpectedEOF), &p)
	require.Equal(t, "invalid_file", p.Code)
}

func TestConnectorSettings(t *testing.T) {
	r := newRig(t)
	put := func(key, name, body string) answer {
		return r.send(request{method: "PUT", path: "/v1/connectors/" + name, key: key, body: body})
	}
	for body, want := range map[string]string{
		`{"kind":"smmp"}`:                         "/kind unknown_connector_type",
		`{"kind":"smpp"}`:                         "/settings/host invalid_setting",
		`{"kind":"smpp","settings":{"host":"h"}}`: "/settings/password invalid_setting",
		`{"kind":"smpp","settings":{"host":"h","password":"p","window":"many"}}`:       "/settings/window invalid_setting",
		`{"kind":"smpp","settings":{"host":"h","password":"p","no/such":"1"}}`:         "/settings/no~1such invalid_setting",
		`{"kind":"smpp","rate":-1,"settings":{"host":"h","password":"p"}}`:             "/rate invalid_value",
		`{"kind":"smpp","settings":{"host":"h","password":"p"},"priority":3000000000}`: "/priority invalid_value",
	} {
		p := put(r.acme, "alpha", body).problem(t)
		require.Equal(t, want, p.Fields[0].Pointer+" "+p.Fields[0].Code, body)
	}
	a := put(r.acme, "alpha", `{"kind":"smpp","settings":{"host":"h","password":"p1"}}`)
	require.Equal(t, 201, a.status, a.body)
	require.Equal(t, 200, put(r.acme, "alpha", `{"kind":"smpp","settings":{"host":"h2"},"rate":7}`).status, "a secret that is not given stays")
	row, err := r.store.Account(context.Background(), "acme", "alpha")
	require.NoError(t, err)
	tn, err := r.store.Tenant(context.Background(), system(), "acme")
	require.NoError(t, err)
	owner := vault.Owner{Tenant: "acme", DataKey: tn.DataKey}
	got, err := OpenSecrets(r.vault, owner, row)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"password": "p1"}, got)
	require.Equal(t, map[string]string{"host": "h2"}, row.Settings)
	moved := row
	moved.ID = r.ids.Account()
	_, err = OpenSecrets(r.vault, owner, moved)
	require.ErrorIs(t, err, vault.ErrSealed, "a secret moved to another row opens")
	require.Equal(t, "conflict", put(r.acme, "alpha", `{"kind":"smtp"}`).problem(t).Code)

	// Shared connectors are the operator's.
	require.Equal(t, "tenant_required", put(r.admin, "common", `{"kind":"smtp"}`).problem(t).Code)
	require.Equal(t, 201, put(r.admin, "common", `{"kind":"smpp","shared":true,"settings":{"host":"inner","password":"p"}}`).status)
	seen := r.get(r.globex, "/v1/connectors/common")
	require.Equal(t, 200, seen.status)
	require.NotContains(t, seen.body, "inner")
	require.NotContains(t, seen.body, "inbound")
	require.Contains(t, r.get(r.admin, "/v1/connectors/common").body, "inner")
	require.Equal(t, "forbidden", r.post(r.globex, "/v1/connectors/common:pause", "").problem(t).Code)
	a = r.send(request{method: "DELETE", path: "/v1/connectors/common", key: r.globex})
	require.Equal(t, "forbidden", a.problem(t).Code)
	require.Equal(t, 200, r.post(r.admin, "/v1/connectors/common:pause", "").status)

	r.operator.err = &delivery.Failure{Class: delivery.ConnectorDown, Code: "535", Detail: "bad login", Err: errors.New("secret cause")}
	var test sdk.ConnectorTest
	a = r.post(r.acme, "/v1/connectors/alpha:test", "")
	a.decode(t, &test)
	require.False(t, test.OK)
	require.Equal(t, "connector_down (535): bad login", test.Detail)
	r.operator.err = fmt.Errorf("x: %w", &connectors.SettingError{Key: "host", Reason: "is wrong"})
	r.post(r.acme, "/v1/connectors/alpha:test", "").decode(t, &test)
	require.Equal(t, `setting "host" is wrong`, test.Detail)
	require.Equal(t, 204, r.send(request{method: "DELETE", path: "/v1/connectors/alpha", key: r.acme}).status)
	require.Equal(t, 404, r.get(r.acme, "/v1/connectors/alpha").status)
}

// overtaken is a store in which somebody else is faster, once, than the next change of an account.
type overtaken struct {
	store.Store
	by func()
}

func (o *overtaken) PutAccount(ctx context.Context, tenant delivery.TenantID, a store.Account) error {
	if by := o.by; by != nil {
		o.by = nil
		by()
	}
	return o.Store.PutAccount(ctx, tenant, a)
}

// Of two changes of a connector on two nodes none undoes the other, and what is deleted stays so.
func TestConnectorChangesDoNotUndoEachOther(t *testing.T) {
	var o *overtaken
	r := newRig(t, func(d *Deps) { o = &overtaken{Store: d.Store}; d.Store = o })
	put := func(body string) answer {
		return r.send(request{method: "PUT", path: "/v1/connectors/alpha", key: r.acme, body: body})
	}
	row := func() store.Account {
		a, err := o.Account(t.Context(), "acme", "alpha")
		require.NoError(t, err)
		return a
	}
	elsewhere := func(change func(a *store.Account)) func() {
		return func() {
			a := row()
			change(&a)
			require.NoError(t, o.Store.PutAccount(t.Context(), "acme", a))
		}
	}
	o.by = func() {
		require.NoError(t, o.Store.PutAccount(t.Context(), "acme", store.Account{
			ID: r.ids.Account(), Name: "alpha", Kind: "smpp", Channel: delivery.SMS, Paused: true, PauseReason: "by another",
		}))
	}
	require.Equal(t, 200, put(`{"kind":"smpp","settings":{"host":"h","password":"p1"}}`).status, "another node made it")
	require.True(t, row().Paused)
	require.Equal(t, 200, r.post(r.acme, "/v1/connectors/alpha:resume", "").status)

	o.by = elsewhere(func(a *store.Account) { a.Paused, a.PauseReason = true, "by another" })
	require.Equal(t, 200, put(`{"kind":"smpp","rate":7,"settings":{"host":"h"}}`).status)
	require.Equal(t, []any{true, "by another", 7.0}, []any{row().Paused, row().PauseReason, row().Rate})

	o.by = elsewhere(func(a *store.Account) { a.Rate = 9 })
	require.Equal(t, 200, r.post(r.acme, "/v1/connectors/alpha:resume", "").status)
	require.Equal(t, []any{false, 9.0, []string{"password"}}, []any{row().Paused, row().Rate, row().SecretNames})

	o.by = func() { require.NoError(t, o.DeleteAccount(t.Context(), "acme", "alpha")) }
	require.Equal(t, "not_found", r.post(r.acme, "/v1/connectors/alpha:pause", "").problem(t).Code)
	_, err := o.Account(t.Context(), "acme", "alpha")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	page := func(query string) (p sdk.Page[sdk.Event]) {
		r.get(r.acme, "/v1/events?"+query).decode(t, &p)
		return p
	}
	require.Empty(t, page("").Data)
	require.Empty(t, page("wait=10ms").Data, "a long poll ends")
	m := r.accept(r.acme, hello)
	r.accept(r.globex, hello)
	all := page("")
	require.Len(t, all.Data, 1)
	require.Equal(t, m.ID, all.Data[0].Message)
	require.Equal(t, "message.queued", all.Data[0].Type)
	require.Equal(t, fmt.Sprint(all.Data[0].Seq), all.NextCursor)
	require.Equal(t, all.NextCursor, page("after=latest").NextCursor)

	came := make(chan sdk.Page[sdk.Event])
	go func() { came <- page("wait=30s&after=" + all.NextCursor) }()
	again := r.accept(r.acme, hello)
	next := <-came
	require.Len(t, next.Data, 1)
	require.Equal(t, again.ID, next.Data[0].Message)

	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", r.url+"/v1/events?wait=30s&after="+next.NextCursor, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+r.acme)
	gone := make(chan error)
	go func() { _, err := r.client.Do(req); gone <- err }()
	cancel()
	require.Error(t, <-gone) // and no goroutine is left, as TestMain sees
}

// Every list is walked to its end, each row once, whatever the size of a page.
func TestPaging(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 7 {
		m := r.accept(r.acme, to("sms", fmt.Sprintf("+1202555010%d", i)))
		want = append(want, m.ID)
	}
	slices.Reverse(want)
	var sup []string
	for i := range 5 {
		addr := fmt.Sprintf("+1202555019%d", i)
		for _, ch := range []string{`"channel":"sms",`, `"channel":"whatsapp",`, ""} {
			require.Equal(t, 201, r.post(r.acme, "/v1/suppressions", `{`+ch+`"to":"`+addr+`"}`).status)
			sup = append(sup, addr)
		}
		require.Equal(t, 201, r.send(request{method: "PUT", path: fmt.Sprintf("/v1/templates/t%d", i), key: r.acme, body: `{"channel":"sms","text":"x"}`}).status)
	}
	for _, limit := range []int{1, 2, 3, 4, 5, 6, 7, 8, 1000} {
		walk := func(path string, field func(map[string]any) string) (got []string) {
			cursor := ""
			for range 100 {
				var p struct {
					Data []map[string]any
					Next string `json:"next_cursor"`
					More bool   `json:"has_more"`
				}
				r.get(r.acme, fmt.Sprintf("%s?limit=%d&cursor=%s", path, limit, cursor)).decode(t, &p)
				for _, row := range p.Data {
					got = append(got, field(row))
				}
				require.Equal(t, p.More, p.Next != "")
				if !p.More {
					return got
				}
				cursor = p.Next
			}
			t.Fatal("no end")
			return nil
		}
		text := func(name string) func(map[string]any) string {
			return func(m map[string]any) string { return m[name].(string) }
		}
		require.Equal(t, want, walk("/v1/messages", text("id")))
		require.Equal(t, sup, walk("/v1/suppressions", text("to")))
		require.Equal(t, []string{"t0", "t1", "t2", "t3", "t4"}, walk("/v1/templates", text("name")))
	}
	var p sdk.Page[sdk.Message]
	r.get(r.acme, "/v1/messages?status=queued&channel=sms&to=%2B12025550103&since=2026-03-01T12:00:00Z").decode(t, &p)
	require.Len(t, p.Data, 1)
	r.get(r.acme, "/v1/messages?since=2026-03-01T12:00:01Z").decode(t, &p)
	require.Empty(t, p.Data)
}

func TestSuppressionForms(t *testing.T) {
	r := newRig(t)
	post := func(media, body string) answer {
		return r.send(request{path: "/v1/suppressions", key: r.acme, media: media, body: body})
	}
	require.Equal(t, 201, post(batchMedia[0], `{"to":"+12025550100"}`+"\n\n"+`{"to":"a@example.com","reason":"bounce"}`).status)
	p := post("application/json", `[{"to":"+12025550100"},{"to":"+1"},{"channel":"fax","to":"x"}]`).problem(t)
	require.Equal(t, "/1/to", p.Fields[0].Pointer)
	require.Equal(t, "/2/channel", p.Fields[1].Pointer)
	p = post(batchMedia[0], `{"to":"+12025550100"}`+"\n"+`{"tto":1}`).problem(t)
	require.Equal(t, "/1/tto", p.Fields[0].Pointer)
	require.Contains(t, p.Detail, "row 2")
	require.Equal(t, "body_required", post("application/json", "[]").problem(t).Code)
	require.Equal(t, "duplicate_field", post("application/json", `[{"to":"x","to":"y"}]`).problem(t).Code)
	require.Equal(t, "batch_too_large", post(batchMedia[0], strings.Repeat(`{"to":"+12025550100"}`+"\n", maxSuppressions+1)).problem(t).Code)
	require.Equal(t, 200, r.get(r.acme, "/v1/suppressions/check?to=+12025550100").status, "a + that was not escaped")
	require.Equal(t, "invalid_parameter", r.get(r.acme, "/v1/suppressions/check").problem(t).Code)
	require.EqualValues(t, "suppressed", r.accept(r.acme, hello).Status)
	require.EqualValues(t, "queued", r.accept(r.globex, hello).Status)
}

// unready is a store that cannot be written.
type unready struct{ store.Store }

func (unready) Check(context.Context) error { return errors.New("secret path: disk full") }

func TestHealth(t *testing.T) {
	r := newRig(t)
	require.Equal(t, "ok\n", r.get("", "/healthz").body)
	require.Equal(t, 404, r.get("", "/metrics").status)
	r = newRig(t, func(d *Deps) {
		d.Store = unready{d.Store}
		d.Parts = func(context.Context) map[string]string { return map[string]string{"broker": "ok"} }
		d.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") })
	})
	a := r.get("", "/readyz")
	require.Equal(t, 503, a.status)
	require.Contains(t, a.body, `"store":"cannot be written"`)
	require.NotContains(t, a.body, "disk")
	require.Equal(t, "up 1\n", r.get("", "/metrics").body)
}

// A replay works although the request could not be accepted any more.
type replays struct {
	store.Store
	mu  sync.Mutex
	key map[string]store.Accepted
}

func (s *replays) Accept(ctx context.Context, t delivery.TenantID, a store.Acceptance) (store.Accepted, error) {
	out, err := s.Store.Accept(ctx, t, a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key[a.Key.Key] = out
	return out, err
}

func (s *replays) Replay(_ context.Context, _ delivery.TenantID, key store.IdempotencyKey, _ time.Time) (store.Accepted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, ok := s.key[key.Key]
	if !ok {
		return out, store.ErrNotFound
	}
	out.Replayed = true
	return out, nil
}

func TestReplayOfTheUnacceptable(t *testing.T) {
	r := newRig(t, func(d *Deps) { d.Store = &replays{Store: d.Store, key: map[string]store.Accepted{}} })
	send := func(key string) answer {
		return r.send(request{path: "/v1/messages", key: r.acme, header: keyed(key), body: smsWith(`,"send_at":"2026-03-01T13:00:00Z"`)})
	}
	first := send("k")
	require.Equal(t, 202, first.status)
	r.clock.Advance(10 * time.Hour)
	again := send("k")
	require.Equal(t, 202, again.status, again.body)
	require.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	require.Equal(t, "invalid_time", send("other").problem(t).Code)
}

// The cache of keys stays small, and a key that is revoked while it is looked up is not kept.
func TestKeyCache(t *testing.T) {
	r := newRig(t)
	c := r.api.keys
	_, err := c.find(context.Background(), r.acme)
	require.NoError(t, err)
	require.Len(t, c.known, 1)
	for i := range keysCache + 10 {
		c.known[[32]byte{1, byte(i), byte(i >> 8)}] = cachedKey{}
	}
	_, err = c.find(context.Background(), r.globex)
	require.NoError(t, err)
	require.LessOrEqual(t, len(c.known), keysCache)

	racing := &revokedMeanwhile{Keys: r.store}
	c = newKeyCache(racing, r.vault.Pepper(), r.clock.Now)
	racing.meanwhile = func(k store.Key) { c.forget(k.ID) }
	_, err = c.find(context.Background(), r.acme)
	require.NoError(t, err)
	require.Empty(t, c.known)

	k, err := apikey.Parse(r.acme)
	require.NoError(t, err)
	row, err := r.store.KeyByHash(context.Background(), system(), apikey.Hash(r.vault.Pepper(), k))
	require.NoError(t, err)
	c = newKeyCache(r.store, r.vault.Pepper(), r.clock.Now)
	_, err = c.find(context.Background(), r.acme)
	require.NoError(t, err)
	require.NoError(t, r.store.RevokeKey(context.Background(), system(), "acme", row.ID, start)) // by another process
	_, err = c.find(context.Background(), r.acme)
	require.NoError(t, err)
	r.clock.Advance(keyTTL)
	_, err = c.find(context.Background(), r.acme)
	require.ErrorIs(t, err, errKey)
}

type revokedMeanwhile struct {
	store.Keys
	meanwhile func(store.Key)
}

func (s *revokedMeanwhile) KeyByHash(ctx context.Context, sys store.System, h [32]byte) (store.Key, error) {
	k, err := s.Keys.KeyByHash(ctx, sys, h)
	s.meanwhile(k)
	return k, err
}
