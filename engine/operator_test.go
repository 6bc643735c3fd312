package engine_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/cluster/clustertest"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/engine"
	"github.com/msgctl/msgctl/store"
)

// sameLook is a store on which all nodes look for the operator's keys before any of them makes one.
type sameLook struct {
	*clustertest.View
	looking *atomic.Bool
	all     *sync.WaitGroup
}

func (s sameLook) KeyList(ctx context.Context, sys store.System, t delivery.TenantID) ([]store.Key, error) {
	keys, err := s.View.KeyList(ctx, sys, t)
	if s.looking.Load() && t == delivery.Shared {
		s.all.Done()
		s.all.Wait()
	}
	return keys, err
}

// operatorKeys are those of the store that are valid.
func operatorKeys(t *testing.T, s store.Store) (n int) {
	t.Helper()
	keys, err := s.KeyList(t.Context(), store.AsSystem("test"), delivery.Shared)
	require.NoError(t, err)
	for _, k := range keys {
		if k.Admin && k.RevokedAt.IsZero() {
			n++
		}
	}
	return n
}

// keyWorks reports whether the operator's file of a directory is there, and that its key is good.
func keyWorks(t *testing.T, dir string, e *engine.Engine) bool {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(dir, engine.OperatorKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	require.NoError(t, err)
	require.NotContains(t, string(secret), "stale")
	require.Equal(t, http.StatusOK, getWith(t, e, "/v1/tenants", string(secret[:len(secret)-1])))
	return true
}

func TestOneNodeMakesTheOperatorsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 4
	var looking atomic.Bool
	var all sync.WaitGroup
	var nodes []*member
	start := func() (errs []error) {
		errs = make([]error, len(nodes))
		var wg sync.WaitGroup
		for i, m := range nodes {
			wg.Go(func() { errs[i] = m.Start(t.Context()) })
		}
		wg.Wait()
		return errs
	}
	for round := range 2 { // the second time the key of the first is revoked
		nodes = nil
		for i := range n {
			view := r.shared.View()
			m := &member{name: string(rune('a' + i)), dir: t.TempDir()}
			copyKey(t, r.key, m.dir)
			require.NoError(t, os.WriteFile(filepath.Join(m.dir, engine.OperatorKeyFile), []byte("stale\n"), 0o600))
			var err error
			m.Engine, err = engine.NewOn(engine.Config{Dir: m.dir, Store: "postgres://shared.invalid/x", Node: m.name,
				Heartbeat: testTTL}, sameLook{view, &looking, &all}, r.provider.kindAt(m.name))
			require.NoError(t, err)
			nodes = append(nodes, m)
		}
		all.Add(n)
		looking.Store(true)
		for _, err := range start() {
			require.NoError(t, err)
		}
		looking.Store(false)
		s := r.shared.View()
		require.Equal(t, 1, operatorKeys(t, s), "round %d", round)
		have := 0
		for _, m := range nodes {
			if keyWorks(t, m.dir, m.Engine) {
				have++
			}
		}
		require.Equal(t, 1, have, "one node has the file, and its key is the one")
		keys, err := s.KeyList(t.Context(), store.AsSystem("test"), delivery.Shared)
		require.NoError(t, err)
		for _, k := range keys {
			require.NoError(t, s.RevokeKey(t.Context(), store.AsSystem("test"), delivery.Shared, k.ID, k.CreatedAt))
		}
		for _, m := range nodes {
			require.NoError(t, m.Close())
		}
	}
}

// lostAnswer is a store that has kept a key and says that it has not.
type lostAnswer struct {
	*clustertest.View
	says error
	keep bool
}

func (s lostAnswer) PutKey(ctx context.Context, sys store.System, k store.Key) error {
	if s.keep {
		if err := s.View.PutKey(ctx, sys, k); err != nil {
			return err
		}
	}
	return s.says
}

func TestTheOperatorsKeyWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says  error
		keep  bool
		start error // what the first start says
	}{
		"kept, and said to be taken": {store.ErrExists, true, nil},
		"kept, and not known":        {store.ErrOutcomeUnknown, true, store.ErrOutcomeUnknown},
		"not kept":                   {store.ErrUnavailable, false, store.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			dir := t.TempDir()
			copyKey(t, r.key, dir)
			cfg := engine.Config{Dir: dir, Store: "postgres://shared.invalid/x", Node: "a", Heartbeat: testTTL}
			first, err := engine.NewOn(cfg, lostAnswer{r.shared.View(), c.says, c.keep}, r.provider.kindAt("a"))
			require.NoError(t, err)
			require.ErrorIs(t, first.Start(t.Context()), c.start)
			require.NoError(t, first.Close())
			second, err := engine.NewOn(cfg, r.shared.View(), r.provider.kindAt("a"))
			require.NoError(t, err)
			defer func() { require.NoError(t, second.Close()) }()
			require.NoError(t, second.Start(t.Context()))
			require.Equal(t, 1, operatorKeys(t, r.shared.View()))
			require.True(t, keyWorks(t, dir, second), "the next start leaves a key that works")
		})
	}
}

// getWith asks an engine with a key and returns the status.
func getWith(t *testing.T, e *engine.Engine, path, key string) int {
	t.Helper()
	ask, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://engine.invalid"+path, nil)
	require.NoError(t, err)
	ask.Header.Set("Authorization", "Bearer "+key)
	resp, err := engine.InProcess(e.Handler()).RoundTrip(ask)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}
