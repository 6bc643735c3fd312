package redis

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/msgctl/msgctl/internal/servers"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/limitstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manual opens a limiter for a clock that the test turns. Redis starts with nothing owed.
func manual(t *testing.T, url, node string, nodes int) *Limiter {
	p := defaultPace()
	p.ttl, p.timeout, p.ahead, p.giveBack, p.credit = 1000*24*time.Hour, 5*time.Second, 0, 0, 1e15
	l, err := prepare(Options{URL: url, Node: node, Nodes: func() int { return nodes }}, p)
	require.NoError(t, err)
	l.virtual, l.asking, l.base = true, true, time.Time{}
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func TestConformance(t *testing.T) {
	limitstest.Run(t, func(t *testing.T) limits.Limiter { return manual(t, servers.Redis(t).URL, "a", 1) })
}

var background = context.Background()
