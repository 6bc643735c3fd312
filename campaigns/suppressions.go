package campaigns

import (
	"context"

	"github.com/msgctl/msgctl/delivery"
)

// suppressions answers for many addresses whether they are suppressed. A list of ordinary length is read once, because
// a look-up per person would cost more than everything else that is done for one; a longer one is asked each time. It
// is a view for dry runs and imports: what decides about a hand-off is the store.
type suppressions struct {
	store  Store
	tenant delivery.TenantID
	all    map[string]uint8 // address → bits by channel, bit 0 = every channel; nil = ask the store
}

// maxSuppressions bounds what is kept in memory, about 10 MB.
const maxSuppressions = 100_000

func readSuppressions(ctx context.Context, s Store, tenant delivery.TenantID) (*suppressions, error) {
	const page = 1000
	v := &suppressions{store: s, tenant: tenant, all: map[string]uint8{}}
	for after := ""; ; {
		entries, err := s.SuppressionList(ctx, tenant, after, page)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			v.all[e.To] |= 1 << e.Channel
		}
		if len(entries) < page {
			return v, nil
		}
		if len(v.all) > maxSuppressions {
			v.all = nil
			return v, nil
		}
		// The page may end amid the entries of its last address. It goes on behind the address before.
		last := entries[len(entries)-1].To
		for i := len(entries) - 1; i >= 0 && entries[i].To == last; i-- {
			entries = entries[:i]
		}
		after = last
		if len(entries) > 0 {
			after = entries[len(entries)-1].To
		}
	}
}

func (v *suppressions) has(ctx context.Context, ch delivery.Channel, to string) (bool, error) {
	if v.all != nil {
		return v.all[to]&(1|1<<ch) != 0, nil
	}
	_, hit, err := v.store.Suppressed(ctx, v.tenant, ch, to)
	return hit, err
}
