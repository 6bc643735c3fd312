package templates

import (
	"container/list"
	"context"
	"sync"

	"github.com/msgctl/msgctl/delivery"
)

// maxCached bounds the memory of all cached sets, in bytes by rough estimate.
const maxCached = 64 << 20

// Cache keeps compiled sets, the least recently used go first. It is safe for concurrent use. A version never changes,
// so nothing in it is ever stale.
type Cache struct {
	most int

	mu    sync.Mutex
	sets  map[cacheKey]*list.Element // of *cacheEntry
	order *list.List                 // the most recently used in front
	bytes int
	busy  map[cacheKey]*flight
}

type cacheKey struct {
	tenant  delivery.TenantID
	name    string
	version int
}

type cacheEntry struct {
	key cacheKey
	set *Set
}

// flight is a compilation that others wait for.
type flight struct {
	done chan struct{}
	set  *Set
	err  error
}

// NewCache makes a cache of at most that many sets, at least 1.
func NewCache(most int) *Cache {
	return &Cache{most: max(1, most), sets: map[cacheKey]*list.Element{}, order: list.New(), busy: map[cacheKey]*flight{}}
}

// Get returns the compiled set of a template version. When it is not there, load reads its source, once for all who
// ask at the same time. An error is not kept. A caller whose ctx ends stops waiting, but load sees the context of the
// caller that came first; when that one ends, another caller loads. Version 0 names no version and is never kept.
func (c *Cache) Get(
	ctx context.Context, tenant delivery.TenantID, name string, version int, load func(context.Context) (Source, error),
) (*Set, error) {
	key := cacheKey{tenant, name, version}
	if version <= 0 {
		return loadSet(ctx, load)
	}
	for {
		c.mu.Lock()
		if e, ok := c.sets[key]; ok {
			c.order.MoveToFront(e)
			set := e.Value.(*cacheEntry).set
			c.mu.Unlock()
			return set, nil
		}
		f, others := c.busy[key]
		if !others {
			f = &flight{done: make(chan struct{})}
			c.busy[key] = f
			c.mu.Unlock()
			return c.fill(ctx, key, f, load)
		}
		c.mu.Unlock()
		select {
		case <-f.done:
			if f.err == nil {
				return f.set, nil
			}
			if isTemplateError(f.err) {
				return nil, f.err
			}
			// The first caller's context or its store failed: try with our own, one at a time.
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fill compiles and stores. Its end wakes the waiters even when load panics.
func (c *Cache) fill(
	ctx context.Context, key cacheKey, f *flight, load func(context.Context) (Source, error),
) (*Set, error) {
	f.err = context.Canceled // what waiters see if load panics: try again
	defer func() {
		c.mu.Lock()
		delete(c.busy, key)
		if f.err == nil {
			c.store(key, f.set)
		}
		c.mu.Unlock()
		close(f.done)
	}()
	f.set, f.err = loadSet(ctx, load)
	return f.set, f.err
}

func loadSet(ctx context.Context, load func(context.Context) (Source, error)) (*Set, error) {
	src, err := load(ctx)
	if err != nil {
		return nil, err
	}
	return CompileSet(src)
}

func isTemplateError(err error) bool {
	_, ok := err.(*Error) //nolint:errorlint // CompileSet documents this very type; load's errors are not shared
	return ok
}

// store runs under the lock.
func (c *Cache) store(key cacheKey, set *Set) {
	c.sets[key] = c.order.PushFront(&cacheEntry{key, set})
	c.bytes += set.size
	for c.order.Len() > 1 && (c.order.Len() > c.most || c.bytes > maxCached) {
		last := c.order.Remove(c.order.Back()).(*cacheEntry)
		delete(c.sets, last.key)
		c.bytes -= last.set.size
	}
}

// Len returns how many sets are kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.order.Len()
}
