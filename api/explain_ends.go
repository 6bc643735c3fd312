package api

import (
	"fmt"
	"strings"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

func (s *situation) arrived(e *sdk.Explanation) {
	e.Until = nil
	via := s.via()
	if w := s.won(); w >= 0 && s.legs[w] != "" {
		via = "connector " + s.legs[w]
	}
	e.Summary = fmt.Sprintf("%s reports that it was %s at %s.", upper(via), s.msg.Status, stamp(s.since()))
}

func (s *situation) undelivered(e *sdk.Explanation) {
	e.Until = nil
	e.Summary = fmt.Sprintf("%s took it and reports that it did not arrive (%s).", upper(s.via()), s.code())
	if s.msg.Channel != delivery.Email {
		e.WouldChange = append(e.WouldChange, "a later receipt that says otherwise")
	}
	e.WouldChange = append(e.WouldChange, "check the address, then send a new message")
}

// again says how a dead letter is sent once more. What was put away is sent as a new message only.
func (s *situation) again(e *sdk.Explanation, first string) {
	if s.msg.Dropped {
		e.WouldChange = append(e.WouldChange, first+"send a new message: this one was put away")
		return
	}
	e.WouldChange = append(e.WouldChange, first+"send it again: msgctl dlq retry "+s.msg.ID.String())
}

func (s *situation) failed(e *sdk.Explanation) {
	e.Until = nil
	switch {
	case s.msg.Reason == "render_failed":
		e.Summary = "Its template could not be rendered: " + strings.TrimSuffix(s.msg.Detail, ".") + "."
		e.WouldChange = append(e.WouldChange,
			"correct the template or the variables and send a new message: msgctl template render")
		return
	case s.msg.Reason == "ambiguous":
		e.Summary = "An attempt ended without an answer, and the tenant's policy is to fail then; it may have arrived."
		e.WouldChange = append(e.WouldChange, "a late receipt from the provider")
		s.again(e, "if it may arrive twice, ")
		return
	case s.msg.Reason == reasonExhausted:
		e.Summary = "The next attempt would have come later than the tenant's schedule allows"
		if s.msg.Detail != "" {
			e.Summary += ": " + strings.TrimSuffix(s.msg.Detail, ".")
		}
		e.Summary += "."
		e.WouldChange = append(e.WouldChange, "the tenant's schedule: msgctl retry ls")
		s.again(e, "")
		return
	case s.msg.Reason == reasonPoison:
		e.Summary = "The engine stopped several times while it had this message, so that it does not try it any more"
		if s.msg.Detail != "" {
			e.Summary += " (" + strings.TrimSuffix(s.msg.Detail, ".") + ")"
		}
		e.Summary += "."
		s.again(e, "once the cause in the engine's log is mended, ")
		return
	case s.msg.Attempts == 0:
		e.Summary = "It failed before an attempt was made (" + s.code() + ")."
	default:
		e.Summary = fmt.Sprintf("%s refused it for good at attempt %d (%s).", upper(s.via()), s.msg.Attempts, s.code())
	}
	e.WouldChange = append(e.WouldChange, "when the message itself is at fault, correct it and send a new message")
	s.again(e, "when the cause is solved, ")
}

func (s *situation) suppressed(e *sdk.Explanation) {
	e.Until = nil
	what, to := s.msg.Reason, s.msg.To
	if s.cause == nil {
		e.Summary = "It was not sent because the address was on the suppression list (" + orWord(what) +
			"); it is not any more."
		e.WouldChange = append(e.WouldChange, "send a new message")
		return
	}
	e.Reason = s.cause.Reason
	e.Summary = fmt.Sprintf("It was not sent because the address is on the suppression list since %s (%s, from %s).",
		stamp(s.cause.At), orWord(s.cause.Reason), orWord(s.cause.Source))
	remove := "msgctl suppress rm " + to
	if s.cause.Channel != 0 {
		remove += " --channel " + s.cause.Channel.String()
	}
	e.WouldChange = append(e.WouldChange, remove+", if the person agrees, then send a new message")
}

func (s *situation) expired(e *sdk.Explanation) {
	e.Until = nil
	e.Summary = "Its time ran out at " + stamp(s.msg.ExpiresAt) + " before a hand-off"
	if f, ok := s.last(delivery.FactDeferred, delivery.FactHeld); ok {
		e.Summary += "; it waited last because of " + orWord(f.Code)
		if f.Detail != "" {
			e.Summary += " (" + strings.TrimSuffix(f.Detail, ".") + ")"
		}
	}
	e.Summary += "."
	e.WouldChange = append(e.WouldChange, "give such messages more time: msgctl send --ttl")
	s.again(e, "")
}

func (s *situation) canceled(e *sdk.Explanation) {
	e.Until = nil
	e.Summary = "It was canceled at " + stamp(s.since()) + " and never handed off."
	if s.campaign != "" {
		e.Summary = "It was canceled at " + stamp(s.since()) + ", with its campaign " + s.campaign +
			" or by itself, and never handed off."
	}
}

func (s *situation) unknown(e *sdk.Explanation) {
	e.Until = nil
	how := "It was to be sent at most once, and the one attempt at " + s.via() + " ended without a decisive answer"
	switch {
	case s.msg.AtMostOnce:
	case s.msg.Reason == store.ReasonExpired:
		how = "Its time ran out while its attempt at " + s.via() + " was in doubt"
	case s.msg.Attempts > 1:
		how = fmt.Sprintf("It was given up after %d attempts, the last at %s without a decisive answer", s.msg.Attempts,
			s.via())
	}
	e.Summary = how + ": nobody knows whether it arrived."
	e.WouldChange = append(e.WouldChange, "a late receipt from the provider")
	s.again(e, "if it may arrive twice, ")
}

// byHand tells what people have done with a dead letter.
func (s *situation) byHand() string {
	told := ""
	for i := len(s.facts) - 1; i > 0; i-- {
		if f := s.facts[i]; f.Kind == delivery.FactRedriven {
			told = " Somebody sent it again at " + stamp(f.At) + ", after it had ended as " + s.facts[i-1].Status.String() + "."
			break
		}
	}
	if !s.msg.Dropped {
		return told
	}
	told += " Somebody put it away"
	if f, ok := s.last(delivery.FactDropped); ok {
		told += " at " + stamp(f.At)
	}
	return told + ", so that it is listed among the dead letters no more."
}
