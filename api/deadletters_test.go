package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// graves is a store whose dead letters and unmatched receipts are given by a test.
type graves struct {
	store.Store
	mu        sync.Mutex
	dead      []store.Message // newest first
	refuses   map[delivery.MessageID]delivery.Status
	asked     []store.DeadLetterQuery
	largest   int
	expires   time.Time
	unmatched map[delivery.TenantID][]store.Unmatched
}

func (g *graves) DeadLetters(_ context.Context, t delivery.TenantID, q store.DeadLetterQuery) (out []store.Message, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, q)
	if q.Limit < 1 || q.Limit > 1000 {
		return nil, fmt.Errorf("limit %d", q.Limit)
	}
	for _, m := range g.dead {
		below := q.Before == (delivery.MessageID{}) || slices.Compare(m.ID[:], q.Before[:]) < 0
		if m.Tenant == t && below && (q.Reason == "" || q.Reason == m.Reason) && len(out) < q.Limit {
			out = append(out, m)
		}
	}
	return out, nil
}

func (g *graves) move(t delivery.TenantID, ids []delivery.MessageID) (out []store.Redriven) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.largest = max(g.largest, len(ids))
	for _, id := range ids {
		i := slices.IndexFunc(g.dead, func(m store.Message) bool { return m.ID == id && m.Tenant == t })
		switch s, no := g.refuses[id]; {
		case no:
			out = append(out, store.Redriven{Status: s})
		case i < 0:
			out = append(out, store.Redriven{})
		default:
			m := g.dead[i]
			g.dead = slices.Delete(g.dead, i, i+1)
			out = append(out, store.Redriven{Done: true, Status: delivery.StatusQueued,
				Queue: delivery.Queue{Tenant: t, Channel: m.Channel, Lane: m.Lane}})
		}
	}
	return out
}

func (g *graves) Redrive(_ context.Context, t delivery.TenantID, ids []delivery.MessageID, _, expires time.Time) ([]store.Redriven, error) {
	g.expires = expires
	return g.move(t, ids), nil
}

func (g *graves) Drop(_ context.Context, t delivery.TenantID, ids []delivery.MessageID, _ time.Time) ([]store.Redriven, error) {
	return g.move(t, ids), nil
}

func (g *graves) Unmatched(_ context.Context, t delivery.TenantID, after store.UnmatchedMark, limit int) ([]store.Unmatched, error) {
	if limit < 1 || limit > 1000 {
		return nil, fmt.Errorf("limit %d", limit)
	}
	i, _ := slices.BinarySearchFunc(g.unmatched[t], after, func(u store.Unmatched, m store.UnmatchedMark) int { return cmp.Compare(u.Mark, m+"\x00") })
	rest := g.unmatched[t][i:]
	return rest[:min(limit, len(rest))], nil
}

type hinted struct {
	mu sync.Mutex
	by map[delivery.Queue]int
}

func (h *hinted) Hint(q delivery.Queue, ids []delivery.MessageID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[q] += len(ids)
}

func buried(t *testing.T, n int) (*rig, *graves, *hinted) {
	g, h := &graves{}, &hinted{by: map[delivery.Queue]int{}}
	r := newRig(t, func(d *Deps) { g.Store, d.Store, d.Hints = d.Store, g, h })
	for i := range n {
		m := store.Message{ID: r.ids.Message(), Tenant: "acme", Channel: delivery.Channel(1 + i%2), Lane: delivery.Normal, Status: delivery.StatusFailed,
			Reason: fmt.Sprintf("r%d", i%3), To: "+12025550100", AcceptedAt: start}
		g.dead = append(g.dead, m)
	}
	slices.Reverse(g.dead)
	return r, g, h
}

func (r *rig) dlq(t *testing.T, verb, body string) (out sdk.DeadLetterResult) {
	t.Helper()
	a := r.post(r.acme, "/v1/dlq:"+verb, body)
	require.Equal(t, 200, a.status, a.body)
	a.decode(t, &out)
	return out
}

func TestDeadLetterPages(t *testing.T) {
	r, g, _ := buried(t, 1003)
	for _, limit := range []int{1000, 100, 7, 1} {
		if limit == 1 {
			g.dead = g.dead[len(g.dead)-20:]
		}
		var got []delivery.MessageID
		for cursor, more := "", true; more; {
			var p sdk.Page[sdk.Message]
			r.get(r.acme, fmt.Sprintf("/v1/dlq?limit=%d&cursor=%s", limit, cursor)).decode(t, &p)
			for _, m := range p.Data {
				id, err := delivery.ParseMessageID(m.ID)
				require.NoError(t, err)
				got = append(got, id)
			}
			cursor, more = p.NextCursor, p.HasMore
		}
		require.Len(t, got, len(g.dead))
		for i, m := range g.dead {
			require.Equal(t, m.ID, got[i])
		}
	}
	var p sdk.Page[sdk.Message]
	r.get(r.globex, "/v1/dlq").decode(t, &p)
	require.Empty(t, p.Data)
}

// Every filter of the list and of the body reaches the store, in the store's terms.
func TestDeadLetterFilters(t *testing.T) {
	r, g, _ := buried(t, 0)
	r.fill(r.acme)
	alpha, err := r.store.Account(t.Context(), "acme", "alpha")
	require.NoError(t, err)
	spring, err := r.store.Campaign(t.Context(), "acme", "spring")
	require.NoError(t, err)
	want := store.DeadLetterQuery{Reason: "451", MessageQuery: store.MessageQuery{
		Status: delivery.StatusExpired, Channel: delivery.SMS, To: "+12025550100", Account: alpha.ID, Campaign: spring.ID, Tag: "t 1",
		Since: start.Add(-time.Hour),
	}}
	r.get(r.acme, "/v1/dlq?status=expired&reason=451&channel=sms&to=%2B1+202+555+0100&connector=alpha&campaign=spring&tag=t+1&since=2026-03-01T11:00:00Z&limit=1000")
	r.dlq(t, "drop", `{"filter":{"status":"expired","reason":"451","channel":"sms","to":"+1 202 555 0100","connector":"alpha","campaign":"spring",
		"tag":"t 1","since":"2026-03-01T11:00:00Z"}}`)
	want.Limit = 1000
	require.Equal(t, []store.DeadLetterQuery{want, want}, g.asked)
	_, err = r.sdk(r.acme, "").DeadLetters.Page(t.Context(), sdk.DeadLetterFilter{Status: sdk.Failed, Since: &start}, 5, "")
	require.NoError(t, err)
	require.Equal(t, start, g.asked[2].Since)
	require.Equal(t, 6, g.asked[2].Limit)
}

// A filter that matches more than one call takes is worked off by repeating the call, each dead letter once.
func TestDeadLetterRetry(t *testing.T) {
	for total, calls := range map[int][]int{0: {0}, 999: {999}, 1000: {1000}, 1001: {1000, 1}, 2500: {1000, 1000, 500}} {
		r, g, h := buried(t, total)
		before := ""
		for i, want := range calls {
			out := r.dlq(t, "retry", fmt.Sprintf(`{"filter":{},"ttl":"2h"%s}`, before))
			next := out.Next
			out.Next = ""
			require.Equal(t, sdk.DeadLetterResult{Done: want, More: i < len(calls)-1}, out, "of %d", total)
			require.Equal(t, out.More, next != "")
			before = fmt.Sprintf(`,"before":%q`, next)
		}
		require.Empty(t, g.dead)
		require.LessOrEqual(t, g.largest, maxDeadLetters)
		hints := 0
		for q, n := range h.by {
			require.Equal(t, delivery.TenantID("acme"), q.Tenant)
			hints += n
		}
		require.Equal(t, total, hints, "the pipeline was not told of all that is due")
		if total > 0 {
			require.Equal(t, start.Add(2*time.Hour), g.expires)
		}
	}
	r, g, h := buried(t, 3)
	one, two := g.dead[0].ID, g.dead[1].ID
	other := r.ids.Message()
	g.refuses = map[delivery.MessageID]delivery.Status{two: delivery.StatusQueued}
	out := r.dlq(t, "retry", fmt.Sprintf(`{"ids":[%q,%q,%q,%q]}`, one, two, other, one))
	require.Equal(t, sdk.DeadLetterResult{Done: 1, Skipped: []sdk.DeadLetterNoMove{
		{ID: two.String(), Status: sdk.Queued}, {ID: other.String()},
	}}, out)
	require.Equal(t, start.Add(24*time.Hour), g.expires)
	require.Len(t, h.by, 1)

	clear(h.by)
	dropped := r.dlq(t, "drop", fmt.Sprintf(`{"ids":[%q]}`, g.dead[1].ID))
	require.Equal(t, 1, dropped.Done)
	require.Empty(t, h.by, "what is put away is not due")
	require.Equal(t, 0, r.dlq(t, "retry", fmt.Sprintf(`{"ids":[%q]}`, one)).Done, "again")
	theirs := r.post(r.globex, "/v1/dlq:drop", fmt.Sprintf(`{"ids":[%q]}`, two))
	require.JSONEq(t, fmt.Sprintf(`{"done":0,"skipped":[{"id":%q}]}`, g.dead[0].ID), strings.Replace(theirs.body, `,"status":"queued"`, "", 1))
}

// A caller that repeats while there is more comes to an end, even when nothing can be moved.
func TestDeadLettersThatStay(t *testing.T) {
	r, g, _ := buried(t, 1001)
	g.refuses = map[delivery.MessageID]delivery.Status{}
	for _, m := range g.dead {
		g.refuses[m.ID] = delivery.StatusFailed
	}
	out := r.dlq(t, "retry", `{"filter":{}}`)
	require.Len(t, out.Skipped, 1000)
	require.False(t, out.More)
}

// A message that fails again while the caller works through the others is not met twice.
func TestDeadLettersGoOnBelowTheLast(t *testing.T) {
	r, g, _ := buried(t, 1200)
	newest := g.dead[0]
	first := r.dlq(t, "retry", `{"filter":{}}`)
	require.Equal(t, 1000, first.Done)
	g.dead = append([]store.Message{newest}, g.dead...) // it has failed again
	second := r.dlq(t, "retry", fmt.Sprintf(`{"filter":{},"before":%q}`, first.Next))
	require.Equal(t, 200, second.Done)
	require.False(t, second.More)
	require.Len(t, g.dead, 1)
}

func TestBadDeadLetters(t *testing.T) {
	r, g, _ := buried(t, 2)
	many := strings.Repeat(`"`+g.dead[0].ID.String()+`",`, 1001)
	for body, want := range map[string]string{
		`{}`:                        "/ids field_required",
		`{"ids":[]}`:                "/ids field_required",
		`{"ids":["x"],"filter":{}}`: "/filter field_not_allowed",
		`{"ids":["x","msg_"]}`:      "/ids/0 invalid_value /ids/1 invalid_value",
		`{"ids":["../../etc"]}`:     "/ids/0 invalid_value",
		`{"ids":[1]}`:               "/ids/0 invalid_type",
		`{"ids":"all"}`:             "/ids invalid_type",
		`{"ids":[` + strings.TrimSuffix(many, ",") + `]}`: "/ids batch_too_large",
		`{"filter":{"status":"sent"}}`:                    "/filter/status invalid_value",
		`{"filter":{"status":"lost"}}`:                    "/filter/status invalid_value",
		`{"filter":{"channel":"fax"}}`:                    "/filter/channel invalid_value",
		`{"filter":{"to":"xyz"}}`:                         "/filter/to invalid_value",
		`{"filter":{"connector":"none"}}`:                 "/filter/connector invalid_value",
		`{"filter":{"campaign":"none"}}`:                  "/filter/campaign invalid_value",
		`{"filter":{"tag":"a\nb"}}`:                       "/filter/tag invalid_value",
		`{"filter":{"reason":"a\nb"}}`:                    "/filter/reason invalid_value",
		`{"filter":{"since":"yesterday"}}`:                "/filter/since invalid_value",
		`{"filter":{"sttus":"failed"}}`:                   "/filter/sttus unknown_field",
		`{"filter":[]}`:                                   "/filter invalid_type",
		`{"all":true}`:                                    "/all unknown_field",
	} {
		for _, verb := range []string{"retry", "drop"} {
			var at []string
			for _, f := range r.post(r.acme, "/v1/dlq:"+verb, body).problem(t).Fields {
				at = append(at, f.Pointer+" "+f.Code)
			}
			require.Equal(t, want, strings.Join(at, " "), body)
		}
	}
	for _, ttl := range []string{"0s", "8d", "169h", "-1h", "soon"} {
		p := r.post(r.acme, "/v1/dlq:retry", `{"filter":{},"ttl":"`+ttl+`"}`).problem(t)
		require.Equal(t, "/ttl", p.Fields[0].Pointer, ttl)
	}
	require.Equal(t, "field_not_allowed", r.post(r.acme, "/v1/dlq:drop", `{"filter":{},"ttl":"1h"}`).problem(t).Code)
	require.Len(t, g.dead, 2, "something was moved")
	for _, query := range []string{"status=sent", "status=x", "channel=fax", "to=x", "connector=none", "campaign=none", "since=x", "limit=0", "limit=1001",
		"cursor=x", "reason=" + strings.Repeat("a", 201), "tag=" + strings.Repeat("a", 65), "reasn=x"} {
		require.Equal(t, "invalid_parameter", r.get(r.acme, "/v1/dlq?"+query).problem(t).Code, query)
	}
	require.Equal(t, 404, r.get(r.acme, "/v1/dlq:explode").status)
	require.Equal(t, "method_not_allowed", r.get(r.acme, "/v1/dlq:retry").problem(t).Code)
	require.Equal(t, "tenant_required", r.get(r.admin, "/v1/dlq").problem(t).Code)
}

func TestUnmatchedReceipts(t *testing.T) {
	r, g, _ := buried(t, 0)
	r.fill(r.acme)
	alpha, err := r.store.Account(t.Context(), "acme", "alpha")
	require.NoError(t, err)
	row := func(i int) store.Unmatched {
		return store.Unmatched{
			Receipt: delivery.Receipt{Account: alpha.ID, ProviderID: fmt.Sprintf("p%d", i), Status: delivery.StatusUndelivered, Code: "EXPIRED", Detail: "d", At: start},
			Since:   start.Add(time.Second), Until: start.Add(72 * time.Hour), Mark: store.UnmatchedMark(fmt.Sprintf("%04d", i)),
		}
	}
	g.unmatched = map[delivery.TenantID][]store.Unmatched{delivery.Shared: {row(9)}}
	for i := range 1203 {
		g.unmatched["acme"] = append(g.unmatched["acme"], row(i))
	}
	var got []sdk.UnmatchedReceipt
	for u, err := range r.sdk(r.acme, "").Receipts.Unmatched(t.Context()) {
		require.NoError(t, err)
		got = append(got, u)
	}
	require.Len(t, got, 1203)
	since, until := start.Add(time.Second), start.Add(72*time.Hour)
	require.Equal(t, sdk.UnmatchedReceipt{Connector: "alpha", ProviderID: "p1202", Status: sdk.Undelivered, Code: "EXPIRED", Detail: "d",
		At: &start, Since: &since, Until: &until}, got[1202])
	count := func(key, query string, header http.Header) int {
		var p sdk.Page[sdk.UnmatchedReceipt]
		r.send(request{path: "/v1/receipts/unmatched" + query, key: key, header: header}).decode(t, &p)
		return len(p.Data)
	}
	require.Equal(t, 1000, count(r.acme, "?limit=1000", nil))
	g.unmatched["globex"] = g.unmatched["acme"][:1000]
	require.NotContains(t, r.get(r.globex, "/v1/receipts/unmatched?limit=1000").body, `"has_more":true`)
	require.Contains(t, r.get(r.acme, "/v1/receipts/unmatched?limit=1000").body, `"has_more":true`)
	delete(g.unmatched, "globex")
	require.Equal(t, 0, count(r.globex, "", nil))
	require.Equal(t, 1, count(r.admin, "", nil), "those of shared connectors are the operator's")
	require.Equal(t, 100, count(r.admin, "", http.Header{TenantHeader: {"acme"}}))
	for _, query := range []string{"limit=0", "cursor=x", "status=sent"} {
		require.Equal(t, "invalid_parameter", r.get(r.acme, "/v1/receipts/unmatched?"+query).problem(t).Code, query)
	}
}
