package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// tx is an open transaction: what it has loaded and locked, and what was gathered for its end. One goroutine uses it.
//
// The rules work on what begin has loaded, and on nothing else: load, suppressed and the like look into memory. What is
// not there was not asked for in need, or does not exist.
type tx struct {
	ctx   context.Context
	s     *Store
	conn  *pgxpool.Conn
	scope scope
	now   time.Time
	wrote bool // the running op has changed something

	rows      map[delivery.MessageID]*row
	lines     map[lineKey]*line
	places    map[delivery.MessageID]*line
	tenants   map[int64]*tenant
	owners    map[delivery.AccountID]owner // of configured accounts; missing where there is none
	campaigns map[int64]*campaign
	listed    map[suppressKey]store.Suppression // on the suppression lists, and what this transaction adds to them
	ready     []store.Ready                     // what became due by the running op; see takeReady
	refused   bool                              // the running op has suppressed an address
	in        *intake                           // of a transaction that stores new messages
	refs      map[ref]bool                      // whose receipts nobody parks meanwhile
	receipts  receiptWork

	// Gathered until flush.
	dirty    []*row
	joined   []joined
	left     []delivery.MessageID // of lines
	created  []created
	keyed    keyedRows
	tallies  map[tallyKey]int64
	usage    map[usageKey]int64
	accepted map[int64]int64 // by tenant
	dead     map[delivery.MessageID]bool
	sealed   []ledgerRow
	refusals map[suppressKey]store.Suppression // entries to write
	flushing []stmt                            // after the rows
	last     []stmt                            // after everything else
}

// tenant is what a transaction knows of one tenant whose row of ledger_heads it has locked.
type tenant struct {
	n     int64
	slug  delivery.TenantID
	quota int64 // loaded for acceptances only
	head  [32]byte
	seq   int64 // of its last ledger row

	day   int64         // of the write: the ledger's partition
	facts []store.Event // of the ledger row that is being filled, whose sequence is seq+1
	moved bool          // its row of ledger_heads has changed
}

type campaign struct {
	n      int64
	id     delivery.CampaignID
	tenant int64
	state  store.CampaignState
}

type tallyKey struct {
	tenant, campaign int64
	channel          delivery.Channel
	status           delivery.Status
}

type usageKey struct{ tenant, day int64 }

// owner is who configured an account, and for which channel.
type owner struct {
	tenant  int64 // 0 = shared, noOwner = the account is gone
	channel delivery.Channel
}

const noOwner = -1

type suppressKey struct {
	tenant  int64
	channel delivery.Channel
	to      string
}

// need names what a transaction works on, so that begin loads it in one round trip. Everything may be left out.
type need struct {
	// now is the caller's time, and that of the ledger rows.
	now time.Time
	// vital takes one of the connections that are kept for what a node must do to count as alive.
	vital bool
	// ids are messages to lock and load, with their legs, their lines and the messages that may go after them. Their
	// tenants' heads are locked too.
	ids []delivery.MessageID
	// skip leaves out messages that another transaction has locked, instead of waiting.
	skip bool
	// refs are (account, provider id) whose parked receipts may be applied: receipts for them cannot be parked meanwhile.
	refs []ref
	// first runs before anything else is locked: a campaign is locked there.
	first []stmt
	// more lists what is to be read beside the rows of ids.
	more func(t *tx, ids [][16]byte) []stmt
	// heads are tenants whose heads are to be locked.
	heads []int64
	// owners are accounts whose owner is asked for.
	owners []delivery.AccountID
	// intake is what new messages need.
	intake *intake
	// stripes are the locks of the lines that new messages join.
	stripes []int32
}

// ref is a provider's id of a message.
type ref struct {
	account int64
	id      string
}

func newTx(ctx context.Context, s *Store, conn *pgxpool.Conn, sc scope) *tx {
	return &tx{
		ctx: ctx, s: s, conn: conn, scope: sc,
		rows:      map[delivery.MessageID]*row{},
		lines:     map[lineKey]*line{},
		places:    map[delivery.MessageID]*line{},
		tenants:   map[int64]*tenant{},
		refs:      map[ref]bool{},
		owners:    map[delivery.AccountID]owner{},
		campaigns: map[int64]*campaign{},
		listed:    map[suppressKey]store.Suppression{},
		tallies:   map[tallyKey]int64{},
		usage:     map[usageKey]int64{},
		accepted:  map[int64]int64{},
		dead:      map[delivery.MessageID]bool{},
		refusals:  map[suppressKey]store.Suppression{},
	}
}

const (
	// Advisory locks have two numbers: what kind, and which. 77201 is a line's stripe. 77202 is an account, against
	// receipts that are parked, shared by those who settle its messages.
	lockStripes = `SELECT pg_advisory_xact_lock(77201, s) FROM unnest($1::integer[]) AS u (s)`
	lockParked  = `SELECT pg_advisory_xact_lock_shared(77202, a) FROM unnest($1::integer[]) AS u (a)`
	// Taken before any row of the lines' messages, so that whoever has a row of an ordered message has its line too.
	lockLines = `SELECT pg_advisory_xact_lock(77201, stripe) FROM (SELECT DISTINCT stripe FROM ordered
		WHERE id = ANY ($1) ORDER BY stripe) AS s`

	// The head of every tenant whose rows were named, and of those that are named themselves.
	lockHeads = `SELECT h.tenant, h.seq, h.hash, t.slug, t.daily_quota FROM ledger_heads h
		JOIN tenants t ON t.n = h.tenant WHERE h.tenant = ANY ($1::bigint[] ||
		ARRAY(SELECT DISTINCT m.tenant FROM unnest($2::uuid[]) AS u (id) JOIN messages m ON m.id = u.id))
		ORDER BY h.tenant FOR NO KEY UPDATE OF h`

	loadOwners = `SELECT id, tenant, channel FROM accounts WHERE id = ANY ($1)`
)

// begin opens the transaction and loads what n names, in one round trip.
func (t *tx) begin(n *need) error {
	t.now = n.now
	stmts := []stmt{
		{sql: beginWrite},
		// The wait for a lock ends before the statement, so that the error says what it was. A transaction that stands idle
		// ends before those that wait for its locks: a node that is stopped costs the others a wait, and no failure.
		{sql: setLimits, args: []any{strconv.FormatInt(int64(t.scope), 10), millis(t.s.timeout),
			millis(t.s.timeout * 4 / 5), millis(t.s.timeout * 3 / 5)}},
	}
	stmts = append(stmts, n.first...)
	if len(n.stripes) > 0 {
		stmts = append(stmts, stmt{sql: lockStripes, args: []any{sortedUnique(n.stripes)}})
	}
	ids := uuids(n.ids)
	if len(ids) > 0 {
		stmts = append(stmts, stmt{sql: lockLines, args: []any{ids}})
	}
	if len(n.refs) > 0 {
		stmts = append(stmts, t.lockRefs(n.refs)...)
	}
	if len(ids) > 0 {
		stmts = append(stmts, t.loadRows(ids, n.skip)...)
		if n.more != nil {
			stmts = append(stmts, n.more(t, ids)...)
		}
	}
	if len(n.owners) > 0 {
		stmts = append(stmts, stmt{loadOwners, []any{uuids(n.owners)}, t.keepOwner})
	}
	if len(ids) > 0 || len(n.heads) > 0 {
		stmts = append(stmts, stmt{lockHeads, []any{nonNilOf(n.heads), ids}, t.keepHead})
	}
	if n.intake != nil {
		n.intake.reset()
		t.in = n.intake
		stmts = append(stmts, n.intake.stmts(t)...)
	}
	if err := t.trip(stmts...); err != nil {
		return err
	}
	return t.checkLegs()
}

// lockRefs keeps receipts of these provider ids from being parked until the end, and reads those that are.
func (t *tx) lockRefs(refs []ref) []stmt {
	accounts := make([]int32, len(refs))
	for i := range refs {
		t.refs[refs[i]] = true
		accounts[i] = int32(refs[i].account) //nolint:gosec // wraps: a name
	}
	return []stmt{{sql: lockParked, args: []any{sortedUnique(accounts)}}, t.loadParked(refs)}
}

func (t *tx) keepHead(rows pgx.Rows) error {
	tn := &tenant{}
	var hash []byte
	if err := rows.Scan(&tn.n, &tn.seq, &hash, (*string)(&tn.slug), &tn.quota); err != nil {
		return err
	}
	copy(tn.head[:], hash)
	t.tenants[tn.n] = tn
	t.s.tenants.keep(string(tn.slug), tn.n)
	return nil
}

func (t *tx) keepOwner(rows pgx.Rows) error {
	var id [16]byte
	var o owner
	var ch int16
	if err := rows.Scan(&id, &o.tenant, &ch); err != nil {
		return err
	}
	o.channel = delivery.Channel(ch)
	t.owners[id] = o
	return nil
}

// tenantN finds a tenant by its number. Its head is locked when its rows or itself were named, or else here, late.
func (t *tx) tenantN(n int64) (*tenant, error) {
	if tn := t.tenants[n]; tn != nil {
		return tn, nil
	}
	if err := t.trip(stmt{lockHeads, []any{[]int64{n}, [][16]byte{}}, t.keepHead}); err != nil {
		return nil, err
	}
	if tn := t.tenants[n]; tn != nil {
		return tn, nil
	}
	return nil, fmt.Errorf("tenant number %d: %w", n, store.ErrNotFound)
}

// accountOwner says who configured an account that need named.
func (t *tx) accountOwner(id delivery.AccountID) owner {
	if o, ok := t.owners[id]; ok {
		return o
	}
	return owner{tenant: noOwner}
}

// exec runs a statement that writes, at once, and says how many rows it touched.
func (t *tx) exec(sql string, args ...any) (int64, error) {
	t.wrote = true
	t.s.trips.Add(1)
	tag, err := t.conn.Exec(t.ctx, sql, args...)
	return tag.RowsAffected(), err
}

// query runs a statement at once and calls each for every row. each must not use the transaction.
func (t *tx) query(each func(pgx.Rows) error, sql string, args ...any) error {
	return t.trip(stmt{sql, args, each})
}

// one runs a statement of at most one row at once and reports whether there was one.
func (t *tx) one(dest []any, sql string, args ...any) (found bool, err error) {
	err = t.trip(stmt{sql, args, func(rows pgx.Rows) error {
		found = true
		return rows.Scan(dest...)
	}})
	return found, err
}

// later runs a statement that writes with the COMMIT, after the rows of messages.
func (t *tx) later(sql string, args ...any) {
	t.wrote = true
	t.flushing = append(t.flushing, stmt{sql: sql, args: args})
}

// atLast is later for what must come after everything else.
func (t *tx) atLast(sql string, args ...any) {
	t.wrote = true
	t.last = append(t.last, stmt{sql: sql, args: args})
}

// day is the number of a UTC day.
func day(now time.Time) int64 { return now.UTC().Unix() / 86400 }

// count moves the tally of one message; from 0 means that it is new.
func (t *tx) count(r *row, from, to delivery.Status) {
	t.wrote = true
	k := tallyKey{r.tenant, r.campaign, r.channel, to}
	t.tallies[k]++
	if from != 0 {
		k.status = from
		t.tallies[k]--
	}
}

// becomesReady notes that a message waits in its queue since this op.
func (t *tx) becomesReady(tn *tenant, r *row) {
	q := delivery.Queue{Tenant: tn.slug, Channel: r.channel, Lane: r.lane}
	t.ready = append(t.ready, store.Ready{ID: r.id, Queue: q})
}

// takeReady returns what became ready since the last call.
func (t *tx) takeReady() []store.Ready {
	ready := t.ready
	t.ready = nil
	return ready
}

// rollback throws the transaction away.
func (t *tx) rollback() { t.s.rollback(t.conn) }

// commit writes what was gathered and commits, in one round trip. A transaction that wrote nothing is just ended.
func (t *tx) commit() error {
	if !t.wrote {
		t.rollback()
		return nil
	}
	stmts := append(t.flush(), stmt{sql: commitSQL})
	t.s.trips.Add(1)
	closed := t.conn.Conn().IsClosed()
	at, err := tripTo(t.ctx, t.conn, stmts)
	if err == nil {
		return nil
	}
	// No answer: then nobody knows how far it came. That nothing was sent is certain of a connection that was closed
	// before; ErrConnClosed may also be all that is told of one that broke while the answer was awaited, and the driver
	// calls it safe to retry all the same.
	unsent := closed || pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
	lost := t.conn.Conn().IsClosed() && !unsent && !isCode(err)
	t.rollback()
	if again(err) {
		return err
	}
	return explain(withCause(t.ctx, err), lost || at >= len(stmts)-1 && !unsent)
}

func sortedUnique[T cmp.Ordered](list []T) []T {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// nonNilOf keeps an empty list from being sent as NULL.
func nonNilOf[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
