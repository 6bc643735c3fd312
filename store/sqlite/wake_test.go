package sqlite

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// bigCampaign starts a campaign with more messages than one transaction moves.
func bigCampaign(t *testing.T, s *Store, now time.Time) store.Campaign {
	t.Helper()
	ids := delivery.NewIDs(func() time.Time { return now })
	c := store.Campaign{ID: ids.Campaign(), Name: "big", CreatedAt: now, People: 3 * wakeChunk}
	require.NoError(t, s.CreateCampaign(t.Context(), "acme", c))
	move(t, s, c, store.CampaignDraft, store.CampaignRunning, now)
	for at := 0; at < c.People; at += wakeChunk {
		slice := store.Slice{Now: now, From: int64(at), To: int64(at + wakeChunk)}
		for range wakeChunk {
			slice.Messages = append(slice.Messages, message(ids))
		}
		_, err := s.Expand(t.Context(), "acme", c.ID, slice)
		require.NoError(t, err)
	}
	return c
}

func move(t *testing.T, s *Store, c store.Campaign, from, to store.CampaignState, now time.Time) {
	t.Helper()
	_, err := s.MoveCampaign(t.Context(), "acme", c, []store.CampaignState{from}, to, now)
	require.NoError(t, err)
}

func statusOf(t *testing.T, s *Store, c store.Campaign) map[delivery.Status]int {
	t.Helper()
	tally, err := s.Tally(t.Context(), "acme", c.ID)
	require.NoError(t, err)
	return tally[delivery.SMS]
}

// stopHalfway puts a campaign where a process that stopped in the middle of a move leaves it: its state is the new one,
// and of its messages only the first chunk has followed.
func stopHalfway(t *testing.T, s *Store, c store.Campaign, to store.CampaignState, now time.Time) {
	t.Helper()
	_, err := write(t.Context(), s, 1, func(tx *tx) (struct{}, error) {
		row, err := tx.campaignByID(c.ID)
		if err != nil {
			return struct{}{}, err
		}
		row.state = to
		if err := tx.exec(`UPDATE campaigns SET state = ? WHERE n = ?`, string(to), row.n); err != nil {
			return struct{}{}, err
		}
		out, err := tx.moveSome(row, delivery.MessageID{}, now)
		require.False(t, out.done)
		return struct{}{}, err
	})
	require.NoError(t, err)
}

func TestAMoveThatWasCutOffIsFinished(t *testing.T) {
	now := time.UnixMilli(1_780_000_000_000)
	all := 3 * wakeChunk
	for _, again := range []string{"by the next start", "by the same call"} {
		t.Run(again, func(t *testing.T) {
			dir := t.TempDir()
			open := func() *Store {
				s, err := Open(t.Context(), Options{Dir: dir, Now: func() time.Time { return now }})
				require.NoError(t, err)
				t.Cleanup(func() { _ = s.Close() })
				return s
			}
			s := open()
			require.NoError(t, s.CreateTenant(t.Context(), store.AsSystem("test"), store.Tenant{ID: "acme"}))
			c := bigCampaign(t, s, now)
			finish := func(to store.CampaignState) {
				if again == "by the same call" {
					move(t, s, c, store.CampaignCompleted, to, now) // from a state that it is not in: it need not be
					return
				}
				require.NoError(t, s.Close())
				s = open()
				s.background.Wait()
			}
			stopHalfway(t, s, c, store.CampaignPaused, now)
			require.Equal(t, map[delivery.Status]int{delivery.StatusHeld: wakeChunk, delivery.StatusQueued: 2 * wakeChunk},
				statusOf(t, s, c))
			finish(store.CampaignPaused)
			require.Equal(t, map[delivery.Status]int{delivery.StatusHeld: all}, statusOf(t, s, c))
			stopHalfway(t, s, c, store.CampaignRunning, now)
			finish(store.CampaignRunning)
			require.Equal(t, map[delivery.Status]int{delivery.StatusQueued: all}, statusOf(t, s, c))
			stopHalfway(t, s, c, store.CampaignStopped, now)
			finish(store.CampaignStopped)
			require.Equal(t, map[delivery.Status]int{delivery.StatusCanceled: all}, statusOf(t, s, c))
			left, err := unfinishedMoves(s.writer.conn) // the writer is idle
			require.NoError(t, err)
			require.Empty(t, left, "nothing is left to be finished")
			r, err := s.Audit(t.Context(), "acme")
			require.NoError(t, err)
			require.Empty(t, r.Problems)
		})
	}
}

// A move, a wake and their like take their turn with everybody else, a bounded number of messages at a time.
func TestManyMessagesMoveInManyTransactions(t *testing.T) {
	now := time.UnixMilli(1_780_000_000_000)
	s := testStore(t)
	c := bigCampaign(t, s, now)
	before := ledgerRows(t, s)
	move(t, s, c, store.CampaignRunning, store.CampaignPaused, now)
	require.GreaterOrEqual(t, ledgerRows(t, s)-before, 3, "a transaction writes at least a ledger row of its own")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.MoveCampaign(ctx, "acme", c, []store.CampaignState{store.CampaignPaused}, store.CampaignRunning, now)
	require.ErrorIs(t, err, context.Canceled, "before it begins")
	require.Equal(t, map[delivery.Status]int{delivery.StatusHeld: 3 * wakeChunk}, statusOf(t, s, c))
}

func ledgerRows(t *testing.T, s *Store) (n int) {
	t.Helper()
	conn := <-s.pool.free
	defer func() { s.pool.free <- conn }()
	require.NoError(t, query(conn, `SELECT count(*) FROM ledger`,
		func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil }))
	return n
}

// A campaign that is moved on while it is being moved ends where the last call put it.
func TestMovesThatMeet(t *testing.T) {
	now := time.UnixMilli(1_780_000_000_000)
	s := testStore(t)
	c := bigCampaign(t, s, now)
	stopHalfway(t, s, c, store.CampaignPaused, now)
	move(t, s, c, store.CampaignPaused, store.CampaignRunning, now)
	require.NoError(t, s.takeAlong(t.Context(), c.ID, store.CampaignPaused, delivery.MessageID{}, now),
		"the first goes on")
	require.Equal(t, map[delivery.Status]int{delivery.StatusQueued: 3 * wakeChunk}, statusOf(t, s, c))
}

func TestPressureIsTheWaitOfTheOldestWrite(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1_780_000_000_000)
	s, err := Open(t.Context(), Options{Dir: t.TempDir(), Now: func() time.Time { return time.UnixMilli(clock.Load()) }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.Zero(t, s.Pressure(), "idle")
	release := stall(t, s)
	require.Zero(t, s.Pressure(), "the op that runs does not wait")
	ctx, cancel := context.WithCancel(t.Context())
	check := func(ctx context.Context) func() error {
		return func() error {
			_, err := write(ctx, s, 1, func(*tx) (struct{}, error) { return struct{}{}, nil })
			return err
		}
	}
	first := queue(s, check(ctx))
	clock.Add(1000)
	rest := queue(s, check(t.Context()), check(t.Context()))
	clock.Add(1000)
	require.Equal(t, 2*time.Second, s.Pressure())
	cancel()
	require.ErrorIs(t, first()[0], context.Canceled)
	require.Equal(t, time.Second, s.Pressure(), "who gives up waits no more")
	release()
	for _, err := range rest() {
		require.NoError(t, err)
	}
	require.Zero(t, s.Pressure())
}
