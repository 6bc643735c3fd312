package delivery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNamesReadBack(t *testing.T) {
	for _, s := range Statuses {
		got, err := ParseStatus(s.String())
		require.NoError(t, err)
		require.Equal(t, s, got)
	}
	for _, c := range Channels {
		got, err := ParseChannel(c.String())
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	for _, l := range []Lane{Urgent, Normal, Bulk} {
		got, err := ParseLane(l.String())
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
	_, err := ParseStatus("gone")
	require.Error(t, err)
	_, err = ParseChannel("fax")
	require.ErrorContains(t, err, "use sms")
	_, err = ParseLane("slow")
	require.Error(t, err)
}

func TestIDsReadBackAndSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := MessageID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "a"))
		b := MessageID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "b"))
		got, err := ParseMessageID(a.String())
		require.NoError(t, err)
		require.Equal(t, a, got)
		require.Equal(t, strings.Compare(string(a[:]), string(b[:])), strings.Compare(a.String(), b.String()), "text sorts as bytes do")
	})
}

func TestIDsIncreaseWhateverTheClockDoes(t *testing.T) {
	now := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
	steps := []time.Duration{0, 0, time.Millisecond, -time.Hour, 0, time.Nanosecond, 2 * time.Hour}
	i := 0
	g := NewIDs(func() time.Time {
		now = now.Add(steps[i%len(steps)])
		i++
		return now
	})
	var last MessageID
	for range 20_000 { // more than one millisecond has room for
		id := g.Message()
		require.Positive(t, strings.Compare(string(id[:]), string(last[:])))
		require.Equal(t, byte(7), id[6]>>4, "version")
		require.Equal(t, byte(2), id[8]>>6, "variant")
		last = id
	}
}

func TestIDsAreUniqueAcrossGoroutines(t *testing.T) {
	g := NewIDs(time.Now)
	var mu sync.Mutex
	seen := map[MessageID]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				id := g.Message()
				mu.Lock()
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, 16_000)
}

func TestIDKeepsItsTime(t *testing.T) {
	at := time.Date(2026, 11, 20, 9, 0, 0, 123e6, time.UTC)
	require.Equal(t, at, NewIDs(func() time.Time { return at }).Message().Time())
}

func TestACampaignIDKnowsItsRequest(t *testing.T) {
	g := NewIDs(time.Now)
	print := func(b byte) (p [32]byte) {
		for i := range p {
			p[i] = b
		}
		return p
	}
	for _, b := range []byte{0, 0x3f, 0x40, 0xff} {
		id := g.CampaignOf(print(b))
		require.EqualValues(t, 7, id[6]>>4, "a UUIDv7")
		require.EqualValues(t, 0b10, id[8]>>6, "of the variant of RFC 9562")
		require.True(t, id.IsOf(print(b)))
		again := g.CampaignOf(print(b))
		require.True(t, again.IsOf(print(b)))
		require.Less(t, id.String(), again.String(), "ids of one request differ, and sort")
		for i := range 8 {
			other := print(b)
			other[i] ^= 1
			require.False(t, id.IsOf(other))
		}
		require.False(t, g.Campaign().IsOf(print(b)))
	}
}

func TestWhatIsNoID(t *testing.T) {
	good := NewIDs(time.Now).Message().String()
	for _, s := range []string{
		"", "msg_", good[4:], "cmp_" + good[4:], good + "0", good[:29], strings.ToUpper(good), "msg_8" + good[5:],
		strings.Replace(good, good[10:11], "u", 1), "msg_" + strings.Repeat("é", 13), good[:29] + "\x00", strings.Repeat("m", 10_000),
	} {
		_, err := ParseMessageID(s)
		require.ErrorIs(t, err, ErrBadID, "%.40q", s)
	}
}

func FuzzParseMessageID(f *testing.F) {
	f.Add(NewIDs(time.Now).Message().String())
	f.Add("msg_7zzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseMessageID(s); err == nil && id.String() != s {
			t.Fatalf("%q reads as %q", s, id)
		}
	})
}

func TestMovesAreSane(t *testing.T) {
	for from, row := range moves {
		for to, writers := range row {
			require.NotEmpty(t, writers, "%v → %v", from, to)
			require.NotEqual(t, from, to)
			if from != 0 && !from.Waiting() && to != StatusQueued {
				require.Equal(t, []Writer{ByReceipt}, writers, "after the hand-off only receipts move: %v → %v", from, to)
			}
			if to == StatusSending {
				require.Equal(t, []Writer{ByClaim}, writers, "only a claim leases: %v", from)
			}
			if to == StatusCanceled && from != StatusSending {
				require.Equal(t, []Writer{ByOperator}, writers)
			}
		}
	}
	require.Empty(t, moves[StatusCanceled], "canceled is an end")
	for _, s := range []Status{StatusFailed, StatusSuppressed, StatusExpired} {
		for to, writers := range moves[s] {
			require.Equal(t, StatusQueued, to, "%v is an end but for a redrive or the next leg", s)
			require.NotContains(t, writers, ByReceipt)
		}
	}
	require.Empty(t, moves[StatusDelivered][StatusQueued], "a success is never sent again")
	require.Empty(t, moves[StatusRead][StatusQueued], "a success is never sent again")
	for _, s := range []Status{StatusSent, StatusDelivered, StatusRead} {
		require.False(t, CanMove(s, StatusCanceled, ByOperator), "a cancel never claims what was handed off")
		for _, w := range []Writer{ByAccept, ByPlan, ByClaim, BySend, ByOperator} {
			for _, to := range Statuses {
				nextLeg := s == StatusSent && to == StatusQueued && w == ByPlan
				require.Equal(t, nextLeg, CanMove(s, to, w), "%v → %v by %v", s, to, w)
			}
		}
	}
}

// Every status can be reached, and every waiting one can end.
func TestMovesReachAndEnd(t *testing.T) {
	reach := map[Status]bool{}
	var walk func(Status)
	walk = func(s Status) {
		for to := range moves[s] {
			if !reach[to] {
				reach[to] = true
				walk(to)
			}
		}
	}
	walk(0)
	for _, s := range Statuses {
		require.True(t, reach[s], "%v is never reached", s)
	}
	for _, s := range Statuses {
		if s.Waiting() {
			clear(reach)
			walk(s)
			require.True(t, reach[StatusExpired] || reach[StatusFailed], "%v cannot end", s)
		}
	}
}

// Receipts in any order and any number end in the same status, and each step is a legal move.
func TestReceiptsCommute(t *testing.T) {
	says := []Status{StatusSent, StatusDelivered, StatusRead, StatusUndelivered}
	rapid.Check(t, func(t *rapid.T) {
		ch := rapid.SampledFrom(Channels).Draw(t, "channel")
		begin := rapid.SampledFrom([]Status{
			StatusSent, StatusSending, StatusAmbiguous, StatusUnknown, StatusQueued, StatusHeld, StatusDeferred,
		}).Draw(t, "from")
		set := rapid.SliceOfN(rapid.SampledFrom(says), 1, 8).Draw(t, "receipts")
		order := rapid.Permutation(append(slices.Clone(set), set...)).Draw(t, "order")
		end := func(receipts []Status) Status {
			at := begin
			for _, r := range receipts {
				to, changed := AfterReceipt(ch, at, r)
				require.Equal(t, to != at, changed)
				if changed {
					require.True(t, CanMove(at, to, ByReceipt), "%v: %v → %v", ch, at, to)
				}
				at = to
			}
			return at
		}
		a, b := end(set), end(order)
		require.Equal(t, a, b, "%v from %v: %v and %v", ch, begin, set, order)
	})
}

func TestReceiptsNeverReviveWhatEnded(t *testing.T) {
	for _, ch := range Channels {
		for _, have := range []Status{StatusFailed, StatusSuppressed, StatusExpired, StatusCanceled, StatusScheduled} {
			for _, says := range Statuses {
				to, changed := AfterReceipt(ch, have, says)
				require.False(t, changed, "%v: %v says %v", ch, have, says)
				require.Equal(t, have, to)
			}
		}
	}
}

func TestEveryClassHasItsEffect(t *testing.T) {
	for _, c := range Classes {
		e, ok := effects[c]
		require.True(t, ok, "%v", c)
		require.True(t, CanMove(StatusSending, e.Status, BySend), "%v leads to %v", c, e.Status)
	}
	require.Len(t, effects, len(Classes))
	require.Equal(t, effects[Transient], EffectOf(99), "what is not classified may work later")
	require.False(t, EffectOf(Throttled).BurnsAttempt)
	require.False(t, EffectOf(ConnectorDown).BurnsAttempt)
}

func TestAsFailure(t *testing.T) {
	f := &Failure{Class: Throttled, Code: "429", Detail: "slow down", Err: errors.New("inner")}
	require.Same(t, f, AsFailure(fmt.Errorf("wrapped: %w", f)))
	require.Equal(t, "throttled (429): slow down: inner", f.Error())
	require.ErrorContains(t, errors.Unwrap(f), "inner")
	plain := AsFailure(errors.New("something"))
	require.Equal(t, Transient, plain.Class)
	require.False(t, plain.Known)
}
