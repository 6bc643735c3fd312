package servers_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/internal/servers"
)

// echo answers every byte with itself and notes what it has got. It ends with the test.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func dial(t *testing.T, l *servers.Link) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", l.Addr, 5*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// says sends text and wants it back within the limit.
func says(conn net.Conn, text string, limit time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("got " + string(got))
	}
	return nil
}

const (
	soon = time.Minute            // what works, works within this
	long = 200 * time.Millisecond // what does not work is watched for this
)

func TestLinkPassesEverything(t *testing.T) {
	t.Parallel()
	l := servers.Proxy(t, echo(t))
	conn := dial(t, l)
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = conn.Write(text)
		_ = conn.(*net.TCPConn).CloseWrite() // the other half must stay open
	}()
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, len(text), len(got))
	require.True(t, bytes.Equal(text, got))
	require.Eventually(t, func() bool { return l.Connections() == 0 }, soon, time.Millisecond)

	// Who reads late still reads all, up to a proper end.
	conn = dial(t, l)
	require.NoError(t, says(conn, "hello", soon))
	text = text[:512<<10] // more than the reader's buffer holds, less than all buffers together
	_, err = conn.Write(text)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.Eventually(t, func() bool { return l.Connections() == 0 }, soon, time.Millisecond)
	got, err = io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, len(text), len(got))
}

func TestLinkFaults(t *testing.T) {
	t.Parallel()
	l := servers.Proxy(t, echo(t))
	conn := dial(t, l)
	require.NoError(t, says(conn, "hello", soon))

	l.Hang(servers.ToClient)
	require.ErrorIs(t, says(conn, "held", long), os.ErrDeadlineExceeded)
	l.Heal()
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	held := make([]byte, 4)
	_, err := io.ReadFull(conn, held)
	require.NoError(t, err)
	require.Equal(t, "held", string(held), "a hang loses nothing")

	l.Reset()
	require.ErrorIs(t, says(conn, "x", soon), syscall.ECONNRESET)
	conn = dial(t, l)
	require.NoError(t, says(conn, "anew", soon))

	l.Cut()
	require.Error(t, says(conn, "x", soon))
	_, err = net.DialTimeout("tcp", l.Addr, soon)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	l.Heal()
	l.Heal()
	conn = dial(t, l)
	require.NoError(t, says(conn, "healed", soon))

	l.LimitData(servers.ToClient, 3)
	err = says(conn, "12345", soon)
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the limit ends the connection")
	conn = dial(t, l)
	require.NoError(t, says(conn, "12", soon))
	got := make([]byte, 2)
	_, err = conn.Write([]byte("34"))
	require.NoError(t, err)
	n, _ := io.ReadFull(conn, got)
	require.LessOrEqual(t, n, 1, "more than the limit came through")
	l.Heal()
}

func TestLinkDelays(t *testing.T) {
	t.Parallel()
	l := servers.Proxy(t, echo(t))
	conn := dial(t, l)
	l.Slow(100 * time.Millisecond)
	began := time.Now()
	require.NoError(t, says(conn, "far", soon))
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond, "a round trip has two ways")
	l.Heal()
	l.Bandwidth(1000)
	began = time.Now()
	require.NoError(t, says(conn, string(make([]byte, 300)), soon))
	require.GreaterOrEqual(t, time.Since(began), 250*time.Millisecond)
}

// TestLinkLosesARequestOrItsAnswer is about the moment that matters most: the connection ends around a COMMIT.
func TestLinkLosesARequestOrItsAnswer(t *testing.T) {
	t.Parallel()
	db := servers.Postgres(t).Database(t)
	run(t, db.Owner, "CREATE TABLE t (n int)")
	l, over := servers.ProxyURL(t, db.Owner)
	commit := func(n int) error {
		conn, err := pgx.Connect(within(t), over)
		require.NoError(t, err)
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = conn.Close(ctx)
		}()
		tx, err := conn.Begin(within(t))
		require.NoError(t, err)
		_, err = tx.Exec(within(t), "INSERT INTO t VALUES ($1)", n)
		require.NoError(t, err)
		return tx.Commit(within(t))
	}
	for n := range 5 {
		lost := l.LoseRequest("COMMIT")
		require.Error(t, commit(n))
		<-lost
		require.Zero(t, number(t, db.Owner, "SELECT count(*) FROM t"), "a lost request has been carried out")
	}
	// A COMMIT that takes its time, so that an answer lost too early shows.
	run(t, db.Owner, "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "+
		"$$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()")
	for n := range 5 {
		lost := l.LoseAnswer("COMMIT")
		require.Error(t, commit(n))
		<-lost
		require.Equal(t, n+1, number(t, db.Owner, "SELECT count(*) FROM t"), "the server has not got the request")
	}
	require.NoError(t, commit(5), "a loss happens once")
	require.Eventually(t, func() bool { return l.Connections() == 0 }, soon, time.Millisecond)
}

// TestLinkToNobody: a server that is down refuses.
func TestLinkToNobody(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone.Close()
	l := servers.Proxy(t, gone.Addr().String())
	conn, err := net.DialTimeout("tcp", l.Addr, soon)
	if err == nil { // accepted by the kernel before the link knows better
		defer conn.Close()
		err = says(conn, "x", soon)
	}
	require.Error(t, err)
}

// TestLinkLeavesNothing breaks connections with bytes on their way; goleak looks at the end.
func TestLinkLeavesNothing(t *testing.T) {
	t.Parallel()
	l := servers.Proxy(t, echo(t))
	full := dial(t, l)
	l.Hang()
	require.NoError(t, full.SetDeadline(time.Now().Add(long)))
	_, err := full.Write(make([]byte, 64<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a link holds a bounded amount")
	l.Reset()
	l.Heal()
	for i := range 20 {
		conn := dial(t, l)
		go func() { _, _ = conn.Write(make([]byte, 1<<20)) }()
		switch i % 4 {
		case 0:
			l.Reset()
		case 1:
			l.Hang()
		case 2:
			conn.Close()
		case 3:
			l.Cut()
			l.Heal()
		}
	}
}
