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

	lastSeq int64 // last of facts and how many there are, once known
	seqs    int
}

// The flags of a row. The numbers are stored: never renumber.
const (
	flagDuplicate  = 1 << 0 // an earlier attempt may have reached the provider
	flagAtMostOnce = 1 << 1
	flagPinned     = 1 << 2 // the sender chose the account
	flagOpen       = 1 << 3 // the outcome of the last claim is still to come
	flagTrimmed    = 1 << 4 // facts does not list all
)

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
}

// load reads a row by id; nil when there is none.
func (t *tx) load(id delivery.MessageID) (*row, error) {
	var r row
	found, err := one(t.conn, `SELECT `+rowColumns+` FROM messages WHERE id = ?`, func(s *sqlite.Stmt) error {
		scanRow(s, &r)
		return nil
	}, id[:])
	if err != nil || !found {
		return nil, err
	}
	return &r, nil
}

// save writes back what may have changed.
func (t *tx) save(r *row) error {
	t.wrote = true
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
	if _, err := s.Step(); err != nil {
		return err
	}
	return nil
}

// move changes a row's status, step by step through statuses that the table of legal moves allows to writers. The row
// must still be saved.
func (t *tx) move(r *row, now int64, steps ...step) error {
	from := r.status
	for _, s := range steps {
		if !delivery.CanMove(r.status, s.to, s.by) {
			return fmt.Errorf("message %s: %s may not move it from %s to %s", r.id, s.by, r.status, s.to)
		}
		r.status = s.to
	}
	t.count(r, from, r.status)
	r.updated = now
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
