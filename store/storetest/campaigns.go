package storetest

import (
	"errors"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var draft = []store.CampaignState{store.CampaignDraft}

// campaign creates a campaign of acme for n people and starts it.
func (k *kit) campaign(name string, people int) store.Campaign {
	k.Helper()
	c := store.Campaign{ID: k.ids.Campaign(), Name: name, Audience: "diwali", Rate: 12.5, TTL: 2 * time.Hour,
		CreatedAt: k.now}
	k.ok(k.s.CreateCampaign(k.ctx, acme, c))
	c.Legs = []store.Leg{{Channel: delivery.SMS, Template: "offer", Version: 3}}
	c.People = people
	return k.moved(c, draft, store.CampaignRunning)
}

func (k *kit) moved(c store.Campaign, from []store.CampaignState, to store.CampaignState) store.Campaign {
	k.Helper()
	got, err := k.s.MoveCampaign(k.ctx, acme, c, from, to, k.now)
	k.ok(err)
	k.is(got.State, to, "state after the move")
	return got
}

// expand turns n people into messages.
func (k *kit) expand(c store.Campaign, from int64, n int, done bool) []delivery.MessageID {
	k.Helper()
	s := store.Slice{Now: k.now, From: from, To: from + int64(n), Done: done}
	var ids []delivery.MessageID
	for range n {
		m := k.draft(func(m *store.NewMessage) { m.Lane = delivery.Bulk })
		s.Messages = append(s.Messages, m)
		ids = append(ids, m.ID)
	}
	_, err := k.s.Expand(k.ctx, acme, c.ID, s)
	k.ok(err)
	return ids
}

func running(states ...store.CampaignState) []store.CampaignState { return states }

var campaignTests = []sentence{
	{"a campaign is a draft, is found by name and id, and its name is taken", func(k *kit) {
		c := store.Campaign{ID: k.ids.Campaign(), Name: "diwali", Audience: "all", Rate: 1.5, TTL: time.Hour,
			CreatedAt: k.now}
		k.ok(k.s.CreateCampaign(k.ctx, acme, c))
		k.reopen()
		for _, name := range []string{"diwali", c.ID.String()} {
			got, err := k.s.Campaign(k.ctx, acme, name)
			k.ok(err)
			k.is([]any{got.ID, got.Tenant, got.State, got.Rate, got.TTL, got.CreatedAt},
				[]any{c.ID, acme, store.CampaignDraft, 1.5, time.Hour, k.now}, "by %s", name)
			_, err = k.s.Campaign(k.ctx, other, name)
			k.fails(err, store.ErrNotFound, "for another tenant")
		}
		c.ID = k.ids.Campaign()
		k.fails(k.s.CreateCampaign(k.ctx, acme, c), store.ErrExists, "the same name")
		k.ok(k.s.CreateCampaign(k.ctx, other, c))
	}},
	{"starting stores legs, people and time, and of two starts one wins", func(k *kit) {
		c := store.Campaign{ID: k.ids.Campaign(), Name: "diwali", CreatedAt: k.now}
		k.ok(k.s.CreateCampaign(k.ctx, acme, c))
		c.Legs, c.People = []store.Leg{{Channel: delivery.SMS, Template: "offer", Version: 3}}, 10
		errs := make([]error, 2)
		got := make([]store.Campaign, 2)
		together(2, func(i int) { got[i], errs[i] = k.s.MoveCampaign(k.ctx, acme, c, draft, store.CampaignRunning, k.now) })
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
				k.is([]any{got[i].Legs, got[i].People, got[i].StartedAt}, []any{c.Legs, 10, k.now}, "the started campaign")
			} else {
				k.fails(err, store.ErrConflict, "the other start")
				k.is(got[i].State, store.CampaignRunning, "the conflict comes with the campaign as it is")
			}
		}
		k.is(won, 1, "how many starts won")
		active, err := k.s.ActiveCampaigns(k.ctx, k.sys)
		k.ok(err)
		k.is([]any{len(active), active[0].ID, active[0].Tenant}, []any{1, c.ID, acme}, "active campaigns")
	}},
	{"an expansion stores the slice and moves the cursor, or neither", func(k *kit) {
		c := k.campaign("diwali", 10)
		ids := k.expand(c, 0, 4, false)
		m := k.message(ids[0])
		k.is(m.Campaign, c.ID, "its campaign")
		twice := store.Slice{Now: k.now, From: 0, To: 4, Messages: []store.NewMessage{k.draft()}}
		_, err := k.s.Expand(k.ctx, acme, c.ID, twice)
		k.fails(err, store.ErrConflict, "the same slice again")
		_, err = k.s.Message(k.ctx, acme, twice.Messages[0].ID)
		k.fails(err, store.ErrNotFound, "its message")
		skip := store.Slice{Now: k.now, From: 4, To: 10, Skipped: map[string]int{"no_address": 6}, Done: true}
		_, err = k.s.Expand(k.ctx, acme, c.ID, skip)
		k.ok(err)
		k.reopen()
		got, err := k.s.Campaign(k.ctx, acme, "diwali")
		k.ok(err)
		k.is([]any{got.Cursor, got.Expanded, got.Skipped}, []any{int64(10), true, map[string]int{"no_address": 6}},
			"the campaign")
		k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusQueued: 4}}, "its tally")
		got = k.moved(c, running(store.CampaignRunning), store.CampaignCompleted)
		k.is(got.EndedAt, k.now, "its end")
	}},
	{"of two expansions of one slice exactly one is stored", func(k *kit) {
		c := k.campaign("diwali", 5)
		slices := make([]store.Slice, 8)
		for i := range slices {
			slices[i] = store.Slice{Now: k.now, To: 5, Done: true}
			for range 5 {
				slices[i].Messages = append(slices[i].Messages, k.draft())
			}
		}
		errs := make([]error, len(slices))
		together(len(slices), func(i int) { _, errs[i] = k.s.Expand(k.ctx, acme, c.ID, slices[i]) })
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				k.fails(err, store.ErrConflict, "the others")
			}
		}
		k.is(won, 1, "how many won")
		k.is(k.tally(c.ID)[delivery.SMS][delivery.StatusQueued], 5, "messages")
	}},
	{"an expansion obeys quota and suppressions", func(k *kit) {
		c := k.campaign("diwali", 4)
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: acme, DailyQuota: 2}))
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: "+1555", Reason: "opt_out", At: k.now}}))
		s := store.Slice{Now: k.now, To: 3, Messages: []store.NewMessage{k.draft(), k.draft(), k.draft()}}
		_, err := k.s.Expand(k.ctx, acme, c.ID, s)
		var q *store.QuotaError
		k.is(errors.As(err, &q), true, "three messages under a quota of two")
		s.To, s.Messages = 2, []store.NewMessage{k.draft(func(m *store.NewMessage) { m.To = "+1555" }), k.draft()}
		out, err := k.s.Expand(k.ctx, acme, c.ID, s)
		k.ok(err)
		k.is(out.Results[0].Status, delivery.StatusSuppressed, "a suppressed address")
	}},
	{"pausing holds waiting messages, running again wakes them", func(k *kit) {
		c := k.campaign("diwali", 6)
		ids := k.expand(c, 0, 6, true)
		k.claim(ids[0])
		late := k.claim(ids[1])[0]
		k.settle(store.Outcome{ID: late.ID, Epoch: 1, Status: delivery.StatusDeferred, Reason: "busy",
			Until: k.now.Add(time.Hour)})
		k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
		k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusHeld: 5, delivery.StatusSending: 1}}, "paused")
		k.is(k.message(ids[2]).Reason, store.ReasonCampaignPaused, "the reason of the hold")
		k.tick(time.Hour)
		k.is(len(k.claim(ids[1:]...)), 0, "claims while it is paused")
		_, err := k.s.Expand(k.ctx, acme, c.ID, store.Slice{Now: k.now, From: 6, To: 6})
		k.fails(err, store.ErrConflict, "an expansion while it is paused")
		k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
		k.is(k.message(ids[2]).DueAt, k.now.Add(-time.Hour), "its old place in the queue")
		k.is(len(k.claim(ids[1:]...)), 5, "claims after it runs again")
	}},
	{"a message that comes due while its campaign is paused is held by the claim", func(k *kit) {
		c := k.campaign("diwali", 1)
		m := k.draft(dueAt(k.now.Add(time.Minute)))
		_, err := k.s.Expand(k.ctx, acme, c.ID, store.Slice{Now: k.now, To: 1, Messages: []store.NewMessage{m}, Done: true})
		k.ok(err)
		k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
		k.tick(time.Minute)
		k.reopen()
		k.is(len(k.claim(m.ID)), 0, "claims")
		got := k.message(m.ID)
		k.is([]any{got.Status, got.Reason}, []any{delivery.StatusHeld, store.ReasonCampaignPaused}, "the message")
		k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
		k.is(len(k.claim(m.ID)), 1, "claims after it runs again")
	}},
	{"stopping cancels waiting messages and lets what is being sent finish", func(k *kit) {
		c := k.campaign("diwali", 5)
		ids := k.expand(c, 0, 4, false)
		sending := k.claim(ids[0])[0]
		k.moved(c, running(store.CampaignRunning, store.CampaignPaused), store.CampaignStopped)
		k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusCanceled: 3, delivery.StatusSending: 1}}, "stopped")
		got := k.settle(store.Outcome{ID: sending.ID, Epoch: 1, Status: delivery.StatusDeferred, Reason: "busy",
			Until: k.now})
		k.is(got.Applied, true, "an outcome after the stop")
		k.is(len(k.claim(ids...)), 0, "claims after the stop")
		k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusCanceled: 4}}, "all of it is canceled now")
		_, err := k.s.MoveCampaign(k.ctx, acme, c, running(store.CampaignStopped), store.CampaignRunning, k.now)
		k.fails(err, store.ErrConflict, "a stopped campaign stays stopped")
	}},
	{"pausing and running again moves thousands of messages without losing one", func(k *kit) {
		const n = 1300
		c := k.campaign("diwali", n)
		k.expand(c, 0, 1000, false)
		k.expand(c, 1000, n-1000, true)
		for range 3 {
			k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
			k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusHeld: n}}, "paused")
			k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
			k.is(k.tally(c.ID), store.Tally{delivery.SMS: {delivery.StatusQueued: n}}, "running")
		}
	}},
	{"the tally of the zero campaign counts all messages of the tenant", func(k *kit) {
		c := k.campaign("diwali", 2)
		k.expand(c, 0, 2, true)
		k.several(3)
		k.sent("p")
		k.is(k.tally(delivery.CampaignID{}), store.Tally{delivery.SMS: {delivery.StatusQueued: 5, delivery.StatusSent: 1}},
			"all")
		list, err := k.s.Messages(k.ctx, acme, store.MessageQuery{Campaign: c.ID, Limit: 10})
		k.ok(err)
		k.is(len(list), 2, "messages of the campaign")
	}},
}
