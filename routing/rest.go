package routing

import (
	"sync"
	"time"
)

// health is what is known about how an account works. Its breaker is closed, or open until a probe.
type health struct {
	mu      sync.Mutex
	down    bool
	failing bool // with down: it rests because too many attempts failed, not because one found it unable to work
	why     string
	probeAt time.Time
	backoff time.Duration
	upAt    time.Time // when the last rest of a failing account ended: its backoff is remembered for steady
	probing bool      // a message is out to try
	lostAt  time.Time // with probing: when nothing has been heard of it for so long that another may try
	callAt  time.Time // when Untried may say again that nobody has come

	lastAt time.Time // of the last observed attempt
	worked bool      // since the last probe was let through, an attempt ended in a way that speaks for the account
	failed bool      // since then, one ended in a way that speaks against it
	recent window
	places destinations
}

// How long an account rests after it went down: doubled with every failed probe. The probe of an account that cannot be
// reached costs next to nothing, no attempt either: it is looked after soon enough to be back soon after its provider.
// That of an account that fails is an attempt, and may be a doubt.
const (
	firstRest = 2 * time.Second
	downRest  = 15 * time.Second // at most, when it cannot be reached
	longRest  = time.Minute      // at most, when its attempts fail
)

// steady is how long something must have worked before its next rest is a short one again. Without it, a provider that
// fails most of the time but not always would be rested and taken up again every few seconds.
const steady = 2 * time.Minute

// Down reports that a Send found the account unable to work; probe says whether it was the message that Probe let
// through. It returns until when the account rests. Other attempts that end while it rests say nothing new.
func (a *Account) Down(now time.Time, why string, probe bool) time.Time {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down && !probe {
		return h.probeAt
	}
	h.rest(now, why)
	return h.probeAt
}

// rest begins a rest, or goes on with one whose probe failed. Callers hold mu.
func (h *health) rest(now time.Time, why string) {
	if !h.down && !now.Before(h.upAt.Add(steady)) {
		h.backoff = 0
	}
	longest := downRest
	if h.failing {
		longest = longRest
	}
	h.backoff = nextRest(h.backoff, firstRest, longest)
	h.down, h.probing, h.why, h.probeAt, h.callAt = true, false, why, now.Add(h.backoff), time.Time{}
}

// nextRest is how long a rest is that follows one of the given length; 0 = none that counts.
func nextRest(last, first, longest time.Duration) time.Duration {
	return min(max(2*last, first), longest)
}

// Up reports that the Send of a probe worked, or failed for a reason that is not the account's. It returns true when
// that ended a rest: messages held for the account can go again. Only a probe ends a rest, because an attempt that was
// under way when the account went down may end well after it. An account that rests because too many attempts failed
// needs more than an answer: its rest goes on when what Observe has heard since the probe began are failures again.
func (a *Account) Up() bool {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down && h.failing && h.failed && !h.worked {
		h.rest(h.lastAt, h.why)
		return false
	}
	was := h.down
	if h.failing {
		h.upAt = h.lastAt // the next rest is longer, unless it comes late
	} else {
		h.backoff = 0
	}
	h.down, h.failing, h.probing, h.why = false, false, false, ""
	return was
}

// Resting returns whether the account rests, why and until when. While it does, Probe lets single messages through.
func (a *Account) Resting() (why string, until time.Time, resting bool) {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why, h.probeAt, h.down
}

// Probe reports whether a message may try the account now. A resting account lets exactly one message through once its
// rest is over; the others wait for what becomes of it. A probe that is not heard of for long makes way for the next.
func (a *Account) Probe(now time.Time) bool {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.probeReady(now) {
		return false
	}
	h.probe(now, a.lost())
	return true
}

// probeReady reports whether the account works, or a probe may go. Callers hold mu.
func (h *health) probeReady(now time.Time) bool {
	return !h.down || over(h.probeAt, now, longRest) && (!h.probing || !now.Before(h.lostAt))
}

// over reports whether the end of a wait has come, or lies further away than any wait is long: then the clock has been
// set back.
func over(end, now time.Time, longest time.Duration) bool {
	return !now.Before(end) || end.Sub(now) > longest
}

// probe lets a probe through, if the account rests. Callers hold mu.
func (h *health) probe(now time.Time, lost time.Duration) {
	if h.down {
		h.probing, h.lostAt = true, now.Add(lost)
		h.worked, h.failed = false, false
	}
}

// lost is how long after it was let through a probe that nothing was heard of counts as lost.
func (a *Account) lost() time.Duration { return 2*a.Timeout + longRest }

// Untried reports whether the account's rest is over for a while and nobody has come to try it: the message that waited
// for that was canceled, or another node has sent it. It says so after 2 s, and then each time twice as late, at last
// every minute: who asks is to make some of those that wait come now.
func (a *Account) Untried(now time.Time) bool {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.down || h.probing || !over(h.callAt, now, longRest) || !over(h.probeAt.Add(firstRest), now, longRest+firstRest) {
		return false
	}
	h.callAt = now.Add(min(max(now.Sub(h.probeAt), firstRest), longRest))
	return true
}

// Unprobe takes back a Probe whose message was not sent after all.
func (a *Account) Unprobe() {
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probing = false
}
