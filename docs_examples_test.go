package msgctl_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sandbox"
	"github.com/msgctl/msgctl/sdk"
)

// documented starts an engine with the connectors that the examples name.
func documented(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	box, err := sandbox.Start(t.Context(), sandbox.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		box.Client.Close()
		require.NoError(t, box.Close())
	})
	for _, name := range []string{"alpha", "beta"} {
		_, err := box.Client.Connectors.Put(t.Context(), name, sdk.ConnectorRequest{Kind: "smpp", Settings: map[string]string{
			"addr": box.Sim.SMPPAddr(), "system_id": name, "password": sandbox.Password, "from": "msgctl",
		}})
		require.NoError(t, err)
	}
	return box
}

// TestDocsRequestsAreTaken sends each request of the documentation to an engine: a line with method and path, an empty
// line, the body.
func TestDocsRequestsAreTaken(t *testing.T) {
	box := documented(t)
	sent := 0
	for page, text := range pages(t) {
		_, blocks := parts(page, text)
		for _, b := range blocks {
			if b.language != "http" {
				continue
			}
			head, body, ok := strings.Cut(b.text, "\n\n")
			method, path, and := strings.Cut(head, " ")
			require.True(t, ok && and, "%s:%d is no request", page, b.line)
			r, err := http.NewRequestWithContext(t.Context(), method, box.URL+path, strings.NewReader(body))
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer "+box.Key)
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.Equal(t, 2, resp.StatusCode/100, "%s:%d: %s", page, b.line, resp.Status)
			require.NoError(t, resp.Body.Close())
			sent++
		}
	}
	http.DefaultClient.CloseIdleConnections()
	require.Greater(t, sent, 5, "the walk has missed requests")
}

var (
	fileMark = regexp.MustCompile(`^<!-- file: ([\w.-]+) -->$`)
	runMark  = "<!-- run -->"
)

// runMarked runs the commands of blocks that are marked so, with the programs in dir, each page's in a directory with
// the files that it shows.
func runMarked(t *testing.T, dir string) {
	box := documented(t)
	ran := 0
	for page, text := range pages(t) {
		lines := strings.Split(text, "\n")
		_, blocks := parts(page, text)
		at := t.TempDir()
		for _, b := range blocks {
			if b.line < 2 {
				continue
			}
			mark := lines[b.line-2]
			if m := fileMark.FindStringSubmatch(mark); m != nil {
				require.NoError(t, os.WriteFile(filepath.Join(at, m[1]), []byte(b.text), 0o600))
			}
			if mark != runMark {
				continue
			}
			require.Equal(t, "sh", b.language, "%s:%d", page, b.line)
			for line := range strings.Lines(b.text) {
				for _, cmd := range commands(strings.TrimSpace(line)) {
					require.Equal(t, "msgctl", cmd[0], "%s:%d", page, b.line)
					c := exec.CommandContext(t.Context(), filepath.Join(dir, "msgctl"), cmd[1:]...)
					c.Dir = at
					c.Env = []string{"HOME=" + at, "MSGCTL_URL=" + box.URL, "MSGCTL_API_KEY=" + box.Key}
					out, err := c.CombinedOutput()
					require.NoError(t, err, "%s:%d: %s%s", page, b.line, line, out)
					ran++
				}
			}
		}
	}
	require.Greater(t, ran, 10, "the walk has missed commands")
}

// TestDocsConfigurationIsRead reads the server's files of the documentation as the server would.
func TestDocsConfigurationIsRead(t *testing.T) {
	const page = "docs/reference/config.md"
	_, blocks := parts(page, pages(t)[page])
	read := 0
	for _, b := range blocks {
		if b.language != "yaml" {
			continue
		}
		file := filepath.Join(t.TempDir(), "engine.yaml")
		require.NoError(t, os.WriteFile(file, []byte(b.text), 0o600))
		_, err := engine.ReadConfig(file)
		require.NoError(t, err, "%s:%d", page, b.line)
		read++
	}
	require.Greater(t, read, 1)
}
