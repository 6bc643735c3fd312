package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
)

func (b *box) putTemplate(name string, r sdk.TemplateRequest) answer {
	b.t.Helper()
	body, err := json.Marshal(r)
	require.NoError(b.t, err)
	return b.do("PUT", "/v1/templates/"+name, "application/json", bytes.NewReader(body), nil)
}

// Templates that cannot be good are refused when they are stored; those that only show it when they run fail their
// message, and cost next to nothing.
func TestHostileTemplatesThroughTheEngine(t *testing.T) {
	b := newBox(t)
	for name, text := range map[string]string{
		"20,000 nested ifs": strings.Repeat("{% if a %}", 20_000),
		"12,000 whole ifs":  strings.Repeat("{% if a %}", 12_000) + strings.Repeat("{% endif %}", 12_000),
		"include":           "Hi\n  {% include '/etc/passwd' %}",
		"partial of itself": "{% render 'self' %}",
		"unclosed tag":      "Hi {% if a",
		"unclosed output":   "Hi {{ a",
		"unclosed block":    "Hi {% for i in (1..3) %}x",
		"unknown filter":    "Hi {{ a | upcasee }}",
		"unknown tag":       "{% exec 'ls' %}",
	} {
		a := b.putTemplate("bad", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: text})
		require.Equal(t, 422, a.status, "%s: %s", name, a.body)
		require.Contains(t, a.body, `"invalid_template"`, name)
		require.Regexp(t, `line \d+, column \d+`, a.body, name)
		require.Equal(t, 404, b.get("/v1/templates/bad").status, name)
	}
	_, err := b.Client.Templates.Get(b.ctx, "bad", 0)
	require.ErrorIs(t, err, sdk.ErrNotFound)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	hostile := map[string]string{
		"loop of 1e9":      "{% for i in (1..1000000000) %}{% endfor %}",
		"nested loops":     strings.Repeat("{% for i in (1..1000) %}", 6) + strings.Repeat("{% endfor %}", 6),
		"doubled 30 times": "{% assign s = 'aaaaaaaa' %}{% for i in (1..30) %}{% assign s = s | append: s %}{% endfor %}{{ s }}",
		"1 GB appended":    "{% assign s = 'a' %}{% for i in (1..1000000000) %}{% assign s = s | append: 'aaaaaaaaaaaaaaaa' %}{% endfor %}{{ s }}",
		"division by zero": "{{ 1 | divided_by: 0 }}",
	}
	i := 0
	for name, text := range hostile {
		tpl := fmt.Sprintf("h%d", i)
		i++
		a := b.putTemplate(tpl, sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: text})
		require.Equal(t, 201, a.status, "%s: %s", name, a.body)
		m := b.message(b.send(sdk.Template{Name: tpl, Channel: sdk.ChannelSMS, To: "+12025550100"}))
		require.Equal(t, sdk.Failed, m.Status, name)
		require.Equal(t, "render_failed", m.Reason, name)
		require.NotEmpty(t, m.Detail)
		require.Zero(t, m.Attempts, "%s was sent", name)
	}
	runtime.ReadMemStats(&after)
	// 8 MB each is the evaluator's budget; the rest is the engine and this test.
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(3*8<<20)*uint64(len(hostile)))
	require.Empty(t, b.Sim.Ledger().To(delivery.SMS, "+12025550100"))

	// What must be known when it is rendered must be known when it is accepted.
	require.Equal(t, 201, b.putTemplate("strict", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hi {{ name }}"}).status)
	_, err = b.Client.Send(b.ctx, sdk.Template{Name: "strict", Channel: sdk.ChannelSMS, To: "+12025550100"})
	require.ErrorContains(t, err, "missing_variable")
}

// What a variable holds is text and never template, markup or another header.
func TestVariablesAreText(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, r := range []sdk.TemplateRequest{
		{Channel: sdk.ChannelSMS, Text: "Hi {{ name }}"},
		{Channel: sdk.ChannelEmail, Subject: "For {{ name }}", Text: "Hi {{ name }}", HTML: "<p title=\"{{ name }}\">Hi {{ name }}</p>"},
		{Channel: sdk.ChannelWebhook, Event: "a", Data: `{"name": {{ name | json }}}`},
	} {
		require.Equal(t, 201, b.putTemplate(string(r.Channel), r).status)
	}
	for _, name := range []string{"{{ secrets }}", "{% include '/etc/passwd' %}", "<script>alert(1)</script>", `"},"admin":{"`, `"><img src=x>`} {
		b.send(sdk.Template{Name: "sms", Channel: sdk.ChannelSMS, To: "+12025550100", Vars: sdk.Vars{"name": name}})
		out, err := b.Client.Templates.Render(b.ctx, "email", sdk.RenderRequest{Vars: sdk.Vars{"name": name}})
		require.NoError(t, err)
		require.Equal(t, "Hi "+name, out.Text)
		require.Equal(t, "For "+name, out.Subject)
		for _, markup := range []string{"<script", "<img", `title=""`} {
			require.NotContains(t, out.HTML, markup)
		}
		m := b.message(b.send(sdk.Template{Name: "webhook", Channel: sdk.ChannelWebhook, To: b.Sim.URL() + "/sim/hook/200/x", Vars: sdk.Vars{"name": name}}))
		require.Equal(t, sdk.Sent, m.Status, m.Reason)
		b.until("the SMS arrives as it was written", func() bool {
			taken := b.Sim.Ledger().To(delivery.SMS, "+12025550100")
			return len(taken) > 0 && taken[len(taken)-1].Text == "Hi "+name
		})
	}
	for _, e := range b.Sim.Ledger().To(delivery.Webhook, "/sim/hook/200/x") {
		var body struct{ Data map[string]string }
		require.NoError(t, json.Unmarshal([]byte(e.Text), &body))
		require.Len(t, body.Data, 1, e.Text)
	}
	// A line break in a subject is where another header would begin.
	m := b.message(b.send(sdk.Template{Name: "email", Channel: sdk.ChannelEmail, To: "asha@sim.test",
		Vars: sdk.Vars{"name": "x\r\nBcc: victim@example.com"}}))
	for _, e := range b.Sim.Ledger().Entries(0) {
		require.NotContains(t, e.To, "victim")
		require.NotContains(t, e.Subject, "\n")
	}
	require.Contains(t, []sdk.Status{sdk.Failed, sdk.Sent, sdk.Delivered}, m.Status)
}

// filled is n bytes of one kind, so that a test need not hold them.
func filled(c byte, n int64) io.Reader { return io.LimitReader(repeating(c), n) }

type repeating byte

func (r repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

// Files that people and programs upload: refused as a whole with a reason, or taken without their bad rows.
func TestHostileImports(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	text := func(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }
	for i, c := range []struct {
		name   string
		file   func() io.Reader
		status int
		code   string         // of the refusal
		people int            // who is taken
		out    map[string]int // rows left out
	}{
		{"UTF-16 with a mark", text("\xff\xfep\x00h\x00o\x00n\x00e\x00\n\x00"), 422, "invalid_encoding", 0, nil},
		{"UTF-16", text("p\x00h\x00o\x00n\x00e\x00\n\x00"), 422, "invalid_encoding", 0, nil},
		{"NUL", text("phone,n\n+12025550100,a\x00b\n+12025550101,c\n"), 201, "", 1, map[string]int{"control_character": 1}},
		{"unbalanced quote", text("phone,n\n+12025550100,\"a\n+12025550101,c\n"), 201, "", 1, map[string]int{"unbalanced_quote": 1}},
		{"a cell of 100 MB", func() io.Reader {
			return io.MultiReader(strings.NewReader("phone,n\n+12025550100,"), filled('x', 100<<20), strings.NewReader("\n+12025550101,c\n"))
		}, 201, "", 1, map[string]int{"cell_too_large": 1}},
		{"10,000 columns", text("phone" + strings.Repeat(",c", 9999) + "\n"), 422, "too_many_columns", 0, nil},
		{"ragged rows", text("phone,n\n+12025550100\n+12025550101,c,d\n+12025550102,e\n"), 201, "", 1, map[string]int{"ragged": 2}},
		{"formula", text("phone,n\n=cmd|' /C calc'!A0,b\n+12025550101,=1+1\n"), 201, "", 1, map[string]int{"invalid_phone": 1}},
		{"duplicate header", text("phone,name,name\n+12025550100,a,b\n"), 422, "duplicate_column", 0, nil},
		{"header only", text("phone,name\n"), 422, "no_rows", 0, nil},
		{"nothing", text(""), 422, "empty_file", 0, nil},
		{"CR-only line ends", text("phone,n\r+12025550100,a\r+12025550101,b\r"), 201, "", 2, nil},
		{"a workbook", text("PK\x03\x04rest"), 422, "not_text", 0, nil},
		{"1,000,001 bad rows", func() io.Reader {
			return io.MultiReader(strings.NewReader("phone\n"), strings.NewReader(strings.Repeat("x\n", 1_000_001)), strings.NewReader("+12025550100\n"))
		}, 201, "", 1, map[string]int{"invalid_phone": 1_000_001}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := fmt.Sprintf("/v1/audiences/a%d", i)
			a := b.do("POST", path+"/import", "text/csv", c.file(), nil)
			require.Equal(t, c.status, a.status, a.body)
			if c.status == 422 {
				var p sdk.Error
				require.NoError(t, json.Unmarshal([]byte(a.body), &p))
				require.Equal(t, "invalid_file", p.Code)
				require.Equal(t, c.code, p.Fields[0].Code)
				require.Equal(t, 404, b.get(path).status, "something was stored")
				return
			}
			var got sdk.Audience
			require.NoError(t, json.Unmarshal([]byte(a.body), &got))
			require.True(t, got.Ready)
			require.Equal(t, c.people, got.People)
			require.Equal(t, c.out, got.LeftOut)
			if c.out == nil {
				return
			}
			rows := b.get(path + "/rejected")
			require.Equal(t, 200, rows.status)
			require.LessOrEqual(t, strings.Count(rows.body, "\n"), 1_000_002, "a line for each of the first 1,000,000, a heading and a sum")
			require.Less(t, len(rows.body), 100<<20)
			require.NotContains(t, rows.body, ",=cmd", "a formula")
		})
	}
	a := b.do("POST", "/v1/audiences/z/import", "text/csv", strings.NewReader("x"), http.Header{"Content-Encoding": {"gzip"}})
	require.Equal(t, 415, a.status, a.body)
}

// A campaign that is stopped while it is being expanded has accounted for everybody; of many starts one wins.
func TestCampaignRaces(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	require.Equal(t, 201, b.putTemplate("t", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "Hi"}).status)
	const people = 5000
	var csv strings.Builder
	csv.WriteString("phone\n")
	for i := range people {
		fmt.Fprintf(&csv, "+1202555%04d\n", i)
	}
	require.Equal(t, 201, b.do("POST", "/v1/audiences/all/import", "text/csv", strings.NewReader(csv.String()), nil).status)
	_, err := b.Client.Campaigns.Create(b.ctx, sdk.CampaignRequest{Name: "c", Audience: "all", Templates: []string{"t"}, Rate: 1})
	require.NoError(t, err)
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[int]int{}
	for range 6 {
		wg.Go(func() {
			a := b.do("POST", "/v1/campaigns/c:start", "", nil, nil)
			mu.Lock()
			defer mu.Unlock()
			got[a.status]++
		})
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: 1, 409: 5}, got)
	require.Equal(t, 409, b.do("DELETE", "/v1/audiences/all", "", nil, nil).status, "the audience of a running campaign")
	require.Equal(t, 201, b.putTemplate("t", sdk.TemplateRequest{Channel: sdk.ChannelSMS, Text: "edited"}).status)
	for range 20 {
		require.Equal(t, 200, b.do("POST", "/v1/campaigns/c:pause", "", nil, nil).status)
		require.Equal(t, 200, b.do("POST", "/v1/campaigns/c:resume", "", nil, nil).status)
	}
	require.Equal(t, 200, b.do("POST", "/v1/campaigns/c:stop", "", nil, nil).status)
	b.settle()
	var r *sdk.CampaignReport
	b.until("nothing of a stopped campaign waits", func() bool {
		r, err = b.Client.Campaigns.Report(b.ctx, "c")
		return err == nil && r.Waiting == 0
	})
	sum := 0
	for _, n := range r.ByStatus {
		sum += n
	}
	require.Equal(t, r.Accepted, sum)
	for _, n := range r.Skipped {
		sum += n
	}
	require.Equal(t, people, sum+r.ToExpand)
	for _, e := range b.Sim.Ledger().Entries(0) {
		require.Equal(t, "Hi", e.Text, "the version of the start stays")
	}
	require.Equal(t, 204, b.do("DELETE", "/v1/audiences/all", "", nil, nil).status)
}
