package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// transact offers cn.msg. The error is *refused, with the session still good or marked dead, or *broken, with the
// session dead.
//
// A pipelined envelope is one write: MAIL, RCPT, DATA (RFC 2920 §3.1), behind RSET when a transaction was left open.
// DATA is always last in its group, because the message may only follow its 354.
func (cn *conn) transact(ctx context.Context, e *envelope, pipelined bool) (reply, error) {
	cn.messages++
	if cn.r.Buffered() > 0 { // most often 421 before it closes; never an answer to this message
		cn.dead = true
		err := fmt.Errorf("%w: it spoke unasked: %w", errOutOfStep, io.EOF)
		return reply{}, &broken{phase: atMail, silent: true, err: err}
	}
	if err := cn.offer(ctx, e, pipelined); err != nil {
		return reply{}, err
	}
	return cn.data(ctx)
}

// step is a command of the envelope.
type step struct {
	phase phase
	reset bool // RSET
}

// offer sends the commands up to DATA and wants 354.
func (cn *conn) offer(ctx context.Context, e *envelope, pipelined bool) error {
	var steps [4]step
	var ends [4]int // of the commands in cn.out
	n := 0
	add := func(s step) {
		cn.out = append(cn.out, '\r', '\n')
		steps[n], ends[n] = s, len(cn.out)
		n++
	}
	cn.out = cn.out[:0]
	if cn.dirty {
		cn.out = append(cn.out, "RSET"...)
		add(step{phase: atMail, reset: true})
	}
	cn.out = append(append(append(cn.out, "MAIL FROM:<"...), e.from...), '>')
	if cn.ext.size > 0 {
		cn.out = strconv.AppendInt(append(cn.out, " SIZE="...), int64(len(cn.msg)), 10)
	}
	if e.body8 {
		cn.out = append(cn.out, " BODY=8BITMIME"...)
	}
	if e.utf8 {
		cn.out = append(cn.out, " SMTPUTF8"...)
	}
	add(step{phase: atMail})
	cn.out = append(append(append(cn.out, "RCPT TO:<"...), e.to...), '>')
	add(step{phase: atRcpt})
	cn.out = append(cn.out, "DATA"...)
	add(step{phase: atData})
	if pipelined {
		return cn.group(ctx, steps[:n])
	}
	start := 0
	for i, s := range steps[:n] {
		r, err := cn.exchange(ctx, s.phase, cn.out[start:ends[i]], i == 0)
		start = ends[i]
		if err != nil {
			return err
		}
		if err := cn.judge(s, r); err != nil {
			return err
		}
	}
	return nil
}

// judge compares a reply with what a step wants and notes what it leaves behind.
func (cn *conn) judge(s step, r reply) error {
	hundreds := r.code / 100
	switch {
	case s.reset && hundreds != 2: // says nothing about the message: as good as a closed connection
		cn.dead = true
		return &broken{phase: atMail, silent: true, err: fmt.Errorf("%d to RSET: %w", r.code, io.EOF)}
	case r.code == 421: // the relay closes behind it
		cn.dead = true
		return &refused{s.phase, r}
	case hundreds == 4 || hundreds == 5:
		return &refused{s.phase, r}
	case s.phase == atData && r.code == 354:
		return nil
	case s.phase != atData && hundreds == 2:
		cn.dirty = true
		return nil
	}
	cn.dead = true
	return &broken{phase: s.phase, err: fmt.Errorf("%w: %d to %s", errOutOfStep, r.code, s.phase)}
}

// exchange writes one command and reads its reply.
func (cn *conn) exchange(ctx context.Context, p phase, command []byte, first bool) (r reply, err error) {
	err = cn.within(ctx, cn.patience, func() error {
		if _, err := cn.nc.Write(command); err != nil {
			return err
		}
		r, err = readReply(cn.r, false)
		return err
	})
	if err != nil {
		cn.dead = true
		return reply{}, &broken{phase: p, silent: first, err: err}
	}
	return r, nil
}

// group writes all commands at once and reads their replies in order. The first refusal decides; the replies behind it
// are read for the session's sake.
func (cn *conn) group(ctx context.Context, steps []step) error {
	var verdict error
	at, got, goAhead := steps[0].phase, 0, false
	err := cn.within(ctx, cn.patience, func() error {
		if _, err := cn.nc.Write(cn.out); err != nil {
			return err
		}
		for _, s := range steps {
			at = s.phase
			r, err := readReply(cn.r, false)
			if err != nil {
				return err
			}
			got++
			if s.phase == atData && r.code == 354 {
				goAhead = true
			}
			if err := cn.judge(s, r); err != nil && verdict == nil {
				verdict = err
			}
			if cn.dead {
				return nil
			}
		}
		if cn.r.Buffered() > 0 && !goAhead {
			cn.dead = true
			return fmt.Errorf("%w: more replies than commands", errOutOfStep)
		}
		return nil
	})
	switch {
	case verdict != nil && (err != nil || cn.dead):
		cn.dead = true
		return verdict // the refusal stands, whatever became of the session behind it
	case err != nil:
		cn.dead = true
		if got > 0 && errors.Is(err, errSlow) {
			err = fmt.Errorf("%w: %d replies to %d commands: %w", errOutOfStep, got, len(steps), err)
		}
		return &broken{phase: at, silent: got == 0, err: err}
	case verdict == nil || !goAhead:
		return verdict
	}
	// MAIL or RCPT was refused and DATA not: end the message that has no recipient (RFC 2920 §3.1).
	r, err := cn.exchange(ctx, atData, []byte(".\r\n"), false)
	if err != nil || r.code/100 == 2 {
		cn.dead = true // a relay that takes mail for nobody is not to be trusted with the next
	}
	cn.dirty = false
	return verdict
}

// data sends the message and reads the decisive reply. From the moment the last byte of the final dot is handed to the
// system until that reply, nobody knows whether the relay has the message.
func (cn *conn) data(ctx context.Context) (r reply, err error) {
	if cn.r.Buffered() > 0 {
		return reply{}, cn.early(ctx)
	}
	out := append(stuffDots(cn.msg), ".\r\n"...)
	wrote := 0
	err = cn.within(ctx, 0, func() error {
		var werr error
		if wrote, werr = cn.nc.Write(out); werr != nil && ctx.Err() != nil {
			return werr
		}
		// A relay may refuse early and close: then the write fails and its reply is still there to be read.
		r, err = readReply(cn.r, false)
		if werr != nil && (err != nil || r.code/100 == 2) {
			return werr
		}
		return err
	})
	cn.dirty = false
	switch {
	case err != nil:
		cn.dead = true
		return reply{}, &broken{phase: atDot, offered: wrote == len(out), err: err}
	case r.code/100 == 2:
		return r, nil
	}
	cn.dead = cn.dead || r.code == 421 || wrote < len(out)
	if r.code/100 == 3 {
		cn.dead = true
		err := fmt.Errorf("%w: %d to the message", errOutOfStep, r.code)
		return reply{}, &broken{phase: atDot, offered: true, err: err}
	}
	return reply{}, &refused{atDot, r}
}

// early reads a reply that came before the message went out: a refusal stands, anything else answers nothing.
func (cn *conn) early(ctx context.Context) error {
	cn.dead = true
	var r reply
	err := cn.within(ctx, cn.patience, func() (err error) {
		r, err = readReply(cn.r, false)
		return err
	})
	if err == nil && (r.code/100 == 4 || r.code/100 == 5) {
		return &refused{atDot, r}
	}
	return &broken{phase: atData, err: fmt.Errorf("%w: %d before the message", errOutOfStep, r.code)}
}

// stuffDots doubles each dot at the start of a line (RFC 5321 §4.5.2). It returns msg itself when there is none.
func stuffDots(msg []byte) []byte {
	n := bytes.Count(msg, []byte("\r\n."))
	if n == 0 && !bytes.HasPrefix(msg, []byte(".")) {
		return msg
	}
	out := make([]byte, 0, len(msg)+n+4)
	if msg[0] == '.' {
		out = append(out, '.')
	}
	for {
		i := bytes.Index(msg, []byte("\r\n."))
		if i < 0 {
			return append(out, msg...)
		}
		out = append(append(out, msg[:i+3]...), '.')
		msg = msg[i+3:]
	}
}
