// Package examples_test runs the example programs as a reader would, against a real engine.
package examples_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sandbox"
)

// start builds an example and runs it. The deadline is a net against hanging for ever.
func start(t *testing.T, name string, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("go", "build", "-o", bin, "./"+name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	var o, e bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// lines bounds an example: what does not fit on a screen is no example.
func lines(t *testing.T, file string, most int) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.LessOrEqual(t, bytes.Count(b, []byte("\n")), most, file)
}

func TestEmbed(t *testing.T) {
	lines(t, "embed/main.go", 40)
	dir := t.TempDir()
	for range 2 { // the second run finds the first one's store
		stdout, stderr, err := start(t, "embed", nil, dir)
		require.NoError(t, err, stderr)
		require.Equal(t, "to +12025550100: Hello\nsent\n", stdout)
	}
}

func TestClient(t *testing.T) {
	lines(t, "client/main.go", 25)
	box, err := sandbox.Start(t.Context(), sandbox.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, box.Close()) })

	stdout, stderr, err := start(t, "client", []string{"MSGCTL_URL=" + box.URL, "MSGCTL_API_KEY=" + box.Key})
	require.NoError(t, err, stderr)
	id, status, _ := strings.Cut(strings.TrimSpace(stdout), " ")
	require.Equal(t, "delivered", status)
	m, err := box.Client.Messages.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "+12025550100", m.To)

	_, stderr, err = start(t, "client", []string{"MSGCTL_URL=" + box.URL, "MSGCTL_API_KEY=wrong"})
	require.Error(t, err)
	require.Contains(t, stderr, "unauthorized")
}
