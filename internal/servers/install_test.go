package servers

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of installation use a program that no package has, and an apt-get that is a script.

func TestAnAbsentProgramSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	k := kind{"Nothing", "no-such-program", []string{"/no/such/*"}, "no-such-package", "MSGCTL_TEST_NOTHING_URL"}
	_, err := k.locate()
	require.ErrorContains(t, err, "Nothing is not installed")
	require.ErrorContains(t, err, "apt-get install --no-install-recommends no-such-package, "+
		"or name a running server in MSGCTL_TEST_NOTHING_URL")
}

func TestInstallOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root installs")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("TMPDIR", t.TempDir())
	script := `#!/bin/sh
echo "$DEBIAN_FRONTEND $*" >>` + dir + `/calls
case "$*" in *install*) printf '#!/bin/sh\n' >` + dir + `/program; /bin/chmod +x ` + dir + `/program;; esac
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755))
	k := kind{"A program", "program", nil, "package", ""}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			found, err := k.locate()
			if err != nil || found != dir {
				t.Errorf("found %q, %v", found, err)
			}
		})
	}
	all.Wait()
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, "noninteractive -o DPkg::Lock::Timeout=300 update -qq\n"+
		"noninteractive -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends package\n", string(calls))

	k.binary = "another"
	_, err = k.locate()
	require.ErrorContains(t, err, "the package package is installed but holds no another")

	script = "#!/bin/sh\necho no network; exit 100\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755))
	_, err = k.locate()
	require.ErrorContains(t, err, "apt-get update -qq: exit status 100: no network")
}

func TestTheNewestVersionIsTaken(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, version := range []string{"9", "15", "14"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, version, "bin"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, version, "bin", "program"), nil, 0o755))
	}
	got := kind{binary: "program", folders: []string{dir + "/*/bin"}}.look()
	require.Equal(t, "15", filepath.Base(filepath.Dir(strings.TrimSuffix(got, "/"))))
}
