package campaigns

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/store"
)

func TestExpansionYieldsToAStoreUnderPressure(t *testing.T) {
	b := setup(t)
	busy := true
	b.Yield = func() bool { return busy }
	c := b.addCampaign("c", 1200)
	_, err := b.Start(t.Context(), acme, "c")
	require.NoError(t, err)
	b.drive(t.Context())
	require.Zero(t, b.report(t, "c").Accepted)
	busy = false
	b.drive(t.Context())
	require.Equal(t, 1200, b.report(t, "c").Accepted)
	busy = true
	b.store.send(c.ID)
	b.drive(t.Context())
	require.Equal(t, store.CampaignCompleted, b.report(t, "c").Campaign.State, "to end a campaign costs nothing")
	requireOnce(t, b.store, c)
}
