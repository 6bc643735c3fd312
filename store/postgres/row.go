package postgres

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// row is the hot row of a message, as a transaction reads, changes and writes it back.
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

	lastSeq  int64 // last of facts and how many there are, once known
	seqs     int
	legs     []leg // of a message that has more than one
	dirty    bool  // flush writes it back
	switched bool  // it goes on with another leg, whose payload takes its place
}

// The flags of a row. The numbers are stored, and are those of package sqlite: never renumber.
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

// last is the account of the current leg's last attempt.
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

// dead reports whether a message is a dead letter: it stands in the table dead then, which save sees to.
func dead(r *row) bool {
	switch r.status {
	case delivery.StatusFailed, delivery.StatusExpired, delivery.StatusUnknown:
		return r.flags&flagDropped == 0
	}
	return false
}

// rowColumns are those of messages m, in the order of scanRow.
const rowColumns = `m.id, m.tenant, m.channel, m.lane, m.status, coalesce(m.due, 0), m.node, m.epoch, m.attempts, m.flags,
	m.account, coalesce(m.campaign, 0), m.recipient, m.provider_id, m.reason, m.detail, m.segments, m.accepted, m.updated,
	m.expires, m.facts, m.seen`

// scanRow reads rowColumns, and what follows them into more.
func scanRow(rows pgx.Rows, r *row, more ...any) error {
	var ch, lane, status int16
	dest := append([]any{(*[16]byte)(&r.id), &r.tenant, &ch, &lane, &status, &r.due, &r.node, &r.epoch, &r.attempts,
		&r.flags, &r.account, &r.campaign, &r.to, &r.provider, &r.reason, &r.detail, &r.segments, &r.accepted, &r.updated,
		&r.expires, &r.facts, &r.seen}, more...)
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	r.channel, r.lane, r.status = delivery.Channel(ch), delivery.Lane(lane), delivery.Status(status)
	r.wasDead = dead(r)
	return nil
}

const (
	// withNext is the messages $1, and the one of each of their lines that may become its first: the first that is not
	// among them.
	withNext = `(SELECT $1::uuid[] || ARRAY(
		SELECT next.id FROM (SELECT DISTINCT tenant, channel, recipient, ordering_key FROM ordered
			WHERE id = ANY ($1::uuid[])) AS line
		CROSS JOIN LATERAL (SELECT o.id FROM ordered o WHERE o.tenant = line.tenant AND o.channel = line.channel
			AND o.recipient = line.recipient AND o.ordering_key = line.ordering_key AND o.id <> ALL ($1::uuid[])
			ORDER BY o.place LIMIT 1) AS next))::uuid[]`

	// Each id is joined by itself: of a list, PostgreSQL looks into every partition.
	lockRows = `SELECT ` + rowColumns + `, c.id, c.state FROM (SELECT DISTINCT unnest(` + withNext + `)) AS u (id)
		JOIN messages m ON m.id = u.id LEFT JOIN campaigns c ON c.n = m.campaign ORDER BY m.id FOR NO KEY UPDATE OF m`
	linesOf = `SELECT tenant, channel, recipient, ordering_key, place, id, due FROM ordered
		WHERE id = ANY (` + withNext + `) ORDER BY place`
	legsOf = `SELECT l.id, ` + legColumns + ` FROM (SELECT DISTINCT unnest(` + withNext + `)) AS u (id)
		JOIN legs l ON l.id = u.id ORDER BY l.id, l.n`
)

// loadRows lists the statements that lock and load messages with what belongs to them.
func (t *tx) loadRows(ids [][16]byte, skip bool) []stmt {
	lock := lockRows
	if skip {
		lock += ` SKIP LOCKED`
	}
	args := []any{ids}
	return []stmt{{lock, args, t.keepRow}, {linesOf, args, t.keepPlace}, {legsOf, args, t.keepLeg}}
}

func (t *tx) keepRow(rows pgx.Rows) error {
	r := &row{}
	var of *[16]byte
	var state *string
	if err := scanRow(rows, r, &of, &state); err != nil {
		return err
	}
	t.rows[r.id] = r
	if of != nil && t.campaigns[r.campaign] == nil {
		t.campaigns[r.campaign] = &campaign{n: r.campaign, id: *of, tenant: r.tenant,
			state: store.CampaignState(*state)}
	}
	return nil
}

func (t *tx) keepLeg(rows pgx.Rows) error {
	var id delivery.MessageID
	l, err := scanLeg(rows, (*[16]byte)(&id))
	if r := t.rows[id]; r != nil && err == nil {
		r.legs = append(r.legs, l)
	}
	return err
}

// load finds a message that need named, with its legs; nil when there is none. Whoever asks twice gets the same row.
func (t *tx) load(id delivery.MessageID) *row { return t.rows[id] }

// checkLegs finds damage before anything works on it.
func (t *tx) checkLegs() error {
	for id, r := range t.rows {
		if r.lastLeg() > 0 && len(r.legs) != r.lastLeg()+1 {
			return fmt.Errorf("message %s has %d of its %d legs", id, len(r.legs), r.lastLeg()+1)
		}
	}
	return nil
}

// campaignByN finds the campaign of a loaded message by its number.
func (t *tx) campaignByN(n int64) (*campaign, error) {
	if c := t.campaigns[n]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("campaign number %d is not known", n)
}

// save marks a row as changed: flush writes it back. It is the one place where a message leaves the line of its
// ordering key by no longer waiting; see order.go.
func (t *tx) save(r *row) error {
	t.wrote = true
	if r.flags&flagOrdered != 0 && !r.status.Waiting() {
		if err := t.leaveLine(r); err != nil {
			return err
		}
	}
	if len(r.legs) > 0 {
		r.settleLegs()
	}
	if is := dead(r); is != r.wasDead {
		r.wasDead = is
		t.dead[r.id] = is
	}
	if !r.dirty {
		r.dirty = true
		t.dirty = append(t.dirty, r)
	}
	return nil
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
	t.record(tn, r, delivery.Fact{Kind: delivery.FactEnded, At: store.FromMillis(now), Code: reason, Detail: detail})
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

// clean takes out of a text what PostgreSQL cannot store: NUL, and bytes that are not UTF-8. The history keeps it all.
func clean(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
