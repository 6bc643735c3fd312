package api

import (
	"context"
	"net/http"

	"github.com/msgctl/msgctl/delivery"
)

// Tracing joins requests that bring messages to the traces of their callers.
type Tracing interface {
	// Join returns a context that names the trace that a request's headers name, and whether the caller records it. The
	// Accepter finds it there.
	Join(ctx context.Context, h http.Header) (joined context.Context, followed bool)
	// Follow returns an id like a new one, of a message that is traced.
	Follow(id delivery.MessageID) delivery.MessageID
}

// join makes the call part of its caller's trace. It says whether its messages are to be traced for the caller.
func (c *call) join() (followed bool) {
	if c.a.Tracing == nil {
		return false
	}
	ctx, followed := c.a.Tracing.Join(c.ctx(), c.r.Header)
	if ctx != c.ctx() {
		c.r = c.r.WithContext(ctx)
	}
	return followed
}

// newID makes the id of a message.
func (k *checker) newID() delivery.MessageID {
	id := k.a.IDs.Message()
	if k.followed {
		id = k.a.Tracing.Follow(id)
	}
	return id
}
