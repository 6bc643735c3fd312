package smpp

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// maxBacklog is how many octets a Writer holds for a peer that does not read.
const maxBacklog = 4 << 20

// Errors of Writer.Add.
var (
	ErrWriterClosed = errors.New("smpp: the session has ended")
	ErrBacklog      = errors.New("smpp: the peer does not read")
)

// Writer gathers PDUs from many goroutines and writes, at each turn, all that have come since the turn before: one
// system call carries as many PDUs as the window lets in, and a lone one goes at once. Run does the writing;
// everything else is safe for concurrent use.
type Writer struct {
	w       io.Writer
	wake    chan struct{}
	written atomic.Int64
	busy    atomic.Bool

	mu     sync.Mutex
	out    []byte
	added  int64
	closed bool
}

// NewWriter makes a writer of PDUs to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, wake: make(chan struct{}, 1)} }

// Add queues one or more PDUs and copies them. end is the place in the stream behind them: once Written has reached it
// they are with the operating system and the peer may act on them; while it has not, the peer cannot have the last of
// them whole. The error is ErrWriterClosed or ErrBacklog, and then nothing was queued.
func (w *Writer) Add(pdu []byte) (end int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, ErrWriterClosed
	}
	if len(w.out)+len(pdu) > maxBacklog {
		return 0, ErrBacklog
	}
	w.out = append(w.out, pdu...)
	w.added += int64(len(pdu))
	if len(w.out) == len(pdu) {
		w.signal()
	}
	return w.added, nil
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Written returns how many octets the stream has taken.
func (w *Writer) Written() int64 { return w.written.Load() }

// Busy reports whether a write is under way: one that stays so means that the peer does not read.
func (w *Writer) Busy() bool { return w.busy.Load() }

// Close refuses further PDUs. Run writes those it has and returns.
func (w *Writer) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
}

// Run writes until Close, when it returns nil, or until a write fails. It is called once.
func (w *Writer) Run() error {
	var spare []byte
	for {
		// Whoever is ready to add goes first: with a window of 50 this makes one write of them instead of several.
		runtime.Gosched()
		w.mu.Lock()
		batch, closed := w.out, w.closed
		if len(batch) > 0 {
			w.out = spare[:0]
		}
		w.mu.Unlock()
		if len(batch) == 0 {
			if closed {
				return nil
			}
			<-w.wake
			continue
		}
		w.busy.Store(true)
		n, err := w.w.Write(batch)
		w.busy.Store(false)
		w.written.Add(int64(n))
		if err != nil {
			w.mu.Lock()
			w.closed, w.out = true, nil
			w.mu.Unlock()
			return err
		}
		if spare = batch; cap(spare) > 256<<10 {
			spare = nil // a burst is no reason to keep its memory
		}
	}
}
