//go:build unix

package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

const childDir = "MSGCTL_TEST_CHILD_DIR"

// TestMain lets the test binary be its own child: with the variable set it is the program that gets killed. Otherwise
// no goroutine may be left when the tests are done.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// child accepts, claims and settles from several goroutines for ever, and prints each id after it was acknowledged.
func child(dir string) {
	ctx, sys := context.Background(), store.AsSystem("child")
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: dir})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	_ = s.CreateTenant(ctx, sys, store.Tenant{ID: "acme"})
	ids := delivery.NewIDs(time.Now)
	for range 8 {
		go func() {
			for n := 1; ; n = n%5 + 1 {
				ms := batchOf(ids, n)
				if _, err := s.Accept(ctx, "acme", store.Acceptance{Now: benchTime, Messages: ms}); err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
				var line bytes.Buffer
				c := store.Claim{Node: "n", Now: benchTime, Until: benchTime.Add(time.Minute)}
				for i := range ms {
					fmt.Fprintln(&line, ms[i].ID)
					c.IDs = append(c.IDs, ms[i].ID)
				}
				_, _ = os.Stdout.Write(line.Bytes())
				got, _ := s.Claim(ctx, sys, c)
				for _, g := range got[:len(got)/2] {
					_, _ = s.Settle(ctx, sys, benchTime, []store.Outcome{{ID: g.ID, Epoch: g.Epoch, Writer: delivery.BySend,
						Status: delivery.StatusSent}})
				}
			}
		}()
	}
	select {}
}

// killed runs a child on dir until it has acknowledged n messages, kills it, and returns all that it acknowledged.
func killed(t *testing.T, dir string, n int) (ids []delivery.MessageID) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF { //nolint:errorlint // the end of what the killed child wrote; a torn line was not acknowledged
			break
		}
		require.NoError(t, err)
		id, err := delivery.ParseMessageID(strings.TrimSpace(line))
		require.NoError(t, err, line)
		if ids = append(ids, id); len(ids) == n {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait(), "it was killed")
	return ids
}

func TestEveryAcknowledgedMessageSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	var ids []delivery.MessageID
	for round := range 4 {
		ids = append(ids, killed(t, dir, 50+100*round)...)
		s := openAt(t, dir)
		for _, id := range ids {
			_, err := s.Message(t.Context(), "acme", id)
			require.NoError(t, err, "after kill %d", round+1)
		}
		r, err := s.Audit(t.Context(), "acme")
		require.NoError(t, err)
		require.Empty(t, r.Problems)
		require.GreaterOrEqual(t, int(r.Accepted), len(ids))
		require.NoError(t, s.Close())
	}
}

// A torn log loses what was behind the tear and nothing else: the file opens and its books are right.
func TestATornLogOpensWithRightBooks(t *testing.T) {
	dir := t.TempDir()
	ids := killed(t, dir, 400)
	wal, err := os.ReadFile(filepath.Join(dir, "msgctl.db-wal"))
	require.NoError(t, err)
	require.NotEmpty(t, wal)
	file, err := os.ReadFile(filepath.Join(dir, "msgctl.db"))
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(5, 6))
	some := 0
	for range 12 {
		torn := t.TempDir()
		cut := wal[:rnd.IntN(len(wal)+1)]
		require.NoError(t, os.WriteFile(filepath.Join(torn, "msgctl.db"), file, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(torn, "msgctl.db-wal"), cut, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(torn, "msgctl.lock"), []byte("1\n"), 0o600))
		s := openAt(t, torn)
		r, err := s.Audit(t.Context(), "acme")
		if err == nil {
			require.Empty(t, r.Problems, "cut at %d of %d", len(cut), len(wal))
			some = max(some, int(r.Accepted))
		} else {
			require.ErrorIs(t, err, store.ErrNotFound, "the tenant itself was behind the tear")
		}
		require.NoError(t, s.Close())
	}
	require.Positive(t, some)
	require.LessOrEqual(t, len(ids)/2, some, "a late tear keeps most")
}

func TestASecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	openAt(t, dir)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.Output()
	require.Error(t, err)
	require.Equal(t, fmt.Sprintf("error: database in use by process %d: stop it or choose another directory\n",
		os.Getpid()), string(out))
}
