package pipeline

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

func TestTheFirstRuleThatMatchesIsTheSchedule(t *testing.T) {
	own := []time.Duration{5 * time.Second}
	one, two, three := []time.Duration{1}, []time.Duration{2}, []time.Duration{3}
	rules := []delivery.RetryRule{
		{Channel: delivery.SMS, Class: delivery.InDoubt, Delays: one, GiveUpAfter: time.Hour},
		{Channel: delivery.SMS, Delays: two},
		{Class: delivery.InDoubt, Delays: three},
		{Channel: delivery.Webhook, GiveUpAfter: time.Minute},
		{Channel: delivery.SMS, Class: delivery.Transient, Delays: one}, // never reached
	}
	for _, c := range []struct {
		ch    delivery.Channel
		class delivery.Class
		want  schedule
	}{
		{delivery.SMS, delivery.InDoubt, schedule{one, time.Hour}},
		{delivery.SMS, delivery.Transient, schedule{two, 0}},
		{delivery.Email, delivery.InDoubt, schedule{three, 0}},
		{delivery.Email, delivery.Transient, schedule{own, 0}},
		{delivery.Webhook, delivery.Transient, schedule{own, time.Minute}},
		{delivery.Webhook, delivery.InDoubt, schedule{three, 0}},
	} {
		require.Equal(t, c.want, pickSchedule(rules, own, c.ch, c.class), "%v %v", c.ch, c.class)
	}
	require.Equal(t, schedule{own, 0}, pickSchedule(nil, own, delivery.SMS, delivery.Transient))
}

func durations(lo, hi time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(int64(lo), int64(hi)).Draw(t, "d"))
	})
}

func TestAPauseLiesWithinItsSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := schedule{delays: rapid.SliceOfN(durations(0, 30*24*time.Hour), 1, 6).Draw(t, "delays")}
		attempts := rapid.IntRange(0, 20).Draw(t, "attempts")
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		chance := rapid.Float64Range(0, 0.999999).Draw(t, "chance")
		d := s.delays[min(attempts, len(s.delays)-1)]
		got := s.pause(attempts, share, chance)
		require.GreaterOrEqual(t, got, minDelay)
		require.LessOrEqual(t, got, max(d, minDelay))
		require.GreaterOrEqual(t, got+time.Microsecond, time.Duration((1-share)*float64(d)), "no more than its share is random")
		require.Equal(t, max(d, minDelay), s.pause(attempts, 0, chance), "without jitter it is exact")
		require.Equal(t, max(d, minDelay), s.pause(attempts, share, 0))
		require.GreaterOrEqual(t, s.pause(attempts, share, chance/2), got, "evenly")
	})
}

// retrier is a pipeline of which only the schedule is there.
func retrier(jitter float64, chance float64, rules ...delivery.RetryRule) *Pipeline {
	p := &Pipeline{opt: Options{
		Retry: []time.Duration{4 * time.Second, time.Minute}, Jitter: new(jitter),
		Chance: func(delivery.MessageID, int) float64 { return chance },
	}}
	p.tenants.load = func(delivery.TenantID) (*store.Tenant, error) { return &store.Tenant{Retry: rules}, nil }
	return p
}

// account is one of a kind.
func account(k *connectors.Kind) *routing.Account {
	return &routing.Account{ID: delivery.AccountID{1}, Name: "a", Kind: k, Timeout: time.Second}
}

func TestTheNextTry(t *testing.T) {
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	hour := delivery.RetryRule{Class: delivery.Transient, Delays: []time.Duration{30 * time.Minute}, GiveUpAfter: time.Hour}
	for name, c := range map[string]struct {
		p        *Pipeline
		age      time.Duration // since acceptance
		attempts int
		asked    time.Duration
		want     time.Duration
		last     bool
	}{
		"exact":                        {p: retrier(0, 0.9), want: 4 * time.Second},
		"the last delay repeats":       {p: retrier(0, 0), attempts: 7, want: time.Minute},
		"full jitter":                  {p: retrier(1, 0.75), want: time.Second},
		"a quarter of it":              {p: retrier(0.25, 0.5), want: 3500 * time.Millisecond},
		"never a busy loop":            {p: retrier(1, 0.9999), want: minDelay},
		"never before what was asked":  {p: retrier(1, 0.75), asked: 90 * time.Second, want: 90 * time.Second},
		"asked for less":               {p: retrier(0, 0), asked: time.Second, want: 4 * time.Second},
		"asked for a week":             {p: retrier(0, 0), asked: 7 * 24 * time.Hour, want: time.Hour},
		"the tenant's rule":            {p: retrier(0, 0, hour), want: 30 * time.Minute},
		"just in time":                 {p: retrier(0, 0, hour), age: 30 * time.Minute, want: 30 * time.Minute},
		"too late":                     {p: retrier(0, 0, hour), age: 31 * time.Minute, want: 29 * time.Minute, last: true},
		"too late by what was asked":   {p: retrier(0, 0, hour), age: 10 * time.Minute, asked: time.Hour, want: 50 * time.Minute, last: true},
		"a rule for another class":     {p: retrier(0, 0, delivery.RetryRule{Class: delivery.InDoubt, GiveUpAfter: 1}), want: 4 * time.Second},
		"a rule of another channel":    {p: retrier(0, 0, delivery.RetryRule{Channel: delivery.Email, GiveUpAfter: 1}), want: 4 * time.Second},
		"no count, however many tries": {p: retrier(0, 0, hour), attempts: 1000, want: 30 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			m := &passage{Claimed: store.Claimed{Attempts: c.attempts, AcceptedAt: now.Add(-c.age)}}
			m.Queue.Channel = delivery.SMS
			until, last := c.p.nextTry(m, delivery.Transient, c.asked, now)
			require.Equal(t, c.want, until.Sub(now))
			require.Equal(t, c.last, last)
		})
	}
	away := retrier(0, 0)
	away.tenants.load = func(delivery.TenantID) (*store.Tenant, error) { return nil, errors.New("away") }
	until, last := away.nextTry(&passage{}, delivery.Transient, 0, now)
	require.Equal(t, 4*time.Second, until.Sub(now), "a store that is away is no reason to give up")
	require.False(t, last)
}

// Messages that failed together come back spread over the whole of their delay.
func TestFullJitterSpreads(t *testing.T) {
	s := schedule{delays: []time.Duration{time.Minute}}
	var tenths [10]int
	for i := range 1000 {
		tenths[min(int(s.pause(0, 1, float64(i)/1000)*10/time.Minute), 9)]++
	}
	for i, n := range tenths {
		require.InDelta(t, 100, n, 2, "tenth %d", i)
	}
}

func TestUnknownCodesAreLoggedOnceAndBounded(t *testing.T) {
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	var u unknownCodes
	say := func(id byte, code string) {
		a := account(&connectors.Kind{Name: "k"})
		a.ID = delivery.AccountID{id}
		u.note(log, &passage{account: a}, &delivery.Failure{Class: delivery.Transient, Code: code, Detail: "+12025550100"})
	}
	for range 3 {
		say(1, "4711")
		say(2, "4711")
		say(1, "4712")
	}
	require.Equal(t, 3, strings.Count(out.String(), "\n"), "once per code and account:\n%s", out.String())
	require.NotContains(t, out.String(), "+1202", "no address")
	for i := range 3 * maxUnknownCodes {
		say(1, fmt.Sprintf("x%d-%s", i, strings.Repeat("y", 1000)))
	}
	require.Len(t, u.seen, maxUnknownCodes)
	require.LessOrEqual(t, strings.Count(out.String(), "\n"), maxUnknownCodes+1)
	require.NotContains(t, out.String(), strings.Repeat("y", 100))
}
