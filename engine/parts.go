package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jonboulle/clockwork"

	"github.com/msgctl/msgctl/broker"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/limits/memory"
	"github.com/msgctl/msgctl/limits/redis"
	"github.com/msgctl/msgctl/news"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/sqlite"
	"github.com/msgctl/msgctl/vault"
)

// What an engine stands on is opened by the URLs of its configuration, here and nowhere else.

// openStore opens the store. One that several engines share also has the role store.Nodes.
func openStore(ctx context.Context, cfg *Config, now func() time.Time) (store.Store, error) {
	if cfg.shared() {
		return openPostgres(ctx, cfg, now)
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Dir: cfg.Dir, Log: cfg.Logger, Now: now})
	if err != nil {
		return nil, err // not the nil *sqlite.Store, which would not be a nil store.Store
	}
	return s, nil
}

// pressure is how long writes wait for the store, where it can tell.
func pressure(s store.Store) func() time.Duration {
	if p, ok := s.(interface{ Pressure() time.Duration }); ok {
		return p.Pressure
	}
	return nil
}

// openLimits opens what keeps the rates. Its clock is the node's own: it must run on, and is never set.
func openLimits(
	ctx context.Context, cfg *Config, members func() ([]string, bool), own clockwork.Clock,
) (limits.Limiter, error) {
	if s := scheme(cfg.Limits); s == "" || s == "memory" {
		return memory.New(), nil
	}
	o := redis.Options{
		URL: cfg.Limits, Node: cfg.Node, Members: members, Sign: cfg.Heartbeat, Log: cfg.Logger, Now: own.Now,
	}
	if byHand(own) {
		return limiter(redis.OpenByHand(ctx, o))
	}
	return limiter(redis.Open(ctx, o))
}

// limiter makes no limiter of a nil pointer.
func limiter[L limits.Limiter](l L, err error) (limits.Limiter, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// linger is for how long outcomes that nobody waits for may stay for others. With a clock that is turned by hand no time
// passes.
func linger(c clockwork.Clock) time.Duration {
	if byHand(c) {
		return 0
	}
	return 10 * time.Millisecond
}

// byHand reports whether a clock only moves when somebody turns it, as in features and tests.
func byHand(c clockwork.Clock) bool {
	_, ok := c.(interface{ Advance(d time.Duration) })
	return ok
}

// openNews opens what tells the nodes at once that there is something to look at: the Redis of the limits.
func openNews(ctx context.Context, cfg *Config) (*news.News, error) {
	if s := scheme(cfg.Limits); s == "" || s == "memory" {
		return news.Open(ctx, "", cfg.Logger)
	}
	return news.Open(ctx, cfg.Limits, cfg.Logger)
}

// limitsState says in a few words how the limits are shared; "" = they need not be.
func limitsState(l limits.Limiter) string {
	r, ok := l.(*redis.Limiter)
	if !ok {
		return ""
	}
	switch s := r.Stats(); {
	case s.Shared:
		return partOK
	case s.Err != "":
		return fmt.Sprintf("this node goes by its share of %d: %s", s.Nodes, s.Err)
	default:
		return fmt.Sprintf("this node goes by its share of %d", s.Nodes)
	}
}

// closer ends what has to be ended.
func closer(v any) error {
	if c, ok := v.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// wires carry hints: those for this process stay in it, the others go by the broker.
type wires struct {
	near, far *broker.Broker
}

// openWires connects to the broker.
func openWires(cfg *Config, now func() time.Time) (w wires, err error) {
	if w.near, err = broker.Open(broker.Memory, cfg.Logger); err != nil {
		return w, err
	}
	w.far = w.near
	if s := scheme(cfg.Broker); s != "" && s != "memory" {
		w.far, err = broker.OpenWith(cfg.Broker, cfg.Logger, &broker.Options{Node: cfg.Node, Now: now})
	}
	if err != nil {
		return w, errors.Join(err, w.near.Close())
	}
	return w, nil
}

func (w wires) of(topic string) *broker.Broker {
	if pipeline.Local(topic) {
		return w.near
	}
	return w.far
}

// Publish implements message.Publisher.
func (w wires) Publish(topic string, messages ...*message.Message) error {
	return w.of(topic).Publish(topic, messages...)
}

// Subscribe implements message.Subscriber.
func (w wires) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	return w.of(topic).Subscribe(ctx, topic)
}

// Close ends both. It is safe twice.
func (w wires) Close() error {
	err := w.near.Close()
	if w.far != w.near {
		err = errors.Join(err, w.far.Close())
	}
	return err
}

// state says in a few words how the broker is.
func (w wires) state() string {
	switch h := w.far.Health(); {
	case h.Connected && !h.Blocked:
		return partOK
	case h.Reason != "":
		return "hints are found late: " + h.Reason
	}
	return "hints are found late"
}

// partOK is the state of a part that works.
const partOK = "ok"

const masterKeyFile = "master.key"

// openVault reads the master key. The first engine over a store makes it; every other must be given the same, because
// secrets that one seals are to be opened by all.
func openVault(ctx context.Context, cfg *Config, s store.Store) (*vault.Vault, error) {
	path := filepath.Join(cfg.Dir, masterKeyFile)
	if !cfg.shared() {
		return vault.LoadOrCreate(path)
	}
	keys, err := s.KeyList(ctx, system, "")
	if err != nil {
		return nil, err
	}
	tenants, err := s.TenantList(ctx, system)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); os.IsNotExist(err) && len(keys)+len(tenants) > 0 {
		return nil, fmt.Errorf("%s is missing, and the store is in use with a master key already: "+
			"copy the file from the directory of another node, readable by its owner only", path)
	}
	v, err := vault.LoadOrCreate(path)
	if err != nil {
		return nil, err
	}
	for _, t := range tenants {
		if len(t.DataKey) == 0 {
			continue
		}
		owner := vault.Owner{Tenant: string(t.ID), DataKey: t.DataKey}
		if _, err := v.Seal(owner, vault.Place{Table: "check"}, nil); err != nil {
			return nil, fmt.Errorf("%s is not the master key that the store's secrets were sealed with: "+
				"copy the file from the directory of another node", path)
		}
		break
	}
	return v, nil
}

// keyTag begins the one role of a node that is no role: the fingerprint of its master key. So two nodes that were both
// started without one on an empty store find out that they have made two.
const keyTag = "key:"

// tagOf returns the fingerprint among a node's roles; "" = it has none.
func tagOf(roles []string) string {
	for _, r := range roles {
		if strings.HasPrefix(r, keyTag) {
			return r
		}
	}
	return ""
}
