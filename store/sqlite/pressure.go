package sqlite

import (
	"sync"
	"time"
)

// line is who waits for the writer, oldest first: those in its channel and those before it.
type line struct {
	mu          sync.Mutex // held for moments only
	first, last *op
}

func (l *line) join(o *op, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.since, o.before = now, l.last
	if l.last == nil {
		l.first = o
	} else {
		l.last.after = o
	}
	l.last = o
}

// leave takes out an op that starts or is given up; a second time changes nothing.
func (l *line) leave(o *op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.before == nil && l.first != o {
		return
	}
	if o.before == nil {
		l.first = o.after
	} else {
		o.before.after = o.after
	}
	if o.after == nil {
		l.last = o.before
	} else {
		o.after.before = o.before
	}
	o.before, o.after = nil, nil
}

// Pressure is how long the oldest write that waits for its turn has waited, by Options.Now; 0 = none waits. It is cheap
// and may be called at any time, also on a closed store.
func (s *Store) Pressure() time.Duration {
	l := &s.writer.waiting
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		return 0
	}
	return max(s.now().Sub(l.first.since), 0)
}
