package smpp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// What can be wrong with a body. They come wrapped in a *FieldError.
var (
	ErrShort   = errors.New("ends too early")
	ErrNoNUL   = errors.New("is a C-Octet string without NUL")
	ErrTLV     = errors.New("reaches past the end of the PDU")
	ErrTooLong = errors.New("is longer than its field")
	ErrNUL     = errors.New("holds a NUL")
)

// FieldError says which field of a body cannot be read or written, and why.
type FieldError struct {
	Field string // the name of the specification
	Err   error  // one of the errors above
}

func (e *FieldError) Error() string { return fmt.Sprintf("smpp: %s %v", e.Field, e.Err) }

func (e *FieldError) Unwrap() error { return e.Err }

// Status returns the command_status that answers a request with such a body.
func (e *FieldError) Status() Status {
	if errors.Is(e.Err, ErrTLV) {
		return RInvOptParStream
	}
	return RInvParLen
}

// fields reads a body from its start. The first error stays and every later read gives zero.
type fields struct {
	body []byte
	text string // the same octets once more: every string of a PDU is a piece of it, for one allocation in all
	at   int
	err  error
}

func newFields(body []byte) *fields { return &fields{body: body, text: string(body)} }

func (f *fields) fail(name string, err error) {
	if f.err == nil {
		f.err = &FieldError{Field: name, Err: err}
	}
}

func (f *fields) octet(name string) byte {
	if f.err != nil {
		return 0
	}
	if f.at >= len(f.body) {
		f.fail(name, ErrShort)
		return 0
	}
	f.at++
	return f.body[f.at-1]
}

// cstring reads a C-Octet string (§3.1).
func (f *fields) cstring(name string) string {
	if f.err != nil {
		return ""
	}
	n := bytes.IndexByte(f.body[f.at:], 0)
	if n < 0 {
		f.fail(name, ErrNoNUL)
		return ""
	}
	s := f.text[f.at : f.at+n]
	f.at += n + 1
	return s
}

func (f *fields) octets(name string, n int) []byte {
	if f.err != nil {
		return nil
	}
	if len(f.body)-f.at < n {
		f.fail(name, ErrShort)
		return nil
	}
	b := f.body[f.at : f.at+n : f.at+n]
	f.at += n
	return b
}

// tlvs takes the rest of the body as optional parameters.
func (f *fields) tlvs() TLVs {
	if f.err != nil || f.at == len(f.body) {
		return nil
	}
	t := TLVs(f.body[f.at:])
	if err := t.check(); err != nil {
		f.err = err
		return nil
	}
	f.at = len(f.body)
	return t
}

func appendCString(dst []byte, s string) []byte { return append(append(dst, s...), 0) }

// checkCString returns a *FieldError when s cannot be a C-Octet string of at most limit octets, NUL not counted.
func checkCString(name, s string, limit int) error {
	if len(s) > limit {
		return &FieldError{Field: name, Err: ErrTooLong}
	}
	if strings.IndexByte(s, 0) >= 0 {
		return &FieldError{Field: name, Err: ErrNUL}
	}
	return nil
}
