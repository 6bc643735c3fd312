package postgres_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func TestCampaignWithManyMessagesMovesInBoundedTransactions(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	now := time.Now().Truncate(time.Millisecond)
	ids := idsAt(now)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme", CreatedAt: now}))
	c := store.Campaign{ID: ids.Campaign(), Name: "big", CreatedAt: now}
	require.NoError(t, s.CreateCampaign(bg, "acme", c))
	const people = 6000
	c.People = people
	move := func(to store.CampaignState, from ...store.CampaignState) {
		t.Helper()
		_, err := s.MoveCampaign(bg, "acme", c, from, to, now)
		require.NoError(t, err)
	}
	move(store.CampaignRunning, store.CampaignDraft)
	for at := int64(0); at < people; at += 1000 {
		_, err := s.Expand(bg, "acme", c.ID, store.Slice{Now: now, From: at, To: at + 1000, Done: at+1000 == people,
			Messages: newMessages(ids, now, 1000)})
		require.NoError(t, err)
	}
	most := func() int { // how many messages one transaction has changed
		return scoped[int](t, connect(t, db.Admin), "", `SELECT max(n)::int FROM
			(SELECT count(*) AS n FROM messages GROUP BY xmin) x`)[0]
	}
	tally := func(status delivery.Status) {
		t.Helper()
		got, err := s.Tally(bg, "acme", c.ID)
		require.NoError(t, err)
		require.Equal(t, store.Tally{delivery.SMS: {status: people}}, got)
		require.Empty(t, scoped[int64](t, connect(t, db.Admin), "", `SELECT n FROM campaigns WHERE moving`))
	}
	move(store.CampaignPaused, store.CampaignRunning)
	tally(delivery.StatusHeld)
	require.LessOrEqual(t, most(), 512)
	move(store.CampaignRunning, store.CampaignPaused)
	tally(delivery.StatusQueued)

	// Acceptances get their turn while it stops.
	var wg sync.WaitGroup
	var stopped error
	wg.Go(func() {
		_, stopped = s.MoveCampaign(bg, "acme", c, []store.CampaignState{store.CampaignRunning}, store.CampaignStopped, now)
	})
	for range 20 {
		_, err := s.Accept(bg, "acme", store.Acceptance{Now: now, Messages: newMessages(ids, now, 1)})
		require.NoError(t, err)
	}
	wg.Wait()
	require.NoError(t, stopped)
	tally(delivery.StatusCanceled)
	clean(t, s, "acme")
}

// A move that a process did not finish is finished by the next one.
func TestUnfinishedMoveIsTakenUp(t *testing.T) {
	db := database(t)
	s := openAt(t, db.App)
	now := time.Now().Truncate(time.Millisecond)
	ids := idsAt(now)
	require.NoError(t, s.CreateTenant(bg, sys, store.Tenant{ID: "acme", CreatedAt: now}))
	c := store.Campaign{ID: ids.Campaign(), Name: "c", CreatedAt: now, People: 10}
	require.NoError(t, s.CreateCampaign(bg, "acme", c))
	_, err := s.MoveCampaign(bg, "acme", c, []store.CampaignState{store.CampaignDraft}, store.CampaignRunning, now)
	require.NoError(t, err)
	_, err = s.Expand(bg, "acme", c.ID, store.Slice{Now: now, To: 10, Done: true, Messages: newMessages(ids, now, 10)})
	require.NoError(t, err)
	_, err = connect(t, db.Admin).Exec(bg, `UPDATE campaigns SET state = 'paused', moving = true`)
	require.NoError(t, err)
	again, err := s.MoveCampaign(bg, "acme", c, []store.CampaignState{store.CampaignRunning}, store.CampaignPaused, now)
	require.NoError(t, err, "the same move again goes on with it")
	require.Equal(t, store.CampaignPaused, again.State)
	tally, err := s.Tally(bg, "acme", c.ID)
	require.NoError(t, err)
	require.Equal(t, store.Tally{delivery.SMS: {delivery.StatusHeld: 10}}, tally)

	_, err = connect(t, db.Admin).Exec(bg, `UPDATE campaigns SET state = 'stopped', moving = true`)
	require.NoError(t, err)
	next := openAt(t, db.App)
	require.Eventually(t, func() bool {
		tally, err := next.Tally(bg, "acme", c.ID)
		return err == nil && tally[delivery.SMS][delivery.StatusCanceled] == 10
	}, patience, beat)
	clean(t, s, "acme")
}

// A node may die in the middle of a resume, and no other ever start again: what is still held would wait for a year.
func TestTheOtherNodesFinishAMoveToo(t *testing.T) {
	db := smallDatabase(t)
	one, two := openAt(t, db.App), openAt(t, db.App)
	w := newWorld(t, one)
	w.tenant("acme")
	c := store.Campaign{ID: w.ids.Campaign(), Name: "c", CreatedAt: w.now, People: 10}
	require.NoError(t, one.CreateCampaign(bg, "acme", c))
	move := func(from, to store.CampaignState) {
		t.Helper()
		_, err := one.MoveCampaign(bg, "acme", c, []store.CampaignState{from}, to, w.now)
		require.NoError(t, err)
	}
	move(store.CampaignDraft, store.CampaignRunning)
	_, err := one.Expand(bg, "acme", c.ID, store.Slice{Now: w.now, To: 10, Done: true, Messages: w.batch(10)})
	require.NoError(t, err)
	move(store.CampaignRunning, store.CampaignPaused)
	// The state is changed in a transaction of its own: here the node died after it.
	_, err = connect(t, db.Admin).Exec(bg, `UPDATE campaigns SET state = 'running', moving = true`)
	require.NoError(t, err)
	require.NoError(t, two.FinishMoves())
	tally, err := two.Tally(bg, "acme", c.ID)
	require.NoError(t, err)
	require.Equal(t, store.Tally{delivery.SMS: {delivery.StatusQueued: 10}}, tally)
	booksAreRight(t, two, "acme")
}

// Every node wakes what a rate has held of a campaign that was paused: that must not mean to lock all that waits of it.
func TestAWakeOfACampaignLooksAtWhatIsHeldOnly(t *testing.T) {
	db := smallDatabase(t)
	s := openAt(t, db.App)
	w := newWorld(t, s)
	w.tenant("acme")
	c := store.Campaign{ID: w.ids.Campaign(), Name: "c", CreatedAt: w.now, People: 3000}
	require.NoError(t, s.CreateCampaign(bg, "acme", c))
	_, err := s.MoveCampaign(bg, "acme", c, []store.CampaignState{store.CampaignDraft}, store.CampaignRunning, w.now)
	require.NoError(t, err)
	var ids []delivery.MessageID
	for from := int64(0); from < 3000; from += 1000 {
		ms := w.batch(1000)
		ids = append(ids, ms[0].ID)
		_, err := s.Expand(bg, "acme", c.ID, store.Slice{Now: w.now, From: from, To: from + 1000, Messages: ms})
		require.NoError(t, err)
	}
	var held []store.Outcome
	for _, m := range w.claim("a", ids) {
		held = append(held, store.Outcome{ID: m.ID, Epoch: m.Epoch, Writer: delivery.BySend, Status: delivery.StatusHeld,
			Reason: "rate_limited", Until: w.now.Add(time.Hour)})
	}
	w.settle(held)
	before := s.Trips()
	n, err := s.Wake(bg, sys, w.now, store.Held{Reason: "rate_limited", Campaign: c.ID})
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.LessOrEqual(t, s.Trips()-before, int64(4))
	booksAreRight(t, s, "acme")
}
