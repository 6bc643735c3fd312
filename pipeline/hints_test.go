package pipeline

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
)

func TestHintsKeepRoomForWhatIsUrgent(t *testing.T) {
	h := newHints(nil)
	for i := range maxPending/maxHint + 10 {
		h.add(smsQueue(delivery.TenantID(fmt.Sprint("t", i)), delivery.Bulk), someIDs(maxHint)...)
	}
	require.Equal(t, maxPending/2, h.n.bulk)
	h.add(smsQueue("bank", delivery.Urgent), someIDs(3)...)
	first, ok := h.take()
	require.True(t, ok)
	require.Equal(t, hint{smsQueue("bank", delivery.Urgent), someIDs(3)}, first, "with its ids, and before all others")
	// An urgent flood leaves the others a little.
	for i := range 100 {
		h.add(smsQueue(delivery.TenantID(fmt.Sprint("u", i)), delivery.Urgent), someIDs(maxHint)...)
	}
	lanes := map[delivery.Lane]int{}
	for range 34 {
		next, _ := h.take()
		lanes[next.queue.Lane]++
	}
	require.InDelta(t, 2, lanes[delivery.Bulk], 1)
}

// Every id that is added comes out once and in order, or its queue is hinted at as a whole.
func TestHintsLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHints(nil)
		in, out := map[delivery.Queue][]delivery.MessageID{}, map[delivery.Queue][]delivery.MessageID{}
		whole := map[delivery.Queue]bool{}
		n := 0
		drain := func() bool {
			next, ok := h.take()
			if !ok {
				return false
			}
			if len(next.ids) == 0 {
				whole[next.queue] = true
			}
			require.LessOrEqual(t, len(next.ids), maxHint)
			out[next.queue] = append(out[next.queue], next.ids...)
			return true
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				drain()
				continue
			}
			q := smsQueue(
				delivery.TenantID(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "tenant")),
				rapid.SampledFrom([]delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk}).Draw(t, "lane"),
			)
			ids := make([]delivery.MessageID, rapid.SampledFrom([]int{0, 1, 200, 256, 700, 20_000}).Draw(t, "ids"))
			for i := range ids {
				n++
				ids[i] = delivery.MessageID{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
			}
			in[q] = append(in[q], ids...)
			h.add(q, ids...)
			require.LessOrEqual(t, h.n.total(), maxPending)
		}
		for drain() {
		}
		require.True(t, h.idle())
		require.Zero(t, h.n)
		for q, ids := range in {
			if !whole[q] {
				require.True(t, slices.Equal(ids, out[q]), "%v", q)
			}
		}
	})
}
