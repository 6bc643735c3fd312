package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var tenantTests = []sentence{
	{"a tenant is stored, updated but for id, creation and key, and listed", func(k *kit) {
		t := store.Tenant{ID: "bharat", Name: "Bharat Ltd", DailyQuota: 5, OnAmbiguous: "hold", DataKey: []byte{1},
			Region: "IN",
			Rates:  []store.TenantRate{{Channel: delivery.SMS, PerSecond: 2.5, Burst: 5}}, CreatedAt: k.now}
		k.ok(k.s.CreateTenant(k.ctx, k.sys, t))
		k.fails(k.s.CreateTenant(k.ctx, k.sys, t), store.ErrExists, "the same id")
		change := store.Tenant{ID: "bharat", Name: "New", DataKey: []byte{9}, CreatedAt: k.now.Add(time.Hour)}
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, change))
		k.reopen()
		got, err := k.s.Tenant(k.ctx, k.sys, "bharat")
		k.ok(err)
		k.is(got, store.Tenant{ID: "bharat", Name: "New", DataKey: []byte{1}, Version: 2,
			CreatedAt: k.now}, "after the update")
		k.fails(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: "nobody"}), store.ErrNotFound, "an unknown tenant")
		_, err = k.s.Tenant(k.ctx, k.sys, "nobody")
		k.fails(err, store.ErrNotFound, "an unknown tenant")
		list, err := k.s.TenantList(k.ctx, k.sys)
		k.ok(err)
		k.is([]delivery.TenantID{list[0].ID, list[1].ID, list[2].ID}, []delivery.TenantID{acme, "bharat", other}, "by id")
	}},
	{"a tenant that was written since it was read is not written over", func(k *kit) {
		read, err := k.s.Tenant(k.ctx, k.sys, acme)
		k.ok(err)
		k.is(read.Version, int64(1), "of a tenant that was never changed")
		name := k.oneWrites(func(by string) error {
			t := read
			t.Name = by
			return k.s.UpdateTenant(k.ctx, k.sys, t)
		})
		list, err := k.s.TenantList(k.ctx, k.sys)
		k.ok(err)
		k.is([]any{list[0].Name, list[0].Version}, []any{name, int64(2)}, "what is stored")
		read.Name, read.Version = "whatever it is", 0
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, read))
		now, err := k.s.Tenant(k.ctx, k.sys, acme)
		k.ok(err)
		k.is([]any{now.Name, now.Version}, []any{"whatever it is", int64(3)}, "without a version")
		read.ID, read.Version = "nobody", 1
		k.fails(k.s.UpdateTenant(k.ctx, k.sys, read), store.ErrNotFound, "an unknown tenant with a version")
	}},
	{"the rows of another tenant do not exist", func(k *kit) {
		id := k.accept()
		_, err := k.s.Message(k.ctx, other, id)
		k.fails(err, store.ErrNotFound, "Message")
		_, err = k.s.Facts(k.ctx, other, id)
		k.fails(err, store.ErrNotFound, "Facts")
		_, err = k.s.Cancel(k.ctx, other, id, k.now)
		k.fails(err, store.ErrNotFound, "Cancel")
		list, err := k.s.Messages(k.ctx, other, store.MessageQuery{Limit: 10})
		k.ok(err)
		k.is(len(list), 0, "Messages")
		n, err := k.s.Usage(k.ctx, other, k.now)
		k.ok(err)
		k.is(n, int64(0), "Usage")
		events, latest, err := k.s.Events(k.ctx, other, 0, 10)
		k.ok(err)
		k.is([]any{len(events), latest}, []any{0, int64(0)}, "Events")

		c := k.campaign("diwali", 1)
		k.expand(c, 0, 1, true)
		_, err = k.s.MoveCampaign(k.ctx, other, c, running(store.CampaignRunning), store.CampaignStopped, k.now)
		k.fails(err, store.ErrNotFound, "MoveCampaign")
		_, err = k.s.Expand(k.ctx, other, c.ID, store.Slice{Now: k.now, From: 1, To: 1})
		k.fails(err, store.ErrNotFound, "Expand")
		tally, err := k.s.Tally(k.ctx, other, c.ID)
		k.ok(err)
		k.is(len(tally), 0, "Tally")
		list, err = k.s.Messages(k.ctx, other, store.MessageQuery{Campaign: c.ID, Limit: 10})
		k.ok(err)
		k.is(len(list), 0, "Messages by campaign")
		_, err = k.s.Accept(k.ctx, other, store.Acceptance{Now: k.now,
			Messages: []store.NewMessage{k.draft(func(m *store.NewMessage) { m.Campaign = c.ID })}})
		k.fails(err, store.ErrNotFound, "Accept into another tenant's campaign")
		campaigns, err := k.s.CampaignList(k.ctx, other)
		k.ok(err)
		k.is(len(campaigns), 0, "CampaignList")

		k.ok(k.s.CreateAudience(k.ctx, acme, store.Audience{Name: "all"}))
		_, err = k.s.Audience(k.ctx, other, "all")
		k.fails(err, store.ErrNotFound, "Audience")
		_, err = k.s.AddPeople(k.ctx, other, "all", []store.Person{{Phone: "+1"}})
		k.fails(err, store.ErrNotFound, "AddPeople")
		k.fails(k.s.FinishAudience(k.ctx, other, store.Audience{Name: "all"}), store.ErrNotFound, "FinishAudience")
		_, err = k.s.People(k.ctx, other, "all", 0, 1)
		k.fails(err, store.ErrNotFound, "People")
		audiences, err := k.s.AudienceList(k.ctx, other)
		k.ok(err)
		k.is(len(audiences), 0, "AudienceList")

		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: "+1", Reason: "r"}}))
		k.fails(k.s.Unsuppress(k.ctx, other, 0, "+1"), store.ErrNotFound, "Unsuppress")
		entries, err := k.s.SuppressionList(k.ctx, other, "", 10)
		k.ok(err)
		k.is(len(entries), 0, "SuppressionList")
		_, err = k.s.PutTemplate(k.ctx, acme, store.Template{Name: "t", Channel: delivery.SMS})
		k.ok(err)
		_, err = k.s.Template(k.ctx, other, "t", 0)
		k.fails(err, store.ErrNotFound, "Template")
		templates, err := k.s.TemplateList(k.ctx, other)
		k.ok(err)
		k.is(len(templates), 0, "TemplateList")
		_, err = k.s.Audit(k.ctx, "nobody")
		k.fails(err, store.ErrNotFound, "Audit of nobody")
	}},
	{"the zero System is refused everywhere", func(k *kit) {
		var sys store.System
		calls := map[string]error{}
		_, calls["DueQueues"] = k.s.DueQueues(k.ctx, sys, k.now)
		_, _, calls["Due"] = k.s.Due(k.ctx, sys, acmeSMS, k.now, store.DueMark{}, 1)
		_, calls["Settle"] = k.s.Settle(k.ctx, sys, k.now, nil)
		_, calls["Overdue"] = k.s.Overdue(k.ctx, sys, k.now, "", 1)
		_, calls["NextDue"] = k.s.NextDue(k.ctx, sys, k.now)
		_, calls["Wake"] = k.s.Wake(k.ctx, sys, k.now, store.Held{Reason: "r", Account: account})
		_, calls["Report"] = k.s.Report(k.ctx, sys, k.now, time.Hour, nil)
		_, calls["Parked"] = k.s.Parked(k.ctx, sys)
		_, calls["DropParked"] = k.s.DropParked(k.ctx, sys, k.now)
		_, calls["ActiveCampaigns"] = k.s.ActiveCampaigns(k.ctx, sys)
		_, calls["AllAccounts"] = k.s.AllAccounts(k.ctx, sys)
		_, calls["TenantList"] = k.s.TenantList(k.ctx, sys)
		calls["CreateTenant"] = k.s.CreateTenant(k.ctx, sys, store.Tenant{ID: "x"})
		calls["PutKey"] = k.s.PutKey(k.ctx, sys, store.Key{})
		for name, err := range calls {
			k.is(err != nil, true, "%s", name)
		}
	}},
}

var lifeTests = []sentence{
	{"after Close every call is ErrUnavailable, and Close again is no error", func(k *kit) {
		id := k.accept()
		k.ok(k.s.Check(k.ctx))
		k.ok(k.s.Close())
		k.ok(k.s.Close())
		_, err := k.s.Message(k.ctx, acme, id)
		k.fails(err, store.ErrUnavailable, "a read")
		_, err = k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: []store.NewMessage{k.draft()}})
		k.fails(err, store.ErrUnavailable, "a write")
		k.fails(k.s.Check(k.ctx), store.ErrUnavailable, "Check")
		k.reopen()
		k.status(id, delivery.StatusQueued, "what was accepted before")
	}},
	{"calls that run while it closes either succeed or are ErrUnavailable, and what succeeded is there", func(k *kit) {
		const n = 40
		ms := make([]store.NewMessage, n)
		for i := range ms {
			ms[i] = k.draft()
		}
		errs := make([]error, n)
		var closed error
		together(n+1, func(i int) {
			if i == n {
				closed = k.s.Close()
				return
			}
			_, errs[i] = k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: ms[i : i+1]})
		})
		k.ok(closed)
		k.reopen()
		for i, err := range errs {
			_, found := k.s.Message(k.ctx, acme, ms[i].ID)
			if err == nil {
				k.ok(found)
				continue
			}
			k.fails(err, store.ErrUnavailable, "a call that came too late")
			k.fails(found, store.ErrNotFound, "what was refused")
		}
	}},
	{"a thousand random calls leave right books", func(k *kit) {
		rnd := rand.New(rand.NewPCG(3, 4))
		c := k.campaign("diwali", 100000)
		cursor := int64(0)
		var live []delivery.MessageID
		states := []store.CampaignState{store.CampaignRunning, store.CampaignPaused}
		open := map[delivery.MessageID]int{}
		refs := 0
		for range 1000 {
			k.tick(time.Duration(rnd.IntN(20)) * time.Second)
			pick := func() delivery.MessageID {
				if len(live) == 0 {
					return k.ids.Message()
				}
				return live[rnd.IntN(len(live))]
			}
			switch rnd.IntN(9) {
			case 0:
				live = append(live, k.several(1+rnd.IntN(5), func(m *store.NewMessage) {
					m.Channel = delivery.Channels[rnd.IntN(4)]
					m.ExpiresAt = k.now.Add(time.Duration(1+rnd.IntN(600)) * time.Second)
				})...)
			case 1:
				n := rnd.IntN(4)
				s := store.Slice{Now: k.now, From: cursor, To: cursor + int64(n) + 1, Skipped: map[string]int{"no_address": 1}}
				for range n {
					s.Messages = append(s.Messages, k.draft())
				}
				if _, err := k.s.Expand(k.ctx, acme, c.ID, s); err == nil {
					cursor = s.To
					for _, m := range s.Messages {
						live = append(live, m.ID)
					}
				} else {
					k.fails(err, store.ErrConflict, "expand")
				}
			case 2, 3:
				for _, got := range k.claim(pick(), pick(), pick()) {
					open[got.ID] = got.Epoch
				}
			case 4, 5:
				for id, epoch := range open {
					refs++
					o := store.Outcome{ID: id, Epoch: epoch, Writer: delivery.BySend, Account: account, Reason: "r",
						ProviderID:      fmt.Sprint(refs),
						IndexProviderID: true, Until: k.now.Add(time.Minute), Attempted: true, Suppress: rnd.IntN(20) == 0}
					o.Status = []delivery.Status{delivery.StatusSent, delivery.StatusDeferred, delivery.StatusHeld,
						delivery.StatusAmbiguous,
						delivery.StatusFailed, delivery.StatusQueued}[rnd.IntN(6)]
					k.settle(o)
					delete(open, id)
					break
				}
			case 6:
				r := receipt(fmt.Sprint(rnd.IntN(refs+3)), []delivery.Status{delivery.StatusSent, delivery.StatusDelivered,
					delivery.StatusRead, delivery.StatusUndelivered}[rnd.IntN(4)])
				if rnd.IntN(3) == 0 {
					r.Message = pick()
				}
				k.report(r, r)
			case 7:
				if _, err := k.s.Cancel(k.ctx, acme, pick(), k.now); err != nil && !errors.Is(err, store.ErrConflict) {
					k.fails(err, store.ErrNotFound, "cancel")
				}
			case 8:
				_, err := k.s.MoveCampaign(k.ctx, acme, c, states, states[rnd.IntN(2)], k.now)
				if err != nil {
					k.fails(err, store.ErrConflict, "move")
				}
			}
		}
		k.moved(c, states, store.CampaignStopped)
		r, err := k.s.Audit(k.ctx, acme)
		k.ok(err)
		k.is(len(r.Problems), 0, "problems")
		k.is(r.Accepted > 100 && r.HandedOn > 10 && r.Ended > 10, true, "the calls reached every part: %+v", r)
	}},
}
