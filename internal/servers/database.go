package servers

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// DB is an empty database of one test, UTF-8 with the C collation. It is dropped when the test ends, also from under
// connections that are still open.
type DB struct {
	Name string
	// Admin is the URL of a superuser.
	Admin string
	// Owner is the URL of the role that owns the database: it may migrate, and is no superuser.
	Owner string
	// App is the URL of the role for the engine: it may connect, owns nothing and sees only what the owner grants. The
	// role is the same in all databases of the server: AppRole.
	App string
	// AppRole is the name of the role of App, for GRANT.
	AppRole string
}

// Database makes an empty database. It takes some 20 ms.
func (p *PG) Database(t testing.TB) *DB {
	t.Helper()
	db, err := p.core.create("template0")
	return p.lend(t, db, err)
}

// DatabaseLike makes a database with the schema and rows that prepare makes in one. For each name prepare runs once per
// server, on the first call; the others copy what it left. So a package migrates once and every test has its own
// database within some 30 ms. Prepare must close its connections before it returns.
func (p *PG) DatabaseLike(t testing.TB, name string, prepare func(*DB) error) *DB {
	t.Helper()
	c := p.core
	c.mu.Lock()
	if c.templates == nil {
		c.templates = map[string]*template{}
	}
	tpl := c.templates[name]
	if tpl == nil {
		tpl = &template{}
		c.templates[name] = tpl
	}
	c.mu.Unlock()
	tpl.once.Do(func() { tpl.name, tpl.err = c.template(prepare) })
	if tpl.err != nil {
		t.Fatalf("prepare the database %q: %v", name, tpl.err)
	}
	db, err := c.create(tpl.name)
	return p.lend(t, db, err)
}

type template struct {
	once sync.Once
	name string
	err  error
}

// lend gives the database to the test.
func (p *PG) lend(t testing.TB, db *DB, err error) *DB {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A server that the test has left dead or stalled takes its databases with it.
		if p.refused == "" && (!p.Running() || p.s.ready() != nil) {
			return
		}
		if err := p.core.exec("DROP DATABASE IF EXISTS " + db.Name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the database of the test: %v", err)
		}
	})
	return db
}

func (c *pgCore) template(prepare func(*DB) error) (string, error) {
	db, err := c.create("template0")
	if err != nil {
		return "", err
	}
	// A panic or FailNow in prepare must not look like a success to the next caller.
	finished := false
	defer func() {
		if !finished {
			_ = c.exec("DROP DATABASE IF EXISTS " + db.Name + " WITH (FORCE)")
		}
	}()
	if err := prepare(db); err != nil {
		return "", err
	}
	// Nobody may connect, autovacuum included: a database in use cannot be copied.
	if err := c.exec("ALTER DATABASE "+db.Name+" ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "+literal(db.Name)); err != nil {
		return "", err
	}
	finished = true
	return db.Name, nil
}

func (c *pgCore) create(from string) (*DB, error) {
	if err := c.ensureRoles(); err != nil {
		return nil, err
	}
	name := "msgctl_test_" + strings.ToLower(rand.Text())
	err := c.exec(
		"CREATE DATABASE "+name+" TEMPLATE "+from+" OWNER "+owner+" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
		"REVOKE ALL ON DATABASE "+name+" FROM PUBLIC", "GRANT CONNECT ON DATABASE "+name+" TO "+app)
	if err != nil {
		return nil, fmt.Errorf("create a database: %w", err)
	}
	db := &DB{Name: name, AppRole: app}
	for url, user := range map[*string]string{&db.Admin: "", &db.Owner: owner, &db.App: app} {
		if *url, err = c.url(user, name); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// url is the URL of a role, or of the superuser, for a database.
func (c *pgCore) url(role, database string) (string, error) {
	u, err := url.Parse(c.admin)
	if err != nil {
		return "", errors.New("the superuser's URL does not parse")
	}
	if role != "" {
		u.User = url.UserPassword(role, Password)
	}
	u.Path = "/" + database
	return u.String(), nil
}

// ensureRoles creates the roles that the databases belong to. On a given server another test process may do the same.
func (c *pgCore) ensureRoles() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roles {
		return nil
	}
	sql := []string{"SELECT pg_advisory_lock(7410000)"}
	for _, role := range []string{owner, app} {
		sql = append(sql, `DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '`+role+`') THEN
				CREATE ROLE `+role+` LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD '`+Password+`';
			END IF; END $$`)
	}
	if err := c.exec(sql...); err != nil {
		return fmt.Errorf("create the roles of the tests: %w", err)
	}
	c.roles = true
	return nil
}
