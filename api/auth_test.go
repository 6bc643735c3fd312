package api

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// slowKeys is a store whose look-ups wait until somebody lets them go.
type slowKeys struct {
	store.Keys
	looks atomic.Int32
	row   func() (store.Key, error)
	gate  chan struct{}
}

func (s *slowKeys) KeyByHash(context.Context, store.System, [32]byte) (store.Key, error) {
	s.looks.Add(1)
	row, err := s.row()
	<-s.gate
	return row, err
}

// What expires at the same moment for all is read once: a store that is slow must not be asked by everybody who waits.
func TestRequestsThatNeedTheSameKeyLookOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := apikey.New(apikey.Live)
		text, pepper := key.Reveal(), []byte("pepper")
		var revoked atomic.Bool
		s := &slowKeys{gate: make(chan struct{}), row: func() (store.Key, error) {
			if revoked.Load() {
				return store.Key{}, store.ErrNotFound
			}
			return store.Key{ID: delivery.KeyID{1}, Tenant: "acme", Hash: apikey.Hash(pepper, key)}, nil
		}}
		c := newKeyCache(s, pepper, time.Now)
		ctx, giveUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		find := func(ctx context.Context, want error) {
			wg.Go(func() {
				id, err := c.find(ctx, text)
				require.ErrorIs(t, err, want)
				if want == nil {
					require.Equal(t, delivery.TenantID("acme"), id.tenant)
				}
			})
		}
		find(ctx, context.Canceled) // whoever began it does not wait for it
		synctest.Wait()
		for range 20 {
			find(t.Context(), nil)
		}
		synctest.Wait()
		giveUp()
		synctest.Wait()
		require.EqualValues(t, 1, s.looks.Load())

		// Whoever comes after the key was revoked does not get what was read before.
		revoked.Store(true)
		c.forget(delivery.KeyID{1})
		find(t.Context(), errKey)
		synctest.Wait()
		require.EqualValues(t, 2, s.looks.Load())
		close(s.gate)
		wg.Wait()
	})
}
