package storetest

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

var readTests = []sentence{
	{"messages are paged newest first, each once", func(k *kit) {
		ids := k.several(25)
		var got []delivery.MessageID
		q := store.MessageQuery{Limit: 10}
		for {
			page, err := k.s.Messages(k.ctx, acme, q)
			k.ok(err)
			for _, m := range page {
				got = append(got, m.ID)
			}
			if len(page) < q.Limit {
				break
			}
			q.Before = page[len(page)-1].ID
		}
		k.is(len(got), 25, "how many")
		for i := range got {
			k.is(got[i], ids[len(ids)-1-i], "place %d", i)
		}
	}},
	{"messages are found by status, channel, address, account and time", func(k *kit) {
		old := k.accept()
		k.tick(time.Hour)
		since := k.now
		sent := k.sent("p")
		email := k.accept(func(m *store.NewMessage) { m.Channel, m.To = delivery.Email, "a@example.com" })
		for what, want := range map[string]struct {
			q   store.MessageQuery
			ids []delivery.MessageID
		}{
			"status":          {store.MessageQuery{Status: delivery.StatusSent}, []delivery.MessageID{sent}},
			"channel":         {store.MessageQuery{Channel: delivery.SMS}, []delivery.MessageID{sent, old}},
			"address":         {store.MessageQuery{To: "a@example.com"}, []delivery.MessageID{email}},
			"account":         {store.MessageQuery{Account: account}, []delivery.MessageID{sent}},
			"unknown account": {store.MessageQuery{Account: delivery.AccountID{1, 2}}, nil},
			"time":            {store.MessageQuery{Since: since}, []delivery.MessageID{email, sent}},
			"both":            {store.MessageQuery{Since: since, Channel: delivery.SMS}, []delivery.MessageID{sent}},
			"campaign":        {store.MessageQuery{Campaign: delivery.CampaignID{1}}, nil},
		} {
			want.q.Limit = 10
			page, err := k.s.Messages(k.ctx, acme, want.q)
			k.ok(err)
			var ids []delivery.MessageID
			for _, m := range page {
				ids = append(ids, m.ID)
			}
			k.is(ids, want.ids, "by %s", what)
		}
	}},
	{"a limit outside 1–1,000 is refused", func(k *kit) {
		for _, limit := range []int{-1, 0, 1001} {
			_, err := k.s.Messages(k.ctx, acme, store.MessageQuery{Limit: limit})
			k.is(err != nil, true, "limit %d", limit)
		}
	}},
	{"a waiting message is canceled, once for all", func(k *kit) {
		id := k.accept()
		for range 2 {
			st, err := k.s.Cancel(k.ctx, acme, id, k.now)
			k.ok(err)
			k.is(st, delivery.StatusCanceled, "status")
		}
		m := k.message(id)
		k.is([]any{m.Status, m.Reason, m.DueAt.IsZero()}, []any{delivery.StatusCanceled, store.ReasonCanceled, true},
			"the message")
		k.is(k.kinds(id), []delivery.FactKind{delivery.FactAccepted, delivery.FactEnded}, "facts")
		k.is(len(k.claim(id)), 0, "it is never claimed")
	}},
	{"a cancel that is too late says which status made it so", func(k *kit) {
		sending := k.claimed().ID
		sent := k.sent("p")
		for id, want := range map[delivery.MessageID]delivery.Status{sending: delivery.StatusSending,
			sent: delivery.StatusSent} {
			st, err := k.s.Cancel(k.ctx, acme, id, k.now)
			k.fails(err, store.ErrConflict, "too late")
			k.is(st, want, "the status after the call")
		}
	}},
	{"events come oldest first, none twice and none left out, and survive a restart", func(k *kit) {
		type place struct {
			id   delivery.MessageID
			kind delivery.FactKind
		}
		want := map[place]int{}
		ids := k.several(40)
		for _, c := range k.claim(ids...) {
			k.settle(store.Outcome{ID: c.ID, Epoch: 1, Status: delivery.StatusFailed, Reason: "r"})
			want[place{c.ID, delivery.FactAccepted}]++
			want[place{c.ID, delivery.FactClaimed}]++
			want[place{c.ID, delivery.FactEnded}]++
		}
		k.acceptAs(other, k.draft())
		k.reopen()
		for _, step := range []int{1, 7, 1000} {
			got := map[place]int{}
			after, end := int64(0), int64(0)
			for {
				events, latest, err := k.s.Events(k.ctx, acme, after, step)
				k.ok(err)
				end = latest
				if len(events) == 0 {
					break
				}
				k.is(len(events) <= step, true, "at most limit")
				for _, e := range events {
					k.is(e.Seq > after, true, "sequences only grow")
					k.is(e.Channel, delivery.SMS, "channel")
					after = e.Seq
					got[place{e.Fact.Message, e.Fact.Kind}]++
				}
			}
			k.is(got, want, "events in steps of %d", step)
			k.is(end, after, "latest is the sequence of the last")
		}
		id := k.accept()
		_, latest, err := k.s.Events(k.ctx, acme, 0, 1)
		k.ok(err)
		events, _, err := k.s.Events(k.ctx, acme, latest-1, 10)
		k.ok(err)
		k.is(len(events), 1, "events from latest on")
		k.is(events[0].Fact.Message, id, "the newest event")
	}},
	{"events of nobody, and of a tenant without messages, are none", func(k *kit) {
		for _, t := range []delivery.TenantID{"nobody", other} {
			events, latest, err := k.s.Events(k.ctx, t, 0, 10)
			k.ok(err)
			k.is([]any{len(events), latest}, []any{0, int64(0)}, "events of %s", t)
		}
	}},
}
