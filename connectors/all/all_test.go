package all

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

func TestEveryChannelHasAKind(t *testing.T) {
	r := connectors.NewRegistry(Kinds()...) // panics on an incomplete or repeated kind
	have := map[delivery.Channel]bool{}
	for _, k := range r.Kinds() {
		have[k.Channel] = true
		require.NotEmpty(t, k.Doc, k.Name)
	}
	for _, c := range delivery.Channels {
		require.True(t, have[c], c)
	}
}
