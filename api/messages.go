package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
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
	case errors.Is(err, store.ErrConflict) && status != delivery.StatusCanceled:
		return fail("too_late", "the message is %s: only a message that still waits can be canceled", status)
	case err != nil && !errors.Is(err, store.ErrConflict):
		return err
	}
	return getMessage(c)
}

// listMessages returns a page of messages, newest first.
func listMessages(c *call) error {
	q, err := c.messageQuery()
	if err != nil {
		return err
	}
	limit := q.Limit
	// One more than asked tells whether there is a next page; a full page of the store's largest size finds out by asking.
	q.Limit = min(limit+1, 1000)
	rows, err := c.a.Store.Messages(c.ctx(), c.tenant, q)
	if err != nil {
		return err
	}
	more := len(rows) > limit
	if limit == 1000 && len(rows) == limit {
		q.Before, q.Limit = rows[limit-1].ID, 1
		next, err := c.a.Store.Messages(c.ctx(), c.tenant, q)
		if err != nil {
			return err
		}
		more = len(next) > 0
	}
	rows = rows[:min(limit, len(rows))]
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

func (c *call) messageQuery() (q store.MessageQuery, err error) {
	if q.Limit, err = c.limit(); err != nil {
		return q, err
	}
	if s := c.param("status"); s != "" {
		if q.Status, err = delivery.ParseStatus(s); err != nil {
			return q, failAt("status", "invalid_parameter", "there is no status %s", quoted(s))
		}
	}
	if q.Channel, err = c.channelParam(); err != nil {
		return q, err
	}
	if s := c.param("to"); s != "" {
		if q.To, err = c.a.addressParam(c, q.Channel, s); err != nil {
			return q, err
		}
	}
	if s := c.param("connector"); s != "" {
		a, err := c.a.Store.Account(c.ctx(), c.tenant, s)
		if id, perr := delivery.ParseAccountID(s); err != nil && perr == nil {
			a, err = store.Account{ID: id}, nil // a deleted connector still has messages
		}
		if errors.Is(err, store.ErrNotFound) {
			return q, failAt("connector", "invalid_parameter", "there is no connector %s", quoted(s))
		}
		if err != nil {
			return q, err
		}
		q.Account = a.ID
	}
	if s := c.param("campaign"); s != "" {
		cmp, err := c.a.Store.Campaign(c.ctx(), c.tenant, s)
		if errors.Is(err, store.ErrNotFound) {
			return q, failAt("campaign", "invalid_parameter", "there is no campaign %s", quoted(s))
		}
		if err != nil {
			return q, err
		}
		q.Campaign = cmp.ID
	}
	if s := c.param("since"); s != "" {
		if q.Since, err = time.Parse(time.RFC3339, s); err != nil {
			return q, failAt("since", "invalid_parameter", "since must be RFC 3339 with a zone, as in 2026-03-01T18:00:00Z")
		}
	}
	if s := c.param("cursor"); s != "" {
		place, err := c.a.cursors.open(c, s)
		if err != nil {
			return q, err
		}
		if q.Before, err = delivery.ParseMessageID(place); err != nil {
			return q, failAt("cursor", "invalid_parameter", "the cursor is not one of this list: start again without it")
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
