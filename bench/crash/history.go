// Package crash tells whether what a client gave, what the engine says and what the providers saw agree.
//
// Its tests kill, stop and drain the real engine in the middle of its work, and let Check judge the rest.
package crash

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Address is one recipient on one channel, as a provider's ledger names it.
type Address struct {
	Channel string // sms, whatsapp, email or webhook
	To      string
}

// Record is one message as the engine's API shows it.
type Record struct {
	ID      string
	Address Address
	// Flagged is set when the engine says that the recipient may have got the message twice.
	Flagged bool
}

// History is one run as its three witnesses tell it.
type History struct {
	Asked    []Address // by the client: every recipient once
	Acked    []string  // ids that the client was given; nil when it was given none, as in a campaign
	Messages []Record  // by the engine, at the end
	Taken    []Address // by the providers: one entry for each submission they took
}

// Verdict counts what a history shows. The four lists are the failures, each entry a line for a person.
type Verdict struct {
	Acknowledged int // messages the engine has accepted
	Duplicated   int // recipients whom a provider took more than once
	Flagged      int // messages the engine owns up to

	Lost       []string // asked for or acknowledged, and not in the engine or never taken by a provider
	Unexpected []string // taken or stored, and nobody asked for it; stored twice
	Unflagged  []string // taken more than once without a word
}

// OK reports whether nothing was lost, nothing came from nowhere, and every second copy was owned up to.
func (v Verdict) OK() bool { return len(v.Lost)+len(v.Unexpected)+len(v.Unflagged) == 0 }

// Explain lists the failures: at most ten of each kind.
func (v Verdict) Explain() string {
	var b strings.Builder
	for _, part := range []struct {
		name  string
		lines []string
	}{{"lost", v.Lost}, {"unexpected", v.Unexpected}, {"unflagged", v.Unflagged}} {
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

// Check judges a history. It reads nothing else and keeps nothing.
func Check(h History) Verdict {
	v := Verdict{Acknowledged: len(h.Messages)}
	asked := make(map[Address]bool, len(h.Asked))
	for _, a := range h.Asked {
		asked[a] = true
	}
	taken := counts(h.Taken)
	stored := make(map[Address]Record, len(h.Messages))
	ids := make(map[string]bool, len(h.Messages))
	for _, m := range h.Messages {
		if m.Flagged {
			v.Flagged++
		}
		switch first, twice := stored[m.Address]; {
		case !asked[m.Address]:
			v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s: message %s was not asked for", m.Address, m.ID))
		case twice:
			v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s: messages %s and %s for one request", m.Address, first.ID, m.ID))
		}
		stored[m.Address], ids[m.ID] = m, true
	}
	for _, id := range h.Acked {
		if !ids[id] {
			v.Lost = append(v.Lost, fmt.Sprintf("message %s was acknowledged and is gone", id))
		}
	}
	for _, a := range sorted(asked) {
		if m, found := stored[a]; !found {
			v.Lost = append(v.Lost, fmt.Sprintf("%s: the engine has no message", a))
		} else if taken[a] == 0 {
			v.Lost = append(v.Lost, fmt.Sprintf("%s: message %s never reached a provider", a, m.ID))
		}
	}
	for _, a := range sorted(taken) {
		if n := taken[a]; n > 1 {
			v.Duplicated++
			if m, found := stored[a]; found && !m.Flagged {
				v.Unflagged = append(v.Unflagged, fmt.Sprintf("%s: message %s was taken %d times", a, m.ID, n))
			}
		}
		if !asked[a] {
			v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s: taken %d times, and nobody asked for it", a, taken[a]))
		}
	}
	return v
}

// counts returns how often each address stands in list.
func counts(list []Address) map[Address]int {
	m := make(map[Address]int, len(list))
	for _, a := range list {
		m[a]++
	}
	return m
}

func (a Address) String() string { return a.Channel + " " + a.To }

// sorted returns the keys of m in a fixed order, so that the same history always reads the same.
func sorted[V any](m map[Address]V) []Address {
	out := make([]Address, 0, len(m))
	for a := range m {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Address) int {
		return cmp.Or(strings.Compare(a.Channel, b.Channel), strings.Compare(a.To, b.To))
	})
	return out
}
