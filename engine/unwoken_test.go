package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/cluster/clustertest"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// sleepy is a store that is away for some of the calls that wake.
type sleepy struct {
	*clustertest.View
	fails atomic.Int32
}

// Wake implements store.Sweeper.
func (s *sleepy) Wake(ctx context.Context, sys store.System, now time.Time, h store.Held) (int, error) {
	if s.fails.Add(-1) >= 0 {
		return 0, store.ErrUnavailable
	}
	return s.View.Wake(ctx, sys, now, h)
}

// A connector comes back while the store is away for a moment: what was held for it goes all the same.
func TestWhatIsHeldForAConnectorIsWokenHoweverLate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := newRig(t)
	s := &sleepy{View: r.shared.View()}
	cfg := engine.Config{
		Dir: t.TempDir(), Store: "postgres://shared.invalid/x", Node: "a", Heartbeat: testTTL, Lease: time.Minute,
	}
	copyKey(t, r.key, cfg.Dir)
	e, err := engine.NewOn(cfg, s, r.provider.kindAt("a"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	require.NoError(t, e.Start(ctx))
	c := r.client(&member{Engine: e})
	r.connect(c, nil)
	_, err = c.Connectors.Pause(ctx, "main")
	require.NoError(t, err)
	m, err := c.Send(ctx, sdk.SMS{To: "+12025550100", Text: "Hello"})
	require.NoError(t, err)
	eventually(t, "it is held", func() bool {
		got, err := c.Messages.Get(ctx, m.ID)
		return err == nil && got.Status == sdk.Held
	})
	s.fails.Store(3)
	_, err = c.Connectors.Resume(ctx, "main")
	require.NoError(t, err)
	eventually(t, "it goes", func() bool { return r.provider.total() == 1 })
	require.Negative(t, s.fails.Load(), "the store was not away")
}
