package admission

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fill takes requests of an owner until one is refused.
func fill(t testing.TB, g *Gate, now time.Time, a Ask) (passes []*Pass, last *Refusal) {
	t.Helper()
	for range 10_000 {
		p := &Pass{}
		if r := g.Enter(now, a, p); r != nil {
			return passes, r
		}
		passes = append(passes, p)
	}
	t.Fatal("nothing is ever refused")
	return nil, nil
}

func leave(passes []*Pass) {
	for _, p := range passes {
		p.Leave()
		p.Leave() // safe twice
	}
}

func TestOneAloneAndANewcomer(t *testing.T) {
	g := New(&Options{Requests: 100})
	accepts := func(owner string) Ask { return Ask{Class: Accepts, Owner: owner} }
	alone, r := fill(t, g, start, accepts("a"))
	require.Len(t, alone, 80, "four fifths of 100")
	require.Equal(t, Full, r.Reason, "there is nobody else for whom its share would be")
	require.Equal(t, Accepts, r.Class)
	other, r := fill(t, g, start, accepts("b"))
	require.Len(t, other, 16, "four fifths of the rest")
	require.Equal(t, Share, r.Reason)
	require.True(t, r.Reason.Own())
	third, _ := fill(t, g, start, accepts("c"))
	require.NotEmpty(t, third, "there is room for one more")
	require.Equal(t, Load{80 + 16 + len(third), 100}, g.Load(Accepts))

	require.Nil(t, g.Enter(start, Ask{Class: Receipts, Owner: "a"}, &Pass{}), "another class is another matter")
	leave(alone)
	require.Equal(t, Load{16 + len(third), 100}, g.Load(Accepts))
	require.Nil(t, g.Enter(start, accepts("a"), &Pass{}))
}

func TestAPeerBesideTheOwner(t *testing.T) {
	g := New(&Options{Requests: 100}) // 50 receipts
	n := 0
	for ; ; n++ { // each for an account of its own, all from one address
		r := g.Enter(start, Ask{Class: Receipts, Owner: fmt.Sprint("account ", n), Peer: "192.0.2.1"}, &Pass{})
		if r != nil {
			break
		}
	}
	require.Equal(t, 40, n)
	require.Nil(t, g.Enter(start, Ask{Class: Receipts, Owner: "account x", Peer: "192.0.2.2"}, &Pass{}))
}

func TestFreeIsNeverCounted(t *testing.T) {
	g := New(&Options{Requests: 1})
	g.Room(&Low{1, 2})
	for range 1000 {
		p := &Pass{}
		require.Nil(t, g.Enter(start, Ask{Class: Free, Body: 1 << 40}, p))
		require.Nil(t, p.Grow(1<<40))
		p.Leave()
	}
}

func TestBodies(t *testing.T) {
	g := New(&Options{Bytes: 100 << 20})
	ask := Ask{Class: Bulk, Owner: "a", Body: 10 << 20}
	held, r := fill(t, g, start, ask)
	require.Equal(t, Bytes, r.Reason)
	require.Len(t, held, 6, "bulk may hold 75 MiB, one alone four times what is left")
	require.Nil(t, g.Enter(start, Ask{Class: Accepts, Owner: "a", Body: 1 << 20}, &Pass{}), "bulk leaves room for accepts")

	p := &Pass{}
	require.Nil(t, g.Enter(start, Ask{Class: Bulk, Owner: "b"}, p))
	for range 10 {
		require.Nil(t, p.Grow(1<<20))
	}
	require.EqualValues(t, 10<<20, p.Held())
	r = p.Grow(20 << 20)
	require.NotNil(t, r)
	require.Equal(t, Bytes, r.Reason)
	require.EqualValues(t, 10<<20, p.Held(), "a refused growth takes nothing")
	p.Leave()
	leave(held)
	require.EqualValues(t, 1<<20, g.bytes)

	g = New(&Options{Bytes: 100 << 20})
	require.Nil(t, g.Enter(start, Ask{Class: Bulk, Owner: "b", Body: 30 << 20}, &Pass{}))
	ask.Body = 1 << 20
	_, r = fill(t, g, start, ask)
	require.Equal(t, Share, r.Reason, "there is somebody else now")
}

func TestAFullClassIsNotTheNewcomersFault(t *testing.T) {
	g := New(&Options{Requests: 10})
	for owner := 0; g.Load(Accepts).InProgress < 10; owner++ {
		fill(t, g, start, Ask{Class: Accepts, Owner: fmt.Sprint(owner)})
	}
	r := g.Enter(start, Ask{Class: Accepts, Owner: "newcomer"}, &Pass{})
	require.Equal(t, Full, r.Reason)
}

// TestGateKeepsItsBounds does any sequence of requests and checks what must always hold.
func TestGateKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &Options{
			Requests: rapid.IntRange(1, 64).Draw(t, "requests"), Bytes: rapid.Int64Range(1<<10, 1<<20).Draw(t, "bytes"),
			Spread: func(int) int { return 0 },
		}
		g := New(o)
		now := start
		var in []*Pass
		owner := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				a := Ask{
					Class: rapid.SampledFrom(Classes()).Draw(t, "class"), Owner: owner.Draw(t, "owner"),
					Body: rapid.Int64Range(0, o.Bytes/4).Draw(t, "body"),
				}
				if rapid.Bool().Draw(t, "has a peer") {
					a.Peer = owner.Draw(t, "peer")
				}
				p := &Pass{}
				before := g.class[a.Class]
				held := g.owner(key{account, a.Owner}, now).held[a.Class]
				r := g.Enter(now, a, p)
				switch {
				case r == nil:
					in = append(in, p)
				case before.now < before.limit && held == 0 && a.Peer == "" && a.Body == 0:
					t.Fatalf("a newcomer without a body was refused for %s at %+v", r.Reason, before)
				}
			},
			"grow": func(t *rapid.T) {
				if len(in) > 0 {
					_ = rapid.SampledFrom(in).Draw(t, "pass").Grow(rapid.Int64Range(-1, o.Bytes/2).Draw(t, "more"))
				}
			},
			"leave": func(t *rapid.T) {
				if len(in) > 0 {
					i := rapid.IntRange(0, len(in)-1).Draw(t, "which")
					in[i].Leave()
					in = append(in[:i], in[i+1:]...)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-50, 500).Draw(t, "ms")) * time.Millisecond)
			},
			"delay": func(t *rapid.T) { g.Observe(now, time.Duration(rapid.IntRange(0, 900).Draw(t, "ms"))*time.Millisecond) },
			"": func(t *rapid.T) {
				var bytes int64
				var held [classes]int
				for _, p := range in {
					bytes += p.bytes
					held[p.class]++
				}
				require.Equal(t, bytes, g.bytes)
				require.LessOrEqual(t, g.bytes, o.Bytes)
				for c, l := range g.class {
					require.Equal(t, held[c], l.now)
					require.LessOrEqual(t, l.now, l.most)
					require.True(t, l.floor <= l.limit && l.limit <= l.most, "%+v", l)
				}
			},
		})
		leave(in)
		require.Zero(t, g.bytes)
		for _, o := range g.owners {
			require.True(t, o.idle(now), "%+v holds nothing and has no rate", o)
		}
	})
}

func TestOwnersAreForgotten(t *testing.T) {
	g := New(nil)
	for i := range 100_000 {
		p := &Pass{}
		require.Nil(t, g.Enter(start, Ask{Class: Receipts, Owner: fmt.Sprint("account ", i)}, p))
		p.Leave()
	}
	require.Less(t, len(g.owners), 100)
	debtor := Ask{Class: Accepts, Owner: "debtor", Messages: 1, Rate: 1}
	p := &Pass{}
	require.Nil(t, g.Enter(start, debtor, p))
	g.Spend("debtor", 9)
	p.Leave()
	for i := range 1000 {
		g.owner(key{account, fmt.Sprint(i)}, start.Add(time.Second))
	}
	require.Contains(t, g.owners, key{account, "debtor"}, "who owes something is not forgotten")
}

// ---- rates

func TestABatchIsPaidOff(t *testing.T) {
	g := New(&Options{Spread: func(int) int { return 0 }})
	ask := Ask{Class: Bulk, Owner: "a", Messages: 1, Rate: 10}
	enter := func(after time.Duration) *Refusal {
		p := &Pass{}
		defer p.Leave()
		return g.Enter(start.Add(after), ask, p)
	}
	require.Nil(t, enter(0))
	g.Spend("a", 499) // it had 500 rows
	r := enter(0)
	require.Equal(t, Rate, r.Reason)
	require.Equal(t, 50*time.Second, r.RetryAfter, "500 + 1 at 10 a second, of which 10 may come at once: 49.1 s")
	require.Equal(t, Rate, enter(49*time.Second).Reason)
	require.Nil(t, enter(49100*time.Millisecond))

	g.Spend("stranger", 1000)
	require.NotContains(t, g.owners, key{account, "stranger"})
	ask.Rate = 0
	require.Nil(t, enter(50*time.Second), "no rate, no debt")
	ask.Rate = 0.1
	require.Nil(t, enter(50*time.Second))
	require.Equal(t, 10*time.Second, enter(50*time.Second).RetryAfter)
	ask.Messages = 0
	require.Nil(t, enter(50*time.Second), "what brings no message is not counted")
}

// TestRate checks the token bucket against its definition, and that waiting as told is enough.
func TestRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.1, 1000).Draw(t, "rate")
		g := New(&Options{Spread: func(int) int { return 0 }})
		ask := Ask{Class: Accepts, Owner: "a", Messages: 1, Rate: rate}
		now, passed, most := start, 0.0, 0.0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			step := time.Duration(rapid.Int64Range(0, int64(3*float64(time.Second)/rate)).Draw(t, "step"))
			now = now.Add(step)
			var p Pass
			r := g.Enter(now, ask, &p)
			p.Leave()
			if r != nil {
				require.Equal(t, Rate, r.Reason)
				require.Zero(t, r.RetryAfter%time.Second)
				require.GreaterOrEqual(t, r.RetryAfter, time.Second)
				now = now.Add(r.RetryAfter)
				require.Nil(t, g.Enter(now, ask, &p), "it came back when it was told to")
				p.Leave()
			}
			passed++
			if extra := rapid.IntRange(0, 5).Draw(t, "rows"); extra > 3 {
				g.Spend("a", extra)
				passed += float64(extra)
				most = max(most, float64(extra))
			}
			require.LessOrEqual(t, passed, rate*now.Sub(start).Seconds()+max(rate, 1)+most+1e-6)
		}
	})
}

func TestAClockThatStepsBack(t *testing.T) {
	g := New(&Options{Spread: func(int) int { return 0 }})
	ask := Ask{Class: Accepts, Owner: "a", Messages: 1, Rate: 1}
	require.Nil(t, g.Enter(start, ask, &Pass{}))
	back := start.Add(-time.Hour)
	r := g.Enter(back, ask, &Pass{})
	require.NotNil(t, r, "the step itself pays nothing")
	require.Equal(t, time.Second, r.RetryAfter, "and costs nothing")
	require.Nil(t, g.Enter(back.Add(time.Second), ask, &Pass{}), "nobody waits for an hour")
}

func TestRefusalsAreSpread(t *testing.T) {
	g := New(&Options{Requests: 1})
	require.Nil(t, g.Enter(start, Ask{Class: Accepts, Owner: "a"}, &Pass{}))
	seen := map[time.Duration]int{}
	for range 1000 {
		seen[g.Enter(start, Ask{Class: Accepts, Owner: "a"}, &Pass{}).RetryAfter]++
	}
	require.Len(t, seen, 5)
	for s := 1; s <= 5; s++ {
		require.Greater(t, seen[time.Duration(s)*time.Second], 100)
	}
}

func TestRefusedIsTold(t *testing.T) {
	told := map[string]int{}
	g := New(&Options{Requests: 1, Refused: func(c Class, r Reason) { told[c.String()+" "+string(r)]++ }})
	g.Room(&Low{5, 10})
	r := g.Enter(start, Ask{Class: Bulk}, &Pass{})
	require.Equal(t, Storage, r.Reason)
	require.Equal(t, "5 B free, 10 B needed", r.Low.String())
	require.Equal(t, Storage, g.Enter(start, Ask{Class: Accepts}, &Pass{}).Reason)
	require.True(t, g.Yields(start))
	for _, c := range []Class{Control, Polls, Reads, Receipts} {
		require.Nil(t, g.Enter(start, Ask{Class: c}, &Pass{}), "%s needs no room", c)
	}
	g.Room(nil)
	require.False(t, g.Yields(start))
	p := &Pass{}
	require.Nil(t, g.Enter(start, Ask{Class: Accepts}, p))
	require.NotNil(t, p.Grow(1<<40))
	require.Equal(t, map[string]int{"bulk storage": 1, "accepts storage": 1, "accepts bytes": 1}, told)
}

func TestFloorsAndSizes(t *testing.T) {
	for text, want := range map[string]Floor{
		"": {0.05, 256e6}, "5%": {Share: 0.05}, "0": {}, "0%": {}, "12.5 %": {Share: 0.125}, "256MB": {Bytes: 256e6},
		"1GiB": {Bytes: 1 << 30}, "1.5 kB": {Bytes: 1500}, "77": {Bytes: 77}, "77B": {Bytes: 77},
	} {
		f, err := ParseFloor(text)
		require.NoError(t, err, text)
		require.Equal(t, want, f, text)
	}
	for _, bad := range []string{
		"5 percent", "%", "-1", "-1%", "100%", "NaN", "NaN%", "inf", "1e300", "MB", "1 MB 2", "9999999TB",
	} {
		_, err := ParseFloor(bad)
		require.Error(t, err, bad)
		require.Contains(t, err.Error(), "use ", bad)
	}
	require.EqualValues(t, 256e6, defaultFloor.Need(1e9))
	require.EqualValues(t, 5e9, defaultFloor.Need(100e9))
	require.Equal(t, "1.5 GB", Size(1_500_000_000))
	require.Equal(t, "999 B", Size(999))
}

func TestSpace(t *testing.T) {
	free, total, err := Space(t.TempDir())
	if err == ErrNoSpaceCheck { //nolint:errorlint // it is returned as it is
		t.Skip(err)
	}
	require.NoError(t, err)
	require.Positive(t, free)
	require.Greater(t, total, free)
	_, _, err = Space("/there/is/no/such/directory")
	require.Error(t, err)
}
