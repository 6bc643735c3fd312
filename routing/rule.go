package routing

import (
	"math"
	"strconv"
	"strings"

	"github.com/msgctl/msgctl/delivery"
)

// match returns the first rule that is about a message, with its number from 0; nil = none. Alone says that messages of
// the same tenant and channel may come to another result: a condition on more than the channel stood in the way of this
// one, or was met.
func match(q *Query) (rule *delivery.RouteRule, n int, alone bool) {
	for i := range q.Rules {
		r := &q.Rules[i]
		if r.Channel != 0 && r.Channel != q.Channel {
			continue
		}
		alone = alone || r.Prefix != "" || r.Category != "" || r.Tag != ""
		if (r.Category == "" || r.Category == q.Category) && (r.Tag == "" || r.Tag == q.Tag) &&
			(r.Prefix == "" || begins(q.Channel, q.To, r.Prefix)) {
			return r, i, alone
		}
	}
	return nil, 0, alone
}

// begins reports whether an address lies under a rule's prefix: the first digits of a phone number, the domain of a
// mailbox or a domain above it, the host of a URL or its beginning with the whole host.
func begins(ch delivery.Channel, to, prefix string) bool {
	switch ch {
	case delivery.SMS, delivery.WhatsApp:
		return strings.HasPrefix(to, prefix)
	case delivery.Email:
		d, under := domain(to), strings.TrimPrefix(prefix, "@")
		above := len(d) - len(under)
		return above >= 0 && strings.EqualFold(d[above:], under) && (above == 0 || d[above-1] == '.')
	case delivery.Webhook:
		if strings.Contains(prefix, "://") {
			return strings.HasPrefix(to, prefix) && host(to) == host(prefix)
		}
		return strings.EqualFold(host(to), prefix)
	}
	return false
}

// priority is the way of a message that no rule is about.
const priority = "priority"

// label names a rule in facts and explanations: its number from 1 and what it asks for. There is one per rule, so that
// facts can be counted by it.
func label(r *delivery.RouteRule, n int) string {
	if r == nil {
		return priority
	}
	s := "rule " + strconv.Itoa(n+1)
	sep := ": "
	for _, asks := range [...]string{r.Prefix, r.Category, r.Tag} {
		if asks != "" {
			s += sep + asks
			sep = " "
		}
	}
	return s
}

// seat is a target of a rule in the order in which a message asks.
type seat struct {
	account *Account
	target  *delivery.RouteTarget
	wait    float64 // the shorter, the sooner it is asked; reserves come after every weighted target
}

// seats puts the targets of a rule in the order in which a message asks them, and appends them to buf. Each weighted
// target draws a time from an exponential distribution whose rate is its weight, by a hash of the message and of its
// own name; the shortest wins (rendezvous hashing; the weights as in Efraimidis and Spirakis, Information Processing
// Letters 97 (2006) 181–185). So a message asks in the same order each time it comes, shares follow the weights, and
// when a target is out, what it would have got is spread over the others by their weights.
func seats(buf []seat, s *snapshot, q *Query, r *delivery.RouteRule) []seat {
	for i := range r.Targets {
		t := &r.Targets[i]
		at := seat{account: s.called(q.Tenant, t.Connector, q.Channel), target: t, wait: math.Inf(1)}
		if t.Weight > 0 {
			at.wait = draw(q.Message, t.Connector) / float64(t.Weight)
		}
		buf = append(buf, at)
		for j := len(buf) - 1; j > 0 && buf[j].wait < buf[j-1].wait; j-- { // stable: reserves keep the order of the list
			buf[j], buf[j-1] = buf[j-1], buf[j]
		}
	}
	return buf
}

// draw gives a time that is exponentially distributed with rate 1 over messages, the same for the same message and
// name.
func draw(id delivery.MessageID, name string) float64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h = mix(h)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	u := (float64(mix(h)>>11) + 0.5) / (1 << 53) // never 0 and never 1
	return -math.Log(u)
}

// mix spreads every bit over all others: the finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014). FNV alone
// leaves the last characters of a name in the low bits.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
