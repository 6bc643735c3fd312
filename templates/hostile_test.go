package templates

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hostileCorpus is templates that try to take more than their share, by name.
func hostileCorpus() map[string]string {
	c := map[string]string{
		"range of 1e9":             "{% for i in (1..1000000000) %}{% endfor %}",
		"range of 1e18":            "{% for i in (1..999999999999999999) %}{{ i }}{% endfor %}",
		"range over all integers":  "{% for i in (-9223372036854775807..9223372036854775807) %}{% endfor %}",
		"range reversed":           "{% for i in (1..1000000000) reversed %}{% assign x = i %}{% endfor %}",
		"range joined":             "{{ (1..1000000000) | join: ',' }}",
		"range sorted":             "{{ (1..50000) | reverse | sort | join }}",
		"range as json":            "{{ (1..1000000000) | json }}",
		"range mapped":             "{{ (1..1000000000) | map: 'x' }}",
		"range to list":            "{% assign a = (1..90000) | reverse %}{% assign b = a | concat: a %}{{ b | concat: b | size }}",
		"never shorter":            "{% for i in (1..1000) %}{% for j in (1..1000) %}{% for k in (1..1000) %}{% if i == 0 %}x{% endif %}{% endfor %}{% endfor %}{% endfor %}",
		"text doubled":             "{% assign s = 'aaaaaaaa' %}{% for i in (1..30) %}{% assign s = s | append: s %}{% endfor %}{{ s }}",
		"text doubled, by hand":    "{% assign s = 'x' %}" + strings.Repeat("{% assign s = s | append: s %}", 30),
		"text tenfold":             "{% assign s = 'x' %}{% for i in (1..12) %}{% assign s = s | replace: 'x', 'xxxxxxxxxx' %}{% endfor %}{{ s | size }}",
		"capture doubled":          "{% assign s = 'ab' %}{% for i in (1..40) %}{% capture s %}{{ s }}{{ s }}{% endcapture %}{% endfor %}",
		"capture in capture":       "{% capture a %}{% for i in (1..99999) %}{% capture b %}{{ i }}xxxxxxxxxxxxxxxx{% endcapture %}{{ b }}{% endfor %}{% endcapture %}{{ a }}",
		"append 1 GB":              "{% assign b = big %}{% for i in (1..1000) %}{% assign b = b | append: big %}{% endfor %}",
		"append chain":             "{{ big" + strings.Repeat(" | append: big", 2000) + " | size }}",
		"empty replaced":           "{{ big | replace: '', big }}",
		"each letter replaced":     "{{ big | replace: 'a', big }}",
		"replace grows":            "{{ big | replace: 'a', 'bbbbbbbbbbbbbbbbbbbbbbbb' | replace: 'b', 'cccccccccccccccccccccc' }}",
		"split letters":            "{{ big | split: '' | join: '--------------------------------' }}",
		"split and join, again":    "{% assign s = 'ab' %}{% for i in (1..99) %}{% assign s = s | split: '' | join: s %}{% endfor %}",
		"split, sort":              "{{ big | split: '' | sort | uniq | join }}",
		"sort of a long list":      "{% for i in (1..1000) %}{% assign x = long | sort %}{% endfor %}",
		"sort natural":             "{% for i in (1..1000) %}{% assign x = long | sort_natural: 'a' %}{% endfor %}",
		"uniq of lists":            "{% for i in (1..1000) %}{{ nested | uniq | size }}{% endfor %}",
		"concat doubled":           "{% assign a = long %}{% for i in (1..30) %}{% assign a = a | concat: a %}{% endfor %}{{ a.size }}",
		"list printed":             "{% for i in (1..1000) %}{{ long }}{% endfor %}",
		"big printed":              "{% for i in (1..1000) %}{{ big }}{% endfor %}",
		"big upcase":               "{% for i in (1..100000) %}{% assign x = big | upcase %}{% endfor %}",
		"big contains":             "{% for i in (1..100000) %}{% if big contains 'aaaaaaaaaaab' %}{% endif %}{% endfor %}",
		"big compared":             "{% for i in (1..100000) %}{% if big == big2 %}{% endif %}{% if big < big2 %}{% endif %}{% endfor %}",
		"big truncated":            "{% for i in (1..100000) %}{% assign x = big | truncate: 200000 %}{% endfor %}",
		"big size":                 "{% for i in (1..100000) %}{% if big.size > 1 %}{% endif %}{% endfor %}",
		"big sliced":               "{% for i in (1..100000) %}{% assign x = big | slice: 199999 %}{% endfor %}",
		"big strip_html":           "{% for i in (1..1000) %}{% assign x = tags | strip_html %}{% endfor %}",
		"big escape":               "{% for i in (1..1000) %}{% assign x = tags | escape | escape_once %}{% endfor %}",
		"big url":                  "{% for i in (1..1000) %}{% assign x = tags | url_encode | url_decode %}{% endfor %}",
		"big words":                "{% for i in (1..1000) %}{% assign x = spaced | truncatewords: 99999 %}{% endfor %}",
		"json of long":             "{% for i in (1..1000) %}{% assign x = long | json %}{% endfor %}",
		"nested lists equal":       "{% for i in (1..1000) %}{% if nested == nested %}{% endif %}{% endfor %}",
		"list contains":            "{% for i in (1..1000) %}{% if long contains 'zz' %}{% endif %}{% endfor %}",
		"where of long":            "{% for i in (1..1000) %}{% assign x = nested | where: 'a', 'b' %}{% endfor %}",
		"many counters":            "{% for i in (1..100000) %}{% increment a %}{% decrement b %}{% endfor %}",
		"cycle keys":               "{% for i in (1..100000) %}{% cycle i: 'a', 'b' %}{% endfor %}",
		"date format":              "{% for i in (1..100000) %}{{ 0 | date: '%c %c %c %c %c %c %c' }}{% endfor %}",
		"date format, long":        "{% assign f = '%c' %}{% for i in (1..22) %}{% assign f = f | append: f %}{% endfor %}{{ 0 | date: f }}",
		"date of junk":             "{% for i in (1..100000) %}{{ 'x' | date: '%Y' }}{% endfor %}",
		"20,000 ifs":               strings.Repeat("{% if yes %}", 20_000) + strings.Repeat("{% endif %}", 20_000),
		"33 ifs":                   strings.Repeat("{% if yes %}", 33) + strings.Repeat("{% endif %}", 33),
		"20,000 fors":              strings.Repeat("{% for i in (1..2) %}", 20_000),
		"33 captures":              strings.Repeat("{% capture a %}", 33) + strings.Repeat("{% endcapture %}", 33),
		"32 fors":                  strings.Repeat("{% for i in (1..9) %}", 32) + strings.Repeat("{% endfor %}", 32),
		"brackets":                 "{{ a" + strings.Repeat("[a", 40_000) + strings.Repeat("]", 40_000) + " }}",
		"brackets open":            "{{ " + strings.Repeat("a[", 60_000) + " }}",
		"ranges in ranges":         "{{ " + strings.Repeat("(", 100_000),
		"fields":                   "{{ deep" + strings.Repeat(".d", 60_000) + " }}",
		"indexes":                  "{% for i in (1..99999) %}{{ long[0][0][0][0][0][0] | default: 1 }}{% endfor %}",
		"filters":                  "{% for i in (1..1000) %}{{ 1" + strings.Repeat(" | plus: 1", 10_000) + " }}{% endfor %}",
		"ors":                      "{% for i in (1..1000) %}{% if no" + strings.Repeat(" or no", 20_000) + " %}{% endif %}{% endfor %}",
		"whens":                    "{% for i in (1..1000) %}{% case yes %}{% when 1" + strings.Repeat(", 1", 20_000) + " %}{% endcase %}{% endfor %}",
		"elsifs":                   "{% for i in (1..1000) %}{% if no %}" + strings.Repeat("{% elsif no %}", 10_000) + "{% endif %}{% endfor %}",
		"unclosed output":          strings.Repeat("{{ ", 80_000),
		"unclosed tags":            strings.Repeat("{% ", 80_000),
		"unclosed quotes":          strings.Repeat("{{ 'a ", 40_000),
		"unclosed raw":             strings.Repeat("{% raw %}", 20_000),
		"unclosed comments":        strings.Repeat("{% comment %}", 19_000),
		"comment in comment":       strings.Repeat("{% comment %}", 9_000) + strings.Repeat("{% endcomment %}", 8_999),
		"unclosed if":              strings.Repeat("{% if yes %}{% endif %}", 10_000) + "{% if yes %}",
		"wrong end":                "{% for i in list %}{% if yes %}{% endfor %}{% endif %}",
		"spaces":                   "{{" + strings.Repeat(" ", 200_000),
		"braces":                   strings.Repeat("{{{{", 60_000),
		"percents":                 strings.Repeat("{%%}", 60_000),
		"include":                  "{% include '/etc/passwd' %}",
		"render":                   "{% render 'self' %}",
		"recursion":                "{% capture s %}{% raw %}{{ s }}{% endraw %}{% endcapture %}{% for i in (1..999999) %}{{ s }}{% endfor %}",
		"layout":                   "{% layout none %}",
		"unknown filter":           "{{ 'a' | system: 'ls' }}",
		"unknown tag":              "{% exec 'ls' %}",
		"missing variable":         "{{ secrets.key }}",
		"division by zero":         "{{ 1 | divided_by: 0 }}",
		"smallest by minus one":    "{{ -9223372036854775808 | divided_by: -1 }}{{ 1 | divided_by: 0 }}",
		"multiplied":               "{% assign n = 2 %}{% for i in (1..99) %}{% assign n = n | times: n %}{% endfor %}",
		"multiplied, floats":       "{% assign n = 2.5 %}{% for i in (1..99) %}{% assign n = n | times: n %}{% endfor %}",
		"slice of everything":      "{{ big | slice: 0, 9223372036854775807 }}",
		"limit of everything":      "{% for i in (1..9223372036854775807) limit: 9223372036854775807 %}{% endfor %}",
		"a field of a method":      "{{ at.Unix }}{{ user.__proto__ }}",
		"cyclic list":              "{{ cyclic | json }}",
		"cyclic list printed":      "{{ cyclic }}",
		"cyclic list compared":     "{% for i in (1..9) %}{% if cyclic == cyclic2 %}{% endif %}{% endfor %}{{ cyclic | join }}",
		"unknown kind of variable": "{{ channel }}",
		"not a number":             "{{ nan }}",
	}
	for _, f := range filterNames() { // each filter, on the largest text and list, as often as it likes
		args := map[int]string{0: "", 1: ": 'a'", 2: ": 'a', 'b'"}[filters[f].min]
		c["often, text: "+f] = "{% for i in (1..1000000) %}{% assign x = big | " + f + args + " %}{% endfor %}"
		c["often, list: "+f] = "{% for i in (1..1000000) %}{% assign x = long | " + f + args + " %}{% endfor %}"
		c["often, range: "+f] = "{% for i in (1..1000000) %}{% assign x = (1..30000) | " + f + args + " %}{% endfor %}"
	}
	for n := 1; n <= 8; n++ { // loops of every nesting, silent and loud
		c[fmt.Sprintf("%d fors, silent", n)] = strings.Repeat("{% for i in (1..100000) %}", n) + strings.Repeat("{% endfor %}", n)
		c[fmt.Sprintf("%d fors, loud", n)] = strings.Repeat("{% for i in (1..100000) %}", n) + "0123456789" + strings.Repeat("{% endfor %}", n)
	}
	return c
}

// harmless names what of the corpus may also end well.
func harmless(name string) bool {
	return name == "slice of everything" || name == "empty replaced"
}

func hostileVars() map[string]any {
	v := vars()
	long := make([]any, 20_000)
	for i := range long {
		long[i] = fmt.Sprintf("item %d", (i*7919)%20_000)
	}
	nested := make([]any, 2000)
	for i := range nested {
		nested[i] = []any{map[string]any{"a": float64(i)}, []any{"x", float64(i)}}
	}
	deep := map[string]any{}
	deep["d"] = deep
	cyclic, cyclic2 := make([]any, 2), make([]any, 2)
	cyclic[0], cyclic[1] = cyclic, cyclic
	cyclic2[0], cyclic2[1] = cyclic2, cyclic2
	v["big"], v["big2"] = strings.Repeat("a", 200_000), strings.Repeat("a", 199_999)+"b"
	v["tags"] = strings.Repeat("<a href='x'>&amp;", 12_000)
	v["spaced"] = strings.Repeat("a ", 100_000)
	v["long"], v["nested"], v["deep"], v["cyclic"], v["cyclic2"] = long, nested, deep, cyclic, cyclic2
	v["channel"], v["nan"] = make(chan int), func() {}
	return v
}

func TestHostileTemplates(t *testing.T) {
	corpus, vars := hostileCorpus(), hostileVars()
	require.GreaterOrEqual(t, len(corpus), 200)
	var slowest time.Duration
	var most uint64
	slowName, mostName := "", ""
	for name, src := range corpus {
		for _, mode := range []Mode{Plain, HTML, JSON} {
			if mode != Plain && strings.HasPrefix(name, "often") {
				continue
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			tpl, err := Compile(src, mode)
			var out []byte
			r := &run{}
			if err == nil {
				out, err = tpl.render(r, nil, vars)
			}
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > most {
				most, mostName = used, name
			}
			if took > slowest {
				slowest, slowName = took, name
			}
			var bad *Error
			if harmless(name) && err == nil {
				continue
			}
			require.Error(t, err, "%s gave %d bytes", name, len(out))
			require.True(t, errors.As(err, &bad) && bad.Code != "" && bad.Reason != "", "%s: %v", name, err)
			require.True(t, bad.Line > 0 || len(src) > MaxSource, name)
			require.NotContains(t, err.Error(), "%!", name)
			require.LessOrEqual(t, r.built, MaxMemory, name)
			require.LessOrEqual(t, len(out), MaxOutput, name)
		}
	}
	t.Logf("%d templates; slowest %v (%s); most memory %d kB (%s)", len(corpus), slowest, slowName, most>>10, mostName)
	// All that was ever allocated, garbage and the compiled template among it, stays near the budget.
	require.Less(t, most, uint64(2*MaxMemory), mostName)
}

func FuzzTemplate(f *testing.F) {
	for name, src := range hostileCorpus() {
		if len(src) < 300 && !strings.HasPrefix(name, "often") {
			f.Add(src, uint8(0))
		}
	}
	f.Add(`<a href="{{ name }}">{% if yes %}x{% else %}{{ user.name | escape }}{% endif %}</a>`, uint8(1))
	f.Add(`{"a": "{{ name }}", "b": {{ list }}{% for i in list %},"{{ i }}": 1{% endfor %}}`, uint8(2))
	given := vars()
	f.Fuzz(func(t *testing.T, src string, mode uint8) {
		tpl, err := Compile(src, Mode(mode%4))
		if err == nil {
			_, err = tpl.Render(nil, given)
		}
		var bad *Error
		if err != nil && (!errors.As(err, &bad) || bad.Code == "" || strings.Contains(err.Error(), "%!(")) {
			t.Fatalf("%v", err)
		}
	})
}
