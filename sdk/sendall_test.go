package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// batchEngine accepts batches as an engine does: a key it has seen gets its first answer again.
type batchEngine struct {
	t        *testing.T
	mu       sync.Mutex
	answers  map[string]string
	bodies   map[string]string
	accepted map[string]int // recipient → times
	calls    int
	flying   int
	most     int
	before   func(call int, w http.ResponseWriter) bool // true = it answered
	after    func(call int)                             // accepted, about to answer
}

func newBatchEngine(t *testing.T) *batchEngine {
	return &batchEngine{t: t, answers: map[string]string{}, bodies: map[string]string{}, accepted: map[string]int{}}
}

func (b *batchEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b.mu.Lock()
	b.calls++
	call := b.calls
	b.flying++
	b.most = max(b.most, b.flying)
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.flying--; b.mu.Unlock() }()
	if b.before != nil && b.before(call, w) {
		return
	}
	key := r.Header.Get("Idempotency-Key")
	b.mu.Lock()
	out, seen := b.answers[key]
	if seen && b.bodies[key] != string(body) {
		b.mu.Unlock()
		refuse(w, 422, "idempotency_mismatch")
		return
	}
	if !seen {
		out = b.accept(body)
		b.answers[key], b.bodies[key] = out, string(body)
	}
	after := b.after
	b.mu.Unlock()
	if after != nil {
		after(call)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	_, _ = io.WriteString(w, out)
}

func (b *batchEngine) accept(body []byte) string {
	var out strings.Builder
	sc := bufio.NewScanner(bytes.NewReader(body))
	sc.Buffer(nil, 2<<20)
	for n := 1; sc.Scan(); n++ {
		var m MessageRequest
		require.NoError(b.t, json.Unmarshal(sc.Bytes(), &m))
		row := BatchRow{Row: n, ClientRef: m.ClientRef}
		if strings.HasPrefix(m.To, "bad") {
			row.Error = &Error{Code: "invalid_phone", Status: 422}
		} else {
			b.accepted[m.To]++
			row.ID, row.Status = "msg_"+m.To, Queued
		}
		line, _ := json.Marshal(row)
		out.Write(append(line, '\n'))
	}
	return out.String()
}

func people(n int) iter.Seq[Sendable] {
	return func(yield func(Sendable) bool) {
		for i := 1; i <= n; i++ {
			if !yield(SMS{To: fmt.Sprint(i), Text: "hi"}) {
				return
			}
		}
	}
}

func collect(t *testing.T, seq iter.Seq2[RowResult, error]) (rows []RowResult, last error) {
	t.Helper()
	for r, err := range seq {
		if last = err; err == nil {
			rows = append(rows, r)
			require.Equal(t, len(rows), r.Row, "rows come in order")
		}
	}
	return rows, last
}

func TestSendAll(t *testing.T) {
	for _, n := range []int{0, 1, 499, 500, 501, 3210} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			e := newBatchEngine(t)
			c, _ := serve(t, e.ServeHTTP)
			rows, err := collect(t, c.SendAll(t.Context(), people(n), Window(3)))
			require.NoError(t, err)
			require.Len(t, rows, n)
			require.Len(t, e.accepted, n)
			require.Equal(t, (n+chunkRows-1)/chunkRows, e.calls)
			require.LessOrEqual(t, e.most, 3)
			for _, r := range rows {
				require.Equal(t, fmt.Sprintf("msg_%d", r.Row), r.ID)
			}
		})
	}
}

func TestSendAllRefusesRowsOneByOne(t *testing.T) {
	e := newBatchEngine(t)
	c, _ := serve(t, e.ServeHTTP)
	rows := func(yield func(Sendable) bool) {
		for _, m := range []Sendable{
			SMS{To: "1"}, SMS{To: "bad"}, Hook{Data: func() {}}, Unsendable(io.ErrUnexpectedEOF),
			SMS{To: "big", Text: strings.Repeat("x", chunkBytes)}, With(SMS{To: "2"}, Ref("mine")),
		} {
			if !yield(m) {
				return
			}
		}
	}
	got, err := collect(t, c.SendAll(t.Context(), rows))
	require.NoError(t, err)
	require.Len(t, got, 6)
	codes := make([]string, 0, 6)
	for _, r := range got {
		if r.Error == nil {
			codes = append(codes, r.ID)
		} else {
			codes = append(codes, r.Error.Code)
		}
	}
	require.Equal(t, []string{"msg_1", "invalid_phone", "invalid_row", "invalid_row", "payload_too_large", "msg_2"}, codes)
	require.Equal(t, "mine", got[5].ClientRef)
}

func TestSendAllSplitsByBytes(t *testing.T) {
	e := newBatchEngine(t)
	c, _ := serve(t, e.ServeHTTP)
	text := strings.Repeat("x", 300_000)
	rows := func(yield func(Sendable) bool) {
		for i := 1; i <= 10; i++ {
			if !yield(SMS{To: fmt.Sprint(i), Text: text}) {
				return
			}
		}
	}
	got, err := collect(t, c.SendAll(t.Context(), rows))
	require.NoError(t, err)
	require.Len(t, got, 10)
	require.Equal(t, 4, e.calls, "three of 300 kB fit into 1 MiB")
	for key, body := range e.bodies {
		require.LessOrEqual(t, len(body), chunkBytes, key)
	}
}

// The connection is cut after the engine has stored a chunk and before it could say so.
func TestSendAllAcceptsNothingTwice(t *testing.T) {
	t.Run("cut and tried again", func(t *testing.T) {
		e := newBatchEngine(t)
		e.after = func(call int) {
			if call%2 == 1 {
				panic(http.ErrAbortHandler)
			}
		}
		c, _ := serve(t, e.ServeHTTP, WithMaxRetries(10))
		rows, err := collect(t, c.SendAll(t.Context(), people(2000), Window(4)))
		require.NoError(t, err)
		require.Len(t, rows, 2000)
		once(t, e, 2000)
	})
	t.Run("cut for good and resumed with another window", func(t *testing.T) {
		e := newBatchEngine(t)
		e.after = func(call int) {
			if call >= 3 {
				panic(http.ErrAbortHandler)
			}
		}
		c, _ := serve(t, e.ServeHTTP, WithMaxRetries(0))
		rows, err := collect(t, c.SendAll(t.Context(), people(3000), Window(4), Resume("r1")))
		require.ErrorIs(t, err, ErrUnavailable)
		require.Less(t, len(rows), 3000)
		e.mu.Lock() // a request that was cut may still be with the engine
		require.Greater(t, len(e.accepted), len(rows), "some rows are stored and nobody knows")
		e.after = nil
		e.mu.Unlock()
		rows, err = collect(t, c.SendAll(t.Context(), people(3000), Window(2), Resume("r1")))
		require.NoError(t, err)
		require.Len(t, rows, 3000)
		once(t, e, 3000)
	})
	t.Run("other rows under the same name", func(t *testing.T) {
		e := newBatchEngine(t)
		c, _ := serve(t, e.ServeHTTP)
		_, err := collect(t, c.SendAll(t.Context(), people(10), Resume("r1")))
		require.NoError(t, err)
		_, err = collect(t, c.SendAll(t.Context(), people(11), Resume("r1")))
		var refused *Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "idempotency_mismatch", refused.Code)
	})
}

func once(t *testing.T, e *batchEngine, n int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	require.Len(t, e.accepted, n)
	for to, times := range e.accepted {
		require.Equal(t, 1, times, "to %s", to)
	}
}

func TestSendAllWaitsOut429(t *testing.T) {
	e := newBatchEngine(t)
	e.before = func(call int, w http.ResponseWriter) bool {
		if call > 20 {
			return false
		}
		w.Header().Set("Retry-After", "90")
		refuse(w, 429, "rate_limited")
		return true
	}
	c, s := serve(t, e.ServeHTTP, WithMaxRetries(0))
	rows, err := collect(t, c.SendAll(t.Context(), people(1000), Window(4)))
	require.NoError(t, err)
	require.Len(t, rows, 1000)
	require.Len(t, s.waits, 20)
}

func TestRoomShrinksAndGrows(t *testing.T) {
	r := &room{most: 8}
	r.now.Store(8)
	for _, want := range []int{4, 2, 1, 1} {
		r.shrink()
		require.Equal(t, want, r.size())
	}
	for range 20 {
		r.grow()
	}
	require.Equal(t, 8, r.size())
}

func TestSendAllStops(t *testing.T) {
	t.Run("quota", func(t *testing.T) {
		e := newBatchEngine(t)
		e.before = func(call int, w http.ResponseWriter) bool {
			if call == 3 {
				refuse(w, 429, "quota_exceeded")
			}
			return call == 3
		}
		c, s := serve(t, e.ServeHTTP)
		rows, err := collect(t, c.SendAll(t.Context(), people(5000), Window(1)))
		require.ErrorIs(t, err, ErrQuota)
		require.Contains(t, err.Error(), "rows 1001 to 1500")
		require.Len(t, rows, 1000)
		require.Empty(t, s.waits)
	})
	t.Run("the reader leaves", func(t *testing.T) {
		e := newBatchEngine(t)
		c, _ := serve(t, e.ServeHTTP)
		pulled := 0
		rows := func(yield func(Sendable) bool) {
			for ; yield(SMS{To: fmt.Sprint(pulled)}); pulled++ {
			}
		}
		for range c.SendAll(t.Context(), rows, Window(2)) {
			break
		}
		require.LessOrEqual(t, pulled, 2*chunkRows+1, "rows without end are pulled only while there is room")
	})
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := newBatchEngine(t)
		e.before = func(call int, _ http.ResponseWriter) bool {
			if call == 2 {
				cancel()
			}
			return false
		}
		c, _ := serve(t, e.ServeHTTP)
		endless := func(yield func(Sendable) bool) {
			for yield(SMS{To: "1"}) {
			}
		}
		_, err := collect(t, c.SendAll(ctx, endless, Window(2)))
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("wrong options", func(t *testing.T) {
		c := New()
		for _, o := range []BulkOption{Window(0), Window(65), Resume("a\nb"), Resume(strings.Repeat("x", 201))} {
			_, err := collect(t, c.SendAll(t.Context(), people(1), o))
			require.ErrorIs(t, err, ErrInvalid)
		}
	})
	for name, body := range map[string]string{
		"short answer": `{"row":1,"id":"a"}`, "wrong number": "{\"row\":1,\"id\":\"a\"}\n{\"row\":3,\"id\":\"b\"}", "empty row": "{\"row\":1}\n{\"row\":2,\"id\":\"b\"}",
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
			rows, err := collect(t, c.SendAll(t.Context(), people(2)))
			require.ErrorIs(t, err, ErrUnavailable)
			require.Empty(t, rows)
		})
	}
}

func BenchmarkSendAll(b *testing.B) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sc := bufio.NewScanner(r.Body)
		for n := 1; sc.Scan(); n++ {
			_, _ = fmt.Fprintf(w, `{"row":%d,"id":"msg_x","status":"queued"}`+"\n", n)
		}
	})
	c := New(WithHTTPClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		w := &memory{}
		h.ServeHTTP(w, r)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(&w.b), Request: r}, nil
	})}))
	for range c.SendAll(b.Context(), people(b.N)) {
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type memory struct{ b bytes.Buffer }

func (m *memory) Header() http.Header         { return http.Header{} }
func (m *memory) Write(p []byte) (int, error) { return m.b.Write(p) }
func (m *memory) WriteHeader(int)             {}
