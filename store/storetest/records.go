package storetest

import (
	"encoding/json"
	"fmt"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var audienceTests = []sentence{
	{"an audience is filled, frozen and read page by page", func(k *kit) {
		a := store.Audience{Name: "diwali", CreatedAt: k.now}
		k.ok(k.s.CreateAudience(k.ctx, acme, a))
		k.fails(k.s.CreateAudience(k.ctx, acme, a), store.ErrExists, "the same name")
		people := []store.Person{
			{Phone: "+1", Email: "a@example.com", Vars: json.RawMessage(`{"name":"Asha"}`)},
			{Phone: "+1", Email: "b@example.com", Vars: json.RawMessage(`{}`)},
			{Email: "a@example.com", Channel: delivery.Email, Vars: json.RawMessage(`{}`)},
			{URL: "https://example.com/hook", Vars: json.RawMessage(`{}`)},
		}
		added, err := k.s.AddPeople(k.ctx, acme, "diwali", people)
		k.ok(err)
		k.is(added, []bool{true, false, true, true}, "which are new: one person per first address")
		added, err = k.s.AddPeople(k.ctx, acme, "diwali", people[:1])
		k.ok(err)
		k.is(added, []bool{false}, "a repeat in a later call")
		a.Rows, a.LeftOut, a.Columns, a.RejectFile = 5, map[string]int{"duplicate": 2}, []string{"phone", "name"},
			"rejects.csv"
		k.ok(k.s.FinishAudience(k.ctx, acme, a))
		k.reopen()
		a.Ready, a.People = true, 3
		got, err := k.s.Audience(k.ctx, acme, "diwali")
		k.ok(err)
		k.is(got, a, "the audience")
		_, err = k.s.AddPeople(k.ctx, acme, "diwali", []store.Person{{Phone: "+9"}})
		k.fails(err, store.ErrConflict, "people after the import")
		var all []store.Person
		after := int64(0)
		for {
			page, err := k.s.People(k.ctx, acme, "diwali", after, 2)
			k.ok(err)
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			after = page[len(page)-1].Seq
		}
		want := []store.Person{people[0], people[2], people[3]}
		for i := range want {
			want[i].Seq = int64(i + 1)
		}
		k.is(all, want, "all pages")
		list, err := k.s.AudienceList(k.ctx, acme)
		k.ok(err)
		k.is(list, []store.Audience{a}, "the list")
	}},
	{"an audience is deleted, but not while a campaign uses it", func(k *kit) {
		k.ok(k.s.CreateAudience(k.ctx, acme, store.Audience{Name: "diwali"}))
		c := k.campaign("diwali", 0)
		k.fails(k.s.DeleteAudience(k.ctx, acme, "diwali"), store.ErrConflict, "while the campaign runs")
		k.moved(c, running(store.CampaignRunning), store.CampaignStopped)
		k.fails(k.s.DeleteAudience(k.ctx, other, "diwali"), store.ErrNotFound, "another tenant's audience")
		k.ok(k.s.DeleteAudience(k.ctx, acme, "diwali"))
		_, err := k.s.Audience(k.ctx, acme, "diwali")
		k.fails(err, store.ErrNotFound, "after it was deleted")
		_, err = k.s.People(k.ctx, acme, "diwali", 0, 10)
		k.fails(err, store.ErrNotFound, "its people")
	}},
	{"a person without an address is refused", func(k *kit) {
		k.ok(k.s.CreateAudience(k.ctx, acme, store.Audience{Name: "diwali"}))
		_, err := k.s.AddPeople(k.ctx, acme, "diwali", []store.Person{{Phone: "+1"}, {}})
		k.is(err != nil, true, "no phone, no email, no url")
	}},
}

var recordTests = []sentence{
	{"template versions count up, never change, and keep their channel", func(k *kit) {
		t := store.Template{Name: "offer", Channel: delivery.WhatsApp, Text: "one", CreatedAt: k.now,
			Approved: &delivery.ProviderTemplate{Name: "offer_v1", Language: "en", Params: []string{"{{ name }}"}}}
		for want := 1; want <= 3; want++ {
			t.Text = fmt.Sprint("text ", want)
			n, err := k.s.PutTemplate(k.ctx, acme, t)
			k.ok(err)
			k.is(n, want, "version")
		}
		k.reopen()
		for _, want := range []struct{ ask, version int }{{0, 3}, {1, 1}, {3, 3}} {
			got, err := k.s.Template(k.ctx, acme, "offer", want.ask)
			k.ok(err)
			t.Version, t.Text = want.version, fmt.Sprint("text ", want.version)
			k.is(got, t, "version %d", want.ask)
		}
		_, err := k.s.Template(k.ctx, acme, "offer", 4)
		k.fails(err, store.ErrNotFound, "a version that is not there")
		_, err = k.s.PutTemplate(k.ctx, acme, store.Template{Name: "offer", Channel: delivery.SMS})
		k.fails(err, store.ErrConflict, "another channel")
		_, err = k.s.PutTemplate(k.ctx, acme, store.Template{Name: "alert", Channel: delivery.SMS})
		k.ok(err)
		list, err := k.s.TemplateList(k.ctx, acme)
		k.ok(err)
		k.is([]any{len(list), list[0].Name, list[1].Version}, []any{2, "alert", 3}, "newest of each, by name")
		all, err := k.s.TemplateVersions(k.ctx, acme, "offer")
		k.ok(err)
		k.is([]int{all[0].Version, all[1].Version, all[2].Version}, []int{3, 2, 1}, "newest first")
		_, err = k.s.TemplateVersions(k.ctx, other, "offer")
		k.fails(err, store.ErrNotFound, "another tenant's template")
	}},
	{"accounts are stored, replaced, listed with the shared ones, and deleted", func(k *kit) {
		a := store.Account{ID: k.ids.Account(), Tenant: acme, Name: "smsc", Kind: "smpp", Channel: delivery.SMS,
			Settings: map[string]string{"host": "localhost"}, Sealed: []byte{1, 2}, SecretNames: []string{"password"},
			Priority: 2,
			Rate:     50, Burst: 5, Paused: true, PauseReason: "bind failed", CreatedAt: k.now, UpdatedAt: k.now}
		k.ok(k.s.PutAccount(k.ctx, acme, a))
		a.Priority = 1
		k.ok(k.s.PutAccount(k.ctx, acme, a))
		a.Version = 2
		shared := store.Account{ID: k.ids.Account(), Tenant: delivery.Shared, Name: "pool", Kind: "smpp",
			Channel: delivery.SMS}
		k.ok(k.s.PutAccount(k.ctx, delivery.Shared, shared))
		k.reopen()
		got, err := k.s.Account(k.ctx, acme, "smsc")
		k.ok(err)
		k.is(got, a, "the account")
		got, err = k.s.Account(k.ctx, other, "pool")
		k.ok(err)
		k.is(got.ID, shared.ID, "a shared account serves every tenant")
		_, err = k.s.Account(k.ctx, other, "smsc")
		k.fails(err, store.ErrNotFound, "another tenant's account")
		own := store.Account{ID: k.ids.Account(), Name: "pool", Kind: "smpp", Channel: delivery.SMS, Priority: 1}
		k.ok(k.s.PutAccount(k.ctx, acme, own))
		got, err = k.s.Account(k.ctx, acme, "pool")
		k.ok(err)
		k.is(got.ID, own.ID, "the tenant's own account goes before a shared one")
		taken := store.Account{ID: k.ids.Account(), Name: "smsc"}
		k.fails(k.s.PutAccount(k.ctx, acme, taken), store.ErrExists, "the same name")
		stolen := store.Account{ID: a.ID, Name: "mine"}
		k.fails(k.s.PutAccount(k.ctx, other, stolen), store.ErrExists, "another tenant's id")
		list, err := k.s.AccountList(k.ctx, acme)
		k.ok(err)
		k.is([]delivery.AccountID{list[0].ID, list[1].ID, list[2].ID}, []delivery.AccountID{shared.ID, own.ID, a.ID},
			"by channel, priority, name")
		all, err := k.s.AllAccounts(k.ctx, k.sys)
		k.ok(err)
		k.is(len(all), 3, "all accounts")
		k.fails(k.s.DeleteAccount(k.ctx, other, "smsc"), store.ErrNotFound, "another tenant's account")
		k.ok(k.s.DeleteAccount(k.ctx, acme, "smsc"))
		k.fails(k.s.DeleteAccount(k.ctx, acme, "smsc"), store.ErrNotFound, "deleted again")
	}},
	{"an account that was written or deleted since it was read is not replaced", func(k *kit) {
		for _, owner := range []delivery.TenantID{acme, delivery.Shared} {
			a := store.Account{ID: k.ids.Account(), Tenant: owner, Name: "smsc", Kind: "smpp", Channel: delivery.SMS,
				Settings: map[string]string{}, CreatedAt: k.now, UpdatedAt: k.now}
			k.ok(k.s.PutAccount(k.ctx, owner, a))
			read, err := k.s.Account(k.ctx, owner, "smsc")
			k.ok(err)
			k.is(read.Version, int64(1), "as it was made")
			by := k.oneWrites(func(by string) error {
				b := read
				b.PauseReason = by
				return k.s.PutAccount(k.ctx, owner, b)
			})
			now, err := k.s.Account(k.ctx, owner, "smsc")
			k.ok(err)
			k.is([]any{now.PauseReason, now.Version}, []any{by, int64(2)}, "what is stored")
			k.ok(k.s.DeleteAccount(k.ctx, owner, "smsc"))
			k.fails(k.s.PutAccount(k.ctx, owner, now), store.ErrConflict, "after its deletion")
			_, err = k.s.Account(k.ctx, owner, "smsc")
			k.fails(err, store.ErrNotFound, "it stays deleted")
		}
	}},
	{"keys are found by hash, listed newest first and revoked once", func(k *kit) {
		key := store.Key{ID: k.ids.Key(), Tenant: acme, Name: "ci", Mode: "live", Hash: [32]byte{1}, Hint: "abcd",
			CreatedAt: k.now}
		admin := store.Key{ID: k.ids.Key(), Name: "operator", Mode: "live", Admin: true, Hash: [32]byte{2}}
		k.ok(k.s.PutKey(k.ctx, k.sys, key))
		k.ok(k.s.PutKey(k.ctx, k.sys, admin))
		second := store.Key{ID: k.ids.Key(), Tenant: acme, Hash: [32]byte{3}}
		k.ok(k.s.PutKey(k.ctx, k.sys, second))
		k.reopen()
		for _, want := range []store.Key{key, admin} {
			got, err := k.s.KeyByHash(k.ctx, k.sys, want.Hash)
			k.ok(err)
			k.is(got, want, "by hash")
		}
		_, err := k.s.KeyByHash(k.ctx, k.sys, [32]byte{9})
		k.fails(err, store.ErrNotFound, "an unknown hash")
		k.fails(k.s.PutKey(k.ctx, k.sys, store.Key{ID: k.ids.Key(), Tenant: acme, Hash: key.Hash}), store.ErrExists,
			"a hash that is taken")
		k.fails(k.s.PutKey(k.ctx, k.sys, store.Key{ID: k.ids.Key(), Tenant: "nobody"}), store.ErrNotFound,
			"an unknown tenant")
		list, err := k.s.KeyList(k.ctx, k.sys, acme)
		k.ok(err)
		k.is([]delivery.KeyID{list[0].ID, list[1].ID}, []delivery.KeyID{second.ID, key.ID}, "newest first")
		k.fails(k.s.RevokeKey(k.ctx, k.sys, other, key.ID, k.now), store.ErrNotFound, "another tenant's key")
		k.ok(k.s.RevokeKey(k.ctx, k.sys, acme, key.ID, k.now))
		at := k.now
		k.tick(1e9)
		k.ok(k.s.RevokeKey(k.ctx, k.sys, acme, key.ID, k.now))
		got, err := k.s.KeyByHash(k.ctx, k.sys, key.Hash)
		k.ok(err)
		k.is(got.RevokedAt, at, "the first revocation stays")
	}},
}
