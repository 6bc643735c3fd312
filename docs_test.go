package msgctl_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"html"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors/all"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/engine"
)

var update = flag.Bool("update", false, "rewrite the generated parts of the documentation")

// pages returns the documentation by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths := []string{"README.md", "CHANGELOG.md"}
	require.NoError(t, filepath.WalkDir("docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			paths = append(paths, filepath.ToSlash(path))
		}
		return err
	}))
	found := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		found[p] = string(b)
	}
	require.Greater(t, len(found), 10, "the walk has missed pages")
	return found
}

// block is a fenced block of a page.
type block struct {
	page, language, text string
	line                 int
}

// parts divides a page into its prose and its fenced blocks.
func parts(page, text string) (prose string, blocks []block) {
	var open *block
	for i, line := range strings.Split(text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{page: page, language: language, line: i + 1}
		case fence:
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.text += line + "\n"
		default:
			prose += line + "\n"
		}
	}
	return prose, blocks
}

func TestDocsFitOnAScreen(t *testing.T) {
	for page, text := range pages(t) {
		for i, line := range strings.Split(text, "\n") {
			if n := utf8.RuneCountInString(line); n > 120 {
				t.Errorf("%s:%d has %d columns", page, i+1, n)
			}
		}
		require.Zero(t, strings.Count(text, "\n```")%2, "%s has a fence that is not closed", page)
	}
	require.LessOrEqual(t, strings.Count(pages(t)["README.md"], "\n"), 120)
	require.LessOrEqual(t, strings.Count(pages(t)["docs/adding-a-connector.md"], "\n"), 80)
}

// ---- links, files and names

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	goFile    = regexp.MustCompile(`[\w./-]*\w\.go\b`)
	named     = regexp.MustCompile("`([\\w./-]+\\.go):([\\w.]+)`")
	sentence  = regexp.MustCompile("`([\\w./-]+\\.go):(\"[^`]+\")`")
	scenario  = regexp.MustCompile("`(features/\\w+\\.feature):([^`]+)`")
	anchorOut = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestDocsLinks(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), path))
				require.FileExists(t, target, "%s links to %s", page, m[1])
			}
			if anchor != "" {
				require.Contains(t, anchors(all[target]), anchor, "%s links to %s", page, m[1])
			}
		}
	}
}

// anchors are the headings of a page as links name them.
func anchors(text string) (out []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.ReplaceAll(anchorOut.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

func TestDocsNameWhatExists(t *testing.T) {
	names := 0
	for page, text := range pages(t) {
		prose, _ := parts(page, text)
		for _, path := range goFile.FindAllString(prose, -1) {
			require.FileExists(t, path, "%s names it", page)
		}
		for _, m := range named.FindAllStringSubmatch(prose, -1) {
			require.True(t, declares(t, m[1], m[2]), "%s names %s of %s", page, m[2], m[1])
			names++
		}
		for _, m := range sentence.FindAllStringSubmatch(prose, -1) {
			b, err := os.ReadFile(m[1])
			require.NoError(t, err)
			require.Contains(t, string(b), m[2], "%s quotes %s", page, m[1])
		}
		for _, m := range scenario.FindAllStringSubmatch(prose, -1) {
			b, err := os.ReadFile(m[1])
			require.NoError(t, err)
			pattern := `(?m)^\s*(Rule|Scenario|Scenario Outline): ` + regexp.QuoteMeta(m[2]) + `$`
			require.Regexp(t, pattern, string(b), "%s quotes %s", page, m[1])
		}
	}
	require.Greater(t, names, 40, "the pattern has missed names")
	require.False(t, declares(t, "pipeline/send.go", "sent"), "a name that is not there passes")
	require.False(t, declares(t, "pipeline/send.go", "planner.send"), "a method of another type passes")
}

// declares reports whether a file declares a function, a method (Type.Name or Name), a type, a variable or a constant.
func declares(t *testing.T, path, name string) bool {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	receiver, method, qualified := strings.Cut(name, ".")
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !qualified && d.Name.Name == name || qualified && d.Name.Name == method && receiverOf(d) == receiver {
				return true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.Name == name {
						return true
					}
				case *ast.ValueSpec:
					if slices.ContainsFunc(s.Names, func(n *ast.Ident) bool { return n.Name == name }) {
						return true
					}
				}
			}
		}
	}
	return false
}

func receiverOf(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	typ := d.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	id, _ := typ.(*ast.Ident)
	if id == nil {
		return ""
	}
	return id.Name
}

// ---- code

// imported are the packages that a snippet may use without saying so.
var imported = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "http": "net/http", "json": "encoding/json", "os": "os",
	"testing": "testing", "time": "time", "connectors": module + "connectors", "connectortest": module + "connectors/connectortest",
	"httpprovider": module + "connectors/connectortest/httpprovider", "httpapi": module + "connectors/httpapi",
	"all": module + "connectors/all", "delivery": module + "delivery", "engine": module + "engine", "sandbox": module + "sandbox",
	"sdk": module + "sdk", "webhook": module + "sdk/webhook",
}

// program makes a file of a snippet: one with declarations stands as it is, another becomes the body of a function.
func program(text string) string {
	if strings.HasPrefix(text, "package ") {
		return text
	}
	var b strings.Builder
	b.WriteString("package snippet\n\nimport (\n")
	for name, path := range imported {
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(text) {
			fmt.Fprintf(&b, "\t%q\n", path)
		}
	}
	if regexp.MustCompile(`(?m)^(func|type) `).MatchString(text) {
		return b.String() + ")\n\n" + text
	}
	if !strings.Contains(b.String(), `"context"`) {
		b.WriteString("\t\"context\"\n")
	}
	return b.String() + ")\n\nfunc _(ctx context.Context) error {\n" + text + "\nreturn nil\n}\n"
}

func TestDocsCodeCompiles(t *testing.T) {
	root, err := os.Getwd()
	require.NoError(t, err)
	tmp := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	var dirs []string
	for page, text := range pages(t) {
		_, blocks := parts(page, text)
		for _, b := range blocks {
			if b.language != "go" {
				continue
			}
			name := fmt.Sprintf("%s_%d", strings.NewReplacer("/", "_", ".", "_").Replace(b.page), b.line)
			file := filepath.Join(tmp, name+".go")
			require.NoError(t, os.WriteFile(file, []byte(program(b.text)), 0o600))
			// The files lie in the module only for the compiler: nothing is written into the tree.
			overlay.Replace[filepath.Join(root, "testdata", "docs", name, "snippet.go")] = file
			dirs = append(dirs, "./testdata/docs/"+name)
		}
	}
	require.NotEmpty(t, dirs)
	doc, err := json.Marshal(overlay)
	require.NoError(t, err)
	list := filepath.Join(tmp, "overlay.json")
	require.NoError(t, os.WriteFile(list, doc, 0o600))
	out, err := exec.Command("go", append([]string{"build", "-overlay", list, "-o", os.DevNull}, dirs...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// ---- commands

// binaries builds both programs and returns where they are.
func binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", dir, "./cmd/msgctl", "./cmd/engine").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

var substitution = regexp.MustCompile(`\$\(([^()]*)\)`)

// commands divides a line of shell into commands, as far as documentation goes: quotes, comments, $(…), && and |.
func commands(line string) (out [][]string) {
	for _, inner := range substitution.FindAllStringSubmatch(line, -1) {
		out = append(out, commands(inner[1])...)
	}
	line = substitution.ReplaceAllString(line, "X")
	var word strings.Builder
	var cmd []string
	quote, started := rune(0), false
	flush := func() {
		if started {
			cmd = append(cmd, word.String())
		}
		word.Reset()
		started = false
	}
	end := func() {
		flush()
		if len(cmd) > 0 {
			out = append(out, cmd)
		}
		cmd = nil
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, started = r, true
		case r == '#' && !started:
			end()
			return out
		case r == ' ':
			flush()
		case r == '|' || r == '&' || r == ';':
			end()
		default:
			word.WriteRune(r)
			started = true
		}
	}
	end()
	return out
}

func TestDocsCommandsParse(t *testing.T) {
	dir := binaries(t)
	makefile, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	checked := 0
	for page, text := range pages(t) {
		_, blocks := parts(page, text)
		for _, b := range blocks {
			if b.language != "sh" {
				continue
			}
			for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
				for _, cmd := range commands(strings.TrimSpace(line)) {
					where := fmt.Sprintf("%s:%d: %s", page, b.line, strings.TrimSpace(line))
					switch cmd[0] {
					case "msgctl", "engine":
						require.Empty(t, wrong(dir, cmd), where)
						checked++
					case "make":
						require.Contains(t, string(makefile), "\n"+cmd[1]+":", where)
					}
				}
			}
		}
	}
	require.Greater(t, checked, 15, "the walk has missed commands")
	for _, planted := range []string{"msgctl sned sms", "msgctl message explian x", "msgctl send sms +1 hi --wiat", "engine --no-such"} {
		require.NotEmpty(t, wrong(dir, commands(planted)[0]), "%s passes", planted)
	}
	t.Run("marked ones work", func(t *testing.T) { runMarked(t, dir) })
}

// wrong says what a program does not know of a command, by its help.
func wrong(dir string, cmd []string) string {
	args := append(slices.Clone(cmd[1:]), "--help")
	out, err := exec.Command(filepath.Join(dir, cmd[0]), args...).CombinedOutput()
	if err != nil {
		return string(out)
	}
	if cmd[0] != "msgctl" || len(cmd) == 1 || cmd[1] == "help" {
		return ""
	}
	_, usage, _ := strings.Cut(string(out), "\nUSAGE\n  ")
	usage, _, _ = strings.Cut(usage, "\n")
	if strings.HasSuffix(usage, " COMMAND") && len(cmd) > strings.Count(usage, " ") {
		return "there is no such command: " + usage
	}
	return ""
}

// ---- generated parts

func TestDocsFacts(t *testing.T) {
	routes, problems := apiFacts(t)
	for page, generated := range map[string]map[string]string{
		"docs/reference/api.md":       {"routes": routes, "problems": problems},
		"docs/reference/cli.md":       {"commands": commandFacts(t)},
		"docs/reference/config.md":    {"keys": configFacts(t), "connectors": connectorFacts()},
		"docs/reference/templates.md": {"filters": filterFacts(t)},
		"docs/overview.md":            {"classes": classFacts(), "arrows": "```text\n" + strings.TrimSpace(arrows) + "\n```\n"},
	} {
		text := pages(t)[page]
		for name, want := range generated {
			begin, end := "<!-- generated: "+name+" -->\n", "<!-- end -->\n"
			before, rest, ok := strings.Cut(text, begin)
			have, after, closed := strings.Cut(rest, end)
			require.True(t, ok && closed, "%s has no place for %s", page, name)
			if *update {
				text = before + begin + want + end + after
				continue
			}
			require.Equal(t, want, have, "%s is out of date: go test -run TestDocsFacts . -update", page)
		}
		if *update {
			require.NoError(t, os.WriteFile(page, []byte(text), 0o644))
		}
	}
}

// item makes a line of a list, wrapped to the width of the documentation.
func item(text string) string {
	var b strings.Builder
	line := "-"
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 118 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// apiFacts are the routes and problems as the engine itself shows them on /docs.
func apiFacts(t *testing.T) (routes, problems string) {
	e, err := engine.New(engine.Config{Dir: t.TempDir()}, all.Kinds()...)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/docs", nil))
	row := regexp.MustCompile(`(?s)<tr(?: id="\w+")?><td><code>(.*?)</code><td>(.*?)</tr>`)
	for _, m := range row.FindAllStringSubmatch(w.Body.String(), -1) {
		cells := strings.Split(html.UnescapeString(m[2]), "<td>")
		if len(cells) == 2 {
			routes += item(fmt.Sprintf("`%s` (key: %s). %s", m[1], cells[1], cells[0]))
		} else {
			problems += item(fmt.Sprintf("`%s` (%s). %s: %s", m[1], cells[0], cells[1], cells[2]))
		}
	}
	require.Greater(t, strings.Count(routes, "\n"), 50)
	require.Greater(t, strings.Count(problems, "\n"), 50)
	return routes, problems
}

// commandFacts are the commands as the program itself lists them.
func commandFacts(t *testing.T) string {
	dir := binaries(t)
	entry := regexp.MustCompile(`(?m)^  ([a-z]+) {2,}(\S.*)$`)
	help := func(words ...string) string {
		out, err := exec.Command(filepath.Join(dir, "msgctl"), append(words, "--help")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	var b strings.Builder
	top, _, _ := strings.Cut(help(), "\nTOPICS")
	_, top, _ = strings.Cut(top, "\nSTART")
	for _, m := range entry.FindAllStringSubmatch(top, -1) {
		b.WriteString(item(fmt.Sprintf("`msgctl %s`: %s", m[1], m[2])))
		if m[1] == "completion" || m[1] == "help" {
			continue
		}
		_, verbs, ok := strings.Cut(help(m[1]), "\nCOMMANDS\n")
		verbs, _, _ = strings.Cut(verbs, "\n\n")
		for _, v := range entry.FindAllStringSubmatch(verbs, -1) {
			require.True(t, ok)
			b.WriteString("  " + item(fmt.Sprintf("`%s %s`: %s", m[1], v[1], v[2])))
		}
	}
	require.Greater(t, strings.Count(b.String(), "\n"), 40)
	return b.String()
}

// configFacts are the keys of the server's file with the comments of their fields.
func configFacts(t *testing.T) string {
	f, err := parser.ParseFile(token.NewFileSet(), "engine/config.go", nil, parser.ParseComments)
	require.NoError(t, err)
	types := map[string]*ast.StructType{}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok {
			if st, ok := s.Type.(*ast.StructType); ok {
				types[s.Name.Name] = st
			}
		}
		return true
	})
	var b strings.Builder
	var write func(st *ast.StructType, prefix string)
	write = func(st *ast.StructType, prefix string) {
		for _, field := range st.Fields.List {
			tag, _ := strconv.Unquote(field.Tag.Value)
			key := reflect.StructTag(tag).Get("yaml")
			if key == "-" {
				continue
			}
			if id, ok := field.Type.(*ast.Ident); ok && types[id.Name] != nil {
				write(types[id.Name], key+".")
				continue
			}
			doc := strings.TrimSpace(field.Doc.Text() + field.Comment.Text())
			for _, begin := range []string{field.Names[0].Name + " ", "is ", "are "} { // a comment in Go begins with the name
				doc = strings.TrimPrefix(doc, begin)
			}
			b.WriteString(item(fmt.Sprintf("`%s%s`: %s", prefix, key, doc)))
		}
	}
	write(types["Config"], "")
	return b.String()
}

func connectorFacts() string {
	var b strings.Builder
	for _, k := range all.Kinds() {
		fmt.Fprintf(&b, "\n### %s\n\n%s\nSettles a doubt by: `%s`.\n\n", k.Name, k.Doc, k.Ambiguity)
		for _, s := range k.Settings {
			about := string(s.Type)
			for _, w := range []struct {
				yes  bool
				word string
			}{{s.Required, "required"}, {s.Secret, "secret"}, {s.Default != "", "default `" + s.Default + "`"}} {
				if w.yes {
					about += ", " + w.word
				}
			}
			b.WriteString(item(fmt.Sprintf("`%s` (%s): %s", s.Key, about, s.Doc)))
		}
	}
	return b.String() + "\n"
}

func classFacts() string {
	var b strings.Builder
	b.WriteString("| class | message becomes | counts as attempt | account | address |\n|---|---|---|---|---|\n")
	for _, c := range delivery.Classes {
		e := delivery.EffectOf(c)
		attempt, account, address := "no", "–", "–"
		if e.BurnsAttempt {
			attempt = "yes"
		}
		switch {
		case e.PausesRoute:
			account = "rests until a probe succeeds"
		case e.SlowsAccount:
			account = "waits as long as asked"
		}
		if e.Suppresses {
			address = "suppressed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c, e.Status, attempt, account, address)
	}
	return b.String()
}

// literalKeys returns the keys of a map literal in a file, wherever it stands.
func literalKeys(t *testing.T, path, variable string) (keys []string) {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	within := variable == ""
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			within = variable == "" || n.Names[0].Name == variable
		case *ast.KeyValueExpr:
			if lit, ok := n.Key.(*ast.BasicLit); ok && within {
				keys = append(keys, strings.Trim(lit.Value, `"`))
			}
		}
		return true
	})
	require.NotEmpty(t, keys, "%s %s", path, variable)
	return keys
}

func filterFacts(t *testing.T) string {
	keys := literalKeys(t, "templates/filters.go", "")
	slices.Sort(keys)
	return strings.Replace(item("`"+strings.Join(slices.Compact(keys), "` `")+"`"), "- ", "", 1)
}

// TestDocsKnowEveryOutcome keeps the page about the simulator in step with its script.
func TestDocsKnowEveryOutcome(t *testing.T) {
	page := pages(t)["docs/reference/simulator.md"]
	for variable, format := range map[string]string{
		"outcomes": "\n| `%02s` |", "mailOutcomes": "\n| `%s@sim.test` |", "hookOutcomes": "\n| `/sim/hook/%s` |",
	} {
		keys := literalKeys(t, "simulator/script.go", variable)
		for _, k := range keys {
			if n, err := strconv.Atoi(k); err == nil && variable == "outcomes" {
				k = fmt.Sprintf("%02d", n)
			}
			require.Contains(t, page, fmt.Sprintf(format, k), "%s of %s", k, variable)
		}
	}
	for _, s := range delivery.Statuses {
		require.Contains(t, pages(t)["docs/overview.md"], "`"+s.String()+"`", "the overview leaves a status out")
	}
}
