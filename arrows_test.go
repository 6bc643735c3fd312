package msgctl_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// arrows is the import policy: "a, b < c" means that c may import a and b. A package may import nothing else of ours.
// "x/*" stands for every package below x. Test files may import more, but release code never imports a test kit.
const arrows = `
NONE < delivery, sdk, sdk/webhook, broker, news, console, internal/egress, sms, smpp, vault, apikey, admission

delivery < templates, limits, store, connectors, recipient
sms < templates
delivery, limits < limits/*
delivery, store < store/*
store/sqlite, store/postgres < store/transfer
NONE < internal/servers, broker/brokertest
delivery < tracing
delivery, store < cluster
delivery, store < cluster/clustertest

NONE < connectors/httpapi
delivery < connectors/httpapi
delivery, connectors, connectors/httpapi < connectors/*, routing
connectors/connectortest < connectors/connectortest/httpprovider
sms, smpp < connectors/smpp
sdk/webhook < connectors/webhook
connectors/smpp, connectors/whatsapp, connectors/smtp, connectors/webhook < connectors/all

delivery, templates, store, recipient, sms < campaigns
delivery, templates, sms, limits, store, routing, connectors < pipeline
delivery, templates, store, connectors, campaigns, recipient, sms, sdk, apikey, vault, internal/egress, admission < api

delivery, sms, smpp, sdk/webhook < simulator

delivery, sdk, broker, internal/egress, vault, apikey, admission, templates < engine
limits, limits/memory, limits/redis, store, store/sqlite, store/postgres, store/transfer, cluster, news < engine
connectors, routing, campaigns, pipeline, api, tracing < engine

engine, pipeline, connectors/all, tracing < cmd/engine
sdk, engine, simulator, connectors/all < sandbox
sdk, sms, engine, simulator, sandbox < cmd/msgctl
`

// outside are programs and tests around the product; the policy does not bind them.
var outside = []string{"bench", "features", "examples", "tools", "cmd/msgctl/scaffold"}

const module = "github.com/msgctl/msgctl/"

// allowed parses the policy into importer pattern → what it may import.
func allowed(t *testing.T) map[string][]string {
	policy := map[string][]string{}
	for line := range strings.Lines(arrows) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		from, to, ok := strings.Cut(line, " < ")
		require.True(t, ok, "not an arrow: %q", line)
		for _, importer := range strings.Split(to, ", ") {
			policy[importer] = append(policy[importer], strings.Split(from, ", ")...)
		}
	}
	return policy
}

// violations lists what pkg imports against the policy.
func violations(policy map[string][]string, pkg string, imports []string) []string {
	may := append(slices.Clone(policy[pkg]), policy[filepath.Dir(pkg)+"/*"]...)
	_, named := policy[pkg]
	_, below := policy[filepath.Dir(pkg)+"/*"]
	if !named && !below {
		return []string{fmt.Sprintf("%s is in no arrow: give it a place in the policy", pkg)}
	}
	var bad []string
	for _, imp := range imports {
		own, ours := strings.CutPrefix(imp, module)
		if ours && !slices.Contains(may, own) {
			bad = append(bad, fmt.Sprintf("%s must not import %s", pkg, own))
		}
	}
	return bad
}

func TestArrows(t *testing.T) {
	policy := allowed(t)
	found := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "." || d.Name() == "testdata" || slices.Contains(outside, path)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, imp := range f.Imports {
			imports = append(imports, strings.Trim(imp.Path.Value, `"`))
		}
		found++
		for _, bad := range violations(policy, pkg, imports) {
			t.Errorf("%s: %s", path, bad)
		}
		return nil
	}))
	require.Greater(t, found, 100, "the walk has missed the code")
}

// TestArrowsCatch plants imports that the policy forbids: each must be found.
func TestArrowsCatch(t *testing.T) {
	policy := allowed(t)
	for _, planted := range [][2]string{
		{"connectors/smtp", "pipeline"}, {"connectors/smtp", "connectors/smpp"}, {"pipeline", "api"},
		{"pipeline", "store/sqlite"}, {"pipeline", "connectors/smtp"}, {"sdk", "delivery"}, {"delivery", "store"},
		{"api", "pipeline"}, {"engine", "connectors/all"}, {"store/sqlite", "store/storetest"}, {"simulator", "connectors/smpp"},
		{"brandnew", "delivery"},
	} {
		require.NotEmpty(t, violations(policy, planted[0], []string{module + planted[1]}), "%v passed", planted)
	}
}
