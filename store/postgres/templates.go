package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const templateColumns = `name, version, channel, text, subject, html, approved, event, data, created`

func scanTemplate(rows pgx.Rows) (t store.Template, err error) {
	var approved string
	err = rows.Scan(&t.Name, &t.Version, (*uint8)(&t.Channel), &t.Text, &t.Subject, &t.HTML, &approved, &t.Event, &t.Data,
		at{&t.CreatedAt})
	if err == nil {
		err = fromJSON(approved, &t.Approved)
	}
	return t, err
}

// lockName keeps two transactions from giving one name two meanings at a time, where there is no row yet to lock.
const lockName = `SELECT pg_advisory_xact_lock(77203, hashtext($1::bigint::text || ' ' || $2::text))`

// PutTemplate stores t as the next version of its name.
func (s *Store) PutTemplate(ctx context.Context, slug delivery.TenantID, tpl store.Template) (int, error) {
	if tpl.Name == "" {
		return 0, errors.New("template: no name")
	}
	approved := ""
	if tpl.Approved != nil {
		var err error
		if approved, err = asJSON(tpl.Approved); err != nil {
			return 0, err
		}
	}
	n, err := s.tenantNumber(ctx, slug)
	if err != nil {
		return 0, err
	}
	locked := need{first: []stmt{{sql: lockName, args: []any{n, tpl.Name}}}}
	return write(ctx, s, scope(n), locked, func(t *tx) (int, error) {
		version, channel := 0, tpl.Channel
		if _, err := t.one([]any{&version, (*uint8)(&channel)}, `SELECT version, channel FROM templates
			WHERE tenant = $1 AND name = $2 ORDER BY version DESC LIMIT 1`, n, tpl.Name); err != nil {
			return 0, err
		}
		if channel != tpl.Channel {
			return 0, fmt.Errorf("template %q is for %s, not %s: %w", tpl.Name, channel, tpl.Channel, store.ErrConflict)
		}
		version++
		t.later(`INSERT INTO templates (tenant, name, version, channel, text, subject, html, approved, event, data, created)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, n, tpl.Name, version, int(tpl.Channel), tpl.Text,
			tpl.Subject, tpl.HTML, approved, tpl.Event, tpl.Data, store.Millis(tpl.CreatedAt))
		t.changed(store.TemplateChange, n, "")
		return version, nil
	})
}

// templates reads those of a tenant; where has the parameters from $2 on.
func (s *Store) templates(
	ctx context.Context, tenant delivery.TenantID, where string, args ...any,
) (list []store.Template, err error) {
	n, err := s.tenantNumber(ctx, tenant)
	if err != nil {
		return nil, noneFor(err)
	}
	err = s.read(ctx, scope(n), stmt{`SELECT ` + templateColumns + ` FROM templates t WHERE tenant = $1 ` + where,
		append([]any{n}, args...), func(rows pgx.Rows) error {
			t, err := scanTemplate(rows)
			list = append(list, t)
			return err
		}})
	return list, err
}

// Template returns a version, 0 = the newest.
func (s *Store) Template(
	ctx context.Context, tenant delivery.TenantID, name string, version int,
) (store.Template, error) {
	list, err := s.templates(ctx, tenant, `AND name = $2 AND ($3 IN (0, version)) ORDER BY version DESC LIMIT 1`, name,
		version)
	switch {
	case err != nil:
		return store.Template{}, err
	case len(list) == 0 && version != 0:
		return store.Template{}, fmt.Errorf("template %q version %d: %w", name, version, store.ErrNotFound)
	case len(list) == 0:
		return store.Template{}, fmt.Errorf("template %q: %w", name, store.ErrNotFound)
	}
	return list[0], nil
}

// TemplateList returns the newest version of each, by name.
func (s *Store) TemplateList(ctx context.Context, tenant delivery.TenantID) ([]store.Template, error) {
	return s.templates(ctx, tenant, `AND version = (SELECT max(version) FROM templates n WHERE n.tenant = t.tenant
		AND n.name = t.name) ORDER BY name`)
}

// TemplateVersions returns all versions of one, newest first.
func (s *Store) TemplateVersions(ctx context.Context, tenant delivery.TenantID, name string) ([]store.Template, error) {
	list, err := s.templates(ctx, tenant, `AND name = $2 ORDER BY version DESC`, name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("template %q: %w", name, store.ErrNotFound)
	}
	return list, err
}
