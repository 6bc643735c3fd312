package api

import (
	"net/http"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// maxDeadLetters is how many dead letters one call moves: as many as the store takes in one transaction.
const maxDeadLetters = 1000

// filterIn is sdk.DeadLetterFilter as the server reads it. The query of a list has the same names.
type filterIn struct {
	Status    string `json:"status"`
	Reason    string `json:"reason"`
	Channel   string `json:"channel"`
	To        string `json:"to"`
	Connector string `json:"connector"`
	Campaign  string `json:"campaign"`
	Tag       string `json:"tag"`
	Since     string `json:"since"`
}

// deadLetterIn is sdk.DeadLetterRequest as the server reads it.
type deadLetterIn struct {
	IDs    []string  `json:"ids"`
	Filter *filterIn `json:"filter"`
	TTL    string    `json:"ttl"`
	Before string    `json:"before"`
}

// dead says which statuses a dead letter may have: it ended without a hand-off that anybody knows of.
func dead(s delivery.Status) bool {
	return s == delivery.StatusFailed || s == delivery.StatusExpired || s == delivery.StatusUnknown
}

// deadLetterQuery turns a filter into a query.
func (c *call) deadLetterQuery(in filterIn, wrong wrongly) (store.DeadLetterQuery, error) {
	q, err := c.matching(in, wrong)
	if err != nil {
		return store.DeadLetterQuery{}, err
	}
	if q.Status != 0 && !dead(q.Status) {
		return store.DeadLetterQuery{}, wrong("status", "a dead letter is failed, expired or unknown, never %s", q.Status)
	}
	var f faults
	if line("", in.Reason, 200, &f); len(f.list) > 0 {
		return store.DeadLetterQuery{}, wrong("reason", "%s", f.list[0].Detail)
	}
	return store.DeadLetterQuery{MessageQuery: q, Reason: in.Reason}, nil
}

// listDeadLetters returns a page of dead letters, newest first.
func listDeadLetters(c *call) error {
	in := c.filterParams()
	in.Reason = c.param("reason")
	q, err := c.deadLetterQuery(in, wrongParam)
	if err != nil {
		return err
	}
	return c.messagePage(q.MessageQuery, func(part store.MessageQuery) ([]store.Message, error) {
		q.MessageQuery = part
		return c.a.Store.DeadLetters(c.ctx(), c.tenant, q)
	})
}

// retryDeadLetters puts dead letters back into their queues, under their own ids.
func retryDeadLetters(c *call) error {
	in, err := c.deadLetterBody()
	if err != nil {
		return err
	}
	life := defaultLife
	if in.TTL != "" {
		if life, err = time.ParseDuration(in.TTL); err != nil || life < time.Second || life > maxLife {
			return failAt("/ttl", "invalid_time", "use a duration from 1s to 168h, as in 10m")
		}
	}
	now := c.a.Now()
	return c.moveDeadLetters(in, func(ids []delivery.MessageID) ([]store.Redriven, error) {
		done, err := c.a.Store.Redrive(c.ctx(), c.tenant, ids, now, now.Add(life))
		if err == nil {
			c.hint(ids, done)
		}
		return done, err
	})
}

// dropDeadLetters puts dead letters away.
func dropDeadLetters(c *call) error {
	in, err := c.deadLetterBody()
	if err != nil {
		return err
	}
	if in.TTL != "" {
		return failAt("/ttl", "field_not_allowed", "what is dropped is not sent: leave ttl out")
	}
	now := c.a.Now()
	return c.moveDeadLetters(in, func(ids []delivery.MessageID) ([]store.Redriven, error) {
		return c.a.Store.Drop(c.ctx(), c.tenant, ids, now)
	})
}

// deadLetterBody reads which dead letters are meant: ids or a filter, and exactly one of them. A filter without fields
// means all of them; nothing at all is more likely a mistake.
func (c *call) deadLetterBody() (in deadLetterIn, err error) {
	if err = c.decodeBody(&in); err != nil {
		return in, err
	}
	switch {
	case len(in.IDs) > 0 && in.Filter != nil:
		err = failAt("/filter", "field_not_allowed", "give ids or a filter, not both")
	case in.Before != "" && in.Filter == nil:
		err = failAt("/before", "field_not_allowed", "before belongs to a filter")
	case len(in.IDs) == 0 && in.Filter == nil:
		err = failAt("/ids", "field_required", "say which: give ids, or a filter ({} = all dead letters)")
	case len(in.IDs) > maxDeadLetters:
		err = failAt("/ids", "batch_too_large", "one call takes at most %d ids, here are %d", maxDeadLetters, len(in.IDs))
	}
	return in, err
}

// moveDeadLetters does something with what a request means, and says what came of it.
func (c *call) moveDeadLetters(in deadLetterIn, move func([]delivery.MessageID) ([]store.Redriven, error)) error {
	ids, more, err := c.deadLetterIDs(in)
	if err != nil {
		return err
	}
	var out sdk.DeadLetterResult
	if len(ids) > 0 {
		done, err := move(ids)
		if err != nil {
			return err
		}
		for i, d := range done {
			if d.Done {
				out.Done++
				continue
			}
			no := sdk.DeadLetterNoMove{ID: ids[i].String()}
			if d.Status != 0 {
				no.Status = sdk.Status(d.Status.String())
			}
			out.Skipped = append(out.Skipped, no)
		}
	}
	// When nothing could be moved, somebody else is at it: to say that there is more would send a caller round for ever.
	if out.More = more && out.Done > 0; out.More {
		out.Next = ids[len(ids)-1].String()
	}
	return c.json(http.StatusOK, out)
}

// deadLetterIDs returns the ids that one call moves, each once, and whether the filter matches more than those.
func (c *call) deadLetterIDs(in deadLetterIn) (ids []delivery.MessageID, more bool, err error) {
	if in.Filter == nil {
		var f faults
		seen := make(map[delivery.MessageID]bool, len(in.IDs))
		for i, text := range in.IDs {
			id, err := delivery.ParseMessageID(text)
			if err != nil {
				f.add("/ids/"+itoa(i), "invalid_value", "%s is no message's id", quoted(text))
				if len(f.list) == 100 { // enough to see what is wrong
					break
				}
			} else if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		return ids, false, f.problem()
	}
	q, err := c.deadLetterQuery(*in.Filter, wrongField)
	if err != nil {
		return nil, false, err
	}
	if in.Before != "" {
		if q.Before, err = delivery.ParseMessageID(in.Before); err != nil {
			return nil, false, failAt("/before", "invalid_value", "%s is no message's id: give the next of the call before", quoted(in.Before))
		}
	}
	rows, more, err := slice(maxDeadLetters, func(n int, last *store.Message) ([]store.Message, error) {
		q.Limit = n
		if last != nil {
			q.Before = last.ID // the rows go on below it
		}
		return c.a.Store.DeadLetters(c.ctx(), c.tenant, q)
	})
	for _, m := range rows {
		ids = append(ids, m.ID)
	}
	return ids, more, err
}

// hint tells the running pipeline, where there is one, what has become due, a queue at a time.
func (c *call) hint(ids []delivery.MessageID, done []store.Redriven) {
	if c.a.Hints == nil {
		return
	}
	queues := map[delivery.Queue][]delivery.MessageID{}
	for i, d := range done {
		if d.Done {
			queues[d.Queue] = append(queues[d.Queue], ids[i])
		}
	}
	for q, due := range queues {
		c.a.Hints.Hint(q, due)
	}
}
