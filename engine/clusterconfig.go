package engine

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/msgctl/msgctl/cluster"
)

const (
	// clusterLease is how long a node may keep a message of a shared store: what a lost node leaves behind is taken up
	// after that. It is short because a node that is alive gives back in time what it cannot send.
	clusterLease = 10 * time.Second
)

// shared reports whether other engines may work on the same store.
func (c *Config) shared() bool { return c.Store != "" && scheme(c.Store) != "sqlite" }

// has reports whether the node has a role.
func (c *Config) has(role string) bool { return len(c.Roles) == 0 || slices.Contains(c.Roles, role) }

// roles are the node's roles, in the usual order.
func (c *Config) roles() []string {
	return slices.DeleteFunc(cluster.Roles(), func(r string) bool { return !c.has(r) })
}

// scheme is the part of a URL before the colon, in lower case; "" = there is none.
func scheme(raw string) string {
	s, _, ok := strings.Cut(raw, ":")
	if !ok {
		return ""
	}
	return strings.ToLower(s)
}

// checkCluster reports the first value that cannot be used of those that make a cluster.
func (c *Config) checkCluster() error {
	for _, u := range []struct {
		key, raw, use string
		schemes       []string // those with a host
		alone         string   // the scheme without one
	}{
		{"store", c.Store, "postgres://user:password@host/database, or sqlite: for a file in dir",
			[]string{"postgres", "postgresql"}, "sqlite"},
		{"broker", c.Broker, "amqp://user:password@host, or memory: for none", []string{"amqp", "amqps"}, "memory"},
		{"limits", c.Limits, "redis://host:6379, or memory: for none", []string{"redis", "rediss", "unix"}, "memory"},
	} {
		s := scheme(u.raw)
		switch {
		case u.raw == "":
		case s == u.alone:
			if len(u.raw) > len(s)+1 {
				return fmt.Errorf("configuration: %s: %s: takes nothing behind the colon: %s", u.key, s, u.use)
			}
		case !slices.Contains(u.schemes, s):
			return fmt.Errorf("configuration: %s: %s is not known: use %s", u.key, quotedScheme(s), u.use)
		default:
			if p, err := url.Parse(u.raw); err != nil { // the error repeats the URL, which may hold a password
				return fmt.Errorf("configuration: %s: the URL cannot be read: use %s, with special characters of the password "+
					"written as %%XX", u.key, u.use)
			} else if p.Host == "" && u.key != "store" && s != "unix" { // a PostgreSQL socket stands in the query
				return fmt.Errorf("configuration: %s: the URL names no host: use %s", u.key, u.use)
			}
		}
	}
	if !c.shared() && scheme(c.Broker) != "" && scheme(c.Broker) != "memory" {
		return errors.New("configuration: broker: an engine with a store of its own has nobody to share hints with: " +
			"set store too, or leave broker out")
	}
	if !c.shared() && scheme(c.Limits) != "" && scheme(c.Limits) != "memory" {
		return errors.New("configuration: limits: an engine with a store of its own has nobody to share rates with: " +
			"set store too, or leave limits out")
	}
	for i, r := range c.Roles {
		if !slices.Contains(cluster.Roles(), r) {
			return fmt.Errorf("configuration: roles: %q is not a role: use %s", r, strings.Join(cluster.Roles(), ", "))
		}
		if slices.Contains(c.Roles[:i], r) {
			return fmt.Errorf("configuration: roles: %s stands there twice", r)
		}
	}
	if !c.shared() && len(c.roles()) < len(cluster.Roles()) {
		return errors.New("configuration: roles: an engine with a store of its own has no other to do the rest: " +
			"set store too, or leave roles out")
	}
	if c.Heartbeat != 0 && (c.Heartbeat < cluster.MinTTL || c.Heartbeat > cluster.MaxTTL) {
		return fmt.Errorf("configuration: heartbeat: %s is out of range: use %s to %s", c.Heartbeat, cluster.MinTTL,
			cluster.MaxTTL)
	}
	return c.checkNode()
}

// maxNode bounds a node's name.
const maxNode = 64

func (c *Config) checkNode() error {
	name := c.Node
	if name == "" && c.shared() {
		host, err := os.Hostname()
		if err != nil || host == "" {
			return errors.New("configuration: node: the host has no name: give this engine one with --node")
		}
		name = host
	}
	if name == "" {
		return nil
	}
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if len(name) > maxNode || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("configuration: node: %q cannot be a node's name: use up to %d letters, digits, dots, hyphens and "+
			"underscores", name, maxNode)
	}
	return nil
}

func quotedScheme(s string) string {
	if s == "" {
		return "a value without a scheme"
	}
	return fmt.Sprintf("%q", s)
}

// redacted returns a URL without its password.
func redacted(raw string) string {
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	q := u.Query()
	for name := range q {
		if strings.Contains(strings.ToLower(name), "password") {
			q.Set(name, "xxxxx")
			u.RawQuery = q.Encode()
		}
	}
	return u.Redacted()
}
