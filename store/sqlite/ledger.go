package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The ledger. The facts that one commit writes for one tenant go into one row (or a few: factsPerRow), encoded by
// store.AppendFacts and chained by hash: a row cannot be changed or taken out without breaking the chain. A message's
// row lists the sequences of the ledger rows that hold its facts.
const (
	factsPerRow = 1024
	// eventsPerRow spreads ledger sequences so that every fact has its own event sequence: seq*eventsPerRow + place.
	eventsPerRow = 4096
	// A message that is deferred for ever must not grow without bound: beyond maxSeqs its row keeps the first and the
	// newest. The ledger itself loses nothing.
	maxSeqs, keepFirst, keepLast = 200, 20, 100
)

// record adds a fact of the current leg to the ledger and to the message's list. The fact's status is filled in from
// the row unless set.
func (t *tx) record(tn *tenant, r *row, f delivery.Fact) error {
	f.Leg = r.leg()
	return t.recordOn(tn, r, r.channel, f)
}

// recordOn is record for a fact that names its leg, which is on channel ch.
func (t *tx) recordOn(tn *tenant, r *row, ch delivery.Channel, f delivery.Fact) error {
	t.touch(tn)
	if len(tn.facts) == factsPerRow {
		if err := t.seal(tn); err != nil {
			return err
		}
	}
	if len(tn.facts) == 0 {
		if t.nextSeq == 0 {
			if _, err := one(t.conn, `SELECT max(seq) FROM ledger`, func(s *sqlite.Stmt) error {
				t.nextSeq = s.ColumnInt64(0) + 1
				return nil
			}); err != nil {
				return err
			}
		}
		tn.seq = t.nextSeq
		t.nextSeq++
	}
	f.Message = r.id
	if f.Status == 0 {
		f.Status = r.status
	}
	tn.facts = append(tn.facts, store.Event{Channel: ch, Fact: f})
	r.noteFact(tn.seq)
	return nil
}

// seal writes the ledger row that is being filled.
func (t *tx) seal(tn *tenant) error {
	if len(tn.facts) == 0 {
		return nil
	}
	blob := store.AppendFacts(nil, tn.facts)
	at := store.Millis(tn.facts[len(tn.facts)-1].Fact.At)
	hash := chainHash(tn.head, tn.n, tn.seq, at, blob)
	err := exec(t.conn, `INSERT INTO ledger (seq, tenant, at, prev, hash, facts) VALUES (?, ?, ?, ?, ?, ?)`,
		tn.seq, tn.n, at, tn.head[:], hash[:], blob)
	if err != nil {
		return err
	}
	tn.head = hash
	clear(tn.facts)
	tn.facts = tn.facts[:0]
	return nil
}

// chainHash is SHA-256 over the hash before, tenant, sequence and time (8 bytes each, big-endian) and the facts.
func chainHash(prev [32]byte, tenant, seq, at int64, facts []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write(prev[:])
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], uint64(tenant))
	binary.BigEndian.PutUint64(b[8:], uint64(seq))
	binary.BigEndian.PutUint64(b[16:], uint64(at))
	h.Write(b[:])
	h.Write(facts)
	h.Sum(sum[:0])
	return sum
}

// noteFact adds a ledger sequence to the row's list, once.
func (r *row) noteFact(seq int64) {
	if r.lastSeq == 0 && len(r.facts) > 0 {
		seqs := decodeSeqs(r.facts)
		r.lastSeq, r.seqs = seqs[len(seqs)-1], len(seqs)
	}
	if seq == r.lastSeq {
		return
	}
	if r.seqs >= maxSeqs {
		all := decodeSeqs(r.facts)
		kept := slices.Concat(all[:keepFirst], all[len(all)-keepLast:])
		r.facts, r.lastSeq, r.seqs = nil, 0, 0
		r.flags |= flagTrimmed
		for _, s := range kept {
			r.appendSeq(s)
		}
	}
	r.appendSeq(seq)
}

func (r *row) appendSeq(seq int64) {
	r.facts = binary.AppendUvarint(r.facts, uint64(seq-r.lastSeq))
	r.lastSeq = seq
	r.seqs++
}

// decodeSeqs reads a row's list; it ends at the first byte that is not of a list.
func decodeSeqs(b []byte) (seqs []int64) {
	var seq int64
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 {
			return seqs
		}
		seq += int64(d)
		seqs = append(seqs, seq)
		b = b[n:]
	}
	return seqs
}

// ledgerFacts reads one ledger row; none when it is not there.
func ledgerFacts(c *sqlite.Conn, seq int64) (events []store.Event, err error) {
	_, err = one(c, `SELECT facts FROM ledger WHERE seq = ?`, func(s *sqlite.Stmt) (err error) {
		events, err = store.DecodeFacts(columnBytes(s, 0))
		return err
	}, seq)
	if err != nil {
		return nil, fmt.Errorf("ledger row %d: %w", seq, err)
	}
	return events, nil
}

// Facts returns a message's history, oldest first.
func (s *Store) Facts(ctx context.Context, tenant delivery.TenantID, id delivery.MessageID) ([]delivery.Fact, error) {
	return read(ctx, s, func(c *sqlite.Conn) ([]delivery.Fact, error) {
		var list []byte
		found, err := one(c, `SELECT facts FROM messages WHERE id = ? AND tenant = (SELECT n FROM tenants WHERE slug = ?)`,
			func(s *sqlite.Stmt) error { list = columnBytes(s, 0); return nil }, id[:], string(tenant))
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, fmt.Errorf("message %s: %w", id, store.ErrNotFound)
		}
		var facts []delivery.Fact
		for _, seq := range decodeSeqs(list) {
			events, err := ledgerFacts(c, seq)
			if err != nil {
				return nil, err
			}
			for i := range events {
				if events[i].Fact.Message == id {
					facts = append(facts, events[i].Fact)
				}
			}
		}
		return facts, nil
	})
}

const ledgerFrom = `SELECT seq, facts FROM ledger WHERE tenant = ? AND seq >= ? ORDER BY seq`

// Events returns facts of all messages of a tenant above a sequence. Sequences leave gaps: see eventsPerRow.
func (s *Store) Events(
	ctx context.Context, tenant delivery.TenantID, after int64, limit int,
) (events []store.Event, latest int64, err error) {
	type page struct {
		events []store.Event
		latest int64
	}
	p, err := read(ctx, s, func(c *sqlite.Conn) (p page, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 {
			return p, err
		}
		if _, err = one(c, `SELECT seq, facts FROM ledger WHERE tenant = ? ORDER BY seq DESC LIMIT 1`,
			func(s *sqlite.Stmt) error {
				last, err := store.DecodeFacts(columnBytes(s, 1))
				p.latest = s.ColumnInt64(0)*eventsPerRow + int64(len(last)-1)
				return err
			}, n); err != nil {
			return p, err
		}
		err = query(c, ledgerFrom, func(s *sqlite.Stmt) error {
			seq := s.ColumnInt64(0)
			row, err := store.DecodeFacts(columnBytes(s, 1))
			if err != nil {
				return fmt.Errorf("ledger row %d: %w", seq, err)
			}
			for i, e := range row {
				e.Seq = seq*eventsPerRow + int64(i)
				if e.Seq <= after {
					continue
				}
				if len(p.events) >= limit {
					return errEnough
				}
				p.events = append(p.events, e)
			}
			return nil
		}, n, max(after, 0)/eventsPerRow)
		return p, enough(err)
	})
	return p.events, p.latest, err
}
