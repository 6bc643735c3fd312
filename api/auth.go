package api

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/msgctl/msgctl/apikey"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// TenantHeader names the tenant that an operator's key acts for.
const TenantHeader = "X-Msgctl-Tenant"

// identity is whom a key belongs to.
type identity struct {
	tenant delivery.TenantID // delivery.Shared for an operator's key
	key    delivery.KeyID
	mode   string
	admin  bool
}

// keyCache remembers valid keys for a short while, so that a request need not read the store. It is bounded: full, it
// starts anew. A revocation in this process is seen at once, one in another process when Handler is told, or
// within keyTTL.
type keyCache struct {
	store  store.Keys
	pepper []byte
	now    func() time.Time

	looks singleflight.Group // requests that need the same key at the same time look once

	mu      sync.RWMutex
	known   map[[32]byte]cachedKey
	revoked uint64 // counts revocations: a look-up that began before one is not kept, nor shared with whoever comes after
}

type cachedKey struct {
	identity
	until time.Time
}

const (
	keyTTL    = 5 * time.Second
	keysCache = 10_000
)

func newKeyCache(s store.Keys, pepper []byte, now func() time.Time) *keyCache {
	return &keyCache{store: s, pepper: pepper, now: now, known: map[[32]byte]cachedKey{}}
}

var errKey = errors.New("no valid key")

// find returns whom a key belongs to, or errKey for every reason there is.
func (k *keyCache) find(ctx context.Context, text string) (identity, error) {
	key, err := apikey.Parse(text)
	hash := apikey.Hash(k.pepper, key) // also for what cannot be a key: the work is the same
	if err != nil {
		return identity{}, errKey
	}
	now := k.now()
	k.mu.RLock()
	hit, ok := k.known[hash]
	revoked := k.revoked
	k.mu.RUnlock()
	if ok && now.Before(hit.until) {
		return hit.identity, nil
	}
	row, err := together(ctx, &k.looks, string(hash[:])+strconv.FormatUint(revoked, 10),
		func(ctx context.Context) (store.Key, error) { return k.store.KeyByHash(ctx, system(), hash) })
	switch {
	case errors.Is(err, store.ErrNotFound):
		return identity{}, errKey
	case err != nil:
		return identity{}, err
	case !row.RevokedAt.IsZero(), row.Hash != hash:
		return identity{}, errKey
	}
	id := identity{tenant: row.Tenant, key: row.ID, mode: row.Mode, admin: row.Admin}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revoked == revoked {
		if len(k.known) >= keysCache {
			clear(k.known)
		}
		k.known[hash] = cachedKey{id, now.Add(keyTTL)}
	}
	return id, nil
}

// together shares one look-up among those who ask for the same name while it lasts. It goes on when whoever began it
// does not wait any more.
func together[T any](
	ctx context.Context, g *singleflight.Group, name string, look func(context.Context) (T, error),
) (out T, err error) {
	answer := g.DoChan(name, func() (any, error) { return look(context.WithoutCancel(ctx)) })
	select {
	case <-ctx.Done():
		return out, ctx.Err()
	case a := <-answer:
		out, _ = a.Val.(T)
		return out, a.Err
	}
}

// forgetAll drops everything at once.
func (k *keyCache) forgetAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked++
	clear(k.known)
}

// forget drops a key at once.
func (k *keyCache) forget(id delivery.KeyID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked++
	for hash, c := range k.known {
		if c.key == id {
			delete(k.known, hash)
		}
	}
}

// bearer returns the token of an Authorization header (RFC 6750 §2.1); the scheme's case does not matter.
func bearer(header []string) string {
	if len(header) != 1 {
		return ""
	}
	scheme, token, ok := strings.Cut(header[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// signIn finds out who asks and for which tenant. Without a valid key the answer is the same for every cause. Where a
// route is not for the caller, it does not exist.
func (c *call) signIn() error {
	if c.route.scope == provider {
		return nil
	}
	id, err := c.a.keys.find(c.ctx(), bearer(c.r.Header["Authorization"]))
	switch {
	case errors.Is(err, errKey):
		return fail("unauthorized", "a valid API key is needed: Authorization: Bearer mk_…")
	case err != nil:
		return err
	}
	c.id, c.tenant = id, id.tenant
	asked := c.r.Header[TenantHeader]
	if len(asked) > 1 {
		return fail("invalid_parameter", "%s is given %d times", TenantHeader, len(asked))
	}
	if !id.admin {
		if c.route.scope == operator || len(asked) == 1 && asked[0] != string(id.tenant) {
			return noRoute()
		}
		return nil
	}
	if len(asked) == 1 && asked[0] != "" {
		if !tenantSlug(asked[0]) {
			return fail("not_found", "there is no such tenant")
		}
		if _, err := c.a.Store.Tenant(c.ctx(), system(), delivery.TenantID(asked[0])); err != nil {
			if errors.Is(err, store.ErrNotFound) {
				return fail("not_found", "there is no such tenant")
			}
			return err
		}
		c.tenant = delivery.TenantID(asked[0])
	}
	if c.route.scope == tenant && shared(c.tenant) {
		return fail("tenant_required", "an operator's key names the tenant in the %s header", TenantHeader)
	}
	return nil
}

// tenantSlug reports whether s can name a tenant: 1 to 40 of a-z, 0-9 and hyphen, with a letter or digit at both ends.
func tenantSlug(s string) bool {
	if s == "" || len(s) > 40 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// validName reports whether s can name a template, a connector, an audience or a campaign.
func validName(s string) bool {
	if s == "" || len(s) > 64 || strings.IndexByte("._-", s[0]) >= 0 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func checkName(pointer, name string) error {
	if validName(name) {
		return nil
	}
	return failAt(pointer, "invalid_name", "a name has 1 to 64 letters, digits, dots, underscores and hyphens and begins "+
		"with a letter or digit")
}
