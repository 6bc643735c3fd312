package api

import (
	"bytes"
	"errors"
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// The routes as idempotency keys know them: part of a key's scope, so never change one.
const (
	sendRoute  = "POST /v1/messages"
	batchRoute = "POST /v1/messages/batch"
)

// send accepts one message.
func send(c *call) error {
	if _, err := c.checkMedia("application/json"); err != nil {
		return err
	}
	keyText, err := c.idempotencyKey()
	if err != nil {
		return err
	}
	buf := c.a.buffer()
	defer c.a.release(buf)
	if err := c.readBody(buf, c.a.Limits.Body); err != nil {
		return err
	}
	var in messageIn
	if err := decode(buf.Bytes(), &in); err != nil {
		return err
	}
	var key *store.IdempotencyKey
	k := c.a.checker(c)
	k.followed = c.join()
	if keyText != "" {
		key = &store.IdempotencyKey{Route: sendRoute, Key: keyText, Expires: k.now.Add(keyLife)}
		key.Fingerprint = fingerprint(bytes.TrimPrefix(buf.Bytes(), []byte("\xef\xbb\xbf")))
		leave, err := c.a.running.enter(c.ctx(), flight{c.tenant, sendRoute, keyText}, c.a.Limits.KeyWait)
		if err != nil {
			return err
		}
		defer leave()
	}
	m, err := k.message(&in)
	if err != nil {
		var bad *sdk.Error
		if errors.As(err, &bad) {
			acc, rerr := c.a.replay(c.ctx(), c.tenant, key)
			if rerr == nil && len(acc.Results) == 1 {
				return c.replayed(acc.Results[0])
			}
			if rerr != nil && !errors.Is(rerr, store.ErrNotFound) {
				return rerr
			}
		}
		return err
	}
	m.ID = k.newID()
	acc, err := c.a.Accept.Accept(c.ctx(), c.tenant, store.Acceptance{Now: k.now, Key: key,
		Messages: []store.NewMessage{m.NewMessage}})
	if err != nil {
		return err
	}
	if len(acc.Results) != 1 {
		return errors.New("api: the store answered one message with another number of results")
	}
	if acc.Replayed {
		return c.replayed(acc.Results[0])
	}
	return c.accepted(&in, &m, acc.Results[0], k.now)
}

// accepted answers a message that has just been stored. It is written by hand: this is the answer given most.
func (c *call) accepted(in *messageIn, m *checked, r store.AcceptResult, now time.Time) error {
	buf := c.a.buffer()
	defer c.a.release(buf)
	b := append(buf.AvailableBuffer(), '{')
	b = appendText(b, "id", r.ID.String())
	b = appendText(b, "channel", m.Channel.String())
	b = appendText(b, "lane", m.Lane.String())
	b = appendText(b, "status", r.Status.String())
	b = appendText(b, "reason", r.Reason)
	b = appendText(b, "to", m.To)
	if in.Template != "" {
		b = appendText(b, "template", in.Template)
		b = appendInt(b, "template_version", int64(m.version))
	}
	if m.Segments > 0 {
		b = appendInt(b, "segments", int64(m.Segments))
	}
	b = appendText(b, "connector", in.Connector)
	b = appendText(b, "client_ref", m.ClientRef)
	b = appendText(b, "category", m.Category)
	b = appendText(b, "tag", m.Tag)
	b = appendText(b, "ordering_key", m.OrderingKey)
	if len(m.Then) > 0 {
		legs, err := encode(nil, askedLegs(m))
		if err != nil {
			return err
		}
		b = appendRaw(b, "legs", legs)
	}
	b = appendTime(b, "accepted_at", now)
	b = appendTime(b, "updated_at", now)
	if r.Status == delivery.StatusQueued || r.Status == delivery.StatusScheduled { // a held one waits for another message
		b = appendTime(b, "due_at", m.DueAt)
	}
	b = appendTime(b, "expires_at", m.ExpiresAt)
	b = append(b, '}')
	c.location(r.ID)
	c.write(http.StatusAccepted, "application/json", b)
	return nil
}

// replayed answers a repeated request with what the first one got. What the message has become since then is at its own
// address.
func (c *call) replayed(r store.AcceptResult) error {
	c.w.Header()["Idempotency-Replayed"] = []string{"true"}
	c.location(r.ID)
	row, err := c.a.Store.Message(c.ctx(), c.tenant, r.ID)
	out := sdk.Message{ID: r.ID.String()}
	switch {
	case err == nil:
		names, err := c.names()
		if err != nil {
			return err
		}
		first := row
		first.Attempts, first.PossibleDuplicate, first.ProviderID, first.Detail = 0, false, "", ""
		first.UpdatedAt, first.Dropped = first.AcceptedAt, false
		asAsked(&first)
		if row.Status != delivery.StatusScheduled || r.Status != delivery.StatusScheduled {
			first.DueAt = time.Time{}
		}
		out = names.message(first)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	out.Status, out.Reason = sdk.Status(r.Status.String()), r.Reason
	return c.json(http.StatusAccepted, out)
}

// askedLegs shows the legs of a message as they were asked for: none has begun.
func askedLegs(m *checked) []sdk.LegState {
	legs := make([]sdk.LegState, 0, len(m.Then)+1)
	legs = append(legs, legState(m.Channel, m.To, m.Within, m.Success))
	for _, l := range m.Then {
		legs = append(legs, legState(l.Channel, l.To, l.Within, l.Success))
	}
	return legs
}

// asAsked makes a message with a fallback what it was when it was accepted. What a later leg has put in the place of
// the first one's template and segments is left out.
func asAsked(m *store.Message) {
	if len(m.Legs) == 0 {
		return
	}
	if m.Leg > 0 {
		m.Channel, m.To, m.Account = m.Legs[0].Channel, m.Legs[0].To, m.Legs[0].Account
		m.Payload, m.Segments, m.Leg = nil, 0, 0
	}
	for i, l := range m.Legs {
		m.Legs[i] = store.MessageLeg{Channel: l.Channel, To: l.To, Within: l.Within, Success: l.Success}
	}
}

func (c *call) location(id delivery.MessageID) {
	c.w.Header()["Location"] = []string{"/v1/messages/" + id.String()}
}

// appendTime appends an instant in RFC 3339, to the millisecond.
func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(appendKey(b, name), '"')
	b = t.UTC().AppendFormat(b, "2006-01-02T15:04:05.999Z07:00")
	return append(b, '"')
}
