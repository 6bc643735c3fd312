package sdk

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// DeadLetters are messages that ended without a known hand-off (failed, expired or unknown), until somebody decides.
type DeadLetters struct{ c *Client }

// Page returns one page, newest first. Limit is 1 to 1000, 0 = the engine's default.
func (s DeadLetters) Page(ctx context.Context, f DeadLetterFilter, limit int, cursor string) (*Page[Message], error) {
	v := url.Values{}
	set(v, "status", string(f.Status))
	set(v, "reason", f.Reason)
	set(v, "channel", string(f.Channel))
	set(v, "to", f.To)
	set(v, "connector", f.Connector)
	set(v, "campaign", f.Campaign)
	set(v, "tag", f.Tag)
	if f.Since != nil {
		set(v, "since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	setInt(v, "limit", int64(limit))
	set(v, "cursor", cursor)
	return send[Page[Message]](ctx, s.c, http.MethodGet, v, nil, "dlq")
}

// All yields every dead letter of a filter, newest first. An error ends it.
func (s DeadLetters) All(ctx context.Context, f DeadLetterFilter) iter.Seq2[Message, error] {
	return all("", func(cursor string) (*Page[Message], error) { return s.Page(ctx, f, 0, cursor) })
}

// Retry sends dead letters again under their own ids. One call takes at most 1000: repeat while the result says More,
// with Before = its Next.
func (s DeadLetters) Retry(ctx context.Context, r DeadLetterRequest) (*DeadLetterResult, error) {
	return verb[DeadLetterResult](ctx, s.c, "dlq", "retry", r)
}

// Drop puts dead letters away: they keep their status and history, and are listed no more.
func (s DeadLetters) Drop(ctx context.Context, r DeadLetterRequest) (*DeadLetterResult, error) {
	return verb[DeadLetterResult](ctx, s.c, "dlq", "drop", r)
}

// verb does something to a whole noun: POST /v1/{noun}:{verb}.
func verb[T any](ctx context.Context, c *Client, noun, verb string, in any) (*T, error) {
	path, err := pathTo(noun)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := c.do(ctx, call{method: http.MethodPost, path: path + ":" + verb, in: in}, out); err != nil {
		return nil, err
	}
	return out, nil
}
