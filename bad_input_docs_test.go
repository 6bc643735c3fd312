package msgctl_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// namedTest is a test as docs/reference/bad-input.md names it: package.TestName or package.TestName/subtest.
var namedTest = regexp.MustCompile("`([\\w/]+)\\.((?:Test|Fuzz)\\w+)(?:/([^`]+))?`")

// testSource is what a package's test files declare and say.
type testSource struct {
	functions map[string]bool
	texts     map[string]bool // string literals: the names of subtests are among them
}

// testsOf reads the tests of a package.
func testsOf(t *testing.T, dir string) testSource {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	require.NoError(t, err)
	s := testSource{map[string]bool{}, map[string]bool{}}
	for _, path := range paths {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				s.functions[n.Name.Name] = n.Recv == nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					s.texts[text] = true
				}
			}
			return true
		})
	}
	return s
}

// missing says what of a named test is not in the source, or "".
func (s testSource) missing(name, subtest string) string {
	switch {
	case !s.functions[name]:
		return "there is no " + name
	case subtest != "" && !s.texts[subtest]:
		return name + " has no case " + strconv.Quote(subtest)
	}
	return ""
}

func TestBadInputNamesTestsThatExist(t *testing.T) {
	const page = "docs/reference/bad-input.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	sources := map[string]testSource{}
	rows := 0
	for i, line := range strings.Split(string(text), "\n") {
		found := namedTest.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasSuffix(line, "| shown by |") {
			rows++
			require.Len(t, found, 1, "%s:%d names no test", page, i+1)
		}
		for _, m := range found {
			if _, ok := sources[m[1]]; !ok {
				sources[m[1]] = testsOf(t, m[1])
			}
			require.Empty(t, sources[m[1]].missing(m[2], m[3]), "%s:%d", page, i+1)
		}
	}
	require.Greater(t, rows, 70, "the pattern has missed rows")
	require.NotEmpty(t, sources["api"].missing("TestBadInputs", ""), "a test that is not there passes")
	require.NotEmpty(t, sources["api"].missing("TestBadInput", "nil"), "a case that is not there passes")
}
