package sdk

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPagination(t *testing.T) {
	var asked []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		switch r.URL.Query().Get("cursor") {
		case "":
			answer(w, 200, Page[Message]{Data: []Message{{ID: "a"}, {ID: "b"}}, NextCursor: "2", HasMore: true})
		case "2":
			answer(w, 200, Page[Message]{NextCursor: "3", HasMore: true})
		case "3":
			answer(w, 200, Page[Message]{Data: []Message{{ID: "c"}}})
		}
	})
	q := MessageQuery{Status: Failed, Channel: ChannelSMS, Tag: "t", Since: time.Unix(0, 0), Limit: 2}
	var got []string
	for m, err := range c.Messages.All(t.Context(), q) {
		require.NoError(t, err)
		got = append(got, m.ID)
	}
	require.Equal(t, []string{"a", "b", "c"}, got)
	require.Len(t, asked, 3)
	require.Equal(t, "channel=sms&limit=2&since=1970-01-01T00%3A00%3A00Z&status=failed&tag=t", asked[0])

	for range c.Messages.All(t.Context(), q) { // leaving early asks for no more
		break
	}
	require.Len(t, asked, 4)
}

func TestPaginationThatLeadsNowhere(t *testing.T) {
	for _, next := range []string{"", "same"} {
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, Page[Message]{Data: []Message{{ID: "a"}}, NextCursor: next, HasMore: true})
		})
		rows, last := 0, error(nil)
		for _, err := range c.Messages.All(t.Context(), MessageQuery{}) {
			if last = err; err == nil {
				rows++
			}
		}
		require.ErrorIs(t, last, ErrUnavailable)
		require.LessOrEqual(t, rows, 2)
	}
}

// Every method asks for the path that the API documents.
func TestRoutes(t *testing.T) {
	ctx := context.Background()
	for want, do := range map[string]func(c *Client) error{
		"GET /v1/messages/m":                                     func(c *Client) error { _, err := c.Messages.Get(ctx, "m"); return err },
		"GET /v1/messages/m/timeline":                            func(c *Client) error { _, err := c.Messages.Timeline(ctx, "m"); return err },
		"GET /v1/messages/m/explain":                             func(c *Client) error { _, err := c.Messages.Explain(ctx, "m"); return err },
		"POST /v1/messages/m:cancel":                             func(c *Client) error { _, err := c.Messages.Cancel(ctx, "m"); return err },
		"POST /v1/campaigns":                                     func(c *Client) error { _, err := c.Campaigns.Create(ctx, CampaignRequest{}); return err },
		"GET /v1/campaigns":                                      func(c *Client) error { _, err := c.Campaigns.List(ctx); return err },
		"GET /v1/campaigns/a%3Ab":                                func(c *Client) error { _, err := c.Campaigns.Get(ctx, "a:b"); return err },
		"GET /v1/campaigns/a%2Fb%3F":                             func(c *Client) error { _, err := c.Campaigns.Get(ctx, "a/b?"); return err },
		"POST /v1/campaigns/x:check":                             func(c *Client) error { _, err := c.Campaigns.Check(ctx, "x"); return err },
		"POST /v1/campaigns/x:start":                             func(c *Client) error { _, err := c.Campaigns.Start(ctx, "x"); return err },
		"POST /v1/campaigns/x:pause":                             func(c *Client) error { _, err := c.Campaigns.Pause(ctx, "x"); return err },
		"POST /v1/campaigns/x:resume":                            func(c *Client) error { _, err := c.Campaigns.Resume(ctx, "x"); return err },
		"POST /v1/campaigns/x:stop":                              func(c *Client) error { _, err := c.Campaigns.Stop(ctx, "x"); return err },
		"GET /v1/campaigns/x/report":                             func(c *Client) error { _, err := c.Campaigns.Report(ctx, "x"); return err },
		"GET /v1/audiences":                                      func(c *Client) error { _, err := c.Audiences.List(ctx); return err },
		"GET /v1/audiences/x":                                    func(c *Client) error { _, err := c.Audiences.Get(ctx, "x"); return err },
		"GET /v1/audiences/x/people?limit=5":                     func(c *Client) error { _, err := c.Audiences.People(ctx, "x", 5); return err },
		"GET /v1/audiences/x/rejected":                           func(c *Client) error { return c.Audiences.Rejected(ctx, "x", io.Discard) },
		"DELETE /v1/audiences/x":                                 func(c *Client) error { return c.Audiences.Delete(ctx, "x") },
		"PUT /v1/templates/x":                                    func(c *Client) error { _, err := c.Templates.Put(ctx, "x", TemplateRequest{}); return err },
		"GET /v1/templates":                                      func(c *Client) error { _, err := c.Templates.List(ctx); return err },
		"GET /v1/templates/x?version=2":                          func(c *Client) error { _, err := c.Templates.Get(ctx, "x", 2); return err },
		"GET /v1/templates/x/versions":                           func(c *Client) error { _, err := c.Templates.Versions(ctx, "x"); return err },
		"POST /v1/templates/x:render":                            func(c *Client) error { _, err := c.Templates.Render(ctx, "x", RenderRequest{}); return err },
		"GET /v1/connector-types":                                func(c *Client) error { _, err := c.Connectors.Types(ctx); return err },
		"PUT /v1/connectors/x":                                   func(c *Client) error { _, err := c.Connectors.Put(ctx, "x", ConnectorRequest{}); return err },
		"GET /v1/connectors":                                     func(c *Client) error { _, err := c.Connectors.List(ctx); return err },
		"GET /v1/connectors/x":                                   func(c *Client) error { _, err := c.Connectors.Get(ctx, "x"); return err },
		"POST /v1/connectors/x:test":                             func(c *Client) error { _, err := c.Connectors.Test(ctx, "x"); return err },
		"POST /v1/connectors/x:pause":                            func(c *Client) error { _, err := c.Connectors.Pause(ctx, "x"); return err },
		"POST /v1/connectors/x:resume":                           func(c *Client) error { _, err := c.Connectors.Resume(ctx, "x"); return err },
		"DELETE /v1/connectors/x":                                func(c *Client) error { return c.Connectors.Delete(ctx, "x") },
		"POST /v1/tenants":                                       func(c *Client) error { _, err := c.Tenants.Create(ctx, TenantRequest{}); return err },
		"PUT /v1/tenants/x":                                      func(c *Client) error { _, err := c.Tenants.Set(ctx, "x", TenantRequest{}); return err },
		"GET /v1/tenants":                                        func(c *Client) error { _, err := c.Tenants.List(ctx); return err },
		"GET /v1/tenants/x":                                      func(c *Client) error { _, err := c.Tenants.Get(ctx, "x"); return err },
		"POST /v1/keys":                                          func(c *Client) error { _, err := c.Keys.Create(ctx, KeyRequest{}); return err },
		"GET /v1/keys":                                           func(c *Client) error { _, err := c.Keys.List(ctx); return err },
		"DELETE /v1/keys/x":                                      func(c *Client) error { return c.Keys.Revoke(ctx, "x") },
		"POST /v1/suppressions":                                  func(c *Client) error { return c.Suppressions.Add(ctx, Suppression{}) },
		"GET /v1/suppressions/check?channel=sms&to=%2B1":         func(c *Client) error { _, err := c.Suppressions.Check(ctx, ChannelSMS, "+1"); return err },
		"DELETE /v1/suppressions?to=%2B1":                        func(c *Client) error { return c.Suppressions.Delete(ctx, "", "+1") },
		"GET /v1/events?after=7&limit=2&wait=3s":                 func(c *Client) error { _, err := c.Events.Page(ctx, 7, 2, 3*time.Second); return err },
		"GET /v1/audit":                                          func(c *Client) error { _, err := c.Audit.Verify(ctx); return err },
		"GET /v1/audit?tenant=x":                                 func(c *Client) error { _, err := c.Audit.VerifyTenant(ctx, "x"); return err },
		"GET /v1/dlq":                                            func(c *Client) error { _, err := c.DeadLetters.Page(ctx, DeadLetterFilter{}, 0, ""); return err },
		"POST /v1/dlq:retry":                                     func(c *Client) error { _, err := c.DeadLetters.Retry(ctx, DeadLetterRequest{}); return err },
		"POST /v1/dlq:drop":                                      func(c *Client) error { _, err := c.DeadLetters.Drop(ctx, DeadLetterRequest{}); return err },
		"GET /v1/receipts/unmatched":                             func(c *Client) error { return drain(c.Receipts.Unmatched(ctx)) },
		"GET /v1/routes":                                         func(c *Client) error { _, err := c.Routes.List(ctx); return err },
		"PUT /v1/routes":                                         func(c *Client) error { _, err := c.Routes.Set(ctx, nil); return err },
		"POST /v1/routes:explain":                                func(c *Client) error { _, err := c.Routes.Explain(ctx, RouteQuery{}); return err },
		"GET /v1/retries":                                        func(c *Client) error { _, err := c.Retries.List(ctx); return err },
		"PUT /v1/retries":                                        func(c *Client) error { _, err := c.Retries.Set(ctx, nil); return err },
		"GET /v1/whoami":                                         func(c *Client) error { _, err := c.Whoami(ctx); return err },
		"GET /readyz":                                            func(c *Client) error { _, err := c.Health(ctx); return err },
		"GET /version":                                           func(c *Client) error { _, err := c.Version(ctx); return err },
		"POST /v1/audiences/x/import?phone=mobile&region=IN":     importInto("x", ImportOptions{Phone: "mobile", Region: "IN"}),
		"POST /v1/audiences/x/import?channel=c&email=e&url=hook": importInto("x", ImportOptions{Channel: "c", Email: "e", URL: "hook"}),
	} {
		t.Run(want, func(t *testing.T) {
			got := ""
			c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got = r.Method + " " + r.URL.RequestURI()
				_, _ = io.WriteString(w, "{}")
			})
			require.NoError(t, do(c))
			require.Equal(t, want, got)
		})
	}
}

func drain[T any](rows iter.Seq2[T, error]) (last error) {
	for _, err := range rows {
		last = err
	}
	return last
}

// Every filter is sent, pages are walked to their end, and an error ends the walk.
func TestDeadLetters(t *testing.T) {
	var asked []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		switch r.URL.Query().Get("cursor") {
		case "":
			answer(w, 200, Page[Message]{Data: []Message{{ID: "a"}}, NextCursor: "2", HasMore: true})
		case "2":
			answer(w, 200, Page[Message]{Data: []Message{{ID: "b"}}, NextCursor: "3", HasMore: true})
		default:
			refuse(w, 403, "forbidden")
		}
	})
	since := time.Unix(0, 0)
	f := DeadLetterFilter{Status: Expired, Reason: "r 1", Channel: ChannelSMS, To: "+1", Connector: "k", Campaign: "c", Tag: "t", Since: &since}
	var got []string
	var last error
	for m, err := range c.DeadLetters.All(t.Context(), f) {
		if last = err; err == nil {
			got = append(got, m.ID)
		}
	}
	require.Equal(t, []string{"a", "b"}, got)
	var e *Error
	require.ErrorAs(t, last, &e)
	require.Equal(t, "campaign=c&channel=sms&connector=k&reason=r+1&since=1970-01-01T00%3A00%3A00Z&status=expired&tag=t&to=%2B1", asked[0])
	require.Contains(t, asked[1], "reason=r+1", "the next page has the filter too")
}

// What a call says goes out as it is documented, and what comes back is read.
func TestDeadLetterBodies(t *testing.T) {
	var body string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		answer(w, 200, DeadLetterResult{Done: 2, Skipped: []DeadLetterNoMove{{ID: "x", Status: Queued}}, More: true})
	})
	out, err := c.DeadLetters.Retry(t.Context(), DeadLetterRequest{IDs: []string{"a"}, TTL: "1h"})
	require.NoError(t, err)
	require.JSONEq(t, `{"ids":["a"],"ttl":"1h"}`, body)
	require.Equal(t, &DeadLetterResult{Done: 2, Skipped: []DeadLetterNoMove{{ID: "x", Status: Queued}}, More: true}, out)
	_, err = c.DeadLetters.Drop(t.Context(), DeadLetterRequest{Filter: &DeadLetterFilter{}})
	require.NoError(t, err)
	require.JSONEq(t, `{"filter":{}}`, body, "an empty filter means all and must not get lost")
}

func TestRules(t *testing.T) {
	var body string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if body = string(b); body == "" {
			body = `{"rules":[]}`
		}
		_, _ = io.WriteString(w, body)
	})
	routes := []Route{{Prefix: "+91", Targets: []RouteTarget{{Connector: "a", Weight: 0}}}}
	got, err := c.Routes.Set(t.Context(), routes)
	require.NoError(t, err)
	require.Equal(t, routes, got)
	require.JSONEq(t, `{"rules":[{"prefix":"+91","targets":[{"connector":"a","weight":0}]}]}`, body)
	_, err = c.Routes.Set(t.Context(), nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"rules":[]}`, body, "no rules are an empty list, not nothing")
	retries := []RetryRule{{Class: "transient", Delays: []string{"5s"}}}
	again, err := c.Retries.Set(t.Context(), retries)
	require.NoError(t, err)
	require.Equal(t, retries, again)
	list, err := c.Routes.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
}

func importInto(name string, opt ImportOptions) func(c *Client) error {
	return func(c *Client) error {
		_, err := c.Audiences.Import(context.Background(), name, strings.NewReader("mobile\n+1\n"), opt)
		return err
	}
}

func TestImportIsTriedOnce(t *testing.T) {
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		body, _ := io.ReadAll(r.Body)
		require.Equal(t, "text/csv", r.Header.Get("Content-Type"))
		require.Equal(t, "mobile\n+1\n", string(body))
		refuse(w, 503, "storage_unavailable")
	})
	require.ErrorIs(t, importInto("x", ImportOptions{})(c), ErrUnavailable)
	require.Equal(t, 1, n)
}

func TestRejectedIsStreamed(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "row,reason\n") })
	var out strings.Builder
	require.NoError(t, c.Audiences.Rejected(t.Context(), "x", &out))
	require.Equal(t, "row,reason\n", out.String())

	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "row")
	})
	require.ErrorIs(t, c.Audiences.Rejected(t.Context(), "x", io.Discard), ErrUnavailable)
}

func TestWait(t *testing.T) {
	for _, tc := range []struct {
		name  string
		comes []Status
		want  []Status
		end   Status
		err   error
	}{
		{"at once", []Status{Delivered}, []Status{Delivered}, Delivered, nil},
		{"later", []Status{Queued, Sending, Sent, Delivered}, []Status{Delivered}, Delivered, nil},
		{"read is delivered too", []Status{Queued, Read}, []Status{Delivered}, Read, nil},
		{"ended otherwise", []Status{Queued, Failed}, []Status{Delivered}, Failed, ErrEnded},
		{"handed over", []Status{Queued, Sent}, nil, Sent, nil},
		{"ended, nothing asked", []Status{Queued, Expired}, nil, Expired, nil},
		{"not delivered was sent", []Status{Undelivered}, []Status{Sent}, Undelivered, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := 0
			c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, Message{ID: "m", Status: tc.comes[n]})
				n++
			})
			m, err := c.Messages.Wait(t.Context(), "m", tc.want...)
			require.ErrorIs(t, err, tc.err)
			require.Equal(t, tc.end, m.Status)
			require.Equal(t, len(tc.comes), n)
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, Message{ID: "m", Status: Held}) })
		c.sleep = func(context.Context, time.Duration) error { cancel(); return ctx.Err() }
		m, err := c.Messages.Wait(ctx, "m", Delivered)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, Held, m.Status)
	})
}

func TestLatest(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "latest", r.URL.Query().Get("after"))
		answer(w, 200, Page[Event]{NextCursor: "42"})
	})
	seq, err := c.Events.Latest(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 42, seq)
	c, _ = serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, Page[Event]{}) })
	_, err = c.Events.Latest(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestFollow(t *testing.T) {
	var after []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		after = append(after, r.URL.Query().Get("after"))
		var p Page[Event]
		switch len(after) {
		case 1:
			p.Data = []Event{{Seq: 4}, {Seq: 5}}
		case 3:
			p.Data = []Event{{Seq: 9}}
		case 4:
			cancel()
		}
		answer(w, 200, p)
	})
	var got []string
	var last error
	for e, err := range c.Events.Follow(ctx, 3) {
		if last = err; err == nil {
			got = append(got, fmt.Sprint(e.Seq))
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Equal(t, []string{"4", "5", "9"}, got)
	require.Equal(t, []string{"3", "5", "5", "9"}, after)
	require.Contains(t, s.waits, time.Second, "an empty answer at once is not asked again at once")
}
