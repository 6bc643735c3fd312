package pipeline

import (
	"time"

	"github.com/jonboulle/clockwork"
)

// timerAt returns a timer for an instant, or false when the instant has come. A clock that is turned between reading the
// time and setting the timer would make the timer late: so the time is read once more.
func timerAt(clock clockwork.Clock, at time.Time) (clockwork.Timer, bool) {
	d := at.Sub(clock.Now())
	if d <= 0 {
		return nil, false
	}
	t := clock.NewTimer(d)
	if !clock.Now().Before(at) {
		t.Stop()
		return nil, false
	}
	return t, true
}
