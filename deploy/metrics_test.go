package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// family is a metric as its users see it.
type family struct {
	labels    map[string]bool
	histogram bool
}

func (f family) String() string { return fmt.Sprint(slices.Sorted(maps.Keys(f.labels))) }

// series returns the names that a family has in a query.
func series(all map[string]family) map[string]family {
	out := map[string]family{}
	for name, f := range all {
		if !f.histogram {
			out[name] = f
			continue
		}
		bucket := family{labels: maps.Clone(f.labels)}
		bucket.labels["le"] = true
		out[name+"_bucket"], out[name+"_sum"], out[name+"_count"] = bucket, f, f
	}
	return out
}

// declared reads out of the sources which metrics the program can ever show. What follows from calls that are made in
// another way is missed; TestEveryMetricIsRead shows that there are none.
func declared(t *testing.T) map[string]family {
	t.Helper()
	found := map[string]family{}
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "testdata" || name == "bench" || name == "deploy" || strings.HasPrefix(name, ".") && name != "..") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), "prometheus") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, b, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, f, ok := metricOf(call); ok {
					found[name] = f
				}
			}
			return true
		})
		return nil
	}))
	require.Greater(t, len(found), 20, "the walk has missed metrics")
	return found
}

// metricOf reads a call that makes a metric: prometheus.NewX(XOpts{Name: …}, labels), or one of the pipeline's short
// forms counter, histogram and desc, whose names go without "msgctl_".
func metricOf(call *ast.CallExpr) (name string, f family, ok bool) {
	f.labels = map[string]bool{}
	switch fun := call.Fun.(type) {
	case *ast.SelectorExpr:
		pkg, isName := fun.X.(*ast.Ident)
		if !isName || pkg.Name != "prometheus" || !strings.HasPrefix(fun.Sel.Name, "New") || len(call.Args) == 0 {
			return "", f, false
		}
		opts, isLit := call.Args[0].(*ast.CompositeLit)
		if !isLit {
			return "", f, false
		}
		for _, e := range opts.Elts {
			kv, isKV := e.(*ast.KeyValueExpr)
			if !isKV {
				continue
			}
			switch key, _ := kv.Key.(*ast.Ident); key.Name {
			case "Name":
				name = text(kv.Value)
			case "ConstLabels":
				for _, l := range kv.Value.(*ast.CompositeLit).Elts {
					f.labels[text(l.(*ast.KeyValueExpr).Key)] = true
				}
			}
		}
		f.histogram = strings.HasPrefix(fun.Sel.Name, "NewHistogram")
		if len(call.Args) > 1 {
			if list, isLit := call.Args[1].(*ast.CompositeLit); isLit {
				for _, l := range list.Elts {
					f.labels[text(l)] = true
				}
			}
		}
	case *ast.Ident:
		if !slices.Contains([]string{"counter", "histogram", "desc"}, fun.Name) || len(call.Args) < 2 {
			return "", f, false
		}
		if name = text(call.Args[0]); name == "" {
			return "", f, false
		}
		name = "msgctl_" + name
		f.histogram = fun.Name == "histogram"
		for _, a := range call.Args[2:] {
			if l := text(a); l != "" {
				f.labels[l] = true
			}
		}
	}
	return name, f, strings.HasPrefix(name, "msgctl_")
}

// text is the value of a string literal, "" for anything else.
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	pair   = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// gathered runs an engine, sends what makes most metrics appear, and reads them as Prometheus would: series → labels.
func gathered(t *testing.T) map[string]family {
	t.Helper()
	box, err := sandbox.Start(t.Context(), sandbox.Options{Retry: []time.Duration{20 * time.Millisecond}})
	require.NoError(t, err)
	defer func() {
		box.Client.Close()
		require.NoError(t, box.Close())
	}()
	for _, to := range []string{"+12025550100", "+12025550110", "+12025550120"} {
		_, err := box.Client.Send(t.Context(), sdk.SMS{To: to, Text: "hello"}, sdk.TTL(time.Minute))
		require.NoError(t, err)
	}
	var text string
	require.Eventually(t, func() bool {
		text = scrape(t, box.URL)
		for _, want := range []string{"msgctl_outcomes_total{", "msgctl_failures_total{", "msgctl_receipts_total{",
			"msgctl_handoff_seconds_bucket{", "msgctl_send_seconds_bucket{"} {
			if !strings.Contains(text, want) {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond, "the metrics do not come")
	found := map[string]family{}
	for line := range strings.Lines(text) {
		m := sample.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		f := found[m[1]]
		if f.labels == nil {
			f.labels = map[string]bool{}
		}
		for _, p := range pair.FindAllStringSubmatch(m[2], -1) {
			f.labels[p[1]] = true
		}
		found[m[1]] = f
	}
	return found
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// selector is a metric in a query, with what is asked of its labels.
type selector struct {
	name   string
	labels map[string]string
}

var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	labelSet = regexp.MustCompile(`\{[^{}]*\}`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)`)
	ranges   = regexp.MustCompile(`\[[^\]]*\]`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	matcher  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"`)
)

// notMetrics are the words of PromQL that a query may have where a metric's name may stand.
var notMetrics = strings.Fields("and or unless by without on ignoring group_left group_right offset bool inf nan " +
	"sum max min avg count topk rate increase changes absent abs histogram_quantile max_over_time label_values")

// selectors takes a query apart: the metrics with their labels, and the labels that are grouped by. promtool has shown
// that it is a query.
func selectors(query string) (found []selector, groups []string) {
	for _, m := range grouping.FindAllStringSubmatch(query, -1) {
		groups = append(groups, word.FindAllString(m[2], -1)...)
	}
	rest := grouping.ReplaceAllString(query, " ")
	rest = ranges.ReplaceAllString(rest, " ")
	// Label sets first, by their place: what stands before one is its metric.
	for {
		// Braces inside quotes are no label sets.
		blank := quoted.ReplaceAllStringFunc(rest, func(s string) string { return `"` + strings.Repeat("x", len(s)-2) + `"` })
		at := labelSet.FindStringIndex(blank)
		if at == nil {
			break
		}
		s := selector{labels: map[string]string{}}
		for _, m := range matcher.FindAllStringSubmatch(rest[at[0]:at[1]], -1) {
			s.labels[m[1]] = m[3]
		}
		before := word.FindAllStringIndex(rest[:at[0]], -1)
		last := before[len(before)-1]
		s.name = rest[last[0]:last[1]]
		found = append(found, s)
		rest = rest[:last[0]] + " " + rest[at[1]:]
	}
	for _, w := range word.FindAllString(quoted.ReplaceAllString(rest, " "), -1) {
		if !slices.Contains(notMetrics, w) && !regexp.MustCompile(`^[smhdwye]$`).MatchString(w) {
			found = append(found, selector{name: w})
		}
	}
	return found, groups
}

func TestSelectors(t *testing.T) {
	found, groups := selectors(`sum by (job, le) (rate(a_bucket{x="{y}",z=~"p|q"}[5m])) > 0.5 * on (job) group_left () b unless absent(c{} offset 5m)`)
	require.ElementsMatch(t, []selector{
		{"a_bucket", map[string]string{"x": "{y}", "z": "p|q"}}, {"c", map[string]string{}}, {"b", nil},
	}, found)
	require.Equal(t, []string{"job", "le", "job"}, groups)
}

// alertFile is a file of rules as Prometheus reads it.
type alertFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func alerts(t *testing.T) alertFile {
	t.Helper()
	b, err := os.ReadFile("prometheus/alerts.yaml")
	require.NoError(t, err)
	var f alertFile
	require.NoError(t, yaml.UnmarshalWithOptions(b, &f, yaml.Strict()))
	return f
}

// grafana is what a dashboard must have for the tests here; Grafana's own model has much more.
type grafana struct {
	UID, Title, Description string
	Templating              struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct{ List []struct{ Expr string } }
	Panels      []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		FieldConfig              struct{ Defaults struct{ Unit string } }
		Targets                  []struct {
			Expr       string
			Datasource struct{ UID string }
		}
	}
}

func dashboards(t *testing.T) map[string]grafana {
	t.Helper()
	paths, err := filepath.Glob("grafana/*.json")
	require.NoError(t, err)
	found := map[string]grafana{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		var d grafana
		require.NoError(t, json.Unmarshal(b, &d), p)
		found[p] = d
	}
	require.Len(t, found, 4)
	return found
}

// queries are all queries of alerts and dashboards, by where they stand.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			all["alert "+r.Alert] = r.Expr
		}
	}
	for path, d := range dashboards(t) {
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				all[fmt.Sprintf("%s panel %d %s query %d", path, p.ID, p.Title, i)] = target.Expr
			}
		}
		for i, a := range d.Annotations.List {
			all[fmt.Sprintf("%s annotation %d", path, i)] = a.Expr
		}
		for _, v := range d.Templating.List {
			if m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Definition); m != nil {
				all[path+" variable "+v.Name] = "sum by (" + m[2] + ") (" + m[1] + ")"
			}
		}
	}
	require.Greater(t, len(all), 80)
	return all
}

// fill puts something in the place of Grafana's variables.
func fill(query string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$kind", ".*", "$tenant", ".*").Replace(query)
}

// TestEveryMetricIsRead holds the metrics of a running engine against those that were read out of the sources: none may
// be missing there, and none may have other labels.
func TestEveryMetricIsRead(t *testing.T) {
	have := series(declared(t))
	seen := 0
	for name, f := range gathered(t) {
		if !strings.HasPrefix(name, "msgctl_") {
			continue
		}
		require.Contains(t, have, name, "the sources were not read well")
		for l := range f.labels {
			require.True(t, have[name].labels[l], "%s has the label %s, in the sources it has %s", name, l, have[name])
		}
		seen++
	}
	require.Greater(t, seen, 20)
}

// unknown says what a query asks for that no engine has; "" = nothing.
func unknown(query string, known map[string]family) string {
	list, groups := selectors(fill(query))
	if len(list) == 0 {
		return "no metric at all"
	}
	target := map[string]bool{"job": true, "instance": true}
	grouped := maps.Clone(target)
	for _, s := range list {
		f, ok := known[s.name]
		if !ok {
			return "no engine has the metric " + s.name
		}
		for l := range f.labels {
			grouped[l] = true
		}
		for l, value := range s.labels {
			if !f.labels[l] && !target[l] {
				return fmt.Sprintf("%s has no label %s", s.name, l)
			}
			if bad := foreign(s.name, l, value); bad != "" {
				return fmt.Sprintf("%s never has %s=%q", s.name, l, bad)
			}
		}
	}
	for _, l := range groups {
		if !grouped[l] {
			return "grouped by " + l + ", which none of its metrics has"
		}
	}
	return ""
}

// foreign finds a value that a label of a closed set never has.
func foreign(metric, label, value string) string {
	var set []string
	switch {
	case label == "lane":
		set = []string{"urgent", "normal", "bulk"}
	case label == "reason":
		set = []string{"rate", "share", "full", "delay", "bytes", "storage"}
	case label == "state":
		set = []string{"alive", "draining", "gone"}
	case label == "class" && metric == "msgctl_failures_total":
		for _, c := range delivery.Classes {
			set = append(set, c.String())
		}
	case label == "status" && metric == "msgctl_outcomes_total":
		for _, s := range delivery.Statuses {
			set = append(set, s.String())
		}
	default:
		return ""
	}
	for _, v := range strings.Split(value, "|") {
		if v != ".*" && !slices.Contains(set, v) {
			return v
		}
	}
	return ""
}

// TestQueriesAskForWhatIsThere checks every metric, label and value of alerts and dashboards.
func TestQueriesAskForWhatIsThere(t *testing.T) {
	known := series(declared(t))
	for name, f := range gathered(t) { // those of Go and of the process
		if _, ok := known[name]; !ok {
			known[name] = f
		}
	}
	known["up"] = family{} // Prometheus' own
	for where, q := range queries(t) {
		require.Empty(t, unknown(q, known), "%s: %s", where, q)
	}
	for _, planted := range []string{
		`msgctl_outcome_total`, `sum(rate(msgctl_outcomes_total{state="sent"}[5m]))`, `msgctl_outcomes_total{status="lost"}`,
		`sum by (kind) (msgctl_outcomes_total)`, `msgctl_queue_age_seconds{lane="fast"}`, `msgctl_send_seconds`, `1`,
		`msgctl_admission_refused_total{reason=~"full|disk"}`,
	} {
		require.NotEmpty(t, unknown(planted, known), "%s passes", planted)
	}
}

// TestEveryMetricIsShown keeps a metric from being forgotten: each stands on a dashboard or in an alert.
func TestEveryMetricIsShown(t *testing.T) {
	all := strings.Join(slices.Collect(maps.Values(queries(t))), "\n")
	for name := range declared(t) {
		require.Contains(t, all, name, "nobody looks at it: give it a panel")
	}
}

// TestPromtool lets Prometheus' own tool read every rule and every query, and run the stories of the alerts.
func TestPromtool(t *testing.T) {
	promtool := findTool(t, "promtool", "prometheus")
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"},
	} {
		out, err := promtool.run(t, "prometheus", args...)
		require.NoError(t, err, out)
	}
	// The queries of the dashboards as rules, so that they are parsed.
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	all := queries(t)
	for i, where := range slices.Sorted(maps.Keys(all)) {
		rules = append(rules, rule{fmt.Sprintf("query_%d", i), fill(all[where])})
	}
	file := map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": rules}}}
	b, err := yaml.Marshal(file)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "queries.yaml"), b, 0o600))
	out, err := promtool.run(t, dir, "check", "rules", "--lint=none", "queries.yaml")
	require.NoError(t, err, out)
	require.Contains(t, out, fmt.Sprintf("%d rules found", len(rules)))
}

// TestAlertsSayWhatToDo holds every alert to its annotations, its section of the runbook and its stories.
func TestAlertsSayWhatToDo(t *testing.T) {
	runbook, err := os.ReadFile("../docs/runbook.md")
	require.NoError(t, err)
	stories, err := os.ReadFile("prometheus/alerts_test.yaml")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			require.False(t, names[r.Alert], "two of %s", r.Alert)
			names[r.Alert] = true
			require.Regexp(t, `^Msgctl[A-Z]\w+$`, r.Alert)
			require.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
			require.Len(t, r.Annotations, 3, r.Alert)
			require.Regexp(t, `^\S.{10,90}[^.]$`, r.Annotations["summary"], r.Alert)
			require.Regexp(t, `(?s)^\S.{20,}\.\s*$`, r.Annotations["description"], r.Alert)
			require.Equal(t, "https://github.com/msgctl/msgctl/blob/main/docs/runbook.md#"+strings.ToLower(r.Alert),
				r.Annotations["runbook_url"], r.Alert)
			require.Contains(t, string(runbook), "\n## "+r.Alert+"\n", "the runbook has no section")
			for _, ending := range []string{" fires\n", " is quiet\n"} {
				require.Contains(t, string(stories), "- name: "+r.Alert+ending, "alerts_test.yaml has no story")
			}
		}
	}
	// And the other way round: a section without an alert leads nobody anywhere.
	for _, m := range regexp.MustCompile(`(?m)^## (Msgctl\w+)$`).FindAllStringSubmatch(string(runbook), -1) {
		require.True(t, names[m[1]], "the runbook has a section for %s, which is no alert", m[1])
	}
}

// TestDashboardsAreWellFormed finds what Grafana would show without a word: panels on top of each other, queries to a
// fixed data source, panels that explain nothing.
func TestDashboardsAreWellFormed(t *testing.T) {
	uids := map[string]bool{}
	for path, d := range dashboards(t) {
		require.Regexp(t, `^msgctl-\w+$`, d.UID, path)
		require.False(t, uids[d.UID])
		uids[d.UID] = true
		require.Equal(t, "msgctl-"+strings.TrimSuffix(filepath.Base(path), ".json"), d.UID)
		require.NotEmpty(t, d.Description, path)
		ids := map[int]bool{}
		cells := map[[2]int]int{}
		for _, p := range d.Panels {
			where := fmt.Sprintf("%s panel %d %q", path, p.ID, p.Title)
			require.False(t, ids[p.ID], where)
			ids[p.ID] = true
			require.NotEmpty(t, p.Title, where)
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, where)
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					require.Zero(t, cells[[2]int{x, y}], "%s lies on another", where)
					cells[[2]int{x, y}] = p.ID
				}
			}
			if p.Type == "row" {
				continue
			}
			require.NotEmpty(t, p.Description, where)
			require.NotEmpty(t, p.FieldConfig.Defaults.Unit, where)
			require.NotEmpty(t, p.Targets, where)
			for _, target := range p.Targets {
				require.Equal(t, "${datasource}", target.Datasource.UID, where)
				require.Contains(t, target.Expr, `job=~"$job",instance=~"$instance"`, where)
			}
		}
		for _, want := range []string{"datasource", "job", "instance"} {
			require.True(t, slices.ContainsFunc(d.Templating.List, func(v struct{ Name, Type, Definition string }) bool {
				return v.Name == want
			}), "%s has no variable %s", path, want)
		}
	}
}
