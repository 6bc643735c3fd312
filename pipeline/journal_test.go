package pipeline

import (
	"os"
	"testing"

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
