package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// How long a doubt waits for a receipt is the kind's, unless the account says otherwise.
func TestResolveWindowOfAnAccount(t *testing.T) {
	t.Parallel()
	e, err := New(Config{Dir: t.TempDir()}, connectors.Kind{
		Name: "fake", Channel: delivery.SMS, Ambiguity: connectors.Correlate, ResolveWindow: time.Minute,
		Settings: []connectors.Setting{{Key: "resolve_window", Type: connectors.Duration}},
		Open:     func(*connectors.Account) (connectors.Connector, error) { return nil, nil },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	for setting, want := range map[string]time.Duration{"": time.Minute, "5s": 5 * time.Second} {
		row := store.Account{Name: "a", Kind: "fake", Settings: map[string]string{}}
		if setting != "" {
			row.Settings["resolve_window"] = setting
		}
		a, err := e.openAccount(t.Context(), row)
		require.NoError(t, err)
		require.Equal(t, want, a.account.Kind.ResolveWindow)
	}
}
