package sqlite

import (
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// tx is the writer's view of the database: the open transaction with what was gathered for its end, and what was
// remembered of small tables from one transaction to the next. Only the writer's goroutine uses it. A rollback throws
// all of it away, so that nothing is remembered that was not committed.
type tx struct {
	conn  *sqlite.Conn
	wrote bool // the running op has changed something

	tenants   map[delivery.TenantID]*tenant
	tenantsN  map[int64]*tenant
	accounts  map[delivery.AccountID]int64
	accountsN map[int64]delivery.AccountID
	owners    map[delivery.AccountID]owner // of configured accounts; noOwner where there is none
	campaigns map[delivery.CampaignID]*campaign
	campaignN map[int64]*campaign

	nextSeq   int64         // of the ledger; 0 = not read yet
	anyParked bool          // there may be parked receipts
	refused   bool          // the running op has suppressed an address
	parked    map[int64]int // account → its parked receipts; what is not there is counted when it is needed
	keyed     int           // accepts with a key, to pace the purge

	ready []store.Ready // what became due by the running op; see takeReady

	// Gathered until flush.
	touched []*tenant
	tallies map[tallyKey]int64
	usage   map[usageKey]int64
}

// tenant is what the writer remembers of one tenant.
type tenant struct {
	n          int64
	slug       delivery.TenantID
	quota      int64
	suppresses bool // its suppression list is not empty
	day, used  int64
	head       [32]byte // hash of its last ledger row

	// Gathered until flush.
	seq      int64 // ledger row that is being filled
	facts    []store.Event
	accepted int64
	queued   bool // it stands in tx.touched
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

func newTx(conn *sqlite.Conn) *tx {
	return &tx{
		conn:      conn,
		tenants:   map[delivery.TenantID]*tenant{},
		tenantsN:  map[int64]*tenant{},
		accounts:  map[delivery.AccountID]int64{},
		accountsN: map[int64]delivery.AccountID{},
		owners:    map[delivery.AccountID]owner{},
		campaigns: map[delivery.CampaignID]*campaign{},
		campaignN: map[int64]*campaign{},
		anyParked: true,
		parked:    map[int64]int{},
		tallies:   map[tallyKey]int64{},
		usage:     map[usageKey]int64{},
	}
}

// exec runs a statement that writes.
func (t *tx) exec(sql string, args ...any) error {
	t.wrote = true
	return exec(t.conn, sql, args...)
}

// tenant finds a tenant by its slug, or gives ErrNotFound.
func (t *tx) tenant(slug delivery.TenantID) (*tenant, error) {
	if tn := t.tenants[slug]; tn != nil {
		return tn, nil
	}
	return t.loadTenant(`SELECT n, slug, daily_quota FROM tenants WHERE slug = ?`, string(slug))
}

// tenantN finds a tenant by its number.
func (t *tx) tenantN(n int64) (*tenant, error) {
	if tn := t.tenantsN[n]; tn != nil {
		return tn, nil
	}
	return t.loadTenant(`SELECT n, slug, daily_quota FROM tenants WHERE n = ?`, n)
}

func (t *tx) loadTenant(sql string, key any) (*tenant, error) {
	tn := &tenant{day: -1}
	found, err := one(t.conn, sql, func(s *sqlite.Stmt) error {
		r := scan(s)
		tn.n, tn.slug, tn.quota = r.int64(), delivery.TenantID(r.text()), r.int64()
		return nil
	}, key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("tenant %v: %w", key, store.ErrNotFound)
	}
	if tn.suppresses, err = one(t.conn, `SELECT 1 FROM suppressions WHERE tenant = ? LIMIT 1`,
		func(*sqlite.Stmt) error { return nil }, tn.n); err != nil {
		return nil, err
	}
	if _, err = one(t.conn, `SELECT hash FROM ledger WHERE tenant = ? ORDER BY seq DESC LIMIT 1`,
		func(s *sqlite.Stmt) error { s.ColumnBytes(0, tn.head[:]); return nil }, tn.n); err != nil {
		return nil, err
	}
	t.tenants[tn.slug], t.tenantsN[tn.n] = tn, tn
	return tn, nil
}

// owner is the number of a tenant, or 0 for delivery.Shared.
func (t *tx) owner(slug delivery.TenantID) (int64, error) {
	if slug == delivery.Shared {
		return 0, nil
	}
	tn, err := t.tenant(slug)
	if err != nil {
		return 0, err
	}
	return tn.n, nil
}

// account interns an account id; the zero id is 0.
func (t *tx) account(id delivery.AccountID) (int64, error) {
	if id == (delivery.AccountID{}) {
		return 0, nil
	}
	if n, ok := t.accounts[id]; ok {
		return n, nil
	}
	var n int64
	get := func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil }
	found, err := one(t.conn, `SELECT n FROM account_ids WHERE id = ?`, get, id[:])
	if err == nil && !found {
		t.wrote = true
		_, err = one(t.conn, `INSERT INTO account_ids (id) VALUES (?) RETURNING n`, get, id[:])
	}
	if err != nil {
		return 0, err
	}
	t.accounts[id], t.accountsN[n] = n, id
	return n, nil
}

// accountID is the inverse of account.
func (t *tx) accountID(n int64) (id delivery.AccountID, err error) {
	if n == 0 {
		return id, nil
	}
	if id, ok := t.accountsN[n]; ok {
		return id, nil
	}
	found, err := one(t.conn, `SELECT id FROM account_ids WHERE n = ?`, func(s *sqlite.Stmt) error {
		s.ColumnBytes(0, id[:])
		return nil
	}, n)
	if err == nil && !found {
		err = fmt.Errorf("account number %d is not known", n)
	}
	if err != nil {
		return id, err
	}
	t.accounts[id], t.accountsN[n] = n, id
	return id, nil
}

// accountOwner says who configured an account.
func (t *tx) accountOwner(id delivery.AccountID) (owner, error) {
	if o, ok := t.owners[id]; ok {
		return o, nil
	}
	o := owner{tenant: noOwner}
	_, err := one(t.conn, `SELECT tenant, channel FROM accounts WHERE id = ?`, func(s *sqlite.Stmt) error {
		o.tenant, o.channel = s.ColumnInt64(0), delivery.Channel(s.ColumnInt64(1))
		return nil
	}, id[:])
	if err != nil {
		return o, err
	}
	t.owners[id] = o
	return o, nil
}

// campaign finds a tenant's campaign by id, or gives ErrNotFound.
func (t *tx) campaign(tn *tenant, id delivery.CampaignID) (*campaign, error) {
	c, err := t.campaignByID(id)
	if err == nil && c.tenant != tn.n {
		err = fmt.Errorf("campaign %s: %w", id, store.ErrNotFound)
	}
	return c, err
}

// campaignByID finds a campaign of any tenant, or gives ErrNotFound.
func (t *tx) campaignByID(id delivery.CampaignID) (*campaign, error) {
	c := t.campaigns[id]
	if c == nil {
		var err error
		if c, err = t.loadCampaign(`SELECT n, id, tenant, state FROM campaigns WHERE id = ?`, id[:]); err != nil {
			return nil, err
		}
	}
	if c == nil {
		return nil, fmt.Errorf("campaign %s: %w", id, store.ErrNotFound)
	}
	return c, nil
}

// campaignByN finds a campaign by its number; it is there, because messages name it.
func (t *tx) campaignByN(n int64) (*campaign, error) {
	if c := t.campaignN[n]; c != nil {
		return c, nil
	}
	c, err := t.loadCampaign(`SELECT n, id, tenant, state FROM campaigns WHERE n = ?`, n)
	if err == nil && c == nil {
		err = fmt.Errorf("campaign number %d is not known", n)
	}
	return c, err
}

func (t *tx) loadCampaign(sql string, key any) (*campaign, error) {
	c := &campaign{}
	found, err := one(t.conn, sql, func(s *sqlite.Stmt) error {
		r := scan(s)
		c.n, c.id, c.tenant, c.state = r.int64(), r.id(), r.int64(), store.CampaignState(r.text())
		return nil
	}, key)
	if err != nil || !found {
		return nil, err
	}
	t.campaigns[c.id], t.campaignN[c.n] = c, c
	return c, nil
}

// day is the number of a UTC day.
func day(now time.Time) int64 { return now.UTC().Unix() / 86400 }

// touch puts a tenant on the list that flush goes through.
func (t *tx) touch(tn *tenant) {
	t.wrote = true
	if !tn.queued {
		tn.queued = true
		t.touched = append(t.touched, tn)
	}
}

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

// flush writes what was gathered: ledger rows, tallies, quota counts.
func (t *tx) flush() error {
	for _, tn := range t.touched {
		if err := t.seal(tn); err != nil {
			return err
		}
		if tn.accepted != 0 {
			if err := exec(t.conn, `UPDATE tenants SET accepted = accepted + ? WHERE n = ?`, tn.accepted, tn.n); err != nil {
				return err
			}
		}
		tn.accepted, tn.queued = 0, false
	}
	t.touched = t.touched[:0]
	for k, n := range t.tallies {
		if n == 0 {
			continue
		}
		err := exec(t.conn, `INSERT INTO tally (tenant, campaign, channel, status, n) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET n = n + excluded.n`, k.tenant, k.campaign, int(k.channel), int(k.status), n)
		if err != nil {
			return err
		}
	}
	clear(t.tallies)
	for k, n := range t.usage {
		err := exec(t.conn, `INSERT INTO usage (tenant, day, n) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET n = n + excluded.n`, k.tenant, k.day, n)
		if err != nil {
			return err
		}
	}
	clear(t.usage)
	return nil
}
