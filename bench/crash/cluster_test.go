//go:build unix

package crash

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sdk"
)

// counts says how often what is hit.
type counts struct{ engine, postgres, rabbit, redis int }

func (c counts) total() int { return c.engine + c.postgres + c.rabbit + c.redis }

func (c *counts) fields() map[string]*int {
	return map[string]*int{"engine": &c.engine, "postgres": &c.postgres, "rabbit": &c.rabbit, "redis": &c.redis}
}

// String implements flag.Value.
func (c *counts) String() string {
	return fmt.Sprintf("engine=%d,postgres=%d,rabbit=%d,redis=%d", c.engine, c.postgres, c.rabbit, c.redis)
}

// Set implements flag.Value. What is not named is not hit.
func (c *counts) Set(s string) error {
	*c = counts{}
	for part := range strings.SplitSeq(s, ",") {
		name, n, _ := strings.Cut(part, "=")
		to := c.fields()[name]
		if to == nil {
			return fmt.Errorf("%q is not one of engine, postgres, rabbit and redis", name)
		}
		v, err := strconv.Atoi(n)
		if err != nil || v < 0 {
			return fmt.Errorf("%s=%s is not a number of faults", name, n)
		}
		*to = v
	}
	return nil
}

func countsFlag(name string, usual counts, usage string) *counts {
	c := usual
	flag.Var(&c, name, usage)
	return &c
}

// pacedRate and pacedBurst are what the connector of the paced tenant declares.
const (
	pacedRate  = 100
	pacedBurst = 10
)

// clusterPlan is the load on a cluster. Whoever gets no answer tries another node.
func clusterPlan(urls []string) plan {
	p := usual()
	p.perSecond, p.backlog, p.urls = *clusterRate, 1000, urls
	p.mine = func(a Address) bool { return !isPaced(a) }
	p.options = []sdk.Option{sdk.WithMaxRetries(0), sdk.WithTryTimeout(3 * time.Second)}
	return p
}

// pacedPlan is a load that always has more to send than its connector's rate lets through.
func pacedPlan(urls []string) plan {
	p := clusterPlan(urls)
	p.singles, p.batches, p.campaigns = 0, 1, false
	p.perSecond, p.backlog, p.mine = 2*pacedRate, 10*pacedRate, isPaced
	p.person = func(n int) Address { return Address{"sms", fmt.Sprintf("%s%06d", pacedNumbers, n)} }
	return p
}

// TestCluster runs three engines on one PostgreSQL with a RabbitMQ and a Redis, under load over four channels, and
// takes away whatever can be taken away, again and again. Nobody may be left out, whoever may have got a second copy
// must be named, and a connector's rate holds over all engines.
func TestCluster(t *testing.T) {
	n, setUp := *clusterFlag, time.Now()
	patience := 5 * time.Minute
	for _, p := range []struct {
		n    int
		each time.Duration
	}{{n.engine, 30 * time.Second}, {n.postgres, 30 * time.Second}, {n.rabbit, 2 * time.Minute}, {n.redis, 10 * time.Second}} {
		patience += time.Duration(p.n) * p.each
	}
	l := newCluster(t, patience, 3)
	// The simulator repeats reports after up to 5 s for as long as nobody takes them, and PostgreSQL stands still for up
	// to 10 s: the more faults, the longer the worst row of misses.
	l.window(map[bool]string{true: "15s", false: "40s"}[n.total() <= 20])
	c := &chaos{clusterLab: l, marks: map[string][]mark{}, outages: map[string][]*span{}}
	l.sim.stalls() // what happened before does not count
	c.main, c.slow = l.load(clusterPlan(l.urls())), l.paced.load(pacedPlan(l.urls()))
	c.prober = c.main.clients(0)
	c.watch("the load is under way", func() bool { return len(c.seen) > 500 })
	c.eachHasItsPart()
	began := time.Now()
	t.Logf("all was set up in %s", began.Sub(setUp).Round(time.Second))
	for i, kind := range c.faults(n) {
		c.inflict(kind)
		if (i+1)%50 == 0 {
			t.Logf("%d of %d faults after %s, %d messages", i+1, n.total(), time.Since(began).Round(time.Second), len(c.seen))
		}
	}
	ended := time.Now()
	t.Logf("%d faults took %s", n.total(), ended.Sub(began).Round(time.Second))
	c.heal()
	h := c.finish()
	t.Logf("all was healed, finished, audited and read %s later", time.Since(ended).Round(time.Second))
	if fault := os.Getenv(plantEnv); fault != "" {
		h = doctor(h, fault)
	}
	c.report(n, h, began, ended)
}

// eachHasItsPart waits until every engine has been seen with messages under lease, by the API and by the database.
func (c *chaos) eachHasItsPart() {
	c.t.Helper()
	working := map[string]bool{}
	c.watch("every engine has its part", func() bool {
		got, err := c.operator.Cluster(c.ctx)
		if err != nil {
			return false
		}
		for _, n := range got.Nodes {
			if n.State == sdk.NodeAlive && n.Claims > 0 {
				working[n.Name] = true
			}
		}
		return len(working) == len(c.nodes)
	})
}

// heal brings everything back, and waits until every engine says that it has all that it stands on.
func (c *chaos) heal() {
	c.t.Helper()
	c.during("RabbitMQ is back", c.mq.Wait)
	began := time.Now()
	for _, n := range c.nodes {
		api := sdk.New(sdk.WithURL(n.url()), sdk.WithMaxRetries(0), sdk.WithTryTimeout(2*time.Second))
		c.t.Cleanup(api.Close)
		c.watch(n.name+" has everything that it stands on", func() bool {
			h, err := api.Health(c.ctx)
			if err != nil || !h.OK {
				return false
			}
			for _, state := range h.Parts {
				if state != "ok" {
					return false
				}
			}
			return true
		})
	}
	c.t.Logf("every engine had everything %s after the last fault", time.Since(began).Round(10*time.Millisecond))
}

// finish stops the loads, waits until all is done and returns what the witnesses say.
func (c *chaos) finish() History {
	c.t.Helper()
	close(c.main.stop)
	close(c.slow.stop)
	meanwhile := func() {
		c.look()
		c.tend()
	}
	began := time.Now()
	phase := func(what string) {
		c.t.Logf("%s in %s", what, time.Since(began).Round(time.Second))
		began = time.Now()
	}
	c.slow.settle(meanwhile)
	c.main.settle(meanwhile)
	phase("all that was asked for was done")
	h := History{Asked: slices.Concat(c.main.requests, c.slow.requests, c.asked)}
	for _, l := range []*lab{c.lab, c.paced} {
		l.audit()
		phase("tenant audited")
		h.Messages = append(h.Messages, l.records(sdk.MessageQuery{})...)
	}
	phase("messages read")
	c.look()
	h.Taken = taken(c.seen)
	var stored int
	c.watch("the database answers", func() bool { return c.query(`SELECT count(*) FROM messages`, &stored) == nil })
	c.Equal(stored, len(h.Messages), "the API shows what the database has")
	return h
}

// report says what came of it.
func (c *chaos) report(n counts, h History, began, ended time.Time) {
	c.t.Helper()
	v := Check(h)
	var recovery []time.Duration
	for _, kind := range []string{killOne, killTwo, killAll, killAway, freezeLong, freeze, pgKill, pgStall} {
		marks := c.marks[kind]
		if len(marks) == 0 {
			continue
		}
		var handoffs, claims []time.Duration
		for _, m := range marks {
			handoffs = append(handoffs, m.handoff)
			if m.claims > 0 {
				claims = append(claims, m.claims)
			}
		}
		recovery = append(recovery, handoffs...)
		line := fmt.Sprintf("fault: kind=%s n=%d handoff_%s", kind, len(marks), quantiles(handoffs))
		if len(claims) > 0 {
			line += " claims_settled_" + quantiles(claims)
		}
		c.print("%s", line)
	}
	for _, kind := range []string{mqStall, mqKill, mqWipe, redisKill, redisWipe, redisStall, redisBack} {
		if spans := c.outages[kind]; len(spans) > 0 {
			c.print("fault: kind=%s n=%d away_s=%.1f handoffs_per_s=%.0f usual_handoffs_per_s=%.0f", kind, len(spans),
				lasted(spans).Seconds(), c.perSecond(spans), c.perSecond([]*span{{began, ended}}))
		}
	}
	over := c.rates()
	reborn := 0
	for _, node := range c.nodes {
		reborn += node.reborn
	}
	c.print("cluster: nodes=%d faults=%s engine_kills=%d seconds=%.0f answered=%d repeated=%d broken=%d "+
		"overtaken=%d reborn=%d", len(c.nodes), n.String(), c.kills, ended.Sub(began).Seconds(), c.main.answered.Load()+c.slow.answered.Load(),
		c.main.repeated.Load()+c.slow.repeated.Load(), c.main.broken.Load()+c.slow.broken.Load(), c.overtook, reborn)
	c.print("copies: dedupe_key=%d dropped_by_key=%d correlate=%d none=%d doubts=%d excess=%d unknown=%d",
		v.Copies[dedupeKey], v.Repeats, v.Copies[correlate], v.Copies[none], v.Doubts, len(v.Excess), v.Unknown)
	slices.Sort(recovery)
	p99 := time.Duration(0)
	if len(recovery) > 0 {
		p99 = percentile(recovery, 99)
	}
	c.print("crash: cycles=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d recovery_p99_ms=%d",
		n.total(), v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated, v.Flagged, len(v.Unflagged), p99.Milliseconds())
	for _, missing := range []string{c.main.unreported, c.slow.unreported} {
		if missing != "" {
			v.Suspects = append(v.Suspects, missing)
		}
	}
	for _, id := range v.Suspects {
		c.t.Logf("message %s:%s", id, c.timeline(id))
	}
	c.True(v.OK(), "%s", v.Explain())
	c.Empty(c.main.unreported, "its receipt never came")
	c.Empty(over[:min(len(over), 10)], "a second holds more than the limit")
}

// quantiles shows durations in milliseconds.
func quantiles(of []time.Duration) string {
	slices.Sort(of)
	return fmt.Sprintf("p50_ms=%d p99_ms=%d max_ms=%d", percentile(of, 50).Milliseconds(), percentile(of, 99).Milliseconds(),
		percentile(of, 100).Milliseconds())
}

func lasted(spans []*span) (d time.Duration) {
	for _, s := range spans {
		d += s.to.Sub(s.from)
	}
	return d
}

// perSecond is how much was handed over in these times.
func (c *chaos) perSecond(spans []*span) float64 {
	n := 0
	for _, e := range c.seen {
		if slices.ContainsFunc(spans, func(s *span) bool { return !e.At.Before(s.from) && e.At.Before(s.to) }) {
			n++
		}
	}
	return float64(n) / max(lasted(spans).Seconds(), 0.001)
}

func TestCounts(t *testing.T) {
	t.Parallel()
	var c counts
	require.NoError(t, c.Set("engine=3,redis=2"))
	require.Equal(t, counts{engine: 3, redis: 2}, c)
	require.NoError(t, c.Set("rabbit=1,postgres=0"))
	require.Equal(t, counts{rabbit: 1}, c)
	for _, bad := range []string{"", "engine", "engine=-1", "mysql=1", "engine=1;redis=2"} {
		require.Error(t, c.Set(bad), bad)
	}
}
