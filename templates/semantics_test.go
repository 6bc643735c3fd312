package templates

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func vars() map[string]any {
	return map[string]any{
		"name": "Asha", "empty_text": "", "zero": 0.0, "count": 3.0, "price": 19.99, "yes": true, "no": false, "nul": nil,
		"html": `<b>"x" & 'y'</b>`, "list": []any{"b", "a", "C"}, "nums": []any{3.0, 1.0, 2.0, 10.0}, "none": []any{},
		"user":  map[string]any{"name": "Asha", "tags": []any{"x", "y"}, "city": map[string]any{"zip": "1"}},
		"items": []any{map[string]any{"t": "pen", "p": 2.5, "in": true}, map[string]any{"t": "ink", "p": 10.0, "in": false}},
		"at":    time.Date(2026, 3, 1, 9, 5, 7, 0, time.UTC), "lines": "a\nb", "words": " one  two three ", "many": "a,b,,c,",
		"uni": "čau světe", "key": "name", "attack": "{{ name }}{% raw %}",
	}
}

func render(t *testing.T, src string, mode Mode) (string, error) {
	t.Helper()
	tpl, err := Compile(src, mode)
	if err != nil {
		return "", err
	}
	out, err := tpl.Render([]byte(">"), vars())
	if err != nil {
		require.Equal(t, ">", string(out), "dst must be as it was")
		return "", err
	}
	return strings.TrimPrefix(string(out), ">"), nil
}

func TestLanguage(t *testing.T) {
	for _, c := range [][2]string{
		{"", ""},
		{"Hi {{ name }}!", "Hi Asha!"},
		{"{{name}}{{ 'a' }}{{ \"b'c\" }}", "Ashaab'c"},
		{"{ {x} %} }} {{ name }}", "{ {x} %} }} Asha"},
		{"a  {{- name -}}  b", "aAshab"},
		{"a \n{%- if yes -%}\n b {%- endif -%} c", "abc"},
		{"{{ attack }}", "{{ name }}{% raw %}"},
		{"{% raw %}{{ name }} {% if %}{% endraw %}!", "{{ name }} {% if %}!"},
		{"a {%- raw -%} x {%- endraw -%} b", "axb"},
		{"a{% comment %} {{ no }} {% if %} {% comment %} don't {% endcomment %} {% endcomment %}b", "ab"},
		{"a{% # it's nothing %}b{%- # more -%} c", "abc"},
		{"{% echo name | upcase %}", "ASHA"},

		// values
		{"{{ 1 }} {{ -2 }} {{ 2.50 }} {{ true }} {{ nil }}{{ false }}", "1 -2 2.5 true false"},
		{"{{ count }} {{ price }} {{ zero }}", "3 19.99 0"},
		{"{{ list }} {{ (1..3) }}", "baC 1..3"},
		{"{{ user.name }} {{ user['name'] }} {{ user[key] }} {{ user.tags[1] }} {{ user.tags[-1] }}", "Asha Asha Asha y y"},
		{"{{ user.tags.size }} {{ user.tags.first }} {{ user.tags.last }} {{ name.size }} {{ user.size }}", "2 x y 4 3"},
		{"{{ ['name'] }} {{ user.city.zip }} {{ items[0].t }} {{ items.last.t }} {{ nums[nums[1]] }}", "Asha 1 pen ink 1"},
		{"{{ uni.size }} {{ at }}", "9 2026-03-01 09:05:07 +0000"},

		// conditions
		{"{% if yes %}a{% else %}b{% endif %}{% if no %}a{% else %}b{% endif %}", "ab"},
		{"{% if missing %}a{% elsif empty_text %}b{% else %}c{% endif %}", "b"},
		{"{% unless no %}a{% endunless %}{% unless yes %}a{% elsif yes %}b{% endunless %}", "ab"},
		{"{% if zero %}0 is true{% endif %}", "0 is true"},
		{"{% if count > 2 and count <= 3 and count != 4 and count <> 5 %}y{% endif %}", "y"},
		{"{% if price >= 20 %}a{% else %}b{% endif %}{% if 1 == 1.0 %}c{% endif %}{% if 'a' < 'b' %}d{% endif %}", "bcd"},
		{"{% if no and no or yes %}a{% else %}b{% endif %}{% if yes or no and no %}c{% endif %}", "bc"},
		{"{% if list contains 'a' %}a{% endif %}{% if name contains 'sh' %}b{% endif %}{% if list contains 'z' %}c{% endif %}", "ab"},
		{"{% if none == empty %}a{% endif %}{% if empty_text == blank %}b{% endif %}{% if list == empty %}c{% endif %}", "ab"},
		{"{% if nul == nil %}a{% endif %}{% if missing == nil %}b{% endif %}{% if missing > 1 %}c{% endif %}", "ab"},
		{"{% if user.tags == user.tags %}a{% endif %}{% if user == items %}b{% endif %}", "a"},
		{"{% case name %} {% when 'x', 'y' %}1{% when 'Asha' or 'z' %}2{% else %}3{% endcase %}", "2"},
		{"{% case count %}{% when 1 %}1{% else %}3{% endcase %}{% case missing %}{% when 1 %}1{% endcase %}", "3"},

		// loops
		{"{% for i in list %}{{ i }},{% endfor %}", "b,a,C,"},
		{"{% for i in (1..count) reversed %}{{ i }}{% endfor %}", "321"},
		{"{% for i in nums limit: 2 offset: 1 %}{{ i }} {% endfor %}{% for i in nums reversed limit:2 %}{{i}}{% endfor %}", "1 2 13"},
		{"{% for i in none %}x{% else %}nothing{% endfor %}{% for i in (3..1) %}x{% else %}!{% endfor %}", "nothing!"},
		{"{% for i in (1..9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "13"},
		{"{% for i in list %}{{ forloop.index }}{{ forloop.index0 }}{{ forloop.rindex }}{{ forloop.rindex0 }}" +
			"{% if forloop.first %}f{% endif %}{% if forloop.last %}l{% endif %}{{ forloop.length }} {% endfor %}", "1032f3 21213 3210l3 "},
		{"{% for i in (1..2) %}{% for j in (1..2) %}{{ forloop.parentloop.index }}{{ j }} {% endfor %}{% endfor %}", "11 12 21 22 "},
		{"{% for kv in user.city %}{{ kv[0] }}={{ kv[1] }}{% endfor %}{% for s in name %}{{ s }}{% endfor %}", "zip=1Asha"},
		{"{% for i in (1..3) %}{% for j in (1..3) %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}", "11 21 31 "},
		{"{% for i in (1..4) %}{% cycle 'a', 'b' %}{% cycle 'g': 1, 2, 3 %}{% endfor %}", "a1b2a3b1"},

		// names
		{"{% assign x = name | upcase %}{{ x }}{% assign x = 1 %}{{ x }}", "ASHA1"},
		{"{% capture x %}a{{ name }}{% endcapture %}{{ x }}{{ x | size }}", "aAsha5"},
		{"{% increment n %}{% increment n %}{{ n }}{% decrement m %}{% decrement m %}", "012-1-2"},
		{"{% for name in list %}{{ name }}{% endfor %}{{ name }}", "baCAsha"},
		{"{% for i in (1..2) %}{% assign last = i %}{% endfor %}{{ last }}", "2"},
		{"{% assign l = 'a,b' | split: ',' %}{{ l[1] }}{{ l.size }}", "b2"},

		// filters
		{"{{ missing | default: 'x' }}{{ empty_text | default: 'y' }}{{ no | default: 'z' }}{{ nul | default: 'n' }}", "xyzn"},
		{"{{ no | default: 'z', allow_false: true }}{{ user.nick | default: name }}{{ missing | upcase | default: 'd' }}{{ name | default: missing }}", "falseAshadAsha"},
		{"{{ 'hEllo wOrld' | capitalize }} {{ uni | upcase }} {{ 'ABC' | downcase }}", "Hello world ČAU SVĚTE abc"},
		{"[{{ words | strip }}][{{ words | lstrip }}][{{ words | rstrip }}]", "[one  two three][one  two three ][ one  two three]"},
		{"{{ 'abcdef' | truncate: 5 }} {{ 'abcdef' | truncate: 3, '' }} {{ 'abc' | truncate: 3 }} {{ uni | truncate: 5, '…' }}", "ab... abc abc čau …"},
		{"{{ words | truncatewords: 2 }} {{ 'a b' | truncatewords: 2 }} {{ 'a b c' | truncatewords: 1, '--' }}", "one two... a b a--"},
		{"{{ 'a' | append: 'b' | prepend: 'c' }} {{ 'aXbXc' | replace: 'X', '-' }} {{ 'aXbXc' | replace_first: 'X', '-' }}", "cab a-b-c a-bXc"},
		{"{{ 'aXbXc' | replace_last: 'X', '-' }} {{ 'aXbXc' | remove: 'X' }} {{ 'aXbX' | remove_first: 'X' }} {{ 'aXbX' | remove_last: 'X' }}", "aXb-c abc abX aXb"},
		{"{{ many | split: ',' | size }} {{ many | split: ',' | join: '|' }} {{ words | split: ' ' | join }} {{ 'abc' | split: '' | join: '-' }}", "4 a|b||c one two three a-b-c"},
		{"{{ nums | sort | join }} {{ list | sort | join }} {{ list | sort_natural | join }} {{ list | reverse | join }}", "1 2 3 10 C a b a b C C a b"},
		{"{{ items | sort: 'p' | map: 't' | join }} {{ items | where: 'in' | map: 't' }} {{ items | where: 't', 'ink' | size }}", "pen ink pen 1"},
		{"{{ '1,1,2,1' | split: ',' | uniq | join }} {{ nums | concat: list | size }} {{ nums | first }}{{ nums | last }}", "1 2 7 310"},
		{"{{ nums | slice: 1, 2 | join }} {{ 'hello' | slice: 1, 3 }} {{ 'hello' | slice: -3, 2 }} {{ 'hello' | slice: 9 }}", "1 2 ell ll "},
		{"{{ 1 | plus: 2 }} {{ 1 | plus: 2.0 }} {{ '3' | minus: 1 }} {{ 3 | times: 1.5 }} {{ 0.1 | plus: 0.2 }} {{ price | times: 3 }}", "3 3.0 2 4.5 0.3 59.97"},
		{"{{ 7 | divided_by: 2 }} {{ -7 | divided_by: 2 }} {{ 7 | divided_by: 2.0 }} {{ 7 | modulo: 3 }} {{ -7 | modulo: 3 }}", "3 -4 3.5 1 2"},
		{"{{ -3 | abs }} {{ 1.2 | ceil }} {{ 1.8 | floor }} {{ 1.5 | round }} {{ 1.005 | round: 2 }} {{ 3 | at_least: 5 }} {{ 3 | at_most: 2.5 }}", "3 2 1 2 1.01 5 2.5"},
		{"{{ html | escape }} {{ '&lt;' | escape_once }} {{ html | strip_html }}", "&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;&lt;/b&gt; &lt; \"x\" & 'y'"},
		{"{{ 'a b&ü' | url_encode }} {{ 'a+b%26' | url_decode }}", "a+b%26%C3%BC a b&"},
		{"{{ lines | newline_to_br }} {{ lines | strip_newlines }}", "a<br />\nb ab"},
		{"{{ user | json }} {{ name | json }} {{ nums | json }} {{ html | json }}", `{"city":{"zip":"1"},"name":"Asha","tags":["x","y"]} "Asha" [3,1,2,10] "\u003cb\u003e\"x\" \u0026 'y'\u003c/b\u003e"`},
		{"{{ at | date: '%Y-%m-%d %H:%M:%S %y %B %b %A %a %e %j %I %l %p %P %Z %z %%' }}", "2026-03-01 09:05:07 26 March Mar Sunday Sun  1 060 09  9 AM am UTC +0000 %"},
		{"{{ '2026-03-01' | date: '%-d.%-m.%Y %^a %F %T %D %R %u %w %s' }} {{ 0 | date: '%Y' }}", "1.3.2026 SUN 2026-03-01 00:00:00 03/01/26 00:00 7 0 1772323200 1970"},
		{"{{ '2026-03-01T23:30:00+02:00' | date: '%d %H %z' }}{{ nul | date: '%Y' | default: '-' }}", "01 23 +0200-"},
		{"{{ list | compact | size }} {{ user.tags | join: ', ' }} {{ 'x' | raw }}", "3 x, y x"},
	} {
		got, err := render(t, c[0], Plain)
		require.NoError(t, err, c[0])
		require.Equal(t, c[1], got, c[0])
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		src, code    string
		line, column int
		reason       string
	}{
		{"a\n {{ name", CodeSyntax, 2, 2, "never closed"},
		{"{% if name %}x", CodeSyntax, 1, 1, "no {% endif %}"},
		{"é{% for i in list %}", CodeSyntax, 1, 2, "no {% endfor %}"},
		{"{% if name", CodeSyntax, 1, 1, "never closed"},
		{"{{ name }", CodeSyntax, 1, 1, "not closed"},
		{"{% raw %}", CodeSyntax, 1, 1, "no {% endraw %}"},
		{"{% comment %}", CodeSyntax, 1, 1, "no {% endcomment %}"},
		{"{{ }}", CodeSyntax, 1, 1, "missing"},
		{"{{ 'a }}", CodeSyntax, 1, 4, "quote"},
		{"{{ name | }}", CodeSyntax, 1, 11, "filter"},
		{"{{ name name }}", CodeSyntax, 1, 9, "does not belong"},
		{"{{ name. }}", CodeSyntax, 1, 10, "field"},
		{"{{ a[1 }}", CodeSyntax, 1, 8, "]"},
		{"{{ name | upcas }}", CodeUnknown, 1, 11, "did you mean upcase?"},
		{"{{ name | zzzzzzz }}", CodeUnknown, 1, 11, "there is no filter “zzzzzzz”"},
		{"{% fro i in list %}", CodeUnknown, 1, 1, "did you mean for?"},
		{"{% include '/etc/passwd' %}", CodeForbidden, 1, 1, "include"},
		{"{% render 'x' %}", CodeForbidden, 1, 1, "render"},
		{"{% layout 'x' %}", CodeForbidden, 1, 1, "layout"},
		{"{%cycle''", CodeSyntax, 1, 1, "never closed"},
		{"{% endif %}", CodeSyntax, 1, 1, "nothing to end"},
		{"{% if name %}{% endfor %}", CodeSyntax, 1, 14, "nothing to end"},
		{"{% else %}", CodeSyntax, 1, 1, "does not belong"},
		{"{% break %}", CodeSyntax, 1, 1, "outside of a for"},
		{"{% if name = 'x' %}{% endif %}", CodeSyntax, 1, 12, "=="},
		{"{% if name | size %}{% endif %}", CodeSyntax, 1, 12, "no filters"},
		{"{% for i of list %}{% endfor %}", CodeSyntax, 1, 10, "expected in"},
		{"{% for i in list limits: 2 %}{% endfor %}", CodeSyntax, 1, 18, "limit"},
		{"{% assign x 1 %}", CodeSyntax, 1, 13, "="},
		{"{{ name | truncate: 1, 2, 3 }}", CodeSyntax, 1, 11, "0 to 2 arguments"},
		{"{{ name | append }}", CodeSyntax, 1, 11, "1 argument"},
		{"{{ name | upcase: 1 }}", CodeSyntax, 1, 11, "no argument"},
		{"{{ name | where: x: 1 }}", CodeUnknown, 1, 18, "no argument"},
		{"{{ 99999999999999999999 }}", CodeSyntax, 1, 4, "too large"},
		{"{{ name ; }}", CodeSyntax, 1, 9, "does not belong"},
		{"{{ missing }}", CodeMissing, 1, 4, "“missing”"},
		{"\n\n  {{ user.nick | upcase }}", CodeMissing, 3, 6, "“user.nick”"},
		{"{{ nul }}", CodeMissing, 1, 4, "nul"},
		{"{{ list[7] }}", CodeMissing, 1, 4, "list[7]"},
		{"{% for i in missing %}{% endfor %}", CodeMissing, 1, 13, "missing"},
		{"{% assign x = missing %}", CodeMissing, 1, 15, "missing"},
		{"{{ 'a' | append: missing }}", CodeMissing, 1, 18, "missing"},
		{"{{ 1 | divided_by: 0 }}", CodeDivision, 1, 8, "zero"},
		{"{{ 1 | divided_by: zero }}", CodeDivision, 1, 8, "zero"},
		{"{{ 1 | modulo: 0.0 }}", CodeDivision, 1, 8, "zero"},
		{"{{ name | plus: 1 }}", CodeType, 1, 11, "number"},
		{"{{ 9223372036854775807 | plus: 1 }}", CodeType, 1, 26, "too large"},
		{"{{ 9223372036854775807 | times: 2 }}", CodeType, 1, 26, "too large"},
		{"{{ user }}", CodeType, 1, 4, "object"},
		{"{% if name > 1 %}{% endif %}", CodeType, 1, 12, "two numbers"},
		{"{% for i in 7 %}{% endfor %}", CodeType, 1, 13, "list"},
		{"{{ name | date: '%Y' }}", CodeType, 1, 11, "not a date"},
		{"{{ 'now' | date: '%Y' }}", CodeType, 1, 12, "no clock"},
		{"{{ at | date: '%Q' }}", CodeType, 1, 9, "%Q"},
		{"{{ at | date: '%99999999d' }}", CodeType, 1, 9, "%9"},
		{"{{ '%zz' | url_decode }}", CodeType, 1, 12, "URL"},
		{strings.Repeat("x", MaxSource+1), CodeBudget, 0, 0, "at most"},
	} {
		_, err := render(t, c.src, Plain)
		var bad *Error
		require.ErrorAs(t, err, &bad, c.src)
		require.Equal(t, c.code, bad.Code, "%s: %v", c.src, err)
		require.Contains(t, bad.Error(), c.reason, c.src)
		require.Equal(t, []int{c.line, c.column}, []int{bad.Line, bad.Column}, "%s: %v", c.src, err)
		require.NotContains(t, err.Error(), "%!", c.src)
		require.Equal(t, c.code == CodeMissing, bad.Variable != "", c.src)
	}
}
