package routing

import (
	"fmt"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// An account rests when at least half of at least this many attempts of the last minute failed. Fewer say too little: a
// single bad message that is tried again must not stop everybody's.
const fewestAttempts = 20

// Observe tells of one attempt by the account to an address and how it ended; nil = the provider took the message. It
// is called once for each attempt, before Up or Down are, from many goroutines. Failures for now and attempts in doubt
// speak against the account; everything else is an answer, and so a sign of life. It returns true when this attempt
// made the account rest: then at least half of the last attempts failed. An account of a kind whose recipients are
// servers of their own (Kind.Peers) never rests for that. What is remembered about destinations only changes a choice.
func (a *Account) Observe(to string, f *delivery.Failure, now time.Time) (rests bool) {
	if f != nil && f.Class == delivery.ConnectorDown {
		return false // Down says it
	}
	bad := f != nil && (f.Class == delivery.Transient || f.Class == delivery.InDoubt)
	h := &a.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastAt = now
	if bad {
		h.failed = true
	} else {
		h.worked = true
	}
	h.places.observe(a.Channel, to, bad, now)
	if h.down || a.Kind != nil && a.Kind.Peers {
		return false
	}
	h.recent.add(bad, now)
	if !bad {
		return false
	}
	failed, all := h.recent.sum()
	if !mostFail(failed, all, fewestAttempts) {
		return false
	}
	h.failing = true
	h.rest(now, fmt.Sprintf("failing: %d %% of the last %d attempts", failed*100/all, all))
	h.recent = window{}
	return true
}

// mostFail reports whether at least half of the attempts failed, and there were enough to tell.
func mostFail(failed, all, fewest int) bool { return all >= fewest && 2*failed >= all }

// window counts the attempts of the last minute, in buckets, of which the oldest is forgotten as a whole.
type window struct {
	head    int64 // number of the newest bucket since 1970
	ok, bad [buckets]uint32
}

const (
	buckets = 6
	bucket  = 10 * time.Second
)

func (w *window) add(bad bool, now time.Time) {
	at := now.UnixMilli() / bucket.Milliseconds()
	if at >= w.head+buckets || at <= w.head-buckets { // nothing of it is left, or the clock has been set back
		*w = window{head: at}
	}
	for w.head < at {
		w.head++
		i := place(w.head)
		w.ok[i], w.bad[i] = 0, 0
	}
	i := place(w.head)
	if bad {
		w.bad[i]++
	} else {
		w.ok[i]++
	}
}

// place is where a bucket is kept; its number is below zero before 1970.
func place(number int64) int64 { return (number%buckets + buckets) % buckets }

// sum returns how many of the counted attempts failed, and how many there are.
func (w *window) sum() (failed, all int) {
	for i := range buckets {
		failed += int(w.bad[i])
		all += int(w.ok[i]) + int(w.bad[i])
	}
	return failed, all
}
