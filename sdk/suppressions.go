package sdk

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// Suppressions holds the addresses that must not be written to.
type Suppressions struct{ c *Client }

// Add keeps an address from being written to, on one channel or on all.
func (s Suppressions) Add(ctx context.Context, one Suppression) error {
	return s.c.do(ctx, call{method: http.MethodPost, path: "/v1/suppressions", in: one}, nil)
}

// AddAll adds up to 1,000 in one request: all or none.
func (s Suppressions) AddAll(ctx context.Context, list []Suppression) error {
	return s.c.do(ctx, call{method: http.MethodPost, path: "/v1/suppressions", in: list}, nil)
}

// All yields every suppression. An error ends it.
func (s Suppressions) All(ctx context.Context) iter.Seq2[Suppression, error] {
	return all("", func(cursor string) (*Page[Suppression], error) {
		v := url.Values{}
		set(v, "cursor", cursor)
		return send[Page[Suppression]](ctx, s.c, http.MethodGet, v, nil, "suppressions")
	})
}

// Check returns the suppression that keeps an address from being written to on a channel; ErrNotFound when none does.
func (s Suppressions) Check(ctx context.Context, channel Channel, to string) (*Suppression, error) {
	return send[Suppression](ctx, s.c, http.MethodGet, address(channel, to), nil, "suppressions", "check")
}

// Delete lets an address be written to again. ErrNotFound when it was not suppressed.
func (s Suppressions) Delete(ctx context.Context, channel Channel, to string) error {
	return s.c.delete(ctx, address(channel, to), "suppressions")
}

func address(channel Channel, to string) url.Values {
	v := url.Values{}
	set(v, "channel", string(channel))
	v.Set("to", to)
	return v
}
