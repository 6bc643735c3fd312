package model_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/bench/model"
	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
)

// The model of one message: its row in the store, two nodes with a journal each that may crash or stand still at every
// step, a provider that may take a message and stay silent, receipts in any order and number, a sender who cancels, a
// person who opts out, a clock. Which moves are legal and how receipts join is asked of package delivery itself.

// phase is how far a node has come with a claim.
type phase uint8

const (
	idle    phase = iota
	claimed       // under lease, nothing written anywhere else
	begun         // "begin" stands in the journal
	taken         // the provider has it; its answer is on its way
	refused       // the provider refused it; its answer is on its way
	silent        // the provider never saw it, or says nothing
	heard         // the answer was read: out is known
	noted         // "end" stands in the journal
)

type node struct {
	phase   phase
	epoch   uint8
	leg     uint8
	down    bool // the process is gone
	stopped bool // the process stands still
	out     delivery.Status
	journal phase // idle, begun or noted: what a restart reads of the last attempt
	jEpoch  uint8
	jOut    delivery.Status
}

// broken promises, as they are found.
type fault uint8

const (
	fine fault = iota
	illegalMove
	sentAfterCancel
	sentAfterOptOut
	sentAfterExpiry
	sentAfterSuccess
	twiceUnmarked
	twiceAtMostOnce
	twiceDespiteKey
	twiceAfterAnswer
	withoutLease
	epochBack
	receiptBack
	twoLegsInDoubt
	cancelLied
)

var faults = map[fault]string{
	illegalMove:      "a move that the table does not have",
	sentAfterCancel:  "handed over after cancel was confirmed",
	sentAfterOptOut:  "claimed after the person opted out",
	sentAfterExpiry:  "handed over after it had expired",
	sentAfterSuccess: "claimed after an earlier leg had arrived",
	twiceUnmarked:    "a second hand-over without an attempt in doubt before it",
	twiceAtMostOnce:  "a second hand-over of an at-most-once message",
	twiceDespiteKey:  "a second copy although the provider deduplicates or reports in time",
	twiceAfterAnswer: "a second hand-over after an answer that had been written down",
	withoutLease:     "an attempt began under a lease that was over",
	epochBack:        "the epoch went back",
	receiptBack:      "a receipt moved the message back",
	twoLegsInDoubt:   "two legs in doubt or under way at once",
	cancelLied:       "cancel was confirmed although the message is not canceled",
}

type message struct {
	status     delivery.Status
	epoch      uint8
	owner      uint8 // node + 1
	leg        uint8
	open       bool // the outcome of the last claim is still to come
	marked     bool // possible duplicate
	doubted    bool // an attempt of this leg was in doubt
	leaseOver  bool
	windowOver bool
	legOver    bool
	late       bool // its time has run out
	optedOut   bool
	canceling  bool // only of a planted bug: cancel has looked, and not written
	canceled   bool // cancel was confirmed
	handed     bool // an earlier leg was handed off
	maybe      bool // an earlier leg was in doubt before it was refused
	sentKnown  bool // the store knows the provider's id of the current leg
	answered   bool // an answer "sent" was written down in a journal or the store
	copies     [2]uint8
	reported   [2]bool // the provider's receipt of that leg has come at least once
	arrived    [2]bool // one that says delivered has
	crashes    uint8
	nodes      [2]node
	fault      fault
}

// world is what stays the same during one check.
type world struct {
	kind       connectors.Ambiguity
	policy     string
	atMostOnce bool
	legs       uint8
	claims     uint8 // how many claims are looked at
	crashes    uint8
	bug        string
}

func (m *message) move(to delivery.Status, by delivery.Writer) {
	if !delivery.CanMove(m.status, to, by) && m.fault == fine {
		m.fault = illegalMove
	}
	m.status = to
}

func (m *message) broke(f fault) {
	if m.fault == fine {
		m.fault = f
	}
}

func claimable(s delivery.Status) bool {
	return s == delivery.StatusQueued || s == delivery.StatusDeferred
}

func (w *world) next(s message) (steps []model.Step[message]) {
	do := func(name string, change func(m *message)) {
		m := s
		change(&m)
		if m != s {
			steps = append(steps, model.Step[message]{Name: name, To: m})
		}
	}
	for i := range s.nodes {
		w.nodeSteps(s, i, do)
	}
	if s.status == delivery.StatusSending && !s.leaseOver {
		do("lease ends", func(m *message) { m.leaseOver = true })
	}
	if s.status == delivery.StatusSending && s.leaseOver {
		do("sweep takes back", func(m *message) { w.takeBack(m) })
	}
	if s.status == delivery.StatusAmbiguous && !s.windowOver && !w.receiptComes(&s) {
		do("window ends", func(m *message) { m.windowOver = true })
	}
	if s.status == delivery.StatusAmbiguous && s.windowOver {
		do("resolve", func(m *message) { w.resolve(m) })
	}
	if !s.late {
		do("time runs out", func(m *message) { m.late = true })
	}
	if s.late && claimable(s.status) {
		do("expire", func(m *message) { w.expire(m) })
	}
	if !s.optedOut {
		do("opt out", func(m *message) { m.optedOut = true })
	}
	w.cancelSteps(s, do)
	if s.leg+1 < w.legs && !s.legOver {
		do("leg's time ends", func(m *message) { m.legOver = true })
	}
	if s.legOver && s.leg+1 < w.legs {
		inDoubt := s.status == delivery.StatusSending || s.status == delivery.StatusAmbiguous ||
			s.doubted && s.status != delivery.StatusSent
		switch {
		case inDoubt && w.bug == "next leg while in doubt":
			do("next leg", func(m *message) { m.status = delivery.StatusQueued; m.nextLeg() })
		case inDoubt:
		case s.status == delivery.StatusSent:
			do("next leg", func(m *message) { m.move(delivery.StatusQueued, delivery.ByPlan); m.nextLeg() })
		case s.status == delivery.StatusDeferred:
			do("next leg", func(m *message) { m.move(delivery.StatusQueued, delivery.ByPlan); m.nextLeg() })
		case s.status == delivery.StatusQueued:
			do("next leg", func(m *message) { m.nextLeg() })
		}
	}
	for leg := range w.legs {
		if s.copies[leg] == 0 || !s.sentKnown && w.kind != connectors.Correlate && leg == s.leg {
			continue // nothing to report, or it is parked until the hand-off is known
		}
		for _, says := range []delivery.Status{delivery.StatusSent, delivery.StatusDelivered, delivery.StatusUndelivered} {
			do(fmt.Sprintf("receipt %s of leg %d", says, leg), func(m *message) { w.receipt(m, leg, says) })
		}
	}
	return steps
}

// receiptComes: a provider of kind correlate reports within the window. That is what the kind promises.
func (w *world) receiptComes(s *message) bool {
	return w.kind == connectors.Correlate && s.copies[s.leg] > 0 && !s.reported[s.leg]
}

func (m *message) nextLeg() {
	m.handed = m.handed || m.sentKnown
	m.leg++
	m.legOver, m.sentKnown, m.answered, m.open, m.owner = false, false, false, false, 0
	m.doubted, m.marked, m.maybe = false, m.marked || m.doubted, m.maybe || m.doubted
}

func (w *world) nodeSteps(s message, i int, do func(string, func(*message))) {
	n := s.nodes[i]
	as := func(name string, change func(m *message, n *node)) {
		do(fmt.Sprintf("%s by %d", name, i+1), func(m *message) { change(m, &m.nodes[i]) })
	}
	if n.down {
		as("restart", func(m *message, n *node) { w.recover(m, uint8(i)); n.down = false })
		return
	}
	if s.crashes < w.crashes && n.phase != idle {
		as("kill", func(m *message, n *node) {
			n.phase, n.epoch, n.out, n.stopped, n.down = idle, 0, 0, false, true
			n.leg = 0
			m.crashes++
		})
	}
	if n.stopped {
		as("continue", func(_ *message, n *node) { n.stopped = false })
		return
	}
	if s.crashes < w.crashes && n.phase != idle {
		as("stop", func(m *message, n *node) { n.stopped = true; m.crashes++ })
	}
	switch n.phase {
	case idle:
		if claimable(s.status) && s.epoch < w.claims {
			as("claim", func(m *message, n *node) { w.claim(m, n, uint8(i)) })
		}
	case claimed:
		as("begin", func(m *message, n *node) { w.begin(m, n) })
	case begun:
		// An attempt ends well within its lease. Where the provider's report is waited for, that is taken for granted; elsewhere
		// the bytes may arrive at any later time.
		if w.kind != connectors.Correlate || s.epoch == n.epoch && s.status == delivery.StatusSending && !s.leaseOver {
			as("the provider takes it", func(m *message, n *node) { w.take(m, n); n.phase = taken })
		}
		as("the provider refuses it", func(_ *message, n *node) { n.phase = refused })
		as("no answer", func(_ *message, n *node) { n.phase = silent })
	case taken:
		as("sent", func(_ *message, n *node) { n.phase, n.out = heard, delivery.StatusSent })
		as("answer lost", func(_ *message, n *node) { n.phase, n.out = heard, delivery.StatusAmbiguous })
	case refused:
		as("failed", func(_ *message, n *node) { n.phase, n.out = heard, delivery.StatusFailed })
		as("deferred", func(_ *message, n *node) { n.phase, n.out = heard, delivery.StatusDeferred })
	case silent:
		as("timeout", func(_ *message, n *node) { n.phase, n.out = heard, delivery.StatusAmbiguous })
	case heard:
		as("note", func(m *message, n *node) {
			n.phase, n.journal, n.jEpoch, n.jOut = noted, noted, n.epoch, n.out
		})
	case noted:
		as("settle", func(m *message, n *node) {
			w.settle(m, n.out, n.epoch, delivery.BySend)
			n.phase, n.epoch, n.out, n.leg = idle, 0, 0, 0
			n.journal, n.jEpoch, n.jOut = idle, 0, 0
		})
	}
}

// expire and stop say what is true: of a message in doubt nobody knows whether it was handed over.
func (w *world) expire(m *message) {
	switch {
	case m.doubted && w.bug != "a doubt expires as if nobody had it", m.maybe && !m.handed:
		m.move(delivery.StatusUnknown, delivery.ByPlan)
	case m.handed && w.bug != "a later leg expires as if there had been no other":
		m.move(delivery.StatusSent, delivery.ByPlan)
		m.leg = w.legs - 1
	default:
		m.move(delivery.StatusExpired, delivery.ByPlan)
	}
}

func (w *world) cancel(m *message) {
	switch {
	case m.doubted && w.bug != "a doubt is canceled as if nobody had it", m.maybe && !m.handed:
		m.move(delivery.StatusUnknown, delivery.ByOperator)
	case m.handed:
		m.move(delivery.StatusSent, delivery.ByOperator)
		m.leg = w.legs - 1
	default:
		m.move(delivery.StatusCanceled, delivery.ByOperator)
		m.canceled = true
	}
}

func (w *world) claim(m *message, n *node, i uint8) {
	if m.late {
		w.expire(m)
		return
	}
	if m.optedOut && w.bug != "claim ignores opt-out" {
		m.move(delivery.StatusSending, delivery.ByClaim)
		m.move(delivery.StatusSuppressed, delivery.BySend)
		return
	}
	if m.optedOut {
		m.broke(sentAfterOptOut)
	}
	for leg := range m.leg {
		if m.arrived[leg] {
			m.broke(sentAfterSuccess)
		}
	}
	before := m.epoch
	m.move(delivery.StatusSending, delivery.ByClaim)
	if w.bug != "claim without a new epoch" {
		m.epoch++
	}
	if m.epoch <= before {
		m.broke(epochBack)
	}
	m.owner, m.open, m.leaseOver, m.windowOver = i+1, true, false, false
	n.phase, n.epoch, n.leg = claimed, m.epoch, m.leg
}

// begin is the last look before the first byte.
func (w *world) begin(m *message, n *node) {
	lapsed := m.leaseOver || m.epoch != n.epoch
	if lapsed && w.bug != "begin without looking at the lease" || m.late && w.bug != "begin without looking at the expiry" {
		out := delivery.StatusQueued
		if m.late && !lapsed {
			switch out = delivery.StatusExpired; {
			case m.doubted, m.maybe && !m.handed:
				out = delivery.StatusUnknown
			case m.handed:
				out = delivery.StatusSent
			}
		}
		w.settle(m, out, n.epoch, delivery.BySend)
		n.phase, n.epoch, n.leg = idle, 0, 0
		return
	}
	if lapsed {
		m.broke(withoutLease)
	}
	if m.late {
		m.broke(sentAfterExpiry)
	}
	if w.bug == "send before the journal" {
		n.phase = begun
		return
	}
	n.phase, n.journal, n.jEpoch, n.jOut = begun, begun, n.epoch, 0
}

func (w *world) take(m *message, n *node) {
	if m.canceled {
		m.broke(sentAfterCancel)
	}
	for leg := range m.leg {
		// An earlier leg must be decided before a later one is tried.
		for _, o := range m.nodes {
			if o.phase >= begun && o.phase <= silent && o.leg == leg && n.leg > leg && !o.down && !m.reported[leg] {
				m.broke(twoLegsInDoubt)
			}
		}
	}
	if m.copies[n.leg] > 0 {
		switch {
		case w.atMostOnce:
			m.broke(twiceAtMostOnce)
		case w.kind == connectors.DedupeKey:
			return // the provider drops it
		case w.kind == connectors.Correlate:
			m.broke(twiceDespiteKey)
		case m.answered && n.epoch == m.epoch:
			m.broke(twiceAfterAnswer)
		case !m.marked:
			m.broke(twiceUnmarked)
		}
	}
	m.copies[n.leg] = min(m.copies[n.leg]+1, 3)
}

// settle writes an outcome under its epoch, as the store does.
func (w *world) settle(m *message, out delivery.Status, epoch uint8, by delivery.Writer) {
	fits := m.epoch == epoch && m.open || w.bug == "settle without the epoch"
	switch {
	case fits && m.status == delivery.StatusSending:
		m.move(out, by)
	case by == delivery.BySend && m.status == delivery.StatusAmbiguous && m.epoch == epoch && decisive(out):
		m.move(out, by)
	case fits && out == delivery.StatusSent && m.status >= delivery.StatusSent:
		// a receipt overtook the answer
	case w.bug == "settle without the epoch":
		m.status = out
	default:
		return // late: kept as a fact
	}
	m.open, m.owner = false, 0
	switch out {
	case delivery.StatusAmbiguous:
		m.doubted, m.windowOver = true, w.kind != connectors.Correlate
	case delivery.StatusSent:
		m.sentKnown, m.answered = true, true
	case delivery.StatusFailed:
		if m.leg+1 < w.legs && m.status == delivery.StatusFailed && by == delivery.BySend { // refused for good: no doubt is left
			m.move(delivery.StatusQueued, delivery.ByPlan)
			m.nextLeg()
		}
	}
}

func decisive(out delivery.Status) bool {
	return out == delivery.StatusSent || out == delivery.StatusFailed || out == delivery.StatusDeferred
}

// takeBack is a sweeper that finds a lease run out. It may be of either node; what it does not know to be unstarted is in
// doubt.
func (w *world) takeBack(m *message) {
	owner := &m.nodes[m.owner-1]
	if !owner.down && !owner.stopped && owner.phase == claimed && owner.epoch == m.epoch {
		m.move(delivery.StatusQueued, delivery.ByPlan)
		m.open, m.owner = false, 0
		owner.phase, owner.epoch, owner.leg = idle, 0, 0
		return
	}
	if w.bug == "a lost lease goes back to the queue" {
		m.move(delivery.StatusQueued, delivery.ByPlan)
		m.open, m.owner = false, 0
		return
	}
	m.move(delivery.StatusAmbiguous, delivery.ByPlan)
	m.open, m.owner, m.doubted, m.windowOver = false, 0, true, w.kind != connectors.Correlate
}

// recover is what a restarted node does about its own claims, by its journal.
func (w *world) recover(m *message, i uint8) {
	n := &m.nodes[i]
	if m.status == delivery.StatusSending && m.owner == i+1 {
		if n.journal == noted && n.jEpoch == m.epoch && n.jOut == delivery.StatusSent {
			m.answered = true // it was heard, and written down
		}
		switch {
		case n.journal == noted && n.jEpoch == m.epoch && w.bug != "the journal's end is not read":
			w.settle(m, n.jOut, n.jEpoch, delivery.BySend)
		case n.journal != idle && n.jEpoch == m.epoch && w.bug != "a begun attempt counts as not begun":
			w.settle(m, delivery.StatusAmbiguous, m.epoch, delivery.ByPlan)
		default:
			w.settle(m, delivery.StatusQueued, m.epoch, delivery.ByPlan)
		}
	}
	n.journal, n.jEpoch, n.jOut = idle, 0, 0
}

func (w *world) resolve(m *message) {
	switch {
	case w.atMostOnce && w.bug != "at most once is tried again":
		m.move(delivery.StatusUnknown, delivery.ByPlan)
	case m.late:
		w.expire(m)
	case w.policy == "fail":
		m.move(delivery.StatusFailed, delivery.ByPlan)
	default:
		m.move(delivery.StatusQueued, delivery.ByPlan)
		m.marked = w.bug != "a doubtful retry without a mark"
	}
}

func (w *world) cancelSteps(s message, do func(string, func(*message))) {
	if w.bug == "cancel looks first and writes later" {
		if claimable(s.status) && !s.canceling && !s.canceled {
			do("cancel looks", func(m *message) { m.canceling = true })
		}
		if s.canceling {
			do("cancel writes", func(m *message) {
				m.canceling, m.canceled = false, true
				m.status = delivery.StatusCanceled
			})
		}
		return
	}
	if claimable(s.status) && !s.canceled {
		do("cancel", func(m *message) { w.cancel(m) })
	}
	if w.bug == "cancel of a message under way" && s.status == delivery.StatusSending {
		do("cancel", func(m *message) { m.move(delivery.StatusCanceled, delivery.BySend); m.canceled = true })
	}
}

var rank = map[delivery.Status]int{delivery.StatusSent: 1, delivery.StatusUndelivered: 2, delivery.StatusDelivered: 3}

func (w *world) receipt(m *message, leg uint8, says delivery.Status) {
	m.reported[leg] = true
	m.arrived[leg] = m.arrived[leg] || says == delivery.StatusDelivered
	before := m.status
	if leg != m.leg { // of an earlier leg: only success counts, and it counts once
		waiting := m.status.Waiting() || m.status == delivery.StatusSent || m.status == delivery.StatusUndelivered
		if says != delivery.StatusDelivered || !waiting || w.bug == "a late winner is only recorded" {
			return
		}
		m.move(delivery.StatusDelivered, delivery.ByReceipt)
		return
	}
	if w.bug == "the last receipt wins" {
		m.status = says
	} else if to, changed := delivery.AfterReceipt(delivery.SMS, m.status, says); changed {
		m.move(to, delivery.ByReceipt)
	}
	if rank[m.status] < rank[before] {
		m.broke(receiptBack)
	}
	if says != delivery.StatusSent || m.status == delivery.StatusSent {
		m.sentKnown = true
	}
	if m.status == delivery.StatusUndelivered && m.leg+1 < w.legs {
		m.move(delivery.StatusQueued, delivery.ByPlan)
		m.nextLeg()
	}
}

func (w *world) model() model.Model[message] {
	return model.Model[message]{
		Start: []message{{status: delivery.StatusQueued}},
		Next:  w.next,
		Broken: func(m message) string {
			if m.fault == fine && m.canceled && m.status != delivery.StatusCanceled {
				return faults[cancelLied]
			}
			if m.fault == fine && (m.status == delivery.StatusExpired || m.status == delivery.StatusCanceled) && m.copies != [2]uint8{} {
				return "canceled or expired, and the provider has it"
			}
			return faults[m.fault]
		},
		Done: func(m message) bool {
			return !m.status.Waiting() || m.epoch >= w.claims && m.status != delivery.StatusSending
		},
	}
}

const maxStates = 8_000_000

// worlds are the combinations that are looked at: every way to settle a doubt with every policy, alone and with a second
// leg.
func worlds(short bool) (list []world) {
	for _, legs := range []uint8{1, 2} {
		for _, kind := range []connectors.Ambiguity{connectors.None, connectors.Correlate, connectors.DedupeKey} {
			for _, policy := range []string{"retry", "fail", "at most once"} {
				w := world{kind: kind, policy: policy, atMostOnce: policy == "at most once", legs: legs, claims: 3, crashes: 2}
				if short || legs == 2 {
					w.claims, w.crashes = 2, 2
				}
				list = append(list, w)
			}
		}
	}
	return list
}

func TestMessage(t *testing.T) {
	states := 0
	for _, w := range worlds(testing.Short()) {
		r := model.Check(w.model(), maxStates)
		t.Logf("%-10s %-12s %d legs: %s", w.kind, w.policy, w.legs, r)
		require.Empty(t, r.Broken, "%s %s %d legs: %v", w.kind, w.policy, w.legs, r)
		states += r.States
	}
	fmt.Printf("model: message states=%d\n", states)
	if !testing.Short() {
		require.Greater(t, states, 1_000_000)
	}
}

// Each of these mistakes must break a promise in at least one world.
func TestMessageBugsAreFound(t *testing.T) {
	for _, bug := range []string{
		"settle without the epoch", "claim without a new epoch", "claim ignores opt-out",
		"begin without looking at the lease", "begin without looking at the expiry", "send before the journal",
		"a lost lease goes back to the queue", "the journal's end is not read", "a begun attempt counts as not begun",
		"at most once is tried again", "a doubtful retry without a mark", "cancel looks first and writes later",
		"cancel of a message under way", "the last receipt wins", "next leg while in doubt",
		"a late winner is only recorded", "a doubt expires as if nobody had it", "a doubt is canceled as if nobody had it",
		"a later leg expires as if there had been no other",
	} {
		t.Run(bug, func(t *testing.T) {
			for _, w := range worlds(true) {
				w.bug = bug
				if r := model.Check(w.model(), maxStates); r.Broken != "" {
					t.Logf("%s, %s, %d legs: %s", w.kind, w.policy, w.legs, r)
					return
				}
			}
			t.Fatal("no promise breaks")
		})
	}
}
