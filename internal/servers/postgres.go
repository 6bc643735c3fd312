package servers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The roles of every server. Only the superuser of the first may create databases; the owner owns the databases of the
// tests; the engine runs as the app, which owns nothing and passes no row security.
const (
	superuser = "msgctl_test_admin"
	owner     = "msgctl_test_owner"
	app       = "msgctl_test_app"
)

// Password is the password of every role and user that the kit creates. A test may look for it in logs and errors,
// where it must not be.
const Password = "s3cret-of-the-tests"

// PG is a PostgreSQL server. Its parameters are the defaults but for: 64 MB of shared buffers, at most 256 MB of log
// between checkpoints (recovery after a kill stays short), 200 connections. fsync and synchronous_commit are on.
type PG struct {
	Server
	// Admin is the URL of the superuser for the database postgres.
	Admin string

	core *pgCore
}

// pgCore is what all handles of one server share.
type pgCore struct {
	admin string // URL

	mu        sync.Mutex
	roles     bool
	templates map[string]*template
}

// Postgres returns the shared server of this test process.
func Postgres(t testing.TB) *PG {
	t.Helper()
	if given := os.Getenv("MSGCTL_TEST_POSTGRES_URL"); given != "" {
		c, err := givenPostgres()
		if err != nil {
			t.Fatalf("MSGCTL_TEST_POSTGRES_URL: %v", err)
		}
		return &PG{Server{t: t, refused: "the server is named by MSGCTL_TEST_POSTGRES_URL; use NewPostgres"}, c.admin, c}
	}
	shared, err := sharedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	return &PG{Server{t, shared.s, "the server is shared; use NewPostgres"}, shared.admin, shared.pgCore}
}

type startedPG struct {
	*pgCore
	s *server
}

// The servers of the process: package state, as one per process is the meaning of them.
var sharedPostgres = sync.OnceValues(func() (startedPG, error) {
	s, c, err := layPostgres(nil)
	if err == nil {
		err = s.start()
	}
	return startedPG{c, s}, err
})

var givenPostgres = sync.OnceValues(func() (*pgCore, error) {
	raw := os.Getenv("MSGCTL_TEST_POSTGRES_URL")
	if _, err := pgx.ParseConfig(raw); err != nil {
		return nil, err // pgx hides the password
	}
	if u, err := url.Parse(raw); err != nil || u.Host == "" {
		return nil, errors.New("want postgres://user:password@host/database")
	}
	return &pgCore{admin: raw}, nil
})

// NewPostgres starts a server for this test alone.
func NewPostgres(t testing.TB, opts ...Option) *PG {
	t.Helper()
	s, c, err := layPostgres(opts)
	if err != nil {
		t.Fatal(err)
	}
	return &PG{newServer(t, s), c.admin, c}
}

// Set changes a parameter of the running server for all sessions, as ALTER SYSTEM and a reload do.
func (p *PG) Set(key, value string) {
	p.t.Helper()
	if p.refused != "" {
		p.t.Fatalf("set %s: %s", key, p.refused)
	}
	p.exec("ALTER SYSTEM SET "+pgx.Identifier{key}.Sanitize()+" = "+literal(value), "SELECT pg_reload_conf()")
}

// exec runs statements as superuser in the database postgres.
func (p *PG) exec(statements ...string) {
	p.t.Helper()
	if err := p.core.exec(statements...); err != nil {
		p.t.Fatal(err)
	}
}

// asking is the deadline of everything that the kit asks a server itself.
const asking = 30 * time.Second

func (c *pgCore) exec(statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", strings.ReplaceAll(sql, Password, "***"), err)
		}
	}
	return nil
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// layPostgres makes everything ready for the first start.
func layPostgres(opts []Option) (*server, *pgCore, error) {
	s, c, tool, err := clearPostgres("postgres", opts)
	if err != nil {
		return nil, nil, err
	}
	pw := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pw, []byte(Password+"\n"), 0o600); err != nil {
		return nil, nil, err
	}
	if err := s.user.own(pw); err != nil {
		return nil, nil, err
	}
	// --no-sync: the files are written anew after each start of the machine. Everything later is synced.
	err = tool("initdb", "--pgdata", s.dir+"/data", "--username", superuser, "--pwfile", pw, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	return s, c, err
}

// clearPostgres makes a place for a server whose data folder is still to be filled by the returned tool.
func clearPostgres(name string, opts []Option) (*server, *pgCore, func(prog string, args ...string) error, error) {
	o := collect(opts)
	bin, err := kindPostgres().locate()
	if err != nil {
		return nil, nil, nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, nil, nil, err
	}
	dir, log, err := place(name)
	if err != nil {
		return nil, nil, nil, err
	}
	port, err := reservePort()
	if err != nil {
		return nil, nil, nil, err
	}
	s := &server{name: "PostgreSQL", dir: dir, log: log, user: as, calm: sigInt, limit: 2 * time.Minute}
	unmount := func() error { return nil }
	if o.tmpfs > 0 {
		s.tmpfs = true
		if unmount, err = mountTmpfs(dir, o.tmpfs); err != nil {
			return nil, nil, nil, err
		}
	}
	s.also = func() error {
		port.release()
		return unmount()
	}
	if err := s.user.own(dir); err != nil {
		return nil, nil, nil, err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, Password), Host: port.addr(), Path: "/postgres",
		RawQuery: "sslmode=disable"}
	c := &pgCore{admin: u.String()}
	s.prog = filepath.Join(bin, "postgres")
	s.args = []string{"-D", dir + "/data", "-p", strconv.Itoa(port.number), "-h", "127.0.0.1"}
	for _, kv := range append([][2]string{
		{"unix_socket_directories", ""}, {"shared_buffers", "64MB"}, {"max_wal_size", "256MB"}, {"min_wal_size", "80MB"},
		{"max_connections", "200"}, {"fsync", "on"}, {"synchronous_commit", "on"}, {"timezone", "UTC"},
		{"log_timezone", "UTC"}, {"dynamic_shared_memory_type", "posix"},
	}, o.settings...) {
		s.args = append(s.args, "-c", kv[0]+"="+kv[1])
	}
	s.ready = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, c.admin)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	tool := func(prog string, args ...string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin, prog), args...)
		cmd.Dir, cmd.SysProcAttr = dir, ownGroup(as)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+Password)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", prog, err, last(out, 1000))
		}
		return nil
	}
	return s, c, tool, nil
}

// own gives a file to the account; nobody is whoever runs the tests, who owns it already.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// mountTmpfs puts a file system in memory over dir and returns what takes it away.
func mountTmpfs(dir string, bytes int64) (func() error, error) {
	out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0755", bytes), "tmpfs", dir).
		CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("a full disk is tested on a tmpfs, and mounting one takes root on Linux: %w: %s",
			err, last(out, 300))
	}
	return func() error {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			return fmt.Errorf("umount %s: %w: %s", dir, err, last(out, 300))
		}
		return nil
	}, nil
}

// ballast is the file that Fill writes.
func (p *PG) ballast() string { return filepath.Join(p.s.dir, "ballast") }

// Fill writes a file beside the data until the disk is full. It takes a server with [Tmpfs]. What PostgreSQL does then
// depends on who meets the full disk: an INSERT fails, a checkpoint is tried again, and for want of room for its log
// the whole server ends.
func (p *PG) Fill() {
	p.t.Helper()
	p.do("fill the disk", func() error {
		if !p.s.tmpfs {
			return errors.New("start the server with the option Tmpfs; the disk of the machine is not filled")
		}
		f, err := os.OpenFile(p.ballast(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for size := 1 << 20; size > 0; {
			if _, err := f.Write(make([]byte, size)); err != nil {
				size /= 2
			}
		}
		return nil
	})
}

// Drain takes the file of Fill away. A server that the full disk has ended wants Start.
func (p *PG) Drain() {
	p.t.Helper()
	p.do("drain the disk", func() error { return os.Remove(p.ballast()) })
}
