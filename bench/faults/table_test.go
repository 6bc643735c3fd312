package faults

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// plain are tests that are no rows.
var plain = []string{"TestMain", "TestMatrix", "TestTable", "TestPage", "TestRowIsOneLine", "TestRatesCatch"}

// TestMatrix looks that every row has its test where it says, and every test its row.
func TestMatrix(t *testing.T) {
	var have, want []string
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Test") && !slices.Contains(plain, fn.Name.Name) {
				have = append(have, f.Name()+":"+fn.Name.Name)
			}
		}
	}
	for _, f := range Matrix() {
		want = append(want, f.File+":"+f.Test)
		require.NotEmpty(t, f.Required, f.Test)
	}
	require.ElementsMatch(t, want, have)
}

func TestTable(t *testing.T) {
	first, last := Matrix()[0], Matrix()[len(Matrix())-1]
	s := Setting{Date: "2026-01-02", Machine: "two virtual cores", Servers: "PostgreSQL 15", Nodes: 2, Rate: 80}
	page := Table(s, []Row{
		{Fault: last, Name: last.Test, Observed: "what came of it", Verdict: Kept},
		{Fault: first, Name: first.Test, Observed: strings.Repeat("word ", 60) + "end", Verdict: Broken},
		{Name: "TestUnknown", Observed: "nobody knows"},
	})
	require.Contains(t, page, "on 2026-01-02, on two virtual cores")
	require.Contains(t, page, "`bench/faults/"+first.File+":"+first.Test+"`):")
	require.Contains(t, page, "BROKEN")
	require.Contains(t, page, "- Seen: what came of it.")
	require.Less(t, strings.Index(page, first.Test), strings.Index(page, last.Test), "in the order of the matrix")
	require.NotContains(t, page, "nobody knows")
	for line := range strings.Lines(page) {
		require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 120, line)
	}
}

func TestRowIsOneLine(t *testing.T) {
	b, err := json.Marshal(Row{Fault: Matrix()[0], Name: "TestX", Does: "a", Required: "b", Observed: "c\nd", Verdict: Kept})
	require.NoError(t, err)
	require.JSONEq(t, `{"row":"TestX","fault":"a","required":"b","observed":"c\nd","verdict":"kept"}`, string(b))
}

// page is where the table is kept.
const page = "../../docs/evidence/faults.md"

// TestPage looks that the table which is kept has every row as it stands here, and none that is gone.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	require.NoError(t, err, "make faults-cluster writes it")
	text := string(b)
	for _, f := range Matrix() {
		require.Contains(t, text, "`bench/faults/"+f.File+":"+f.Test+"`", "make faults-cluster writes the table anew")
		require.Contains(t, text, strings.TrimSpace(wrap("- Required: "+f.Required+".")), f.Test)
	}
	require.Equal(t, len(Matrix()), strings.Count(text, "`bench/faults/"), "rows that are gone")
	require.NotContains(t, text, Broken)
}
