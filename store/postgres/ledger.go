package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// The ledger. The facts that one commit writes for one tenant go into one row (or a few: factsPerRow), encoded by
// store.AppendFacts and chained by hash: a row cannot be changed or taken out without breaking the chain. A message's
// row lists the sequences of the ledger rows that hold its facts. Sequences are those of a tenant, without a gap, in
// the order of commits: they are drawn from the tenant's row of ledger_heads, which is locked until the commit. So who
// has read up to a sequence has missed nothing.
const (
	factsPerRow = 1024
	// eventsPerRow spreads ledger sequences so that every fact has its own event sequence: seq*eventsPerRow + place.
	eventsPerRow = 4096
	// A message that is deferred for ever must not grow without bound: beyond maxSeqs its row keeps the first and the
	// newest. The ledger itself loses nothing.
	maxSeqs, keepFirst, keepLast = 200, 20, 100
)

// ledgerRow is a sealed row of the ledger, to be written.
type ledgerRow struct {
	tenant, seq, day, at int64
	prev, hash           [32]byte
	facts                []byte
}

// record adds a fact of the current leg to the ledger and to the message's list. The fact's status is filled in from
// the row unless set.
func (t *tx) record(tn *tenant, r *row, f delivery.Fact) {
	f.Leg = r.leg()
	t.recordOn(tn, r, r.channel, f)
}

// recordOn is record for a fact that names its leg, which is on channel ch.
func (t *tx) recordOn(tn *tenant, r *row, ch delivery.Channel, f delivery.Fact) {
	t.wrote, tn.moved = true, true
	if len(tn.facts) == factsPerRow {
		t.seal(tn)
	}
	f.Message = r.id
	if f.Status == 0 {
		f.Status = r.status
	}
	tn.facts = append(tn.facts, store.Event{Channel: ch, Fact: f})
	r.noteFact(tn.seq + 1)
	if f.Kind != delivery.FactReceipt && f.Kind != delivery.FactLate { // those have the times of others
		tn.day = max(tn.day, day(f.At))
	}
}

// seal ends the ledger row that is being filled.
func (t *tx) seal(tn *tenant) {
	if len(tn.facts) == 0 {
		return
	}
	blob := store.AppendFacts(nil, tn.facts)
	at := store.Millis(tn.facts[len(tn.facts)-1].Fact.At)
	tn.seq++
	hash := chainHash(tn.head, tn.n, tn.seq, at, blob)
	if tn.day == 0 && !t.now.IsZero() {
		tn.day = day(t.now)
	}
	t.sealed = append(t.sealed, ledgerRow{tn.n, tn.seq, tn.day, at, tn.head, hash, blob})
	tn.head, tn.facts = hash, nil
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

const (
	factsOf = `SELECT facts, accepted, updated FROM messages WHERE id = $1 AND tenant = $2`
	// The days spare a look into every partition: a row of the ledger is written between a message's first fact and its
	// last, by clocks that may differ somewhat.
	ledgerRowsNear = `SELECT seq, facts FROM ledger WHERE tenant = $1 AND seq = ANY ($2) AND day BETWEEN $3 AND $4`
	ledgerRows     = `SELECT seq, facts FROM ledger WHERE tenant = $1 AND seq = ANY ($2)`
	ledgerFrom     = `SELECT seq, facts FROM ledger WHERE tenant = $1 AND seq >= $2 ORDER BY seq LIMIT $3`
	ledgerLast     = `SELECT seq, facts FROM ledger WHERE tenant = $1 ORDER BY seq DESC LIMIT 1`

	factsPerTrip = 50 // ledger rows that are read at a time: one may be large
)

// Facts returns a message's history, oldest first.
func (s *Store) Facts(ctx context.Context, slug delivery.TenantID, id delivery.MessageID) ([]delivery.Fact, error) {
	none := fmt.Errorf("message %s: %w", id, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, missing(err, none)
	}
	var facts []delivery.Fact
	err = s.reading(ctx, scope(n), func(r *reader) error {
		var list []byte
		var accepted, updated int64
		if err := r.query(stmt{factsOf, []any{[16]byte(id), n}, into(&list, &accepted, &updated)}); err != nil {
			return err
		}
		if list == nil {
			return none
		}
		from, to := day(store.FromMillis(accepted))-1, day(store.FromMillis(updated))+1
		for seqs := range slices.Chunk(decodeSeqs(list), factsPerTrip) {
			found := map[int64][]delivery.Fact{}
			collect := func(rows pgx.Rows) error { return collectFacts(rows, id, found) }
			if err := r.query(stmt{ledgerRowsNear, []any{n, seqs, from, to}, collect}); err != nil {
				return err
			}
			if len(found) < len(seqs) { // some clock was wrong by more than a day
				if err := r.query(stmt{ledgerRows, []any{n, seqs}, collect}); err != nil {
					return err
				}
			}
			for _, seq := range seqs {
				facts = append(facts, found[seq]...)
			}
		}
		return nil
	})
	return facts, err
}

// collectFacts keeps the facts of one message in a row of the ledger.
func collectFacts(rows pgx.Rows, id delivery.MessageID, found map[int64][]delivery.Fact) error {
	var seq int64
	var blob []byte
	if err := rows.Scan(&seq, &blob); err != nil {
		return err
	}
	events, err := store.DecodeFacts(blob)
	if err != nil {
		return fmt.Errorf("ledger row %d: %w", seq, err)
	}
	found[seq] = nil
	for i := range events {
		if events[i].Fact.Message == id {
			found[seq] = append(found[seq], events[i].Fact)
		}
	}
	return nil
}

// Events returns facts of all messages of a tenant above a sequence. Sequences leave gaps: see eventsPerRow.
func (s *Store) Events(
	ctx context.Context, slug delivery.TenantID, after int64, limit int,
) (events []store.Event, latest int64, err error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, 0, noneFor(err)
	}
	seq := max(after, 0) / eventsPerRow
	err = s.reading(ctx, scope(n), func(r *reader) error {
		latestStmt := stmt{ledgerLast, []any{n}, func(rows pgx.Rows) error {
			var seq int64
			var blob []byte
			if err := rows.Scan(&seq, &blob); err != nil {
				return err
			}
			last, err := store.DecodeFacts(blob)
			latest = seq*eventsPerRow + int64(len(last)-1)
			return err
		}}
		if err := r.query(latestStmt); err != nil {
			return err
		}
		for len(events) < limit {
			got := 0
			err := r.query(stmt{ledgerFrom, []any{n, seq, factsPerTrip}, func(rows pgx.Rows) error {
				var blob []byte
				if err := rows.Scan(&seq, &blob); err != nil {
					return err
				}
				got++
				row, err := store.DecodeFacts(blob)
				if err != nil {
					return fmt.Errorf("ledger row %d: %w", seq, err)
				}
				for i, e := range row {
					e.Seq = seq*eventsPerRow + int64(i)
					if e.Seq > after && len(events) < limit {
						events = append(events, e)
					}
				}
				return nil
			}})
			if err != nil || got < factsPerTrip {
				return err
			}
			seq++
		}
		return nil
	})
	return events, latest, err
}
