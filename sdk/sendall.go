package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
)

// The bounds of one chunk. They are part of a run's identity: the same rows always make the same chunks, whatever the
// window, so that chunk n of a resumed run carries what chunk n of the first one did.
const (
	chunkRows  = 500
	chunkBytes = 1 << 20
)

// RowResult is what became of one row of SendAll.
type RowResult struct {
	Row       int // from 1, over the whole run
	ID        string
	Status    Status
	Reason    string
	ClientRef string
	Error     *Error // the row was refused; the others were not
}

// BulkOption configures SendAll.
type BulkOption func(*bulk)

// Window bounds how many chunks are in flight: 1 to 64, default 8. A 429 halves it for a while.
func Window(n int) BulkOption { return func(b *bulk) { b.window = n } }

// Resume names the run. Calling SendAll again with the same name and the same rows in the same order, within 72 hours,
// accepts nothing twice and returns the first run's ids: start over after a crash. See NewRunID.
func Resume(run string) BulkOption { return func(b *bulk) { b.run = run } }

// SendAll sends many messages: it packs rows into chunks of at most 500 rows or 1 MiB, keeps at most Window of them in
// flight, and yields a result for each row, in order. Rows are pulled only while there is room, so that a source of any
// length needs the memory of a few chunks. 429 is waited for as long as the engine asks; other passing failures are
// tried again as in Send.
//
// A row that is refused is a RowResult with an Error. A failure that stops the run, such as a used-up quota or an
// engine that went away, is the second value: it comes last, and what was not yielded by then is unknown until the run
// is resumed. When the context ends, so does the run, with its error. SendAll blocks while rows does.
func (c *Client) SendAll(ctx context.Context, rows iter.Seq[Sendable], opts ...BulkOption) iter.Seq2[RowResult, error] {
	b := bulk{c: c, window: 8}
	for _, o := range opts {
		o(&b)
	}
	if b.run == "" {
		b.run = NewRunID()
	}
	return func(yield func(RowResult, error) bool) {
		if b.window < 1 || b.window > 64 {
			yield(RowResult{}, fmt.Errorf("%w: Window(%d): 1 to 64", ErrInvalid, b.window))
			return
		}
		if len(b.run) > 200 || !printable(b.run) {
			yield(RowResult{}, fmt.Errorf("%w: the name of a run has 1 to 200 printable ASCII characters", ErrInvalid))
			return
		}
		b.send(ctx, rows, yield)
	}
}

type bulk struct {
	c      *Client
	run    string
	window int
}

// send fills the window, waits for the oldest chunk, yields its rows, and so on. One goroutine per chunk in flight; all
// have ended when it returns.
func (b bulk) send(ctx context.Context, rows iter.Seq[Sendable], yield func(RowResult, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	next, stop := iter.Pull(rows)
	defer stop()

	var (
		pack   = packer{next: next}
		room   = &room{most: int64(b.window)}
		flight []*chunk
		done   bool
	)
	room.now.Store(room.most)
	for {
		for !done && len(flight) < room.size() && ctx.Err() == nil && (len(flight) == 0 || !flight[0].ended()) {
			k := pack.chunk()
			if done = k == nil; done {
				break
			}
			flight = append(flight, k)
			wg.Go(func() {
				defer close(k.done)
				k.err = b.post(ctx, k, room)
			})
		}
		if len(flight) == 0 {
			if err := ctx.Err(); err != nil && !done {
				yield(RowResult{}, context.Cause(ctx))
			}
			return
		}
		k := flight[0]
		flight = flight[1:]
		<-k.done // post ends soon after ctx does
		if k.err != nil {
			yield(RowResult{}, fmt.Errorf("rows %d to %d: %w", k.first, k.first+len(k.results)-1, k.err))
			return
		}
		for _, r := range k.results {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// room is how many chunks may be in flight: halved by a 429, and one more for each chunk that went well.
type room struct {
	most int64
	now  atomic.Int64
}

func (r *room) size() int { return int(r.now.Load()) }

func (r *room) shrink() {
	n := r.now.Load()
	r.now.CompareAndSwap(n, max(n/2, 1))
}

func (r *room) grow() {
	if n := r.now.Load(); n < r.most {
		r.now.CompareAndSwap(n, n+1)
	}
}

// chunk is a stretch of rows. Rows that cannot be written are in results with their error, and not in body.
type chunk struct {
	n       int // from 1
	first   int // row number of results[0]
	results []RowResult
	sent    []int // index into results of each line of body
	body    bytes.Buffer
	err     error
	done    chan struct{}
}

func (k *chunk) ended() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// packer makes chunks of rows.
type packer struct {
	next    func() (Sendable, bool)
	n, row  int
	pending []byte // a line that did not fit into the last chunk
}

// chunk returns the next chunk, or nil when there are no more rows.
func (p *packer) chunk() *chunk {
	k := &chunk{n: p.n + 1, first: p.row + 1, done: make(chan struct{})}
	if p.pending != nil {
		k.first = p.row
		k.add(p.row, p.pending)
		p.pending = nil
	}
	for len(k.results) < chunkRows {
		m, ok := p.next()
		if !ok {
			break
		}
		p.row++
		line, refused := encode(m)
		switch {
		case refused != nil:
			k.results = append(k.results, RowResult{Row: p.row, Error: refused})
		case k.body.Len() > 0 && k.body.Len()+len(line) > chunkBytes:
			p.pending = line
			p.n++
			return k
		default:
			k.add(p.row, line)
		}
	}
	if len(k.results) == 0 {
		return nil
	}
	p.n++
	return k
}

func (k *chunk) add(row int, line []byte) {
	k.sent = append(k.sent, len(k.results))
	k.results = append(k.results, RowResult{Row: row})
	k.body.Write(line)
}

// encode writes a row as one line, or says why it cannot.
func encode(m Sendable) ([]byte, *Error) {
	e, err := seal(m, nil)
	var line []byte
	if err == nil {
		line, err = json.Marshal(e.MessageRequest)
	}
	if err != nil {
		return nil, &Error{
			Code: "invalid_row", Title: "The row cannot be sent", Detail: err.Error(), Status: http.StatusUnprocessableEntity,
		}
	}
	if len(line) >= chunkBytes {
		return nil, &Error{
			Code: "payload_too_large", Title: "The row is too large", Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("%d bytes of JSON, at most %d", len(line), chunkBytes-1),
		}
	}
	return append(line, '\n'), nil
}

// post sends a chunk and fills in its results.
func (b bulk) post(ctx context.Context, k *chunk, room *room) error {
	if len(k.sent) == 0 {
		return nil
	}
	var raw []byte
	err := b.c.do(ctx, call{
		method: http.MethodPost, path: "/v1/messages/batch", body: k.body.Bytes(), contentType: string(NDJSON),
		key: b.run + "." + strconv.Itoa(k.n), patient: true, throttled: room.shrink,
	}, &raw)
	if err != nil {
		return err
	}
	k.body = bytes.Buffer{} // its memory is not needed while the results wait for their turn
	if err := k.fill(raw); err != nil {
		return err
	}
	room.grow()
	return nil
}

// fill reads the answer: a BatchRow per line.
func (k *chunk) fill(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	for i, at := range k.sent {
		var row BatchRow
		if err := dec.Decode(&row); err != nil {
			return &notEngine{fmt.Errorf("the answer has %d rows of %d: %w", i, len(k.sent), err)}
		}
		if row.Row != i+1 {
			return &notEngine{fmt.Errorf("row %d of the answer calls itself %d", i+1, row.Row)}
		}
		r := &k.results[at]
		r.ID, r.Status, r.Reason, r.ClientRef, r.Error = row.ID, row.Status, row.Reason, row.ClientRef, row.Error
		if r.ID == "" && r.Error == nil {
			return &notEngine{errors.New("a row of the answer has neither an id nor an error")}
		}
	}
	return nil
}
