package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// noteTests are about what is kept beside the life of a message.
var noteTests = []sentence{
	{"category, tag and ordering key are kept, given to the claim, and a tag is found", func(k *kit) {
		m := k.draft(func(m *store.NewMessage) { m.Category, m.Tag, m.OrderingKey = "otp", strings.Repeat("ä", 64), "k" })
		k.acceptAs(acme, m, k.draft(), k.draft(func(m *store.NewMessage) { m.Category = "marketing" }))
		k.reopen()
		got := k.message(m.ID)
		k.is([]string{got.Category, got.Tag, got.OrderingKey}, []string{"otp", m.Tag, "k"}, "the message")
		page, err := k.s.Messages(k.ctx, acme, store.MessageQuery{Tag: m.Tag, Limit: 10})
		k.ok(err)
		k.is(len(page), 1, "by tag")
		c := k.claim(m.ID)[0]
		k.is([]string{c.Category, c.Tag}, []string{"otp", m.Tag}, "the claim")
	}},
	{"a claim knows the account of the attempt before it", func(k *kit) {
		c := k.claimed()
		k.is(c.Last, delivery.AccountID{}, "of a first attempt")
		other := delivery.AccountID{8}
		for i, o := range []struct {
			by        delivery.AccountID
			attempted bool
			last      delivery.AccountID
		}{{account, true, account}, {other, false, account}, {other, true, other}} {
			k.settle(store.Outcome{ID: c.ID, Epoch: i + 1, Status: delivery.StatusDeferred, Account: o.by, Reason: "r",
				Attempted: o.attempted, Until: k.now})
			k.is(k.claim(c.ID)[0].Last, o.last, "after %+v", o)
		}
	}},
	{"a tenant's policy is stored and replaced", func(k *kit) {
		t := store.Tenant{ID: "bharat", CreatedAt: k.now, Weight: 7, AcceptRate: 2.5, RerouteInDoubt: true,
			Retry: []delivery.RetryRule{{Channel: delivery.SMS, Class: delivery.Transient, Delays: []time.Duration{time.Second},
				GiveUpAfter: time.Hour}},
			Routes: []delivery.RouteRule{{Prefix: "+91", Category: "otp", Tag: "t",
				Targets: []delivery.RouteTarget{{Connector: "a", Weight: 3}, {Connector: "b"}}}}}
		k.ok(k.s.CreateTenant(k.ctx, k.sys, t))
		k.reopen()
		got, err := k.s.Tenant(k.ctx, k.sys, "bharat")
		k.ok(err)
		t.Version = 1
		k.is(got, t, "as it was given")
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: "bharat", Weight: 2}))
		list, err := k.s.TenantList(k.ctx, k.sys)
		k.ok(err)
		k.is(list[1], store.Tenant{ID: "bharat", Weight: 2, Version: 2, CreatedAt: k.now}, "after an update")
	}},
	{"a fact says why an account was chosen and what was rendered", func(k *kit) {
		for _, end := range []delivery.Status{delivery.StatusSent, delivery.StatusDeferred, delivery.StatusHeld,
			delivery.StatusAmbiguous, delivery.StatusFailed} {
			c := k.claimed()
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: end, Reason: "r", Until: k.now, Route: "rule 2: +91",
				Content: "otp v3"})
			f := k.facts(c.ID)[2]
			k.is([]string{f.Route, f.Content}, []string{"rule 2: +91", "otp v3"}, "of %s", end)
		}
	}},
	{"the latest time told is kept, over a restart too, and never goes back", func(k *kit) {
		seen := func(now time.Time) time.Time {
			at, err := k.s.Seen(k.ctx, k.sys, now)
			k.ok(err)
			return at
		}
		k.is(seen(k.now), k.now, "the first")
		k.is(seen(k.now.Add(-time.Hour)), k.now, "an earlier one")
		for i := range 10 {
			k.is(seen(k.now.Add(time.Duration(i)*700*time.Millisecond)), k.now.Add(time.Duration(i)*700*time.Millisecond),
				"later")
		}
		k.reopen()
		k.is(seen(k.now), k.now.Add(6300*time.Millisecond), "after a restart")
		_, err := k.s.Seen(k.ctx, store.System{}, k.now)
		k.is(err != nil, true, "the zero System is refused")
	}},
	{"receipts that wait for a message are listed by the owner of their account, page by page", func(k *kit) {
		mine, second, shared := delivery.AccountID{41}, delivery.AccountID{42}, delivery.AccountID{43}
		for id, owner := range map[delivery.AccountID]delivery.TenantID{mine: acme, second: acme, shared: delivery.Shared} {
			k.ok(k.s.PutAccount(k.ctx, owner, store.Account{ID: id, Name: fmt.Sprint(id[0]), Kind: "x", Channel: delivery.SMS,
				CreatedAt: k.now, UpdatedAt: k.now}))
		}
		var want []store.Unmatched
		for _, id := range []delivery.AccountID{second, mine, shared} {
			for _, ref := range []string{"b", "a", "c"} {
				r := receipt(ref, delivery.StatusDelivered)
				r.Account = id
				k.report(r)
			}
		}
		since := k.now
		for _, id := range []delivery.AccountID{mine, second} {
			for _, ref := range []string{"a", "b", "c"} {
				r := receipt(ref, delivery.StatusDelivered)
				r.Account = id
				want = append(want, store.Unmatched{Receipt: r, Since: since, Until: since.Add(72 * time.Hour)})
			}
		}
		for _, limit := range []int{1, 2, 4, 100} {
			var got []store.Unmatched
			var mark store.UnmatchedMark
			for {
				page, err := k.s.Unmatched(k.ctx, acme, mark, limit)
				k.ok(err)
				k.is(len(page) <= limit, true, "a page")
				if len(page) == 0 {
					break
				}
				mark = page[len(page)-1].Mark
				k.is(len(got) < len(want), true, "it comes to an end")
				for _, u := range page {
					u.Mark = ""
					got = append(got, u)
				}
			}
			k.is(got, want, "in pages of %d", limit)
		}
		for tenant, n := range map[delivery.TenantID]int{other: 0, delivery.Shared: 3, "nobody": 0} {
			page, err := k.s.Unmatched(k.ctx, tenant, "", 100)
			k.ok(err)
			k.is(len(page), n, "of %q", tenant)
		}
		for _, bad := range []store.UnmatchedMark{"x", "!!!", "AAAA"} {
			_, err := k.s.Unmatched(k.ctx, acme, bad, 10)
			k.is(err != nil, true, "the mark %q", bad)
		}
		_, err := k.s.Unmatched(k.ctx, acme, "", 0)
		k.is(err != nil, true, "no limit")
	}},
	{"a wake of thousands leaves each at its place, and what is accepted meanwhile is accepted", func(k *kit) {
		const n = 1200
		var ids []delivery.MessageID
		for range 3 {
			k.tick(time.Second)
			ids = append(ids, k.several(n/3)...)
		}
		var outcomes []store.Outcome
		for _, c := range k.claim(ids...) {
			outcomes = append(outcomes, store.Outcome{ID: c.ID, Epoch: 1, Writer: delivery.BySend, Status: delivery.StatusHeld,
				Account: account, Reason: "connector_down", Until: k.now.Add(time.Hour)})
		}
		_, err := k.s.Settle(k.ctx, k.sys, k.now, outcomes)
		k.ok(err)
		k.tick(time.Minute)
		late := k.draft()
		errs := make([]error, 2)
		woken := 0
		together(2, func(i int) {
			if i == 0 {
				woken, errs[0] = k.s.Wake(k.ctx, k.sys, k.now, store.Held{Reason: "connector_down", Account: account})
				return
			}
			_, errs[1] = k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: []store.NewMessage{late}})
		})
		k.ok(errs[0])
		k.ok(errs[1])
		k.is(woken, n, "how many")
		got, _, err := k.s.Due(k.ctx, k.sys, acmeSMS, k.now, store.DueMark{}, n+1)
		k.ok(err)
		k.is(got, append(ids, late.ID), "in the order of acceptance")
	}},
}
