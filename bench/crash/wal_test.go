//go:build unix

package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sqlitefile "zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

// killedStore is what a kill leaves of a store: its files, and what it had acknowledged, in order.
type killedStore struct {
	file, wal []byte
	acked     []delivery.MessageID
	end       int // of the last commit in wal
	commits   []int
}

// newKilledStore lets one writer accept, claim and settle, and copies the files while the store is open.
func newKilledStore(t *testing.T) killedStore {
	t.Helper()
	ctx, sys, dir := t.Context(), store.AsSystem("test"), t.TempDir()
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, s.CreateTenant(ctx, sys, store.Tenant{ID: tenant}))
	now := time.Now()
	ids := delivery.NewIDs(time.Now)
	var k killedStore
	for n := range 60 {
		a, c := store.Acceptance{Now: now}, store.Claim{Node: "n", Now: now, Until: now.Add(time.Minute)}
		for i := range n%7 + 1 {
			m := store.NewMessage{
				ID: ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal, To: person(4 * (n*10 + i)).To,
				Payload: []byte(`{"content":{"text":"Hello"}}`), Segments: 1, DueAt: now, ExpiresAt: now.Add(time.Hour),
			}
			a.Messages, c.IDs = append(a.Messages, m), append(c.IDs, m.ID)
		}
		_, err := s.Accept(ctx, tenant, a)
		require.NoError(t, err)
		k.acked = append(k.acked, c.IDs...)
		claimed, err := s.Claim(ctx, sys, c)
		require.NoError(t, err)
		for _, m := range claimed[:len(claimed)/2] {
			_, err := s.Settle(ctx, sys, now, []store.Outcome{{
				ID: m.ID, Epoch: m.Epoch, Writer: delivery.BySend, Status: delivery.StatusSent,
			}})
			require.NoError(t, err)
		}
	}
	k.file, err = os.ReadFile(filepath.Join(dir, "msgctl.db"))
	require.NoError(t, err)
	k.wal, err = os.ReadFile(filepath.Join(dir, "msgctl.db-wal"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	k.commits = commits(k.wal)
	require.Greater(t, len(k.commits), 60)
	k.end = k.commits[len(k.commits)-1]
	return k
}

// The sizes of a write-ahead log (sqlite.org/fileformat2.html, section 4.1).
const (
	walHeader   = 32
	frameHeader = 24
)

// commits returns the offsets behind the frames that end a transaction.
func commits(wal []byte) (ends []int) {
	frame := frameHeader + int(binary.BigEndian.Uint32(wal[8:]))
	salts := wal[16:24]
	for at := walHeader; at+frame <= len(wal) && bytes.Equal(wal[at+8:at+16], salts); at += frame {
		if binary.BigEndian.Uint32(wal[at+4:]) != 0 { // the size of the database after the commit
			ends = append(ends, at+frame)
		}
	}
	return ends
}

// open puts the store with another log on the disk, looks at it in every way and returns how many of the acknowledged
// messages it has: the first ones, or it is wrong.
func (k killedStore) open(t *testing.T, wal []byte) (survivors int) {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "msgctl.db")
	require.NoError(t, os.WriteFile(path, k.file, 0o600))
	require.NoError(t, os.WriteFile(path+"-wal", wal, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "msgctl.lock"), []byte("1\n"), 0o600)) // of the killed process
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: dir})
	require.NoError(t, err)
	gone := 0
	for i, id := range k.acked {
		_, err := s.Message(ctx, tenant, id)
		switch {
		case err == nil:
			require.Zero(t, gone, "message %d is there, and one before it is not", i)
			survivors++
		default:
			require.ErrorIs(t, err, store.ErrNotFound)
			gone++
		}
	}
	r, err := s.Audit(ctx, tenant)
	if err == nil {
		require.Empty(t, r.Problems)
		require.EqualValues(t, survivors, r.Accepted)
	} else {
		require.ErrorIs(t, err, store.ErrNotFound, "the tenant itself was behind the tear")
		require.Zero(t, survivors)
	}
	require.NoError(t, s.Close())
	require.Equal(t, "ok", integrity(t, path))
	return survivors
}

// integrity has SQLite look at every page and index of a database that nobody uses.
func integrity(t *testing.T, path string) (verdict string) {
	t.Helper()
	conn, err := sqlitefile.OpenConn(path, sqlitefile.OpenReadWrite)
	require.NoError(t, err)
	err = sqlitex.ExecuteTransient(conn, "PRAGMA integrity_check(1)", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlitefile.Stmt) error { verdict = s.ColumnText(0); return nil },
	})
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	return verdict
}

// TestTornLog tears the tail of the log of a killed store. Behind the last commit nothing that was acknowledged may go;
// within it what was committed before the tear stays, and the books are right.
func TestTornLog(t *testing.T) {
	if testing.Short() {
		t.Skip("syncs a disk many times")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to repeat: -seed=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	k := newKilledStore(t)
	require.Equal(t, len(k.acked), k.open(t, k.wal[:k.end]))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	behind := map[string]func() []byte{ // what a crash may leave behind the last commit
		"noise":             func() []byte { return noise(1 + rnd.IntN(20_000)) },
		"half of a frame":   func() []byte { return k.wal[walHeader : walHeader+1+rnd.IntN(8000)] },
		"frames, once more": func() []byte { return k.wal[walHeader:k.commits[rnd.IntN(3)]] },
		"a frame of the same log whose page is noise": func() []byte {
			return slices.Concat(k.wal[k.commits[0]:k.commits[0]+frameHeader], noise(8192))
		},
		"zeros": func() []byte { return make([]byte, 1+rnd.IntN(20_000)) },
	}
	for name, tail := range behind {
		for n := range 2 {
			t.Run(fmt.Sprintf("behind the last commit/%s/%d", name, n), func(t *testing.T) {
				require.Equal(t, len(k.acked), k.open(t, slices.Concat(k.wal[:k.end], tail())))
			})
		}
	}
	// Within the last commits what the tear hits is gone, as on a disk that forgot a sync; what came before it is not.
	least := func(at int) int { // commits that must survive a tear at an offset
		n, _ := slices.BinarySearch(k.commits, at+1)
		return n
	}
	kept := make([]int, len(k.commits)+1)
	for i := range kept {
		kept[i] = -1
	}
	whole := func(t *testing.T, commits int) int {
		if kept[commits] < 0 {
			end := walHeader
			if commits > 0 {
				end = k.commits[commits-1]
			}
			kept[commits] = k.open(t, k.wal[:end])
		}
		return kept[commits]
	}
	for n := range 10 {
		from := k.commits[len(k.commits)-20]
		at := from + rnd.IntN(k.end-from)
		t.Run(fmt.Sprintf("within the last commits/cut/%d", n), func(t *testing.T) {
			require.Equal(t, whole(t, least(at)), k.open(t, k.wal[:at]))
		})
		t.Run(fmt.Sprintf("within the last commits/flipped/%d", n), func(t *testing.T) {
			wal := slices.Clone(k.wal)
			wal[at] ^= byte(1 + rnd.IntN(255))
			require.Equal(t, whole(t, least(at)), k.open(t, wal))
		})
	}
}
