package pipeline

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/delivery"
)

// contender is a tenant's queue or campaign of a test.
type contender struct {
	tenant           delivery.TenantID
	name             string
	weight           float64
	idle, stuck, out bool
	served           float64
	before           map[*contender][2]float64 // what it and another had been served since both could go
}

// Between any two tenants that both can go, what they are served keeps to their weights within one turn of each,
// whatever the others do.
func TestSharesKeepToTheWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shares[*contender]
		const dearest = 5
		all := make([]*contender, rapid.IntRange(2, 6).Draw(t, "tenants"))
		weights := map[delivery.TenantID]float64{}
		for i := range all {
			id := delivery.TenantID(fmt.Sprint("t", i))
			weights[id] = float64(rapid.IntRange(1, 100).Draw(t, "weight"))
			all[i] = &contender{tenant: id, weight: weights[id], out: true, idle: true, before: map[*contender][2]float64{}}
		}
		// since makes the measurement of one against all others begin anew.
		since := func(c *contender) {
			for _, o := range all {
				c.before[o] = [2]float64{c.served, o.served}
				o.before[c] = [2]float64{o.served, c.served}
			}
		}
		able := func(c *contender) bool { return !c.idle && !c.stuck }
		for range rapid.IntRange(50, 400).Draw(t, "steps") {
			c := all[rapid.IntRange(0, len(all)-1).Draw(t, "who")]
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if c.idle = !c.idle; !c.idle && c.out {
					c.out = false
					s.add(c.tenant, c)
				}
				since(c)
			case 1:
				c.stuck = !c.stuck
				since(c)
			}
			var got *contender
			ok := s.next(func(id delivery.TenantID) float64 { return weights[id] }, func(c *contender) (float64, verdict) {
				switch {
				case c.idle:
					c.out = true
					return 0, gone
				case c.stuck:
					return 0, cannot
				}
				got = c
				cost := float64(rapid.IntRange(1, dearest).Draw(t, "cost"))
				c.served += cost
				return cost, took
			})
			some := false
			for _, c := range all {
				some = some || able(c)
			}
			require.Equal(t, some, ok, "somebody is served whenever anybody can be")
			require.Equal(t, ok, got != nil)
			for _, a := range all {
				for _, b := range all {
					if a == b || !able(a) || !able(b) {
						continue
					}
					at := a.before[b]
					apart := (a.served-at[0])/a.weight - (b.served-at[1])/b.weight
					require.LessOrEqual(t, math.Abs(apart), dearest/a.weight+dearest/b.weight+1e-9)
				}
			}
		}
	})
}

func always1(delivery.TenantID) float64 { return 1 }

func TestTenantsShareBeforeTheirCampaigns(t *testing.T) {
	var s shares[*contender]
	const campaigns = 1000
	for i := range campaigns {
		s.add("many", &contender{tenant: "many", name: fmt.Sprint(i)})
	}
	s.add("one", &contender{tenant: "one"})
	turns := map[delivery.TenantID]int{}
	own := map[string]int{}
	for range 2 * campaigns {
		require.True(t, s.next(always1, func(c *contender) (float64, verdict) {
			turns[c.tenant]++
			own[c.name]++
			return 1, took
		}))
	}
	require.Equal(t, map[delivery.TenantID]int{"many": campaigns, "one": campaigns}, turns)
	for i := range campaigns {
		require.Equal(t, 1, own[fmt.Sprint(i)], "each campaign has had its turn before any has two")
	}
}

func TestWhoStandsStillSavesNothingUp(t *testing.T) {
	var s shares[*contender]
	a, b := &contender{tenant: "a"}, &contender{tenant: "b", stuck: true}
	s.add("a", a)
	s.add("b", b)
	turn := func() {
		s.next(always1, func(c *contender) (float64, verdict) {
			if c.stuck {
				return 0, cannot
			}
			c.served++
			return 1, took
		})
	}
	for range 500 {
		turn()
	}
	b.stuck = false
	for range 100 {
		turn()
	}
	require.InDelta(t, 50, b.served, 1)
}

func TestManyTenantsAreNotRememberedForEver(t *testing.T) {
	var s shares[*contender]
	busy := &contender{tenant: "busy"}
	s.add("busy", busy)
	for i := range 10_000 {
		c := &contender{tenant: delivery.TenantID(fmt.Sprint(i))}
		s.add(c.tenant, c)
		for range 3 {
			s.next(always1, func(x *contender) (float64, verdict) {
				if x != busy {
					if x.idle {
						return 0, gone
					}
					x.idle = true
				}
				return 1, took
			})
		}
	}
	require.Less(t, len(s.all), 200)
	busy.idle = true
	require.False(t, s.next(always1, func(*contender) (float64, verdict) { return 0, gone }))
	require.Empty(t, s.all, "nobody has work, nobody is ahead")
}

// Over a long run with work in every band, each has its part within one round; with work in some, those have theirs.
func TestBandsHaveTheirParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quantum := float64(rapid.IntRange(1, 256).Draw(t, "quantum"))
		dearest := rapid.IntRange(1, int(quantum)).Draw(t, "dearest")
		p := precedence{quantum: quantum}
		busy := rapid.SliceOfNDistinct(rapid.IntRange(0, int(bandCount)-1), 1, int(bandCount), rapid.ID).Draw(t, "busy")
		var has [bandCount]bool
		total := 0.0
		for _, b := range busy {
			has[b] = true
			total += bandWeights[b]
		}
		var spent [bandCount]float64
		all := 0.0
		for all < 40*total*quantum {
			for _, b := range p.order() {
				if has[b] {
					cost := float64(rapid.IntRange(1, dearest).Draw(t, "cost"))
					p.spend(b, cost)
					spent[b] += cost
					all += cost
					break
				}
			}
		}
		for b, w := range bandWeights {
			if !has[b] {
				require.Zero(t, spent[b])
				continue
			}
			require.InDelta(t, all*w/total, spent[b], w*quantum+float64(2*dearest), "band %d", b)
		}
	})
}

func TestTheHigherBandGoesFirstInEveryRound(t *testing.T) {
	p := precedence{quantum: laneQuantum}
	var went []band
	for range 200 {
		b := p.order()[0]
		p.spend(b, 1)
		went = append(went, b)
	}
	round := 4 * 33
	for i := 1; i < round; i++ {
		require.LessOrEqual(t, went[i-1], went[i])
	}
	require.Equal(t, bandUrgent, went[round], "then the next round begins")
	// Something urgent that comes now and then never waits for the end of a round.
	p = precedence{quantum: laneQuantum}
	for range 100 {
		for range 7 {
			p.spend(bandBulk, 1)
		}
		require.Equal(t, bandUrgent, p.order()[0])
		p.spend(bandUrgent, 1)
	}
}

func TestBandOf(t *testing.T) {
	for _, l := range []delivery.Lane{delivery.Urgent, delivery.Normal, delivery.Bulk} {
		for _, aged := range []bool{false, true} {
			b := bandOf(l, aged)
			require.Equal(t, l, b.lane())
			if aged && l != delivery.Urgent {
				above := bandOf(l-1, false)
				require.Equal(t, bandOf(l, false)-1, b, "before its own lane and behind the one above")
				require.Greater(t, bandWeights[b], bandWeights[bandOf(l, false)])
				require.LessOrEqual(t, bandWeights[b], bandWeights[above])
				require.Less(t, bandWeights[b], bandWeights[bandUrgent])
			}
		}
	}
	require.Equal(t, bandBulk, bandOf(9, false), "an unknown lane has no privilege")
}
