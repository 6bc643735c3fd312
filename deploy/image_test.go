package deploy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// dockerfile is the Dockerfile as far as its own instructions go.
type dockerfile struct {
	stages [][]instruction
}

type instruction struct{ name, rest string }

func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	b, err := os.ReadFile("docker/Dockerfile")
	require.NoError(t, err)
	var d dockerfile
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(b), "")
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "FROM" {
			d.stages = append(d.stages, nil)
		}
		if name == "" || len(d.stages) == 0 {
			continue
		}
		last := len(d.stages) - 1
		d.stages[last] = append(d.stages[last], instruction{name, strings.TrimSpace(rest)})
	}
	require.Len(t, d.stages, 2)
	return d
}

// all returns what follows an instruction of a stage, each time that it stands there.
func (d dockerfile) all(stage int, name string) (out []string) {
	for _, i := range d.stages[stage] {
		if i.name == name {
			out = append(out, i.rest)
		}
	}
	return out
}

func (d dockerfile) one(t *testing.T, stage int, name string) string {
	t.Helper()
	list := d.all(stage, name)
	require.Len(t, list, 1, name)
	return list[0]
}

// image is the file system of the image, with what the image says of itself.
type image struct {
	root       string
	env        []string
	uid        uint32
	entrypoint []string
	health     []string
	build      string // the command that compiled
}

// buildImage runs the steps of the Dockerfile as plain commands: those of the first stage in the checkout, with /out and
// /rootfs in a temporary place, then the copies of the second.
func buildImage(t *testing.T) image {
	t.Helper()
	d := readDockerfile(t)
	tmp := t.TempDir()
	img := image{root: filepath.Join(tmp, "image")}
	top, err := filepath.Abs("..")
	require.NoError(t, err)
	place := strings.NewReplacer("/out/", filepath.Join(tmp, "out")+"/", "/rootfs", filepath.Join(tmp, "rootfs"))
	for _, step := range d.all(0, "RUN") {
		switch {
		case step == "go mod download":
			continue
		case strings.Contains(step, "go build"):
			img.build = step
		}
		script := place.Replace(step)
		if os.Getuid() != 0 { // only root gives files away
			script = regexp.MustCompile(`&& chown [^&]*`).ReplaceAllString(script, "")
		}
		out, err := command(t, top, []string{"VERSION=v9.9.9-test", "TARGETOS=linux", "TARGETARCH=" + runtime.GOARCH}, "sh", "-ec", script)
		require.NoError(t, err, "%s\n%s", script, out)
	}
	require.NoError(t, os.MkdirAll(img.root, 0o755))
	for _, c := range d.all(1, "COPY") {
		args := strings.Fields(strings.TrimPrefix(c, "--from=build "))
		from, to := args[:len(args)-1], args[len(args)-1]
		for _, f := range from {
			src := place.Replace(f)
			if strings.HasSuffix(f, "/") {
				src = strings.TrimSuffix(src, "/") + "/."
			}
			out, err := command(t, tmp, nil, "cp", "-a", src, filepath.Join(img.root, to))
			require.NoError(t, err, out)
		}
	}
	for key, value := range pairs(d.one(t, 1, "ENV")) {
		img.env = append(img.env, key+"="+value)
	}
	_, err = fmt.Sscanf(d.one(t, 1, "USER"), "%d:", &img.uid)
	require.NoError(t, err, "a name is no proof for Kubernetes")
	require.NoError(t, json.Unmarshal([]byte(d.one(t, 1, "ENTRYPOINT")), &img.entrypoint))
	_, health, ok := strings.Cut(d.one(t, 1, "HEALTHCHECK"), "CMD ")
	require.True(t, ok)
	require.NoError(t, json.Unmarshal([]byte(health), &img.health))
	return img
}

func pairs(text string) map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`([\w.]+)=("[^"]*"|\S+)`).FindAllStringSubmatch(text, -1) {
		out[m[1]] = strings.Trim(m[2], `"`)
	}
	return out
}

// TestImage builds what the Dockerfile builds, and runs it as a container would.
func TestImage(t *testing.T) {
	img := buildImage(t)
	t.Run("the programs are static and not stripped of their origin", func(t *testing.T) {
		top, err := filepath.Abs("..")
		require.NoError(t, err)
		for _, name := range []string{"engine", "msgctl"} {
			file := filepath.Join(img.root, name)
			f, err := elf.Open(file)
			require.NoError(t, err)
			for _, p := range f.Progs {
				require.NotEqual(t, elf.PT_INTERP, p.Type, "%s needs an interpreter", name)
			}
			libraries, err := f.ImportedLibraries()
			require.NoError(t, err)
			require.Empty(t, libraries)
			require.NoError(t, f.Close())
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NotContains(t, string(b), top+"/", "%s knows where it was built: it is not reproducible", name)
		}
		out, err := command(t, img.root, nil, filepath.Join(img.root, "engine"), "version")
		require.NoError(t, err, out)
		require.Equal(t, "engine v9.9.9-test\n", out)
		for _, flag := range []string{"-trimpath", "-buildvcs=false", "CGO_ENABLED=0"} {
			require.Contains(t, img.build, flag)
		}
	})
	t.Run("it is small", func(t *testing.T) {
		const most = 40 << 20
		sizes := map[string]int64{}
		var packed counter
		z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed) // a registry packs better
		require.NoError(t, err)
		require.NoError(t, filepath.WalkDir(img.root, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			defer f.Close()
			sizes[d.Name()], err = io.Copy(z, f)
			return err
		}))
		require.NoError(t, z.Close())
		t.Logf("engine %d kB, msgctl %d kB, the image as it is pulled %d kB", sizes["engine"]>>10, sizes["msgctl"]>>10, int(packed)>>10)
		require.Less(t, int64(packed), int64(most), "the image as it is pulled")
		require.Less(t, sizes["engine"], int64(48<<20), "the engine by itself, unpacked")
	})
	t.Run("it has what the programs need and nothing else", func(t *testing.T) {
		var files []string
		require.NoError(t, filepath.WalkDir(img.root, func(p string, d os.DirEntry, err error) error {
			if err == nil && p != img.root {
				files = append(files, strings.TrimPrefix(p, img.root))
			}
			return err
		}))
		slices.Sort(files)
		require.Equal(t, []string{"/engine", "/etc", "/etc/group", "/etc/passwd", "/etc/ssl", "/etc/ssl/certs",
			"/etc/ssl/certs/ca-certificates.crt", "/msgctl", "/tmp", "/var", "/var/lib", "/var/lib/msgctl"}, files)
		require.NotZero(t, img.uid)
		info, err := os.Stat(img.root + "/var/lib/msgctl")
		require.NoError(t, err)
		require.EqualValues(t, 0o700, info.Mode().Perm())
		if os.Getuid() == 0 {
			require.Equal(t, img.uid, info.Sys().(*syscall.Stat_t).Uid, "its own directory")
		}
	})
	t.Run("the programs have the commands that the files here call", img.has)
	t.Run("it runs without rights on a file system that cannot be written", img.runs)
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

// contained makes a command that runs in the image: its root is the image's, read-only, its user the image's, and only
// the volume and /tmp can be written.
func (img image) contained(ctx context.Context, volume string, env []string, args ...string) *exec.Cmd {
	script := `set -e
mount --bind "$ROOT" "$ROOT"
mount --bind "$VOLUME" "$ROOT/var/lib/msgctl"
mount -t tmpfs -o size=8m,mode=1777 tmpfs "$ROOT/tmp"
mount -o remount,ro,bind "$ROOT"
cd "$ROOT"
exec chroot --userspec="$ID:$ID" "$ROOT" "$@"`
	c := exec.CommandContext(ctx, "unshare", append([]string{"--mount", "--", "sh", "-c", script, "sh"}, args...)...)
	c.Env = append(append(slices.Clone(img.env), env...), "ROOT="+img.root, "VOLUME="+volume, fmt.Sprintf("ID=%d", img.uid))
	// PATH in the image is for the image.
	c.Env = slices.DeleteFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
	c.Env = append(c.Env, "PATH="+os.Getenv("PATH"))
	return c
}

func (img image) runs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can change the root directory; the rest of the image is checked")
	}
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("mounts are not allowed here; the rest of the image is checked: %s", out)
	}
	volume := t.TempDir()
	require.NoError(t, os.Chown(volume, int(img.uid), int(img.uid)))
	address := freeAddress(t)
	listen := []string{"MSGCTL_LISTEN=" + address}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// Nothing answers yet.
	out, err := img.contained(ctx, volume, listen, img.health...).CombinedOutput()
	require.Equal(t, 1, exitCode(err), "%s", out)
	require.Contains(t, string(out), "not ready")

	manager := newManager(t)
	var log bytes.Buffer
	engine := img.contained(ctx, volume, append(listen, "NOTIFY_SOCKET="+manager.name, "WATCHDOG_USEC=100000"), img.entrypoint...)
	engine.Stdout, engine.Stderr = &log, &log
	require.NoError(t, engine.Start())
	ended := make(chan error, 1)
	go func() { ended <- engine.Wait() }()
	defer func() {
		_ = engine.Process.Kill()
	}()

	out, err = img.contained(ctx, volume, listen, append(slices.Clone(img.health), "--wait", "60s")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	manager.await(t, "READY=1\nSTATUS=serving on "+address)
	manager.await(t, "WATCHDOG=1")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", engine.Process.Pid))
	require.NoError(t, err)
	require.Regexp(t, fmt.Sprintf(`(?m)^Uid:\s+%d\s+%d`, img.uid, img.uid), string(status))
	out, err = img.contained(ctx, volume, listen, "/engine", "operator-key").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, `^mk_live_\w+\n$`, string(out))
	out, err = img.contained(ctx, volume, []string{"MSGCTL_URL=http://" + address, "MSGCTL_API_KEY=" + strings.TrimSpace(string(out)),
		"HOME=/var/lib/msgctl"}, "/msgctl", "tenant", "ls").CombinedOutput()
	require.NoError(t, err, "%s", out)

	require.NoError(t, engine.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended, log.String())
	manager.await(t, "STOPPING=1\nSTATUS=draining")
	out, err = img.contained(ctx, volume, listen, img.health...).CombinedOutput()
	require.Equal(t, 1, exitCode(err), "%s", out)
	require.NoFileExists(t, filepath.Join(img.root, "data"), "it has written into its own image")
	entries, err := os.ReadDir(volume)
	require.NoError(t, err)
	require.Greater(t, len(entries), 2)
}

// has runs the help of each command that files here call.
func (img image) has(t *testing.T) {
	bin := img.root
	for _, c := range []struct{ program, args, flag string }{
		{"msgctl", "migrate up", "--app-role"}, {"msgctl", "cluster status", ""}, {"engine", "healthcheck", "--wait"},
		{"engine", "healthcheck", "--url"}, {"engine", "operator-key", ""}, {"engine", "config", ""},
	} {
		out, err := command(t, bin, nil, filepath.Join(bin, c.program), append(strings.Fields(c.args), "--help")...)
		require.NoError(t, err, out)
		require.Contains(t, out, c.program+" "+c.args, "there is no such command")
		require.Contains(t, out, c.flag, "%s %s has no such flag", c.program, c.args)
	}
	help, err := command(t, bin, nil, filepath.Join(bin, "engine"), "--help")
	require.NoError(t, err, help)
	for _, flag := range []string{"--store", "--broker", "--limits", "--node"} {
		require.Contains(t, help, flag, fmt.Sprintf("files here set MSGCTL_%s", strings.ToUpper(flag[2:])))
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // CombinedOutput does not wrap
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// manager is a service manager's socket, in the abstract namespace, which a changed root does not hide.
type manager struct {
	name string
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	name := fmt.Sprintf("@msgctl-deploy-%d-%d", os.Getpid(), time.Now().UnixNano())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{name, conn}
}

// await reads until the manager is told something.
func (m *manager) await(t *testing.T, want string) {
	t.Helper()
	require.NoError(t, m.conn.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 4096)
	for {
		n, err := m.conn.Read(b)
		require.NoError(t, err, "nobody says %q", want)
		if string(b[:n]) == want {
			return
		}
	}
}

// ignored applies a file of patterns as Docker does: the last one that matches a path, or a directory above it, decides.
func ignored(patterns []string, file string) bool {
	out := false
	for _, p := range patterns {
		p, not := strings.CutPrefix(p, "!")
		for at := file; at != "."; at = path.Dir(at) {
			if globs(strings.Split(p, "/"), strings.Split(at, "/")) {
				out = !not
				break
			}
		}
	}
	return out
}

func globs(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**":
		return globs(pattern[1:], name) || len(name) > 0 && globs(pattern, name[1:])
	case len(name) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], name[0])
	return err == nil && ok && globs(pattern[1:], name[1:])
}

// TestBuildContext shows that the build gets every file that it compiles, and none that is secret.
func TestBuildContext(t *testing.T) {
	b, err := os.ReadFile("docker/Dockerfile.dockerignore")
	require.NoError(t, err)
	var patterns []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, line)
		}
	}
	top, err := filepath.Abs("..")
	require.NoError(t, err)
	out, err := command(t, top, []string{"CGO_ENABLED=0"}, "go", "list", "-deps", "-f",
		`{{if .Module}}{{if .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}
{{end}}{{end}}{{end}}`, "./cmd/engine", "./cmd/msgctl")
	require.NoError(t, err, out)
	files := strings.Fields(out)
	require.Greater(t, len(files), 200)
	for _, f := range append(files, top+"/go.mod", top+"/go.sum") {
		require.False(t, ignored(patterns, strings.TrimPrefix(f, top+"/")), "the build needs %s", f)
	}
	for _, f := range []string{".git/config", "deploy/compose/secrets/engine.yaml", "data/master.key", "x/y/master.key", "a.pem",
		"secrets/x", "x/secrets/y", ".env", "cmd/.env", "data/msgctl.db-wal", "x/msgctl.db", "bin/engine", "docs/deploy.md"} {
		require.True(t, ignored(patterns, f), "%s would be sent to the build", f)
	}
}
