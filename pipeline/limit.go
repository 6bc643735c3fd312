package pipeline

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/limits"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// horizon is how long a claimed message may wait for its permit in memory. What would wait longer goes back to the store:
// to its old place in the queue when the limit is the whole queue's, which is blocked meanwhile; as held, with the reason
// and the time, when the rest of the queue can go on.
const horizon = 2 * time.Second

// ReasonRateLimited is why a message waits that a rate does not let through yet.
const ReasonRateLimited = "rate_limited"

// permitLife is how long a permit is good for. A process that was stopped, or got no processor or no disk, between a
// permit and the provider would otherwise let go at once what it was permitted bit by bit.
const permitLife = 25 * time.Millisecond

// onTheWay is how much later than permitted a message may come to its provider: as long as a permit is good for, and as
// long again in the connector, the kernel and the network. What an account's rate lets through in this time is left of
// its burst, up to half of it, so that a provider does not see more in a second than the two declare.
const onTheWay = 2 * permitLife

// readyLook is how often a connector that is not ready is asked again, beside each end of an attempt.
const readyLook = 100 * time.Millisecond

// boundsBuffer is reused for every reservation of a station.
type boundsBuffer struct {
	bounds []limits.Bound
	names  []string
}

// limit returns a message that has just been given its permit, or the time before which there is none to give (zero:
// nothing waits, or not before an attempt has ended). Whose turn it is stands in fair.go.
func (p *Pipeline) limit(s *station, now time.Time) (*passage, time.Time) {
	s.mu.Lock()
	var back []*passage
	m, next := p.permit(s, now, &back)
	s.mu.Unlock()
	for _, b := range back {
		p.receipt(b)
	}
	return m, next
}

// permit is limit with the station locked; what has to go back to the store is added to back.
func (p *Pipeline) permit(s *station, now time.Time, back *[]*passage) (m *passage, next time.Time) {
	why, until, resting := s.acct.Resting()
	switch {
	case resting && !s.rested:
		s.pace.rest(now)
	case s.rested && !resting:
		s.crowd.restart()
		s.pace.recover(now)
	}
	s.rested = resting
	if !resting && s.mustWait() {
		s.full = true
		return nil, now.Add(readyLook)
	}
	for _, b := range s.order.order() {
		// A resting account has only its probe to send: how many it can take is no question then.
		if !resting && !s.crowd.room(b.lane()) {
			s.full = true
			continue
		}
		var d limits.Decision
		everybody := false // is refused
		if s.bands[b].next(p.weight, func(l *lane) (float64, verdict) {
			switch {
			case l.notBefore.After(now):
			case len(l.waiting) == 0:
			case p.campaigns.paused(l.waiting[0].Campaign):
				l.empty(back, func(w *passage) { w.giveBack(store.ReasonCampaignPaused) })
			case resting && !l.waiting[0].probe:
				p.rest(s, l, why, later(until, now), back)
			default:
				d, everybody = p.reserve(s, l.waiting[0], now)
				switch {
				case d.Go:
					m = l.take()
					if m.limited = s.limited(); m.limited {
						m.permitted = p.elapsed()
					}
					return m.cost(), took
				case everybody && !resting:
					return 0, stopped
				}
				p.wait(s, l, d, now, back)
			}
			if len(l.waiting) == 0 {
				delete(s.lanes, l.key)
				return 0, gone
			}
			next = sooner(next, l.notBefore)
			return 0, cannot
		}) {
			s.order.spend(b, m.cost())
			s.crowd.begin(m.Queue.Lane)
			return m, time.Time{}
		}
		if everybody && !resting {
			return nil, p.waitAll(s, d, now, back)
		}
	}
	return nil, next
}

// mustWait reports whether the connector would make a message wait, and an attempt is under way that learns for how long
// or why. Others would use up their permits waiting, and go together afterwards.
func (s *station) mustWait() bool {
	return s.ready != nil && s.crowd.running > 0 && !s.ready.Ready()
}

// take removes a lane's first message.
func (l *lane) take() *passage {
	m := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	return m
}

// wait makes a lane wait for what refused its first message.
func (p *Pipeline) wait(s *station, l *lane, d limits.Decision, now time.Time, back *[]*passage) {
	l.notBefore = d.NotBefore
	p.overflow(s, l, d, now, back)
}

// waitAll makes every lane wait for what holds for the whole account. Nobody may overtake the one whose turn it is by
// being cheaper.
func (p *Pipeline) waitAll(s *station, d limits.Decision, now time.Time, back *[]*passage) (next time.Time) {
	s.pace.wait(now)
	for _, l := range s.turn {
		if !l.notBefore.After(d.NotBefore) {
			p.wait(s, l, d, now, back)
		}
		if len(l.waiting) > 0 {
			next = sooner(next, l.notBefore)
		}
	}
	return next
}

// rest gives back the messages of a lane whose account rests. Route, which knows every account, decides about them anew.
func (p *Pipeline) rest(s *station, l *lane, why string, until time.Time, back *[]*passage) {
	block := false
	l.empty(back, func(m *passage) {
		if m.Account != (delivery.AccountID{}) { // pinned: the rest of the queue may have another way
			m.hold(routing.ReasonConnectorDown, s.acct.Name+": "+why, until)
			return
		}
		m.giveBack(routing.ReasonConnectorDown)
		block = block || !m.alone
	})
	if block {
		p.planner.narrow(l.key.queue, windowMin)
	}
}

// empty takes everything out of a lane, ended.
func (l *lane) empty(back *[]*passage, end func(*passage)) {
	for _, m := range l.waiting {
		end(m)
	}
	*back = append(*back, l.waiting...)
	l.waiting = nil
}

// later returns until, or half a second from now when that has passed: a probe is under way.
func later(until, now time.Time) time.Time {
	if until.After(now) {
		return until
	}
	return now.Add(500 * time.Millisecond)
}

func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// reserve asks for one permit over every bound that applies to m. When it is refused, everybody says that the account's
// own bound or a pause of it is what stands in the way, whoever asks.
func (p *Pipeline) reserve(s *station, m *passage, now time.Time) (d limits.Decision, everybody bool) {
	b, err := p.boundsFor(s, m, now)
	if err == nil {
		if d, err = p.opt.Limiter.Reserve(s.ctx, now, b.bounds, m.cost()); err == nil {
			return d, d.Blocking <= 0 // the account is the first bound, and nothing but accounts is ever paused
		}
	}
	// Nothing goes past a limit that is not known.
	if s.ctx.Err() == nil && p.ctx.Err() == nil {
		p.log.Warn("limits cannot be asked", "tenant", string(m.Queue.Tenant), "err", err)
	}
	return limits.Decision{NotBefore: now.Add(time.Second), Blocking: -1}, false
}

// limited reports whether any of the bounds that were asked last is a rate. Callers hold mu.
func (s *station) limited() bool {
	return slices.ContainsFunc(s.bounds.bounds, func(b limits.Bound) bool { return b.Rate.PerSecond < unbounded })
}

// permitHolds reports whether the permit of m is still good, or has just been given anew.
func (p *Pipeline) permitHolds(s *station, m *passage) bool {
	if !m.limited || p.elapsed()-m.permitted <= permitLife {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, _ := p.reserve(s, m, p.clock.Now())
	return d.Go
}

// boundsFor lists the bounds that apply to m. The account's own comes first.
func (p *Pipeline) boundsFor(s *station, m *passage, now time.Time) (*boundsBuffer, error) {
	b := &s.bounds
	b.bounds, b.names = b.bounds[:0], b.names[:0]
	add := func(k limits.Key, perSecond, burst float64, name string) {
		for i := range b.bounds {
			if b.bounds[i].Key == k { // a tenant's list may say the same twice: the tighter one counts
				if perSecond < b.bounds[i].Rate.PerSecond {
					b.bounds[i].Rate = rate(perSecond, burst)
				}
				return
			}
		}
		b.bounds = append(b.bounds, limits.Bound{Key: k, Rate: rate(perSecond, burst)})
		b.names = append(b.names, name)
	}
	// An account without a rate of its own still has a key, so that a provider's "slow down" is obeyed.
	own, burst, name := s.acct.PerSecond, s.acct.Burst, s.name
	if own <= 0 {
		own, burst = unbounded, unbounded
	}
	if pace := s.pace.at(now); pace > 0 && pace < own {
		own, burst, name = pace, 0, name+"'s present"
	}
	add(limits.Key{Account: s.acct.ID}, own, burst, name)
	if name == s.name { // declared, or none
		r := &b.bounds[0].Rate
		r.Burst = max(1, r.Burst-math.Floor(min(own*onTheWay.Seconds(), r.Burst/2)))
	}
	t, err := p.tenants.get(m.Queue.Tenant)
	if err != nil {
		return b, err
	}
	for i := range t.Rates {
		r := &t.Rates[i]
		if (r.Channel != 0 && r.Channel != m.Queue.Channel) || (r.Account != "" && r.Account != s.acct.Name) {
			continue
		}
		k := limits.Key{Tenant: m.Queue.Tenant, Channel: r.Channel}
		if r.Account != "" {
			k.Account = s.acct.ID
		}
		add(k, r.PerSecond, r.Burst, "tenant")
	}
	perSecond, err := p.campaigns.rate(m.Queue.Tenant, m.Campaign)
	if perSecond > 0 {
		add(limits.Key{Campaign: m.Campaign}, perSecond, 0, "campaign")
	}
	return b, err
}

// unbounded is a rate that nothing here reaches.
const unbounded = 1e9

// rate fills in the burst that is used when none is declared: a twentieth of a second's worth, at least one message.
func rate(perSecond, burst float64) limits.Rate {
	if burst < 1 {
		burst = max(1, perSecond/20)
	}
	return limits.Rate{PerSecond: perSecond, Burst: burst}
}

// overflow gives back the messages of a lane that cannot go within the horizon, with the time at which their turn is to
// be expected, and tells the planner how many the queue can use.
func (p *Pipeline) overflow(s *station, l *lane, d limits.Decision, now time.Time, back *[]*passage) {
	why := delivery.Standing{Reason: ReasonRateLimited, Until: d.NotBefore, Account: s.acct.Name}
	detail := s.acct.Name + " asked to slow down"
	perSecond, rise := 0.0, 0.0
	if d.Blocking >= 0 && d.Blocking < len(s.bounds.bounds) {
		perSecond = s.bounds.bounds[d.Blocking].Rate.PerSecond
		detail = "the " + s.bounds.names[d.Blocking] + " limit lets " + strconv.FormatFloat(perSecond, 'f', -1, 64) + " per second through"
	}
	why.PerSecond = perSecond
	if d.Blocking == 0 && perSecond == s.pace.perSecond {
		rise = s.pace.step
	}
	next := func(at time.Time, m *passage) time.Time { return nextTurn(at, m.cost(), perSecond, rise, now) }
	at, keep := d.NotBefore, 0
	for ; keep < len(l.waiting); keep++ {
		if at.Sub(now) > horizon {
			break
		}
		at = next(at, l.waiting[keep])
	}
	// A provider that asks to slow down again and again lets nobody wait for long at once, and yet little through: what is
	// pinned to it must not use up all that may be claimed of its queue.
	few := keep
	if d.Blocking < 0 {
		perSecond, rise = s.pace.at(now), s.pace.step
		few = min(keep, leastKept+int(perSecond*horizon.Seconds()))
		if at = d.NotBefore; perSecond > 0 {
			at = at.Add(seconds(float64(few) / perSecond))
		}
	}
	if few == len(l.waiting) {
		p.planner.note(l.key.queue, why)
		return
	}
	why.Until = at
	// A campaign's own limit says nothing about the tenant's other messages in the same queue, nor does the limit of an
	// account that a message is pinned to. Such messages are held until their turn, one after the other.
	alone := d.Blocking >= 0 && !s.bounds.bounds[d.Blocking].Key.Campaign.IsZero()
	if booked := s.booked[l.key]; booked.After(at) {
		at = booked
	}
	block := false
	kept := l.waiting[:few]
	for i, m := range l.waiting[few:] {
		switch {
		case alone || m.alone:
			m.hold(ReasonRateLimited, detail, at)
			if perSecond > 0 {
				at = next(at, m)
				s.book(l.key, at, now)
			}
		case few+i < keep:
			kept = append(kept, m)
			continue
		default:
			m.giveBack(ReasonRateLimited)
			block = true
		}
		*back = append(*back, m)
	}
	clear(l.waiting[len(kept):])
	l.waiting = kept
	if block {
		p.planner.block(l.key.queue, now.Add(horizon/2), max(keep, 1), why)
	} else {
		p.planner.note(l.key.queue, why)
	}
}

// nextTurn is when the turn after one at a given time is to be expected, at a rate that rises by so much each second.
func nextTurn(at time.Time, cost, perSecond, rise float64, now time.Time) time.Time {
	if perSecond <= 0 {
		return at
	}
	perSecond += rise * max(0, at.Sub(now).Seconds())
	return at.Add(time.Duration(cost / perSecond * float64(time.Second)))
}

// book notes until when the turns of a lane's held messages reach, so that the next ones are held behind them.
func (s *station) book(k laneKey, until, now time.Time) {
	maps.DeleteFunc(s.booked, func(_ laneKey, t time.Time) bool { return t.Before(now) })
	s.booked[k] = until
}

// slowDown makes everybody who uses an account wait: the provider asked for it.
func (p *Pipeline) slowDown(s *routing.Account, until time.Time) {
	if err := p.opt.Limiter.Pause(p.ctx, limits.Key{Account: s.ID}, until); err != nil {
		p.log.Warn("limits cannot be told to wait", "connector", s.Name, "err", err)
	}
}
