package pipeline

import (
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const (
	// maxAsked bounds how long a provider can make us wait.
	maxAsked = time.Hour
	// minDelay is the least time between two attempts: jitter must not make a retry out of a busy loop.
	minDelay = 100 * time.Millisecond
	// unknownAttempts bounds the attempts that end in a code which the connector does not know.
	unknownAttempts = 3
)

// ReasonRetriesExhausted is why a message ends whose next attempt would come later than its tenant's rule allows.
const ReasonRetriesExhausted = "retries_exhausted"

// schedule is when failed attempts are made again.
type schedule struct {
	delays []time.Duration // at least one; the last repeats
	giveUp time.Duration   // after acceptance; 0 = when the message expires
}

// pickSchedule returns the schedule of the first rule that matches, or the engine's own delays.
func pickSchedule(rules []delivery.RetryRule, own []time.Duration, ch delivery.Channel, c delivery.Class) schedule {
	for i := range rules {
		r := &rules[i]
		if (r.Channel != 0 && r.Channel != ch) || (r.Class != 0 && r.Class != c) {
			continue
		}
		if len(r.Delays) == 0 { // a rule may only say when to give up
			return schedule{own, r.GiveUpAfter}
		}
		return schedule{r.Delays, r.GiveUpAfter}
	}
	return schedule{own, 0}
}

// pause is how long to wait after the nth counted attempt, from 0. Of the schedule's delay d the given share is drawn
// anew for each attempt: with share 1 the pause is anywhere in (0, d], which spreads messages that failed together best
// (AWS Architecture Blog, "Exponential Backoff And Jitter", "full jitter"); with 0 it is d. chance is in [0, 1).
func (s schedule) pause(attempts int, share, chance float64) time.Duration {
	d := s.delays[min(attempts, len(s.delays)-1)]
	return max(d-time.Duration(share*chance*float64(d)), minDelay)
}

// deadline is when a message of that acceptance is given up; zero = when it expires.
func (s schedule) deadline(accepted time.Time) time.Time {
	if s.giveUp <= 0 {
		return time.Time{}
	}
	return accepted.Add(s.giveUp)
}

// nextTry is when m may be tried again after a failure of class c, never before the provider's own asked, which is
// bounded. last reports that this lies beyond the rule's end: then there is no next attempt, and until is that end.
func (p *Pipeline) nextTry(
	m *passage, c delivery.Class, asked time.Duration, now time.Time,
) (until time.Time, last bool) {
	var rules []delivery.RetryRule
	if t, err := p.tenants.get(m.Queue.Tenant); err == nil { // else the engine's schedule: the next failure asks anew
		rules = t.Retry
	}
	s := pickSchedule(rules, p.opt.Retry, m.Queue.Channel, c)
	d := s.pause(m.Attempts, *p.opt.Jitter, p.opt.Chance(m.ID, m.Attempts+1))
	until = now.Add(max(d, min(asked, maxAsked)))
	if end := s.deadline(m.AcceptedAt); !end.IsZero() && until.After(end) {
		return end, true
	}
	return until, false
}

// spread is a random share of d, so that what waits for the same thing does not come back at one moment.
func (p *Pipeline) spread(m *passage, d time.Duration) time.Duration {
	return time.Duration(p.opt.Chance(m.ID, m.Attempts+1) * float64(d))
}

// exhausted ends m after a failed attempt that was the last its rule allows.
func exhausted(o *store.Outcome, m *passage) {
	o.Detail = clip("given up after " + plural(m.Attempts+1, "attempt") + ", the last: " + o.Reason + " " + o.Detail)
	o.Status, o.Reason, o.Until = delivery.StatusFailed, ReasonRetriesExhausted, time.Time{}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// maxUnknownCodes bounds the codes that are remembered: a provider can make up as many as it likes.
const maxUnknownCodes = 1000

// unknownCodes are the codes that connectors did not know, so that each is logged once for each account.
type unknownCodes struct {
	mu   sync.Mutex
	seen map[unknownCode]struct{}
}

type unknownCode struct {
	account delivery.AccountID
	code    string
}

// note logs a code of m's account that is met for the first time. Nothing more is logged once maxUnknownCodes are
// known.
func (u *unknownCodes) note(log *slog.Logger, m *passage, f *delivery.Failure) {
	code := f.Code
	if len(code) > 64 {
		code = code[:64]
	}
	k := unknownCode{m.account.ID, code}
	u.mu.Lock()
	_, known := u.seen[k]
	full := len(u.seen) >= maxUnknownCodes
	if !known && !full {
		if u.seen == nil {
			u.seen = map[unknownCode]struct{}{}
		}
		u.seen[k] = struct{}{}
	}
	last := len(u.seen) == maxUnknownCodes
	u.mu.Unlock()
	if known || full {
		return
	}
	log.Warn("a provider answered with a code that its connector does not know; it counts as temporary, for few attempts",
		"connector", m.account.Name, "kind", m.account.Kind.Name, "class", f.Class.String(), "code", code)
	if last {
		log.Warn("many unknown codes; further ones are counted and not logged", "codes", maxUnknownCodes)
	}
}
