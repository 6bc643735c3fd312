package campaigns

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const acme delivery.TenantID = "acme"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bundle is a Service on a fake store.
type bundle struct {
	*Service
	store  *fakeStore
	clock  *clockwork.FakeClock
	mu     sync.Mutex
	hinted []delivery.MessageID
	paused []string
}

func setup(t testing.TB) *bundle {
	return setupWith(t, newFake(), clockwork.NewFakeClockAt(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)))
}

func setupWith(t testing.TB, f *fakeStore, clock *clockwork.FakeClock) *bundle {
	b := &bundle{store: f, clock: clock}
	b.Service = New(Deps{
		Store: f, IDs: delivery.NewIDs(clock.Now), Clock: clock, Dir: t.TempDir(),
		Accepted: func(rs []store.AcceptResult, q delivery.Queue) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, r := range rs {
				b.hinted = append(b.hinted, r.ID)
			}
		},
		PausedChanged: func(id delivery.CampaignID, paused bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.paused = append(b.paused, fmt.Sprint(paused))
		},
	})
	return b
}

// addCampaign makes a draft on an audience of n people with phone numbers, a template and an account for SMS.
func (b *bundle) addCampaign(name string, n int) *store.Campaign {
	f := b.store
	f.mu.Lock()
	defer f.mu.Unlock()
	audience := name + "-people"
	f.audiences[audience] = &store.Audience{Name: audience, Ready: true, People: n}
	f.keys[audience] = map[string]bool{}
	for i := range n {
		f.people[audience] = append(f.people[audience], store.Person{
			Seq: int64(i + 1), Phone: phone(i), Vars: []byte(fmt.Sprintf(`{"name":"N%d"}`, i)),
		})
	}
	if len(f.templates["hi"]) == 0 {
		f.templates["hi"] = []store.Template{{Name: "hi", Channel: delivery.SMS, Version: 1, Text: "Hi {{ name }}"}}
		f.accounts = append(f.accounts, store.Account{ID: b.IDs.Account(), Tenant: acme, Name: "sms-one", Channel: delivery.SMS})
	}
	c := &store.Campaign{ID: b.IDs.Campaign(), Tenant: acme, Name: name, State: store.CampaignDraft, Audience: audience,
		Legs: []store.Leg{{Channel: delivery.SMS, Template: "hi"}}, TTL: time.Hour}
	f.campaigns[name] = c
	return c
}

func phone(i int) string { return fmt.Sprintf("+1202%07d", 5000000+i) }

// send hands off everything that waits, as the pipeline would.
func (f *fakeStore) send(id delivery.CampaignID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moveMessages(id, delivery.StatusQueued, delivery.StatusSent)
}

// drive makes rounds until one does nothing.
func (b *bundle) drive(ctx context.Context) {
	turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
	for moved := true; moved; {
		_, moved = b.round(ctx, turns, &turn)
	}
}

func (b *bundle) report(t testing.TB, name string) Report {
	t.Helper()
	r, err := b.Report(t.Context(), acme, name)
	require.NoError(t, err)
	require.NoError(t, r.Sums())
	return r
}

// requireOnce proves that every person of an audience has exactly one message of a campaign, with their own variables.
func requireOnce(t require.TestingT, f *fakeStore, c *store.Campaign) {
	f.mu.Lock()
	defer f.mu.Unlock()
	want := map[string]string{}
	for _, p := range f.people[c.Audience] {
		want[p.Phone] = string(p.Vars)
	}
	for _, m := range f.messages {
		if m.Campaign != c.ID {
			continue
		}
		vars, ok := want[m.To]
		require.True(t, ok, "a person has two messages, or is of another audience")
		require.Contains(t, string(m.Payload), vars)
		delete(want, m.To)
	}
	require.Empty(t, want, "people without a message")
}

func TestCampaignFromStartToEnd(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("diwali", 1234)
	b.store.suppressed = []store.Suppression{{Channel: delivery.SMS, To: phone(7), Reason: "opt_out"}}
	started, err := b.Start(t.Context(), acme, "diwali")
	require.NoError(t, err)
	require.Equal(t, store.CampaignRunning, started.State)
	require.Equal(t, 1, started.Legs[0].Version)
	require.Equal(t, 1234, started.People)
	r := b.report(t, "diwali")
	require.Equal(t, 1234, r.ToExpand)

	b.drive(t.Context())
	r = b.report(t, "diwali")
	require.Equal(t, 1234, r.Accepted)
	require.Equal(t, 1, r.ByStatus[delivery.StatusSuppressed])
	require.Equal(t, 1233, r.Waiting)
	require.True(t, r.Campaign.Expanded)
	require.Equal(t, store.CampaignRunning, r.Campaign.State, "messages still wait")
	require.Len(t, b.hinted, 1233)
	requireOnce(t, b.store, c)
	m := b.store.messages[3]
	require.JSONEq(t, `{"template":"hi","version":1,"vars":{"name":"N3"}}`, string(m.Payload))
	require.Equal(t, delivery.Bulk, m.Lane)
	require.Equal(t, b.clock.Now().Add(time.Hour), m.ExpiresAt)
	require.Equal(t, 1, m.Segments, "counted ahead, for the limits")

	b.store.send(c.ID)
	b.drive(t.Context())
	r = b.report(t, "diwali")
	require.Equal(t, store.CampaignCompleted, r.Campaign.State)
	require.Equal(t, b.clock.Now(), r.Campaign.EndedAt)
	_, err = b.Stop(t.Context(), acme, "diwali")
	var state *StateError
	require.ErrorAs(t, err, &state)
	require.Equal(t, store.CampaignCompleted, state.State)
	require.Empty(t, state.Actions)
}
