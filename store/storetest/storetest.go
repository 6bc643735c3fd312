// Package storetest is the conformance kit of store.Store: a subtest per sentence of the contract.
//
// An implementation runs it from one test of its own. Every subtest works on a store of its own and ends with an audit
// of its tenants, so each promise is also checked against the books.
package storetest

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Harness makes stores for the kit.
type Harness struct {
	// Open returns an empty store that is closed when the test ends.
	Open func(t *testing.T) store.Store
	// Reopen closes s and returns a store with the same data.
	Reopen func(t *testing.T, s store.Store) store.Store
}

// Run checks every promise of store.Store. Failures name the sentence that does not hold.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		tests []sentence
		needs func(store.Store) bool // a role that a store may have; nil = every store has it
	}{
		{"Accept", acceptTests, nil},
		{"Read", readTests, nil},
		{"Queues", queueTests, nil},
		{"Claim", claimTests, nil},
		{"Settle", settleTests, nil},
		{"Receipts", receiptTests, nil},
		{"Legs", legTests, nil},
		{"Order", orderTests, nil},
		{"Dead letters", deadLetterTests, nil},
		{"Notes", noteTests, nil},
		{"Suppressions", suppressionTests, nil},
		{"Campaigns", campaignTests, nil},
		{"Audiences", audienceTests, nil},
		{"Records", recordTests, nil},
		{"Tenants", tenantTests, nil},
		{"Life", lifeTests, nil},
		{"Nodes", nodeTests, isNodes},
		{"Changes", changeTests, isNodes},
	} {
		if group.needs != nil && !group.needs(h.Open(t)) {
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			for _, s := range group.tests {
				t.Run(s.says, func(t *testing.T) {
					k := open(t, h)
					s.check(k)
					k.audit()
				})
			}
		})
	}
}

// sentence is one promise and how it is checked.
type sentence struct {
	says  string
	check func(*kit)
}

// kit is what a check works with: a store with the tenants acme and other, and a clock that only it turns.
type kit struct {
	*testing.T
	h   Harness
	s   store.Store
	ctx context.Context
	sys store.System
	ids *delivery.IDs
	now time.Time
}

const (
	acme  delivery.TenantID = "acme"
	other delivery.TenantID = "other"
	node                    = "node-1"
)

func open(t *testing.T, h Harness) *kit {
	k := &kit{T: t, h: h, s: h.Open(t), ctx: context.Background(), sys: store.AsSystem("storetest")}
	k.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k.ids = delivery.NewIDs(func() time.Time { return k.now })
	for _, id := range []delivery.TenantID{acme, other} {
		k.ok(k.s.CreateTenant(k.ctx, k.sys, store.Tenant{ID: id, Name: string(id), CreatedAt: k.now}))
	}
	return k
}

func (k *kit) reopen() { k.s = k.h.Reopen(k.T, k.s) }

// audit fails the test when the books of a tenant are not right.
func (k *kit) audit() {
	k.Helper()
	tenants, err := k.s.TenantList(k.ctx, k.sys)
	k.ok(err)
	for _, t := range tenants {
		r, err := k.s.Audit(k.ctx, t.ID)
		k.ok(err)
		for _, p := range r.Problems {
			k.Errorf("audit of %s: %s: %s: %s", t.ID, p.What, p.Subject, p.Detail)
		}
		if r.Accepted != r.Live+r.HandedOn+r.Ended {
			k.Errorf("audit of %s: %d accepted, but %d live, %d handed on, %d ended", t.ID, r.Accepted, r.Live, r.HandedOn,
				r.Ended)
		}
	}
}

func (k *kit) ok(err error) {
	k.Helper()
	if err != nil {
		k.Fatalf("unexpected error: %v", err)
	}
}

// is compares two values deeply.
func (k *kit) is(got, want any, what string, args ...any) {
	k.Helper()
	if !reflect.DeepEqual(got, want) {
		k.Fatalf("%s\n got: %+v\nwant: %+v", fmt.Sprintf(what, args...), got, want)
	}
}

// fails wants an error that wraps want.
func (k *kit) fails(err, want error, what string) {
	k.Helper()
	if !errorIs(err, want) {
		k.Fatalf("%s\n got: %v\nwant: %v", what, err, want)
	}
}

// tick turns the clock.
func (k *kit) tick(d time.Duration) { k.now = k.now.Add(d) }

// draft makes an SMS to a number of its own, due now.
func (k *kit) draft(change ...func(*store.NewMessage)) store.NewMessage {
	id := k.ids.Message()
	m := store.NewMessage{ID: id, Channel: delivery.SMS, Lane: delivery.Normal, To: fmt.Sprintf("+9198%08x", id[8:12]),
		Payload: []byte(`{"content":{"text":"hello"}}`), Segments: 1, DueAt: k.now, ExpiresAt: k.now.Add(24 * time.Hour)}
	for _, f := range change {
		f(&m)
	}
	return m
}

// accept stores one message of acme and returns its id.
func (k *kit) accept(change ...func(*store.NewMessage)) delivery.MessageID {
	k.Helper()
	m := k.draft(change...)
	k.acceptAs(acme, m)
	return m.ID
}

func (k *kit) acceptAs(tenant delivery.TenantID, ms ...store.NewMessage) store.Accepted {
	k.Helper()
	out, err := k.s.Accept(k.ctx, tenant, store.Acceptance{Now: k.now, Messages: ms})
	k.ok(err)
	return out
}

// several stores n messages of acme and returns their ids.
func (k *kit) several(n int, change ...func(*store.NewMessage)) []delivery.MessageID {
	k.Helper()
	ms := make([]store.NewMessage, n)
	ids := make([]delivery.MessageID, n)
	for i := range ms {
		ms[i] = k.draft(change...)
		ids[i] = ms[i].ID
	}
	k.acceptAs(acme, ms...)
	return ids
}

func (k *kit) claim(ids ...delivery.MessageID) []store.Claimed {
	k.Helper()
	got, err := k.s.Claim(k.ctx, k.sys, store.Claim{IDs: ids, Node: node, Now: k.now, Until: k.now.Add(time.Minute)})
	k.ok(err)
	return got
}

// claimed accepts and claims one message.
func (k *kit) claimed(change ...func(*store.NewMessage)) store.Claimed {
	k.Helper()
	got := k.claim(k.accept(change...))
	k.is(len(got), 1, "a due message is claimed")
	return got[0]
}

func (k *kit) settle(o store.Outcome) store.Settled {
	k.Helper()
	if o.Writer == 0 {
		o.Writer = delivery.BySend
	}
	got, err := k.s.Settle(k.ctx, k.sys, k.now, []store.Outcome{o})
	k.ok(err)
	k.is(len(got), 1, "a result per outcome")
	return got[0]
}

var account = delivery.AccountID{7}

// sent takes one message through accept, claim and a settled hand-off with an indexed provider id.
func (k *kit) sent(ref string, change ...func(*store.NewMessage)) delivery.MessageID {
	k.Helper()
	c := k.claimed(change...)
	got := k.settle(store.Outcome{ID: c.ID, Epoch: c.Epoch, Status: delivery.StatusSent, Account: account,
		ProviderID: ref, IndexProviderID: true, Attempted: true})
	k.is(got.Applied, true, "a hand-off is applied")
	return c.ID
}

func (k *kit) report(rs ...delivery.Receipt) []store.Reported {
	k.Helper()
	got, err := k.s.Report(k.ctx, k.sys, k.now, 72*time.Hour, rs)
	k.ok(err)
	k.is(len(got), len(rs), "a result per receipt")
	return got
}

func (k *kit) message(id delivery.MessageID) store.Message {
	k.Helper()
	m, err := k.s.Message(k.ctx, acme, id)
	k.ok(err)
	return m
}

func (k *kit) status(id delivery.MessageID, want delivery.Status, what string) {
	k.Helper()
	if got := k.message(id).Status; got != want {
		k.Fatalf("%s\n got: %s\nwant: %s", what, got, want)
	}
}

func (k *kit) facts(id delivery.MessageID) []delivery.Fact {
	k.Helper()
	fs, err := k.s.Facts(k.ctx, acme, id)
	k.ok(err)
	return fs
}

// kinds lists the kinds of a message's facts.
func (k *kit) kinds(id delivery.MessageID) (kinds []delivery.FactKind) {
	k.Helper()
	for _, f := range k.facts(id) {
		kinds = append(kinds, f.Kind)
	}
	return kinds
}

func (k *kit) tally(id delivery.CampaignID) store.Tally {
	k.Helper()
	t, err := k.s.Tally(k.ctx, acme, id)
	k.ok(err)
	return t
}
