package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/cluster/clustertest"
	"github.com/msgctl/msgctl/store"
)

// Members come, stand still, are cut off, come back and are replaced by others of their name: whoever says that all have
// agreed on it is counted by everybody who counts at all. Once all give signs of life, they all agree.
func TestWhoIsAgreedOnIsCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n, ttl = 3, 3 * time.Second
		clock := clockwork.NewFakeClock()
		s := clustertest.New(nil, clock.Now)
		views := make([]*clustertest.View, n)
		now := make([]*Member, n) // by name
		var all []*Member         // those that were replaced too: they may only stand still
		start := func(i int) {
			views[i] = s.View()
			now[i] = New(Options{
				Nodes: views[i], Name: fmt.Sprint(i), Roles: Roles(), TTL: ttl, Clock: NewClock(clock),
				Apply: func(context.Context, store.Changes) error { return nil },
			})
			all = append(all, now[i])
		}
		beat := func(m *Member) {
			if m.beat(context.Background()) == nil {
				_ = m.catchUp(context.Background())
			}
		}
		check := func() {
			for _, y := range all {
				if _, agreed := y.Senders(); !agreed {
					continue
				}
				for _, x := range all {
					names, _ := x.Senders()
					require.True(t, len(names) == 0 || slices.Contains(names, y.Name()), "%s is not counted by %s: %q",
						y.Name(), x.Name(), names)
				}
			}
		}
		for i := range n {
			start(i)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "node")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				views[i].Cut(true)
			case 1:
				views[i].Cut(false)
			case 2:
				start(i) // a new process; the old one may hang
			case 3: // it looks, and the answer is lost
				_, _ = views[i].Beat(context.Background(), system, store.Beat{
					Name: now[i].Name(), Run: now[i].run, TTL: ttl, Roles: Roles(),
				})
			case 4, 5:
				clock.Advance(time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms")) * time.Millisecond)
			default:
				beat(now[i])
			}
			check()
		}
		for i := range n {
			views[i].Cut(false)
		}
		clock.Advance(ttl)
		for range 8 {
			for _, m := range now {
				beat(m)
				check()
			}
			clock.Advance(ttl / 3)
		}
		for _, m := range now {
			names, agreed := m.Senders()
			require.Equal(t, []string{"0", "1", "2"}, names)
			require.True(t, agreed)
		}
	})
}
