package redis

import (
	"encoding/hex"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/limits"
)

// bucket is what a node knows of one limit.
type bucket struct {
	key         limits.Key
	id          string // its key in Redis
	used        int64  // when it was last asked
	rate, burst float64
	active      bool // is in Limiter.active

	paused    time.Time // nothing passes before
	ownPause  time.Time // what this node was told by Pause
	tellPause bool      // Redis has yet to hear of it

	// The lease, which belongs to the session that it was made in.
	session  int64
	have     float64 // to be spent
	from     int64   // not before
	usedAt   int64   // when the latest of it came or was spent
	leasedAt int64   // when the first of it came
	held     bool    // Redis counts something as held by this node
	spent    float64 // and not yet told
	spentAt  int64
	need     float64 // more that the latest refused request needs
	cost     float64 // of the latest request
	wantedAt int64   // when that was
	askAt    int64   // Redis has nothing for askCost before
	askCost  float64
	window   float64 // how much to ask for at once
	drained  bool    // the latest lease was used up

	// Without Redis.
	start  int64 // of the time that it is alone
	debt   float64
	debtAt int64
	paying float64 // per second, since debtAt
	grown  float64 // as of alone, when it was last asked
	owes   bool    // Redis has yet to hear of debt
	owner  ownership
}

// ownership caches whose the limit is when it cannot be divided.
type ownership struct {
	list int64 // of which members
	mine bool
}

// Costs, rates and bursts above most count as this; a rate below least counts as one message in 136 years.
const (
	most  = 1e9
	least = 1.0 / (1 << 32)
	tiny  = 1e-9 // differences below this are rounding
)

// enter makes the bucket belong to a session: leases of an older one are void.
func (b *bucket) enter(session int64) {
	if b.session == session {
		return
	}
	b.session = session
	b.have, b.spent, b.from, b.askAt, b.window, b.held = 0, 0, 0, 0, 0, false
	b.tellPause = !b.ownPause.IsZero()
}

// set takes the rate of the latest request.
func (b *bucket) set(r limits.Rate) {
	rate, burst := max(least, min(r.PerSecond, most)), min(r.Burst, most)
	if rate != b.rate || burst != b.burst {
		b.rate, b.burst, b.askAt = rate, burst, 0
	}
}

// silent says that Redis need not hear of the bucket.
func (b *bucket) silent() bool {
	return b.have <= 0 && b.spent <= 0 && b.need <= 0 && !b.held && !b.tellPause && !b.owes
}

// buckets holds all that are known. Those that say no more than an absent one are forgotten after a while.
type buckets struct {
	byKey map[limits.Key]*bucket
	all   []*bucket
	hand  int
}

func (s *buckets) of(k limits.Key, prefix string) *bucket {
	if b, ok := s.byKey[k]; ok {
		return b
	}
	b := &bucket{key: k, id: name(prefix, k)}
	s.byKey[k] = b
	s.all = append(s.all, b)
	return b
}

// forget looks at up to n buckets, from where it stopped the last time.
func (s *buckets) forget(n int, now time.Time, t int64, unused time.Duration) {
	for range min(n, len(s.all)) {
		if s.hand >= len(s.all) {
			s.hand = 0
		}
		b := s.all[s.hand]
		if b.active || t-b.used < int64(unused) || now.Before(b.paused) || b.owed(t) > 0 {
			s.hand++
			continue
		}
		delete(s.byKey, b.key)
		last := len(s.all) - 1
		s.all[s.hand], s.all[last] = s.all[last], nil
		s.all = s.all[:last]
	}
}

// name is a bucket's key in Redis. The tenant stands last: it may contain anything.
func name(prefix string, k limits.Key) string {
	return "{" + prefix + "}:limit:" + strconv.Itoa(int(k.Channel)) + ":" + hex.EncodeToString(k.Account[:]) + ":" +
		hex.EncodeToString(k.Campaign[:]) + ":" + string(k.Tenant)
}

// first says whether node has the highest hash of all members for id (rendezvous hashing, Thaler & Ravishankar 1998):
// every node finds the same one, and a member less moves only what was that member's.
func first(id, node string, members []string) bool {
	score := func(member string) uint64 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(id))
		_, _ = h.Write([]byte{0})
		_, _ = h.Write([]byte(member))
		x := h.Sum64() // FNV leaves similar names close together
		x = (x ^ x>>33) * 0xff51afd7ed558ccd
		x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
		return x ^ x>>33
	}
	own, found := score(node), false
	for _, m := range members {
		if m == node {
			found = true
		} else if s := score(m); s > own || s == own && m < node {
			return false
		}
	}
	return found
}
