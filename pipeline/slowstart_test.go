package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
)

// rounds lets the whole crowd go and come back n times and returns its size before each.
func (c *crowd) rounds(n int, s sign) (sizes []int) {
	for range n {
		sizes = append(sizes, c.size)
		out := 0
		for c.room(delivery.Urgent) {
			c.begin(delivery.Urgent)
			out++
		}
		for range out {
			c.end(delivery.Urgent, s)
		}
	}
	return sizes
}

func TestTheCrowdsCurve(t *testing.T) {
	c := newCrowd(100)
	require.Equal(t, []int{16, 32, 64, 100, 100}, c.rounds(5, goodSign), "a healthy one is soon at its full number")
	require.Equal(t, []int{100, 50, 25, 12, 6, 3, 1, 1}, c.rounds(8, badSign), "a full crowd of trouble halves it, once")
	require.Equal(t, []int{1, 2, 3, 4, 5, 6, 7}, c.rounds(7, goodSign), "then one more for each full crowd")
	require.Equal(t, []int{8, 4, 2}, c.rounds(3, lostSign))
	c.rounds(200, goodSign)
	require.Equal(t, 100, c.size)
	c.restart()
	require.Equal(t, []int{1, 2, 3, 4}, c.rounds(4, goodSign), "after a rest it begins with one")
	c = newCrowd(100)
	c.rounds(4, noSign)
	require.Equal(t, 16, c.size, "what was not made says nothing")
	require.Equal(t, 1, newCrowd(1).size)
	small := newCrowd(1)
	require.Equal(t, []int{1, 1}, small.rounds(2, badSign))
	require.Equal(t, []int{1, 1}, small.rounds(2, goodSign))
}

func TestALostAnswerAmongManyIsNoTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		every int // nth answer is lost
		want  int
	}{
		"one in a hundred": {100, 64}, "one in ten": {10, 64}, "one in five": {5, 64}, "one in three": {3, 32},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrowd(64)
			w.rounds(4, goodSign)
			for i := range 64 {
				w.begin(delivery.Normal)
				s := goodSign
				if (i+1)%c.every == 0 {
					s = lostSign
				}
				w.end(delivery.Normal, s)
			}
			require.Equal(t, c.want, w.size)
			w.careful = true
			w.size, w.answers, w.lost = 32, 0, 1
			for range 32 {
				w.begin(delivery.Normal)
				w.end(delivery.Normal, goodSign)
			}
			require.Equal(t, 32, w.size, "but no reason to grow")
		})
	}
}

func TestWhatWasUnderWayDoesNotHalveItAgain(t *testing.T) {
	c := newCrowd(16)
	for range 16 {
		c.begin(delivery.Normal)
	}
	require.True(t, c.end(delivery.Normal, badSign))
	for range 15 {
		require.False(t, c.end(delivery.Normal, badSign))
	}
	require.Equal(t, 8, c.size)
	c.begin(delivery.Normal)
	require.True(t, c.end(delivery.Normal, badSign), "this one began after it")
	require.Equal(t, 4, c.size)
}

func TestTheCrowdsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 100).Draw(t, "most")
		c := newCrowd(most)
		out := map[delivery.Lane]int{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			l := rapid.SampledFrom([]delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk}).Draw(t, "lane")
			if c.room(l) {
				c.begin(l)
				out[l]++
				if l == delivery.Bulk && c.size > 1 {
					require.LessOrEqual(t, out[l], c.size-max(1, c.size/4), "bulk leaves a quarter free")
				}
				require.LessOrEqual(t, c.running, c.size)
			} else if out[l] > 0 {
				out[l]--
				s := rapid.SampledFrom([]sign{noSign, goodSign, goodSign, goodSign, lostSign, badSign}).Draw(t, "sign")
				before := c.size
				if c.end(l, s) {
					require.Equal(t, max(1, before/2), c.size)
				} else {
					require.Contains(t, []int{before, min(before+1, most)}, c.size)
				}
			} else if rapid.IntRange(0, 20).Draw(t, "rest") == 0 {
				c.restart()
			}
			require.GreaterOrEqual(t, c.size, 1)
			require.LessOrEqual(t, c.size, most)
			require.Equal(t, out[delivery.Urgent]+out[delivery.Normal]+out[delivery.Bulk], c.running)
			require.Equal(t, out[delivery.Bulk], c.bulk)
		}
		// Whatever happened, it finds back to its full number.
		for l, n := range out {
			for range n {
				c.end(l, goodSign)
			}
		}
		c.rounds(101, goodSign)
		require.Equal(t, most, c.size)
	})
}

func TestSignOf(t *testing.T) {
	require.Equal(t, goodSign, signOf(true, nil))
	require.Equal(t, noSign, signOf(false, nil))
	want := map[delivery.Class]sign{
		delivery.Transient: noSign, delivery.Throttled: badSign, delivery.ConnectorDown: badSign, delivery.Rejected: goodSign,
		delivery.BadRecipient: goodSign, delivery.Consent: goodSign, delivery.InDoubt: lostSign,
	}
	for _, c := range delivery.Classes {
		require.Equal(t, want[c], signOf(false, &delivery.Failure{Class: c}), c.String())
	}
}
