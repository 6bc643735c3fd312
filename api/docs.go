package api

import (
	"bytes"
	"html/template"
	"slices"
	"strings"
)

// docsText is the page for people. Each problem has its own anchor: the type URI of a problem leads there.
const docsText = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>msgctl API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; color-scheme: light dark;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top }
tr:nth-child(even) { background: #8881 } tr:target { outline: 2px solid } code { white-space: nowrap }
</style>
<h1>msgctl API</h1>
<p>Version {{.Version}}. The machine-readable description is at <a href="/openapi.json">/openapi.json</a>.
Send <code>Authorization: Bearer mk_…</code>. Times are RFC 3339 in UTC. A POST to <code>/v1/messages</code> with an
<code>Idempotency-Key</code> is safe to repeat.</p>
<h2 id="routes">Routes</h2>
<table><tr><th>Route<th>Does<th>Key</tr>
{{range .Routes}}<tr><td><code>{{.Method}} {{.Path}}</code><td>{{.Doc}}<td>{{.Who}}</tr>
{{end}}</table>
<h2 id="problems">Problems</h2>
<p>Every error is an <code>application/problem+json</code> document (RFC 9457). Its code is stable.</p>
<table><tr><th>Code<th>Status<th>Means<th>What to do</tr>
{{range .Problems}}<tr id="{{.Code}}"><td><code>{{.Code}}</code><td>{{.Status}}<td>{{.Title}}<td>{{.Fix}}</tr>
{{end}}</table>
</html>
`

func docsPage(routes []*route, version string) []byte {
	type shownRoute struct{ Method, Path, Doc, Who string }
	type shownProblem struct {
		Code       string
		Status     int
		Title, Fix string
	}
	data := struct {
		Version  string
		Routes   []shownRoute
		Problems []shownProblem
	}{Version: version}
	who := map[scope]string{public: "none", provider: "the provider's signature", tenant: "tenant",
		either:   "tenant or operator",
		operator: "operator"}
	for _, rt := range routes {
		data.Routes = append(data.Routes, shownRoute{strings.Replace(rt.method, anyMethod, "GET, POST", 1), rt.path, rt.doc,
			who[rt.scope]})
	}
	for _, p := range problemTypes {
		data.Problems = append(data.Problems, shownProblem{p.code, p.status, p.title, p.fix})
	}
	slices.SortFunc(data.Problems, func(a, b shownProblem) int { return strings.Compare(a.Code, b.Code) })
	var page bytes.Buffer
	if err := template.Must(template.New("docs").Parse(docsText)).Execute(&page, data); err != nil {
		panic(err) // the template and its data are ours
	}
	return page.Bytes()
}
