package crash

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func sms(to string) Address { return Address{"sms", to} }

// The addresses of clean.
var (
	mail = Address{"email", "a@b.test"}
	hook = Address{"webhook", "/sim/hook/200/a"}
	chat = Address{"whatsapp", "+3"}
)

// clean is a history without a fault: five people. One got a second copy and one a repeat that was dropped, and the
// engine owns up to both.
func clean() History {
	return History{
		Asked: []Request{{sms("+1"), "m1"}, {sms("+2"), ""}, {mail, "m3"}, {hook, "m4"}, {chat, "m5"}},
		Messages: []Record{
			{"m1", sms("+1"), "delivered", false, 0}, {"m2", sms("+2"), "sent", true, 1}, {"m3", mail, "sent", false, 0},
			{"m4", hook, "sent", true, 1}, {"m5", chat, "read", false, 0},
		},
		Taken: []Submission{
			{sms("+1"), ""}, {sms("+2"), ""}, {sms("+2"), ""}, {mail, ""}, {hook, "m4"}, {hook, "m4"}, {chat, ""},
		},
	}
}

// The faults that doctor plants. MSGCTL_CRASH_PLANT=fault plants one into the history of TestKill, which must then
// fail.
const (
	plantLost      = "lost"      // a provider never saw the first person
	plantUnflagged = "unflagged" // the first person got a second copy, and the engine does not say so
	plantForeign   = "foreign"   // a provider saw somebody nobody asked for
	plantForgotten = "forgotten" // the engine has lost the first message
	plantExcess    = "excess"    // the first person got more copies than there were doubts
	plantKeyless   = "keyless"   // a second copy that its receiver could not know again
)

// doctor returns h with a fault planted; without a fault, h as it is.
func doctor(h History, fault string) History {
	victim := h.Messages[0]
	others := func(in []Submission) []Submission {
		return slices.DeleteFunc(slices.Clone(in), func(s Submission) bool { return s.Address == victim.Address })
	}
	record := func(r Record) { h.Messages = append([]Record{r}, h.Messages[1:]...) }
	once := Submission{Address: victim.Address}
	switch fault {
	case plantLost:
		h.Taken = others(h.Taken)
	case plantUnflagged:
		h.Taken = append(others(h.Taken), once, once)
		record(Record{ID: victim.ID, Address: victim.Address, Status: victim.Status})
	case plantForeign:
		h.Taken = append(slices.Clone(h.Taken), Submission{Address: Address{victim.Address.Channel, "nobody"}})
	case plantForgotten:
		h.Messages = h.Messages[1:]
	case plantExcess:
		h.Taken = append(others(h.Taken), once, once, once)
		record(Record{ID: victim.ID, Address: victim.Address, Status: victim.Status, Flagged: true, Doubts: 1})
	case plantKeyless:
		i := slices.IndexFunc(h.Taken, func(s Submission) bool { return s.Key != "" })
		h.Taken = append(slices.Clone(h.Taken), Submission{h.Taken[i].Address, "another"})
	}
	return h
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                                string
		change                              func(*History)
		lost, unexpected, unflagged, excess []string
	}{
		{name: "nothing wrong", change: func(*History) {}},
		{
			name: "a person lost at the provider", change: func(h *History) { *h = doctor(*h, plantLost) },
			lost: []string{"sms +1: message m1 is delivered and never reached a provider"},
		},
		{
			name:   "an end of which nobody can know what it was",
			change: func(h *History) { *h = doctor(*h, plantLost); h.Messages[0].Status = "unknown" },
		},
		{
			name: "a second copy without a word", change: func(h *History) { *h = doctor(*h, plantUnflagged) },
			unflagged: []string{"sms +1: message m1 was taken 2 times"},
		},
		{
			name: "a message from nowhere", change: func(h *History) { *h = doctor(*h, plantForeign) },
			unexpected: []string{"sms nobody: taken 1 times, and nobody asked for it"},
		},
		{
			name: "a message the engine forgot", change: func(h *History) { *h = doctor(*h, plantForgotten) },
			lost: []string{"sms +1: message m1 was acknowledged and is gone"},
		},
		{
			name:   "a message of a campaign the engine forgot",
			change: func(h *History) { h.Messages = slices.Delete(h.Messages, 1, 2) },
			lost:   []string{"sms +2: the engine has no message"},
		},
		{
			name:   "another message than the one acknowledged",
			change: func(h *History) { h.Messages[0].ID = "m9" },
			lost:   []string{"sms +1: message m1 was acknowledged and is gone; there is m9"},
		},
		{
			name:       "a request stored twice",
			change:     func(h *History) { h.Messages = append(h.Messages, Record{ID: "m9", Address: sms("+1")}) },
			unexpected: []string{"sms +1: messages m1 and m9 for one request"},
		},
		{
			name:       "a message stored for nobody",
			change:     func(h *History) { h.Messages = append(h.Messages, Record{ID: "m9", Address: sms("+9")}) },
			unexpected: []string{"sms +9: message m9 was not asked for"},
		},
		{
			name: "the right number on the wrong channel",
			change: func(h *History) {
				h.Taken[0].Channel = "whatsapp"
			},
			lost:       []string{"sms +1: message m1 is delivered and never reached a provider"},
			unexpected: []string{"whatsapp +1: taken 1 times, and nobody asked for it"},
		},
		{
			name: "more copies than doubts", change: func(h *History) { *h = doctor(*h, plantExcess) },
			excess: []string{"sms +1: message m1 was taken 3 times, and only 1 attempts had no answer"},
		},
		{
			name: "a flag without a doubt", change: func(h *History) { h.Messages[1].Doubts = 0 },
			excess: []string{"sms +2: message m2 was taken 2 times, and only 0 attempts had no answer"},
		},
		{
			name: "another key for the same webhook",
			change: func(h *History) {
				*h = doctor(*h, plantKeyless)
				h.Messages[3].Doubts = 2
			},
			excess: []string{"webhook /sim/hook/200/a: 2 copies, and dedupe_key promises one"},
		},
		{
			name:      "a repeat without a word, though it was dropped",
			change:    func(h *History) { h.Messages[3].Flagged = false },
			unflagged: []string{"webhook /sim/hook/200/a: message m4 was taken 2 times"},
		},
		{
			name: "a second copy although receipts tell",
			change: func(h *History) {
				h.Taken = append(h.Taken, Submission{Address: chat})
				h.Messages[4].Flagged, h.Messages[4].Doubts = true, 1
			},
			excess: []string{"whatsapp +3: 2 copies, and correlate promises one"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := clean()
			tc.change(&h)
			v := Check(h)
			require.Equal(t, tc.lost, v.Lost)
			require.Equal(t, tc.unexpected, v.Unexpected)
			require.Equal(t, tc.unflagged, v.Unflagged)
			require.Equal(t, tc.excess, v.Excess)
			all := slices.Concat(tc.lost, tc.unexpected, tc.unflagged, tc.excess)
			require.Equal(t, len(all) == 0, v.OK())
			for _, line := range all {
				require.Contains(t, v.Explain(), line)
			}
		})
	}
	v := Check(clean())
	require.Equal(t, 5, v.Acknowledged)
	require.Equal(t, 1, v.Duplicated)
	require.Equal(t, 2, v.Flagged)
	require.Equal(t, 1, v.Repeats)
	require.Equal(t, 2, v.Doubts)
	require.Equal(t, map[string]int{dedupeKey: 0, correlate: 0, none: 1}, v.Copies)
}
