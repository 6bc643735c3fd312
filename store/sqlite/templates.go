package sqlite

import (
	"context"
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

const templateColumns = `name, version, channel, text, subject, html, approved, event, data, created`

func scanTemplate(s *sqlite.Stmt) (t store.Template, err error) {
	r := scan(s)
	t.Name, t.Version, t.Channel = r.text(), r.int(), delivery.Channel(r.int64())
	t.Text, t.Subject, t.HTML = r.text(), r.text(), r.text()
	r.json(&t.Approved)
	t.Event, t.Data, t.CreatedAt = r.text(), r.text(), r.time()
	return t, r.err
}

// PutTemplate stores t as the next version of its name.
func (s *Store) PutTemplate(ctx context.Context, slug delivery.TenantID, tpl store.Template) (int, error) {
	if tpl.Name == "" {
		return 0, errors.New("template: no name")
	}
	return write(ctx, s, 1, func(t *tx) (version int, err error) {
		tn, err := t.tenant(slug)
		if err != nil {
			return 0, err
		}
		channel := tpl.Channel
		if _, err := one(t.conn, `SELECT version, channel FROM templates WHERE tenant = ? AND name = ?
			ORDER BY version DESC LIMIT 1`,
			func(s *sqlite.Stmt) error {
				version, channel = s.ColumnInt(0), delivery.Channel(s.ColumnInt(1))
				return nil
			}, tn.n, tpl.Name); err != nil {
			return 0, err
		}
		if channel != tpl.Channel {
			return 0, fmt.Errorf("template %q is for %s, not %s: %w", tpl.Name, channel, tpl.Channel, store.ErrConflict)
		}
		approved := ""
		if tpl.Approved != nil {
			if approved, err = asJSON(tpl.Approved); err != nil {
				return 0, err
			}
		}
		version++
		return version, t.exec(`INSERT INTO templates (tenant, name, version, channel, text, subject, html, approved, event,
			data, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, tn.n, tpl.Name, version, int(tpl.Channel), tpl.Text,
			tpl.Subject, tpl.HTML, approved, tpl.Event, tpl.Data, tpl.CreatedAt)
	})
}

func (s *Store) templates(ctx context.Context, where string, args ...any) ([]store.Template, error) {
	return read(ctx, s, func(c *sqlite.Conn) (list []store.Template, err error) {
		err = query(c, `SELECT `+templateColumns+` FROM templates t
			WHERE tenant = (SELECT n FROM tenants WHERE slug = ?) `+where,
			func(s *sqlite.Stmt) error {
				t, err := scanTemplate(s)
				list = append(list, t)
				return err
			}, args...)
		return list, err
	})
}

// Template returns a version, 0 = the newest.
func (s *Store) Template(
	ctx context.Context, tenant delivery.TenantID, name string, version int,
) (store.Template, error) {
	list, err := s.templates(ctx, `AND name = ?2 AND (version = ?3 OR ?3 = 0) ORDER BY version DESC LIMIT 1`,
		string(tenant), name, version)
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
	return s.templates(ctx, `AND version = (SELECT max(version) FROM templates n WHERE n.tenant = t.tenant
		AND n.name = t.name)
		ORDER BY name`, string(tenant))
}

// TemplateVersions returns all versions of one, newest first.
func (s *Store) TemplateVersions(ctx context.Context, tenant delivery.TenantID, name string) ([]store.Template, error) {
	list, err := s.templates(ctx, `AND name = ? ORDER BY version DESC`, string(tenant), name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("template %q: %w", name, store.ErrNotFound)
	}
	return list, err
}
