//go:build unix

package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/sdk"
)

// nextVersion is what TestRolling replaces engines by: the same program under another version.
const nextVersion = "next"

// TestRolling replaces three engines under load, one after the other: SIGTERM, wait for the end, start the next version.
// Nobody gets a second copy, nobody is said to, and no client of the SDK sees an error: it has no other settings than it
// has by default, and reaches the engines through a balancer.
func TestRolling(t *testing.T) {
	require.Positive(t, *rolls)
	l := newCluster(t, 5*time.Minute+time.Duration(*rolls)*2*time.Minute, 3)
	l.buildNext()
	p := clusterPlan([]string{l.url()})
	p.options = nil
	c := &chaos{clusterLab: l}
	c.main, c.slow = l.load(p), l.paced.load(func() plan {
		p := pacedPlan([]string{l.url()})
		p.options = nil
		return p
	}())
	c.watch("the load is under way", func() bool { return len(c.seen) > 500 })
	var drain, gap []time.Duration
	for range *rolls {
		for _, n := range l.nodes {
			asked, before := time.Now(), len(c.seen)
			n.down = true
			n.p.signal(syscall.SIGTERM)
			c.watch(n.name+" has drained", n.p.ended)
			l.Zero(n.p.wait(), "a drain ends well")
			drain = append(drain, time.Since(asked))
			n.bin = map[string]string{"engine": "engine-" + nextVersion, "engine-" + nextVersion: "engine"}[n.bin]
			n.launch()
			c.watch(n.name+" is ready again", n.isReady)
			c.linger(time.Second + c.random(time.Second))
			gap = append(gap, pauses(c.seen[before:])...)
		}
		c.versions()
	}
	began := time.Now()
	h := c.finish()
	t.Logf("all was finished, audited and read %s later", time.Since(began).Round(time.Second))
	v := Check(h)
	c.print("rolling: n=%d acknowledged=%d lost=%d unexpected=%d duplicated=%d flagged=%d unflagged=%d failed_requests=%d "+
		"drain_%s longest_pause_ms=%d", len(drain), v.Acknowledged, len(v.Lost), len(v.Unexpected), v.Duplicated+v.Repeats,
		v.Flagged, len(v.Unflagged), c.main.broken.Load()+c.slow.broken.Load(), quantiles(drain), slices.Max(gap).Milliseconds())
	for _, m := range h.Messages {
		if m.Flagged && len(v.Suspects) < 3 {
			v.Suspects = append(v.Suspects, m.ID)
		}
	}
	for _, id := range v.Suspects {
		t.Logf("message %s:%s", id, l.timeline(id))
	}
	l.True(v.OK(), "%s", v.Explain())
	l.Zero(v.Duplicated)
	l.Zero(v.Repeats)
	l.Zero(v.Flagged)
	l.Zero(v.Unknown)
	l.Zero(c.main.broken.Load()+c.slow.broken.Load(), "a request failed for good")
	l.Empty(c.main.unreported, "its receipt never came")
}

// buildNext builds the engine under its next version.
func (c *clusterLab) buildNext() {
	cmd := exec.CommandContext(c.ctx, "go", "build", "-ldflags", "-X main.version="+nextVersion,
		"-o", filepath.Join(c.bin, "engine-"+nextVersion), "./cmd/engine")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	c.NoError(err, "%s", out)
}

// versions checks that the cluster says which version runs where.
func (c *chaos) versions() {
	c.t.Helper()
	got, err := c.operator.Cluster(c.ctx)
	c.NoError(err)
	for i, n := range got.Nodes {
		want := "dev"
		if c.nodes[i].bin != "engine" {
			want = nextVersion
		}
		c.Equal(sdk.NodeAlive, n.State, n.Name)
		c.Equal(want, n.Version, n.Name)
	}
}

// pauses are the times between hand-overs.
func pauses(seen []sighting) (out []time.Duration) {
	for i := 1; i < len(seen); i++ {
		out = append(out, seen[i].At.Sub(seen[i-1].At))
	}
	return out
}
