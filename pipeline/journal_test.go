package pipeline

import (
	"errors"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

func claimed(n byte) *passage {
	m := &passage{Claimed: store.Claimed{ID: delivery.MessageID{15: n}, Epoch: int(n)}}
	m.account = &routing.Account{ID: delivery.AccountID{n}}
	m.outcome = store.Outcome{ID: m.ID, Epoch: m.Epoch, Status: delivery.StatusSent, ProviderID: "p"}
	return m
}

func TestJournalTellsWhatWasBegunAndWhatEnded(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	begun, ended := claimed(1), claimed(2)
	require.NoError(t, j.begin(begun))
	require.NoError(t, j.begin(ended))
	j.end(ended)

	again, err := openJournal(dir)
	require.NoError(t, err)
	p, err := again.read()
	require.NoError(t, err)
	require.False(t, p.torn)
	require.Equal(t, map[attemptKey]delivery.AccountID{{begun.ID, 1}: {1}, {ended.ID, 2}: {2}}, p.begun)
	require.Equal(t, map[attemptKey]store.Outcome{{ended.ID, 2}: ended.outcome}, p.ended)
	require.NoError(t, p.forget())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.NoError(t, j.close())
}

func TestJournalFilesGoWhenTheirAttemptsAreSettled(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	old := claimed(1)
	require.NoError(t, j.begin(old))
	j.cur.size = segmentSize
	next := claimed(2)
	require.NoError(t, j.begin(next))
	count := func() int {
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(files)
	}
	require.Equal(t, 2, count())
	j.end(old)
	j.settled(old)
	require.Equal(t, 1, count())
	j.end(next)
	j.settled(next)
	require.NoError(t, j.close())
	require.Zero(t, count())
}

func TestTornOrForeignJournalProvesNothing(t *testing.T) {
	boot := []byte("this boot")
	whole := appendRecord(nil, recBoot, delivery.MessageID{}, 0, boot)
	whole = appendRecord(whole, recBegin, delivery.MessageID{1}, 7, make([]byte, 16))
	read := func(b []byte, boot string) past {
		p := newPast()
		if err := p.parse(b, []byte(boot)); err != nil {
			p.torn = true
		}
		return p
	}
	require.False(t, read(whole, "this boot").torn)
	require.True(t, read(whole, "another boot").torn, "the machine may have lost records")
	for cut := 1; cut < len(whole); cut++ {
		if cut != recHead+len(boot) { // between two records
			require.True(t, read(whole[:cut], "this boot").torn, "cut at %d", cut)
		}
	}
	for i := range whole {
		bad := append([]byte(nil), whole...)
		bad[i] ^= 0x40
		require.True(t, read(bad, "this boot").torn, "byte %d", i)
	}
}

func FuzzJournal(f *testing.F) {
	b := appendRecord(nil, recBoot, delivery.MessageID{}, 0, []byte("boot"))
	b = appendRecord(b, recBegin, delivery.MessageID{1}, 7, make([]byte, 16))
	b = appendRecord(b, recEnd, delivery.MessageID{1}, 7, []byte(`{"ProviderID":"p"}`))
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		p := newPast()
		_ = p.parse(b, []byte("boot"))
	})
}

// full is a disk that takes half of what is written while it is full.
type full struct {
	*os.File
	now, stays bool // full; it cannot even be made shorter
}

func (f *full) Write(b []byte) (int, error) {
	if !f.now {
		return f.File.Write(b)
	}
	n, err := f.File.Write(b[:len(b)/2])
	return n, errors.Join(err, syscall.ENOSPC)
}

func (f *full) Truncate(size int64) error {
	if f.stays {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

func TestAFullDiskHidesNoLaterRecord(t *testing.T) {
	for name, stays := range map[string]bool{"cut off": false, "left for a new file": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, err := openJournal(dir)
			require.NoError(t, err)
			require.NoError(t, j.begin(claimed(1)))
			disk := &full{File: j.cur.file.(*os.File), now: true, stays: stays}
			j.cur.file = disk
			refused := claimed(2)
			require.ErrorIs(t, j.begin(refused), syscall.ENOSPC)
			require.Nil(t, refused.journal)
			disk.now = false
			next := claimed(3)
			require.NoError(t, j.begin(next))
			j.end(next)

			again, err := openJournal(dir)
			require.NoError(t, err)
			p, err := again.read()
			require.NoError(t, err)
			require.Equal(t, stays, p.torn)
			require.Equal(t, map[attemptKey]delivery.AccountID{claimed(1).key(): {1}, next.key(): {3}}, p.begun)
			require.Equal(t, map[attemptKey]store.Outcome{next.key(): next.outcome}, p.ended)
			require.NoError(t, j.close())
			require.ErrorIs(t, j.begin(claimed(4)), errOver, "nothing begins after the end")
			require.NoError(t, again.close())
		})
	}
}

// Every field of an outcome must come back from the journal: after a kill it is settled from there.
func TestAnOutcomeSurvivesTheJournal(t *testing.T) {
	m := claimed(1)
	m.outcome = store.Outcome{
		ID: m.ID, Epoch: m.Epoch, Writer: delivery.BySend, Status: delivery.StatusDeferred, Account: delivery.AccountID{9},
		ProviderID: "p\x00\u2028<>&", IndexProviderID: true, Reason: "451", Detail: "später “x”", Attempted: true, Duplicate: true,
		Until: time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC), Suppress: true, Segments: 3,
		NextLeg: true, Route: "rule 2: +91", Content: "otp v3", From: delivery.StatusSending,
	}
	for v, i := reflect.ValueOf(m.outcome), 0; i < v.NumField(); i++ {
		require.False(t, v.Field(i).IsZero(), "field %s is not tried", v.Type().Field(i).Name)
	}
	dir := t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	require.NoError(t, j.begin(m))
	j.end(m)
	again, err := openJournal(dir)
	require.NoError(t, err)
	p, err := again.read()
	require.NoError(t, err)
	require.Equal(t, m.outcome, p.ended[m.key()])
	require.NoError(t, j.close())
}
