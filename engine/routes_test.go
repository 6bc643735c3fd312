package engine_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/sdk"
)

// The API's answer about a route is what the running engine would do, and a rule counts as soon as it is stored.
func TestExplainRoute(t *testing.T) {
	ctx := context.Background()
	e, err := engine.New(engine.Config{Dir: t.TempDir()}, kind())
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	require.NoError(t, e.Start(ctx))
	c, err := e.Client("acme")
	require.NoError(t, err)
	for _, name := range []string{"alpha", "beta"} {
		_, err = c.Connectors.Put(ctx, name, sdk.ConnectorRequest{Kind: "taker"})
		require.NoError(t, err)
	}
	ask := func() *sdk.RouteExplanation {
		out, err := c.Routes.Explain(ctx, sdk.RouteQuery{Channel: sdk.ChannelSMS, To: "+919876543210", Category: "otp"})
		require.NoError(t, err)
		return out
	}
	out := ask()
	require.Equal(t, []string{"priority", "alpha"}, []string{out.Rule, out.Connector})
	require.Len(t, out.Candidates, 2)
	_, err = c.Routes.Set(ctx, []sdk.Route{{Prefix: "+91", Category: "otp", Targets: []sdk.RouteTarget{{Connector: "beta", Weight: 3}, {Connector: "alpha"}}}})
	require.NoError(t, err)
	out = ask()
	require.Equal(t, "beta", out.Connector)
	require.Contains(t, out.Rule, "+91")
	require.Equal(t, []sdk.RouteCandidate{{Connector: "beta", Weight: 3, State: "ready"}, {Connector: "alpha", State: "ready"}}, out.Candidates)
	_, err = c.Connectors.Pause(ctx, "beta")
	require.NoError(t, err)
	out = ask()
	require.Equal(t, "alpha", out.Connector)
	require.Equal(t, "paused", out.Candidates[0].State)
}
