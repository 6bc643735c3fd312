package campaigns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// fakeStore keeps one tenant's rows in memory. fault, when set, is asked before each write and, with after set, once it
// is done: what it returns is returned to the caller.
type fakeStore struct {
	mu          sync.Mutex
	campaigns   map[string]*store.Campaign
	audiences   map[string]*store.Audience
	people      map[string][]store.Person
	keys        map[string]map[string]bool
	templates   map[string][]store.Template
	accounts    []store.Account
	suppressed  []store.Suppression
	messages    []store.NewMessage
	status      map[delivery.MessageID]delivery.Status
	tenant      store.Tenant
	quota, used int64
	fault       func(op string, after bool) error
	lookups     int
}

func newFake() *fakeStore {
	return &fakeStore{
		campaigns: map[string]*store.Campaign{}, audiences: map[string]*store.Audience{}, people: map[string][]store.Person{},
		keys: map[string]map[string]bool{}, templates: map[string][]store.Template{}, status: map[delivery.MessageID]delivery.Status{},
		tenant: store.Tenant{ID: acme},
	}
}

// enter locks and injects a fault. The returned function unlocks and may replace the error.
func (f *fakeStore) enter(ctx context.Context, op string) (func(*error), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f.fault != nil {
		if err := f.fault(op, false); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	return func(err *error) {
		f.mu.Unlock()
		if *err == nil && f.fault != nil {
			*err = f.fault(op, true)
		}
	}, nil
}

func (f *fakeStore) Campaign(_ context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.campaigns[name]; c != nil && c.Tenant == tenant {
		return f.copyOf(c), nil
	}
	return store.Campaign{}, store.ErrNotFound
}

func (f *fakeStore) copyOf(c *store.Campaign) store.Campaign {
	out := *c
	out.Legs, out.Skipped = slices.Clone(c.Legs), maps.Clone(c.Skipped)
	return out
}

func (f *fakeStore) byID(id delivery.CampaignID) *store.Campaign {
	for _, c := range f.campaigns {
		if c.ID == id {
			return c
		}
	}
	return nil
}

func (f *fakeStore) MoveCampaign(ctx context.Context, _ delivery.TenantID, in store.Campaign, from []store.CampaignState,
	to store.CampaignState, now time.Time) (out store.Campaign, err error) {
	leave, err := f.enter(ctx, "move")
	if err != nil {
		return store.Campaign{}, err
	}
	defer leave(&err)
	c := f.byID(in.ID)
	if !slices.Contains(from, c.State) {
		return f.copyOf(c), store.ErrConflict
	}
	switch to {
	case store.CampaignRunning:
		if c.State == store.CampaignDraft {
			c.Legs, c.People, c.StartedAt = in.Legs, in.People, in.StartedAt
		}
		f.moveMessages(c.ID, delivery.StatusHeld, delivery.StatusQueued)
	case store.CampaignPaused:
		f.moveMessages(c.ID, delivery.StatusQueued, delivery.StatusHeld)
	case store.CampaignStopped:
		f.moveMessages(c.ID, delivery.StatusQueued, delivery.StatusCanceled)
		f.moveMessages(c.ID, delivery.StatusHeld, delivery.StatusCanceled)
		c.EndedAt = now
	case store.CampaignCompleted:
		c.EndedAt = now
	}
	c.State = to
	return f.copyOf(c), nil
}

func (f *fakeStore) moveMessages(id delivery.CampaignID, from, to delivery.Status) {
	for _, m := range f.messages {
		if m.Campaign == id && f.status[m.ID] == from {
			f.status[m.ID] = to
		}
	}
}

func (f *fakeStore) Expand(ctx context.Context, _ delivery.TenantID, id delivery.CampaignID, s store.Slice) (
	out store.Accepted, err error) {
	leave, err := f.enter(ctx, "expand")
	if err != nil {
		return store.Accepted{}, err
	}
	defer leave(&err)
	c := f.byID(id)
	if c.State != store.CampaignRunning || c.Cursor != s.From {
		return out, store.ErrConflict
	}
	if n := int64(len(s.Messages)); f.quota > 0 && f.used+n > f.quota {
		return out, &store.QuotaError{Limit: f.quota, Used: f.used, Asked: n, Resets: s.Now.Add(time.Hour)}
	}
	if len(s.Messages) > 1000 {
		return out, fmt.Errorf("slice of %d", len(s.Messages))
	}
	f.used += int64(len(s.Messages))
	for i, m := range s.Messages {
		if i > 0 && bytes.Compare(s.Messages[i-1].ID[:], m.ID[:]) >= 0 {
			return out, errors.New("ids do not increase")
		}
		st := delivery.StatusQueued
		if f.isSuppressed(m.Channel, m.To) {
			st = delivery.StatusSuppressed
		}
		f.messages = append(f.messages, m)
		f.status[m.ID] = st
		out.Results = append(out.Results, store.AcceptResult{ID: m.ID, Status: st})
	}
	for reason, n := range s.Skipped {
		if c.Skipped == nil {
			c.Skipped = map[string]int{}
		}
		c.Skipped[reason] += n
	}
	c.Cursor, c.Expanded = s.To, s.Done
	return out, nil
}

func (f *fakeStore) ActiveCampaigns(ctx context.Context, _ store.System) ([]store.Campaign, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []store.Campaign
	for _, c := range f.campaigns {
		if c.State == store.CampaignRunning {
			out = append(out, f.copyOf(c))
		}
	}
	return out, nil
}

func (f *fakeStore) Tally(ctx context.Context, _ delivery.TenantID, id delivery.CampaignID) (store.Tally, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t := store.Tally{}
	for _, m := range f.messages {
		if m.Campaign == id {
			if t[m.Channel] == nil {
				t[m.Channel] = map[delivery.Status]int{}
			}
			t[m.Channel][f.status[m.ID]]++
		}
	}
	return t, nil
}

func (f *fakeStore) CreateAudience(_ context.Context, _ delivery.TenantID, a store.Audience) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.audiences[a.Name] != nil {
		return store.ErrExists
	}
	f.audiences[a.Name] = &a
	f.keys[a.Name] = map[string]bool{}
	return nil
}

func (f *fakeStore) AddPeople(ctx context.Context, _ delivery.TenantID, name string, people []store.Person) (
	added []bool, err error) {
	leave, err := f.enter(ctx, "add")
	if err != nil {
		return nil, err
	}
	defer leave(&err)
	for _, p := range people {
		key := firstAddress(p)
		if f.keys[name][key] {
			added = append(added, false)
			continue
		}
		f.keys[name][key] = true
		p.Seq = int64(len(f.people[name]) + 1)
		f.people[name] = append(f.people[name], p)
		added = append(added, true)
	}
	return added, nil
}

func (f *fakeStore) FinishAudience(ctx context.Context, _ delivery.TenantID, a store.Audience) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.audiences[a.Name] = &a
	return nil
}

func (f *fakeStore) Audience(_ context.Context, tenant delivery.TenantID, name string) (store.Audience, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a := f.audiences[name]; a != nil && tenant == acme {
		return *a, nil
	}
	return store.Audience{}, store.ErrNotFound
}

func (f *fakeStore) AudienceList(context.Context, delivery.TenantID) ([]store.Audience, error) {
	return nil, nil
}

func (f *fakeStore) People(ctx context.Context, _ delivery.TenantID, name string, after int64, limit int) ([]store.Person, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.audiences[name] == nil {
		return nil, store.ErrNotFound
	}
	rest := f.people[name]
	rest = rest[min(int(after), len(rest)):]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

func (f *fakeStore) DeleteAudience(_ context.Context, _ delivery.TenantID, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.audiences[name] == nil {
		return store.ErrNotFound
	}
	for _, c := range f.campaigns {
		if c.Audience == name && (c.State == store.CampaignRunning || c.State == store.CampaignPaused) {
			return store.ErrConflict
		}
	}
	delete(f.audiences, name)
	delete(f.people, name)
	delete(f.keys, name)
	return nil
}

func (f *fakeStore) Template(_ context.Context, _ delivery.TenantID, name string, version int) (store.Template, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.templates[name]
	if version == 0 {
		version = len(all)
	}
	if version < 1 || version > len(all) {
		return store.Template{}, store.ErrNotFound
	}
	return all[version-1], nil
}

func (f *fakeStore) isSuppressed(ch delivery.Channel, to string) bool {
	return slices.ContainsFunc(f.suppressed, func(e store.Suppression) bool {
		return e.To == to && (e.Channel == 0 || e.Channel == ch)
	})
}

func (f *fakeStore) Suppressed(_ context.Context, _ delivery.TenantID, ch delivery.Channel, to string) (
	store.Suppression, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	return store.Suppression{}, f.isSuppressed(ch, to), nil
}

func (f *fakeStore) SuppressionList(_ context.Context, _ delivery.TenantID, after string, limit int) ([]store.Suppression, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Clone(f.suppressed)
	slices.SortFunc(all, func(a, b store.Suppression) int {
		if a.To != b.To {
			if a.To < b.To {
				return -1
			}
			return 1
		}
		return int(a.Channel) - int(b.Channel)
	})
	i := slices.IndexFunc(all, func(e store.Suppression) bool { return e.To > after })
	if i < 0 {
		return nil, nil
	}
	return all[i:min(i+limit, len(all))], nil
}

func (f *fakeStore) AccountList(context.Context, delivery.TenantID) ([]store.Account, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.accounts), nil
}

func (f *fakeStore) Tenant(context.Context, store.System, delivery.TenantID) (store.Tenant, error) {
	return f.tenant, nil
}
