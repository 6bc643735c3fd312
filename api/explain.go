package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/sdk"
	"github.com/msgctl/msgctl/store"
)

// Reasons of the pipeline that have words of their own here.
const (
	reasonInDoubt   = "in_doubt"            // only the account of an attempt in doubt may try again, and it is gone
	reasonJournal   = "journal_unavailable" // an attempt that cannot be noted down is not made
	reasonExhausted = "retries_exhausted"   // the tenant's schedule gives up
	reasonPoison    = "poison"              // the process ended with it several times
)

// maxAhead bounds how many messages in front of another one are counted.
const maxAhead = 10_000

// situation is all that an explanation is made of.
type situation struct {
	msg      store.Message
	facts    []delivery.Fact
	standing delivery.Standing // of the message's queue; zero = unknown, or nothing is in the way
	ahead    int
	account  string // names as people know them, "" = none
	campaign string
	legs     []string           // the connector of each leg, as people know it
	before   string             // the message that this one waits for, by its ordering key; "" = none is known
	cause    *store.Suppression // what suppresses the address now, if anything
	now      time.Time
}

// explainMessage says why a message is where it is.
func explainMessage(c *call) error {
	m, err := c.stored()
	if err != nil {
		return err
	}
	s := situation{msg: m, now: c.a.Now()}
	if s.facts, err = c.a.Store.Facts(c.ctx(), c.tenant, m.ID); err != nil {
		return err
	}
	n, err := c.names()
	if err != nil {
		return err
	}
	s.account, s.campaign = n.account(m.Account), n.campaign(m.Campaign)
	for _, l := range m.Legs {
		s.legs = append(s.legs, n.account(l.Account))
	}
	if m.Status == delivery.StatusHeld && m.Reason == store.ReasonOrdered {
		if s.before, err = c.predecessor(m); err != nil {
			return err
		}
	}
	if m.Status.Waiting() && m.Status != delivery.StatusSending {
		s.ahead, err = c.a.Store.Ahead(c.ctx(), c.tenant, m.ID, maxAhead)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if c.a.Traffic != nil {
			s.standing, _ = c.a.Traffic.Standing(delivery.Queue{Tenant: c.tenant, Channel: m.Channel, Lane: m.Lane})
		}
	}
	if m.Status == delivery.StatusSuppressed {
		if sup, found, err := c.a.Store.Suppressed(c.ctx(), c.tenant, m.Channel, m.To); err != nil {
			return err
		} else if found {
			s.cause = &sup
		}
	}
	return c.json(http.StatusOK, s.explain())
}

// predecessor finds the message that an ordered one waits for: the newest before it with the same key, as far as one
// page of the recipient's messages reaches.
func (c *call) predecessor(m store.Message) (string, error) {
	rows, err := c.a.Store.Messages(c.ctx(), c.tenant, store.MessageQuery{
		Channel: m.Channel, To: m.To, Before: m.ID, Limit: 100,
	})
	for _, earlier := range rows {
		if earlier.OrderingKey == m.OrderingKey {
			return earlier.ID.String(), err
		}
	}
	return "", err
}

// explain puts a situation into one sentence, with what would change it.
func (s *situation) explain() sdk.Explanation {
	m := &s.msg
	e := sdk.Explanation{
		ID: m.ID.String(), Status: sdk.Status(m.Status.String()), Reason: m.Reason,
		Since: when(s.since()), Until: when(m.DueAt), Ahead: s.ahead,
	}
	tell := map[delivery.Status]func(*situation, *sdk.Explanation){
		delivery.StatusScheduled:   (*situation).scheduled,
		delivery.StatusQueued:      (*situation).queued,
		delivery.StatusHeld:        (*situation).held,
		delivery.StatusDeferred:    (*situation).deferred,
		delivery.StatusSending:     (*situation).sending,
		delivery.StatusAmbiguous:   (*situation).ambiguous,
		delivery.StatusSent:        (*situation).sent,
		delivery.StatusDelivered:   (*situation).arrived,
		delivery.StatusRead:        (*situation).arrived,
		delivery.StatusUndelivered: (*situation).undelivered,
		delivery.StatusFailed:      (*situation).failed,
		delivery.StatusSuppressed:  (*situation).suppressed,
		delivery.StatusExpired:     (*situation).expired,
		delivery.StatusCanceled:    (*situation).canceled,
		delivery.StatusUnknown:     (*situation).unknown,
	}[m.Status]
	if tell == nil {
		e.Summary = "It is " + m.Status.String() + "."
		return e
	}
	tell(s, &e)
	e.Summary += s.course() + s.winner() + s.byHand()
	if m.Status.Waiting() && m.Status != delivery.StatusSending && m.Status != delivery.StatusAmbiguous {
		e.WouldChange = append(e.WouldChange, "stop it: msgctl message cancel "+m.ID.String())
	}
	if m.Status.Waiting() && !m.ExpiresAt.IsZero() {
		e.Summary += " It expires at " + stamp(m.ExpiresAt) + "."
	}
	if m.PossibleDuplicate && m.Status != delivery.StatusAmbiguous {
		e.Summary += " An earlier attempt may have reached the provider, so this one may be a duplicate."
	}
	return e
}

// since is when the message came to its present status: the first of its last facts that agree on it.
func (s *situation) since() time.Time {
	t := s.msg.UpdatedAt
	for i := len(s.facts) - 1; i >= 0; i-- {
		if s.facts[i].Status != s.msg.Status {
			break
		}
		t = s.facts[i].At
	}
	return t
}

// last is the newest fact of a kind.
func (s *situation) last(kinds ...delivery.FactKind) (delivery.Fact, bool) {
	for i := len(s.facts) - 1; i >= 0; i-- {
		for _, k := range kinds {
			if s.facts[i].Kind == k {
				return s.facts[i], true
			}
		}
	}
	return delivery.Fact{}, false
}

func (s *situation) scheduled(e *sdk.Explanation) {
	e.Summary = "It waits for its send_at, " + stamp(s.msg.DueAt) + s.in(s.msg.DueAt) + "."
	e.Ahead = 0
}

func (s *situation) queued(e *sdk.Explanation) {
	if s.standing.Reason != "" {
		e.Reason = s.standing.Reason
		e.Until = when(s.standing.Until)
		s.blocked(e, s.standing.Reason, s.standing.Account, "", s.standing.Until)
		return
	}
	e.Until = nil
	switch {
	case s.ahead >= maxAhead:
		e.Summary = fmt.Sprintf("It is due and waits for its turn: %d messages or more of its queue go first.", maxAhead)
	case s.ahead > 1:
		e.Summary = fmt.Sprintf("It is due and waits for its turn: %d messages of its queue go first.", s.ahead)
	case s.ahead == 1:
		e.Summary = "It is due and waits for its turn: one message of its queue goes first."
	default:
		e.Summary = "It is due and goes next; nothing stands in its way."
	}
	if f, ok := s.last(delivery.FactReturned, delivery.FactRedelivery); ok && f.Status == delivery.StatusQueued {
		e.Summary += " It was taken before and came back (" + f.Code + ")."
	}
	if s.ahead > 0 && s.msg.Lane != delivery.Urgent {
		e.WouldChange = append(e.WouldChange, "send such messages in the urgent lane: msgctl send --lane urgent")
	}
}

func (s *situation) held(e *sdk.Explanation) {
	account := s.account
	if s.standing.Reason == s.msg.Reason && s.standing.Account != "" {
		account = s.standing.Account
	}
	s.blocked(e, s.msg.Reason, account, s.msg.Detail, s.msg.DueAt)
}

// blocked tells what keeps a due message back.
func (s *situation) blocked(e *sdk.Explanation, reason, account, detail string, until time.Time) {
	connector := "the connector"
	if account != "" {
		connector = "connector " + account
	}
	why := ""
	if detail != "" {
		why = ": " + strings.TrimSuffix(detail, ".")
	}
	switch reason {
	case "rate_limited":
		limit := detail
		if limit == "" {
			limit = connector + "'s rate is used up"
			if s.standing.Reason == reason && s.standing.PerSecond > 0 {
				limit = fmt.Sprintf("the limit of %g per second at %s is used up", s.standing.PerSecond, connector)
			}
		}
		e.Summary = "It waits for a rate limit: " + limit + s.till(until) + "."
		e.WouldChange = append(e.WouldChange, "raise the tenant's limit: msgctl tenant set",
			"or the connector's rate: msgctl connector add")
	case "connector_paused":
		e.Summary = fmt.Sprintf("It is held because %s is paused%s.", connector, why)
		e.WouldChange = append(e.WouldChange, "msgctl connector resume "+orName(account),
			"or add another connector: msgctl connector add")
	case "connector_down":
		e.Summary = fmt.Sprintf("It is held because %s cannot work%s; the next try is%s.", connector, why, s.at(until))
		e.WouldChange = append(e.WouldChange, "find out why: msgctl connector test "+orName(account),
			"or add another connector: msgctl connector add")
	case "connector_busy":
		e.Summary = fmt.Sprintf("It is held because %s has more to do than it gets done%s; its turn is about%s.", connector, why,
			s.at(until))
		e.WouldChange = append(e.WouldChange, "find out how long the provider takes: msgctl connector test "+orName(account),
			"allow more attempts at once (setting concurrency): msgctl connector add",
			"or add another connector: msgctl connector add")
	case "no_connector":
		e.Summary = fmt.Sprintf("It is held because there is no connector for %s.", s.msg.Channel)
		e.WouldChange = append(e.WouldChange, "msgctl connector add")
	case store.ReasonCampaignPaused:
		e.Until = nil // its due time is only when somebody looks again
		e.Summary = fmt.Sprintf("It is held because its campaign %s is paused.", s.campaign)
		e.WouldChange = append(e.WouldChange, "msgctl campaign resume "+s.campaign)
	case store.ReasonOrdered:
		e.Until = nil // when the one before it is done
		e.Summary = fmt.Sprintf("It waits for the message before it with the ordering key %s, which is not handed off yet.",
			quoted(s.msg.OrderingKey))
		if s.before != "" {
			e.Summary = fmt.Sprintf("It waits for the message before it with the ordering key %s, %s, to be handed off or to "+
				"end.", quoted(s.msg.OrderingKey), s.before)
			e.WouldChange = append(e.WouldChange, "see what that one waits for: msgctl message explain "+s.before)
		}
	case reasonInDoubt:
		e.Summary = fmt.Sprintf("It is held because its last attempt is in doubt%s; the engine looks again%s.", why,
			s.at(until))
		e.WouldChange = append(e.WouldChange,
			"let another connector try, though it may then arrive twice: msgctl tenant set --reroute-in-doubt")
	case reasonJournal:
		e.Summary = fmt.Sprintf("It is held because the engine's journal of attempts cannot be written%s; the next try is%s.",
			why, s.at(until))
		e.WouldChange = append(e.WouldChange, "free or mend the disk that holds the engine's data: msgctl doctor")
	case "ambiguous":
		e.Summary = "It is held because an attempt ended without an answer, and the tenant's policy is to hold then."
		e.WouldChange = append(e.WouldChange, "a late receipt from the provider")
	case "":
		e.Summary = "It is held; the engine looks again" + s.at(until) + "."
	default:
		e.Summary = fmt.Sprintf("It is held (%s)%s; the engine looks again%s.", reason, why, s.at(until))
	}
}

func orName(account string) string {
	if account == "" {
		return "NAME"
	}
	return account
}

func (s *situation) deferred(e *sdk.Explanation) {
	e.Summary = fmt.Sprintf("Attempt %d at %s failed for now (%s); the next one is%s.",
		max(s.msg.Attempts, 1), s.via(), s.code(), s.at(s.msg.DueAt))
	if s.account != "" {
		e.WouldChange = append(e.WouldChange, "see what the provider says: msgctl connector test "+s.account)
	}
}

func (s *situation) sending(e *sdk.Explanation) {
	e.Summary = "A worker has it: its hand-off to " + s.via() + " is under way."
	if s.msg.DueAt.Before(s.now) {
		e.Summary = "A worker had it and did not come back in time; the engine takes it over now."
	}
}

func (s *situation) ambiguous(e *sdk.Explanation) {
	e.Summary = fmt.Sprintf("An attempt at %s ended without a decisive answer (%s), so it may have arrived. "+
		"The engine waits for a receipt until %s and then decides by the tenant's policy.",
		s.via(), s.code(), stamp(s.msg.DueAt))
	if s.msg.AtMostOnce {
		e.Summary += " It was sent with at_most_once, so there is no second attempt."
	}
	e.WouldChange = append(e.WouldChange, "a receipt from the provider",
		"the tenant's policy: msgctl tenant set --on-ambiguous")
}

func (s *situation) sent(e *sdk.Explanation) {
	e.Until = nil
	e.Summary = fmt.Sprintf("%s took it at %s; no receipt has said yet whether it arrived.", upper(s.via()),
		stamp(s.sentAt()))
	e.WouldChange = append(e.WouldChange, "a receipt from the provider, where it sends any")
}

func (s *situation) sentAt() time.Time {
	if f, ok := s.last(delivery.FactSent); ok {
		return f.At
	}
	return s.msg.UpdatedAt
}

// via names the connector in the middle of a sentence.
func (s *situation) via() string {
	if s.account == "" {
		return "the provider"
	}
	return "connector " + s.account
}

// code is the reason with what it means, as far as the provider said.
func (s *situation) code() string {
	if s.msg.Detail == "" {
		return orWord(s.msg.Reason)
	}
	return orWord(s.msg.Reason) + ": " + strings.TrimSuffix(s.msg.Detail, ".")
}

func (s *situation) at(t time.Time) string {
	if t.IsZero() {
		return " soon"
	}
	if !t.After(s.now) {
		return " now"
	}
	return " at " + stamp(t) + s.in(t)
}

func (s *situation) till(t time.Time) string {
	if !t.After(s.now) {
		return ""
	}
	return "; its turn is expected at " + stamp(t) + s.in(t)
}

// in is the distance to an instant that lies ahead, as people say it.
func (s *situation) in(t time.Time) string {
	d := t.Sub(s.now)
	switch {
	case d <= 0:
		return ""
	case d < time.Second:
		return " (in less than a second)"
	case d < time.Minute:
		return fmt.Sprintf(" (in %d s)", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf(" (in %d min)", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf(" (in %d h)", int(d.Hours()))
	}
	return fmt.Sprintf(" (in %d days)", int(d.Hours()/24))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func orWord(s string) string {
	if s == "" {
		return "no reason given"
	}
	return s
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
