package api

import (
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// The bounds of the time that a leg has.
const (
	minWithin = time.Second
	maxWithin = maxLife
)

// fallback checks the further legs of a message, and the time and aim of each of its legs. Each leg is checked as a
// message of its channel would be; no two share a channel, because a receipt finds its leg by that.
func (k *checker) fallback(in *messageIn, m *checked, f *faults) error {
	if len(in.Fallback) == 0 {
		if in.Within != "" {
			f.add("/within", "field_not_allowed", "within belongs to a message with a fallback; for a message alone use ttl")
		}
		if in.Until != "" {
			f.add("/until", "field_not_allowed", "until belongs to a message with a fallback")
		}
		return nil
	}
	if n := len(in.Fallback); n > store.MaxLegs-1 {
		f.add("/fallback", "invalid_value", "a message has at most %d further legs, here are %d", store.MaxLegs-1, n)
		return nil
	}
	m.Success = aim(in.Until, m.Channel, "/until", f)
	m.Within = within(in.Within, "/within", f)
	seen := map[delivery.Channel]string{m.Channel: "the message itself"}
	m.Then = make([]store.NewLeg, 0, len(in.Fallback))
	for i := range in.Fallback {
		at := "/fallback/" + itoa(i)
		asked := in.Fallback[i].message()
		var own faults
		leg, err := k.leg(&asked, &own)
		if err != nil {
			var bad *sdk.Error
			if !errors.As(err, &bad) {
				return err
			}
			own.list = append(own.list, bad.Fields...)
		}
		f.below(at, own)
		if leg.Channel == 0 {
			continue
		}
		if who, taken := seen[leg.Channel]; taken {
			f.add(at+"/channel", "invalid_value", "%s goes by %s already: each leg needs a channel of its own", who, leg.Channel)
		}
		seen[leg.Channel] = at
		leg.Success = aim(asked.Until, leg.Channel, at+"/until", f)
		if i == len(in.Fallback)-1 && asked.Within != "" {
			f.add(at+"/within", "field_not_allowed", "nothing follows the last leg: it has the rest of the message's time")
		} else {
			leg.Within = within(asked.Within, at+"/within", f)
		}
		m.Then = append(m.Then, leg.NewLeg)
	}
	if len(f.list) == 0 {
		enoughTime(m, f)
	}
	return nil
}

// enoughTime refuses legs that would take all the time that the message has: the leg after them could never begin, and
// a message that its provider took would end as expired.
func enoughTime(m *checked, f *faults) {
	life, used, at := m.ExpiresAt.Sub(m.DueAt), m.Within, "/within"
	for i := range m.Then {
		if used >= life {
			f.add(at, "invalid_time", "the legs up to this one may take %s and the message expires after %s, so that the next "+
				"leg would never begin: shorten within or give the message a longer ttl", short(used), short(life))
			return
		}
		used += m.Then[i].Within
		at = "/fallback/" + itoa(i) + "/within"
	}
}

// within reads how long a leg has; absent = no limit of its own.
func within(text, pointer string, f *faults) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minWithin || d > maxWithin {
		f.add(pointer, "invalid_time", "use a duration from 1s to 168h, as in 5m")
		return 0
	}
	return d
}

// aim reads what a leg must reach. A mail and a call of a URL have arrived when they are taken: what else is known of
// them comes late or never, so that they aim at sent unless another aim is asked for.
func aim(text string, ch delivery.Channel, pointer string, f *faults) delivery.Status {
	if text == "" {
		if ch == delivery.Email || ch == delivery.Webhook {
			return delivery.StatusSent
		}
		return delivery.StatusDelivered
	}
	s, err := delivery.ParseStatus(text)
	switch {
	case err != nil, s != delivery.StatusSent && s != delivery.StatusDelivered && s != delivery.StatusRead:
		f.add(pointer, "invalid_value", "there is no aim %s: use sent, delivered or read", quoted(text))
		return 0
	case s != delivery.StatusSent && !reports(ch, s):
		f.add(pointer, "invalid_value", "receipts of %s never say %s: use sent or delivered", ch, s)
		return 0
	}
	return s
}

// reports tells whether the receipts of a channel know a status.
func reports(ch delivery.Channel, s delivery.Status) bool {
	_, known := delivery.AfterReceipt(ch, delivery.StatusSent, s)
	return known
}

// mark checks a word by which people or rules find a message again: what cannot be seen in it would keep it from being
// found. max is in characters.
func mark(pointer, s string, max int, f *faults) {
	name := pointer[strings.LastIndexByte(pointer, '/')+1:]
	switch {
	case len(s) > max && utf8.RuneCountInString(s) > max:
		f.add(pointer, "text_too_long", "%s has at most %d characters", name, max)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		f.add(pointer, "control_character", "%s has a character that cannot be printed", name)
	}
}

// short writes a duration as people do: 5m and not 5m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
