package templates

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHTMLEscapes(t *testing.T) {
	const escaped = "&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;&lt;/b&gt;"
	for _, c := range [][2]string{
		{"<p>{{ html }}</p>", "<p>" + escaped + "</p>"},
		{"{{ html | raw }}", `<b>"x" & 'y'</b>`},
		{"{{ html | escape }}", escaped},
		{"{{ html | upcase | escape }}", "&lt;B&gt;&#34;X&#34; &amp; &#39;Y&#39;&lt;/B&gt;"},
		{"{{ '<i>' }}{{ '<' | append: '>' }}", "&lt;i&gt;&lt;&gt;"},
		{"{% capture x %}<i>{{ html }}</i>{% endcapture %}{{ x }}", "<i>" + escaped + "</i>"},
		{"{% capture x %}{{ html }}{% endcapture %}{{ x | append: '' }}", "&amp;lt;b&amp;gt;&amp;#34;x&amp;#34; &amp;amp; &amp;#39;y&amp;#39;&amp;lt;/b&amp;gt;"},
		{"{% assign x = html %}{{ x }}{% for c in list %}{{ c }}{% endfor %}", escaped + "baC"},
		{"{{ lines | append: '<' | newline_to_br }}", "a<br />\nb&lt;"},
		{"{{ html | json }}", "&#34;\\u003cb\\u003e\\&#34;x\\&#34; \\u0026 &#39;y&#39;\\u003c/b\\u003e&#34;"},
		{"<a href=\"{{ link }}\" title='{{ html }}'>x</a>", "<a href=\"https://a.example/?a=1&amp;b=2\" title='" + escaped + "'>x</a>"},
		{"<a href='https://x.example/{{ js }}'>", "<a href='https://x.example/javascript:alert(1)'>"},
		{"<a href=\"{{ js | raw }}\">", "<a href=\"javascript:alert(1)\">"},
		{"<!-- {{ html }} --><b class=\"{% if yes %}a{% else %}b{% endif %}\">{{ count }}</b>", "<!-- " + escaped + " --><b class=\"a\">3</b>"},
		{"<style>p{}</style>{{ html }}<SCRIPT>1<2</script >{{ count }}", "<style>p{}</style>" + escaped + "<SCRIPT>1<2</script >3"},
		{"1 < 2 {{ count }} <3 {{ count }}", "1 < 2 3 <3 3"},
		{"<td {% if yes %}class=\"{{ html }}\"{% endif %} width = \"{{ count }}\">", "<td class=\"" + escaped + "\" width = \"3\">"},
		{"{% cycle html, 'b' %}{% echo html %}", escaped + escaped},
	} {
		tpl, err := Compile(c[0], HTML)
		require.NoError(t, err, c[0])
		v := vars()
		v["link"], v["js"] = "https://a.example/?a=1&b=2", "javascript:alert(1)"
		got, err := tpl.Render(nil, v)
		require.NoError(t, err, c[0])
		require.Equal(t, c[1], string(got), c[0])
	}
}

func TestHTMLRefusesUnsafePlaces(t *testing.T) {
	for _, src := range []string{
		"<script>var x = '{{ name }}'</script>", "<style>p{color:{{ name }}}</style>", "<a href={{ name }}>", "<a {{ name }}>",
		"<{{ name }}>", "<a onclick=\"f('{{ name }}')\">", "<a ONLOAD='{{ name }}'>", "<img alt=x{{ name }}>",
		"{% if yes %}<a title=\"{% endif %}{{ name }}", "{% for i in list %}<a {% endfor %}{{ name }}>",
		"<script>{% cycle name, 'b' %}</script>", "<p title=\"{% if yes %}\" onclick=\"{% endif %}{{ name }}\">",
		"<a href = {{ name }}>",
	} {
		_, err := Compile(src, HTML)
		var bad *Error
		require.ErrorAs(t, err, &bad, src)
		require.Equal(t, CodeUnsafe, bad.Code, src)
	}
	for _, link := range []string{
		"javascript:alert(1)", "JaVaScRiPt:x", " javascript:x", "java\nscript:x", "data:text/html,x", "vbscript:x", "javascript&colon;x",
	} {
		for _, src := range []string{
			"<a href=\"{{ link }}\">", "<A HREF=' {{ link }}'>", "<img src=\"{{ link }}\">", "<a href=\"{% if no %}x{% endif %}{{ link }}\">",
			"{% capture x %}{{ link }}{% endcapture %}<a href=\"{{ x }}\">", "<a href=\"{{ link | escape }}\">",
		} {
			tpl, err := Compile(src, HTML)
			require.NoError(t, err, src)
			v := vars()
			v["link"] = link
			_, err = tpl.Render(nil, v)
			var bad *Error
			require.ErrorAs(t, err, &bad, "%s with %q", src, link)
			require.Equal(t, CodeUnsafe, bad.Code)
		}
	}
}

func TestJSONStaysJSON(t *testing.T) {
	for _, c := range [][2]string{
		{`{"a": "{{ name }}", "b": {{ count }}, "c": {{ name }}}`, `{"a":"Asha","b":3,"c":"Asha"}`},
		{`{"a": "x{{ html }}y", "b": {{ list }}, "c": {{ user.city }}, "d": {{ yes }}}`, `{"a":"x<b>\"x\" & 'y'</b>y","b":["b","a","C"],"c":{"zip":"1"},"d":true}`},
		{`[{% for i in items %}{% unless forloop.first %},{% endunless %}{"t": "{{ i.t }}", "p": {{ i.p }}}{% endfor %}]`, `[{"p":2.5,"t":"pen"},{"p":10,"t":"ink"}]`},
		{`{"a": {{ user | json }}, "b": "{{ inject }}"}`, `{"a":{"city":{"zip":"1"},"name":"Asha","tags":["x","y"]},"b":"\",\"admin\":\"1"}`},
		{`{"a": {{ inject }}, "b\"{{ name }}": {{ raw_json | raw }}}`, `{"a":"\",\"admin\":\"1","b\"Asha":{"x":1}}`},
		{`{"a": {% if yes %}"{{ name }}"{% else %}null{% endif %}, "b": {{ missing | default: nil }}}`, `{"a":"Asha","b":null}`},
		{`{% capture x %}a"{{ name }}{% endcapture %}{"a": "{{ x }}", "b": {{ 2.0 }}, "c": {{ "2" | plus: 1 }}}`, `{"a":"a\"Asha","b":2,"c":3}`},
	} {
		tpl, err := Compile(c[0], JSON)
		require.NoError(t, err, c[0])
		v := vars()
		v["inject"], v["raw_json"] = `","admin":"1`, `{"x":1}`
		got, err := tpl.Render(nil, v)
		require.NoError(t, err, c[0])
		require.True(t, json.Valid(got), "%s", got)
		require.JSONEq(t, c[1], string(got), c[0])
	}
	_, err := Compile(`{"a": {% if yes %}"{% endif %}{{ name }}"}`, JSON)
	require.Error(t, err, "a branch opens a quote that the other does not")
}

func TestVariables(t *testing.T) {
	tpl, err := Compile(`{{ a }} {{ b | default: c }} {% if d %}{{ d.x }}{{ e }}{% endif %} {% for f in g %}{{ f }}{{ forloop.index }}{{ forloop.x[h] }}
{% endfor %}{% assign i = j %}{{ i }}{% case k %}{% when l %}{{ k }}{% endcase %}{% unless m > n %}{% else %}{{ m }}{% endunless %}{{ f }}
{{ o | default: 1 }}{{ o }}{% capture p %}{% endcapture %}{{ p }}{{ a }}{% increment q %}{{ forloop }}`, Plain)
	require.NoError(t, err)
	var required, optional []string
	for _, v := range tpl.Variables() {
		if v.Optional {
			optional = append(optional, v.Name)
		} else {
			required = append(required, v.Name)
		}
	}
	require.Equal(t, []string{"a", "c", "e", "g", "h", "j", "l", "f", "o", "forloop"}, required)
	require.Equal(t, []string{"b", "d", "k", "m", "n"}, optional)
}

func TestLenient(t *testing.T) {
	tpl, err := Compile("[{{ missing }}{% for i in gone %}x{% endfor %}{{ a.b | append: 'c' }}]", Plain)
	require.NoError(t, err)
	_, err = tpl.Render(nil, nil)
	require.Error(t, err)
	out, err := tpl.Lenient().Render(nil, nil)
	require.NoError(t, err)
	require.Equal(t, "[c]", string(out))
}

func TestKindsOfVariables(t *testing.T) {
	tpl, err := Compile("{{ v }}|{% for x in v %}{{ x }};{% endfor %}", Plain)
	require.NoError(t, err)
	for want, v := range map[string]any{
		"ab|a;b;": []string{"a", "b"}, "x|x;": "x", "12|1;2;": []any{json.Number("1"), json.Number("2")},
		"1.52|1.5;2;": []any{1.5, int32(2)},
	} {
		got, err := tpl.Render(nil, map[string]any{"v": v})
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, v := range []any{make(chan int), struct{}{}, func() string { return "" }, new(int), json.Number("x")} {
		_, err := tpl.Render(nil, map[string]any{"v": v})
		require.Error(t, err, "%T", v)
	}
}

func TestHTMLToText(t *testing.T) {
	for _, c := range [][2]string{
		{"<p>Hello  <b>Asha</b>,</p>\n<p>a<br>b &amp; c</p>", "Hello Asha,\n\na\nb & c"},
		{"<html><head><title>T</title><style>p{}</style></head><body><div>x</div><div>y</div></body>", "x\ny"},
		{"<ul><li>one</li><li> two</li></ul>end", "- one\n- two\n\nend"},
		{"<a href=\"https://a.example/?a=1&amp;b=2\">Track it</a>.", "Track it (https://a.example/?a=1&b=2)."},
		{"<a href=\"https://a.example\">https://a.example</a> <a href='mailto:x@a.example'>x@a.example</a>", "https://a.example x@a.example"},
		{"<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table><img src=x alt=\"Logo\">", "a b\nc\n\nLogo"},
		{"a <!-- <p>no</p> --> b<script>if (a<b) {}</script> c < d <3", "a b c < d <3"},
		{"<p title=\"a>b\">x</p><h1>T</h1>y", "x\n\nT\n\ny"},
		{"<a href=\"x", ""}, {"<", "<"}, {"</", ""}, {"<!--", ""}, {"<script>", ""},
	} {
		require.Equal(t, c[1], htmlToText(c[0]), c[0])
	}
}
