package deploy_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds every program that a test runs.
const patience = 4 * time.Minute

// command runs a program in a directory and returns what it printed.
func command(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// tool is a program of a Debian package, with the environment that it needs.
type tool struct {
	path string
	env  []string
	root string // of the unpacked packages; "" = it is installed
}

// findTool returns an installed program, or unpacks it from Debian packages into the user's cache. Nothing is installed
// and no service starts. A machine without Debian's tools must have the program already: the test fails and says so.
func findTool(t *testing.T, name string, packages ...string) tool {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return tool{path: path}
		}
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	root := filepath.Join(cache, "msgctl-tools", strings.Join(packages, "+"))
	if _, err := os.Stat(root); err != nil {
		unpack(t, name, root, packages)
	}
	found := tool{root: root}
	libraries, err := filepath.Glob(root + "/usr/lib/*-linux-*")
	require.NoError(t, err)
	inner, err := filepath.Glob(root + "/usr/lib/*-linux-*/systemd")
	require.NoError(t, err)
	lib, err := filepath.Glob(root + "/lib/*-linux-*")
	require.NoError(t, err)
	libraries = append(append(libraries, inner...), lib...)
	found.env = []string{"LD_LIBRARY_PATH=" + strings.Join(libraries, ":")}
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		if path := filepath.Join(root, dir, name); executable(path) {
			found.path = path
			return found
		}
	}
	require.Failf(t, "no such program", "%s is not in the packages %v", name, packages)
	return found
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// unpack downloads packages and unpacks them beside their place, which they then take: two tests at once do no harm.
func unpack(t *testing.T, name, root string, packages []string) {
	t.Helper()
	for _, p := range []string{"apt-get", "dpkg-deb"} {
		_, err := exec.LookPath(p)
		require.NoError(t, err, "%s is missing, and there is no %s to get it: install %v", name, p, packages)
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(root), 0o755))
	tmp, err := os.MkdirTemp(filepath.Dir(root), ".new-*")
	require.NoError(t, err)
	defer os.RemoveAll(tmp)
	debs := filepath.Join(tmp, "debs")
	require.NoError(t, os.Mkdir(debs, 0o755))
	out, err := command(t, debs, nil, "apt-get", append([]string{"download", "-q"}, packages...)...)
	if err != nil { // the list of packages may be old
		_, _ = command(t, debs, nil, "apt-get", "update", "-q")
		out, err = command(t, debs, nil, "apt-get", append([]string{"download", "-q"}, packages...)...)
	}
	require.NoError(t, err, "%s is missing, and its packages %v cannot be had:\n%s", name, packages, out)
	files, err := filepath.Glob(debs + "/*.deb")
	require.NoError(t, err)
	require.Len(t, files, len(packages))
	tree := filepath.Join(tmp, "tree")
	for _, f := range files {
		out, err := command(t, debs, nil, "dpkg-deb", "-x", f, tree)
		require.NoError(t, err, out)
	}
	if err := os.Rename(tree, root); err != nil {
		require.DirExists(t, root, "another test has put it there: %v", err)
	}
}

// run runs the tool.
func (x tool) run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	return command(t, dir, x.env, x.path, args...)
}
