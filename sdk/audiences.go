package sdk

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Audiences holds sets of people.
type Audiences struct{ c *Client }

// Format is how rows of people are written.
type Format string

// The formats.
const (
	CSV    Format = "text/csv"             // with a header line
	NDJSON Format = "application/x-ndjson" // one JSON object per line
)

// ImportOptions says how to read rows. The zero value reads CSV and lets the engine find the columns by their names.
type ImportOptions struct {
	Format  Format // default CSV
	Phone   string // column of the phone number
	Email   string // column of the mailbox
	URL     string // column of the webhook URL
	Channel string // column of the channel that the person asks for
	Region  string // default region of phone numbers without +, such as IN; empty = the tenant's
}

// Import makes an audience of rows read from r, as a stream: memory stays flat on both sides. It is one try, because r
// can be read only once. Rows without a usable address are left out and counted; see Rejected.
func (s Audiences) Import(ctx context.Context, name string, r io.Reader, opt ImportOptions) (*Audience, error) {
	path, err := pathTo("audiences", name, "import")
	if err != nil {
		return nil, err
	}
	v := url.Values{}
	set(v, "phone", opt.Phone)
	set(v, "email", opt.Email)
	set(v, "url", opt.URL)
	set(v, "channel", opt.Channel)
	set(v, "region", opt.Region)
	if opt.Format == "" {
		opt.Format = CSV
	}
	out := new(Audience)
	err = s.c.do(ctx, call{
		method: http.MethodPost, path: path, query: v, stream: io.NopCloser(r), once: true, contentType: string(opt.Format),
	}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// List returns all, by name.
func (s Audiences) List(ctx context.Context) ([]Audience, error) {
	return listAll[Audience](ctx, s.c, "audiences")
}

// Get returns one.
func (s Audiences) Get(ctx context.Context, name string) (*Audience, error) {
	return send[Audience](ctx, s.c, http.MethodGet, nil, nil, "audiences", name)
}

// People returns the first people of an audience as the engine shows them, one JSON object each. limit 0 = the engine's
// default.
func (s Audiences) People(ctx context.Context, name string, limit int) ([]json.RawMessage, error) {
	v := url.Values{}
	setInt(v, "limit", int64(limit))
	p, err := send[Page[json.RawMessage]](ctx, s.c, http.MethodGet, v, nil, "audiences", name, "people")
	if err != nil {
		return nil, err
	}
	return p.Data, nil
}

// Rejected writes the rows that were left out to w, as CSV with a reason each.
func (s Audiences) Rejected(ctx context.Context, name string, w io.Writer) error {
	path, err := pathTo("audiences", name, "rejected")
	if err != nil {
		return err
	}
	// Once a byte is with the writer, a second try would repeat it.
	return s.c.do(ctx, call{method: http.MethodGet, path: path, once: true}, w)
}

// Delete removes an audience. ErrConflict while a running or paused campaign uses it.
func (s Audiences) Delete(ctx context.Context, name string) error {
	return s.c.delete(ctx, nil, "audiences", name)
}
