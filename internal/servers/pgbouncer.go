package servers

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pooler is a PgBouncer in transaction mode before one database: each transaction may run in another session.
type Pooler struct {
	Server
	// DB holds the URLs that lead through the pooler. It knows no prepared statements (before 1.21 PgBouncer has none in
	// transaction mode), so Owner and App carry default_query_exec_mode=exec for pgx.
	DB *DB
}

// PgBouncer starts a pooler for a database. With sets parameters of its section [pgbouncer]; the default is 20 server
// connections.
func PgBouncer(t testing.TB, db *DB, opts ...Option) *Pooler {
	t.Helper()
	s, addr, err := layPgBouncer(db, collect(opts))
	if err != nil {
		t.Fatal(err)
	}
	through := db.at(t, addr)
	through.Admin = db.Admin
	for _, raw := range []*string{&through.Owner, &through.App} {
		u, err := url.Parse(*raw)
		if err != nil {
			t.Fatal("the URL of the database does not parse")
		}
		query := u.Query()
		query.Set("default_query_exec_mode", "exec")
		u.RawQuery = query.Encode()
		*raw = u.String()
	}
	// The server is ready when a login through it works.
	ready := pgCore{admin: through.App}
	s.ready = func() error { return ready.exec("SELECT 1") }
	return &Pooler{newServer(t, s), through}
}

func layPgBouncer(db *DB, o options) (*server, string, error) {
	if o.tmpfs > 0 {
		return nil, "", fmt.Errorf("PgBouncer keeps no data: no Tmpfs")
	}
	bin, err := kindPgBouncer().locate()
	if err != nil {
		return nil, "", err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, "", err
	}
	target, err := url.Parse(db.App)
	if err != nil {
		return nil, "", fmt.Errorf("the URL of the database does not parse")
	}
	dir, log, err := place("pgbouncer")
	if err != nil {
		return nil, "", err
	}
	port, err := reservePort()
	if err != nil {
		return nil, "", err
	}
	s := &server{name: "PgBouncer", dir: dir, log: log, user: as, calm: sigTerm, limit: 30 * time.Second}
	s.prog, s.args = filepath.Join(bin, "pgbouncer"), []string{dir + "/pgbouncer.ini"}
	s.also = func() error { port.release(); return nil }
	var conf strings.Builder
	fmt.Fprintf(&conf, "[databases]\n%s = host=%s port=%s\n[pgbouncer]\n", db.Name, target.Hostname(), target.Port())
	for _, kv := range append([][2]string{
		{"listen_addr", "127.0.0.1"}, {"listen_port", port.String()}, {"unix_socket_dir", ""},
		{"auth_type", "scram-sha-256"}, {"auth_file", dir + "/users"}, {"pool_mode", "transaction"},
		{"default_pool_size", "20"}, {"max_client_conn", "500"}, {"ignore_startup_parameters", "extra_float_digits"},
		{"server_login_retry", "1"}, {"logfile", ""}, {"pidfile", ""},
	}, o.settings...) {
		fmt.Fprintf(&conf, "%s = %s\n", kv[0], kv[1])
	}
	users := fmt.Sprintf("%q %q\n%q %q\n", owner, Password, app, Password)
	for name, content := range map[string]string{"pgbouncer.ini": conf.String(), "users": users} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return nil, "", err
		}
		if err := as.own(path); err != nil {
			return nil, "", err
		}
	}
	return s, port.addr(), as.own(dir)
}
