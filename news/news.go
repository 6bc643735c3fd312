// Package news carries tiny notices between the nodes of a cluster at once, best effort, over Redis.
//
// News say that something is worth a look; the store says what. Who misses one looks a little later, because everybody
// looks now and then anyway. So nothing here waits, repeats or fails: while Redis is away there are no news.
package news

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Notice is one piece of news.
type Notice struct {
	Payload []byte // nil when there is nothing but Gap to be told; it belongs to the receiver
	// Gap says that notices before this one may be missing: look into the store. The first notice of a subscription says
	// so, when it has begun, and the first one after Redis was away or the receiver was slow.
	Gap bool
}

const (
	// MaxPayload is how long a notice can be, in bytes. A longer one is dropped.
	MaxPayload = 16 << 10

	buffer   = 64  // notices that wait for one receiver, and for Redis
	outgoing = 256 // the same
	timeout  = 200 * time.Millisecond
	idle     = 2 * time.Second // without a word from Redis: it is asked whether it lives
	slowest  = 2 * time.Second // between attempts to come back
)

// News is a connection to the news of a cluster. It is safe for concurrent use.
type News struct {
	log     *slog.Logger
	prefix  string
	client  *goredis.Client // nil: the news stay in this process
	stop    context.CancelFunc
	running sync.WaitGroup
	out     chan outbound
	changed chan struct{} // topics were added or removed

	mu     sync.Mutex
	closed bool
	topics map[string]*topic
	ps     *goredis.PubSub // the present connection; nil = there is none
}

type topic struct {
	live      bool // Redis has confirmed it
	asked     bool // Redis has been told
	receivers map[*Subscription]struct{}
}

type outbound struct {
	channel string
	payload []byte
}

// Open begins to carry news over the Redis at rawURL: redis://[user:password@]host[:port][/db], rediss:// or unix://. ""
// keeps them in this process. A Redis that cannot be reached is no error, then or later. Clusters that share a Redis use
// different database numbers. log may be nil.
func Open(ctx context.Context, rawURL string, log *slog.Logger) (*News, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &News{log: log.With("part", "news"), topics: map[string]*topic{}, changed: make(chan struct{}, 1)}
	if rawURL == "" {
		return n, nil
	}
	ro, err := goredis.ParseURL(rawURL)
	if err != nil {
		var bad *url.Error // holds the URL, with its password
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return nil, fmt.Errorf("news: not a Redis URL: %w; use redis://user:password@host:6379/0, rediss:// for TLS", err)
	}
	ro.MaxRetries, ro.DialerRetries, ro.PoolSize, ro.PipelinePoolSize, ro.Protocol = -1, 1, 2, -1, 2
	ro.DialTimeout, ro.ReadTimeout, ro.WriteTimeout = time.Second, timeout, timeout
	ro.ContextTimeoutEnabled, ro.DisableIdentity = true, true
	quietly(ro)
	n.client = goredis.NewClient(ro)
	n.prefix = "msgctl:" + strconv.Itoa(ro.DB) + ":news:" // Redis' channels do not know databases
	n.out = make(chan outbound, outgoing)
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	n.running.Go(func() { n.publish(run) })
	n.running.Go(func() { n.enrol(run) })
	n.running.Go(func() { n.receive(run) })
	return n, nil
}

// Close ends all subscriptions, whose channels are closed, and the connection. It takes no longer than a call to Redis,
// and is safe twice.
func (n *News) Close() error {
	n.mu.Lock()
	was := n.closed
	n.closed = true
	for _, t := range n.topics {
		for s := range t.receivers {
			close(s.c)
		}
	}
	n.topics = map[string]*topic{}
	ps := n.ps
	n.mu.Unlock()
	if was || n.client == nil {
		return nil
	}
	n.stop()
	if ps != nil {
		_ = ps.Close()
	}
	n.running.Wait()
	return n.client.Close()
}

// Publish tells everybody who has subscribed to the topic at any node, this one among them. It never blocks: when Redis
// does not take the notices as fast as they come, the oldest are dropped. payload is not kept.
func (n *News) Publish(_ context.Context, topic string, payload []byte) {
	if len(payload) > MaxPayload {
		n.log.Warn("a notice is too long and was dropped", "bytes", len(payload), "most", MaxPayload)
		return
	}
	o := outbound{n.prefix + topic, append([]byte{}, payload...)}
	if n.client == nil {
		n.deliver(topic, Notice{Payload: o.payload})
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock() // so that nobody puts one in between dropping and sending
	if n.closed {
		return
	}
	for {
		select {
		case n.out <- o:
			return
		default:
		}
		select {
		case <-n.out:
		default:
		}
	}
}

// publish sends what Publish has put down, as much at a time as there is.
func (n *News) publish(ctx context.Context) {
	for {
		var batch []outbound
		select {
		case <-ctx.Done():
			return
		case o := <-n.out:
			batch = append(batch, o)
		}
		for len(batch) < buffer && len(n.out) > 0 {
			batch = append(batch, <-n.out)
		}
		call, cancel := context.WithTimeout(ctx, timeout)
		_, err := n.client.Pipelined(call, func(p goredis.Pipeliner) error {
			for _, o := range batch {
				p.Publish(call, o.channel, o.payload)
			}
			return nil
		})
		cancel()
		if err != nil && ctx.Err() == nil {
			n.log.Debug("news were lost", "notices", len(batch), "err", err)
		}
	}
}
