package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const campaignColumns = `id, name, state, audience, legs, rate, ttl, people, cursor, expanded, skipped, created,
	started, ended`

// scanCampaign reads campaignColumns, and what follows them into more. The tenant is left out.
func scanCampaign(rows pgx.Rows, more ...any) (c store.Campaign, err error) {
	var legs, skipped string
	var ttl int64
	err = rows.Scan(append([]any{(*[16]byte)(&c.ID), &c.Name, (*string)(&c.State), &c.Audience, &legs, &c.Rate, &ttl,
		&c.People, &c.Cursor, &c.Expanded, &skipped, at{&c.CreatedAt}, at{&c.StartedAt}, at{&c.EndedAt}}, more...)...)
	c.TTL = time.Duration(ttl) * time.Millisecond
	if err == nil {
		err = errors.Join(fromJSON(legs, &c.Legs), fromJSON(skipped, &c.Skipped))
	}
	return c, err
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
	legs, err := asJSON(c.Legs)
	if err != nil {
		return err
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		made, err := t.exec(`INSERT INTO campaigns (id, tenant, name, state, audience, legs, rate, ttl, people, cursor,
			expanded, skipped, created, started, ended) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, false, '{}', $10, 0, 0)
			ON CONFLICT DO NOTHING`, [16]byte(c.ID), n, c.Name, string(store.CampaignDraft), c.Audience, legs, c.Rate,
			c.TTL.Milliseconds(), c.People, store.Millis(c.CreatedAt))
		if err == nil && made == 0 {
			err = fmt.Errorf("campaign %q: %w", c.Name, store.ErrExists)
		}
		return none, err
	})
	return err
}

// findCampaign selects a tenant's campaign by name, or else by its id in text form: $1 is the tenant, $2 the name and
// $3 the id, which is zero for a name that is none.
const findCampaign = `FROM campaigns WHERE tenant = $1 AND (name = $2 OR id = $3) ORDER BY name = $2 DESC LIMIT 1`

func campaignArgs(tenant int64, name string) []any {
	id, err := delivery.ParseCampaignID(name)
	if err != nil {
		id = delivery.CampaignID{}
	}
	return []any{tenant, name, [16]byte(id)}
}

// Campaign returns one by name, or by id in its text form.
func (s *Store) Campaign(ctx context.Context, slug delivery.TenantID, name string) (c store.Campaign, err error) {
	missing := fmt.Errorf("campaign %q: %w", name, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return c, cmp.Or(noneFor(err), missing)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + campaignColumns + ` ` + findCampaign, campaignArgs(n, name),
		func(rows pgx.Rows) (err error) {
			missing = nil
			c, err = scanCampaign(rows)
			c.Tenant = slug
			return err
		}})
	return c, cmp.Or(err, missing)
}

// CampaignList returns all, newest first.
func (s *Store) CampaignList(ctx context.Context, slug delivery.TenantID) (list []store.Campaign, err error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + campaignColumns + ` FROM campaigns WHERE tenant = $1
		ORDER BY created DESC, id DESC`, []any{n}, func(rows pgx.Rows) error {
		c, err := scanCampaign(rows)
		c.Tenant = slug
		list = append(list, c)
		return err
	}})
	return list, err
}

// ActiveCampaigns lists running campaigns of all tenants.
func (s *Store) ActiveCampaigns(ctx context.Context, sys store.System) (list []store.Campaign, err error) {
	if err := checkSystem(sys); err != nil {
		return nil, err
	}
	err = s.read(ctx, everyTenant, stmt{`SELECT ` + campaignColumns + `,
		(SELECT t.slug FROM tenants t WHERE t.n = c.tenant) FROM campaigns c
		WHERE state = 'running' ORDER BY id`, nil, func(rows pgx.Rows) error {
		var slug string
		c, err := scanCampaign(rows, &slug)
		c.Tenant = delivery.TenantID(slug)
		list = append(list, c)
		return err
	}})
	return list, err
}

// MoveCampaign changes a campaign's state and then brings its waiting messages there; see takeAlong. Messages that wait
// for a later time, and messages held for another reason, are not touched by a pause: the claim holds them when their
// time comes. Once the state has changed the call goes on although ctx ends.
func (s *Store) MoveCampaign(
	ctx context.Context, slug delivery.TenantID, c store.Campaign, from []store.CampaignState, to store.CampaignState,
	now time.Time,
) (store.Campaign, error) {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return store.Campaign{}, err
	}
	name := c.Name
	if !c.ID.IsZero() {
		name = c.ID.String()
	}
	type moved struct {
		is      store.Campaign
		follow  bool  // its messages are still to be brought there
		refused error // the state has changed
	}
	out, err := write(ctx, s, scope(n), need{}, func(t *tx) (out moved, err error) {
		is, number, unfinished, err := t.lockCampaign(slug, n, name)
		if err != nil {
			return out, err
		}
		switch {
		case unfinished && is.State == to:
			return moved{is: is, follow: true}, nil // the move is made: its messages are still to follow
		case !slices.Contains(from, is.State) || !slices.Contains(campaignMoves[is.State], to):
			return moved{is: is, refused: fmt.Errorf("campaign %q is %s, it cannot become %s: %w", is.Name, is.State, to,
				store.ErrConflict)}, nil
		}
		begun := is.State != store.CampaignDraft
		if !begun && to == store.CampaignRunning {
			is.Legs, is.People, is.StartedAt = c.Legs, c.People, store.FromMillis(store.Millis(now))
			// Whoever deletes the audience must see that it is used; see DeleteAudience.
			if _, err := t.one([]any{new(int64)}, `SELECT n FROM audiences WHERE tenant = $1 AND name = $2 AND NOT gone
				FOR SHARE`, n, is.Audience); err != nil {
				return out, err
			}
		}
		if to == store.CampaignCompleted || to == store.CampaignStopped {
			is.EndedAt = store.FromMillis(store.Millis(now))
		}
		is.State = to
		legs, err := asJSON(is.Legs)
		if err != nil {
			return out, err
		}
		follow := begun && to != store.CampaignCompleted
		t.later(`UPDATE campaigns SET state = $2, legs = $3, people = $4, started = $5, ended = $6, moving = $7
			WHERE n = $1`, number, string(to), legs, is.People, store.Millis(is.StartedAt), store.Millis(is.EndedAt), follow)
		t.changed(store.CampaignChange, n, is.ID.String())
		return moved{is: is, follow: follow}, nil
	})
	if err = cmp.Or(err, out.refused); err != nil || !out.follow {
		return out.is, err
	}
	return out.is, s.takeAlong(context.WithoutCancel(ctx), out.is.ID, to, now)
}

// lockCampaign finds a campaign of the tenant by name or by id, and keeps its row until the end.
func (t *tx) lockCampaign(slug delivery.TenantID, tenant int64, name string) (is store.Campaign, n int64, moving bool,
	err error) {
	missing := fmt.Errorf("campaign %q: %w", name, store.ErrNotFound)
	err = t.query(func(rows pgx.Rows) (err error) {
		missing = nil
		is, err = scanCampaign(rows, &n, &moving)
		is.Tenant = slug
		return err
	}, `SELECT `+campaignColumns+`, n, moving `+findCampaign+` FOR NO KEY UPDATE`, campaignArgs(tenant, name)...)
	return is, n, moving, cmp.Or(err, missing)
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
	n, err := s.tenantNumber(ctx, slug)
	if err == nil {
		err = s.intern(ctx, pinned(slice.Messages)...)
	}
	if err != nil {
		return store.Accepted{}, err
	}
	var is store.Campaign
	var number int64
	in := newIntake(n)
	in.add(store.Acceptance{Now: slice.Now, Messages: slice.Messages})
	wants := need{}
	if len(slice.Messages) > 0 {
		wants = in.need()
	}
	// The campaign is the first thing that anybody locks.
	wants.first = append(wants.first, stmt{`SELECT ` + campaignColumns + `, n FROM campaigns WHERE tenant = $1 AND id = $2
		FOR NO KEY UPDATE`, []any{n, [16]byte(id)}, func(rows pgx.Rows) (err error) {
		is, err = scanCampaign(rows, &number)
		return err
	}})
	return write(ctx, s, scope(n), wants, func(t *tx) (out store.Accepted, err error) {
		switch {
		case number == 0:
			return out, fmt.Errorf("campaign %s: %w", id, store.ErrNotFound)
		case is.State != store.CampaignRunning || is.Cursor != slice.From || is.Expanded:
			return out, fmt.Errorf("campaign %q is %s at %d: %w", is.Name, is.State, is.Cursor, store.ErrConflict)
		}
		if len(slice.Messages) > 0 {
			tn, err := t.tenantN(n)
			if err != nil {
				return out, err
			}
			c := &campaign{n: number, id: id, tenant: n, state: is.State}
			if out, err = t.insert(tn, slice.Now, slice.Messages, c); err != nil {
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
		t.later(`UPDATE campaigns SET cursor = $2, expanded = $3, skipped = $4 WHERE n = $1`, number, slice.To, slice.Done,
			skipped)
		return out, nil
	})
}

// Tally counts messages by channel and status.
func (s *Store) Tally(ctx context.Context, slug delivery.TenantID, id delivery.CampaignID) (store.Tally, error) {
	tally := store.Tally{}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return tally, noneFor(err)
	}
	sql, args := `SELECT channel, status, sum(n)::bigint FROM tally WHERE tenant = $1 GROUP BY channel, status`, []any{n}
	if !id.IsZero() {
		sql = `SELECT channel, status, n FROM tally
			WHERE tenant = $1 AND campaign = (SELECT c.n FROM campaigns c WHERE c.tenant = $1 AND c.id = $2)`
		args = append(args, [16]byte(id))
	}
	err = s.read(ctx, scope(n), stmt{sql, args, func(rows pgx.Rows) error {
		var ch, status int16
		var n int
		err := rows.Scan(&ch, &status, &n)
		if n == 0 {
			return err
		}
		of := tally[delivery.Channel(ch)]
		if of == nil {
			of = map[delivery.Status]int{}
			tally[delivery.Channel(ch)] = of
		}
		of[delivery.Status(status)] = n
		return err
	}})
	return tally, err
}
