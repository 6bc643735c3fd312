package campaigns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

func TestExpansionStandsStillWhileTooManyWait(t *testing.T) {
	b := setup(t)
	b.MaxWaiting = 1200
	c := b.addCampaign("big", 5000)
	_, err := b.Start(t.Context(), acme, "big")
	require.NoError(t, err)
	for sent := 0; sent < 5000; {
		b.drive(t.Context())
		r := b.report(t, "big")
		require.LessOrEqual(t, r.Waiting, 1200)
		require.Positive(t, r.Waiting)
		b.store.send(c.ID)
		sent = r.Accepted
	}
	b.drive(t.Context())
	requireOnce(t, b.store, c)
	require.Equal(t, store.CampaignCompleted, b.report(t, "big").Campaign.State)
}

func TestAbsentPeopleDoNotHoldUpTheOthers(t *testing.T) {
	b := setup(t)
	b.MaxWaiting = 500
	c := b.addCampaign("c", 10_000)
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	for range 50 {
		b.drive(t.Context())
		b.store.mu.Lock()
		b.store.moveMessages(c.ID, delivery.StatusQueued, delivery.StatusDeferred)
		b.store.mu.Unlock()
	}
	require.Equal(t, patience*500, b.report(t, "c").Waiting)
}

func TestTenantsAndCampaignsTakeTurns(t *testing.T) {
	b := setup(t)
	big, small := b.addCampaign("big", 3000), b.addCampaign("small", 600)
	other := b.addCampaign("other", 600)
	other.Tenant = "globex"
	for _, name := range []string{"big", "small"} {
		_, err := b.Start(t.Context(), acme, name)
		require.NoError(t, err)
	}
	other.State, other.Legs[0].Version, other.People = store.CampaignRunning, 1, 600
	turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
	for range 4 {
		_, moved := b.round(t.Context(), turns, &turn)
		require.True(t, moved)
	}
	count := map[delivery.CampaignID]int{}
	for _, m := range b.store.messages {
		count[m.Campaign]++
	}
	require.Equal(t, 600, count[other.ID], "the other tenant is not behind two campaigns")
	require.Equal(t, 600, count[small.ID], "the small campaign is not behind the big one")
	require.Equal(t, 1000, count[big.ID])
}

func TestPeopleGoByTheirChannel(t *testing.T) {
	legs := []store.Leg{{Channel: delivery.WhatsApp}, {Channel: delivery.SMS}, {Channel: delivery.Email}}
	for _, tc := range []struct {
		name   string
		person store.Person
		want   delivery.Channel
		to     string
	}{
		{"first leg with an address", store.Person{Phone: "+1", Email: "a@b.c"}, delivery.WhatsApp, "+1"},
		{"the person's wish", store.Person{Phone: "+1", Email: "a@b.c", Channel: delivery.Email}, delivery.Email, "a@b.c"},
		{"the wish among phone channels", store.Person{Phone: "+1", Channel: delivery.SMS}, delivery.SMS, "+1"},
		{"a wish that the campaign has not", store.Person{Phone: "+1", URL: "u", Channel: delivery.Webhook}, delivery.WhatsApp, "+1"},
		{"a wish without its address", store.Person{Email: "a@b.c", Channel: delivery.SMS}, delivery.Email, "a@b.c"},
		{"nothing", store.Person{URL: "u"}, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			leg, to, ok := legFor(&tc.person, legs)
			require.Equal(t, tc.want != 0, ok)
			if ok {
				require.Equal(t, tc.want, legs[leg].Channel)
			}
			require.Equal(t, tc.to, to)
		})
	}
}

func TestPeopleWithoutAnAddressAreSkippedAndCounted(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("mixed", 10)
	for i := range 4 {
		b.store.people[c.Audience][i] = store.Person{Seq: int64(i + 1), Email: "a@example.com"}
	}
	_, err := b.Start(t.Context(), acme, "mixed")
	require.NoError(t, err)
	b.drive(t.Context())
	r := b.report(t, "mixed")
	require.Equal(t, map[string]int{"no_address": 4}, r.Skipped)
	require.Equal(t, 6, r.Accepted)
}

func TestQuotaHoldsTheExpansionAndItGoesOn(t *testing.T) {
	b := setup(t)
	c := b.addCampaign("quota", 1300)
	b.store.quota = 730
	_, err := b.Start(t.Context(), acme, "quota")
	require.NoError(t, err)
	b.drive(t.Context())
	r := b.report(t, "quota")
	require.Equal(t, 730, r.Accepted, "the quota is used to the last message")
	require.Equal(t, Held{"quota", b.clock.Now().Add(quotaEvery)}, r.Held)
	b.store.quota = 5000
	b.drive(t.Context())
	require.Equal(t, 730, b.report(t, "quota").Accepted, "not looked at again before its time")
	b.clock.Advance(quotaEvery)
	b.drive(t.Context())
	r = b.report(t, "quota")
	require.Equal(t, 1300, r.Accepted)
	require.Zero(t, r.Held)
	requireOnce(t, b.store, c)
}

func TestWhatHoldsAnExpansion(t *testing.T) {
	for _, tc := range []struct {
		reason string
		breaks func(b *bundle, c *store.Campaign)
		mends  func(b *bundle, c *store.Campaign)
	}{
		{"storage_unavailable",
			func(b *bundle, _ *store.Campaign) {
				b.store.fault = func(string, bool) error { return fmt.Errorf("disk full: %w", store.ErrUnavailable) }
			},
			func(b *bundle, _ *store.Campaign) { b.store.fault = nil }},
		{"error",
			func(b *bundle, _ *store.Campaign) {
				b.store.fault = func(string, bool) error { return errors.New("bug") }
			},
			func(b *bundle, _ *store.Campaign) { b.store.fault = nil }},
		{"account_missing",
			func(b *bundle, c *store.Campaign) { c.Legs[0].Account = "gone" },
			func(b *bundle, c *store.Campaign) { c.Legs[0].Account = "sms-one" }},
		{"audience_missing",
			func(b *bundle, c *store.Campaign) {
				b.store.audiences["away"], b.store.audiences[c.Audience] = b.store.audiences[c.Audience], nil
			},
			func(b *bundle, c *store.Campaign) { b.store.audiences[c.Audience] = b.store.audiences["away"] }},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			b := setup(t)
			c := b.addCampaign("c", 700)
			_, err := b.Start(t.Context(), acme, "c")
			require.NoError(t, err)
			tc.breaks(b, c)
			b.drive(t.Context())
			r := b.report(t, "c")
			require.Equal(t, tc.reason, r.Held.Reason)
			require.Zero(t, r.Accepted)
			tc.mends(b, c)
			b.clock.Advance(time.Minute)
			b.drive(t.Context())
			requireOnce(t, b.store, c)
		})
	}
}

// TestNobodyIsLostOrDoubledWhereverTheProcessEnds cuts the expansion off at any write, before it or after it is
// durable, by an error or by the end of the process, while somebody pauses, resumes and sends.
func TestNobodyIsLostOrDoubledWhereverTheProcessEnds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		n := rapid.IntRange(1, 3300).Draw(rt, "people")
		rnd := rand.New(rand.NewPCG(seed, 1))
		f := newFake()
		clock := clockwork.NewFakeClockAt(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
		b := setupWith(t, f, clock)
		c := b.addCampaign("c", n)
		_, err := b.Start(t.Context(), acme, "c")
		require.NoError(rt, err)
		for life := 0; c.State != store.CampaignCompleted; life++ {
			require.Less(rt, life, 1000, "no progress")
			ctx, kill := context.WithCancelCause(t.Context())
			b = setupWith(t, f, clock) // a new process: nothing is remembered
			b.MaxWaiting = 1000 + rnd.IntN(3000)
			f.fault = func(op string, after bool) error {
				if life > 60 {
					return nil
				}
				switch rnd.IntN(8) {
				case 0:
					kill(errors.New("killed"))
					return context.Canceled
				case 1:
					if after {
						return store.ErrOutcomeUnknown
					}
					return store.ErrUnavailable
				}
				return nil
			}
			turns, turn := map[delivery.CampaignID]uint64{}, uint64(0)
			for range 1 + rnd.IntN(12) {
				b.round(ctx, turns, &turn)
				switch rnd.IntN(6) {
				case 0:
					_, _ = b.Pause(ctx, acme, "c")
				case 1, 2:
					_, _ = b.Resume(ctx, acme, "c")
				case 3:
					f.send(c.ID)
				}
				clock.Advance(time.Duration(rnd.IntN(4000)) * time.Millisecond)
				r, err := b.Report(t.Context(), acme, "c")
				require.NoError(rt, err)
				require.NoError(rt, r.Sums())
			}
			if life > 60 {
				_, _ = b.Resume(ctx, acme, "c")
			}
			f.send(c.ID)
			kill(nil)
		}
		requireOnce(rt, f, c)
	})
}

func TestRunSleepsUntilKickedAndEndsWithItsContext(t *testing.T) {
	b := setup(t)
	b.MaxWaiting = 1000
	c := b.addCampaign("c", 1500)
	ctx, stop := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	hinted := make(chan int, 10)
	b.Accepted = func(rs []store.AcceptResult, _ delivery.Queue) { hinted <- len(rs) }
	go func() { ended <- b.Run(ctx) }()
	_, err := b.Start(ctx, acme, "c") // kicks
	require.NoError(t, err)
	require.Equal(t, 500, <-hinted)
	require.Equal(t, 500, <-hinted)
	require.NoError(t, b.clock.BlockUntilContext(ctx, 1)) // too many wait: the next look
	b.store.send(c.ID)
	b.clock.Advance(lookEvery)
	require.Equal(t, 500, <-hinted)
	require.NoError(t, b.clock.BlockUntilContext(ctx, 1))
	cause := errors.New("shutting down")
	stop(cause)
	require.ErrorIs(t, <-ended, cause)
}

func BenchmarkExpand(b *testing.B) {
	s := setup(b)
	s.MaxWaiting = 1 << 30
	c := s.addCampaign("c", 500)
	c.Legs[0].Version = 1
	c.State = store.CampaignRunning
	people := s.store.people[c.Audience]
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.messages(b.Context(), *c, people, s.clock.Now()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "messages/s")
}
