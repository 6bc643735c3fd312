package pipeline

import (
	"strconv"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// ReasonConnectorBusy is why a message is held whose account has more to do than it gets done: its provider is slow.
const ReasonConnectorBusy = "connector_busy"

const (
	// leastKept is how many messages wait in memory for the slowest account.
	leastKept = 16
	// longestBusy bounds for how long a message is held at once; the account may be quicker by then.
	longestBusy = time.Minute
)

// shed holds what the account cannot get to soon: a queue's messages for a slow account would otherwise use up all that
// may be claimed of the queue, and those for quick accounts would stand behind them. Only messages whose account is their
// own matter are held; where the account is the whole queue's, the queue itself goes on at the account's speed. What is
// held comes back by and by, or when the account has nothing left to do. Callers hold mu and hand back what is returned.
func (s *station) shed(now time.Time) (back []*passage) {
	perSecond := s.speed()
	if s.crowd.running < max(s.crowd.size, 1) || perSecond == 0 || len(s.lanes) == 0 {
		return nil
	}
	keep := max(leastKept, 2*s.crowd.size, int(perSecond*horizon.Seconds()))
	each := max(keep/len(s.lanes), windowMin)
	at := now.Add(seconds(float64(keep) / perSecond))
	if s.busyUntil.After(at) { // those that are held already go first
		at = s.busyUntil
	}
	why := delivery.Standing{Reason: ReasonConnectorBusy, Until: at, Account: s.acct.Name, PerSecond: perSecond}
	detail := s.acct.Name + " gets about " + strconv.FormatFloat(tenths(perSecond), 'f', -1, 64) + " per second done"
	for _, l := range s.turn {
		if len(l.waiting) <= each {
			continue
		}
		kept := l.waiting[:each]
		for _, m := range l.waiting[each:] {
			if !m.alone || m.probe {
				kept = append(kept, m)
				continue
			}
			at = at.Add(seconds(1 / perSecond))
			m.hold(ReasonConnectorBusy, detail, earlier(at, now.Add(longestBusy)))
			back = append(back, m)
		}
		clear(l.waiting[len(kept):])
		l.waiting = kept
		s.p.planner.note(l.key.queue, why)
	}
	if len(back) > 0 {
		s.busyUntil = earlier(at, now.Add(longestBusy))
	}
	return back
}

// idleAfterBusy reports, once, that the account has nothing to do although messages may be held for it. Callers hold mu.
func (s *station) idleAfterBusy() bool {
	if s.busyUntil.IsZero() || s.crowd.running > 0 {
		return false
	}
	for _, l := range s.turn {
		if len(l.waiting) > 0 {
			return false
		}
	}
	s.busyUntil = time.Time{}
	return true
}

// took notes how long an attempt took. Callers hold mu.
func (s *station) took(d time.Duration) {
	if s.took8 == 0 {
		s.took8 = 8 * d
		return
	}
	s.took8 += d - s.took8/8
}

// speed is how many attempts a second the account can end, by how long they take; 0 = nobody knows yet.
func (s *station) speed() float64 {
	if s.took8 <= 0 {
		return 0
	}
	return float64(max(s.crowd.size, 1)) * 8 / s.took8.Seconds()
}

// wakeBusy lets what is held for the account go now.
func (s *station) wakeBusy() {
	s.p.wakeLater(store.Held{Reason: ReasonConnectorBusy, Account: s.acct.ID})
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
