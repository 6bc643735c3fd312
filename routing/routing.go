// Package routing chooses the connector account for a message and knows when an account must rest.
package routing

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// Account is an open connector account. Its exported fields do not change; a changed account is a new Account.
type Account struct {
	ID        delivery.AccountID
	Tenant    delivery.TenantID // delivery.Shared = every tenant may use it
	Name      string
	Channel   delivery.Channel
	Kind      *connectors.Kind
	Connector connectors.Connector
	Priority  int
	PerSecond float64 // cost per second for all who use it; 0 = no bound
	Burst     float64
	Timeout   time.Duration // of one Send
	Parallel  int           // simultaneous Sends
	Paused    bool          // by a person
	Why       string        // why it is paused
	// Elsewhere is set when the provider allows fewer sessions than there are nodes, and others have them: this process
	// leaves what goes by the account to those.
	Elsewhere bool

	health health
}

// Table holds the open accounts. It is safe for concurrent use; readers never wait.
type Table struct {
	snap atomic.Pointer[snapshot]
}

type snapshot struct {
	byID map[delivery.AccountID]*Account
	// ranked are the accounts that a tenant may use, best first: its own before shared ones, each in order of priority.
	// A tenant without accounts of its own on a channel is not in it: for it count those of delivery.Shared.
	ranked map[owner][]*Account
	byName map[named]*Account
}

type owner struct {
	tenant  delivery.TenantID
	channel delivery.Channel
}

type named struct {
	tenant delivery.TenantID
	name   string
}

// Set replaces the whole table.
func (t *Table) Set(accounts []*Account) {
	s := &snapshot{
		byID: map[delivery.AccountID]*Account{}, ranked: map[owner][]*Account{}, byName: map[named]*Account{},
	}
	for _, a := range accounts {
		s.byID[a.ID] = a
		s.byName[named{a.Tenant, a.Name}] = a
		k := owner{a.Tenant, a.Channel}
		s.ranked[k] = append(s.ranked[k], a)
	}
	for _, list := range s.ranked {
		slices.SortFunc(list, func(a, b *Account) int {
			return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
		})
	}
	for k, list := range s.ranked {
		if k.tenant != delivery.Shared {
			s.ranked[k] = slices.Concat(list, s.ranked[owner{delivery.Shared, k.channel}])
		}
	}
	t.snap.Store(s)
}

// Account returns an open account by id.
func (t *Table) Account(id delivery.AccountID) (*Account, bool) {
	s := t.snap.Load()
	if s == nil {
		return nil, false
	}
	a, ok := s.byID[id]
	return a, ok
}

// All calls f for every account until it returns false.
func (t *Table) All(f func(*Account) bool) {
	s := t.snap.Load()
	if s == nil {
		return
	}
	for _, a := range s.byID {
		if !f(a) {
			return
		}
	}
}

// Usable lists the accounts that a tenant's messages on a channel may go by without a rule, best first; its rules can
// name no others. The caller must not change the list.
func (t *Table) Usable(tenant delivery.TenantID, ch delivery.Channel) []*Account {
	s := t.snap.Load()
	if s == nil {
		return nil
	}
	return s.candidates(tenant, ch)
}

// candidates are the accounts that a tenant's messages on ch may go by without a rule, best first. The caller must not
// change them.
func (s *snapshot) candidates(tenant delivery.TenantID, ch delivery.Channel) []*Account {
	if own, ok := s.ranked[owner{tenant, ch}]; ok {
		return own
	}
	return s.ranked[owner{delivery.Shared, ch}]
}

// called returns the account that a tenant means by a name: its own, else a shared one. One of another channel is nil.
func (s *snapshot) called(tenant delivery.TenantID, name string, ch delivery.Channel) *Account {
	a, ok := s.byName[named{tenant, name}]
	if !ok {
		a, ok = s.byName[named{delivery.Shared, name}]
	}
	if !ok || a.Channel != ch {
		return nil
	}
	return a
}

// open returns the account of an id that the tenant may use on ch, or nil.
func (s *snapshot) open(id delivery.AccountID, tenant delivery.TenantID, ch delivery.Channel) *Account {
	if a, ok := s.byID[id]; ok && a.Channel == ch && (a.Tenant == tenant || a.Tenant == delivery.Shared) {
		return a
	}
	return nil
}
