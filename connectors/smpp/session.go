package smpp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/msgctl/msgctl/smpp"
)

// session is one bound connection. One goroutine reads, one writes, one keeps time, one takes what the SMSC delivers.
type session struct {
	conn   net.Conn
	log    *slog.Logger
	r      *smpp.Reader
	out    *smpp.Writer
	window chan struct{} // a token for each submit_sm without answer
	inbox  inbox
	keeper keeper
	proved atomic.Bool // the SMSC has said something after the bind

	ending sync.Once
	ended  chan struct{} // nothing more is sent
	cause  error         // why, once ended is closed

	mu       sync.Mutex
	sequence uint32
	pending  map[uint32]*waiter // requests without answer, by sequence number
	late     int                // answers that nobody waited for
}

// waiter is a goroutine that waits for an answer. It is used again, so whoever takes it out of pending answers it,
// once.
type waiter struct {
	answer  chan answer
	born    int  // the keeper's tick at which the request was queued
	counted bool // holds a token of the window
}

// answer is what came of a request.
type answer struct {
	status smpp.Status
	id     string
	err    error // errTimeout or errLost: no answer
}

var (
	errTimeout = errors.New("no answer in time")
	errLost    = errors.New("the connection was lost")
	errTheyEnd = errors.New("the SMSC unbound")
	errWeEnd   = errors.New("unbound by us")
	errSilent  = errors.New("the SMSC does not answer enquire_link")
	errStuck   = errors.New("the SMSC does not read")
)

// newSession makes a session of a connection whose bind had sequence number 1.
func newSession(conn net.Conn, r *smpp.Reader, cfg *config, log *slog.Logger) *session {
	s := &session{
		conn: conn, log: log, r: r, out: smpp.NewWriter(conn), window: make(chan struct{}, cfg.window),
		ended: make(chan struct{}), sequence: 1, pending: make(map[uint32]*waiter, cfg.window),
	}
	s.inbox.init()
	s.keeper.init(cfg)
	return s
}

// over reports whether the session takes no more requests.
func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// run serves the session until it ends, and returns why. c is nil for a session that receives nothing.
func (s *session) run(ctx context.Context, c *Connector) error {
	var carriers, others sync.WaitGroup
	carriers.Go(func() {
		if err := s.out.Run(); err != nil {
			s.end(err)
		}
		_ = s.conn.Close() // after the last PDU of a session that was ended in order
	})
	carriers.Go(func() { s.finish(s.read()) })
	gone := make(chan struct{})
	others.Go(func() { s.keepTime(gone) })
	others.Go(func() { s.receive(ctx, c) })
	carriers.Wait()
	close(gone)
	// From here on the count of written octets stands still, so that each waiter knows whether it was sent.
	s.mu.Lock()
	lost := s.pending
	s.pending = nil
	s.mu.Unlock()
	for _, w := range lost {
		s.release(w)
		w.answer <- answer{err: errLost}
	}
	others.Wait()
	return s.cause
}

// finish ends the session and lets what is queued still be written, within the time that the keeper gives.
func (s *session) finish(cause error) {
	s.ending.Do(func() {
		s.cause = cause
		close(s.ended)
		s.out.Close()
		s.keeper.endSoon()
	})
}

// end ends the session and drops the connection.
func (s *session) end(cause error) {
	s.finish(cause)
	_ = s.conn.Close()
}

// unbind ends the session in order: the SMSC has 2 s to answer, which also lets requests on their way be answered.
func (s *session) unbind() {
	h := smpp.Header{Command: smpp.Unbind, Sequence: s.nextSequence()}
	if _, err := s.out.Add(h.Append(nil)); err != nil {
		s.end(err)
		return
	}
	s.keeper.endSoon()
}

func (s *session) nextSequence() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence = s.sequence%smpp.MaxSequence + 1
	return s.sequence
}

// submit sends a submit_sm and waits for its answer. The error is errNotSent or a *delivery.Failure.
func (s *session) submit(ctx context.Context, pdu []byte, w *waiter) (id string, err error) {
	select {
	case s.window <- struct{}{}:
	default:
		select {
		case s.window <- struct{}{}:
		case <-s.ended:
			return "", errNotSent
		case <-ctx.Done():
			f := refused(smpp.RSysErr)
			f.Code, f.Detail, f.Err = "window_full", "the SMSC did not answer earlier messages in time", ctx.Err()
			return "", f
		}
	}
	w.counted = true
	a, end := s.request(ctx, pdu, w)
	switch {
	case errors.Is(a.err, errNotSent):
		return "", errNotSent
	case errors.Is(a.err, errLost):
		if s.out.Written() < end {
			return "", errNotSent
		}
		return "", doubt("connection_lost", "the connection was lost before the SMSC answered", s.cause)
	case a.err != nil:
		return "", doubt("no_answer", "the SMSC did not answer in time", a.err)
	case a.status != smpp.ROK:
		return "", refused(a.status)
	}
	return a.id, nil
}

// ask sends an enquire_link and waits for its answer. The error is a *delivery.Failure.
func (s *session) ask(ctx context.Context, w *waiter) error {
	w.counted = false
	a, _ := s.request(ctx, smpp.Header{Command: smpp.EnquireLink}.Append(nil), w)
	if a.err != nil {
		return down("no_answer", "the SMSC does not answer enquire_link", a.err)
	}
	return nil
}

// request gives the PDU a sequence number, queues it and waits. end is its end in the stream.
func (s *session) request(ctx context.Context, pdu []byte, w *waiter) (a answer, end int64) {
	s.mu.Lock()
	if s.pending == nil || s.over() {
		s.mu.Unlock()
		s.release(w)
		return answer{err: errNotSent}, 0
	}
	s.sequence = s.sequence%smpp.MaxSequence + 1
	sequence := s.sequence
	w.born = s.keeper.now()
	s.pending[sequence] = w
	s.mu.Unlock()

	smpp.SetSequence(pdu, sequence)
	end, err := s.out.Add(pdu)
	if err != nil {
		if s.take(sequence) == nil {
			<-w.answer // the session's end was quicker
		}
		return answer{err: errNotSent}, 0
	}
	select {
	case a = <-w.answer:
	case <-ctx.Done():
		if s.take(sequence) != nil {
			return answer{err: ctx.Err()}, end
		}
		a = <-w.answer
	}
	return a, end
}

// take removes the waiter of a sequence number, if it still waits, and gives its place in the window back.
func (s *session) take(sequence uint32) *waiter {
	s.mu.Lock()
	w := s.pending[sequence]
	delete(s.pending, sequence)
	s.mu.Unlock()
	if w != nil {
		s.release(w)
	}
	return w
}

func (s *session) release(w *waiter) {
	if w.counted {
		<-s.window
	}
}

// complete gives an answer to whoever waits for it. An answer after its time, a second one, or one to a question that
// was never asked finds nobody and is counted.
func (s *session) complete(h smpp.Header, body []byte) {
	if w := s.take(h.Sequence); w != nil {
		a := answer{status: h.Status}
		if h.Status == smpp.ROK {
			a.id = smpp.ParseID(body)
		}
		w.answer <- a
		return
	}
	s.mu.Lock()
	s.late++
	s.mu.Unlock()
}

// read takes PDUs until the connection ends, and returns why it did. It never waits for anything but the connection, so
// that an enquire_link is answered at once.
func (s *session) read() error {
	for {
		h, body, err := s.r.Next()
		var length *smpp.LengthError
		if errors.As(err, &length) {
			s.reply(smpp.GenericNack, smpp.RInvCmdLen, 0)
		}
		if err != nil {
			return err
		}
		s.keeper.hear()
		s.proved.Store(true)
		switch h.Command {
		case smpp.SubmitSMResp:
			s.complete(h, body)
		case smpp.GenericNack:
			if h.Status == smpp.ROK {
				h.Status = smpp.RUnknownErr // it is a refusal whatever it says
			}
			s.complete(h, nil)
		case smpp.EnquireLinkResp:
			if w := s.take(h.Sequence); w != nil { // the keeper waits for none
				w.answer <- answer{}
			}
		case smpp.DeliverSM:
			if !s.inbox.put(h.Sequence, body) {
				s.reply(smpp.DeliverSMResp, smpp.RXTAppn, h.Sequence)
			}
		case smpp.EnquireLink:
			s.reply(smpp.EnquireLinkResp, smpp.ROK, h.Sequence)
		case smpp.Unbind:
			s.reply(smpp.UnbindResp, smpp.ROK, h.Sequence)
			return errTheyEnd
		case smpp.UnbindResp:
			return errWeEnd
		case smpp.AlertNotification, smpp.Outbind: // neither is answered (§4.12.1, §4.1.7)
		default:
			if !h.Command.IsResp() {
				s.reply(smpp.GenericNack, smpp.RInvCmdID, h.Sequence)
			}
		}
	}
}

// reply queues an answer. An SMSC that asks and never reads its answers loses the connection.
func (s *session) reply(command smpp.Command, status smpp.Status, sequence uint32) {
	h := smpp.Header{Command: command, Status: status, Sequence: sequence}
	var room [smpp.HeaderLen + 1]byte
	pdu := h.Append(room[:0])
	if command == smpp.DeliverSMResp {
		pdu = smpp.AppendID(room[:0], h, "") // its message_id is there and empty (§4.6.2)
	}
	if _, err := s.out.Add(pdu); errors.Is(err, smpp.ErrBacklog) {
		s.end(errStuck)
	}
}
