package pipeline

import (
	"time"

	"github.com/jonboulle/clockwork"
)

// timerSlack is how late a timer may be. A real clock moves on by less between two lines of code, or the timer is set
// again.
const timerSlack = 100 * time.Microsecond

// timerAt returns a timer for an instant, or false when the instant has come. A clock that is turned between reading the
// time and setting the timer would make the timer late by that turn, however far the instant still is: so the time is
// read once more, and the timer set anew when the clock has moved.
func timerAt(clock clockwork.Clock, at time.Time) (clockwork.Timer, bool) {
	for {
		now := clock.Now()
		d := at.Sub(now)
		if d <= 0 {
			return nil, false
		}
		t := clock.NewTimer(d)
		if clock.Since(now) < timerSlack {
			return t, true
		}
		t.Stop()
	}
}
