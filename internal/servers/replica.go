package servers

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// NewReplica starts a streaming replica of a primary that the test has to itself. It follows asynchronously; with
// primary.Set("synchronous_standby_names", "*") every commit waits for it. Databases of the primary are on it too:
// [PG.Of] gives their URLs.
func NewReplica(t testing.TB, primary *PG, opts ...Option) *PG {
	t.Helper()
	if primary.refused != "" {
		t.Fatalf("replica: %s", primary.refused)
	}
	s, c, tool, err := clearPostgres("replica", opts)
	if err != nil {
		t.Fatal(err)
	}
	err = tool("pg_basebackup", "--pgdata", s.dir+"/data", "--dbname", primary.Admin, "--wal-method", "stream",
		"--checkpoint", "fast", "--write-recovery-conf", "--no-sync")
	if err != nil {
		t.Fatalf("copy the primary: %v", err)
	}
	c.roles = true // copied
	return &PG{newServer(t, s), c.admin, c}
}

// Of returns the URLs of a database of the primary on its replica. It is read-only before Promote.
func (p *PG) Of(db *DB) *DB {
	p.t.Helper()
	admin, err := url.Parse(p.Admin)
	if err != nil {
		p.t.Fatal(err)
	}
	return db.at(p.t, admin.Host)
}

// at returns the database with another host:port in its URLs.
func (db *DB) at(t testing.TB, host string) *DB {
	t.Helper()
	moved := *db
	for _, raw := range []*string{&moved.Admin, &moved.Owner, &moved.App} {
		u, err := url.Parse(*raw)
		if err != nil {
			t.Fatal("the URL of the database does not parse")
		}
		u.Host = host
		*raw = u.String()
	}
	return &moved
}

// Promote makes a primary of a replica and waits until it takes writes.
func (p *PG) Promote() {
	p.t.Helper()
	p.exec("SELECT pg_promote(true, 30)")
	p.do("promote", func() error {
		return p.eventually("it is still in recovery", "SELECT NOT pg_is_in_recovery()")
	})
}

// CatchUp waits until the replica has replayed what the primary has committed up to now.
func (p *PG) CatchUp(primary *PG) {
	p.t.Helper()
	p.do("catch up", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), asking)
		defer cancel()
		conn, err := pgx.Connect(ctx, primary.Admin)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		var at string
		if err := conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&at); err != nil {
			return err
		}
		return p.eventually("it lags", "SELECT pg_last_wal_replay_lsn() >= "+literal(at)+"::pg_lsn")
	})
}

// eventually asks a question until the answer is yes.
func (p *PG) eventually(otherwise, question string) error {
	ctx, cancel := context.WithTimeout(context.Background(), asking)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for {
		var yes bool
		if err := conn.QueryRow(ctx, question).Scan(&yes); err != nil {
			return fmt.Errorf("%s: %w", otherwise, err)
		}
		if yes {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}
