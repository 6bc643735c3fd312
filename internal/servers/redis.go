package servers

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// RedisServer is a Redis server, or one database of the shared one.
type RedisServer struct {
	Server
	// URL names the server with its password and the database that is the test's to use.
	URL string
}

// databases is how many tests of one process can use the shared server at once before numbers come round.
const databases = 512

// Redis returns an empty database of the shared server. It is emptied when the test ends. What Redis does not keep per
// database, pub/sub channels and scripts, all tests of the process share: take [NewRedis] (30 ms) where that matters.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	if given := os.Getenv("MSGCTL_TEST_REDIS_URL"); given != "" {
		u, err := url.Parse(given)
		if err != nil || u.Host == "" {
			t.Fatal("MSGCTL_TEST_REDIS_URL: want redis://:password@host:port/number")
		}
		r := &RedisServer{Server{t: t, refused: "the server is named by MSGCTL_TEST_REDIS_URL; use NewRedis"}, given}
		r.Flush()
		return r
	}
	shared, err := sharedRedis()
	if err != nil {
		t.Fatal(err)
	}
	n := shared.next.Add(1) % databases
	r := &RedisServer{Server{t, shared.s, "the server is shared; use NewRedis"}, shared.url + "/" + strconv.Itoa(int(n))}
	r.Flush()
	t.Cleanup(r.Flush)
	return r
}

type startedRedis struct {
	s    *server
	url  string
	next *atomic.Int64
}

var sharedRedis = sync.OnceValues(func() (startedRedis, error) {
	s, url, err := layRedis(nil)
	if err == nil {
		err = s.start()
	}
	return startedRedis{s, url, new(atomic.Int64)}, err
})

// NewRedis starts a server for this test alone. It keeps nothing over a kill, like the limits that it holds; with
// With("appendonly", "yes") it does.
func NewRedis(t testing.TB, opts ...Option) *RedisServer {
	t.Helper()
	s, url, err := layRedis(opts)
	if err != nil {
		t.Fatal(err)
	}
	return &RedisServer{newServer(t, s), url + "/0"}
}

// Flush empties the database of the test (FLUSHDB).
func (r *RedisServer) Flush() { r.t.Helper(); r.ask("FLUSHDB") }

// Wipe empties the whole server, scripts and functions included. The test must have it to itself.
func (r *RedisServer) Wipe() {
	r.t.Helper()
	r.do("wipe", func() error { return nil })
	r.ask("FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH")
}

func (r *RedisServer) ask(commands ...string) {
	r.t.Helper()
	if err := askRedis(r.URL, commands...); err != nil {
		r.t.Fatalf("redis: %v", err)
	}
}

// askRedis sends commands without blanks in their arguments and wants a status or a number for each.
func askRedis(raw string, commands ...string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("the URL does not parse")
	}
	conn, err := net.DialTimeout("tcp", u.Host, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	var before []string
	if pw, ok := u.User.Password(); ok {
		before = append(before, strings.TrimSpace("AUTH "+u.User.Username())+" "+pw)
	}
	if n := strings.Trim(u.Path, "/"); n != "" {
		before = append(before, "SELECT "+n)
	}
	in := bufio.NewReader(conn)
	for _, command := range append(before, commands...) {
		if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if line[0] != '+' && line[0] != ':' {
			word, _, _ := strings.Cut(command, " ")
			return fmt.Errorf("%s: %s", word, strings.TrimSpace(line))
		}
	}
	return nil
}

func layRedis(opts []Option) (*server, string, error) {
	o := collect(opts)
	bin, err := kindRedis().locate()
	if err != nil {
		return nil, "", err
	}
	dir, log, err := place("redis")
	if err != nil {
		return nil, "", err
	}
	port, err := reservePort()
	if err != nil {
		return nil, "", err
	}
	s := &server{name: "Redis", dir: dir, log: log, calm: sigTerm, limit: time.Minute}
	s.prog = filepath.Join(bin, "redis-server")
	unmount := func() error { return nil }
	if o.tmpfs > 0 {
		s.tmpfs = true
		if unmount, err = mountTmpfs(dir, o.tmpfs); err != nil {
			return nil, "", err
		}
	}
	s.also = func() error {
		port.release()
		return unmount()
	}
	var conf strings.Builder
	for _, kv := range append([][2]string{
		{"bind", "127.0.0.1"}, {"port", port.String()}, {"dir", dir}, {"daemonize", "no"}, {"requirepass", Password},
		{"databases", strconv.Itoa(databases)}, {"save", `""`}, {"appendonly", "no"}, {"appendfsync", "always"},
		{"enable-debug-command", "local"},
	}, o.settings...) {
		fmt.Fprintf(&conf, "%s %s\n", kv[0], kv[1])
	}
	file := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return nil, "", err
	}
	s.args = []string{file}
	u := url.URL{Scheme: "redis", User: url.UserPassword("", Password), Host: port.addr()}
	s.ready = func() error { return askRedis(u.String(), "PING") }
	return s, u.String(), nil
}
