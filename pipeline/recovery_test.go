package pipeline_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// crashImage copies what a process killed at this moment would leave on the disk. The store is only read meanwhile: the
// attempts stand still.
func crashImage(t *testing.T, dir string) string {
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	require.NoError(t, os.WriteFile(filepath.Join(to, "msgctl.lock"), nil, 0o600))
	return to
}

func TestAfterAKill(t *testing.T) {
	release := make(chan struct{})
	var release1 sync.Once
	started := make(chan struct{}, 100)
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		started <- struct{}{}
		<-release
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, nil)
	t.Cleanup(func() { release1.Do(func() { close(release) }) })
	ids := r.accept(100, nil)
	for range r.acct.Parallel {
		<-started
	}
	image := crashImage(t, r.dir)
	inDoubt := map[delivery.MessageID]bool{}
	for _, m := range f.sends() {
		inDoubt[m.ID] = true
	}
	require.Len(t, inDoubt, r.acct.Parallel)

	// The next process finds all of it and marks exactly those whose attempt had begun.
	after := &fake{}
	next := &rig{t: t, dir: image, clock: r.clock, ids: r.ids, fake: after, kind: r.kind}
	next.acct = r.copyAccount()
	next.acct.Connector = after
	next.open()
	next.start()
	t.Cleanup(next.close)
	next.await(ids, delivery.StatusSent)
	require.Len(t, after.sends(), 100)
	for _, id := range ids {
		m, err := next.store.Message(context.Background(), tenant, id)
		require.NoError(t, err)
		require.Equal(t, inDoubt[id], m.PossibleDuplicate, "%s", id)
	}
	next.audited()
	release1.Do(func() { close(release) })
}

func TestAnAnswerHeardBeforeAKillCounts(t *testing.T) {
	hold := make(chan struct{})
	var once sync.Once
	var mu sync.Mutex
	n := 0
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		mu.Lock()
		n++
		mine := n
		mu.Unlock()
		if mine > 50 {
			<-hold
		}
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, nil)
	t.Cleanup(func() { once.Do(func() { close(hold) }) })
	ids := r.accept(60, nil)
	require.Eventually(t, func() bool { return len(f.sends()) == 58 }, patience, tick) // 50 answered, 8 stand still
	image := crashImage(t, r.dir)

	after := &fake{}
	next := &rig{t: t, dir: image, clock: r.clock, ids: r.ids, fake: after, kind: r.kind}
	next.acct = r.copyAccount()
	next.acct.Connector = after
	next.open()
	next.start()
	t.Cleanup(next.close)
	next.await(ids, delivery.StatusSent)
	require.Len(t, after.sends(), 10, "what was answered is not sent again")
	next.audited()
	once.Do(func() { close(hold) })
}

// A provider whose receipts bring our token back says by itself what became of an attempt: a kill must not make the
// next process send again before that provider had its time.
func TestADoubtAfterAKillWaitsForTheReceipt(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	started := make(chan delivery.MessageID, 100)
	f := &fake{answer: func(m *delivery.Outgoing, _ int) (delivery.Sent, error) {
		started <- m.ID
		<-release
		return delivery.Sent{ProviderID: m.ID.String()}, nil
	}}
	r := newRig(t, clockwork.NewRealClock(), f, func(r *rig) { r.kind.Ambiguity = connectors.Correlate })
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	ids := r.accept(20, nil)
	inDoubt := map[delivery.MessageID]bool{}
	for range r.acct.Parallel {
		inDoubt[<-started] = true
	}
	image := crashImage(t, r.dir)

	after := &fake{}
	next := &rig{t: t, dir: image, clock: r.clock, ids: r.ids, fake: after, kind: r.kind}
	next.acct = r.copyAccount()
	next.acct.Connector = after
	next.open()
	next.start()
	t.Cleanup(next.close)
	for _, id := range ids {
		want := delivery.StatusSent
		if inDoubt[id] {
			want = delivery.StatusAmbiguous
		}
		next.await([]delivery.MessageID{id}, want)
	}
	require.Len(t, after.sends(), len(ids)-len(inDoubt))
	next.audited()
	once.Do(func() { close(release) })
}
