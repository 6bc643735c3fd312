package campaigns

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func TestOfManyStartsOneWins(t *testing.T) {
	b := setup(t)
	b.addCampaign("c", 10)
	const starters = 8
	errs := make([]error, starters)
	var wg sync.WaitGroup
	for i := range starters {
		wg.Go(func() { _, errs[i] = b.Start(t.Context(), acme, "c") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		var state *StateError
		require.ErrorAs(t, err, &state)
		require.Equal(t, StateError{"start", store.CampaignRunning, []string{"pause", "stop"}}, *state)
		require.Equal(t, "cannot start a campaign that is running; possible now: pause, stop", err.Error())
	}
	require.Equal(t, 1, won)
}

func TestPauseAndResumeAHundredTimes(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 7000)
	b.MaxWaiting = 600
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
	for i := range 100 {
		b.round(t.Context(), turns, &turn)
		_, err = b.Pause(t.Context(), acme, "c")
		require.NoError(t, err)
		before := b.report(t, "c")
		require.Equal(t, before.Waiting, before.ByStatus[delivery.StatusHeld], "all that waits is held")
		b.round(t.Context(), turns, &turn)
		b.store.send(c.ID)
		require.Equal(t, before, b.report(t, "c"), "nothing moves while paused")
		_, err = b.Pause(t.Context(), acme, "c")
		var state *StateError
		require.ErrorAs(t, err, &state)
		require.Equal(t, []string{"resume", "stop"}, state.Actions)
		_, err = b.Resume(t.Context(), acme, "c")
		require.NoError(t, err)
		if i%10 == 0 {
			b.store.send(c.ID)
		}
	}
	require.Len(t, b.paused, 200)
	require.Equal(t, []string{"true", "false"}, b.paused[:2])
	for b.report(t, "c").Campaign.State != store.CampaignCompleted {
		b.drive(t.Context())
		b.store.send(c.ID)
	}
	requireOnce(t, b.store, c)
}

func TestStopCancelsWhatWaits(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 3000)
	b.MaxWaiting = 1000
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	b.drive(t.Context())
	b.store.send(c.ID)
	b.drive(t.Context())
	_, err = b.Stop(t.Context(), acme, "c")
	require.NoError(t, err)
	b.drive(t.Context())
	r := b.report(t, "c")
	require.Equal(t, map[delivery.Status]int{delivery.StatusSent: 1000, delivery.StatusCanceled: 1000}, r.ByStatus)
	require.Equal(t, 1000, r.ToExpand)
	require.Equal(t, []string{"true"}, b.paused)
	for _, act := range []func() error{
		func() error { _, err := b.Start(t.Context(), acme, "c"); return err },
		func() error { _, err := b.Pause(t.Context(), acme, "c"); return err },
		func() error { _, err := b.Resume(t.Context(), acme, "c"); return err },
		func() error { _, err := b.Stop(t.Context(), acme, "c"); return err },
	} {
		var state *StateError
		require.ErrorAs(t, act(), &state)
		require.Empty(t, state.Actions)
	}
	_, err = b.Stop(t.Context(), acme, "nobody")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = b.Start(t.Context(), "globex", "c")
	require.ErrorIs(t, err, store.ErrNotFound, "another tenant's campaign does not exist")
}

func TestATemplateEditedMidRunKeepsItsVersion(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 1200)
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	b.round(t.Context(), map[delivery.CampaignID]uint64{}, new(uint64))
	b.store.templates["hi"] = append(b.store.templates["hi"],
		store.Template{Name: "hi", Channel: delivery.SMS, Version: 2, Text: "Other"})
	b.drive(t.Context())
	require.Len(t, b.store.messages, 1200)
	for _, m := range b.store.messages {
		require.True(t, strings.HasPrefix(string(m.Payload), `{"template":"hi","version":1,`))
	}
	requireOnce(t, b.store, c)
}

func TestAnAudienceInUseIsNotDeleted(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("c", 1200)
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	require.ErrorIs(t, b.DeleteAudience(t.Context(), acme, c.Audience), store.ErrConflict)
	_, err = b.Stop(t.Context(), acme, "c")
	require.NoError(t, err)
	require.NoError(t, b.DeleteAudience(t.Context(), acme, c.Audience))
}

func TestEveryProblemKeepsACampaignFromStarting(t *testing.T) {
	for _, tc := range []struct {
		code   string
		breaks func(b *bundle, c *store.Campaign)
	}{
		{ProblemNoLegs, func(_ *bundle, c *store.Campaign) { c.Legs = nil }},
		{ProblemTwoLegs, func(_ *bundle, c *store.Campaign) { c.Legs = append(c.Legs, c.Legs[0]) }},
		{ProblemTemplateMissing, func(_ *bundle, c *store.Campaign) { c.Legs[0].Template = "none" }},
		{ProblemTemplateMissing, func(_ *bundle, c *store.Campaign) { c.Legs[0].Version = 9 }},
		{ProblemTemplateChannel, func(b *bundle, c *store.Campaign) {
			c.Legs[0].Channel = delivery.Email
			b.store.accounts[0].Channel = delivery.Email
		}},
		{ProblemTemplateInvalid, func(b *bundle, _ *store.Campaign) { b.store.templates["hi"][0].Text = "{% if" }},
		{ProblemAccountMissing, func(b *bundle, _ *store.Campaign) { b.store.accounts = nil }},
		{ProblemAccountMissing, func(_ *bundle, c *store.Campaign) { c.Legs[0].Account = "none" }},
		{ProblemAccountChannel, func(b *bundle, c *store.Campaign) {
			b.store.accounts = append(b.store.accounts, store.Account{Name: "mail", Channel: delivery.Email})
			c.Legs[0].Account = "mail"
		}},
		{ProblemAudienceMissing, func(_ *bundle, c *store.Campaign) { c.Audience = "none" }},
		{ProblemAudienceNotReady, func(b *bundle, c *store.Campaign) { b.store.audiences[c.Audience].Ready = false }},
		{ProblemAudienceEmpty, func(b *bundle, c *store.Campaign) { b.store.audiences[c.Audience].People = 0 }},
	} {
		t.Run(tc.code, func(t *testing.T) {
			b := setup(t)
			c := b.addCampaign("c", 3)
			tc.breaks(b, c)
			_, err := b.Start(t.Context(), acme, "c")
			var blocked *BlockedError
			require.ErrorAs(t, err, &blocked)
			require.Len(t, blocked.Problems, 1)
			require.Equal(t, tc.code, blocked.Problems[0].Code)
			require.Equal(t, store.CampaignDraft, c.State)
			check, err := b.Check(t.Context(), acme, "c")
			require.NoError(t, err)
			require.Equal(t, blocked.Problems[0], check.Problems[0])
		})
	}
}

func TestReportOfADraft(t *testing.T) {
	b := setup(t)
	b.addCampaign("c", 3)
	r := b.report(t, "c")
	require.Equal(t, 3, r.People)
	require.Equal(t, 3, r.ToExpand)
}

func TestSumsFindsWhatDoesNotAddUp(t *testing.T) {
	good := func() Report {
		return Report{Campaign: store.Campaign{State: store.CampaignRunning}, People: 10, Accepted: 6, Waiting: 2, ToExpand: 1,
			Skipped:  map[string]int{"no_address": 3},
			ByStatus: map[delivery.Status]int{delivery.StatusSent: 4, delivery.StatusHeld: 2}}
	}
	require.NoError(t, good().Sums())
	for name, spoil := range map[string]func(r *Report){
		"people":       func(r *Report) { r.People++ },
		"accepted":     func(r *Report) { r.Accepted++; r.People++ },
		"status":       func(r *Report) { r.ByStatus[delivery.StatusSent]-- },
		"waiting":      func(r *Report) { r.Waiting-- },
		"skipped":      func(r *Report) { r.Skipped["no_address"]++ },
		"to expand":    func(r *Report) { r.ToExpand = -1; r.People = 8 },
		"expanded":     func(r *Report) { r.Campaign.Expanded = true },
		"completed":    func(r *Report) { r.Campaign.State = store.CampaignCompleted },
		"not a status": func(r *Report) { r.ByStatus[delivery.StatusRead] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			spoil(&r)
			require.Error(t, r.Sums())
		})
	}
}

func TestDefaultTTL(t *testing.T) {
	b := setup(t)
	b.addCampaign("c", 1).TTL = 0
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	b.drive(t.Context())
	require.Equal(t, b.clock.Now().Add(24*time.Hour), b.store.messages[0].ExpiresAt)
}
