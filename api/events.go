package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// A long poll asks the store again after pollFirst, then ever more seldom, at least every pollLast.
const (
	pollFirst = 50 * time.Millisecond
	pollLast  = 500 * time.Millisecond
)

// events returns facts after a place in the tenant's stream. With wait it holds the answer back until there is one.
// next_cursor is the place to go on from; after=latest only tells where the stream ends now.
func events(c *call) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	wait, err := c.wait()
	if err != nil {
		return err
	}
	latest := c.param("after") == "latest"
	var after int64
	if !latest {
		if after, err = c.number("after", 0, 1<<62, 0); err != nil {
			return err
		}
	}
	if latest {
		_, end, err := c.a.Store.Events(c.ctx(), c.tenant, 1<<62, 1)
		if err != nil {
			return err
		}
		after = end
	}
	rows, _, err := c.a.Store.Events(c.ctx(), c.tenant, after, limit)
	if err == nil && len(rows) == 0 && wait > 0 {
		rows, err = c.poll(after, limit, wait)
	}
	if err != nil {
		return err
	}
	out := sdk.Page[sdk.Event]{Data: make([]sdk.Event, 0, len(rows)), HasMore: len(rows) == limit}
	if len(rows) > 0 {
		n, err := c.names()
		if err != nil {
			return err
		}
		for _, e := range rows {
			out.Data = append(out.Data, sdk.Event{
				Seq: e.Seq, Type: "message." + e.Fact.Status.String(), Message: e.Fact.Message.String(),
				Channel: channel(e.Channel), Fact: n.fact(e.Fact),
			})
		}
		after = rows[len(rows)-1].Seq
	}
	out.NextCursor = strconv.FormatInt(after, 10)
	return c.json(http.StatusOK, out)
}

// wait reads how long a long poll may take: a duration such as 20s, or a number of seconds.
func (c *call) wait() (time.Duration, error) {
	s := c.param("wait")
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.Atoi(s); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 || d > c.a.Limits.Wait {
		return 0, failAt("wait", "invalid_parameter", "wait must be a duration of at most %s, such as 20s", c.a.Limits.Wait)
	}
	return d, nil
}

// poll asks the store until there is an event, the time is over or the caller is gone.
func (c *call) poll(after int64, limit int, wait time.Duration) ([]store.Event, error) {
	end := time.NewTimer(wait)
	defer end.Stop()
	pause := pollFirst
	next := time.NewTimer(pause)
	defer next.Stop()
	for {
		select {
		case <-c.ctx().Done():
			return nil, c.ctx().Err()
		case <-end.C:
			return nil, nil
		case <-next.C:
		}
		rows, _, err := c.a.Store.Events(c.ctx(), c.tenant, after, limit)
		if err != nil || len(rows) > 0 {
			return rows, err
		}
		pause = min(pause*2, pollLast)
		next.Reset(pause)
	}
}
