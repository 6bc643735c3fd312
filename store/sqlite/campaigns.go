package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const campaignColumns = `id, name, state, audience, legs, rate, ttl, people, cursor, expanded, skipped, created,
	started, ended`

func scanCampaign(s *sqlite.Stmt, tenant delivery.TenantID) (c store.Campaign, err error) {
	r := scan(s)
	c.Tenant = tenant
	c.ID, c.Name, c.State, c.Audience = r.id(), r.text(), store.CampaignState(r.text()), r.text()
	r.json(&c.Legs)
	c.Rate, c.TTL, c.People, c.Cursor, c.Expanded = r.float(), time.Duration(r.int64())*time.Millisecond, r.int(),
		r.int64(), r.bool()
	r.json(&c.Skipped)
	c.CreatedAt, c.StartedAt, c.EndedAt = r.time(), r.time(), r.time()
	return c, r.err
}

// campaignMoves is what may follow what.
var campaignMoves = map[store.CampaignState][]store.CampaignState{
	store.CampaignDraft:   {store.CampaignRunning, store.CampaignStopped},
	store.CampaignRunning: {store.CampaignPaused, store.CampaignCompleted, store.CampaignStopped},
	store.CampaignPaused:  {store.CampaignRunning, store.CampaignCompleted, store.CampaignStopped},
}

// CreateCampaign stores a draft.
func (s *Store) CreateCampaign(ctx context.Context, slug delivery.TenantID, c store.Campaign) error {
	if c.ID.IsZero() || c.Name == "" {
		return errors.New("campaign: an id and a name are needed")
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return none, err
		}
		taken, err := one(t.conn, `SELECT 1 FROM campaigns WHERE (tenant = ? AND name = ?) OR id = ?`,
			func(*sqlite.Stmt) error { return nil }, tn.n, c.Name, c.ID[:])
		if err != nil {
			return none, err
		}
		if taken {
			return none, fmt.Errorf("campaign %q: %w", c.Name, store.ErrExists)
		}
		legs, err := asJSON(c.Legs)
		if err != nil {
			return none, err
		}
		return none, t.exec(`INSERT INTO campaigns (id, tenant, name, state, audience, legs, rate, ttl, people, cursor,
			expanded, skipped, created, started, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '{}', ?, 0, 0)`,
			c.ID[:], tn.n, c.Name, string(store.CampaignDraft), c.Audience, legs, c.Rate, c.TTL.Milliseconds(), c.People,
			c.CreatedAt)
	})
	return err
}

// findCampaign finds a campaign by name, or by its id in text form.
func findCampaign(c *sqlite.Conn, n int64, slug delivery.TenantID, name string) (found store.Campaign, err error) {
	get := func(s *sqlite.Stmt) (err error) { found, err = scanCampaign(s, slug); return err }
	ok, err := one(c, `SELECT `+campaignColumns+` FROM campaigns WHERE tenant = ? AND name = ?`, get, n, name)
	if err == nil && !ok {
		if id, bad := delivery.ParseCampaignID(name); bad == nil {
			ok, err = one(c, `SELECT `+campaignColumns+` FROM campaigns WHERE tenant = ? AND id = ?`, get, n, id[:])
		}
	}
	if err == nil && !ok {
		err = fmt.Errorf("campaign %q: %w", name, store.ErrNotFound)
	}
	return found, err
}

// Campaign returns one by name, or by id in its text form.
func (s *Store) Campaign(ctx context.Context, tenant delivery.TenantID, name string) (store.Campaign, error) {
	return read(ctx, s, func(c *sqlite.Conn) (store.Campaign, error) {
		n, err := tenantNumber(c, tenant)
		if err != nil {
			return store.Campaign{}, err
		}
		return findCampaign(c, n, tenant, name)
	})
}

// CampaignList returns all, newest first.
func (s *Store) CampaignList(ctx context.Context, tenant delivery.TenantID) ([]store.Campaign, error) {
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Campaign, err error) {
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 {
			return nil, err
		}
		err = query(c, `SELECT `+campaignColumns+` FROM campaigns WHERE tenant = ? ORDER BY created DESC, id DESC`,
			func(s *sqlite.Stmt) error {
				found, err := scanCampaign(s, tenant)
				list = append(list, found)
				return err
			}, n)
		return list, err
	})
}

// ActiveCampaigns lists running campaigns of all tenants.
func (s *Store) ActiveCampaigns(ctx context.Context, sys store.System) ([]store.Campaign, error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Campaign, err error) {
		slugs, err := tenantSlugs(c)
		if err != nil {
			return nil, err
		}
		err = query(c, `SELECT `+campaignColumns+`, tenant FROM campaigns WHERE state = ? ORDER BY id`,
			func(s *sqlite.Stmt) error {
				found, err := scanCampaign(s, slugs[s.ColumnInt64(14)])
				list = append(list, found)
				return err
			}, string(store.CampaignRunning))
		return list, err
	})
}

// MoveCampaign changes a campaign's state and then brings its waiting messages there; see takeAlong. Messages that wait
// for a later time, and messages held for another reason, are not touched by a pause: the claim holds them when their
// time comes. Once the state has changed the call goes on although ctx ends.
func (s *Store) MoveCampaign(
	ctx context.Context, slug delivery.TenantID, c store.Campaign, from []store.CampaignState, to store.CampaignState,
	now time.Time,
) (store.Campaign, error) {
	type moved struct {
		is    store.Campaign
		first chunk
	}
	out, err := write(ctx, s, wakeChunk, func(t *tx) (out moved, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return out, err
		}
		name := c.Name
		if !c.ID.IsZero() {
			name = c.ID.String()
		}
		is, err := findCampaign(t.conn, tn.n, slug, name)
		if err != nil {
			return moved{is: is}, err
		}
		row, err := t.campaign(tn, is.ID)
		if err != nil {
			return moved{is: is}, err
		}
		unfinished, err := one(t.conn, `SELECT 1 FROM campaigns WHERE n = ? AND moving = 1`,
			func(*sqlite.Stmt) error { return nil }, row.n)
		switch {
		case err != nil:
			return moved{is: is}, err
		case unfinished && is.State == to:
			return moved{is: is}, nil // the move is made: its messages are still to follow
		case !slices.Contains(from, is.State) || !slices.Contains(campaignMoves[is.State], to):
			return moved{is: is}, fmt.Errorf("campaign %q is %s, it cannot become %s: %w", is.Name, is.State, to,
				store.ErrConflict)
		}
		starts := is.State == store.CampaignDraft && to == store.CampaignRunning
		if starts {
			is.Legs, is.People, is.StartedAt = c.Legs, c.People, store.FromMillis(store.Millis(now))
		}
		if to == store.CampaignCompleted || to == store.CampaignStopped {
			is.EndedAt = store.FromMillis(store.Millis(now))
		}
		is.State = to
		legs, err := asJSON(is.Legs)
		if err != nil {
			return moved{is: is}, err
		}
		if err := t.exec(`UPDATE campaigns SET state = ?, legs = ?, people = ?, started = ?, ended = ?, moving = 0
			WHERE id = ?`, string(to), legs, is.People, is.StartedAt, is.EndedAt, is.ID[:]); err != nil {
			return moved{is: is}, err
		}
		row.state = to
		if starts {
			return moved{is, chunk{done: true}}, nil
		}
		first, err := t.moveSome(row, delivery.MessageID{}, now)
		return moved{is, first}, err
	})
	if err != nil || out.first.done {
		return out.is, err
	}
	return out.is, s.takeAlong(context.WithoutCancel(ctx), out.is.ID, to, out.first.last, now)
}

const maxSlice = 1000

// Expand stores a slice's messages and moves the cursor in one transaction.
func (s *Store) Expand(
	ctx context.Context, slug delivery.TenantID, id delivery.CampaignID, slice store.Slice,
) (store.Accepted, error) {
	switch {
	case len(slice.Messages) > maxSlice:
		return store.Accepted{}, fmt.Errorf("expand: %d messages, at most %d", len(slice.Messages), maxSlice)
	case slice.To < slice.From:
		return store.Accepted{}, fmt.Errorf("expand: from %d to %d", slice.From, slice.To)
	case len(slice.Messages) > 0:
		if err := checkNew(slice.Messages); err != nil {
			return store.Accepted{}, err
		}
	}
	return write(ctx, s, len(slice.Messages)+1, func(t *tx) (out store.Accepted, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return out, err
		}
		row, err := t.campaign(tn, id)
		if err != nil {
			return out, err
		}
		is, err := findCampaign(t.conn, tn.n, slug, id.String())
		if err != nil {
			return out, err
		}
		if is.State != store.CampaignRunning || is.Cursor != slice.From || is.Expanded {
			return out, fmt.Errorf("campaign %q is %s at %d: %w", is.Name, is.State, is.Cursor, store.ErrConflict)
		}
		if len(slice.Messages) > 0 {
			if out, err = t.insert(tn, slice.Now, slice.Messages, row); err != nil {
				return out, err
			}
		}
		if is.Skipped == nil {
			is.Skipped = map[string]int{}
		}
		for reason, n := range slice.Skipped {
			is.Skipped[reason] += n
		}
		skipped, err := asJSON(is.Skipped)
		if err != nil {
			return out, err
		}
		return out, t.exec(`UPDATE campaigns SET cursor = ?, expanded = ?, skipped = ? WHERE n = ?`,
			slice.To, slice.Done, skipped, row.n)
	})
}

// Tally counts messages by channel and status.
func (s *Store) Tally(ctx context.Context, tenant delivery.TenantID, id delivery.CampaignID) (store.Tally, error) {
	return read(ctx, s, func(c *sqlite.Conn) (store.Tally, error) {
		tally := store.Tally{}
		n, err := tenantNumber(c, tenant)
		if err != nil || n == 0 {
			return tally, err
		}
		sql, args := `SELECT channel, status, sum(n) FROM tally WHERE tenant = ? GROUP BY channel, status`, []any{n}
		if !id.IsZero() {
			sql = `SELECT channel, status, n FROM tally
				WHERE tenant = ? AND campaign = (SELECT n FROM campaigns WHERE id = ?)`
			args = append(args, id[:])
		}
		err = query(c, sql, func(s *sqlite.Stmt) error {
			r := scan(s)
			ch, st, n := delivery.Channel(r.int64()), delivery.Status(r.int64()), r.int()
			if n == 0 {
				return nil
			}
			if tally[ch] == nil {
				tally[ch] = map[delivery.Status]int{}
			}
			tally[ch][st] = n
			return nil
		}, args...)
		return tally, err
	})
}
