package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	batchRows = 500
	pushers   = 8 // connections of a batched load
	// requestTimeout bounds one request of the load; the engine answers in milliseconds.
	requestTimeout = 30 * time.Second
)

// request writes an HTTP request, so that the load itself costs next to nothing.
func (e *served) request(path, media string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n", path, e.key)
	fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", media, len(body))
	b.Write(body)
	return b.Bytes()
}

func (e *served) batch(body []byte) []byte {
	return e.request("/v1/messages/batch", "application/x-ndjson", body)
}

// next gives out n recipients that no other call gives out.
func (b *bench) next(n int) (first int) {
	first = b.people
	b.people += n
	return first
}

// batches writes messages to the recipients first to first+n-1 as requests of up to 500 rows.
func (e *served) batches(c channel, at string, first, n int, extra string) [][]byte {
	var requests [][]byte
	for done := 0; done < n; {
		rows := min(batchRows, n-done)
		requests = append(requests, e.batch(lines(c, at, first+done, rows, extra)))
		done += rows
	}
	return requests
}

// lines writes rows of a batch. at is the simulator's URL, extra what each row has besides, such as ,"lane":"bulk".
func lines(c channel, at string, first, rows int, extra string) []byte {
	var b []byte
	for i := range rows {
		b = append(b, `{"channel":"`...)
		b = append(b, c.name...)
		b = append(b, `","to":"`...)
		b = append(b, c.to(at, first+i)...)
		b = append(b, `",`...)
		b = append(b, c.content...)
		b = append(b, extra...)
		b = append(b, '}', '\n')
	}
	return b
}

// inAnHour is the member of a row that is not due while the program runs.
func inAnHour() string {
	return `,"send_at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"`
}

// wire is one keep-alive connection.
type wire struct {
	nc  net.Conn
	r   *bufio.Reader
	buf bytes.Buffer
}

func dial(ctx context.Context, base string) (*wire, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &wire{nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}, nil
}

// do sends a request and wants the status, and no row that was refused.
func (w *wire) do(request []byte, status int) error {
	if err := w.nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	if _, err := w.nc.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return err
	}
	w.buf.Reset()
	if _, err := io.Copy(&w.buf, resp.Body); err != nil {
		return err
	}
	body := w.buf.Bytes()
	if resp.StatusCode != status {
		return fmt.Errorf("answered %s: %s", resp.Status, body[:min(len(body), 500)])
	}
	if at := bytes.Index(body, []byte(`"error":`)); at >= 0 {
		return fmt.Errorf("a row was refused: %s", body[at:min(len(body), at+500)])
	}
	return nil
}

// pump sends what next returns over the given number of connections until it returns nil, and returns how long each
// request took.
func pump(ctx context.Context, base string, conns, status int, next func() []byte) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wires := make([]*wire, conns)
	for i := range wires {
		w, err := dial(ctx, base)
		if err != nil {
			return nil, err
		}
		defer w.nc.Close()
		wires[i] = w
	}
	took := make([][]time.Duration, conns)
	var wg sync.WaitGroup
	for i, w := range wires {
		wg.Go(func() {
			for ctx.Err() == nil {
				request := next()
				if request == nil {
					return
				}
				start := time.Now()
				if err := w.do(request, status); err != nil {
					cancel(err)
					return
				}
				took[i] = append(took[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	var all []time.Duration
	for _, t := range took {
		all = append(all, t...)
	}
	return all, context.Cause(ctx)
}

// each returns every request once.
func each(requests [][]byte) func() []byte {
	var at atomic.Int64
	return func() []byte {
		i := int(at.Add(1)) - 1
		if i >= len(requests) {
			return nil
		}
		return requests[i]
	}
}

// during returns the requests in turn, again and again, until d has passed.
func during(d time.Duration, requests [][]byte) func() []byte {
	var at atomic.Int64
	end := time.Now().Add(d)
	return func() []byte {
		if !time.Now().Before(end) {
			return nil
		}
		return requests[int(at.Add(1))%len(requests)]
	}
}
