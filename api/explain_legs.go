package api

import (
	"fmt"
	"strings"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// course tells of the legs of a message that has more than one: which had no success, how long this one has, and what
// comes then.
func (s *situation) course() string {
	m := &s.msg
	if len(m.Legs) < 2 || m.Leg >= len(m.Legs) {
		return ""
	}
	var b strings.Builder
	for _, l := range m.Legs[:m.Leg] {
		if l.Winner {
			continue // see winner
		}
		fmt.Fprintf(&b, " Its %s leg had no success (%s).", spoken(l.Channel), madeWay(l))
	}
	now := m.Legs[m.Leg]
	if m.Leg == len(m.Legs)-1 {
		return b.String()
	}
	then := spoken(m.Legs[m.Leg+1].Channel)
	switch name := spoken(now.Channel); {
	case s.won() >= 0:
		// Nothing follows a success.
	case m.Status == delivery.StatusUnknown, m.Status == delivery.StatusFailed && m.Reason == "ambiguous":
		fmt.Fprintf(&b, " Its %s leg does not begin: the person may have the message already.", then)
	case m.Status == delivery.StatusFailed:
		fmt.Fprintf(&b, " Its %s leg has not begun.", then)
	case m.Status.Terminal():
		// It waits for nothing.
	case !now.Until.IsZero() && now.Until.After(s.now):
		fmt.Fprintf(&b, " Its %s leg has until %s%s to be %s; then %s.", name, stamp(now.Until), s.in(now.Until), now.Success,
			then)
	case !now.Until.IsZero():
		fmt.Fprintf(&b, " The time of its %s leg is over: %s begins as soon as no attempt is under way or in doubt.", name,
			then)
	case now.Within > 0:
		fmt.Fprintf(&b, " Its %s leg will have %s to be %s; then %s.", name, short(now.Within), now.Success, then)
	default:
		fmt.Fprintf(&b, " When its %s leg is refused for good or not delivered, %s follows.", name, then)
	}
	return b.String()
}

// madeWay says why a leg was followed by the next one.
func madeWay(l store.MessageLeg) string {
	if l.Status == delivery.StatusSuppressed {
		return "its address is suppressed: " + orWord(l.Reason)
	}
	if l.Reason != store.ReasonLegTimeout {
		return orWord(l.Reason)
	}
	if l.Within > 0 {
		return fmt.Sprintf("it was not %s within %s", l.Success, short(l.Within))
	}
	return fmt.Sprintf("it was not %s in time", l.Success)
}

// won returns the leg that the message counts by, or -1.
func (s *situation) won() int {
	for i, l := range s.msg.Legs {
		if l.Winner {
			return i
		}
	}
	return -1
}

// winner tells of a leg that had its success after the next one had begun.
func (s *situation) winner() string {
	w, m := s.won(), &s.msg
	if w < 0 || w >= m.Leg {
		return ""
	}
	name, later := spoken(m.Legs[w].Channel), m.Legs[m.Leg]
	told := fmt.Sprintf(" Its %s leg had success late, after %s had begun: it counts once, by %s.", name,
		spoken(m.Legs[w+1].Channel), name)
	if handedOver(later.Status) {
		return told + fmt.Sprintf(" The %s was handed over too, so that the person may have both.", spoken(later.Channel))
	}
	return told + fmt.Sprintf(" The %s was not handed over and never will be.", spoken(later.Channel))
}

// handedOver reports whether a provider took a leg, or may have taken it.
func handedOver(s delivery.Status) bool {
	switch s {
	case delivery.StatusSent, delivery.StatusDelivered, delivery.StatusRead, delivery.StatusUndelivered,
		delivery.StatusUnknown, delivery.StatusAmbiguous, delivery.StatusSending:
		return true
	}
	return false
}

// spoken is a channel as people write it.
func spoken(ch delivery.Channel) string {
	switch ch {
	case delivery.SMS:
		return "SMS"
	case delivery.WhatsApp:
		return "WhatsApp"
	case delivery.Email:
		return "e-mail"
	}
	return ch.String()
}
