package pipeline_test

import (
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
)

// lingering is a rig whose recorder waits for as long as it may. nowhere makes a message that has to be held.
func lingering(t *testing.T, linger time.Duration) (r *rig, nowhere func(int, *store.NewMessage)) {
	r = newRig(t, clockwork.NewRealClock(), &fake{}, func(r *rig) {
		r.fault = &faulty{}
		r.tune = func(o *pipeline.Options) { o.Linger = linger }
	})
	gone := r.ids.Account()
	return r, func(_ int, m *store.NewMessage) { m.Account = gone }
}

func TestAHoldIsWrittenWithTheNextOutcomeThatSomebodyWaitsFor(t *testing.T) {
	t.Parallel()
	r, nowhere := lingering(t, time.Hour)
	held := r.accept(3, nowhere)
	r.await(held, delivery.StatusSending)
	require.Empty(t, r.fault.sizes(), "nobody waits for it")
	sent := 0
	for ; r.count(delivery.StatusHeld) < len(held); sent++ { // a hold may still be on its way to the recorder
		r.await(r.accept(1, nil), delivery.StatusSent)
	}
	require.LessOrEqual(t, len(r.fault.sizes()), sent, "each writing has one that is waited for")
	r.audited()
}

func TestAHoldIsWrittenWhenItHasWaited(t *testing.T) {
	t.Parallel()
	r, nowhere := lingering(t, 20*time.Millisecond)
	r.await(r.accept(3, nowhere), delivery.StatusHeld)
	r.audited()
}

func TestAFullBatchOfHoldsIsWritten(t *testing.T) {
	t.Parallel()
	r, nowhere := lingering(t, time.Hour)
	r.accept(600, nowhere)
	require.Eventually(t, func() bool { return r.count(delivery.StatusHeld) >= 512 }, patience, tick)
	for _, n := range r.fault.sizes() {
		require.Equal(t, 256, n)
	}
}

func TestShutdownWritesWhatLingers(t *testing.T) {
	t.Parallel()
	r, nowhere := lingering(t, time.Hour)
	held := r.accept(3, nowhere)
	r.await(held, delivery.StatusSending)
	r.shutdown()
	r.await(held, delivery.StatusHeld)
	r.audited()
}

// A hold for a rate that is written after the rate was raised does not wait for the old one's turn: the wake of the
// change came before it.
func TestAHoldThatIsWrittenAfterItsRateWasRaised(t *testing.T) {
	t.Parallel()
	r, _ := lingering(t, time.Hour)
	r.tenantIs(store.Tenant{Rates: []store.TenantRate{{PerSecond: 1.0 / 3600, Burst: 1}}})
	pinned := func(_ int, m *store.NewMessage) { m.Account = r.acct.ID }
	r.await(r.accept(1, pinned), delivery.StatusSent)
	late := r.accept(1, pinned)
	r.await(late, delivery.StatusSending)
	require.Eventually(t, func() bool {
		why, ok := r.pipe.Standing(delivery.Queue{Tenant: tenant, Channel: delivery.SMS, Lane: delivery.Normal})
		return ok && why.Reason == pipeline.ReasonRateLimited
	}, patience, tick, "the hold has been decided")
	r.tenantIs(store.Tenant{Rates: []store.TenantRate{{PerSecond: 1000, Burst: 100}}})
	r.await(r.accept(1, pinned), delivery.StatusSent)
	r.await(late, delivery.StatusSent)
}
