package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/msgctl/msgctl/limits"
)

//go:embed script.lua
var script string

// prepare reads the options. Nothing is sent yet.
func prepare(opt Options, p pace) (*Limiter, error) {
	ro, err := clientOptions(opt.URL)
	if err != nil {
		return nil, err
	}
	if opt.MaxNodes < 0 {
		return nil, fmt.Errorf("limits: the greatest number of nodes cannot be %d", opt.MaxNodes)
	}
	if opt.MaxNodes == 0 {
		opt.MaxNodes = 16
	}
	if strings.ContainsAny(opt.Prefix, "{}") {
		return nil, fmt.Errorf("limits: the prefix %q contains a brace: Redis' hash tags need them", opt.Prefix)
	}
	if opt.Prefix == "" {
		opt.Prefix = "msgctl"
	}
	if opt.Node == "" {
		opt.Node = "node-" + newSession()
	}
	if opt.Sign > 0 {
		p.settled = opt.Sign + 2*time.Second
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ro.DialTimeout = p.dial
	quietly(ro)
	l := &Limiter{
		opt: opt, log: log.With("part", "limits"), pace: p,
		client: goredis.NewClient(ro), script: goredis.NewScript(script),
		base: opt.Now(), kick: make(chan struct{}, 1), done: make(chan struct{}),
		buckets: buckets{byKey: map[limits.Key]*bucket{}},
	}
	l.link.aloneFrom, l.link.gap = int64(p.closedFor()), p.gapMost
	l.link.nodes, l.link.present = 1, 1
	seed := fnv.New64a()
	_, _ = io.WriteString(seed, opt.Node)
	l.chance = rand.New(rand.NewPCG(seed.Sum64(), uint64(opt.Now().UnixNano())))
	l.alone.since = -int64(century) // the first list has not changed
	return l, nil
}

// clientOptions reads a URL for one connection that gives up soon and never repeats a call by itself: a lease that is
// asked for twice would be lost.
func clientOptions(raw string) (*goredis.Options, error) {
	ro, err := goredis.ParseURL(raw)
	if err != nil {
		var bad *url.Error // holds the URL, with its password
		if errors.As(err, &bad) {
			err = bad.Err
		}
		return nil, fmt.Errorf("limits: not a Redis URL: %w; use redis://user:password@host:6379/0 (rediss: for TLS)", err)
	}
	ro.MaxRetries, ro.DialerRetries = -1, 1
	ro.PoolSize, ro.PipelinePoolSize, ro.MinIdleConns = 1, -1, 0
	ro.ContextTimeoutEnabled = true
	ro.DisableIdentity, ro.Protocol = true, 2
	return ro, nil
}

// check finds out what waiting will not cure.
func (l *Limiter) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	at := l.client.Options().Addr
	err := l.client.Ping(ctx).Err()
	if err == nil {
		_, _, err = l.call(ctx, 2*time.Second, request{op: "hello"})
	}
	if err != nil {
		if passes(err) {
			l.log.Warn("Redis cannot be reached yet: this node goes by its own share of the rate limits until it can",
				"redis", at, "err", err)
			return nil
		}
		return fmt.Errorf("limits: the Redis at %s refuses: %w%s", at, err, hint(err))
	}
	if info, err := l.client.Info(ctx, "replication").Result(); err == nil && strings.Contains(info, "role:slave") {
		return fmt.Errorf("limits: the Redis at %s is a replica, which cannot be written to: name its primary", at)
	}
	if info, err := l.client.Info(ctx, "memory").Result(); err == nil && strings.Contains(info, "maxmemory_policy:") &&
		!strings.Contains(info, "maxmemory_policy:noeviction") && !strings.Contains(info, "maxmemory:0\r") {
		l.log.Warn("Redis may drop keys when its memory is full, and a dropped limit starts afresh: "+
			"set maxmemory-policy noeviction", "redis", at)
	}
	return nil
}

// passes says that a failure may end without anybody changing the configuration.
func passes(err error) bool {
	var answered goredis.Error
	if errors.As(err, &answered) {
		for _, state := range []string{"LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "OOM", "READONLY"} {
			if strings.HasPrefix(answered.Error(), state) {
				return true
			}
		}
		return strings.Contains(answered.Error(), "max number of clients")
	}
	var failed net.Error
	return errors.As(err, &failed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ENOENT)
}

// hint says what to do about an error that Redis has answered with.
func hint(err error) string {
	var answered goredis.Error
	text := err.Error()
	switch {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"),
		strings.Contains(text, "invalid password"):
		return "; check the user and the password in the URL of the limits"
	case strings.Contains(text, "NOPERM"):
		return "; the user needs eval, evalsha, time, hgetall, hmget, hset, hdel, del and expire on its keys"
	case !errors.As(err, &answered):
		return "; is that a Redis?"
	}
	return ""
}
