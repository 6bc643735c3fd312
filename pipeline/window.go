package pipeline

import (
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The planner's account of what is claimed and not settled, a queue at a time. Every batch that leaves for the route
// stage is answered once: by its claim, by the failure of it, or by giving it up.
const (
	// A batch that no claim has answered within lostAfter is not coming back: its hint got lost on the way to route.
	lostAfter = 5 * time.Second
	// failedPause is how long a queue rests whose claims or hints fail: the store or the broker needs a moment.
	failedPause = 500 * time.Millisecond
)

// settled gives back room: n messages of q are settled.
func (pl *planner) settled(q delivery.Queue, n int, now time.Time) {
	pl.mu.Lock()
	st := pl.queue(q)
	pl.release(st, n)
	// While something is known to stand in the way, a wider window would only lease what cannot go.
	if st.window < windowMax && !st.stands(now) {
		st.window = min(windowMax, st.window+(n+3)/4)
	}
	pl.mu.Unlock()
	pl.kick()
}

// release gives back the room of n messages. Callers hold mu.
func (pl *planner) release(st *queue, n int) {
	st.inFlight -= n
	pl.inFlight.add(st.id.Lane, -n)
}

// claimed tells how many messages of a batch the route stage got. The others are somebody else's or gone.
func (pl *planner) claimed(q delivery.Queue, asked, got int) {
	pl.mu.Lock()
	pl.answered(pl.queue(q), asked, got)
	pl.mu.Unlock()
	pl.kick()
}

// answered books a batch that was asked for. One that had been given up as lost is in flight all the same for what was
// claimed of it. Callers hold mu.
func (pl *planner) answered(st *queue, asked, got int) {
	known := min(asked, st.asked)
	st.asked -= known
	pl.release(st, known-got)
}

// failed gives back a batch that could not be claimed or not even be published. Its messages are still due, so the queue
// looks into the store again, from the oldest on and after a pause: the cause is seldom gone at once.
func (pl *planner) failed(q delivery.Queue, asked int, now time.Time) {
	pl.mu.Lock()
	st := pl.queue(q)
	pl.answered(st, asked, 0)
	pl.rewind(st)
	if until := now.Add(failedPause); until.After(st.blocked) {
		st.blocked = until
	}
	pl.mu.Unlock()
	pl.kick()
}

// returned tells that messages of q are due again which had been taken already.
func (pl *planner) returned(q delivery.Queue) {
	pl.mu.Lock()
	pl.rewind(pl.queue(q))
	pl.mu.Unlock()
	pl.kick()
}

// rewind makes a queue read its list anew, from the oldest on. Callers hold mu.
func (pl *planner) rewind(st *queue) {
	st.ids, st.behind, st.missed, st.rewound, st.mark = nil, true, true, true, store.DueMark{}
	pl.list(st)
}

// giveUpLost takes back the room of batches that were lost between plan and route. Their messages were never claimed. It
// is called about once a second, and sees as well to it that queues which have waited for long get their larger share.
func (pl *planner) giveUpLost(now time.Time) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, st := range pl.turn {
		pl.age(st, now)
	}
	if pl.busy > 0 {
		return // one is being published, which may take as long as its claim
	}
	for _, st := range pl.queues {
		if st.asked > 0 && now.Sub(st.askedAt) > lostAfter {
			pl.release(st, st.asked)
			st.asked = 0
			pl.rewind(st)
			pl.kick()
		}
	}
}

// narrow bounds what a queue may have claimed: it could not use more.
func (pl *planner) narrow(q delivery.Queue, window int) {
	pl.mu.Lock()
	st := pl.queue(q)
	st.window = max(min(st.window, window), windowMin)
	pl.mu.Unlock()
}

// laneCount counts something of each lane that there is only so much room for. Bulk gets half of the room, bulk and
// normal together three quarters: the rest is kept for what is urgent.
type laneCount struct{ urgent, normal, bulk int }

func (c *laneCount) add(l delivery.Lane, n int) {
	switch l {
	case delivery.Urgent:
		c.urgent += n
	case delivery.Normal:
		c.normal += n
	default:
		c.bulk += n
	}
}

func (c *laneCount) total() int { return c.urgent + c.normal + c.bulk }

// room is how many more of a lane there is room for, out of all.
func (c *laneCount) room(l delivery.Lane, all int) int {
	free := all - c.total()
	if l != delivery.Urgent {
		free = min(free, max(1, all*3/4)-c.normal-c.bulk)
	}
	if l != delivery.Urgent && l != delivery.Normal {
		free = min(free, max(1, all/2)-c.bulk)
	}
	return max(0, free)
}

// room is how many more messages of st may be claimed now. While some are under way it is 0 until a claim is worth its
// transaction: each settled batch would otherwise be followed by a claim of just its size. Callers hold mu.
func (pl *planner) room(st *queue) int {
	free := pl.inFlight.room(st.id.Lane, pl.p.opt.InFlight)
	if st.id.Lane != delivery.Urgent {
		free = (free+1)/2 - st.inFlight
	}
	room := max(0, min(free, st.window-st.inFlight))
	if worth := min(max(len(st.ids), 1), maxHint, st.window/2); room < worth && st.inFlight > 0 {
		return 0
	}
	return room
}

// elsewhere books claimed messages of another queue than the hint's with their own, which gets their room back.
func (pl *planner) elsewhere(q delivery.Queue, claimed []store.Claimed) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for i := range claimed {
		if own := claimed[i].Queue; own != q {
			pl.release(pl.queue(q), 1)
			pl.release(pl.queue(own), -1)
		}
	}
}
