package sdk

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Messages reads and stops messages.
type Messages struct{ c *Client }

// MessageQuery narrows a list. Zero fields do not.
type MessageQuery struct {
	Status    Status
	Channel   Channel
	To        string
	Connector string
	Campaign  string
	Tag       string
	Since     time.Time // accepted at or after
	Limit     int       // of one page: 1 to 1000; 0 = the engine's default
	Cursor    string    // Page.NextCursor of the page before
}

func (q MessageQuery) values() url.Values {
	v := url.Values{}
	set(v, "status", string(q.Status))
	set(v, "channel", string(q.Channel))
	set(v, "to", q.To)
	set(v, "connector", q.Connector)
	set(v, "campaign", q.Campaign)
	set(v, "tag", q.Tag)
	if !q.Since.IsZero() {
		set(v, "since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	setInt(v, "limit", int64(q.Limit))
	set(v, "cursor", q.Cursor)
	return v
}

func set(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

func setInt(v url.Values, key string, n int64) {
	if n != 0 {
		v.Set(key, strconv.FormatInt(n, 10))
	}
}

// Get returns a message.
func (s Messages) Get(ctx context.Context, id string) (*Message, error) {
	return send[Message](ctx, s.c, http.MethodGet, nil, nil, "messages", id)
}

// Timeline returns what happened to a message, oldest first.
func (s Messages) Timeline(ctx context.Context, id string) ([]Fact, error) {
	p, err := send[Page[Fact]](ctx, s.c, http.MethodGet, nil, nil, "messages", id, "timeline")
	if err != nil {
		return nil, err
	}
	return p.Data, nil
}

// Explain says why a message is where it is, and what would change that.
func (s Messages) Explain(ctx context.Context, id string) (*Explanation, error) {
	return send[Explanation](ctx, s.c, http.MethodGet, nil, nil, "messages", id, "explain")
}

// Cancel stops a message before its hand-off. ErrConflict when it is too late.
func (s Messages) Cancel(ctx context.Context, id string) (*Message, error) {
	return act[Message](ctx, s.c, "messages", id, "cancel", nil)
}

// Page returns one page, newest first.
func (s Messages) Page(ctx context.Context, q MessageQuery) (*Page[Message], error) {
	return send[Page[Message]](ctx, s.c, http.MethodGet, q.values(), nil, "messages")
}

// All yields every message of a query, page by page, newest first. An error ends it.
func (s Messages) All(ctx context.Context, q MessageQuery) iter.Seq2[Message, error] {
	return all(q.Cursor, func(cursor string) (*Page[Message], error) {
		q.Cursor = cursor
		return s.Page(ctx, q)
	})
}

// all walks pages. A page that leads nowhere ends it with an error, because going on would never end.
func all[T any](cursor string, page func(cursor string) (*Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		for at := cursor; ; {
			p, err := page(at)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, v := range p.Data {
				if !yield(v, nil) {
					return
				}
			}
			if !p.HasMore {
				return
			}
			if p.NextCursor == "" || p.NextCursor == at {
				yield(zero, fmt.Errorf("%w: the engine says there are more rows, and not where", ErrUnavailable))
				return
			}
			at = p.NextCursor
		}
	}
}

// listAll collects every row of a list that has no filters.
func listAll[T any](ctx context.Context, c *Client, segments ...string) ([]T, error) {
	out := []T{}
	rows := all("", func(cursor string) (*Page[T], error) {
		v := url.Values{}
		set(v, "cursor", cursor)
		return send[Page[T]](ctx, c, http.MethodGet, v, nil, segments...)
	})
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// ErrEnded is what Wait returns when a message ended without ever reaching a status that was asked for.
var ErrEnded = errors.New("message ended otherwise")

// Wait looks at a message until it reaches one of the statuses, or a later one on the same way: Read counts as
// Delivered, and both as Sent. Without statuses it waits until the message waits no longer. It returns the message as
// it then is; with ErrEnded when it ended elsewhere, and with the context's error when that ends first.
func (s Messages) Wait(ctx context.Context, id string, statuses ...Status) (*Message, error) {
	var last *Message
	for pause := 100 * time.Millisecond; ; pause = min(pause*3/2, 2*time.Second) {
		m, err := s.Get(ctx, id)
		if err != nil {
			return last, err
		}
		last = m
		if reached(m.Status, statuses) {
			return m, nil
		}
		if m.Status.Final() {
			return m, fmt.Errorf("%w: %s is %s", ErrEnded, id, m.Status)
		}
		if err := s.c.sleep(ctx, pause); err != nil {
			return m, fmt.Errorf("%s is still %s: %w", id, m.Status, err)
		}
	}
}

func reached(s Status, asked []Status) bool {
	if len(asked) == 0 {
		return !s.Waiting()
	}
	if slices.Contains(asked, s) {
		return true
	}
	switch s {
	case Read:
		return slices.Contains(asked, Delivered) || slices.Contains(asked, Sent)
	case Delivered, Undelivered:
		return slices.Contains(asked, Sent)
	}
	return false
}
