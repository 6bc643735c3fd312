package templates_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/templates"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSetRenders(t *testing.T) {
	vars := map[string]any{"name": "Asha <3", "n": 42.0, "tpl": "{{ name }}"}
	for name, c := range map[string]struct {
		src  templates.Source
		want delivery.Content
	}{
		"sms":      {templates.Source{Channel: delivery.SMS, Text: "Hi {{ name }}: {{ tpl }}"}, delivery.Content{Text: "Hi Asha <3: {{ name }}"}},
		"whatsapp": {templates.Source{Channel: delivery.WhatsApp, Text: "{{ n }}"}, delivery.Content{Text: "42"}},
		"approved": {
			templates.Source{Channel: delivery.WhatsApp, Approved: &delivery.ProviderTemplate{Name: "shipped", Language: "en", Params: []string{"{{ name }}", "#{{ n }}"}}},
			delivery.Content{Approved: &delivery.ProviderTemplate{Name: "shipped", Language: "en", Params: []string{"Asha <3", "#42"}}},
		},
		"email": {
			templates.Source{Channel: delivery.Email, Subject: " No {{ n }}\nfor you\n", Text: "Hi {{ name }}", HTML: "<p>Hi {{ name }}</p>"},
			delivery.Content{Subject: "No 42 for you", Text: "Hi Asha <3", HTML: "<p>Hi Asha &lt;3</p>"},
		},
		"email, html only": {
			templates.Source{Channel: delivery.Email, Subject: "S", HTML: "<p>Hi {{ name }}</p><p>{{ tpl }}</p>"},
			delivery.Content{Subject: "S", Text: "Hi Asha <3\n\n{{ name }}", HTML: "<p>Hi Asha &lt;3</p><p>{{ name }}</p>"},
		},
		"webhook": {
			templates.Source{Channel: delivery.Webhook, Event: "order.shipped", Data: `{"name": "{{ name }}", "n": {{ n }}}`},
			delivery.Content{Event: "order.shipped", Data: json.RawMessage(`{"name": "Asha \u003c3", "n": 42}`)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := templates.CompileSet(c.src)
			require.NoError(t, err)
			require.Equal(t, c.src.Channel, set.Channel())
			for range 2 { // the second one works with what the first one left
				got, err := set.Render(vars)
				require.NoError(t, err)
				require.Equal(t, c.want, got)
			}
		})
	}
}

func TestSetRefuses(t *testing.T) {
	vars := map[string]any{"crlf": "x\r\nBcc: y", "ls": "a\u2028b", "nul": "a\x00", "blank": "  ", "long": strings.Repeat("x", 999), "q": `"`}
	email := func(subject string) templates.Source {
		return templates.Source{Channel: delivery.Email, Subject: subject, Text: "x"}
	}
	approved := func(param string) templates.Source {
		return templates.Source{Channel: delivery.WhatsApp, Approved: &delivery.ProviderTemplate{Name: "a", Language: "en", Params: []string{"x", param}}}
	}
	for name, c := range map[string]struct {
		src        templates.Source
		code, part string
	}{
		"no channel":          {templates.Source{Text: "x"}, templates.CodeNotForKind, "text"},
		"sms without text":    {templates.Source{Channel: delivery.SMS}, templates.CodeNotForKind, "text"},
		"sms with html":       {templates.Source{Channel: delivery.SMS, Text: "x", HTML: "x"}, templates.CodeNotForKind, "html"},
		"sms with subject":    {templates.Source{Channel: delivery.SMS, Text: "x", Subject: "x"}, templates.CodeNotForKind, "subject"},
		"email with data":     {templates.Source{Channel: delivery.Email, Subject: "x", Text: "x", Data: "1"}, templates.CodeNotForKind, "data"},
		"email, no subject":   {templates.Source{Channel: delivery.Email, Text: "x"}, templates.CodeNotForKind, "subject"},
		"email, no body":      {templates.Source{Channel: delivery.Email, Subject: "x"}, templates.CodeNotForKind, "text"},
		"webhook, no data":    {templates.Source{Channel: delivery.Webhook, Event: "x"}, templates.CodeNotForKind, "data"},
		"webhook with text":   {templates.Source{Channel: delivery.Webhook, Data: "1", Text: "x"}, templates.CodeNotForKind, "text"},
		"whatsapp, both":      {templates.Source{Channel: delivery.WhatsApp, Text: "x", Approved: &delivery.ProviderTemplate{Name: "a", Language: "b"}}, templates.CodeNotForKind, "text"},
		"whatsapp, nothing":   {templates.Source{Channel: delivery.WhatsApp}, templates.CodeNotForKind, "text"},
		"approved, no name":   {templates.Source{Channel: delivery.WhatsApp, Approved: &delivery.ProviderTemplate{Language: "b"}}, templates.CodeNotForKind, "approved"},
		"syntax in subject":   {email("{{ x"), templates.CodeSyntax, "subject"},
		"syntax in param":     {approved("{% if %}"), templates.CodeSyntax, "params[1]"},
		"missing":             {email("{{ gone }}"), templates.CodeMissing, "subject"},
		"subject: CRLF":       {email("Hi {{ crlf }}"), templates.CodeControl, "subject"},
		"subject: separator":  {email("Hi {{ ls }}"), templates.CodeControl, "subject"},
		"subject: NUL":        {email("Hi {{ nul }}"), templates.CodeControl, "subject"},
		"subject: blank":      {email("{{ blank }}"), templates.CodeEmpty, "subject"},
		"subject: too long":   {email("{{ long }}"), templates.CodeBudget, "subject"},
		"text: blank":         {templates.Source{Channel: delivery.SMS, Text: "{{ blank }}\n"}, templates.CodeEmpty, "text"},
		"html: blank":         {templates.Source{Channel: delivery.Email, Subject: "x", HTML: "{{ blank }}"}, templates.CodeEmpty, "html"},
		"param: line break":   {approved("{{ crlf }}"), templates.CodeControl, "params[1]"},
		"param: five spaces":  {approved("a     b"), templates.CodeControl, "params[1]"},
		"param: empty":        {approved(""), templates.CodeEmpty, "params[1]"},
		"data: not JSON":      {templates.Source{Channel: delivery.Webhook, Data: `{"a": }`}, templates.CodeBadJSON, "data"},
		"data: raw breaks it": {templates.Source{Channel: delivery.Webhook, Data: `{"a": "{{ q | raw }}"}`}, templates.CodeBadJSON, "data"},
		"one output": {
			templates.Source{Channel: delivery.Email, Subject: "x", Text: strings.Repeat("x", 150_000), HTML: strings.Repeat("x", 150_000)},
			templates.CodeBudget, "html",
		},
		"one budget": {templates.Source{Channel: delivery.Email, Subject: "x", Text: loop(60_000), HTML: loop(60_000)}, templates.CodeBudget, "html"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := templates.CompileSet(c.src)
			if err == nil {
				var content delivery.Content
				content, err = set.Render(vars)
				require.Zero(t, content)
			}
			var bad *templates.Error
			require.ErrorAs(t, err, &bad)
			require.Equal(t, c.code, bad.Code, "%v", err)
			require.Equal(t, c.part, bad.Part, "%v", err)
			require.Contains(t, err.Error(), c.part+": ")
		})
	}
}

// What a rendering assigns, counts and cycles is gone with it, and each part of a set begins afresh.
func TestRenderingsForget(t *testing.T) {
	const text = "{{ x | default: 'none' }}{% assign x = 1 %}{% increment n %}{% cycle 'a', 'b' %}"
	set, err := templates.CompileSet(templates.Source{Channel: delivery.Email, Subject: text, Text: text, HTML: text})
	require.NoError(t, err)
	for range 3 {
		c, err := set.Render(nil)
		require.NoError(t, err)
		require.Equal(t, delivery.Content{Subject: "none0a", Text: "none0a", HTML: "none0a"}, c)
	}
}

func TestTemplatesForget(t *testing.T) {
	tpl, err := templates.Compile("{{ x | default: 'none' }}{% assign x = 1 %}{% increment n %}", templates.Plain)
	require.NoError(t, err)
	for range 3 {
		out, err := tpl.Render(nil, nil)
		require.NoError(t, err)
		require.Equal(t, "none0", string(out))
	}
}

func loop(n int) string { return fmt.Sprintf("x{%% for i in (1..%d) %%}{%% endfor %%}", n) }

func TestSetVariables(t *testing.T) {
	set, err := templates.CompileSet(templates.Source{
		Channel: delivery.Email, Subject: "{{ b | default: 1 }} {{ c }}", Text: "{{ a }}{{ b }}", HTML: "{{ c }}{{ d | default: 2 }}",
	})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, set.Required())
	require.Equal(t, []templates.Variable{{Name: "b"}, {Name: "c"}, {Name: "a"}, {Name: "d", Optional: true}}, set.Variables())
}

// Renderings at the same time share nothing: each gets its own values.
func TestConcurrentRendering(t *testing.T) {
	set, err := templates.CompileSet(templates.Source{
		Channel: delivery.Email, Subject: "{{ n }}", Text: "{% assign x = n | times: 2 %}{% for i in (1..5) %}{{ x }}{% endfor %}", HTML: "<p>{{ n }}</p>",
	})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				n := g*1000 + i
				c, err := set.Render(map[string]any{"n": n})
				x := fmt.Sprint(2 * n)
				if err != nil || c.Subject != fmt.Sprint(n) || c.Text != strings.Repeat(x, 5) || c.HTML != fmt.Sprintf("<p>%d</p>", n) {
					t.Errorf("%d: %v %+v", n, err, c)
					return
				}
			}
		})
	}
	wg.Wait()
}

func source(text string) func(context.Context) (templates.Source, error) {
	return func(context.Context) (templates.Source, error) {
		return templates.Source{Channel: delivery.SMS, Text: text}, nil
	}
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	ctx, c := context.Background(), templates.NewCache(2)
	get := func(tenant delivery.TenantID, name string, version int) (loaded bool) {
		set, err := c.Get(ctx, tenant, name, version, func(ctx context.Context) (templates.Source, error) {
			loaded = true
			return source(fmt.Sprint(tenant, name, version))(ctx)
		})
		require.NoError(t, err)
		content, err := set.Render(nil)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(tenant, name, version), content.Text, "another template")
		return loaded
	}
	require.True(t, get("a", "x", 1))
	require.False(t, get("a", "x", 1))
	require.True(t, get("b", "x", 1), "another tenant's")
	require.False(t, get("a", "x", 1))
	require.True(t, get("a", "x", 2), "another version")
	require.False(t, get("a", "x", 1), "used last, and yet dropped")
	require.True(t, get("b", "x", 1), "more than two are kept")
	require.True(t, get("a", "x", 0))
	require.True(t, get("a", "x", 0), "version 0 was kept")
	require.Equal(t, 2, c.Len())
}

func TestCacheIsBoundedInBytes(t *testing.T) {
	ctx, c := context.Background(), templates.NewCache(100_000)
	big := strings.Repeat("x", templates.MaxSource)
	for i := range 300 {
		_, err := c.Get(ctx, "a", "x", i+1, source(big))
		require.NoError(t, err)
	}
	require.LessOrEqual(t, c.Len()*templates.MaxSource, 64<<20)
	require.Greater(t, c.Len(), 200)
}

func TestCacheLoadsOnceForAll(t *testing.T) {
	ctx, c := context.Background(), templates.NewCache(10)
	var loads atomic.Int32
	begun, release := make(chan struct{}), make(chan struct{})
	load := func(ctx context.Context) (templates.Source, error) {
		loads.Add(1)
		close(begun)
		<-release
		return source("x")(ctx)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Get(ctx, "a", "x", 1, load)
		require.NoError(t, err)
	})
	<-begun
	for range 20 {
		wg.Go(func() {
			_, err := c.Get(ctx, "a", "x", 1, load)
			require.NoError(t, err)
		})
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := c.Get(ended, "a", "x", 1, load)
	require.ErrorIs(t, err, context.Canceled, "a waiter whose context ended waits on")
	close(release)
	wg.Wait()
	require.EqualValues(t, 1, loads.Load())
}

func TestCacheKeepsNoErrors(t *testing.T) {
	ctx, c := context.Background(), templates.NewCache(10)
	down := errors.New("store is down")
	_, err := c.Get(ctx, "a", "x", 1, func(context.Context) (templates.Source, error) { return templates.Source{}, down })
	require.ErrorIs(t, err, down)
	_, err = c.Get(ctx, "a", "x", 1, source("{{"))
	var bad *templates.Error
	require.ErrorAs(t, err, &bad)
	require.Panics(t, func() {
		_, _ = c.Get(ctx, "a", "x", 1, func(context.Context) (templates.Source, error) { panic("load") })
	})
	require.Zero(t, c.Len())
	_, err = c.Get(ctx, "a", "x", 1, source("x"))
	require.NoError(t, err)
}

func benchVars() map[string]any {
	v := map[string]any{"items": []any{}}
	for i := range 8 {
		v[fmt.Sprintf("v%d", i)] = fmt.Sprintf("value %d", i)
	}
	for i := range 5 {
		v["items"] = append(v["items"].([]any), map[string]any{"t": fmt.Sprint("item ", i), "p": float64(i)})
	}
	return v
}

func plainSource() string {
	var b strings.Builder
	for i := range 8 {
		fmt.Fprintf(&b, "%s{{ v%d }}", strings.Repeat("some text ", 12), i)
	}
	return b.String()
}

func benchmark(b *testing.B, src string, mode templates.Mode) {
	tpl, err := templates.Compile(src, mode)
	require.NoError(b, err)
	vars, dst := benchVars(), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tpl.Render(dst, vars); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlain(b *testing.B) { benchmark(b, plainSource(), templates.Plain) }

func BenchmarkHTML(b *testing.B) { benchmark(b, plainSource(), templates.HTML) }

func BenchmarkRich(b *testing.B) {
	benchmark(b, plainSource()+"{% if v1 %}{{ v1 | upcase | truncate: 5 | append: '!' }}{% endif %}"+
		"{% for i in items %}{{ forloop.index }}. {{ i.t }} {{ i.p | times: 2 }}\n{% endfor %}", templates.Plain)
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = templates.Compile(plainSource(), templates.Plain)
	}
}

func BenchmarkSetSMS(b *testing.B) {
	set, err := templates.CompileSet(templates.Source{Channel: delivery.SMS, Text: "Hi {{ v1 }}, your code is {{ v2 }}."})
	require.NoError(b, err)
	vars := benchVars()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = set.Render(vars)
	}
}

func TestPlainRenderingAllocatesNothing(t *testing.T) {
	tpl, err := templates.Compile(plainSource(), templates.Plain)
	require.NoError(t, err)
	vars, dst := benchVars(), make([]byte, 0, 4096)
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { _, _ = tpl.Render(dst, vars) }), 1.0)
}
