package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const audienceColumns = `name, ready, people, rows, left_out, columns, created, reject_file`

func scanAudience(rows pgx.Rows) (a store.Audience, err error) {
	var leftOut, columns string
	err = rows.Scan(&a.Name, &a.Ready, &a.People, &a.Rows, &leftOut, &columns, at{&a.CreatedAt}, &a.RejectFile)
	if err == nil {
		err = errors.Join(fromJSON(leftOut, &a.LeftOut), fromJSON(columns, &a.Columns))
	}
	return a, err
}

func audienceJSON(a *store.Audience) (leftOut, columns string, err error) {
	if leftOut, err = asJSON(a.LeftOut); err == nil {
		columns, err = asJSON(a.Columns)
	}
	return leftOut, columns, err
}

// audience is what a write needs to know of one.
type audience struct {
	n, people int64
	ready     bool
}

// lockAudience finds an audience and keeps its row until the end.
func (t *tx) lockAudience(tenant int64, name string) (a audience, err error) {
	found, err := t.one([]any{&a.n, &a.people, &a.ready}, `SELECT n, people, ready FROM audiences
		WHERE tenant = $1 AND name = $2 AND NOT gone FOR UPDATE`, tenant, name)
	if err == nil && !found {
		err = fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
	}
	return a, err
}

// CreateAudience starts an import.
func (s *Store) CreateAudience(ctx context.Context, slug delivery.TenantID, a store.Audience) error {
	if a.Name == "" {
		return errors.New("audience: no name")
	}
	leftOut, columns, err := audienceJSON(&a)
	if err != nil {
		return err
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		made, err := t.exec(`INSERT INTO audiences (tenant, name, ready, people, rows, left_out, columns, created,
			reject_file) VALUES ($1, $2, false, 0, $3, $4, $5, $6, $7) ON CONFLICT (tenant, name) WHERE NOT gone DO NOTHING`,
			n, a.Name, a.Rows, leftOut, columns, store.Millis(a.CreatedAt), a.RejectFile)
		if err == nil && made == 0 {
			err = fmt.Errorf("audience %q: %w", a.Name, store.ErrExists)
		}
		return none, err
	})
	return err
}

// AddPeople appends people that are not in the audience yet. Sequences are 1, 2, 3 … without a gap.
func (s *Store) AddPeople(
	ctx context.Context, slug delivery.TenantID, name string, people []store.Person,
) ([]bool, error) {
	addresses := make([]string, len(people))
	for i := range people {
		p := &people[i]
		if addresses[i] = cmp.Or(p.Phone, p.Email, p.URL); addresses[i] == "" {
			return nil, fmt.Errorf("audience %q: person %d has no address", name, i)
		}
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return nil, err
	}
	return write(ctx, s, scope(n), need{}, func(t *tx) ([]bool, error) {
		a, err := t.lockAudience(n, name)
		if err != nil {
			return nil, err
		}
		if a.ready {
			return nil, fmt.Errorf("audience %q is complete: %w", name, store.ErrConflict)
		}
		known := map[string]bool{}
		if err := t.query(func(rows pgx.Rows) error {
			var address string
			err := rows.Scan(&address)
			known[address] = true
			return err
		}, `SELECT address FROM people WHERE audience = $1 AND address = ANY ($2)`, a.n, addresses); err != nil {
			return nil, err
		}
		added := make([]bool, len(people))
		var seqs []int64
		var channels []int32
		var address, phone, email, url, vars []string
		for i := range people {
			p := &people[i]
			if added[i] = !known[addresses[i]]; !added[i] {
				continue
			}
			known[addresses[i]] = true
			a.people++
			seqs, channels, address = append(seqs, a.people), append(channels, int32(p.Channel)), append(address, addresses[i])
			phone, email, url = append(phone, p.Phone), append(email, p.Email), append(url, p.URL)
			vars = append(vars, string(p.Vars))
		}
		if len(seqs) == 0 {
			return added, nil
		}
		t.later(`INSERT INTO people (audience, tenant, seq, channel, address, phone, email, url, vars)
			SELECT $1::bigint, $2::bigint, u.* FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::text[], $7::text[],
			$8::text[], $9::text[]) AS u`, a.n, n, seqs, channels, address, phone, email, url, vars)
		t.later(`UPDATE audiences SET people = $2 WHERE n = $1`, a.n, a.people)
		return added, nil
	})
}

// FinishAudience freezes it. People is counted by the store, the rest is taken from a.
func (s *Store) FinishAudience(ctx context.Context, slug delivery.TenantID, a store.Audience) error {
	leftOut, columns, err := audienceJSON(&a)
	if err != nil {
		return err
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		is, err := t.lockAudience(n, a.Name)
		if err != nil {
			return none, err
		}
		if is.ready {
			return none, fmt.Errorf("audience %q is complete: %w", a.Name, store.ErrConflict)
		}
		t.later(`UPDATE audiences SET ready = true, rows = $2, left_out = $3, columns = $4, reject_file = $5 WHERE n = $1`,
			is.n, a.Rows, leftOut, columns, a.RejectFile)
		return none, nil
	})
	return err
}

// Audience returns one by name.
func (s *Store) Audience(
	ctx context.Context, tenant delivery.TenantID, name string,
) (a store.Audience, err error) {
	missing := fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil {
		return a, cmp.Or(noneFor(err), missing)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + audienceColumns + ` FROM audiences
		WHERE tenant = $1 AND name = $2 AND NOT gone`, []any{n, name}, func(rows pgx.Rows) (err error) {
		missing = nil
		a, err = scanAudience(rows)
		return err
	}})
	return a, cmp.Or(err, missing)
}

// AudienceList returns all, by name.
func (s *Store) AudienceList(
	ctx context.Context, tenant delivery.TenantID,
) (list []store.Audience, err error) {
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil {
		return nil, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + audienceColumns + ` FROM audiences WHERE tenant = $1 AND NOT gone
		ORDER BY name`, []any{n}, func(rows pgx.Rows) error {
		a, err := scanAudience(rows)
		list = append(list, a)
		return err
	}})
	return list, err
}

// People returns people in order of Seq, after the given one.
func (s *Store) People(
	ctx context.Context, tenant delivery.TenantID, name string, after int64, limit int,
) (people []store.Person, err error) {
	missing := fmt.Errorf("audience %q: %w", name, store.ErrNotFound)
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil {
		return nil, cmp.Or(noneFor(err), missing)
	}
	const find = `FROM audiences a WHERE a.tenant = $1 AND a.name = $2 AND NOT a.gone`
	err = s.read(ctx, scope(n),
		stmt{`SELECT true ` + find, []any{n, name}, func(pgx.Rows) error { missing = nil; return nil }},
		stmt{`SELECT seq, phone, email, url, channel, vars FROM people WHERE audience = (SELECT a.n ` + find + `)
			AND seq > $3 ORDER BY seq LIMIT $4`, []any{n, name, after, max(limit, 0)}, func(rows pgx.Rows) error {
			var p store.Person
			var vars string
			err := rows.Scan(&p.Seq, &p.Phone, &p.Email, &p.URL, (*uint8)(&p.Channel), &vars)
			if vars != "" {
				p.Vars = json.RawMessage(vars)
			}
			people = append(people, p)
			return err
		}})
	return people, cmp.Or(err, missing)
}

// peopleChunk is how many people of a deleted audience one transaction removes.
const peopleChunk = 5000

// DeleteAudience removes it with its people. It is gone at once; the people follow in transactions of bounded size.
// When the process stops in between, the next deletion of the tenant removes the rest.
func (s *Store) DeleteAudience(ctx context.Context, slug delivery.TenantID, name string) error {
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return err
	}
	_, err = write(ctx, s, scope(n), need{}, func(t *tx) (none struct{}, err error) {
		a, err := t.lockAudience(n, name) // a campaign that starts locks it too
		if err != nil {
			return none, err
		}
		used, err := t.one([]any{new(int32)}, `SELECT 1 FROM campaigns WHERE tenant = $1 AND audience = $2
			AND state IN ('running', 'paused') LIMIT 1`, n, name)
		if err == nil && used {
			err = fmt.Errorf("audience %q is used by a campaign: %w", name, store.ErrConflict)
		}
		if err == nil {
			t.later(`UPDATE audiences SET gone = true WHERE n = $1`, a.n)
		}
		return none, err
	})
	if err != nil {
		return err
	}
	return s.removePeople(context.WithoutCancel(ctx), n)
}

// removePeople removes the people of a tenant's deleted audiences, and then these.
func (s *Store) removePeople(ctx context.Context, tenant int64) error {
	for {
		left, err := write(ctx, s, scope(tenant), need{}, func(t *tx) (left bool, err error) {
			var audience int64
			found, err := t.one([]any{&audience}, `SELECT n FROM audiences WHERE tenant = $1 AND gone ORDER BY n LIMIT 1
				FOR UPDATE SKIP LOCKED`, tenant)
			if err != nil || !found {
				return false, err
			}
			gone, err := t.exec(`DELETE FROM people WHERE audience = $1 AND seq IN (SELECT seq FROM people
				WHERE audience = $1 ORDER BY seq LIMIT $2)`, audience, peopleChunk)
			if err == nil && gone < peopleChunk {
				t.later(`DELETE FROM audiences WHERE n = $1`, audience)
			}
			return true, err
		})
		if err != nil || !left {
			return err
		}
	}
}
