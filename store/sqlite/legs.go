package sqlite

import (
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// A message with a fallback has a row per leg beside its own. Its own row is always the current leg: channel, queue,
// address, payload, account, provider id and attempts switch with it, so that queues, claims and tallies need not know
// of legs. Nothing here runs for a message with one leg.
//
// A leg makes way in switchLeg, and nowhere else. It is called
//   - by Claim, for a leg whose time is over or whose address is suppressed,
//   - by Settle, for an outcome with NextLeg and for one that comes when the leg's time is over already,
//   - by Report, for a leg that the provider says did not arrive.
//
// A message whose own time is over stays on its leg: no hand-off could start any more. So does one in doubt
// (flagDoubt): the person may have it, until the doubt is settled or a later attempt is taken or refused for good.

// leg is one row of legs.
type leg struct {
	channel  delivery.Channel
	to       string
	segments int
	account  int64
	pinned   bool
	within   int64 // milliseconds
	success  delivery.Status
	status   delivery.Status // 0 = not begun
	reason   string
	provider string
	until    int64
	epoch    int
	winner   bool

	changed bool
}

const legColumns = `channel, recipient, segments, account, pinned, within, success, status, reason, provider, until,
	epoch, winner`

func scanLeg(s *sqlite.Stmt) (l leg) {
	c := scan(s)
	l.channel, l.to, l.segments, l.account = delivery.Channel(c.int64()), c.text(), c.int(), c.int64()
	l.pinned, l.within, l.success = c.bool(), c.int64(), delivery.Status(c.int64())
	l.status, l.reason, l.provider = delivery.Status(c.int64()), c.text(), c.text()
	l.until, l.epoch, l.winner = c.int64(), c.int(), c.bool()
	return l
}

func (t *tx) loadLegs(r *row) error {
	r.legs = make([]leg, 0, r.lastLeg()+1)
	err := query(t.conn, `SELECT `+legColumns+` FROM legs WHERE id = ? ORDER BY n`, func(s *sqlite.Stmt) error {
		r.legs = append(r.legs, scanLeg(s))
		return nil
	}, r.id[:])
	if err == nil && len(r.legs) != r.lastLeg()+1 {
		err = fmt.Errorf("message %s has %d of its %d legs", r.id, len(r.legs), r.lastLeg()+1)
	}
	return err
}

// insertLegs writes the legs of a new message that begins with leg number r.leg().
func (t *tx) insertLegs(r *row, then []store.NewLeg) error {
	r.follow()
	for n := range r.legs {
		l := &r.legs[n]
		var body []byte
		if n > r.leg() {
			body = then[n-1].Payload
		}
		err := t.exec(`INSERT INTO legs (id, n, `+legColumns+`, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			r.id[:], n, int(l.channel), l.to, l.segments, l.account, l.pinned, l.within, int(l.success), int(l.status), l.reason,
			l.provider, l.until, l.epoch, l.winner, nonNil(body))
		if err != nil {
			return err
		}
		l.changed = false
	}
	return nil
}

// nonNil keeps an empty blob from being stored as NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// saveLegs writes the legs that have changed, after making the current one what the row says. A waiting message never
// waits beyond its leg's deadline: then the next leg begins.
func (t *tx) saveLegs(r *row) error {
	r.follow()
	if l := &r.legs[r.leg()]; l.until != 0 && claimable(r.status) && r.mayTimeOut() && r.due > l.until {
		r.due = l.until
	}
	for n := range r.legs {
		l := &r.legs[n]
		if !l.changed {
			continue
		}
		l.changed = false
		err := t.exec(`UPDATE legs SET segments = ?, account = ?, status = ?, reason = ?, provider = ?, until = ?, epoch = ?,
			winner = ? WHERE id = ? AND n = ?`, l.segments, l.account, int(l.status), l.reason, l.provider, l.until, l.epoch,
			l.winner, r.id[:], n)
		if err != nil {
			return err
		}
	}
	return nil
}

// follow makes the current leg what the row says.
func (r *row) follow() {
	l := &r.legs[r.leg()]
	was := *l
	l.segments, l.account, l.provider = r.segments, r.account, r.provider
	if r.flags&flagOvertaken == 0 {
		l.status = r.status
	}
	l.changed = l.changed || *l != was
}

// mayTimeOut reports whether the end of the leg's time moves the message on as it is now: there is another leg, no
// attempt is in doubt, and its campaign is not paused, which stops everything.
func (r *row) mayTimeOut() bool {
	return r.leg() < r.lastLeg() && r.flags&flagDoubt == 0 && r.reason != store.ReasonCampaignPaused
}

// timedOut reports whether the current leg's time is over.
func (r *row) timedOut(now int64) bool {
	return len(r.legs) > 0 && r.legs[r.leg()].until != 0 && r.legs[r.leg()].until <= now
}

// hasNext reports whether another leg may begin now.
func (r *row) hasNext(now int64) bool {
	return r.leg() < r.lastLeg() && (r.expires == 0 || r.expires > now)
}

// switchLeg makes the message go on with its next leg, due now; the steps are those of the current one on its way to
// queued. f is the fact of it: why the leg makes way, with what is known of its last attempt. The row must be saved.
func (t *tx) switchLeg(tn *tenant, r *row, at time.Time, f delivery.Fact, steps ...step) error {
	now := store.Millis(at)
	r.updated = now
	if r.flags&flagOrdered != 0 { // its line is one of this channel and address
		if err := t.leaveLine(r); err != nil {
			return err
		}
	}
	r.follow()
	old, from := &r.legs[r.leg()], tallyKey{r.tenant, r.campaign, r.channel, r.status}
	old.status, old.reason, old.changed = r.leaving(steps), f.Code, true
	if err := r.walk(steps); err != nil {
		return err
	}
	if r.status != delivery.StatusQueued {
		return fmt.Errorf("message %s: a next leg begins queued, not %s", r.id, r.status)
	}
	n := r.leg() + 1
	next := &r.legs[n]
	r.setLeg(n)
	r.channel, r.to, r.segments, r.account = next.channel, next.to, next.segments, next.account
	r.provider, r.attempts, r.node, r.reason, r.detail = "", 0, "", "", ""
	r.setLast(0)
	r.due = now
	if r.flags&flagDoubted != 0 {
		r.flags |= flagDuplicate // the person may have it by the leg before
	}
	r.flags &^= flagPinned | flagOpen | flagDoubt | flagDoubted
	if next.pinned {
		r.flags |= flagPinned
	}
	r.begin(now)

	t.wrote = true
	t.tallies[from]--
	t.tallies[tallyKey{r.tenant, r.campaign, r.channel, r.status}]++
	if err := t.exec(`UPDATE messages SET channel = ?, recipient = ? WHERE id = ?`, int(r.channel), r.to,
		r.id[:]); err != nil {
		return err
	}
	err := t.exec(`UPDATE payloads SET body = (SELECT body FROM legs WHERE id = ?1 AND n = ?2) WHERE id = ?1`, r.id[:], n)
	if err == nil {
		err = t.exec(`UPDATE legs SET body = x'' WHERE id = ? AND n = ?`, r.id[:], n)
	}
	if err != nil {
		return err
	}
	f.Kind, f.At, f.Status, f.Leg, f.Until = delivery.FactFallback, at, r.status, n, store.FromMillis(next.until)
	t.becomesReady(tn, r)
	return t.recordOn(tn, r, r.channel, f)
}

// begin sets the deadline of the current leg, which begins at the given time. The last leg has none.
func (r *row) begin(at int64) {
	if l := &r.legs[r.leg()]; l.within > 0 && r.leg() < r.lastLeg() {
		l.until, l.changed = at+l.within, true
	}
}

// watch gives a handed-off leg that has not had its success yet its deadline as due time, so that Overdue finds it.
func (r *row) watch() {
	if len(r.legs) == 0 || r.status != delivery.StatusSent || r.flags&flagOvertaken != 0 {
		return
	}
	r.follow()
	if l := &r.legs[r.leg()]; !l.reached() && r.leg() < r.lastLeg() {
		r.due = l.until
	}
}

// leaving is the status that a leg keeps when it makes way: where it was handed over, how that went so far; else why it
// was not. A leg that was ever in doubt may have been handed over.
func (r *row) leaving(steps []step) delivery.Status {
	switch {
	case r.status == delivery.StatusSent || r.status == delivery.StatusUndelivered:
		return r.status
	case r.flags&flagDoubted != 0:
		return delivery.StatusUnknown
	}
	for _, s := range steps {
		if s.to == delivery.StatusFailed || s.to == delivery.StatusSuppressed {
			return s.to
		}
	}
	return delivery.StatusExpired
}

// toQueued lists the steps by which a waiting message whose leg has run out of time becomes queued.
func toQueued(s delivery.Status) []step {
	if s == delivery.StatusQueued {
		return nil
	}
	return []step{{delivery.StatusQueued, delivery.ByPlan}}
}

// reached reports whether a leg has the success it was sent for.
func (l *leg) reached() bool {
	switch l.status {
	case delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead:
		return l.status >= l.success
	}
	return false
}

// win makes leg n the winner when it is the first to reach its success, and takes that back from a leg which turns out
// not to have arrived.
func (r *row) win(n int) {
	l := &r.legs[n]
	switch {
	case !l.reached() && l.winner:
		l.winner, l.changed = false, true
		if i := slices.IndexFunc(r.legs, func(l leg) bool { return l.reached() }); i >= 0 { // one that came second
			r.legs[i].winner, r.legs[i].changed = true, true
		}
	case !l.reached():
	case !r.won():
		l.winner, l.changed = true, true
	}
}

func (r *row) won() bool {
	for i := range r.legs {
		if r.legs[i].winner {
			return true
		}
	}
	return false
}

// legOf finds the leg that a receipt is about, or gives errNoLeg: the one that went by its account, else the one of the
// account's channel. A message with one leg has leg 0 for every receipt.
func (t *tx) legOf(r *row, account int64, id delivery.AccountID) (int, error) {
	if len(r.legs) == 0 {
		return 0, nil
	}
	for n := range r.legs {
		if l := &r.legs[n]; l.status != 0 && account != 0 && l.account == account {
			return n, nil
		}
	}
	o, err := t.accountOwner(id)
	if err != nil {
		return 0, err
	}
	for n := range r.legs {
		if r.legs[n].channel == o.channel {
			return n, nil
		}
	}
	return 0, errNoLeg
}

// setLegStatus joins what a receipt says with the status of a leg that is not what the message waits for, and reports
// whether that moved the message. A success does: then whatever the current leg still waited for is over, and an
// attempt of it that is under way will find the message delivered. Anything else does only where earlier legs decide already.
func (t *tx) setLegStatus(r *row, n int, says delivery.Status, now int64) (bool, error) {
	l := &r.legs[n]
	if claimable(l.status) && l.epoch == 0 {
		return false, nil
	}
	to, changed := delivery.AfterReceipt(l.channel, l.status, says)
	if !changed {
		return false, nil
	}
	l.status, l.changed = to, true
	r.win(n)
	if r.flags&flagOvertaken == 0 && !arrived(to) {
		return false, nil
	}
	if r.flags&flagOvertaken == 0 {
		r.overtake(delivery.StatusCanceled)
	}
	best := r.bestLeg()
	steps := stepsToLeg(r.status, best)
	if steps == nil {
		return false, nil
	}
	if err := t.move(r, now, steps...); err != nil {
		return false, err
	}
	r.due, r.node, r.reason, r.detail = 0, "", "", ""
	return true, nil
}

// stepsToLeg lists the steps by which an earlier leg's status becomes the message's; nil = it does not.
func stepsToLeg(from, best delivery.Status) (steps []step) {
	if from == delivery.StatusFailed || from == delivery.StatusSuppressed { // the last leg's; as if there were one more
		steps, from = append(steps, step{delivery.StatusQueued, delivery.ByPlan}), delivery.StatusQueued
	}
	if !delivery.CanMove(from, best, delivery.ByReceipt) {
		return nil
	}
	return append(steps, step{best, delivery.ByReceipt})
}

// overtake lets the earlier legs decide the message's status from now on. A current leg that has not gone never will,
// and ends as given.
func (r *row) overtake(end delivery.Status) {
	r.follow()
	r.flags |= flagOvertaken
	if l := &r.legs[r.leg()]; claimable(l.status) {
		l.status, l.changed = end, true
		if end == delivery.StatusCanceled {
			l.reason = store.ReasonOvertaken
		}
	}
}

// best is the best that any leg was handed off with: read, delivered, sent or undelivered; else unknown where one may
// have been handed off, else 0.
func best(legs []delivery.Status) (best delivery.Status) {
	rank := func(s delivery.Status) int {
		return slices.Index([]delivery.Status{delivery.StatusUnknown, delivery.StatusUndelivered, delivery.StatusSent,
			delivery.StatusDelivered, delivery.StatusRead}, s)
	}
	for _, s := range legs {
		if rank(s) > rank(best) {
			best = s
		}
	}
	return best
}

func (r *row) bestLeg() delivery.Status {
	var of [store.MaxLegs]delivery.Status
	for n := range r.legs {
		of[n] = r.legs[n].status
	}
	return best(of[:])
}

func arrived(s delivery.Status) bool {
	return s == delivery.StatusDelivered || s == delivery.StatusRead
}
