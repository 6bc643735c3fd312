package sqlite

import (
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// row is the hot row of a message, as the writer reads, changes and writes it back.
type row struct {
	id       delivery.MessageID
	tenant   int64
	channel  delivery.Channel
	lane     delivery.Lane
	status   delivery.Status
	due      int64 // 0 = nothing to do
	node     string
	epoch    int
	attempts int
	flags    int64
	account  int64
	campaign int64
	to       string
	provider string
	reason   string
	detail   string
	segments int
	accepted int64
	updated  int64
	expires  int64
	facts    []byte
	seen     []byte
	wasDead  bool // it stands in the table dead

	lastSeq int64 // last of facts and how many there are, once known
	seqs    int
	legs    []leg // of a message that has more than one, once they are read
}

// The flags of a row. The numbers are stored: never renumber.
const (
	flagDuplicate  = 1 << 0 // an earlier attempt may have reached the provider
	flagAtMostOnce = 1 << 1
	flagPinned     = 1 << 2  // the sender chose the account
	flagOpen       = 1 << 3  // the outcome of the last claim is still to come
	flagTrimmed    = 1 << 4  // facts does not list all
	flagDoubt      = 1 << 5  // an attempt of this leg is in doubt: it may have been handed over
	flagDoubted    = 1 << 6  // an attempt of this leg ever was
	flagDropped    = 1 << 7  // a dead letter that a person has put away
	flagOrdered    = 1 << 8  // it stands in the line of its ordering key
	flagOvertaken  = 1 << 9  // an earlier leg decided the status, so that it is not the current leg's
	flagLabelled   = 1 << 10 // it has a category, a tag or an ordering key

	legShift     = 12 // 2 bits: the current leg
	lastLegShift = 14 // 2 bits: the last leg; 0 = it has no other
	legMask      = 3

	lastShift = 16 // 32 bits: the number of the account of this leg's last attempt, 0 = none
	lastMask  = 1<<32 - 1
)

// leg is the number of the current leg, lastLeg that of the last one. A message with one leg has no rows in legs.
func (r *row) leg() int     { return int(r.flags >> legShift & legMask) }
func (r *row) lastLeg() int { return int(r.flags >> lastLegShift & legMask) }

// last is the account of the current leg's last attempt. It stands in the flags because a column of its own would cost
// every message.
func (r *row) last() int64 { return r.flags >> lastShift & lastMask }

func (r *row) setLast(account int64) { r.flags = r.flags&^(lastMask<<lastShift) | account<<lastShift }

func (r *row) setLeg(n int) { r.flags = r.flags&^(legMask<<legShift) | int64(n)<<legShift }

// packQueue is the number that the index of due times groups by. Tenants count from 1, so it is never 0.
func packQueue(tenant int64, ch delivery.Channel, lane delivery.Lane) int64 {
	return tenant<<8 | int64(ch)<<4 | int64(lane)
}

func unpackQueue(q int64) (tenant int64, ch delivery.Channel, lane delivery.Lane) {
	return q >> 8, delivery.Channel(q >> 4 & 15), delivery.Lane(q & 15)
}

// claimable reports the statuses from which a claim may take a message.
func claimable(s delivery.Status) bool {
	return s >= delivery.StatusScheduled && s <= delivery.StatusDeferred
}

func (r *row) queue() int64 {
	if claimable(r.status) {
		return packQueue(r.tenant, r.channel, r.lane)
	}
	return 0
}

const rowColumns = `id, tenant, channel, lane, status, due, node, epoch, attempts, flags, account, campaign, recipient,
	provider_id, reason, detail, segments, accepted, updated, expires, facts, seen`

func scanRow(s *sqlite.Stmt, r *row) {
	c := scan(s)
	r.id, r.tenant = c.id(), c.int64()
	r.channel, r.lane, r.status = delivery.Channel(c.int64()), delivery.Lane(c.int64()), delivery.Status(c.int64())
	r.due, r.node, r.epoch, r.attempts, r.flags = c.int64(), c.text(), c.int(), c.int(), c.int64()
	r.account, r.campaign, r.to, r.provider = c.int64(), c.int64(), c.text(), c.text()
	r.reason, r.detail, r.segments = c.text(), c.text(), c.int()
	r.accepted, r.updated, r.expires, r.facts, r.seen = c.int64(), c.int64(), c.int64(), c.bytes(), c.bytes()
	r.wasDead = dead(r)
}

// load reads a row by id, with its legs; nil when there is none.
func (t *tx) load(id delivery.MessageID) (*row, error) {
	var r row
	found, err := one(t.conn, `SELECT `+rowColumns+` FROM messages WHERE id = ?`, func(s *sqlite.Stmt) error {
		scanRow(s, &r)
		return nil
	}, id[:])
	if err != nil || !found {
		return nil, err
	}
	if r.lastLeg() > 0 {
		err = t.loadLegs(&r)
	}
	return &r, err
}

// save writes back what may have changed. It is the one place where a message leaves the line of its ordering key by
// no longer waiting; see order.go.
func (t *tx) save(r *row) error {
	t.wrote = true
	if r.flags&flagOrdered != 0 && !r.status.Waiting() {
		if err := t.leaveLine(r); err != nil {
			return err
		}
	}
	if len(r.legs) > 0 {
		if err := t.saveLegs(r); err != nil {
			return err
		}
	}
	if dead(r) != r.wasDead {
		if err := t.noteDead(r); err != nil {
			return err
		}
	}
	s, err := t.conn.Prepare(`UPDATE messages SET status = ?, q = ?, due = ?, node = ?, epoch = ?, attempts = ?, flags = ?,
		account = ?, provider_id = ?, reason = ?, detail = ?, segments = ?, updated = ?, facts = ?, seen = ? WHERE id = ?`)
	if err != nil {
		return err
	}
	s.BindInt64(1, int64(r.status))
	s.BindInt64(2, r.queue())
	if r.due != 0 { // left unbound it is NULL
		s.BindInt64(3, r.due)
	}
	s.BindText(4, r.node)
	s.BindInt64(5, int64(r.epoch))
	s.BindInt64(6, int64(r.attempts))
	s.BindInt64(7, r.flags)
	s.BindInt64(8, r.account)
	s.BindText(9, r.provider)
	s.BindText(10, r.reason)
	s.BindText(11, r.detail)
	s.BindInt64(12, int64(r.segments))
	s.BindInt64(13, r.updated)
	s.BindBytes(14, r.facts)
	if len(r.seen) > 0 {
		s.BindBytes(15, r.seen)
	}
	s.BindBytes(16, r.id[:])
	_, err = s.Step()
	return err
}

// move changes a row's status, step by step through statuses that the table of legal moves allows to writers. The row
// must still be saved.
func (t *tx) move(r *row, now int64, steps ...step) error {
	from := r.status
	if err := r.walk(steps); err != nil {
		return err
	}
	t.count(r, from, r.status)
	r.updated = now
	return nil
}

// walk takes steps that the table allows.
func (r *row) walk(steps []step) error {
	for _, s := range steps {
		if !delivery.CanMove(r.status, s.to, s.by) {
			return fmt.Errorf("message %s: %s may not move it from %s to %s", r.id, s.by, r.status, s.to)
		}
		r.status = s.to
	}
	return nil
}

type step struct {
	to delivery.Status
	by delivery.Writer
}

// end moves a row to a status without a due time and records why.
func (t *tx) end(tn *tenant, r *row, now int64, reason, detail string, steps ...step) error {
	if err := t.move(r, now, steps...); err != nil {
		return err
	}
	r.due, r.reason, r.detail = 0, reason, detail
	err := t.record(tn, r, delivery.Fact{Kind: delivery.FactEnded, At: store.FromMillis(now), Code: reason,
		Detail: detail})
	if err != nil {
		return err
	}
	return t.save(r)
}

// stop ends a waiting message as canceled or expired, or as what is true of it: see stopSteps.
func (t *tx) stop(tn *tenant, r *row, now int64, want delivery.Status, by delivery.Writer, reason,
	detail string) error {
	return t.end(tn, r, now, reason, detail, r.stopSteps(want, by)...)
}

// stopSteps lists the steps by which a message ends as canceled or expired. These two say that nobody has it. So a
// message of which an attempt is in doubt ends as unknown instead, and one of which an earlier leg was handed off ends
// as what became of that.
func (r *row) stopSteps(want delivery.Status, by delivery.Writer) []step {
	if r.flags&flagDoubt != 0 {
		return []step{{delivery.StatusUnknown, by}}
	}
	steps := []step{{want, by}}
	switch best := r.bestLeg(); best {
	case delivery.StatusUnknown:
		return []step{{best, by}}
	case 0:
		return steps
	case delivery.StatusSent:
		steps = []step{{best, by}}
	default:
		steps = []step{{delivery.StatusSent, by}, {best, delivery.ByReceipt}}
	}
	r.overtake(want)
	if l := &r.legs[r.leg()]; l.status.Waiting() { // also one that was under way
		l.status = want
	}
	return steps
}
