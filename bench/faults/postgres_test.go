//go:build faults && unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/msgctl/msgctl/bench/crash"
	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/sdk"
)

// without are the codes of an engine that cannot use its store.
var without = []string{"storage_unavailable", "outcome_unknown", "overloaded", "storage_low"}

// refused notes how an engine without its store answered in a span, and wants that within a time.
func (l *lab) refused(s span, required time.Duration) {
	l.t.Helper()
	tries := l.load.answers(s)
	n, slowest := refusals(tries, -1, without...)
	l.NotZero(n, "nobody was refused")
	l.within("of "+codes(tries)+" the slowest refusal came", slowest, required)
}

// slowly makes attempts take a time, so that some are on the wire, and returns how many are.
func (l *lab) slowly(d time.Duration) (onTheWire int) {
	l.sim.Slow(hookAccount, d)
	l.last(d + d/2)
	now := time.Now()
	for _, e := range l.sim.Ledger().Entries(0) {
		if e.Channel == "webhook" && e.At.After(now.Add(-d)) {
			onTheWire++
		}
	}
	return onTheWire
}

func TestPostgresKill(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{postgres: true})
	l.note("%d attempts were on the wire", l.slowly(700*time.Millisecond))
	gone := during(func() {
		l.pg.Kill()
		l.sim.Heal(hookAccount)
		l.last(3 * time.Second)
	})
	start := time.Now()
	l.pg.Start()
	up := time.Now()
	l.refused(gone, time.Second)
	l.note("its own recovery took %s", round(up.Sub(start)))
	l.within("the first hand-off came", l.firstAfter(up), 2*time.Second)
	l.finish(wanted{})
}

func TestPostgresRestart(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{postgres: true})
	var slowest time.Duration
	refused := 0
	for range 3 {
		gone := during(func() {
			l.pg.Stop()
			l.last(700 * time.Millisecond)
		})
		l.pg.Start()
		l.flows()
		n, took := refusals(l.load.answers(gone), -1, without...)
		refused, slowest = refused+n, max(slowest, took)
	}
	l.NotZero(refused, "nobody was refused")
	l.within(fmt.Sprintf("the slowest of %d refusals came", refused), slowest, time.Second)
	l.finish(wanted{})
}

func TestPostgresHang(t *testing.T) {
	l := begin(t, setup{postgres: true})
	gone := during(func() {
		l.pg.Stall()
		began := time.Now()
		for _, n := range l.nodes {
			l.until("the node does not claim", n.held)
		}
		for _, n := range l.nodes {
			h, err := n.health()
			l.NoError(err)
			l.False(h.OK)
			l.NotEqual("ok", h.Parts["store"])
		}
		l.note("/readyz of both named the store, and both claimed nothing")
		l.last(15*time.Second - time.Since(began))
	})
	l.pg.Resume()
	up := time.Now()
	l.within("the first hand-off came", l.firstAfter(up), 2*time.Second)
	l.flows()
	l.refused(gone, 20*time.Second)
	l.finish(wanted{doubts: true})
}

func TestPostgresSlow(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	slow := during(func() {
		for _, n := range l.nodes {
			n.pg.Slow(250 * time.Millisecond) // each way
		}
		l.last(15 * time.Second)
	})
	held := 0
	for _, n := range l.nodes {
		if n.logged("not in step with the cluster") {
			held++
		}
		n.pg.Heal()
	}
	back := time.Now()
	l.flows()
	l.within("a message went through at once", time.Since(back), 5*time.Second)
	for _, n := range l.nodes {
		n.untilReady()
	}
	handed, gap := l.handed(slow)
	_, slowest := refusals(l.load.answers(slow), -1, without...)
	_, accepted := refusals(l.load.answers(slow), -1, "")
	l.note("meanwhile %.0f messages a second were handed over, with no pause above %s", float64(handed)/slow.seconds(), round(gap))
	l.note("answers: %s, the slowest accept after %s, the slowest refusal after %s", codes(l.load.answers(slow)),
		round(accepted), round(slowest))
	l.note("%d of %d nodes held back for a moment", held, len(l.nodes))
	l.NotZero(handed, "nothing was handed over")
	l.within("the longest pause was over", gap, 10*time.Second)
	l.finish(wanted{})
}

// commit is how a COMMIT looks on the wire: the whole statement, unlike READ COMMITTED.
const commit = "\x00commit\x00"

func TestPostgresLostCommit(t *testing.T) {
	t.Parallel()
	// With prepared statements a COMMIT has no text on the wire.
	l := begin(t, setup{pgQuery: "&default_query_exec_mode=exec"})
	lost := 0
	during := during(func() {
		for i := range 30 {
			n := l.nodes[i%nodes]
			select {
			case <-n.pg.LoseAnswer(commit):
				lost++
			case <-time.After(5 * time.Second):
			case <-l.ctx.Done():
			}
			l.last(100 * time.Millisecond)
		}
	})
	for _, n := range l.nodes {
		n.pg.Heal()
	}
	unknown, _ := refusals(l.load.answers(during), -1, "outcome_unknown")
	l.note("%d answers to COMMIT were lost, and %d requests were told that their outcome is unknown", lost, unknown)
	l.Greater(lost, 20)
	l.NotZero(unknown, "no loss has met a request")
	l.finish(wanted{})
}

func TestPostgresDiskFull(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{postgres: true, options: []servers.Option{
		servers.Tmpfs(320 << 20), servers.With("max_wal_size", "64MB"), servers.With("min_wal_size", "32MB"),
	}})
	full := during(func() {
		l.pg.Fill()
		l.last(5 * time.Second)
	})
	l.pg.Drain()
	if !l.pg.Running() {
		l.note("PostgreSQL ended for want of room, and was started again")
	}
	l.pg.Start()
	up := time.Now()
	l.note("answers meanwhile: %s", codes(l.load.answers(full)))
	n, _ := refusals(l.load.answers(full), -1, without...)
	l.NotZero(n, "nobody was refused")
	l.within("the first hand-off came", l.firstAfter(up), 5*time.Second)
	l.flows()
	l.finish(wanted{})
}

func TestPostgresDeadlock(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{postgres: true, options: []servers.Option{servers.With("deadlock_timeout", "1s")}})
	conn, err := pgx.Connect(l.ctx, l.db.Admin)
	l.NoError(err)
	defer conn.Close(context.WithoutCancel(l.ctx))
	// Who has waited for this long looks once whether it waits in a circle, and is ended if so: not this session. It closes
	// the circle soon after the engines have begun to wait, so that they have not looked yet.
	_, err = conn.Exec(l.ctx, "SET deadlock_timeout = '20s'")
	l.NoError(err)
	var before, after int64
	deadlocks := "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
	l.NoError(l.query(deadlocks, &before))
	own := 0
	span := during(func() {
		for range 15 {
			tx, err := conn.Begin(l.ctx)
			l.NoError(err)
			// The engines lock messages first and the head of the ledger last.
			_, err = tx.Exec(l.ctx, "SELECT FROM ledger_heads FOR UPDATE")
			l.NoError(err)
			l.last(40 * time.Millisecond)
			_, err = tx.Exec(l.ctx, "SELECT FROM messages ORDER BY id DESC LIMIT 5 FOR UPDATE")
			var pg *pgconn.PgError
			if errors.As(err, &pg) && pg.Code == "40P01" {
				own++
			} else {
				l.NoError(err)
			}
			l.NoError(tx.Rollback(l.ctx))
			l.last(300 * time.Millisecond)
		}
	})
	l.until("PostgreSQL has counted", func() bool {
		l.NoError(l.query(deadlocks, &after))
		return after-before > int64(own)
	})
	handed, gap := l.handed(span)
	l.note("%d transactions of the engines were ended, %.0f messages a second were handed over with no pause above %s",
		after-before-int64(own), float64(handed)/span.seconds(), round(gap))
	l.note("answers meanwhile: %s", codes(l.load.answers(span)))
	n, _ := refusals(l.load.answers(span), -1, "none", "internal_error", "outcome_unknown")
	l.Zero(n, "a client was told something else than to come again")
	l.finish(wanted{})
}

func TestPostgresForeignTransaction(t *testing.T) {
	t.Parallel()
	l := begin(t, setup{})
	const locked = 20
	var wait []crash.Request
	due := time.Now().Add(8 * time.Second)
	for i := range locked {
		r := crash.Request{Address: crash.Address{Channel: "webhook", To: fmt.Sprintf("/sim/hook/200/locked%d", i)}}
		m, err := l.client.Send(l.ctx, l.message(r.Address, "locked", sdk.At(due)))
		l.NoError(err)
		r.ID = m.ID
		l.load.expect(r)
		wait = append(wait, r)
	}
	foreign := func(sql ...string) *pgx.Conn {
		conn, err := pgx.Connect(l.ctx, l.db.Admin)
		l.NoError(err)
		for _, s := range sql {
			_, err = conn.Exec(l.ctx, s)
			l.NoError(err)
		}
		return conn
	}
	snapshot := foreign("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM messages")
	defer snapshot.Close(context.WithoutCancel(l.ctx))
	locks := foreign("BEGIN", "SELECT FROM messages WHERE client_ref = 'locked' FOR UPDATE")
	l.True(time.Now().Before(due), "this machine is too slow")
	idle := during(func() { l.last(20 * time.Second) })
	taken := func() (n int) {
		for _, e := range l.sim.Ledger().Entries(0) {
			for _, r := range wait {
				if e.To == r.To && e.Taken {
					n++
				}
			}
		}
		return n
	}
	l.Zero(taken(), "what is locked cannot be claimed")
	l.NoError(locks.Close(l.ctx))
	free := time.Now()
	l.until("what was locked goes", func() bool { return taken() == locked })
	handed, gap := l.handed(idle)
	l.note("%.0f messages a second were handed over, with no pause above %s; answers: %s",
		float64(handed)/idle.seconds(), round(gap), codes(l.load.answers(idle)))
	l.within(fmt.Sprintf("the %d messages that it had locked went", locked), time.Since(free), 5*time.Second)
	l.Greater(float64(handed)/idle.seconds(), 0.8*usualRate, "messages a second")
	n, _ := refusals(l.load.answers(idle), -1, append(without, "none")...)
	l.Zero(n, "a client saw it")
	l.finish(wanted{})
}
