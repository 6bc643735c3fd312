package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// changed lists what was changed after the given sequence, without sequences, and where the list ends.
func (k *kit) changed(after int64) (list []store.Change, upto int64) {
	k.Helper()
	got, err := k.nodes().Changes(k.ctx, k.sys, after, 1000)
	k.ok(err)
	k.is(got.Gap, false, "nothing is gone")
	for _, c := range got.List {
		k.is(c.Seq > after, true, "a change after %d: %d", after, c.Seq)
		c.Seq = 0
		list = append(list, c)
	}
	return list, got.Upto
}

var changeTests = []sentence{
	{"whatever other nodes have to know is written with what changes it", func(k *kit) {
		_, upto := k.changed(0)
		step := func(what string, want ...store.Change) {
			k.Helper()
			got, now := k.changed(upto)
			k.is(got, want, "%s", what)
			upto = now
		}
		of := func(kind store.ChangeKind, tenant delivery.TenantID, id string) store.Change {
			return store.Change{Kind: kind, Tenant: tenant, ID: id}
		}
		k.ok(k.s.CreateTenant(k.ctx, k.sys, store.Tenant{ID: "bharat", CreatedAt: k.now}))
		step("a new tenant", of(store.TenantChange, "bharat", ""))
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: acme, DailyQuota: 100}))
		step("a changed tenant", of(store.TenantChange, acme, ""))

		a := store.Account{ID: k.ids.Account(), Name: "smsc", Kind: "smpp", Channel: delivery.SMS}
		shared := store.Account{ID: k.ids.Account(), Name: "pool", Kind: "smpp", Channel: delivery.SMS}
		k.ok(k.s.PutAccount(k.ctx, acme, a))
		k.ok(k.s.PutAccount(k.ctx, acme, a))
		k.ok(k.s.PutAccount(k.ctx, delivery.Shared, shared))
		k.ok(k.s.DeleteAccount(k.ctx, acme, "smsc"))
		one := of(store.AccountChange, acme, a.ID.String())
		step("accounts", one, one, of(store.AccountChange, delivery.Shared, shared.ID.String()), one)

		key := store.Key{ID: k.ids.Key(), Tenant: acme, Hash: [32]byte{1}}
		k.ok(k.s.PutKey(k.ctx, k.sys, key))
		step("a new key is known to nobody yet")
		k.ok(k.s.RevokeKey(k.ctx, k.sys, acme, key.ID, k.now))
		step("a revoked key", of(store.KeyChange, acme, key.ID.String()))
		k.ok(k.s.RevokeKey(k.ctx, k.sys, acme, key.ID, k.now))
		step("revoked again")

		_, err := k.s.PutTemplate(k.ctx, acme, store.Template{Name: "t", Channel: delivery.SMS})
		k.ok(err)
		step("a template", of(store.TemplateChange, acme, ""))

		c := k.campaign("diwali", 2)
		one = of(store.CampaignChange, acme, c.ID.String())
		step("a started campaign", one)
		k.expand(c, 0, 2, true)
		step("an expansion")
		k.moved(c, running(store.CampaignRunning), store.CampaignPaused)
		k.moved(c, running(store.CampaignPaused), store.CampaignRunning)
		k.moved(c, running(store.CampaignRunning), store.CampaignStopped)
		step("paused, resumed, stopped", one, one, one)

		list := of(store.SuppressChange, acme, "")
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: "+1", Reason: "r"}, {To: "+2", Reason: "r"}}))
		step("two entries in one call", list)
		k.ok(k.s.Unsuppress(k.ctx, acme, 0, "+1"))
		step("an entry that goes", list)
		m := k.claimed()
		k.settle(store.Outcome{ID: m.ID, Epoch: 1, Status: delivery.StatusFailed, Reason: "r", Suppress: true})
		step("an outcome that suppresses", list)
		k.sent("p1")
		r := receipt("p1", delivery.StatusUndelivered)
		r.Class = delivery.BadRecipient
		k.report(r)
		step("a receipt that suppresses", list)
		k.accept()
		step("an acceptance")
		k.is(k.roster().Changed, upto, "the roster says how far the list goes")
		k.reopen()
		step("another process")
	}},
	{"what fails changes nothing", func(k *kit) {
		_, upto := k.changed(0)
		k.fails(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: "nobody"}), store.ErrNotFound, "UpdateTenant")
		k.fails(k.s.CreateTenant(k.ctx, k.sys, store.Tenant{ID: acme}), store.ErrExists, "CreateTenant")
		k.fails(k.s.DeleteAccount(k.ctx, acme, "none"), store.ErrNotFound, "DeleteAccount")
		k.fails(k.s.RevokeKey(k.ctx, k.sys, acme, k.ids.Key(), k.now), store.ErrNotFound, "RevokeKey")
		k.fails(k.s.Unsuppress(k.ctx, acme, 0, "+1"), store.ErrNotFound, "Unsuppress")
		k.ok(k.s.Suppress(k.ctx, acme, nil))
		got, now := k.changed(upto)
		k.is(len(got), 0, "changes: %+v", got)
		k.is(now, upto, "where the list ends")
	}},
	{"the list is read in pages, each complete up to where it says", func(k *kit) {
		_, from := k.changed(0)
		var want []string
		for i := range 7 {
			slug := delivery.TenantID(fmt.Sprint("t", i))
			want = append(want, string(slug))
			k.ok(k.s.CreateTenant(k.ctx, k.sys, store.Tenant{ID: slug}))
		}
		for _, limit := range []int{1, 3, 7, 100} {
			var got []string
			for after := from; ; {
				page, err := k.nodes().Changes(k.ctx, k.sys, after, limit)
				k.ok(err)
				k.is(len(page.List) <= limit, true, "a page of at most %d", limit)
				if len(page.List) == 0 {
					k.is(page.Upto, after, "an empty page ends where it begins")
					break
				}
				for _, c := range page.List {
					got = append(got, string(c.Tenant))
				}
				k.is(page.Upto, page.List[len(page.List)-1].Seq, "a page ends with its last change")
				after = page.Upto
			}
			k.is(got, want, "in pages of %d", limit)
		}
		_, err := k.nodes().Changes(k.ctx, k.sys, 0, 0)
		k.is(err != nil, true, "no limit")
	}},
	{"a sequence that the store has never given is a gap", func(k *kit) {
		// The store was put back to an earlier state: what is cached may be newer than what it holds.
		got, err := k.nodes().Changes(k.ctx, k.sys, 1<<40, 10)
		k.ok(err)
		k.is([]any{got.Gap, len(got.List), got.Upto}, []any{true, 0, k.roster().Changed}, "read all anew, go on from here")
	}},
	{"who follows misses nothing while many write", func(k *kit) {
		const writers, each = 8, 12
		var seen []store.Change
		errs := make([]error, writers+1)
		_, from := k.changed(0)
		done := make(chan struct{}, writers)
		together(writers+1, func(i int) {
			if i < writers {
				for n := 0; n < each && errs[i] == nil; n++ {
					if i%2 == 0 {
						errs[i] = k.s.Suppress(k.ctx, acme, []store.Suppression{{To: fmt.Sprint("+", i, n), Reason: "r"}})
					} else {
						errs[i] = k.s.PutAccount(k.ctx, acme, store.Account{ID: delivery.AccountID{byte(i), byte(n)},
							Name: fmt.Sprint(i, "-", n), Kind: "x", Channel: delivery.SMS})
					}
				}
				done <- struct{}{}
				return
			}
			left, last := writers, time.Now().Add(patient)
			for after, more := from, true; more && errs[i] == nil && time.Now().Before(last); {
				select {
				case <-done:
					left--
				default:
				}
				more = left > 0
				var page store.Changes
				if page, errs[i] = k.nodes().Changes(k.ctx, k.sys, after, 5); len(page.List) > 0 {
					seen, after, more = append(seen, page.List...), page.Upto, true
				}
			}
		})
		for _, err := range errs {
			k.ok(err)
		}
		all, err := k.nodes().Changes(k.ctx, k.sys, from, 1000)
		k.ok(err)
		k.is(seen, all.List, "what was seen is the list")
		accounts := 0
		for _, c := range seen {
			if c.Kind == store.AccountChange {
				accounts++
			}
		}
		k.is(accounts, writers/2*each, "changes of accounts")
		k.is(slices.IsSortedFunc(seen, func(a, b store.Change) int { return int(a.Seq - b.Seq) }), true, "in order")
	}},
}
