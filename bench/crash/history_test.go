package crash

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func sms(to string) Address { return Address{"sms", to} }

// clean is a history without a fault: three people, one of them taken twice and owned up to.
func clean() History {
	return History{
		Asked: []Address{sms("+1"), sms("+2"), {"email", "a@b.test"}},
		Acked: []string{"m1", "m3"},
		Messages: []Record{
			{"m1", sms("+1"), false}, {"m2", sms("+2"), true}, {"m3", Address{"email", "a@b.test"}, false},
		},
		Taken: []Address{sms("+1"), sms("+2"), sms("+2"), {"email", "a@b.test"}},
	}
}

// The faults that doctor plants. MSGCTL_CRASH_PLANT=fault plants one into the history of TestKill, which must then fail.
const (
	plantLost      = "lost"      // a provider never saw the first person
	plantUnflagged = "unflagged" // the first person got a second copy, and the engine does not say so
	plantForeign   = "foreign"   // a provider saw somebody nobody asked for
	plantForgotten = "forgotten" // the engine has lost the first message
)

// doctor returns h with a fault planted; without a fault, h as it is.
func doctor(h History, fault string) History {
	victim := h.Messages[0]
	others := func(in []Address) (out []Address) {
		for _, a := range in {
			if a != victim.Address {
				out = append(out, a)
			}
		}
		return out
	}
	switch fault {
	case plantLost:
		h.Taken = others(h.Taken)
	case plantUnflagged:
		h.Taken = append(others(h.Taken), victim.Address, victim.Address)
		h.Messages = append([]Record{{victim.ID, victim.Address, false}}, h.Messages[1:]...)
	case plantForeign:
		h.Taken = append(h.Taken[:len(h.Taken):len(h.Taken)], Address{victim.Address.Channel, "nobody"})
	case plantForgotten:
		h.Messages = h.Messages[1:]
	}
	return h
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                        string
		change                      func(*History)
		lost, unexpected, unflagged []string
	}{
		{name: "nothing wrong", change: func(*History) {}},
		{
			name: "a person lost at the provider", change: func(h *History) { *h = doctor(*h, plantLost) },
			lost: []string{"sms +1: message m1 never reached a provider"},
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
			lost: []string{"message m1 was acknowledged and is gone", "sms +1: the engine has no message"},
		},
		{
			name:       "a request stored twice",
			change:     func(h *History) { h.Messages = append(h.Messages, Record{"m9", sms("+1"), false}) },
			unexpected: []string{"sms +1: messages m1 and m9 for one request"},
		},
		{
			name:       "a message stored for nobody",
			change:     func(h *History) { h.Messages = append(h.Messages, Record{"m9", sms("+9"), false}) },
			unexpected: []string{"sms +9: message m9 was not asked for"},
		},
		{
			name: "the right number on the wrong channel",
			change: func(h *History) {
				h.Taken[0].Channel = "whatsapp"
			},
			lost:       []string{"sms +1: message m1 never reached a provider"},
			unexpected: []string{"whatsapp +1: taken 1 times, and nobody asked for it"},
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
			require.Equal(t, len(tc.lost)+len(tc.unexpected)+len(tc.unflagged) == 0, v.OK())
			for _, line := range append(append(tc.lost, tc.unexpected...), tc.unflagged...) {
				require.Contains(t, v.Explain(), line)
			}
		})
	}
	v := Check(clean())
	require.Equal(t, 3, v.Acknowledged)
	require.Equal(t, 1, v.Duplicated)
	require.Equal(t, 1, v.Flagged)
}
