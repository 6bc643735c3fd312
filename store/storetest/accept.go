package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func errorIs(err, want error) bool { return errors.Is(err, want) }

func (k *kit) key(text string, print byte) *store.IdempotencyKey {
	return &store.IdempotencyKey{Route: "POST /v1/messages", Key: text, Fingerprint: [32]byte{print},
		Expires: k.now.Add(time.Hour)}
}

var acceptTests = []sentence{
	{"what is accepted is there after a restart, as it was given", func(k *kit) {
		m := k.draft(func(m *store.NewMessage) {
			m.Account, m.AtMostOnce, m.ClientRef, m.Lane = account, true, "order-1", delivery.Urgent
		})
		got := k.acceptAs(acme, m)
		want := store.Accepted{Results: []store.AcceptResult{{ID: m.ID, Status: delivery.StatusQueued}}}
		k.is(got, want, "the results of an acceptance")
		k.reopen()
		k.is(k.message(m.ID), store.Message{ID: m.ID, Tenant: acme, Channel: m.Channel, Lane: m.Lane,
			Status: delivery.StatusQueued,
			To:     m.To, Payload: m.Payload, Segments: 1, Account: account, ClientRef: "order-1", AtMostOnce: true,
			AcceptedAt: k.now, UpdatedAt: k.now, DueAt: k.now, ExpiresAt: m.ExpiresAt}, "the message after a restart")
		fs := k.facts(m.ID)
		k.is(fs, []delivery.Fact{{Message: m.ID, Kind: delivery.FactAccepted, At: k.now, Status: delivery.StatusQueued,
			Code: "queued", Until: k.now}}, "the first fact")
	}},
	{"a due time later than now is stored as scheduled", func(k *kit) {
		due := k.now.Add(time.Hour)
		id := k.accept(func(m *store.NewMessage) { m.DueAt = due })
		m := k.message(id)
		k.is(m.Status, delivery.StatusScheduled, "status")
		k.is(m.DueAt, due, "due time")
	}},
	{"an unknown tenant is ErrNotFound", func(k *kit) {
		_, err := k.s.Accept(k.ctx, "nobody", store.Acceptance{Now: k.now, Messages: []store.NewMessage{k.draft()}})
		k.fails(err, store.ErrNotFound, "accept for a tenant that is not there")
	}},
	{"no message, and ids that do not increase, are refused", func(k *kit) {
		a, b := k.draft(), k.draft()
		for _, ms := range [][]store.NewMessage{nil, {b, a}, {a, a}, {{Channel: delivery.SMS, Lane: delivery.Normal,
			To: "x"}}} {
			if _, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: ms}); err == nil {
				k.Fatalf("%d messages were accepted that should be refused", len(ms))
			}
		}
	}},
	{"all messages of an acceptance are stored, or none", func(k *kit) {
		first := k.draft()
		k.acceptAs(acme, first)
		second := k.draft()
		ms := []store.NewMessage{first, second}
		_, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: ms})
		k.fails(err, store.ErrExists, "an id that is taken")
		_, err = k.s.Message(k.ctx, acme, second.ID)
		k.fails(err, store.ErrNotFound, "its neighbour is not stored either")
	}},
	{"the same idempotency key with the same fingerprint returns the first results and stores nothing", func(k *kit) {
		k.ok(k.s.Suppress(k.ctx, acme, []store.Suppression{{To: "+15550001", Reason: "opt_out", At: k.now}}))
		first := []store.NewMessage{k.draft(), k.draft(func(m *store.NewMessage) { m.To = "+15550001" })}
		out, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Key: k.key("a", 1), Messages: first})
		k.ok(err)
		k.is(out.Results[1], store.AcceptResult{ID: first[1].ID, Status: delivery.StatusSuppressed, Reason: "opt_out"},
			"suppressed")
		k.reopen()
		again := []store.NewMessage{k.draft(), k.draft()}
		replay, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now.Add(time.Minute), Key: k.key("a", 1),
			Messages: again})
		k.ok(err)
		out.Replayed = true
		k.is(replay, out, "the replay")
		n, err := k.s.Usage(k.ctx, acme, k.now)
		k.ok(err)
		k.is(n, int64(2), "the quota counts the request once")
	}},
	{"the same idempotency key with another fingerprint is ErrKeyReused", func(k *kit) {
		_, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Key: k.key("a", 1),
			Messages: []store.NewMessage{k.draft()}})
		k.ok(err)
		m := k.draft()
		_, err = k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Key: k.key("a", 2), Messages: []store.NewMessage{m}})
		k.fails(err, store.ErrKeyReused, "another request under the key")
		_, err = k.s.Message(k.ctx, acme, m.ID)
		k.fails(err, store.ErrNotFound, "nothing is stored")
	}},
	{"a key's scope is tenant, route and key", func(k *kit) {
		key := k.key("a", 1)
		k.acceptKeyed(acme, key)
		k.is(k.acceptKeyed(other, k.key("a", 2)).Replayed, false, "another tenant's key")
		route := k.key("a", 3)
		route.Route = "POST /v1/batches"
		k.is(k.acceptKeyed(acme, route).Replayed, false, "another route's key")
	}},
	{"an expired key may be used anew", func(k *kit) {
		k.acceptKeyed(acme, k.key("a", 1))
		k.tick(time.Hour)
		k.is(k.acceptKeyed(acme, k.key("a", 2)).Replayed, false, "after the key expired")
		k.is(k.acceptKeyed(acme, k.key("a", 2)).Replayed, true, "the new use is kept")
	}},
	{"of 50 requests at once with one key exactly one is stored", func(k *kit) {
		const n = 50
		ms := make([]store.NewMessage, n)
		for i := range ms {
			ms[i] = k.draft()
		}
		results := make([]store.Accepted, n)
		errs := make([]error, n)
		together(n, func(i int) {
			a := store.Acceptance{Now: k.now, Key: k.key("a", 1), Messages: ms[i : i+1]}
			results[i], errs[i] = k.s.Accept(k.ctx, acme, a)
		})
		stored := 0
		for i := range n {
			k.ok(errs[i])
			k.is(results[i].Results, results[0].Results, "all get the same answer")
			if !results[i].Replayed {
				stored++
			}
		}
		k.is(stored, 1, "how many were not replays")
		list, err := k.s.Messages(k.ctx, acme, store.MessageQuery{Limit: 100})
		k.ok(err)
		k.is(len(list), 1, "how many messages there are")
	}},
	{"a quota is never exceeded, and a refusal stores nothing", func(k *kit) {
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: acme, DailyQuota: 10}))
		const n = 30
		ms := make([]store.NewMessage, n)
		for i := range ms {
			ms[i] = k.draft()
		}
		errs := make([]error, n)
		together(n, func(i int) {
			_, errs[i] = k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: ms[i : i+1]})
		})
		took := 0
		for _, err := range errs {
			var q *store.QuotaError
			switch {
			case err == nil:
				took++
			case !errors.As(err, &q):
				k.Fatalf("unexpected error: %v", err)
			default:
				k.is(*q, store.QuotaError{Limit: 10, Used: 10, Asked: 1, Resets: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)},
					"refusal")
			}
		}
		k.is(took, 10, "accepted under a quota of 10")
		k.reopen()
		_, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: []store.NewMessage{k.draft()}})
		var q *store.QuotaError
		k.is(errors.As(err, &q), true, "the count outlives a restart")
		k.tick(12 * time.Hour)
		k.accept()
		used, err := k.s.Usage(k.ctx, acme, k.now)
		k.ok(err)
		k.is(used, int64(1), "a new UTC day counts anew")
	}},
	{"a batch above the rest of the quota is refused as a whole", func(k *kit) {
		k.ok(k.s.UpdateTenant(k.ctx, k.sys, store.Tenant{ID: acme, DailyQuota: 3}))
		k.several(2)
		ms := []store.NewMessage{k.draft(), k.draft()}
		_, err := k.s.Accept(k.ctx, acme, store.Acceptance{Now: k.now, Messages: ms})
		var q *store.QuotaError
		k.is(errors.As(err, &q), true, "two messages where one is left")
		k.several(1)
	}},
	{"a call whose context has ended writes nothing", func(k *kit) {
		ctx, cancel := context.WithCancel(k.ctx)
		cancel()
		m := k.draft()
		_, err := k.s.Accept(ctx, acme, store.Acceptance{Now: k.now, Messages: []store.NewMessage{m}})
		k.fails(err, context.Canceled, "accept with an ended context")
		_, err = k.s.Message(k.ctx, acme, m.ID)
		k.fails(err, store.ErrNotFound, "nothing is stored")
	}},
}

func (k *kit) acceptKeyed(tenant delivery.TenantID, key *store.IdempotencyKey) store.Accepted {
	k.Helper()
	out, err := k.s.Accept(k.ctx, tenant, store.Acceptance{Now: k.now, Key: key, Messages: []store.NewMessage{k.draft()}})
	k.ok(err)
	return out
}

// together calls f from n goroutines that start at the same moment, and waits for all.
func together(n int, f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

// oneWrites lets eight write over the same row at once, each with a name of its own, and returns the name of the one that
// did. All others must have been told that the row has changed.
func (k *kit) oneWrites(write func(by string) error) (did string) {
	k.Helper()
	errs := make([]error, 8)
	name := func(i int) string { return fmt.Sprint("by ", i) }
	together(len(errs), func(i int) { errs[i] = write(name(i)) })
	for i, err := range errs {
		if err == nil {
			k.is(did, "", "the one before that was written too")
			did = name(i)
			continue
		}
		k.fails(err, store.ErrConflict, "all others")
	}
	return did
}
