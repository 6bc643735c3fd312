package simulator

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// mailSession is one SMTP conversation.
type mailSession struct {
	ctx  context.Context // the simulator's life, not a request's
	sim  *Sim
	nc   net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	tls  bool
	errs int

	greeted bool
	account string // the user name after a log-in

	// The transaction in progress.
	mailed bool
	from   string
	utf8   bool
	eight  bool
	rcpts  []mailRcpt
	data   []byte
}

// mailRcpt is a recipient with the verdict on the message for it: decided at RCPT, carried to the end.
type mailRcpt struct {
	to      string
	verdict Verdict
}

func (s *mailSession) reset() {
	s.mailed, s.from, s.utf8, s.eight, s.rcpts = false, "", false, false, s.rcpts[:0]
	if cap(s.data) > 1<<20 {
		s.data = nil
	}
}

func (s *mailSession) reply(line string) {
	_, _ = s.w.WriteString(line)
	_, _ = s.w.WriteString("\r\n")
}

// refuse answers a command that makes no sense; a client that goes on like that is dropped.
func (s *mailSession) refuse(line string) bool {
	s.reply(line)
	s.errs++
	return s.errs < mailMaxErrors
}

// run speaks until QUIT, an error, or the end of the simulator.
func (s *mailSession) run() {
	if s.sim.script.broken(mailAnonymous) == Down {
		return
	}
	s.reply("220 sim.test ESMTP simulator")
	for {
		line, err := s.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.reply("500 5.5.2 line too long")
			break
		}
		if err != nil || !s.command(line) {
			break
		}
	}
	_ = s.w.Flush()
}

// command answers one command and reports whether the session goes on.
func (s *mailSession) command(line []byte) bool {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return s.refuse("500 5.5.2 control character in command")
	}
	verb, arg, _ := strings.Cut(string(text), " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		return s.hello(strings.ToUpper(verb), strings.TrimSpace(arg))
	case "MAIL":
		return s.mail(arg)
	case "RCPT":
		return s.rcpt(arg)
	case "DATA":
		if len(s.rcpts) == 0 {
			return s.refuse("503 5.5.1 no valid recipients")
		}
		s.reply("354 go ahead")
		return s.take()
	case "AUTH":
		return s.auth(arg)
	case "STARTTLS":
		if s.sim.opt.TLSConfig == nil || s.tls {
			return s.refuse("502 5.5.1 no STARTTLS here")
		}
		return s.startTLS()
	case "RSET":
		s.reset()
		s.reply("250 2.0.0 forgotten")
	case "NOOP":
		s.reply("250 2.0.0 still here")
	case "VRFY":
		s.reply("252 2.5.2 send some mail, I will try")
	case "QUIT":
		s.reply("221 2.0.0 bye")
		return false
	default:
		return s.refuse("500 5.5.2 unknown command")
	}
	return true
}

func (s *mailSession) hello(verb, name string) bool {
	if name == "" {
		return s.refuse("501 5.5.4 who are you?")
	}
	s.reset()
	s.greeted = true
	if verb == "HELO" {
		s.reply("250 sim.test")
		return true
	}
	s.reply("250-sim.test")
	for _, ext := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"} {
		s.reply("250-" + ext)
	}
	if s.sim.opt.TLSConfig != nil && !s.tls {
		s.reply("250-STARTTLS")
	}
	s.reply("250-AUTH PLAIN LOGIN")
	s.reply("250 SIZE " + strconv.Itoa(mailMaxSize))
	return true
}

func (s *mailSession) mail(arg string) bool {
	switch {
	case !s.greeted:
		return s.refuse("503 5.5.1 say EHLO first")
	case s.mailed:
		return s.refuse("503 5.5.1 one sender at a time")
	}
	switch s.sim.script.broken(s.account) {
	case Down:
		return false
	case BadLogin:
		return s.refuse("535 5.7.8 credentials are no longer valid")
	}
	from, params, ok := mailPath(arg, "FROM:")
	if !ok {
		return s.refuse("501 5.1.7 cannot read the sender")
	}
	for _, p := range strings.Fields(params) {
		key, value, _ := strings.Cut(strings.ToUpper(p), "=")
		switch {
		case key == "SIZE":
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil {
				return s.refuse("501 5.5.4 SIZE must be a number")
			}
			if n > mailMaxSize {
				return s.refuse("552 5.3.4 message too big")
			}
		case key == "BODY" && (value == "8BITMIME" || value == "7BIT"):
			s.eight = value == "8BITMIME"
		case key == "SMTPUTF8" && value == "":
			s.utf8 = true
		default:
			s.reset()
			return s.refuse("555 5.5.4 unknown parameter")
		}
	}
	if !s.utf8 && !isASCII(from) {
		s.reset()
		return s.refuse("550 5.6.7 address needs SMTPUTF8")
	}
	s.mailed, s.from = true, from
	s.reply("250 2.1.0 sender ok")
	return true
}

func (s *mailSession) rcpt(arg string) bool {
	if !s.mailed {
		return s.refuse("503 5.5.1 say MAIL first")
	}
	if len(s.rcpts) >= mailMaxRcpts {
		return s.refuse("452 4.5.3 too many recipients")
	}
	to, params, ok := mailPath(arg, "TO:")
	switch {
	case !ok || !strings.Contains(to, "@"):
		return s.refuse("501 5.1.3 cannot read the recipient")
	case params != "":
		return s.refuse("555 5.5.4 unknown parameter")
	case !s.utf8 && !isASCII(to):
		return s.refuse("553 5.6.7 address needs SMTPUTF8")
	}
	r := mailRcpt{to: to, verdict: s.sim.script.decide(delivery.Email, s.account, to)}
	line, last := mailRefusal(r.verdict.Fault)
	if line == "" {
		s.rcpts = append(s.rcpts, r)
		s.reply("250 2.1.5 recipient ok")
		return true
	}
	s.sim.ledger.add(s.entry(r, Entry{}))
	s.wait(r.verdict.Latency)
	s.reply(line)
	return !last
}

// mailRefusal is the answer to RCPT for a fault that shows there; empty for one that shows later or never. last says
// that the server closes the connection behind it.
func mailRefusal(f Fault) (line string, last bool) {
	switch f {
	case Temporary:
		return "451 4.3.0 try again later", false
	case ThrottledFault:
		return "421 4.7.0 too many messages, slow down", true
	case UnknownSubscriber, NotOnWhatsApp:
		return "550 5.1.1 no such mailbox", false
	case Absent:
		return "450 4.2.1 mailbox is away", false
	case Blocked:
		return "550 5.7.1 sender is blocked", false
	case Down:
		return "421 4.3.2 shutting down", true
	case BadLogin:
		return "535 5.7.8 credentials are no longer valid", false
	}
	return "", false
}

// entry fills what the session knows into e.
func (s *mailSession) entry(r mailRcpt, e Entry) Entry {
	e.At = s.sim.clock.Now()
	e.Channel, e.Account = delivery.Email.String(), s.account
	e.To, e.From = r.to, s.from
	if e.Outcome == "" {
		e.Outcome = r.verdict.Outcome
	}
	return e
}

// take reads the message and answers for all of its recipients at once, as SMTP does.
func (s *mailSession) take() bool {
	defer s.reset()
	fault, err := s.readData()
	if err != nil {
		return false
	}
	e := Entry{Outcome: fault}
	e.Ref, e.Subject, e.Text = mailExcerpt(s.data)
	var latency time.Duration
	rejected, lost := false, false
	for _, r := range s.rcpts {
		rejected = rejected || r.verdict.Fault == RejectedFault
		lost = lost || r.verdict.Fault == LostAck
		latency = max(latency, r.verdict.Latency)
	}
	e.Taken = fault == "" && !rejected
	for _, r := range s.rcpts {
		s.sim.ledger.add(s.entry(r, e))
	}
	s.wait(latency)
	switch {
	case fault == mailTooBig:
		s.reply("552 5.3.4 message too big")
	case fault != "":
		s.reply("554 5.6.0 message refused: " + fault)
	case rejected:
		s.reply("550 5.7.1 content refused")
	case lost:
		return false
	default:
		s.reply(fmt.Sprintf("250 2.0.0 ok: queued as %X", s.sim.ledger.Len()))
	}
	return true
}

// wait delays an answer by the latency that was asked for.
func (s *mailSession) wait(extra time.Duration) {
	d := s.sim.opt.Latency + extra
	if d <= 0 {
		return
	}
	_ = s.w.Flush()
	t := s.sim.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.Chan():
	case <-s.ctx.Done():
	}
}

// mailPath reads "FROM:<path> params". A quoted local part may hold a ">" (RFC 5321 §4.1.2).
func mailPath(arg, word string) (path, params string, ok bool) {
	if len(arg) < len(word)+2 || !strings.EqualFold(arg[:len(word)], word) || arg[len(word)] != '<' {
		return "", "", false
	}
	arg = arg[len(word)+1:]
	quoted := false
	for i := 0; i < len(arg); i++ {
		switch c := arg[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			rest := arg[i+1:]
			if rest != "" && rest[0] != ' ' {
				return "", "", false
			}
			return arg[:i], strings.TrimSpace(rest), true
		case (c == ' ' || c == '<') && !quoted:
			return "", "", false
		}
	}
	return "", "", false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
