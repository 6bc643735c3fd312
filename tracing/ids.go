package tracing

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"

	"github.com/msgctl/msgctl/delivery"
)

// Of a message's id (RFC 9562 §5.7, UUIDv7) bytes 9 and 10 are random. They decide whether it is traced: as a number,
// it must be below the threshold. OpenTelemetry's own rule for ratios takes the last eight bytes of a trace's id for
// random, of which the first two bits are fixed in a UUID: it would trace nothing at all below a half.
const (
	luckAt = 9
	lots   = 1 << 16
)

// CheckRatio reports a ratio that is none.
func CheckRatio(r float64) error {
	if !(r >= 0 && r <= 1) { // not a number is neither
		return fmt.Errorf("%v is not a share: use a number from 0 to 1", r)
	}
	return nil
}

// thresholdOf is how many of the 65,536 lots are traced. Lot 0 always is: it is that of messages whose callers are
// followed.
func thresholdOf(ratio float64) uint32 { return max(1, uint32(math.Round(ratio*lots))) }

// Traced reports whether the spans of a message are wanted. All nodes with the same ratio say the same. It is asked
// about every message and costs nothing.
func (t *Tracer) Traced(id delivery.MessageID) bool {
	return uint32(binary.BigEndian.Uint16(id[luckAt:])) < t.threshold
}

// Follow returns an id like the given new one, of a message that is traced. So a caller that records its own trace can
// see what becomes of its message, however small the ratio. Of more than 100 messages a second the ids stay as they are.
func (t *Tracer) Follow(id delivery.MessageID) delivery.MessageID {
	if !t.Traced(id) && t.budget.take() {
		id[luckAt], id[luckAt+1] = 0, 0
	}
	return id
}

// rootOf is the id of the root span of a message's trace. It is never zero: the first bit of byte 8 is set (RFC 9562
// §4.1); should a foreign id have none, a fixed one does.
func rootOf(id delivery.MessageID) trace.SpanID {
	s := trace.SpanID(id[8:])
	if !s.IsValid() {
		s[7] = 1
	}
	return s
}

// rootKey is the key under which a context names the message whose root span is begun.
type rootKey struct{}

// ids makes the ids of spans: those of a root follow from its message, all others are random.
type ids struct{}

// NewIDs implements sdktrace.IDGenerator. It is called for a span without a parent.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if id, ok := ctx.Value(rootKey{}).(delivery.MessageID); ok {
		return trace.TraceID(id), rootOf(id)
	}
	var t trace.TraceID
	for !t.IsValid() {
		binary.NativeEndian.PutUint64(t[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(t[8:], rand.Uint64())
	}
	return t, random()
}

// NewSpanID implements sdktrace.IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID { return random() }

func random() (s trace.SpanID) {
	for !s.IsValid() {
		binary.NativeEndian.PutUint64(s[:], rand.Uint64())
	}
	return s
}
