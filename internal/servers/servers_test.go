package servers_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/internal/servers"
)

// The shared servers still run when goleak looks: they must cost no goroutine.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within gives a test step the time that a busy machine may take.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// caught is a test that notes its failure; Fatal ends the goroutine as the real one does.
type caught struct {
	testing.TB
	message string
}

func (c *caught) Errorf(format string, args ...any) { c.message = fmt.Sprintf(format, args...) }

func (c *caught) Fatal(args ...any) {
	c.message = fmt.Sprint(args...)
	runtime.Goexit()
}

func (c *caught) Fatalf(format string, args ...any) {
	c.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure runs f with a test of its own and returns what it failed with.
func failure(t *testing.T, f func(testing.TB)) string {
	c := &caught{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(c)
	}()
	<-done
	return c.message
}

func TestSharedServersAreNotKilled(t *testing.T) {
	for name, f := range map[string]func(testing.TB){
		"kill":  func(t testing.TB) { servers.Postgres(t).Kill() },
		"stall": func(t testing.TB) { servers.Postgres(t).Stall() },
		"set":   func(t testing.TB) { servers.Postgres(t).Set("work_mem", "1MB") },
		"redis": func(t testing.TB) { servers.Redis(t).Stop() },
		"wipe":  func(t testing.TB) { servers.Redis(t).Wipe() },
	} {
		require.Contains(t, failure(t, f), "shared; use New", name)
	}
}

func TestRedisDatabasesAreApart(t *testing.T) {
	a, b := servers.Redis(t), servers.Redis(t)
	require.NotEqual(t, a.URL, b.URL)
	redisSays(t, a.URL, "SET k 1", "+OK")
	redisSays(t, b.URL, "EXISTS k", ":0")
	a.Flush()
	redisSays(t, a.URL, "EXISTS k", ":0")
}

func TestRedisLife(t *testing.T) {
	t.Parallel()
	r := servers.NewRedis(t, servers.With("appendonly", "yes"))
	redisSays(t, r.URL, "SET k 1", "+OK")
	r.Kill()
	require.False(t, r.Running())
	require.Error(t, tryRedis(r.URL, "PING", "+PONG"))
	r.Start()
	redisSays(t, r.URL, "EXISTS k", ":1")
	r.Stall()
	require.True(t, r.Running())
	require.ErrorIs(t, tryRedis(r.URL, "PING", "+PONG"), os.ErrDeadlineExceeded)
	r.Resume()
	redisSays(t, r.URL, "PING", "+PONG")
	r.Stop()
	r.Stop()
	r.Start()
	r.Wipe()
	redisSays(t, r.URL, "DBSIZE", ":0")

	forgets := servers.NewRedis(t)
	redisSays(t, forgets.URL, "SET k 1", "+OK")
	forgets.Kill()
	forgets.Start()
	redisSays(t, forgets.URL, "EXISTS k", ":0")
}

func TestAServerThatCannotStartShowsItsLog(t *testing.T) {
	message := failure(t, func(t testing.TB) { servers.NewRedis(t, servers.With("no-such-parameter", "1")) })
	require.Contains(t, message, "Redis does not serve: the process has ended")
	require.Contains(t, message, "no-such-parameter")
}

func redisSays(t *testing.T, raw, command, want string) {
	t.Helper()
	require.NoError(t, tryRedis(raw, command, want))
}

func tryRedis(raw, command, want string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Long enough for a server that answers at all on a busy machine.
	limit := 10 * time.Second
	if command == "PING" {
		limit = time.Second
	}
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	fmt.Fprintf(conn, "AUTH %s\r\nSELECT %s\r\n%s\r\n", servers.Password, strings.Trim(u.Path, "/"), command)
	in := bufio.NewScanner(conn)
	for range 3 {
		if !in.Scan() {
			return in.Err()
		}
	}
	if in.Text() != want {
		return fmt.Errorf("%s: %s, want %s", command, in.Text(), want)
	}
	return nil
}

// TestGivenServers uses servers that the environment names.
func TestGivenServers(t *testing.T) {
	pg, redis := servers.NewPostgres(t), servers.NewRedis(t)
	t.Setenv("MSGCTL_TEST_POSTGRES_URL", pg.Admin)
	t.Setenv("MSGCTL_TEST_REDIS_URL", redis.URL)
	db := servers.Postgres(t).Database(t)
	require.Equal(t, host(t, pg.Admin), host(t, db.App))
	run(t, db.Owner, "CREATE TABLE t (n int)")
	require.Equal(t, redis.URL, servers.Redis(t).URL)
	require.Contains(t, failure(t, func(tb testing.TB) { servers.Postgres(tb).Kill() }), "MSGCTL_TEST_POSTGRES_URL")
	require.False(t, servers.Postgres(t).Running(), "nothing is known about its process")

	t.Setenv("MSGCTL_TEST_AMQP_URL", "http://x")
	require.Contains(t, failure(t, func(tb testing.TB) { servers.Rabbit(tb) }), "want amqp://")
}

// TestNothingIsLeft kills a test process that has servers running, one of them stalled: all of it must go.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	require.NoError(t, os.Chmod(tmp, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(tmp), 0o755))
	ready, writes, err := os.Pipe()
	require.NoError(t, err)
	defer ready.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestVictim$", "-test.v")
	child.Env = append(os.Environ(), "MSGCTL_TEST_VICTIM=1", "TMPDIR="+tmp)
	child.ExtraFiles = []*os.File{writes}
	require.NoError(t, child.Start())
	writes.Close()
	lines := bufio.NewScanner(ready)
	require.True(t, lines.Scan(), "the child has ended too early")
	require.Equal(t, "ready", lines.Text())
	left, err := filepath.Glob(filepath.Join(tmp, "*", "notes", "*"))
	require.NoError(t, err)
	require.Len(t, left, 3)
	alive := map[string]bool{}
	for _, note := range left {
		family(note[strings.LastIndexByte(note, '.')+1:], alive)
	}
	require.Greater(t, len(alive), 10, "PostgreSQL has children")

	require.NoError(t, child.Process.Signal(syscall.SIGKILL))
	_ = child.Wait()
	require.Eventually(t, func() bool {
		dirs, err := filepath.Glob(filepath.Join(tmp, "msgctl-servers-*"))
		return err == nil && len(dirs) == 0 && !anyAlive(alive)
	}, 30*time.Second, 50*time.Millisecond)
}

// TestVictim is the child of TestNothingIsLeft.
func TestVictim(t *testing.T) {
	if os.Getenv("MSGCTL_TEST_VICTIM") == "" {
		t.Skip("run by TestNothingIsLeft")
	}
	servers.Postgres(t).Database(t)
	servers.Redis(t)
	var opts []servers.Option
	if os.Geteuid() == 0 {
		opts = append(opts, servers.Tmpfs(128<<20)) // a mounted file system must go as well
	}
	stalled := servers.NewPostgres(t, opts...)
	for _, admin := range []string{servers.Postgres(t).Admin, stalled.Admin} {
		// A session that is busy does not notice by itself that the server is gone.
		busy := connect(t, admin)
		go func() {
			_, _ = busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1000000000000)")
		}()
		watch := connect(t, admin)
		require.Eventually(t, func() bool {
			var n int
			err := watch.QueryRow(within(t), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'").Scan(&n)
			return err == nil && n == 2
		}, 10*time.Second, 10*time.Millisecond)
	}
	stalled.Stall()
	pipe := os.NewFile(3, "pipe")
	fmt.Fprintln(pipe, "ready")
	select {}
}

// family notes a process and its descendants.
func family(pid string, found map[string]bool) {
	found[pid] = true
	for child, parent := range parents() {
		if parent == pid && !found[child] {
			family(child, found)
		}
	}
}

// parents maps every process that is not dead to its parent.
func parents() map[string]string {
	all := map[string]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, _ := os.ReadFile(path)
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(fields) > 1 && fields[0] != "Z" && fields[0] != "X" {
			all[filepath.Base(filepath.Dir(path))] = fields[1]
		}
	}
	return all
}

func anyAlive(pids map[string]bool) bool {
	for pid := range parents() {
		if pids[pid] {
			return true
		}
	}
	return false
}
