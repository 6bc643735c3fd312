// Package transfer moves an embedded store into a PostgreSQL database, so that a single engine becomes a cluster.
//
// Everything goes with it under its old numbers: tenants with their sealed data keys, messages with their payloads,
// legs and lines, history, idempotency keys, receipts that wait for their message. The hash chains of the history are
// the same row by row. The database has all of it or nothing.
package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
	"github.com/msgctl/msgctl/store/postgres"
	"github.com/msgctl/msgctl/store/sqlite"
)

// Options says what goes where. From and To are required.
type Options struct {
	From string // directory of the embedded store; no engine may run on it
	To   string // URL of an empty database whose schema is there; no node may work on it
	Log  *slog.Logger
	Now  func() time.Time // nil = time.Now
	// Progress is told, from one goroutine, what has been copied; nil = nobody is.
	Progress func(Progress)
}

// Progress is how far a transfer has come.
type Progress struct {
	Table       string // that is being copied; "" while what was copied is compared
	Done, Total int64  // rows of all tables
}

// Result is what a transfer has done.
type Result struct {
	Tenants, Messages, Facts int64
	Rows                     map[string]int64 // by table
}

const (
	batchRows = 1000
	// batchBytes bounds a batch of large rows, such as those of the ledger.
	batchBytes = 4 << 20
)

// Run copies the store. When it fails the database is as empty as before, unless the error says otherwise, and the
// directory is as it was: the transfer may be tried again. The directory is not changed by a success either: keep it
// until the cluster has proved itself, and start no engine on it any more, or messages are sent twice.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.From == "" || o.To == "" {
		return Result{}, errors.New("transfer: a directory and a URL are needed")
	}
	from, err := sqlite.OpenExport(ctx, o.From)
	if err != nil {
		return Result{}, fmt.Errorf("transfer: %w", err)
	}
	defer func() { _ = from.Close() }() // it was only read
	to, err := postgres.Open(ctx, postgres.Options{URL: o.To, Log: o.Log, Now: o.Now})
	if err != nil {
		return Result{}, fmt.Errorf("transfer: %w", err)
	}
	defer func() { _ = to.Close() }() // what was committed is
	m := &mover{ctx: ctx, from: from, progress: o.Progress, result: Result{Rows: map[string]int64{}}}
	if m.progress == nil {
		m.progress = func(Progress) {}
	}
	if err := m.plan(); err != nil {
		return Result{}, fmt.Errorf("transfer: %w", err)
	}
	if err := to.Import(ctx, m.copy); err != nil {
		return Result{}, fmt.Errorf("transfer: %w", err)
	}
	if err := m.audit(to); err != nil {
		return Result{}, fmt.Errorf("transfer: everything was copied, but %w: empty the database before you try again", err)
	}
	return m.result, nil
}

// mover is one run.
type mover struct {
	ctx      context.Context
	from     *sqlite.Export
	progress func(Progress)
	result   Result

	done, total int64
	accepted    map[int64]int64    // tenant → messages ever accepted
	chains      map[int64]*rolling // tenant → its ledger as it was read
}

// notCopied are the tables of the source that have nothing to be kept.
var notCopied = []string{"probe"}

// plan counts the rows, and makes sure that no table is forgotten.
func (m *mover) plan() error {
	tables, err := m.from.Tables(m.ctx)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, t := range postgres.ImportTables() {
		known[t.Name] = true
	}
	for _, name := range tables {
		if slices.Contains(notCopied, name) {
			continue
		}
		if !known[name] {
			return fmt.Errorf("the directory has a table %q that this program does not know how to copy", name)
		}
		n, err := m.from.Rows(m.ctx, name)
		if err != nil {
			return err
		}
		m.result.Rows[name] = n
		m.total += n
	}
	m.result.Messages, m.result.Tenants = m.result.Rows["messages"], m.result.Rows["tenants"]
	return nil
}

// copy fills the database and compares what it then has with what was read.
func (m *mover) copy(im *postgres.Import) error {
	m.accepted, m.chains = map[int64]int64{}, map[int64]*rolling{}
	m.done = 0
	if err := m.partitions(im); err != nil {
		return err
	}
	for _, t := range postgres.ImportTables() {
		if err := m.table(im, t); err != nil {
			return err
		}
	}
	if err := m.from.Table(m.ctx, "tenants", []string{"n", "accepted"}, func(r []any) error {
		n, ok1 := r[0].(int64)
		accepted, ok2 := r[1].(int64)
		if !ok1 || !ok2 {
			return errors.New("a tenant without a number")
		}
		m.accepted[n] = accepted
		return nil
	}); err != nil {
		return err
	}
	if err := im.Accepted(m.accepted); err != nil {
		return err
	}
	m.progress(Progress{Done: m.done, Total: m.total})
	return m.compare(im)
}

// errFirst ends the reading of a table after its first row.
var errFirst = errors.New("enough")

// partitions makes room for what is old. Ids grow with time, and the first message was there before any history.
func (m *mover) partitions(im *postgres.Import) error {
	var first time.Time
	err := m.from.Table(m.ctx, "messages", []string{"id"}, func(r []any) error {
		b, ok := r[0].([]byte)
		if !ok || len(b) != len(delivery.MessageID{}) {
			return errors.New("a message without an id")
		}
		first = delivery.MessageID(b).Time()
		return errFirst
	})
	if err == nil { // no message
		return nil
	}
	if !errors.Is(err, errFirst) {
		return err
	}
	return im.Since(first)
}

// table copies one table in batches.
func (m *mover) table(im *postgres.Import, t postgres.ImportTable) error {
	var rows [][]any
	size := 0
	send := func() error {
		if err := im.Add(t.Name, rows); err != nil {
			return err
		}
		m.done += int64(len(rows))
		rows, size = rows[:0], 0
		m.progress(Progress{Table: t.Name, Done: m.done, Total: m.total})
		return m.ctx.Err()
	}
	err := m.from.Table(m.ctx, t.Name, t.Columns, func(r []any) error {
		if t.Name == "ledger" {
			if err := m.keepChain(r); err != nil {
				return err
			}
		}
		rows = append(rows, slices.Clone(r))
		for _, v := range r {
			switch v := v.(type) {
			case string:
				size += len(v)
			case []byte:
				size += len(v)
			}
		}
		if len(rows) < batchRows && size < batchBytes {
			return nil
		}
		return send()
	})
	if err == nil && len(rows) > 0 {
		err = send()
	}
	return err
}

// rolling is a digest over ledger rows in their order.
type rolling struct {
	sum  [sha256.Size]byte
	rows int64
}

func (c *rolling) add(seq, at int64, prev, hash, facts []byte) {
	b := append([]byte{}, c.sum[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // the same on both sides, whatever it is
	b = binary.BigEndian.AppendUint64(b, uint64(at))  //nolint:gosec // as above
	for _, part := range [][]byte{prev, hash, facts} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	c.sum = sha256.Sum256(b)
	c.rows++
}

// keepChain adds a ledger row of the source to its tenant's digest. Its columns are those of postgres.ImportTables.
func (m *mover) keepChain(r []any) error {
	tenant, ok1 := r[0].(int64)
	seq, ok2 := r[1].(int64)
	at, ok3 := r[2].(int64)
	prev, ok4 := r[3].([]byte)
	hash, ok5 := r[4].([]byte)
	facts, ok6 := r[5].([]byte)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
		return errors.New("a row of the ledger has other types than it should: run msgctl audit on the directory")
	}
	c := m.chains[tenant]
	if c == nil {
		c = &rolling{}
		m.chains[tenant] = c
	}
	c.add(seq, at, prev, hash, facts)
	return nil
}

// compare reads back what was written: as many rows of each table, and every row of every ledger as it was.
func (m *mover) compare(im *postgres.Import) error {
	for _, t := range postgres.ImportTables() {
		n, err := im.Rows(t.Name)
		if err != nil {
			return err
		}
		if want := m.result.Rows[t.Name]; n != want && t.Name != "clock" {
			return fmt.Errorf("table %s has %d rows after %d were copied", t.Name, n, want)
		}
	}
	for _, tenant := range slices.Sorted(maps.Keys(m.chains)) {
		var is rolling
		if err := im.Ledger(tenant, func(seq, at int64, prev, hash, facts []byte) error {
			is.add(seq, at, prev, hash, facts)
			return nil
		}); err != nil {
			return err
		}
		if is != *m.chains[tenant] {
			return fmt.Errorf("the history of tenant number %d is not what it was", tenant)
		}
	}
	return nil
}

// audit recounts both sides: what was right must be right, and what was not must be wrong in the same way.
func (m *mover) audit(to *postgres.Store) error {
	tenants, err := m.from.Tenants(m.ctx)
	if err != nil {
		return err
	}
	for _, id := range tenants {
		was, err := m.from.Audit(m.ctx, id)
		if err != nil {
			return err
		}
		is, err := to.Audit(m.ctx, id)
		if err != nil {
			return err
		}
		if difference := compareAudits(was, is); difference != "" {
			return fmt.Errorf("the books of tenant %s are not what they were: %s", id, difference)
		}
		m.result.Facts += is.Facts
	}
	return nil
}

func compareAudits(was, is store.AuditReport) string {
	numbers := func(r store.AuditReport) [5]int64 {
		return [5]int64{r.Accepted, r.Live, r.HandedOn, r.Ended, r.Facts}
	}
	switch {
	case numbers(was) != numbers(is):
		return fmt.Sprintf("accepted, live, handed on, ended and facts were %v and are %v", numbers(was), numbers(is))
	case len(was.Problems) != len(is.Problems):
		if len(is.Problems) > 0 {
			p := is.Problems[0]
			return fmt.Sprintf("there were %d problems and are %d, such as: %s: %s: %s", len(was.Problems), len(is.Problems),
				p.What, p.Subject, p.Detail)
		}
		return fmt.Sprintf("there were %d problems and are none", len(was.Problems))
	}
	return ""
}
