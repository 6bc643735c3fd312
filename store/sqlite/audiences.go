package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const audienceColumns = `name, ready, people, rows, left_out, columns, created, reject_file`

func scanAudience(s *sqlite.Stmt) (a store.Audience, err error) {
	r := scan(s)
	a.Name, a.Ready, a.People, a.Rows = r.text(), r.bool(), r.int(), r.int()
	r.json(&a.LeftOut)
	r.json(&a.Columns)
	a.CreatedAt, a.RejectFile = r.time(), r.text()
	return a, r.err
}

// audience is what a write needs to know of one.
type audience struct {
	n, people int64
	ready     bool
}

func (t *tx) audience(slug delivery.TenantID, name string) (tn *tenant, a audience, err error) {
	if tn, err = t.tenant(slug); err != nil {
		return nil, a, err
	}
	found, err := one(t.conn, `SELECT n, people, ready FROM audiences WHERE tenant = ? AND name = ?`,
		func(s *sqlite.Stmt) error {
			r := scan(s)
			a.n, a.people, a.ready = r.int64(), r.int64(), r.bool()
			return nil
		}, tn.n, name)
	if err == nil && !found {
		err = fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
	}
	return tn, a, err
}

// CreateAudience starts an import.
func (s *Store) CreateAudience(ctx context.Context, slug delivery.TenantID, a store.Audience) error {
	if a.Name == "" {
		return errors.New("audience: no name")
	}
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		tn, _, err := t.audience(slug, a.Name)
		switch {
		case tn == nil:
			return none, err
		case err == nil:
			return none, fmt.Errorf("audience %q: %w", a.Name, store.ErrExists)
		case !errors.Is(err, store.ErrNotFound):
			return none, err
		}
		leftOut, columns, err := audienceJSON(a)
		if err != nil {
			return none, err
		}
		return none, t.exec(`INSERT INTO audiences (tenant, name, ready, people, rows, left_out, columns, created,
			reject_file) VALUES (?, ?, 0, 0, ?, ?, ?, ?, ?)`, tn.n, a.Name, a.Rows, leftOut, columns, a.CreatedAt, a.RejectFile)
	})
	return err
}

func audienceJSON(a store.Audience) (leftOut, columns string, err error) {
	if leftOut, err = asJSON(a.LeftOut); err == nil {
		columns, err = asJSON(a.Columns)
	}
	return leftOut, columns, err
}

// AddPeople appends people that are not in the audience yet. Sequences are 1, 2, 3 … without a gap.
func (s *Store) AddPeople(
	ctx context.Context, slug delivery.TenantID, name string, people []store.Person,
) ([]bool, error) {
	for i := range people {
		if cmp.Or(people[i].Phone, people[i].Email, people[i].URL) == "" {
			return nil, fmt.Errorf("audience %q: person %d has no address", name, i)
		}
	}
	return write(ctx, s, len(people), func(t *tx) ([]bool, error) {
		_, a, err := t.audience(slug, name)
		if err != nil {
			return nil, err
		}
		if a.ready {
			return nil, fmt.Errorf("audience %q is complete: %w", name, store.ErrConflict)
		}
		added := make([]bool, len(people))
		for i := range people {
			p := &people[i]
			err := t.exec(`INSERT INTO people (audience, seq, address, phone, email, url, channel, vars)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (audience, address) DO NOTHING`,
				a.n, a.people+1, cmp.Or(p.Phone, p.Email, p.URL), p.Phone, p.Email, p.URL, int(p.Channel), string(p.Vars))
			if err != nil {
				return nil, err
			}
			if added[i] = t.conn.Changes() == 1; added[i] {
				a.people++
			}
		}
		return added, t.exec(`UPDATE audiences SET people = ? WHERE n = ?`, a.people, a.n)
	})
}

// FinishAudience freezes it. People is counted by the store, the rest is taken from a.
func (s *Store) FinishAudience(ctx context.Context, slug delivery.TenantID, a store.Audience) error {
	_, err := write(ctx, s, 1, func(t *tx) (none struct{}, err error) {
		_, is, err := t.audience(slug, a.Name)
		if err != nil {
			return none, err
		}
		if is.ready {
			return none, fmt.Errorf("audience %q is complete: %w", a.Name, store.ErrConflict)
		}
		leftOut, columns, err := audienceJSON(a)
		if err != nil {
			return none, err
		}
		return none, t.exec(`UPDATE audiences SET ready = 1, rows = ?, left_out = ?, columns = ?, reject_file = ?
			WHERE n = ?`,
			a.Rows, leftOut, columns, a.RejectFile, is.n)
	})
	return err
}

// Audience returns one by name.
func (s *Store) Audience(ctx context.Context, tenant delivery.TenantID, name string) (store.Audience, error) {
	return read(ctx, s, func(c *sqlite.Conn) (a store.Audience, err error) {
		found, err := one(c, `SELECT `+audienceColumns+` FROM audiences
			WHERE tenant = (SELECT n FROM tenants WHERE slug = ?) AND name = ?`,
			func(s *sqlite.Stmt) (err error) { a, err = scanAudience(s); return err }, string(tenant), name)
		if err == nil && !found {
			err = fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
		}
		return a, err
	})
}

// AudienceList returns all, by name.
func (s *Store) AudienceList(ctx context.Context, tenant delivery.TenantID) ([]store.Audience, error) {
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Audience, err error) {
		err = query(c, `SELECT `+audienceColumns+` FROM audiences
			WHERE tenant = (SELECT n FROM tenants WHERE slug = ?) ORDER BY name`, func(s *sqlite.Stmt) error {
			a, err := scanAudience(s)
			list = append(list, a)
			return err
		}, string(tenant))
		return list, err
	})
}

// People returns people in order of Seq, after the given one.
func (s *Store) People(
	ctx context.Context, tenant delivery.TenantID, name string, after int64, limit int,
) ([]store.Person, error) {
	return read(ctx, s, func(c *sqlite.Conn) (people []store.Person, err error) {
		var n int64
		found, err := one(c, `SELECT n FROM audiences WHERE tenant = (SELECT n FROM tenants WHERE slug = ?) AND name = ?`,
			func(s *sqlite.Stmt) error { n = s.ColumnInt64(0); return nil }, string(tenant), name)
		if err == nil && !found {
			err = fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
		}
		if err != nil || limit < 1 {
			return nil, err
		}
		err = query(c, `SELECT seq, phone, email, url, channel, vars FROM people
			WHERE audience = ? AND seq > ? ORDER BY seq LIMIT ?`,
			func(s *sqlite.Stmt) error {
				r := scan(s)
				people = append(people, store.Person{Seq: r.int64(), Phone: r.text(), Email: r.text(), URL: r.text(),
					Channel: delivery.Channel(r.int64()), Vars: r.bytes()})
				return nil
			}, n, after, limit)
		return people, err
	})
}

// DeleteAudience removes it with its people.
func (s *Store) DeleteAudience(ctx context.Context, slug delivery.TenantID, name string) error {
	_, err := write(ctx, s, rowsPerGroup, func(t *tx) (none struct{}, err error) {
		tn, a, err := t.audience(slug, name)
		if err != nil {
			return none, err
		}
		used, err := one(t.conn, `SELECT 1 FROM campaigns WHERE tenant = ? AND audience = ? AND state IN ('running', 'paused')
			LIMIT 1`, func(*sqlite.Stmt) error { return nil }, tn.n, name)
		if err != nil {
			return none, err
		}
		if used {
			return none, fmt.Errorf("audience %q is used by a campaign: %w", name, store.ErrConflict)
		}
		if err := t.exec(`DELETE FROM people WHERE audience = ?`, a.n); err != nil {
			return none, err
		}
		return none, t.exec(`DELETE FROM audiences WHERE n = ?`, a.n)
	})
	return err
}
