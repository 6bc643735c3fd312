package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/recipient"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// messageID reads the id in the path. What is no id, what does not exist and what belongs to another tenant gets the
// same answer.
func (c *call) messageID() (delivery.MessageID, error) {
	id, err := delivery.ParseMessageID(c.vars[0])
	if err != nil {
		return id, noMessage()
	}
	return id, nil
}

func noMessage() error { return fail("not_found", "there is no such message") }

// stored reads the message in the path.
func (c *call) stored() (store.Message, error) {
	id, err := c.messageID()
	if err != nil {
		return store.Message{}, err
	}
	m, err := c.a.Store.Message(c.ctx(), c.tenant, id)
	if errors.Is(err, store.ErrNotFound) {
		return m, noMessage()
	}
	return m, err
}

func getMessage(c *call) error {
	m, err := c.stored()
	if err != nil {
		return err
	}
	n, err := c.names()
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, n.message(m))
}

func timeline(c *call) error {
	m, err := c.stored()
	if err != nil {
		return err
	}
	facts, err := c.a.Store.Facts(c.ctx(), c.tenant, m.ID)
	if err != nil {
		return err
	}
	n, err := c.names()
	if err != nil {
		return err
	}
	out := sdk.Page[sdk.Fact]{Data: make([]sdk.Fact, 0, len(facts))}
	for _, f := range facts {
		out.Data = append(out.Data, n.fact(f))
	}
	return c.json(http.StatusOK, out)
}

func cancelMessage(c *call) error {
	id, err := c.messageID()
	if err != nil {
		return err
	}
	status, err := c.a.Store.Cancel(c.ctx(), c.tenant, id, c.a.Now())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noMessage()
	case err != nil && !errors.Is(err, store.ErrConflict):
		return err
	}
	m, readErr := c.stored()
	if readErr != nil {
		return readErr
	}
	if m.OrderingKey != "" && c.a.Hints != nil { // whoever waited for it may go
		c.a.Hints.Hint(delivery.Queue{Tenant: c.tenant, Channel: m.Channel, Lane: m.Lane}, nil)
	}
	if err == nil || status == delivery.StatusCanceled {
		return getMessage(c)
	}
	switch stopped := m.Reason == store.ReasonCanceled; {
	case stopped && status == delivery.StatusUnknown:
		return fail("too_late", "the message is stopped, and the person may have it: an attempt had ended without an answer")
	case stopped:
		return fail("too_late", "what was still to go is stopped; the message is %s, because an earlier way had been handed off", status)
	}
	return fail("too_late", "the message is %s: only a message that still waits can be canceled", status)
}

// listMessages returns a page of messages, newest first.
func listMessages(c *call) error {
	q, err := c.matching(c.filterParams(), wrongParam)
	if err != nil {
		return err
	}
	return c.messagePage(q, func(part store.MessageQuery) ([]store.Message, error) {
		return c.a.Store.Messages(c.ctx(), c.tenant, part)
	})
}

// messagePage answers with the page of q that the caller's limit and cursor ask for.
func (c *call) messagePage(q store.MessageQuery, read func(store.MessageQuery) ([]store.Message, error)) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	if s := c.param("cursor"); s != "" {
		place, err := c.a.cursors.open(c, s)
		if err != nil {
			return err
		}
		if q.Before, err = delivery.ParseMessageID(place); err != nil {
			return failAt("cursor", "invalid_parameter", "the cursor is not one of this list: start again without it")
		}
	}
	rows, more, err := slice(limit, func(n int, last *store.Message) ([]store.Message, error) {
		q.Limit = n
		if last != nil {
			q.Before = last.ID
		}
		return read(q)
	})
	if err != nil {
		return err
	}
	n, err := c.names()
	if err != nil {
		return err
	}
	out := sdk.Page[sdk.Message]{Data: make([]sdk.Message, 0, len(rows)), HasMore: more}
	for _, m := range rows {
		out.Data = append(out.Data, n.message(m))
	}
	if more {
		out.NextCursor = c.a.cursors.seal(c, rows[len(rows)-1].ID.String())
	}
	return c.json(http.StatusOK, out)
}

// maxRows is the most that a store gives at once.
const maxRows = 1000

// slice reads at most limit rows and says whether there are more. read returns up to n rows behind last; nil = from the
// beginning. One row more than asked tells; a slice of the store's largest size finds out by asking once more.
func slice[T any](limit int, read func(n int, last *T) ([]T, error)) (rows []T, more bool, err error) {
	rows, err = read(min(limit+1, maxRows), nil)
	if err != nil {
		return nil, false, err
	}
	if limit < maxRows || len(rows) < limit {
		more = len(rows) > limit
		return rows[:min(limit, len(rows))], more, nil
	}
	next, err := read(1, &rows[len(rows)-1])
	return rows, len(next) > 0, err
}

// wrongly makes the problem about one field of a filter: a query parameter, or a member of a body.
type wrongly func(name, format string, args ...any) error

func wrongParam(name, format string, args ...any) error {
	return failAt(name, "invalid_parameter", format, args...)
}

func wrongField(name, format string, args ...any) error {
	return failAt("/filter/"+name, "invalid_value", format, args...)
}

// filterParams reads the filter that the query of a list holds.
func (c *call) filterParams() filterIn {
	return filterIn{
		Status: c.param("status"), Channel: c.param("channel"), To: c.param("to"), Connector: c.param("connector"),
		Campaign: c.param("campaign"), Tag: c.param("tag"), Since: c.param("since"),
	}
}

// matching turns a filter into a query: names and addresses as people write them into those that the store knows.
func (c *call) matching(in filterIn, wrong wrongly) (q store.MessageQuery, err error) {
	if in.Status != "" {
		if q.Status, err = delivery.ParseStatus(in.Status); err != nil {
			return q, wrong("status", "there is no status %s", quoted(in.Status))
		}
	}
	if in.Channel != "" {
		if q.Channel, err = delivery.ParseChannel(in.Channel); err != nil {
			return q, wrong("channel", "there is no channel %s: use sms, whatsapp, email or webhook", quoted(in.Channel))
		}
	}
	if in.To != "" {
		var bad *recipient.Invalid
		if q.To, err = c.a.checker(c).address(q.Channel, in.To); errors.As(err, &bad) {
			return q, wrong("to", "to is no address: %s", bad.Rule)
		} else if err != nil {
			return q, err
		}
	}
	if in.Connector != "" {
		a, err := c.a.Store.Account(c.ctx(), c.tenant, in.Connector)
		if id, perr := delivery.ParseAccountID(in.Connector); err != nil && perr == nil {
			a, err = store.Account{ID: id}, nil // a deleted connector still has messages
		}
		if errors.Is(err, store.ErrNotFound) {
			return q, wrong("connector", "there is no connector %s", quoted(in.Connector))
		}
		if err != nil {
			return q, err
		}
		q.Account = a.ID
	}
	if in.Campaign != "" {
		cmp, err := c.a.Store.Campaign(c.ctx(), c.tenant, in.Campaign)
		if errors.Is(err, store.ErrNotFound) {
			return q, wrong("campaign", "there is no campaign %s", quoted(in.Campaign))
		}
		if err != nil {
			return q, err
		}
		q.Campaign = cmp.ID
	}
	var f faults
	if mark("tag", in.Tag, maxMark, &f); len(f.list) > 0 {
		return q, wrong("tag", "%s", f.list[0].Detail)
	}
	q.Tag = in.Tag
	if in.Since != "" {
		if q.Since, err = time.Parse(time.RFC3339, in.Since); err != nil {
			return q, wrong("since", "since must be RFC 3339 with a zone, as in 2026-03-01T18:00:00Z")
		}
	}
	return q, nil
}

func (c *call) channelParam() (delivery.Channel, error) {
	s := c.param("channel")
	if s == "" {
		return 0, nil
	}
	ch, err := delivery.ParseChannel(s)
	if err != nil {
		return 0, failAt("channel", "invalid_parameter", "there is no channel %s: use sms, whatsapp, email or webhook",
			quoted(s))
	}
	return ch, nil
}
