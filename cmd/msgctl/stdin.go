package main

import (
	"context"
	"io"
)

// interruptible reads until its context ends. A read from a terminal or a pipe can last for ever, and no deadline ends
// it: Ctrl-C must. The one read that is then left behind ends with the program. One goroutine may use it.
type interruptible struct {
	ctx context.Context // a reader has no other way to learn of its end
	r   io.Reader
	buf []byte
}

// Read implements io.Reader. After the end of the context it only returns the context's error.
func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	if len(i.buf) < len(p) {
		i.buf = make([]byte, len(p)) // not p: it is the caller's again when Read has returned
	}
	var err error
	n, done := 0, make(chan struct{})
	buf := i.buf[:len(p)]
	go func() {
		defer close(done)
		n, err = i.r.Read(buf)
	}()
	select {
	case <-done:
		return copy(p, buf[:n]), err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}
