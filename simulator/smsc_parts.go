package simulator

import (
	"time"

	"github.com/msgctl/msgctl/smpp"
)

// Bounds of the table of incomplete messages of one account.
const (
	maxIncomplete = 10_000
	partsExpire   = 5 * time.Minute
)

// smscPartKey tells messages apart that travel in parts at one time (3GPP TS 23.040 §9.2.3.24.1).
type smscPartKey struct {
	from, to string
	ref      uint16
	wide     bool
	total    byte
}

type smscParts struct {
	since time.Time
	texts [][]byte
	have  int
}

// part keeps one part; the one that completes the message gets the whole, and the table forgets it. A part that comes
// twice replaces itself.
func (a *smscAccount) part(now time.Time, m *smpp.Message, c smpp.Concat, text []byte) (whole []byte, complete bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := smscPartKey{from: m.Source.Addr, to: m.Dest.Addr, ref: c.Ref, wide: c.Wide, total: c.Total}
	p := a.parts[key]
	if p == nil || now.Sub(p.since) > partsExpire {
		if len(a.parts) >= maxIncomplete {
			a.expireParts(now)
		}
		if a.parts == nil {
			a.parts = map[smscPartKey]*smscParts{}
		}
		p = &smscParts{since: now, texts: make([][]byte, c.Total)}
		a.parts[key] = p
	}
	if p.texts[c.Seq-1] == nil {
		p.have++
	}
	p.texts[c.Seq-1] = append(make([]byte, 0, len(text)+1), text...)
	if p.have < int(c.Total) {
		return nil, false
	}
	delete(a.parts, key)
	for _, t := range p.texts {
		whole = append(whole, t...)
	}
	return whole, true
}

// expireParts makes room: every message that is too old goes, and when that is not enough any quarter of the others, so
// that the cost of looking is shared by many parts.
func (a *smscAccount) expireParts(now time.Time) {
	for key, p := range a.parts {
		if now.Sub(p.since) > partsExpire {
			delete(a.parts, key)
		}
	}
	if len(a.parts) < maxIncomplete {
		return
	}
	for key := range a.parts {
		if len(a.parts) <= maxIncomplete*3/4 {
			return
		}
		delete(a.parts, key)
	}
}
