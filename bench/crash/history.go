// Package crash tells whether what a client gave, what the engine says and what the providers saw agree.
//
// Its tests kill, stop and drain the real engine in the middle of its work, and let Check judge the rest.
package crash

import (
	"fmt"
	"slices"
	"strings"
)

// Address is one recipient on one channel, as a provider's ledger names it.
type Address struct {
	Channel string // sms, whatsapp, email or webhook
	To      string
}

// Request is what a client asked for: one message to one recipient.
type Request struct {
	Address
	ID string // that the client was given; "" when it was given none, as in a campaign
}

// Record is one message as the engine's API shows it.
type Record struct {
	ID      string
	Address Address
	Status  string
	// Flagged is set when the engine says that the recipient may have got the message twice.
	Flagged bool
	// Doubts is how many attempts had no answer, by the engine's own history of the message.
	Doubts int
}

// Submission is one message that a provider took.
type Submission struct {
	Address
	// Key lets the receiver know a message again and drop it; "" where the channel has nothing of the kind.
	Key string
}

// History is one run as its three witnesses tell it.
type History struct {
	Asked    []Request    // by the client: every recipient once
	Messages []Record     // by the engine, at the end
	Taken    []Submission // by the providers
}

// The ways in which an attempt without an answer is settled, as connectors declare them.
const (
	dedupeKey = "dedupe_key" // the receiver drops a second copy by its key
	correlate = "correlate"  // a receipt tells
	none      = "none"       // nobody can know
)

// ambiguity returns how the lab's connectors of a channel settle an attempt without an answer.
func ambiguity(channel string) string {
	switch channel {
	case "webhook":
		return dedupeKey
	case "whatsapp":
		return correlate
	}
	return none
}

// Verdict counts what a history shows. The lists are the failures, each entry a line for a person.
type Verdict struct {
	Acknowledged int // messages the engine has accepted
	Duplicated   int // recipients who got more than one copy
	Flagged      int // messages the engine owns up to

	Copies  map[string]int // copies above the first, by the way in which the channel settles doubts
	Repeats int            // of messages that their receiver dropped, because it knew the key
	Doubts  int            // attempts without an answer, of flagged messages
	Unknown int            // messages of which the engine says at the end that nobody can know

	Lost       []string // asked for or acknowledged, and not in the engine or never taken by a provider
	Unexpected []string // taken or stored, and nobody asked for it; stored twice
	Unflagged  []string // taken more than once without a word
	Excess     []string // more copies than doubts, or a copy where none may ever be

	Suspects []string // ids of some messages with too many copies, for whoever looks for the cause
}

// OK reports whether nothing was lost, nothing came from nowhere, and every second copy had a cause and was owned up
// to.
func (v Verdict) OK() bool {
	return len(v.Lost)+len(v.Unexpected)+len(v.Unflagged)+len(v.Excess) == 0
}

// Explain lists the failures: at most ten of each kind.
func (v Verdict) Explain() string {
	var b strings.Builder
	for _, part := range []struct {
		name  string
		lines []string
	}{{"lost", v.Lost}, {"unexpected", v.Unexpected}, {"unflagged", v.Unflagged}, {"excess", v.Excess}} {
		for i, line := range part.lines {
			if i == 10 {
				fmt.Fprintf(&b, "%s: and %d more\n", part.name, len(part.lines)-i)
				break
			}
			fmt.Fprintf(&b, "%s: %s\n", part.name, line)
		}
	}
	return b.String()
}

// tally is what the witnesses say about one address.
type tally struct {
	asked, acked bool
	id           string  // that the client was given
	record       *Record // nil = the engine has none
	taken        int
	keys         []string // that submissions carried, each once
	bare         int      // submissions without a key
}

// copies is how often the person at the address got the message.
func (t *tally) copies() int { return t.bare + len(t.keys) }

// Check judges a history. It reads nothing else and keeps nothing. A run of a million messages takes some 300 MB.
func Check(h History) Verdict {
	v := Verdict{Acknowledged: len(h.Messages), Copies: map[string]int{dedupeKey: 0, correlate: 0, none: 0}}
	tallies := make([]tally, 0, len(h.Asked))
	places := make(map[Address]int, len(h.Asked))
	at := func(a Address) *tally {
		i, found := places[a]
		if !found {
			i = len(tallies)
			places[a], tallies = i, append(tallies, tally{})
		}
		return &tallies[i]
	}
	for _, r := range h.Asked {
		t := at(r.Address)
		t.asked, t.acked, t.id = true, r.ID != "", r.ID
	}
	for i := range h.Messages {
		v.stored(at(h.Messages[i].Address), &h.Messages[i])
	}
	for _, s := range h.Taken {
		t := at(s.Address)
		t.taken++
		if s.Key == "" {
			t.bare++
		} else if !slices.Contains(t.keys, s.Key) {
			t.keys = append(t.keys, s.Key)
		}
	}
	for a, i := range places {
		t := &tallies[i]
		v.missing(a, t)
		v.copied(a, t)
	}
	for _, lines := range [][]string{v.Lost, v.Unexpected, v.Unflagged, v.Excess} {
		slices.Sort(lines) // so that the same history always reads the same
	}
	return v
}

// stored looks at a message that the engine has.
func (v *Verdict) stored(t *tally, m *Record) {
	if m.Flagged {
		v.Flagged++
		v.Doubts += m.Doubts
	}
	if m.Status == "unknown" {
		v.Unknown++
	}
	switch {
	case !t.asked:
		v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s: message %s was not asked for", m.Address, m.ID))
	case t.record != nil:
		v.Unexpected = append(v.Unexpected,
			fmt.Sprintf("%s: messages %s and %s for one request", m.Address, t.record.ID, m.ID))
	}
	if t.record == nil || t.acked && t.id == m.ID {
		t.record = m
	}
}

// missing says what is not there of a request. A message that ended as unknown is not lost: the engine says that it
// cannot know, after it has tried.
func (v *Verdict) missing(a Address, t *tally) {
	lost := func(format string, args ...any) {
		v.Lost = append(v.Lost, a.String()+": "+fmt.Sprintf(format, args...))
	}
	switch {
	case !t.asked:
	case t.record == nil && t.acked:
		lost("message %s was acknowledged and is gone", t.id)
	case t.record == nil:
		lost("the engine has no message")
	case t.acked && t.record.ID != t.id:
		lost("message %s was acknowledged and is gone; there is %s", t.id, t.record.ID)
	case t.taken == 0 && t.record.Status != "unknown":
		lost("message %s is %s and never reached a provider", t.record.ID, t.record.Status)
	}
}

// copied judges what providers took.
func (v *Verdict) copied(a Address, t *tally) {
	v.Repeats += t.taken - t.copies()
	if !t.asked && t.taken > 0 {
		v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s: taken %d times, and nobody asked for it", a, t.taken))
	}
	if n, kind := t.copies(), ambiguity(a.Channel); n > 1 {
		v.Duplicated++
		v.Copies[kind] += n - 1
		if kind != none {
			v.suspect(&v.Excess, t, "%s: %d copies, and %s promises one", a, n, kind)
		}
	}
	switch m := t.record; {
	case t.taken < 2 || m == nil:
	case !m.Flagged:
		v.suspect(&v.Unflagged, t, "%s: message %s was taken %d times", a, m.ID, t.taken)
	case t.taken-1 > m.Doubts:
		v.suspect(&v.Excess, t, "%s: message %s was taken %d times, and only %d attempts had no answer",
			a, m.ID, t.taken, m.Doubts)
	}
}

// suspect adds a line to a list of failures.
func (v *Verdict) suspect(list *[]string, t *tally, format string, args ...any) {
	*list = append(*list, fmt.Sprintf(format, args...))
	if t.record != nil && len(v.Suspects) < 5 {
		v.Suspects = append(v.Suspects, t.record.ID)
	}
}

func (a Address) String() string { return a.Channel + " " + a.To }
