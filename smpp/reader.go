package smpp

import (
	"encoding/binary"
	"fmt"
	"io"
)

// LengthError is what Reader.Next returns for a command_length that no PDU can have. Where the next PDU starts cannot
// be known any more: the receiver answers generic_nack with RInvCmdLen and sequence 0 (§4.3.1), and closes.
type LengthError struct{ Length uint32 }

func (e *LengthError) Error() string {
	return fmt.Sprintf("smpp: command_length %d is outside %d–%d", e.Length, HeaderLen, MaxLen)
}

// Reader cuts a stream into PDUs. It never holds more than MaxLen octets, whatever the stream claims. It is for one
// goroutine.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int
}

// NewReader reads PDUs from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, buf: make([]byte, 16<<10)} }

// Next returns the next PDU. Its body is valid until the next call. The error is a *LengthError, io.EOF between two
// PDUs, io.ErrUnexpectedEOF within one, or what the stream returned.
func (r *Reader) Next() (Header, []byte, error) {
	if err := r.fill(4); err != nil {
		return Header{}, nil, err
	}
	length := binary.BigEndian.Uint32(r.buf[r.start:])
	if length < HeaderLen || length > MaxLen {
		return Header{}, nil, &LengthError{Length: length}
	}
	if err := r.fill(int(length)); err != nil {
		return Header{}, nil, err
	}
	pdu := r.buf[r.start : r.start+int(length) : r.start+int(length)]
	r.start += int(length)
	return Header{
		Command:  Command(binary.BigEndian.Uint32(pdu[4:])),
		Status:   Status(binary.BigEndian.Uint32(pdu[8:])),
		Sequence: binary.BigEndian.Uint32(pdu[12:]),
	}, pdu[HeaderLen:], nil
}

// fill reads until n octets are there.
func (r *Reader) fill(n int) error {
	if r.end-r.start >= n {
		return nil
	}
	if r.start+n > len(r.buf) || r.start == r.end {
		to := r.buf
		if n > len(to) {
			to = make([]byte, MaxLen)
		}
		r.end = copy(to, r.buf[r.start:r.end])
		r.buf, r.start = to, 0
	}
	for empty := 0; r.end-r.start < n; {
		got, err := r.r.Read(r.buf[r.end:])
		r.end += got
		if r.end-r.start >= n {
			return nil
		}
		if err == io.EOF && r.end > r.start {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if empty++; got > 0 {
			empty = 0
		} else if empty == 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}
