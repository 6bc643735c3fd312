package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
)

var (
	backupSys = store.AsSystem("backup test")
	noon      = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// rig is a store with a clock that stands still and the tenant acme.
type rig struct {
	*testing.T
	dir string
	s   *sqlite.Store
	ids *delivery.IDs
}

func newRig(t *testing.T) *rig {
	k := &rig{T: t, dir: t.TempDir(), ids: delivery.NewIDs(func() time.Time { return noon })}
	var err error
	k.s, err = sqlite.Open(t.Context(), sqlite.Options{Dir: k.dir, Now: func() time.Time { return noon }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, k.s.Close()) })
	require.NoError(t, k.s.CreateTenant(t.Context(), backupSys, store.Tenant{ID: "acme", CreatedAt: noon,
		DataKey: []byte("sealed")}))
	return k
}

// accept stores one SMS that is due at noon.
func (k *rig) accept(change ...func(*store.NewMessage)) delivery.MessageID {
	m := store.NewMessage{ID: k.ids.Message(), Channel: delivery.SMS, Lane: delivery.Normal, To: "+15550100",
		Payload: []byte("{}"), Segments: 1, DueAt: noon, ExpiresAt: noon.Add(time.Hour)}
	for _, f := range change {
		f(&m)
	}
	_, err := k.s.Accept(k.Context(), "acme", store.Acceptance{Now: noon, Messages: []store.NewMessage{m}})
	require.NoError(k, err)
	return m.ID
}

func (k *rig) claim(id delivery.MessageID) {
	got, err := k.s.Claim(k.Context(), backupSys, store.Claim{IDs: []delivery.MessageID{id}, Node: "node-1", Now: noon,
		Until: noon.Add(time.Minute)})
	require.NoError(k, err)
	require.Len(k, got, 1)
}

func (k *rig) settle(id delivery.MessageID, o store.Outcome) {
	o.ID, o.Epoch, o.Writer, o.Attempted = id, 1, delivery.BySend, true
	got, err := k.s.Settle(k.Context(), backupSys, noon, []store.Outcome{o})
	require.NoError(k, err)
	require.True(k, got[0].Applied)
}

func (k *rig) backup() string {
	path := filepath.Join(k.TempDir(), "backup.db")
	b, err := k.s.Backup(k.Context(), path)
	require.NoError(k, err)
	st, err := os.Stat(path)
	require.NoError(k, err)
	require.Equal(k, sqlite.Backup{Path: path, Bytes: st.Size(), Taken: noon, Messages: b.Messages}, b)
	require.Zero(k, st.Mode().Perm()&0o077, "nobody else may read it")
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(k, err)
	require.Len(k, left, 1, "one file")
	return path
}

// restored opens what a restore at the given time makes of a backup.
func (k *rig) restored(from string, at time.Time) (*sqlite.Store, sqlite.Restored) {
	dir := filepath.Join(k.TempDir(), "new")
	out, err := sqlite.Restore(k.Context(), sqlite.RestoreOptions{From: from, Dir: dir,
		Now: func() time.Time { return at }})
	require.NoError(k, err)
	left, err := filepath.Glob(filepath.Join(dir, "*.part*"))
	require.NoError(k, err)
	require.Empty(k, left)
	s := openAt(k.T, dir)
	audited(k.T, s)
	return s, out
}

func audited(t *testing.T, s store.Auditor) store.AuditReport {
	t.Helper()
	r, err := s.Audit(t.Context(), "acme")
	require.NoError(t, err)
	require.Empty(t, r.Problems)
	require.Equal(t, r.Accepted, r.Live+r.HandedOn+r.Ended)
	return r
}

// A message that may have been handed over between the backup and the restore is in doubt; every other one is as it
// was.
func TestRestoreDoubtsWhatMayHaveGone(t *testing.T) {
	k := newRig(t)
	ordered := func(m *store.NewMessage) { m.OrderingKey = "k" }
	once := func(m *store.NewMessage) { m.AtMostOnce = true }
	later := func(m *store.NewMessage) { m.DueAt = noon.Add(30 * time.Minute) }
	twoLegs := func(m *store.NewMessage) {
		m.Within = time.Minute
		m.Then = []store.NewLeg{{Channel: delivery.Email, To: "a@example.com", Payload: []byte("{}")}}
	}
	sending, doubted, delivered, deferred := k.accept(), k.accept(), k.accept(), k.accept()
	for _, id := range []delivery.MessageID{sending, doubted, delivered, deferred} {
		k.claim(id)
	}
	k.settle(doubted, store.Outcome{Status: delivery.StatusAmbiguous, Reason: "timeout", Until: noon.Add(time.Hour)})
	k.settle(delivered, store.Outcome{Status: delivery.StatusSent, Account: delivery.AccountID{7}, ProviderID: "p",
		IndexProviderID: true})
	k.settle(deferred, store.Outcome{Status: delivery.StatusDeferred, Reason: "busy", Until: noon.Add(20 * time.Minute)})
	queued, scheduled, legs, single := k.accept(), k.accept(later), k.accept(twoLegs), k.accept(once)
	first, second := k.accept(ordered), k.accept(ordered)
	other := func(m *store.NewMessage) { ordered(m); once(m); m.To = "+15550111" }
	firstOnce, secondOnce := k.accept(other), k.accept(other)
	before := audited(t, k.s)

	s, out := k.restored(k.backup(), noon.Add(10*time.Minute))
	require.Equal(t, int64(12), out.Messages)
	require.Equal(t, noon, out.Taken)
	require.Equal(t, []int{6, 1, 1}, []int{out.InDoubt, out.Marked, out.Unknown})
	is := func(id delivery.MessageID, want delivery.Status, reason string) store.Message {
		t.Helper()
		m, err := s.Message(t.Context(), "acme", id)
		require.NoError(t, err)
		require.Equal(t, want, m.Status)
		require.Equal(t, reason, m.Reason)
		return m
	}
	for _, id := range []delivery.MessageID{sending, queued, legs, single, first, firstOnce} {
		m := is(id, delivery.StatusAmbiguous, "restored")
		require.Equal(t, noon.Add(10*time.Minute), m.DueAt, "it is decided at once")
		require.Equal(t, id == sending, m.Attempts == 1, "only what was under way counts as an attempt")
	}
	is(doubted, delivery.StatusAmbiguous, "timeout")
	is(delivered, delivery.StatusSent, "")
	is(deferred, delivery.StatusDeferred, "busy")
	require.False(t, is(scheduled, delivery.StatusScheduled, "").PossibleDuplicate)
	require.True(t, is(second, delivery.StatusHeld, store.ReasonOrdered).PossibleDuplicate)
	is(secondOnce, delivery.StatusUnknown, "restored")

	// A receipt still finds its message, what was under way before the backup comes too late, and nothing in doubt is
	// claimed.
	r, err := s.Report(t.Context(), backupSys, noon, time.Hour, []delivery.Receipt{{Account: delivery.AccountID{7},
		ProviderID: "p", Status: delivery.StatusDelivered}})
	require.NoError(t, err)
	require.Equal(t, delivered, r[0].Message)
	late, err := s.Settle(t.Context(), backupSys, noon.Add(time.Hour), []store.Outcome{{ID: queued, Epoch: 0,
		Writer: delivery.BySend, Status: delivery.StatusSent}})
	require.NoError(t, err)
	require.False(t, late[0].Applied)
	got, err := s.Claim(t.Context(), backupSys, store.Claim{IDs: []delivery.MessageID{sending, queued, first, second},
		Node: "node-2", Now: noon.Add(30 * time.Minute), Until: noon.Add(time.Hour)})
	require.NoError(t, err)
	require.Empty(t, got)
	after := audited(t, s)
	require.Equal(t, before.Accepted, after.Accepted)
	tn, err := s.Tenant(t.Context(), backupSys, "acme")
	require.NoError(t, err)
	require.Equal(t, []byte("sealed"), tn.DataKey)
}

// The original is not touched by a backup: it goes on, and the same backup can be restored twice.
func TestABackupUnderLoad(t *testing.T) {
	k := newRig(t)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	begun := make(chan struct{}, 4)
	for w := range 4 {
		ids := delivery.NewIDs(func() time.Time { return noon.Add(time.Duration(w) * time.Hour) })
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, err := k.s.Accept(context.Background(), "acme", store.Acceptance{Now: noon, Messages: batchOf(ids, 5)})
				if err != nil {
					t.Errorf("accept: %v", err)
				}
				if n == 0 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-begun
	}
	acked := audited(t, k.s).Accepted
	path := k.backup()
	stop()
	group.Wait()
	total := audited(t, k.s).Accepted
	for range 2 {
		s, out := k.restored(path, noon.Add(-time.Hour))
		require.GreaterOrEqual(t, out.Messages, acked, "what was there before the backup")
		require.LessOrEqual(t, out.Messages, total)
		require.Equal(t, out.Messages, audited(t, s).Accepted)
	}
}

func TestACampaignThatWasBeingExpandedIsPaused(t *testing.T) {
	k := newRig(t)
	ctx := t.Context()
	c := store.Campaign{ID: delivery.CampaignID{1}, Name: "spring", State: store.CampaignDraft, CreatedAt: noon,
		People: 3}
	require.NoError(t, k.s.CreateCampaign(ctx, "acme", c))
	_, err := k.s.MoveCampaign(ctx, "acme", c, []store.CampaignState{store.CampaignDraft}, store.CampaignRunning, noon)
	require.NoError(t, err)
	m := store.NewMessage{ID: k.ids.Message(), Channel: delivery.SMS, Lane: delivery.Bulk, To: "+15550100",
		Payload: []byte("{}"), DueAt: noon, ExpiresAt: noon.Add(time.Hour)}
	_, err = k.s.Expand(ctx, "acme", c.ID, store.Slice{Now: noon, To: 1, Messages: []store.NewMessage{m}})
	require.NoError(t, err)
	s, out := k.restored(k.backup(), noon)
	require.Equal(t, []string{"acme/spring"}, out.Paused)
	got, err := s.Campaign(ctx, "acme", "spring")
	require.NoError(t, err)
	require.Equal(t, store.CampaignPaused, got.State)
}

func TestBackupRefuses(t *testing.T) {
	k := newRig(t)
	k.accept()
	there := filepath.Join(t.TempDir(), "there")
	require.NoError(t, os.WriteFile(there, []byte("mine"), 0o600))
	_, err := k.s.Backup(t.Context(), there)
	require.ErrorContains(t, err, "is there already, and is not overwritten")
	b, err := os.ReadFile(there)
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))

	dir := t.TempDir()
	_, err = k.s.Backup(t.Context(), filepath.Join(dir, "no", "folder"))
	require.ErrorIs(t, err, os.ErrNotExist)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = k.s.Backup(gone, filepath.Join(dir, "b"))
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b.part"), nil, 0o600))
	_, err = k.s.Backup(t.Context(), filepath.Join(dir, "b"))
	require.ErrorContains(t, err, "another backup runs, or one was cut off")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "only what was there before")
	require.NoError(t, k.s.Close())
	_, err = k.s.Backup(t.Context(), filepath.Join(dir, "c"))
	require.ErrorIs(t, err, store.ErrUnavailable)
}

func TestRestoreRefuses(t *testing.T) {
	k := newRig(t)
	for range 300 {
		k.accept()
	}
	good := k.backup()
	bytes, err := os.ReadFile(good)
	require.NoError(t, err)
	file := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	damaged := append([]byte{}, bytes...)
	for i := len(damaged) / 2; i < len(damaged)/2+8192; i++ {
		damaged[i] ^= 0x55
	}
	for _, c := range []struct{ name, from, dir, want string }{
		{"no backup", filepath.Join(t.TempDir(), "none"), "", "no such file"},
		{"a folder", t.TempDir(), "", "it is not a file"},
		{"empty", file(nil), "", "it is no backup"},
		{"not a database", file([]byte(strings.Repeat("hello ", 10_000))), "", "the file is not a database"},
		{"damaged", file(damaged), "", "damaged"},
		{"cut off", file(bytes[:len(bytes)/2]), "", "damaged"},
		{"a running engine", good, k.dir, "database in use by process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = t.TempDir()
			}
			_, err := sqlite.Restore(t.Context(), sqlite.RestoreOptions{From: c.from, Dir: dir})
			require.ErrorContains(t, err, c.want)
			if c.dir == "" {
				left, err := filepath.Glob(filepath.Join(dir, "msgctl.db*"))
				require.NoError(t, err)
				require.Empty(t, left, "nothing is left of it")
			}
		})
	}
	require.NoError(t, k.s.Close())
	_, err = sqlite.Restore(t.Context(), sqlite.RestoreOptions{From: good, Dir: k.dir})
	require.ErrorContains(t, err, "move the old database away first")
	openAt(t, k.dir)
}
