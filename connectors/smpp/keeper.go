package smpp

import (
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/smpp"
)

// endWait is how long a session that ends in order may take for its last PDUs and the answer to unbind.
const endWait = 2 * time.Second

// keeper counts a session's time in ticks, so that no PDU costs a timer or a look at the clock.
type keeper struct {
	tick     time.Duration
	patience int // ticks until an answer is overdue
	silence  int // ticks of silence until an enquire_link
	count    atomic.Int64
	heard    atomic.Bool
	soon     chan struct{} // end in endWait
}

func (k *keeper) init(cfg *config) {
	k.tick = max(min(cfg.answerWithin, cfg.silenceBefore)/8, 50*time.Millisecond)
	k.tick = min(k.tick, 500*time.Millisecond)
	ticks := func(d time.Duration) int { return int((d + k.tick - 1) / k.tick) }
	k.patience, k.silence = ticks(cfg.answerWithin), ticks(cfg.silenceBefore)
	k.soon = make(chan struct{}, 1)
}

func (k *keeper) now() int { return int(k.count.Load()) }

func (k *keeper) hear() { k.heard.Store(true) }

func (k *keeper) endSoon() {
	select {
	case k.soon <- struct{}{}:
	default:
	}
}

// keepTime ends what takes too long, until the connection is gone: a request without answer, a write that does not
// finish, and the session itself when the SMSC has been silent and does not answer an enquire_link either. A connection
// whose other end has vanished looks just like that.
func (s *session) keepTime(gone <-chan struct{}) {
	k := &s.keeper
	ticker := time.NewTicker(k.tick)
	defer ticker.Stop()
	over := time.NewTimer(endWait)
	over.Stop()
	defer over.Stop()
	silent, asked, stuck, late := 0, 0, 0, 0
	for {
		select {
		case <-gone:
			return
		case <-k.soon:
			over.Reset(endWait)
			continue
		case <-over.C:
			s.end(errSilent)
			continue
		case <-ticker.C:
		}
		k.count.Add(1)
		if stuck++; !s.out.Busy() {
			stuck = 0
		}
		if stuck > k.patience { // before anything is overdue: what was not written is not in doubt
			s.end(errStuck)
			continue
		}
		overdue := s.expire()
		if silent++; k.heard.Swap(false) {
			silent, asked = 0, 0
		}
		switch {
		case asked > 0:
			if asked++; asked > k.patience+1 {
				s.end(errSilent)
			}
		case silent >= k.silence || overdue && silent > 0:
			asked = 1
			s.reply(smpp.EnquireLink, smpp.ROK, s.nextSequence())
		}
		s.mu.Lock()
		n := s.late
		s.mu.Unlock()
		if n > late {
			s.log.Warn("smpp answers that nobody waited for", "count", n-late)
			late = n
		}
	}
}

// expire ends requests whose answer is overdue and reports whether there were any. The tick under way when a request
// was queued does not count, so that none gets less than the response timeout.
func (s *session) expire() bool {
	now := s.keeper.now()
	var overdue []*waiter
	s.mu.Lock()
	for sequence, w := range s.pending {
		if now-w.born > s.keeper.patience {
			delete(s.pending, sequence)
			overdue = append(overdue, w)
		}
	}
	s.mu.Unlock()
	for _, w := range overdue {
		s.release(w)
		w.answer <- answer{err: errTimeout}
	}
	return len(overdue) > 0
}
