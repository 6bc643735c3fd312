package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/msgctl/msgctl/delivery"
)

// phase is where in a session something happened.
type phase uint8

const (
	atConnect phase = iota + 1 // dial, greeting, EHLO, STARTTLS, AUTH
	atMail
	atRcpt
	atData
	atDot // the reply to the final dot
)

func (p phase) String() string {
	return [...]string{"", "connect", "MAIL", "RCPT", "DATA", "the message"}[p]
}

// refused is a decisive negative reply.
type refused struct {
	phase phase
	reply reply
}

func (e *refused) Error() string {
	return fmt.Sprintf("%s answered with %s", e.phase, e.reply.status())
}

// broken is a connection that gave no usable answer.
type broken struct {
	phase phase
	// offered is set when the final dot may have left: the relay could have taken the message.
	offered bool
	// silent is set when the relay had sent nothing at all for this message.
	silent bool
	err    error
}

func (e *broken) Error() string { return fmt.Sprintf("%s: %v", e.phase, e.err) }
func (e *broken) Unwrap() error { return e.err }

var (
	errTimeout   = errors.New("the hand-off took too long")
	errSlow      = errors.New("the relay did not answer in time")
	errTLS       = errors.New("TLS failed")
	errOutOfStep = errors.New("the relay's replies are out of step")
)

// reject is a failure of the message that the relay was never asked about.
func reject(code, detail string) error {
	return &delivery.Failure{Class: delivery.Rejected, Code: code, Detail: detail, Known: true}
}

// down is a failure of the account.
func down(code, detail string) error {
	return &delivery.Failure{Class: delivery.ConnectorDown, Code: code, Detail: detail, Known: true}
}

// isStale reports whether a pooled connection had ended before this message: the relay closed it, or says 421 because
// it is about to. A 421 that asks to slow down is an answer and counts as one.
func isStale(err error) bool {
	var b *broken
	if errors.As(err, &b) {
		return b.silent && !b.offered && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed))
	}
	var r *refused
	return errors.As(err, &r) && r.phase == atMail && r.reply.code == 421 && r.reply.enhanced[1] != 7
}

// failure turns what went wrong into what it asks of the engine. m is nil for a check.
func (c *connector) failure(err error, m *delivery.Outgoing) error {
	var f *delivery.Failure
	if errors.As(err, &f) {
		return err
	}
	var r *refused
	if errors.As(err, &r) {
		to := ""
		if m != nil {
			to = m.To
		}
		class, known := classify(r.phase, r.reply)
		detail := r.phase.String() + ": " + r.reply.safe(to)
		return &delivery.Failure{Class: class, Code: r.reply.status(), Detail: detail, Known: known}
	}
	b := &broken{phase: atConnect, err: err}
	errors.As(err, &b)
	f = &delivery.Failure{Known: true, Err: err}
	var timeout net.Error
	switch {
	case b.offered:
		f.Class, f.Code, f.Detail = delivery.InDoubt, "no_answer", "the relay did not say whether it took the message"
	case errors.Is(err, context.Canceled):
		f.Class, f.Code, f.Detail = delivery.Transient, "canceled", "stopped before the message was offered"
	case b.phase == atConnect && errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, errSlow),
		errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		f.Class, f.Code, f.Detail = delivery.Transient, "timeout", "the relay did not answer in time"
	case errors.Is(err, errOutOfStep), errors.Is(err, errMalformed):
		f.Class, f.Code, f.Detail = delivery.Transient, "protocol", "the relay does not speak proper SMTP"
	default:
		f.Class, f.Code, f.Detail = delivery.Transient, "connection", "the connection was lost before the message went out"
	}
	if b.phase == atConnect && f.Code != "canceled" {
		f.Class = delivery.ConnectorDown
		var dns *net.DNSError
		var blocked interface{ EgressBlocked() string }
		switch {
		case errors.As(err, &blocked):
			f.Code = "blocked_address"
			f.Detail = "the address may not be reached from here (" + blocked.EgressBlocked() + ")"
		case errors.As(err, &dns):
			f.Code, f.Detail = "dns", "the relay's name cannot be resolved"
		case errors.Is(err, syscall.ECONNREFUSED):
			f.Code, f.Detail = "refused", "nothing listens at the relay's address"
		case errors.Is(err, errTLS):
			f.Code, f.Detail = "tls", "no TLS with the relay: its certificate or its protocol is not acceptable"
		case f.Code == "connection":
			f.Code, f.Detail = "connect", "the connection to the relay failed before it was ready to take mail"
		}
	}
	return f
}

// classify says what a negative reply means, and whether the code stands in the tables of RFC 5321 §4.2.3, RFC 4954 §6
// and RFC 7504.
//
// The enhanced code (RFC 3463) decides where there is one, because basic codes are shared by very different causes. A
// policy refusal (X.7) never counts against the address, and an X.1 code before RCPT speaks of the sender.
func classify(at phase, r reply) (class delivery.Class, known bool) {
	known = knownCode(r.code)
	subject, detail := r.enhanced[1], r.enhanced[2]
	switch {
	case r.code == 530 || r.code == 534 || r.code == 535 || r.code == 538 || r.code == 432:
		return delivery.ConnectorDown, known // log in, or log in differently
	case r.code == 421 || r.code/100 == 4 && subject == 7:
		return delivery.Throttled, known
	case r.code/100 == 4:
		return delivery.Transient, known
	case at == atConnect:
		return delivery.ConnectorDown, known
	case r.code/100 != 5:
		return delivery.Transient, false // neither yes nor no
	case subject == 2 && detail == 2: // mailbox full: permanent by its code, not in life
		return delivery.Transient, known
	case r.code == 503: // out of sequence: the session is confused, not the message wrong
		return delivery.Transient, known
	case at == atMail:
		return delivery.Rejected, known
	case subject == 1 && (detail == 7 || detail == 8): // bad sender
		return delivery.Rejected, known
	case subject == 1, subject == 2 && detail == 1:
		return delivery.BadRecipient, known
	case r.enhanced == [3]int{} && at == atRcpt && (r.code == 550 || r.code == 556):
		return delivery.BadRecipient, known
	}
	return delivery.Rejected, known
}

func knownCode(code int) bool {
	switch code {
	case 421, 432, 450, 451, 452, 454, 455,
		500, 501, 502, 503, 504, 521, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 556:
		return true
	}
	return false
}
