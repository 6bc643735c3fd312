package sdk

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error is a problem the engine reports: an RFC 9457 problem document. Code is stable; texts may change.
type Error struct {
	Type      string       `json:"type,omitempty"`
	Title     string       `json:"title,omitempty"`
	Status    int          `json:"status,omitempty"` // HTTP status
	Code      string       `json:"code"`
	Detail    string       `json:"detail,omitempty"`
	Fields    []FieldError `json:"errors,omitempty"`
	RequestID string       `json:"request_id,omitempty"`
	Actions   []string     `json:"actions,omitempty"` // with a conflict: what can be done in the present state

	RetryAfter time.Duration `json:"-"` // from the Retry-After header; 0 = none
}

// FieldError points at one wrong value.
type FieldError struct {
	Pointer string `json:"pointer"` // JSON Pointer (RFC 6901), "" = the whole body
	Code    string `json:"code,omitempty"`
	Detail  string `json:"detail"`
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code)
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	} else if e.Title != "" {
		b.WriteString(": " + e.Title)
	}
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s %s", f.Pointer, f.Detail)
	}
	if e.RequestID != "" {
		b.WriteString(" (" + e.RequestID + ")")
	}
	return b.String()
}

// Kinds of errors for errors.Is.
var (
	ErrUnauthorized = errors.New("unauthorized")
	ErrNotFound     = errors.New("not found")
	ErrInvalid      = errors.New("invalid request")
	ErrConflict     = errors.New("conflict")
	ErrRateLimited  = errors.New("rate limited")
	ErrQuota        = errors.New("quota exceeded")
	ErrUnavailable  = errors.New("engine unavailable")
)

// Is maps an Error to the sentinel of its kind.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == 401 || e.Status == 403
	case ErrNotFound:
		return e.Status == 404
	case ErrInvalid:
		return e.Status == 400 || e.Status == 413 || e.Status == 415 || e.Status == 422
	case ErrConflict:
		return e.Status == 409
	case ErrRateLimited:
		return e.Status == 429 && e.Code != "quota_exceeded"
	case ErrQuota:
		return e.Code == "quota_exceeded"
	case ErrUnavailable:
		return e.Status >= 500
	}
	return false
}

// Retryable reports whether the same request may work later without a change.
func (e *Error) Retryable() bool {
	return e.Status == 408 || e.Status == 429 && e.Code != "quota_exceeded" || e.Status >= 500 ||
		e.Status == 409 && e.Code == "request_in_progress"
}
