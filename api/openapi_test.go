package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every route is in the description, and nothing else is; what the description names is there.
func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	a := r.get("", "/openapi.json")
	require.Equal(t, 200, a.status)
	var doc struct {
		OpenAPI    string                               `json:"openapi"`
		Paths      map[string]map[string]map[string]any `json:"paths"`
		Components struct {
			Schemas   map[string]map[string]any `json:"schemas"`
			Responses map[string]any            `json:"responses"`
		} `json:"components"`
	}
	a.decode(t, &doc)
	require.Equal(t, "3.1.0", doc.OpenAPI)

	described := map[string]bool{}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described[strings.ToUpper(method)+" "+path] = true
			id := op["operationId"].(string)
			require.False(t, ids[id], "operationId %s twice", id)
			ids[id] = true
			require.NotEmpty(t, op["summary"])
			// The router finds it.
			real := strings.NewReplacer("{id}", "x", "{name}", "x", "{account}", "x").Replace(path)
			rt, _, _ := r.api.router.find(strings.ToUpper(method), &url.URL{Path: real})
			require.NotNil(t, rt, path)
			require.Equal(t, path, rt.path)
		}
	}
	registered := map[string]bool{}
	for _, rt := range routes() {
		require.NotNil(t, rt.handle, rt.id)
		require.NotZero(t, rt.status, rt.id)
		if rt.method == anyMethod {
			registered["GET "+rt.path], registered["POST "+rt.path] = true, true
			continue
		}
		require.False(t, registered[rt.method+" "+rt.path], "%s %s twice", rt.method, rt.path)
		registered[rt.method+" "+rt.path] = true
	}
	require.Equal(t, registered, described)

	refs := 0
	for _, part := range strings.Split(a.body, `"$ref": "#/components/`)[1:] {
		kind, name, _ := strings.Cut(part[:strings.IndexByte(part, '"')], "/")
		if kind == "schemas" {
			require.NotEmpty(t, doc.Components.Schemas[name], name)
		} else {
			require.NotEmpty(t, doc.Components.Responses[name], name)
		}
		refs++
	}
	require.Greater(t, refs, 100)
	props := doc.Components.Schemas["MessageRequest"]["properties"].(map[string]any)
	require.Contains(t, props, "unsubscribe_url")
	require.Equal(t, []any{"sms", "whatsapp", "email", "webhook"}, props["channel"].(map[string]any)["enum"])
	require.Equal(t, false, doc.Components.Schemas["MessageRequest"]["additionalProperties"])
}

// Every problem that the code can answer with is in the list, once, and in the documentation under its anchor; every
// problem in the list is used.
func TestProblemTypes(t *testing.T) {
	used := map[string]bool{
		// The codes of the recipient package, and those that are chosen at run time.
		"invalid_phone": true, "invalid_email": true, "url_not_allowed": true, "invalid_region": true, "invalid_template": true,
		"field_not_allowed": true, "content_required": true, "control_character": true, "invalid_file": true,
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		require.NoError(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			arg := -1
			switch fn := call.Fun.(type) {
			case *ast.Ident:
				arg = map[string]int{"fail": 0, "failAt": 1}[fn.Name]
				if fn.Name != "fail" && fn.Name != "failAt" {
					arg = -1
				}
			case *ast.SelectorExpr:
				if fn.Sel.Name == "add" && len(call.Args) >= 3 {
					arg = 1
				}
			}
			if arg < 0 {
				return true
			}
			if lit, ok := call.Args[arg].(*ast.BasicLit); ok {
				code, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				require.NotPanics(t, func() { problemOf(code) }, "%s: %s", f.Name(), code)
				used[code] = true
			}
			return true
		})
	}
	r := newRig(t)
	page := r.get("", "/docs")
	require.Equal(t, 200, page.status)
	require.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'none'")
	seen := map[string]bool{}
	for _, p := range problemTypes {
		require.False(t, seen[p.code], "%s twice", p.code)
		seen[p.code] = true
		require.True(t, used[p.code], "%s is never used", p.code)
		require.GreaterOrEqual(t, p.status, 400)
		require.NotEmpty(t, p.title)
		require.NotEmpty(t, p.fix)
		require.Contains(t, page.body, `<tr id="`+p.code+`">`)
	}
	for _, rt := range routes() {
		require.Contains(t, page.body, rt.path+"</code>")
	}
	require.NotContains(t, page.body, "http://", "the page must work offline")
}
