package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/msgctl/msgctl/delivery"
)

// Facts are kept in bulk: one ledger row holds the facts that were written together. This is their encoding, kept
// apart from any database so that every implementation writes the same bytes and hashes the same chain.
//
//	version (1 byte) · count (uvarint) · facts
//	fact: message id (16 bytes) · mask (uvarint) · the fields whose bit is set, in the order of the bits
//
// A field whose bit is clear has the value of the fact before it, or is zero in the first: the facts of one claim or one
// settled batch differ in little but the message. Numbers are varints, times are Unix milliseconds with 0 for the zero
// time, texts are a uvarint length and that many bytes.
const factVersion = 1

const (
	hasKind = 1 << iota
	hasStatus
	hasChannel
	hasAt
	hasAttempt
	hasEpoch
	hasAccount
	hasCode
	hasDetail
	hasUntil
	hasRoute
	hasContent
	hasLeg
	maskEnd
)

// ErrBadFacts is returned for bytes that AppendFacts did not write.
var ErrBadFacts = errors.New("not an encoding of facts")

// AppendFacts appends the encoding of events to dst and returns it. Seq is not encoded: the place of a fact in its row
// is its place in events. Times are cut to the millisecond.
func AppendFacts(dst []byte, events []Event) []byte {
	dst = append(dst, factVersion)
	dst = binary.AppendUvarint(dst, uint64(len(events)))
	var last Event
	for i := range events {
		e := &events[i]
		f, l := &e.Fact, &last.Fact
		var mask uint64
		set := func(differs bool, bit uint64) {
			if differs {
				mask |= bit
			}
		}
		set(f.Kind != l.Kind, hasKind)
		set(f.Status != l.Status, hasStatus)
		set(e.Channel != last.Channel, hasChannel)
		set(Millis(f.At) != Millis(l.At), hasAt)
		set(f.Attempt != l.Attempt, hasAttempt)
		set(f.Epoch != l.Epoch, hasEpoch)
		set(f.Account != l.Account, hasAccount)
		set(f.Code != l.Code, hasCode)
		set(f.Detail != l.Detail, hasDetail)
		set(Millis(f.Until) != Millis(l.Until), hasUntil)
		set(f.Route != l.Route, hasRoute)
		set(f.Content != l.Content, hasContent)
		set(f.Leg != l.Leg, hasLeg)

		dst = append(dst, f.Message[:]...)
		dst = binary.AppendUvarint(dst, mask)
		if mask&hasKind != 0 {
			dst = append(dst, byte(f.Kind))
		}
		if mask&hasStatus != 0 {
			dst = append(dst, byte(f.Status))
		}
		if mask&hasChannel != 0 {
			dst = append(dst, byte(e.Channel))
		}
		if mask&hasAt != 0 {
			dst = binary.AppendVarint(dst, Millis(f.At))
		}
		if mask&hasAttempt != 0 {
			dst = binary.AppendVarint(dst, int64(f.Attempt))
		}
		if mask&hasEpoch != 0 {
			dst = binary.AppendVarint(dst, int64(f.Epoch))
		}
		if mask&hasAccount != 0 {
			dst = append(dst, f.Account[:]...)
		}
		if mask&hasCode != 0 {
			dst = appendText(dst, f.Code)
		}
		if mask&hasDetail != 0 {
			dst = appendText(dst, f.Detail)
		}
		if mask&hasUntil != 0 {
			dst = binary.AppendVarint(dst, Millis(f.Until))
		}
		if mask&hasRoute != 0 {
			dst = appendText(dst, f.Route)
		}
		if mask&hasContent != 0 {
			dst = appendText(dst, f.Content)
		}
		if mask&hasLeg != 0 {
			dst = binary.AppendVarint(dst, int64(f.Leg))
		}
		last = *e
	}
	return dst
}

// DecodeFacts reads what AppendFacts wrote; Seq stays 0. Any other bytes give an error that wraps ErrBadFacts, and
// never make it allocate more than a small multiple of their length.
func DecodeFacts(b []byte) ([]Event, error) {
	d := factDecoder{rest: b}
	if v := d.byte(); d.bad == "" && v != factVersion {
		return nil, fmt.Errorf("%w: version %d", ErrBadFacts, v)
	}
	n := d.uvarint()
	if n > uint64(len(d.rest))/17 { // a fact takes at least an id and a mask
		return nil, fmt.Errorf("%w: %d facts in %d bytes", ErrBadFacts, n, len(b))
	}
	events := make([]Event, 0, n)
	var e Event
	for range n {
		f := &e.Fact
		copy(f.Message[:], d.take(16))
		mask := d.uvarint()
		if mask >= maskEnd {
			return nil, fmt.Errorf("%w: unknown field", ErrBadFacts)
		}
		if mask&hasKind != 0 {
			f.Kind = delivery.FactKind(d.byte())
		}
		if mask&hasStatus != 0 {
			f.Status = delivery.Status(d.byte())
		}
		if mask&hasChannel != 0 {
			e.Channel = delivery.Channel(d.byte())
		}
		if mask&hasAt != 0 {
			f.At = FromMillis(d.varint())
		}
		if mask&hasAttempt != 0 {
			f.Attempt = d.small()
		}
		if mask&hasEpoch != 0 {
			f.Epoch = d.small()
		}
		if mask&hasAccount != 0 {
			copy(f.Account[:], d.take(16))
		}
		if mask&hasCode != 0 {
			f.Code = string(d.take(d.uvarint()))
		}
		if mask&hasDetail != 0 {
			f.Detail = string(d.take(d.uvarint()))
		}
		if mask&hasUntil != 0 {
			f.Until = FromMillis(d.varint())
		}
		if mask&hasRoute != 0 {
			f.Route = string(d.take(d.uvarint()))
		}
		if mask&hasContent != 0 {
			f.Content = string(d.take(d.uvarint()))
		}
		if mask&hasLeg != 0 {
			f.Leg = d.small()
		}
		if d.bad != "" {
			break
		}
		events = append(events, e)
	}
	if d.bad == "" && len(d.rest) != 0 {
		d.bad = "bytes after the end"
	}
	if d.bad != "" {
		return nil, fmt.Errorf("%w: %s", ErrBadFacts, d.bad)
	}
	return events, nil
}

// Millis is a time as a store keeps it: Unix milliseconds, 0 for the zero time.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// FromMillis is the inverse of Millis, in UTC.
func FromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// factDecoder remembers the first thing that was wrong and gives zeros from there on.
type factDecoder struct {
	rest []byte
	bad  string
}

func (d *factDecoder) take(n uint64) []byte {
	if d.bad == "" && n > uint64(len(d.rest)) {
		d.bad = "cut short"
	}
	if d.bad != "" {
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *factDecoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *factDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 && d.bad == "" {
		d.bad = "bad number"
	}
	if d.bad != "" {
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *factDecoder) varint() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1) // zigzag, as encoding/binary writes it
}

func (d *factDecoder) small() int {
	v := d.varint()
	if v < math.MinInt32 || v > math.MaxInt32 {
		if d.bad == "" {
			d.bad = "number too large"
		}
		return 0
	}
	return int(v)
}
