package sdk

import (
	"context"
	"net/http"
	"net/url"
)

// Templates holds versioned message texts.
type Templates struct{ c *Client }

// Put stores the next version of a template. A mistake in it is an Error that points at line and column.
func (s Templates) Put(ctx context.Context, name string, r TemplateRequest) (*StoredTemplate, error) {
	return send[StoredTemplate](ctx, s.c, http.MethodPut, nil, r, "templates", name)
}

// List returns the newest version of each, by name.
func (s Templates) List(ctx context.Context) ([]StoredTemplate, error) {
	return listAll[StoredTemplate](ctx, s.c, "templates")
}

// Get returns a version; 0 = the newest.
func (s Templates) Get(ctx context.Context, name string, version int) (*StoredTemplate, error) {
	v := url.Values{}
	setInt(v, "version", int64(version))
	return send[StoredTemplate](ctx, s.c, http.MethodGet, v, nil, "templates", name)
}

// Versions returns all versions of one, newest first.
func (s Templates) Versions(ctx context.Context, name string) ([]StoredTemplate, error) {
	return listAll[StoredTemplate](ctx, s.c, "templates", name, "versions")
}

// Render shows what one person would get.
func (s Templates) Render(ctx context.Context, name string, r RenderRequest) (*Rendered, error) {
	return act[Rendered](ctx, s.c, "templates", name, "render", r)
}
