package pipeline_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/msgctl/msgctl/connectors"
	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/pipeline"
	"github.com/msgctl/msgctl/routing"
	"github.com/msgctl/msgctl/store"
)

// WhatsApp, and SMS when it was not delivered within five minutes: every order in which the answers of both providers,
// their receipts, the end of the five minutes and a cancel can come. Whatever the order, the message counts once, and
// nobody pays for an SMS while it is open whether the provider of WhatsApp has taken the message.

// event is one thing that happens to a message from outside.
type event string

const (
	answerSent    event = "answer:sent" // of the attempt that is under way; "wa." and "sms." stand before it
	answerDoubt   event = "answer:doubt"
	answerRefused event = "answer:refused"
	timeIsOver    event = "five minutes"
	cancel        event = "cancel"
)

// scripts lists every order of every set of events that can happen: answers of WhatsApp × its receipts × answers of SMS ×
// its receipts × cancel, the five minutes always.
func scripts(receipts [][]event) (all [][]event) {
	seen := map[string]bool{}
	for _, wa := range []event{answerSent, answerDoubt, answerRefused} {
		for _, sms := range []event{answerSent, answerDoubt, answerRefused} {
			for _, said := range receipts {
				if wa == answerRefused && slices.ContainsFunc(said, func(e event) bool { return strings.HasPrefix(string(e), "wa.") }) {
					continue // nobody reports what was refused
				}
				if sms == answerRefused && slices.ContainsFunc(said, func(e event) bool { return strings.HasPrefix(string(e), "sms.") }) {
					continue
				}
				for _, stop := range []bool{false, true} {
					set := append([]event{"wa." + wa, "sms." + sms, timeIsOver}, said...)
					if stop {
						set = append(set, cancel)
					}
					permute(set, func(s []event) {
						if key := fmt.Sprint(s); !seen[key] && possible(s) {
							seen[key] = true
							all = append(all, slices.Clone(s))
						}
					})
				}
			}
		}
	}
	return all
}

func permute(set []event, yield func([]event)) {
	var walk func(n int)
	walk = func(n int) {
		if n == len(set) {
			yield(set)
			return
		}
		for i := n; i < len(set); i++ {
			set[n], set[i] = set[i], set[n]
			walk(n + 1)
			set[n], set[i] = set[i], set[n]
		}
	}
	walk(0)
}

// possible leaves out orders in which an answer or a receipt of SMS comes before the attempt can have begun.
func possible(script []event) bool {
	answered, over, no := false, false, false
	for _, e := range script {
		begun := answered && (over || no)
		switch {
		case e == "wa."+answerRefused:
			answered, no = true, true
		case strings.HasPrefix(string(e), "wa.answer"):
			answered = true
		case e == "wa.undelivered":
			answered, no = true, true
		case e == timeIsOver:
			over = true
		case strings.HasPrefix(string(e), "sms.") && !begun:
			return false
		}
	}
	return true
}

// line is a provider whose first attempt for the current message waits for the test's answer; later ones are taken.
type line struct {
	s     *stageProof
	kind  string
	begun chan struct{}
	reply chan event
}

func (l *line) Send(_ context.Context, m *delivery.Outgoing) (delivery.Sent, error) {
	n := l.s.handedOver(l.kind, m)
	answer := answerSent
	if n == 1 {
		l.begun <- struct{}{}
		answer = <-l.reply
	}
	l.s.decided(l.kind, answer)
	switch answer {
	case answerDoubt:
		return delivery.Sent{}, &delivery.Failure{Class: delivery.InDoubt, Code: "timeout", Known: true}
	case answerRefused:
		return delivery.Sent{}, &delivery.Failure{Class: delivery.Rejected, Code: "refused", Known: true}
	}
	return delivery.Sent{ProviderID: l.kind + m.ID.String()}, nil
}

// stageProof is what is true of the current message, seen from outside the engine.
type stageProof struct {
	mu       sync.Mutex
	handed   map[string]int
	marked   map[string]int // of handed: said to be a possible duplicate
	open     bool           // WhatsApp is under way, or in doubt and nothing has been heard since
	overlap  bool           // an SMS was handed over meanwhile
	success  bool           // a receipt has said that it arrived
	refusals int
}

func (s *stageProof) handedOver(kind string, m *delivery.Outgoing) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handed[kind]++
	if m.PossibleDuplicate {
		s.marked[kind]++
	}
	if kind == "wa" {
		s.open = true
	} else if s.open {
		s.overlap = true
	}
	return s.handed[kind]
}

func (s *stageProof) decided(kind string, answer event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "wa" && answer != answerDoubt {
		s.open = false
	}
	if answer == answerRefused {
		s.refusals++
	}
}

func (s *stageProof) heard(kind string, status delivery.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "wa" {
		s.open = false
	}
	s.success = s.success || status == delivery.StatusDelivered || status == delivery.StatusRead
}

type proofRig struct {
	*rig
	clock *clockwork.FakeClock
	proof *stageProof
	lines map[string]*line
	accts map[string]*routing.Account
}

func newProofRig(t *testing.T) *proofRig {
	p := &proofRig{clock: clockwork.NewFakeClock(), proof: &stageProof{}, lines: map[string]*line{}, accts: map[string]*routing.Account{}}
	for _, kind := range []string{"wa", "sms"} {
		p.lines[kind] = &line{s: p.proof, kind: kind, begun: make(chan struct{}, 1), reply: make(chan event)}
	}
	p.rig = newRig(t, p.clock, &fake{}, func(r *rig) {
		if dir, err := os.MkdirTemp("/dev/shm", "fallback"); err == nil { // thousands of small commits
			r.dir = dir
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
		}
		for kind, ch := range map[string]delivery.Channel{"wa": delivery.WhatsApp, "sms": delivery.SMS} {
			k := connectors.Kind{Name: kind, Channel: ch, Ambiguity: connectors.None, ReceiptsByProviderID: kind == "sms", Open: r.kind.Open}
			if kind == "wa" {
				k.Ambiguity = connectors.Correlate
			}
			a := r.copyAccount()
			a.ID, a.Name, a.Channel, a.Connector, a.Kind = r.ids.Account(), kind, ch, p.lines[kind], &k
			a.Timeout = time.Minute
			p.accts[kind] = a
		}
		r.acct = p.accts["wa"]
		r.more = []*routing.Account{p.accts["sms"]}
		r.tune = func(o *pipeline.Options) {
			o.Jitter, o.Retry, o.Lease = new(0.0), []time.Duration{10 * time.Second}, time.Hour
		}
	})
	for kind, a := range p.accts { // a receipt finds its leg by the channel of its account
		require.NoError(t, p.store.PutAccount(context.Background(), tenant, store.Account{
			ID: a.ID, Tenant: tenant, Name: kind, Kind: kind, Channel: a.Channel, CreatedAt: p.clock.Now(), UpdatedAt: p.clock.Now(),
		}))
	}
	return p
}

// settle waits until the pipeline has nothing to do but to wait for answers of attempts that are under way.
func (p *proofRig) settle(underWay func() int) {
	require.Eventually(p.t, func() bool {
		still, err := p.pipe.Still(context.Background(), underWay())
		require.NoError(p.t, err)
		return still
	}, patience, 100*time.Microsecond, "%v", lazily(func() string {
		ms, err := p.store.Messages(context.Background(), tenant, store.MessageQuery{Limit: 1})
		require.NoError(p.t, err)
		return p.story(ms[0].ID)
	}))
}

// play lets one message live through a script and judges it.
func (p *proofRig) play(n int, script []event) {
	*p.proof = stageProof{handed: map[string]int{}, marked: map[string]int{}}
	phone := fmt.Sprintf("+1202%07d", n)
	ids := p.accept(1, func(_ int, m *store.NewMessage) {
		m.Channel, m.To, m.ExpiresAt = delivery.WhatsApp, phone, m.DueAt.Add(24*time.Hour)
		m.Within, m.Success = 5*time.Minute, delivery.StatusDelivered
		m.Then = []store.NewLeg{{
			Channel: delivery.SMS, To: phone, Payload: []byte(`{"content":{"text":"by sms"}}`), Segments: 1, Success: delivery.StatusDelivered,
		}}
	})
	id := ids[0]
	<-p.lines["wa"].begun
	waiting := map[string]bool{"wa": true}
	canceled := false
	underWay := func() (k int) {
		for kind := range p.lines {
			select {
			case <-p.lines[kind].begun:
				waiting[kind] = true
			default:
			}
			if waiting[kind] {
				k++
			}
		}
		return k
	}
	rest := func() { p.settle(underWay) }
	for _, e := range script {
		kind, what, of := strings.Cut(string(e), ".")
		switch {
		case e == timeIsOver:
			p.clock.Advance(5 * time.Minute)
		case e == cancel:
			_, err := p.store.Cancel(context.Background(), tenant, id, p.clock.Now())
			canceled = canceled || err == nil
		case of && strings.HasPrefix(what, "answer"):
			if waiting[kind] {
				p.lines[kind].reply <- event(what)
				waiting[kind] = false
			}
		default:
			status, err := delivery.ParseStatus(what)
			require.NoError(p.t, err)
			if p.proof.count(kind) == 0 {
				continue // its attempt never began: there is nothing to report
			}
			rc := delivery.Receipt{ProviderID: kind + id.String(), Status: status, At: p.clock.Now()}
			if kind == "wa" {
				rc.Message = id // our token comes back
			}
			p.proof.heard(kind, status)
			require.NoError(p.t, p.pipe.Report(context.Background(), p.accts[kind], []delivery.Receipt{rc}))
		}
		rest()
	}
	for step := 0; ; step++ { // what is still open comes to its end
		for kind := range waiting {
			if waiting[kind] {
				p.lines[kind].reply <- answerSent
				waiting[kind] = false
			}
		}
		rest()
		m := p.message(id)
		if !m.Status.Waiting() && m.DueAt.IsZero() && underWay() == 0 {
			p.judge(m, script, canceled)
			return
		}
		require.Less(p.t, step, 40, "%v: it is still %s, %s", script, m.Status, m.Reason)
		p.clock.Advance(time.Minute)
	}
}

func (s *stageProof) count(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed[kind]
}

func (p *proofRig) judge(m store.Message, script []event, canceled bool) {
	s := p.proof
	s.mu.Lock()
	defer s.mu.Unlock()
	require.False(p.t, s.overlap, "%v: an SMS went out while WhatsApp was open", script)
	for kind, n := range s.handed {
		require.LessOrEqual(p.t, n, 1+s.marked[kind], "%v: a second %s without a mark", script, kind)
	}
	if canceled {
		require.Empty(p.t, s.handed, "%v: canceled means that nobody has it", script)
	}
	arrived := m.Status == delivery.StatusDelivered || m.Status == delivery.StatusRead
	require.Equal(p.t, s.success, arrived, "%v: it is %s\n%v", script, m.Status, lazily(func() string { return p.story(m.ID) }))
	winners := 0
	for _, l := range m.Legs {
		if l.Winner {
			winners++
		}
	}
	if s.success {
		require.Equal(p.t, 1, winners, "%v: %+v", script, m.Legs)
	} else {
		require.Zero(p.t, winners, "%v: %+v", script, m.Legs)
	}
}

func TestFallbackInEveryOrder(t *testing.T) {
	receipts := [][]event{
		{}, {"wa.delivered"}, {"wa.undelivered"}, {"wa.read"}, {"wa.sent"}, {"wa.delivered", "wa.delivered"},
		{"wa.undelivered", "wa.delivered"}, {"sms.delivered"}, {"sms.undelivered"}, {"wa.delivered", "sms.delivered"},
		{"wa.undelivered", "sms.undelivered"}, {"wa.delivered", "sms.undelivered"}, {"wa.sent", "sms.delivered"},
	}
	all := scripts(receipts)
	if testing.Short() {
		all = all[:len(all)/40]
	}
	p := newProofRig(t)
	for n, script := range all {
		p.play(n+2000000, script)
	}
	p.audited()
	tally, err := p.store.Tally(context.Background(), tenant, delivery.CampaignID{})
	require.NoError(t, err)
	total := 0
	for _, byStatus := range tally {
		for _, n := range byStatus {
			total += n
		}
	}
	require.Equal(t, len(all), total, "every message counts once")
	t.Logf("%d orders", len(all))
}

// story is a message's history for a person.
func (p *proofRig) story(id delivery.MessageID) string {
	facts, err := p.store.Facts(context.Background(), tenant, id)
	require.NoError(p.t, err)
	var b strings.Builder
	for _, f := range facts {
		fmt.Fprintf(&b, "%s leg %d %s %s %s %s\n", f.At.Format("15:04:05.000"), f.Leg, f.Kind, f.Status, f.Code, f.Detail)
	}
	return b.String()
}
