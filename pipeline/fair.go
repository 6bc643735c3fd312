package pipeline

import (
	"slices"
	"sort"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// Who goes next, wherever several want to: ids in hints, queues that are claimed from, messages before an account.
//
//  1. Bands come first. Urgent goes before normal and normal before bulk, but each band has its share of a round, so
//     that a lower one that has work always gets a little: 16 : 4 : 1.
//  2. A queue that has waited for agedAfter gets a larger share: bulk as much as normal, normal half as much as urgent.
//     It still goes behind the band whose share it has, so that urgent keeps its precedence.
//  3. Within a band, tenants share by weight, counted in what their messages cost.
//  4. What is a tenant's own, its queues and campaigns, takes turns within the tenant's share: a thousand campaigns of
//     one tenant get what one campaign of another gets.

// band is a lane, or a lane's queues that have waited for long.
type band int

const (
	bandUrgent band = iota
	bandAgedNormal
	bandNormal
	bandAgedBulk
	bandBulk
	bandCount
)

// bandWeights are the bands' parts of a round.
var bandWeights = [bandCount]float64{16, 8, 4, 4, 1}

// agedAfter is how long the oldest message of a queue waits until the queue gets a larger share.
const agedAfter = 30 * time.Second

func bandOf(l delivery.Lane, aged bool) band {
	switch {
	case l == delivery.Urgent:
		return bandUrgent
	case l == delivery.Normal && aged:
		return bandAgedNormal
	case l == delivery.Normal:
		return bandNormal
	case aged:
		return bandAgedBulk
	}
	return bandBulk
}

// lane is the lane of the band's messages.
func (b band) lane() delivery.Lane {
	switch b {
	case bandUrgent:
		return delivery.Urgent
	case bandAgedNormal, bandNormal:
		return delivery.Normal
	}
	return delivery.Bulk
}

// precedence gives each band its part of a round, and the higher ones go first in it. A round ends when no band that
// has something left of it can go. It is not safe for concurrent use.
type precedence struct {
	quantum float64 // cost for a weight of 1 in one round
	left    [bandCount]float64
}

// order returns the bands in the order in which they may go now: first those that have something left.
func (p *precedence) order() (order [bandCount]band) {
	n := 0
	for _, spent := range [...]bool{false, true} {
		for b := range bandCount {
			if (p.left[b] <= 0) == spent {
				order[n] = b
				n++
			}
		}
	}
	return order
}

// spend books what went. When the band had nothing left, none of those before it could go: a new round begins.
func (p *precedence) spend(b band, cost float64) {
	for p.left[b] <= 0 {
		for i, w := range bandWeights {
			p.left[i] = min(p.left[i]+w*p.quantum, w*p.quantum)
		}
	}
	p.left[b] -= cost
}

// shares lets tenants share turns by weight, and what belongs to one tenant takes turns within its share. It is
// start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996): a turn moves its tenant on by cost ÷ weight, and the
// tenant that is furthest behind goes next. Between any two that both have work, the difference of cost ÷ weight never
// grows beyond one turn of each. Who has no work or cannot go saves nothing up: its next turn counts from where the
// others are. The zero value is ready for use, by one goroutine at a time.
type shares[T comparable] struct {
	all   map[delivery.TenantID]*share[T] // those in ring, and those that left it ahead of the others
	ring  []*share[T]                     // those with work, furthest behind first
	clock float64                         // where the tenant of the latest turn stood before it
}

type share[T comparable] struct {
	tenant delivery.TenantID
	at     float64
	own    []T // in order of turn
}

// verdict is what came of offering a turn.
type verdict int

const (
	took    verdict = iota // and paid its cost
	cannot                 // not now; the next one may
	gone                   // it has no work any more
	stopped                // nobody can go now
)

// add gives a tenant something that wants turns. It must not be there yet.
func (s *shares[T]) add(t delivery.TenantID, v T) {
	m := s.all[t]
	if m == nil {
		s.forget()
		if s.all == nil {
			s.all = map[delivery.TenantID]*share[T]{}
		}
		m = &share[T]{tenant: t}
		s.all[t] = m
	}
	m.own = append(m.own, v)
	if len(m.own) == 1 {
		s.place(m)
	}
}

// forget drops tenants without work that are no longer ahead: a new one would stand no worse.
func (s *shares[T]) forget() {
	if len(s.all) < 64+2*len(s.ring) {
		return
	}
	for t, m := range s.all {
		if len(m.own) == 0 && m.at <= s.clock {
			delete(s.all, t)
		}
	}
}

// place puts m into the ring, behind those that stand where it does.
func (s *shares[T]) place(m *share[T]) {
	i := sort.Search(len(s.ring), func(i int) bool { return s.ring[i].at > m.at })
	s.ring = slices.Insert(s.ring, i, m)
}

// remove takes out what add put in.
func (s *shares[T]) remove(t delivery.TenantID, v T) {
	m := s.all[t]
	if m == nil {
		return
	}
	if i := slices.Index(m.own, v); i >= 0 {
		m.own = slices.Delete(m.own, i, i+1)
	}
	if len(m.own) == 0 {
		s.ring = slices.DeleteFunc(s.ring, func(r *share[T]) bool { return r == m })
		s.rest()
	}
}

// rest begins anew when nobody has work: then nobody is ahead of anybody.
func (s *shares[T]) rest() {
	if len(s.ring) == 0 {
		clear(s.all)
		s.clock = 0
	}
}

// next offers the next turn with try, to one after the other, until somebody takes it; false = nobody did. try must not
// change s.
func (s *shares[T]) next(weight func(delivery.TenantID) float64, try func(T) (cost float64, v verdict)) bool {
	for i := 0; i < len(s.ring); {
		m := s.ring[i]
		for j := 0; j < len(m.own); {
			v := m.own[j]
			cost, what := try(v)
			switch what {
			case gone:
				m.own = slices.Delete(m.own, j, j+1)
				continue
			case cannot:
				j++
				continue
			case stopped:
				return false
			}
			m.own = append(slices.Delete(m.own, j, j+1), v)
			s.clock = max(s.clock, m.at)
			m.at = s.clock + cost/weight(m.tenant)
			s.ring = slices.Delete(s.ring, i, i+1)
			s.place(m)
			return true
		}
		if len(m.own) == 0 {
			s.ring = slices.Delete(s.ring, i, i+1)
			continue
		}
		i++
	}
	s.rest()
	return false
}

// each calls f with everything that is in, in order of turn, until it returns false.
func (s *shares[T]) each(f func(T) bool) bool {
	for _, m := range s.ring {
		for _, v := range m.own {
			if !f(v) {
				return false
			}
		}
	}
	return true
}

// weight is a tenant's share beside others. A tenant that has not been read yet counts as any other: this is asked with
// locks held, and what is sent for the tenant has it read soon.
func (p *Pipeline) weight(t delivery.TenantID) float64 {
	if v, ok := p.tenants.views.Load(t); ok {
		return float64(max(v.(*store.Tenant).Weight, 1))
	}
	return 1
}
