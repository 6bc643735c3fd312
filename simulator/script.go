package simulator

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Fault is a way for a submission to fail.
type Fault string

// The faults. Each protocol server answers with its protocol's own code for it.
const (
	NoFault           Fault = ""
	Temporary         Fault = "temporary"
	ThrottledFault    Fault = "throttled"
	UnknownSubscriber Fault = "unknown_subscriber"
	NotOnWhatsApp     Fault = "not_on_whatsapp"
	Absent            Fault = "absent"
	Blocked           Fault = "blocked"
	RejectedFault     Fault = "rejected"  // content or policy
	LostAck           Fault = "lost_ack"  // taken, and the answer never comes
	Down              Fault = "down"      // refuse log-in or connection
	BadLogin          Fault = "bad_login" // wrong credentials
)

// Verdict is what happens to one submission.
type Verdict struct {
	Outcome    string // the outcome's name, as the list of magic recipients has it
	Fault      Fault
	RetryAfter time.Duration // with ThrottledFault
	Latency    time.Duration // on top of Options.Latency
	Receipts   []ScriptedReceipt
	// ReceiptFirst sends the receipts before the answer to the submission.
	ReceiptFirst bool
	Reply        string // text that the person sends back
}

// ScriptedReceipt is a receipt that follows an accepted submission.
type ScriptedReceipt struct {
	Status delivery.Status // Delivered, Read or Undelivered
	After  time.Duration
	Fault  Fault // why it was not delivered
}

// outcome is a row of the list of magic recipients. The first try tells; a person is counted per channel.
type outcome struct {
	name string
	// at decides for the nth submission to this recipient, from 1.
	at func(n int) Verdict
}

func always(v Verdict) func(int) Verdict { return func(int) Verdict { return v } }

func ok(receipts ...ScriptedReceipt) Verdict { return Verdict{Receipts: receipts} }

func fault(f Fault) Verdict { return Verdict{Fault: f} }

var delivered = ScriptedReceipt{Status: delivery.StatusDelivered}

// outcomes maps the last two digits of +1 NXX 555 01NN to what happens.
var outcomes = map[int]outcome{
	0: {"delivered", always(ok(delivered))},
	1: {"delivered_late", always(ok(ScriptedReceipt{Status: delivery.StatusDelivered, After: 5 * time.Minute}))},
	2: {"read", always(ok(delivered, ScriptedReceipt{Status: delivery.StatusRead}))},
	10: {"temporary_twice", func(n int) Verdict {
		if n <= 2 {
			return fault(Temporary)
		}
		return ok(delivered)
	}},
	11: {"temporary_forever", always(fault(Temporary))},
	12: {"throttled", func(n int) Verdict {
		if n == 1 {
			return Verdict{Fault: ThrottledFault, RetryAfter: 30 * time.Second}
		}
		return ok(delivered)
	}},
	20: {"unknown_subscriber", always(fault(UnknownSubscriber))},
	21: {"not_on_whatsapp", always(fault(NotOnWhatsApp))},
	22: {"absent", always(ok(ScriptedReceipt{Status: delivery.StatusUndelivered, Fault: Absent}))},
	23: {"blocked", always(ok(ScriptedReceipt{Status: delivery.StatusUndelivered, Fault: Blocked}))},
	30: {"ack_lost", func(n int) Verdict {
		if n == 1 {
			return Verdict{Fault: LostAck, Receipts: []ScriptedReceipt{delivered}}
		}
		return ok(delivered)
	}},
	31: {"receipt_twice", always(ok(delivered, delivered))},
	32: {"receipts_out_of_order", always(ok(ScriptedReceipt{Status: delivery.StatusRead}, delivered))},
	33: {"no_receipt", always(ok())},
	34: {"receipt_first", always(Verdict{Receipts: []ScriptedReceipt{delivered}, ReceiptFirst: true})},
	40: {"replies_stop", always(Verdict{Receipts: []ScriptedReceipt{delivered}, Reply: "STOP"})},
	41: {"replies_yes", always(Verdict{Receipts: []ScriptedReceipt{delivered}, Reply: "YES"})},
}

// mailOutcomes maps the local part of an address at sim.test, without its +label.
var mailOutcomes = map[string]outcome{
	"delivered": {"delivered", always(ok())},
	"delayed": {"temporary_twice", func(n int) Verdict {
		if n <= 2 {
			return fault(Temporary)
		}
		return ok()
	}},
	"softbounce": {"temporary_forever", always(fault(Temporary))},
	"hardbounce": {"unknown_subscriber", always(fault(UnknownSubscriber))},
	"complaint":  {"rejected", always(fault(RejectedFault))},
	"timeout": {"ack_lost", func(n int) Verdict {
		if n == 1 {
			return fault(LostAck)
		}
		return ok()
	}},
}

// hookOutcomes maps the first segment of a webhook path below /sim/hook/.
var hookOutcomes = map[string]outcome{
	"200":     {"delivered", always(ok())},
	"500":     {"temporary_forever", always(fault(Temporary))},
	"timeout": {"ack_lost", always(fault(LostAck))},
	"gone":    {"unknown_subscriber", always(fault(UnknownSubscriber))},
	"flaky": {"temporary_twice", func(n int) Verdict {
		if n <= 2 {
			return fault(Temporary)
		}
		return ok()
	}},
}

// script decides what happens, from the recipient and from the faults set on an account.
type script struct {
	delay time.Duration

	mu     sync.Mutex
	seen   map[string]int // submissions so far, of recipients whose outcome counts
	faults map[string]*accountFault
}

type accountFault struct {
	left int // < 0 = until healed
	f    Fault
	slow time.Duration
}

func newScript(receiptDelay time.Duration) *script {
	return &script{delay: receiptDelay, seen: map[string]int{}, faults: map[string]*accountFault{}}
}

// decide returns the verdict on one submission. to is a phone number with +, a mailbox, or a path below /sim/hook/.
func (s *script) decide(ch delivery.Channel, account, to string) Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	var slow time.Duration
	if af := s.faults[account]; af != nil {
		slow = af.slow
		if af.f != NoFault && af.left != 0 {
			if af.left > 0 {
				af.left--
			}
			v := Verdict{Outcome: string(af.f), Fault: af.f, Latency: slow}
			switch af.f {
			case ThrottledFault:
				v.RetryAfter = 2 * time.Second
			case LostAck:
				if ch != delivery.Email && ch != delivery.Webhook {
					v.Receipts = []ScriptedReceipt{{Status: delivery.StatusDelivered, After: s.delay}}
				}
			}
			return v
		}
	}
	o, magic := lookup(ch, to)
	n := 1
	if magic {
		key := ch.String() + " " + to
		s.seen[key]++
		n = s.seen[key]
	}
	v := o.at(n)
	v.Outcome, v.Latency = o.name, slow
	if v.Fault == NotOnWhatsApp && ch != delivery.WhatsApp {
		v = ok(delivered)
		v.Outcome, v.Latency = "delivered", slow
	}
	receipts := make([]ScriptedReceipt, len(v.Receipts))
	for i, r := range v.Receipts {
		if r.After == 0 {
			r.After = s.delay
		}
		receipts[i] = r
	}
	v.Receipts = receipts
	return v
}

// lookup finds a recipient's outcome; magic is false for an ordinary recipient, who is delivered.
func lookup(ch delivery.Channel, to string) (o outcome, magic bool) {
	ordinary := outcomes[0]
	switch ch {
	case delivery.Email:
		local, domain, _ := strings.Cut(to, "@")
		local, _, _ = strings.Cut(local, "+")
		if domain != "sim.test" {
			return mailOutcomes["delivered"], false
		}
		if o, ok := mailOutcomes[local]; ok {
			return o, local != "delivered"
		}
		if n, err := strconv.Atoi(local); err == nil && len(local) == 2 && n/10 == 4 {
			return outcome{"temporary_forever", always(fault(Temporary))}, true
		} else if err == nil && len(local) == 2 && n/10 == 5 {
			return outcome{"rejected", always(fault(RejectedFault))}, true
		}
		return mailOutcomes["delivered"], false
	case delivery.Webhook:
		first, _, _ := strings.Cut(strings.TrimPrefix(to, "/"), "/")
		if o, ok := hookOutcomes[first]; ok {
			return o, first != "200"
		}
		return hookOutcomes["200"], false
	}
	to = strings.TrimPrefix(to, "+")
	if len(to) == 11 && to[0] == '1' && to[4:9] == "55501" {
		if n, err := strconv.Atoi(to[9:]); err == nil {
			if o, ok := outcomes[n]; ok {
				return o, n != 0
			}
		}
	}
	return ordinary, false
}

func (s *script) fail(account string, n int, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(account)
	a.left, a.f = n, f
}

func (s *script) slow(account string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account(account).slow = d
}

func (s *script) heal(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, account)
}

func (s *script) account(name string) *accountFault {
	a := s.faults[name]
	if a == nil {
		a = &accountFault{}
		s.faults[name] = a
	}
	return a
}

// broken reports a fault that shows before any submission: at connect or log-in. It does not count down.
func (s *script) broken(account string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.faults[account]; a != nil && (a.f == Down || a.f == BadLogin) && a.left != 0 {
		return a.f
	}
	return NoFault
}
