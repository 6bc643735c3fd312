package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A build says which version it is, by the same flag as the engine's.
func TestVersionOfABuild(t *testing.T) {
	if testing.Short() {
		t.Skip("it links the program")
	}
	path := filepath.Join(t.TempDir(), "msgctl.exe")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v9.8.7-rc1", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(path, "version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "version\t9.8.7-rc1\n")
}
