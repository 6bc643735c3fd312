package smpp

import (
	"context"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Bounds of inbound messages of which parts are missing.
const (
	joinWait    = 5 * time.Minute // then what is there is passed on
	maxJoins    = 1_000
	maxJoinSize = 8 << 20 // octets in all
)

// partKey tells messages apart that travel in parts at one time (3GPP TS 23.040 §9.2.3.24.1).
type partKey struct {
	from, to string
	ref      uint16
	wide     bool
	total    byte
}

// joiner puts inbound messages together. Its zero value is empty; one goroutine uses it.
type joiner struct {
	open map[partKey]*join
	size int
}

type join struct {
	since  time.Time // of the first part
	parts  [][]byte
	have   int
	coding byte
	in     delivery.Inbound
}

// add keeps a part and returns the whole message once no part is missing. The message stays until forget, so that a
// last part which comes again, because it could not be stored, completes it again. With no room left the message that
// has waited longest goes.
func (j *joiner) add(k partKey, seq, coding byte, octets []byte, in delivery.Inbound) (delivery.Inbound, bool) {
	if j.open == nil {
		j.open = map[partKey]*join{}
	}
	for j.size+len(octets) > maxJoinSize {
		j.dropOldest()
	}
	m := j.open[k]
	if m == nil {
		if len(j.open) >= maxJoins {
			j.dropOldest()
		}
		m = &join{since: in.At, parts: make([][]byte, k.total), coding: coding, in: in}
		j.open[k] = m
	}
	if m.parts[seq-1] == nil {
		m.have++
	}
	j.size += len(octets) - len(m.parts[seq-1])
	m.parts[seq-1] = append(make([]byte, 0, len(octets)+1), octets...)
	if m.have < len(m.parts) {
		return delivery.Inbound{}, false
	}
	return m.whole(), true
}

// whole returns the message as far as it is there.
func (m *join) whole() delivery.Inbound {
	var all []byte
	for _, p := range m.parts {
		all = append(all, p...)
	}
	in := m.in
	in.Text = text(m.coding, all)
	return in
}

func (j *joiner) forget(keys []partKey) {
	for _, k := range keys {
		if m := j.open[k]; m != nil {
			for _, p := range m.parts {
				j.size -= len(p)
			}
			delete(j.open, k)
		}
	}
}

func (j *joiner) dropOldest() {
	var oldest partKey
	var since time.Time
	for k, m := range j.open {
		if since.IsZero() || m.since.Before(since) {
			oldest, since = k, m.since
		}
	}
	j.forget([]partKey{oldest})
}

// overdue returns the messages that have waited for a part for too long.
func (j *joiner) overdue(now time.Time) (keys []partKey, messages []delivery.Inbound) {
	for k, m := range j.open {
		if now.Sub(m.since) >= joinWait {
			keys, messages = append(keys, k), append(messages, m.whole())
		}
	}
	return keys, messages
}

// flushParts passes on messages whose missing parts will not come any more: a person wrote something, and half of a
// "STOP" with a long signature is still a "STOP".
func (c *Connector) flushParts(ctx context.Context) {
	keys, messages := c.inbound.overdue(c.account.Now())
	sink := c.link.sink.Load()
	if len(keys) == 0 || sink == nil {
		return
	}
	if err := (*sink).Inbound(ctx, messages); err != nil {
		c.log.Error("smpp messages could not be stored", "account", c.account.Name, "count", len(messages), "err", err)
		return
	}
	c.inbound.forget(keys)
}
