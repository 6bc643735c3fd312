// Package deploy_test checks what msgctl is run with: image, units, compose files, chart, alerts and dashboards.
package deploy_test

import (
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/internal/servers"
)

var update = flag.Bool("update", false, "copy alerts and dashboards into the chart")

// TestChartHasTheSameFiles keeps the copies that the chart must carry in step with what they are copies of.
func TestChartHasTheSameFiles(t *testing.T) {
	from, err := filepath.Glob("grafana/*.json")
	require.NoError(t, err)
	from = append(from, "prometheus/alerts.yaml")
	names := map[string]bool{}
	for _, f := range from {
		want, err := os.ReadFile(f)
		require.NoError(t, err)
		to := filepath.Join("helm/msgctl/files", filepath.Base(f))
		names[filepath.Base(f)] = true
		if *update {
			require.NoError(t, os.WriteFile(to, want, 0o644))
		}
		have, err := os.ReadFile(to)
		require.NoError(t, err)
		require.Equal(t, string(want), string(have), "go test ./deploy -run TestChartHasTheSameFiles -update")
	}
	entries, err := os.ReadDir("helm/msgctl/files")
	require.NoError(t, err)
	for _, e := range entries {
		require.True(t, names[e.Name()], "%s is a copy of nothing", e.Name())
	}
}

// TestChartAndCompose runs the tests of the module that knows Helm, Kubernetes and Compose.
func TestChartAndCompose(t *testing.T) {
	out, err := command(t, "testdata/check", []string{"GOFLAGS=-mod=readonly"}, "go", "test", "-count=1", "./...")
	require.NoError(t, err, out)
	require.Contains(t, out, "ok ")
}

// ---- systemd

var units = []string{"engine.service", "engine@.service"}

// setting returns the last value of a setting in a unit.
func setting(t *testing.T, unit, name string) string {
	t.Helper()
	all := settings(t, unit, name)
	require.NotEmpty(t, all, "%s does not set %s", unit, name)
	return all[len(all)-1]
}

func settings(t *testing.T, unit, name string) (out []string) {
	t.Helper()
	b, err := os.ReadFile("systemd/" + unit)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	return out
}

func TestUnitsAreVerified(t *testing.T) {
	analyze := findTool(t, "systemd-analyze", "systemd", "libsystemd-shared")
	env := analyze.env
	if analyze.root != "" {
		env = append(env, "SYSTEMD_UNIT_PATH="+filepath.Join(analyze.root, "lib/systemd/system"))
	}
	dir := t.TempDir()
	program, err := os.Executable() // any program: verify looks whether it is there
	require.NoError(t, err)
	for _, unit := range units {
		b, err := os.ReadFile("systemd/" + unit)
		require.NoError(t, err)
		text := strings.ReplaceAll(string(b), "/usr/bin/engine", program)
		name := strings.Replace(unit, "@", "@a", 1)
		require.NoError(t, os.WriteFile(filepath.Join(dir, unit), []byte(text), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		out, err := command(t, dir, env, analyze.path, "verify", "--man=no", name)
		require.NoError(t, err, out)
		require.Empty(t, out, "a warning")

		out, err = command(t, dir, env, analyze.path, "security", "--offline=true", "--no-pager", name)
		require.NoError(t, err, out)
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		require.NotNil(t, m, out)
		exposure, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		require.LessOrEqual(t, exposure, 1.5, out)
	}
	// A wrong key is found.
	broken := filepath.Join(dir, "broken.service")
	require.NoError(t, os.WriteFile(broken, []byte("[Service]\nExecStart="+program+"\nRestrt=no\n"), 0o600))
	out, _ := command(t, dir, env, analyze.path, "verify", "--man=no", broken)
	require.Contains(t, out, "Restrt")
}

func TestUnitsFitTheEngine(t *testing.T) {
	for _, unit := range units {
		stop, err := strconv.Atoi(setting(t, unit, "TimeoutStopSec"))
		require.NoError(t, err)
		require.Greater(t, time.Duration(stop)*time.Second, 30*time.Second+5*time.Second, "the default drain and the server's end")
		require.Equal(t, "notify", setting(t, unit, "Type"))
		require.Equal(t, "mixed", setting(t, unit, "KillMode"))
		require.Equal(t, "on-failure", setting(t, unit, "Restart"))
		require.Equal(t, "2", setting(t, unit, "RestartPreventExitStatus"))
		require.Contains(t, settings(t, unit, "Environment"), "MSGCTL_CONFIG=%d/engine.yaml")
	}
	require.Equal(t, "msgctl", setting(t, "engine.service", "StateDirectory"))
	require.Equal(t, "msgctl/%i", setting(t, "engine@.service", "StateDirectory"))
	require.Contains(t, settings(t, "engine@.service", "Environment"), "MSGCTL_DIR=/var/lib/msgctl/%i")
	require.Contains(t, settings(t, "engine@.service", "LoadCredential"), "master.key:/etc/msgctl/master.key")
	cfg, err := engine.ReadConfig("systemd/engine.yaml")
	require.NoError(t, err)
	require.NoError(t, cfg.Check())
}

// ---- the cluster of the compose file

// TestComposeSecrets makes the secrets twice: the second time nothing changes, and everything can be read by whom it is
// for.
func TestComposeSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	out, err := command(t, ".", nil, "sh", "compose/secrets.sh", dir)
	require.NoError(t, err, out)
	read := func() map[string]string {
		files := map[string]string{}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			files[e.Name()] = string(b)
		}
		return files
	}
	files := read()
	require.Len(t, files, 8)
	again, err := command(t, ".", nil, "sh", "compose/secrets.sh", dir)
	require.NoError(t, err, again)
	require.Empty(t, again)
	require.Equal(t, files, read())
	for _, f := range files {
		require.NotContains(t, out, strings.TrimSpace(f), "a secret is printed")
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())

	cfg, err := engine.ReadConfig(filepath.Join(dir, "engine.yaml"))
	require.NoError(t, err)
	shown := cfg.String()
	for _, name := range []string{"app_password"} {
		require.Contains(t, files["engine.yaml"], files[name])
		require.NotContains(t, shown, files[name], "a password is shown")
	}
	require.Equal(t, "postgres:5432:msgctl:msgctl_owner:"+files["owner_password"]+"\n", files["owner.pgpass"])
	broker := regexp.MustCompile(`default_pass = (\w+)`).FindStringSubmatch(files["rabbitmq.conf"])[1]
	limits := regexp.MustCompile(`requirepass (\w+)`).FindStringSubmatch(files["redis.conf"])[1]
	require.Contains(t, files["engine.yaml"], "amqp://msgctl:"+broker+"@rabbitmq:5672/")
	require.Contains(t, files["engine.yaml"], "redis://:"+limits+"@redis:6379/0")

	// The engine takes the master key.
	home := t.TempDir()
	key := filepath.Join(home, "master.key")
	require.NoError(t, os.WriteFile(key, []byte(files["master.key"]), 0o600))
	e, err := engine.New(engine.Config{Dir: home})
	require.NoError(t, err)
	require.NoError(t, e.Close())

	// Half of the passwords is worse than none.
	require.NoError(t, os.Remove(filepath.Join(dir, "engine.yaml")))
	out, err = command(t, ".", nil, "sh", "compose/secrets.sh", dir)
	require.Equal(t, 1, exitCode(err), out)
	require.Contains(t, out, "Restore engine.yaml")
}

// TestProxy runs HAProxy with the configuration of the compose file in front of engines that are ready, not ready and
// gone.
func TestProxy(t *testing.T) {
	haproxy := findTool(t, "haproxy", "haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
	b, err := os.ReadFile("compose/haproxy/haproxy.cfg")
	require.NoError(t, err)

	var ready [2]atomic.Bool
	var served [2]atomic.Int32
	var nodes [2]*httptest.Server
	for i := range nodes {
		ready[i].Store(true)
		nodes[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				if !ready[i].Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return
			}
			served[i].Add(1)
			if r.URL.Path == "/broken" { // the connection ends without an answer
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_ = conn.Close()
				}
			}
		}))
		defer nodes[i].Close()
	}
	gone := freeAddress(t)
	front := freeAddress(t)
	text := string(b)
	for from, to := range map[string]string{
		"bind :8020": "bind " + front, "log stdout format raw local0 info": "log 127.0.0.1:9 local0 emerg", " resolvers docker init-addr last,libc,none": "",
		"engine-1 engine-1:8020": "engine-1 " + nodes[0].Listener.Addr().String(),
		"engine-2 engine-2:8020": "engine-2 " + nodes[1].Listener.Addr().String(), "engine-3 engine-3:8020": "engine-3 " + gone,
		"inter 1s fastinter 500ms": "inter 50ms fastinter 50ms",
	} {
		require.Contains(t, text, from)
		text = strings.Replace(text, from, to, 1)
	}
	dir := t.TempDir()
	cfg := filepath.Join(dir, "haproxy.cfg")
	require.NoError(t, os.WriteFile(cfg, []byte(text), 0o600))
	out, err := haproxy.run(t, dir, "-c", "-f", cfg)
	require.NoError(t, err, out)
	require.NotContains(t, out, "WARNING")
	// And as it is shipped: only the names cannot be found here.
	shipped, err := filepath.Abs("compose/haproxy/haproxy.cfg")
	require.NoError(t, err)
	out, err = haproxy.run(t, dir, "-c", "-f", shipped)
	require.NoError(t, err, out)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	proxy := exec.CommandContext(ctx, haproxy.path, "-db", "-f", cfg)
	proxy.Env = append(os.Environ(), haproxy.env...)
	require.NoError(t, proxy.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = proxy.Wait()
	}()
	stop := func(s syscall.Signal) {
		_ = proxy.Process.Signal(s)
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	defer stop(syscall.SIGKILL)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	ask := func(method, path string) int {
		r, err := http.NewRequestWithContext(ctx, method, "http://"+front+path, strings.NewReader("{}"))
		require.NoError(t, err)
		resp, err := client.Do(r)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	require.Eventually(t, func() bool { return ask("GET", "/v1/x") == 200 }, patience, 20*time.Millisecond)
	// Both that are ready get requests, and the one that is gone spoils none.
	for range 40 {
		require.Equal(t, 200, ask("POST", "/v1/messages"))
	}
	require.Positive(t, served[0].Load())
	require.Positive(t, served[1].Load())
	require.Equal(t, 404, ask("GET", "/metrics"), "metrics are for the inside")

	// A node that says that it is not ready gets nothing more.
	ready[0].Store(false)
	quiet := func() bool {
		before := served[0].Load()
		for range 10 {
			if ask("POST", "/v1/messages") != 200 {
				return false
			}
		}
		return served[0].Load() == before
	}
	require.Eventually(t, quiet, patience, 50*time.Millisecond)
	ready[0].Store(true)
	require.Eventually(t, func() bool { return !quiet() }, patience, 50*time.Millisecond, "it comes back")

	// A request that a node has read and not answered is not tried on another: it could be done twice.
	before := served[0].Load() + served[1].Load()
	require.Equal(t, 502, ask("POST", "/broken"))
	require.Equal(t, before+1, served[0].Load()+served[1].Load())

	// A node that ends without a word: its connections are made anew elsewhere.
	nodes[0].Close()
	for range 20 {
		require.Equal(t, 200, ask("POST", "/v1/messages"))
	}
	stop(syscall.SIGUSR1)
	_, err = net.DialTimeout("tcp", front, time.Second)
	require.Error(t, err)
}

// TestPostgresRoles runs the script of the compose file on a real server, with passwords that a shell or SQL could
// stumble over.
func TestPostgresRoles(t *testing.T) {
	pg := servers.NewPostgres(t)
	admin, err := url.Parse(pg.Admin)
	require.NoError(t, err)
	secrets := t.TempDir()
	passwords := map[string]string{"owner_password": `it's "$HOME" \n`, "app_password": "p;DROP ROLE x;--"}
	for name, text := range passwords {
		require.NoError(t, os.WriteFile(filepath.Join(secrets, name), []byte(text+"\n"), 0o600))
	}
	password, _ := admin.User.Password()
	env := []string{"PGHOST=" + admin.Hostname(), "PGPORT=" + admin.Port(), "PGPASSWORD=" + password, "SECRETS=" + secrets,
		"POSTGRES_USER=" + admin.User.Username()}
	out, err := command(t, ".", env, "sh", "compose/postgres/init.sh")
	require.NoError(t, err, out)

	as := func(role, password, sql string) (string, error) {
		return command(t, ".", append(env, "PGPASSWORD="+password), "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", "msgctl", "-c", sql)
	}
	owner, app := passwords["owner_password"], passwords["app_password"]
	out, err = as("msgctl_owner", owner, "CREATE TABLE x (n int); GRANT SELECT ON x TO msgctl")
	require.NoError(t, err, out)
	out, err = as("msgctl", app, "SELECT count(*) FROM x")
	require.NoError(t, err, out)
	for role, sql := range map[string]string{
		"CREATE TABLE":    "CREATE TABLE y (n int)",
		"another's table": "DROP TABLE x",
		"a schema":        "CREATE SCHEMA s",
		"a role":          "CREATE ROLE z",
	} {
		_, err = as("msgctl", app, sql)
		require.Error(t, err, "the engines may make %s", role)
	}
	out, err = as("msgctl_owner", owner, "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname IN ('msgctl', 'msgctl_owner')")
	require.NoError(t, err, out)
	require.Equal(t, "f|f|f|f\nf|f|f|f\n", out)
}
