// Package webhook verifies the webhooks that an engine sends.
//
// Deliveries are signed by the Standard Webhooks scheme (standardwebhooks.com, specification 1.0.0): the headers
// webhook-id, webhook-timestamp and webhook-signature, the last with one or more "v1," HMAC-SHA256 signatures over
// id.timestamp.body. During the rotation of a secret a delivery carries one signature per secret, and a receiver may
// accept several secrets.
//
// A delivery may come more than once: webhook-id stays the same over every attempt, so remember it (see WithStore).
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a delivery.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// The limits of what is taken.
const (
	MaxBody       = 1 << 20         // bytes of body
	MaxSignatures = 10              // signatures in one header
	Tolerance     = 5 * time.Minute // how far the timestamp may be from now, either way
	maxIDLength   = 256
)

// Errors of verification. Answer ErrTooLarge with 413, ErrMalformed with 400, ErrSecret with 500 and the others with
// 401; Handler does.
var (
	ErrNoSignature  = errors.New("webhook: a signature header is missing or cannot be read")
	ErrBadSignature = errors.New("webhook: no signature matches")
	ErrStale        = errors.New("webhook: the timestamp is more than five minutes from now")
	ErrTooLarge     = errors.New("webhook: the body is larger than 1 MiB")
	ErrMalformed    = errors.New("webhook: the body is not an event")
	ErrSecret       = errors.New("webhook: a secret is not whsec_ and base64 of 24 to 64 bytes")
)

// Event is one delivery.
type Event struct {
	ID        string          `json:"-"`         // webhook-id: the same over every attempt
	Attempted time.Time       `json:"-"`         // webhook-timestamp: when this attempt was signed
	Type      string          `json:"type"`      // such as message.delivered
	Timestamp time.Time       `json:"timestamp"` // when it happened
	Data      json.RawMessage `json:"data"`
}

// Unwrap reads the request's body, at most MaxBody of it, verifies it against the wall clock and returns the event. Any
// one of the secrets may fit.
func Unwrap(r *http.Request, secrets ...string) (Event, error) { return unwrap(r, time.Now(), secrets) }

func unwrap(r *http.Request, now time.Time, secrets []string) (Event, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	switch {
	case len(body) > MaxBody:
		return Event{}, ErrTooLarge
	case err != nil:
		return Event{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := Verify(r.Header, body, now, secrets...); err != nil {
		return Event{}, err
	}
	return parse(r.Header, body)
}

func parse(h http.Header, body []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if e.Type == "" {
		return Event{}, fmt.Errorf("%w: it has no type", ErrMalformed)
	}
	unix, _ := strconv.ParseInt(h.Get(HeaderTimestamp), 10, 64)
	e.ID, e.Attempted = h.Get(HeaderID), time.Unix(unix, 0).UTC()
	return e, nil
}

// Verify checks the signature headers of a delivery against its raw body, byte for byte as it was received, and that
// its timestamp is within Tolerance of now. Signatures are compared in constant time. Signatures of other versions
// than v1 are passed over.
func Verify(h http.Header, body []byte, now time.Time, secrets ...string) error {
	id, stamp, ok := metadata(h)
	if !ok {
		return ErrNoSignature
	}
	unix, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || stamp[0] == '+' {
		return ErrNoSignature
	}
	given := strings.Fields(h.Get(HeaderSignature))
	if len(given) > MaxSignatures {
		return ErrNoSignature
	}
	if len(secrets) == 0 {
		return fmt.Errorf("%w: none was given", ErrSecret)
	}
	// One comparison for every pair, whatever matched before: the time tells nothing.
	match := false
	for _, s := range secrets {
		key, err := decode(s)
		if err != nil {
			return err
		}
		var sum [sha256.Size]byte
		want := mac(sum[:0], key, id, stamp, body)
		for _, g := range given {
			version, encoded, _ := strings.Cut(g, ",")
			if version != "v1" {
				continue
			}
			sig, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && hmac.Equal(sig, want) {
				match = true
			}
		}
	}
	if !match {
		return ErrBadSignature
	}
	// Only after the signature: an answer about the time tells a forger nothing.
	if d := now.Sub(time.Unix(unix, 0)); d > Tolerance || d < -Tolerance {
		return ErrStale
	}
	return nil
}

// metadata returns the id and timestamp when each header is there exactly once.
func metadata(h http.Header) (id, stamp string, ok bool) {
	for _, name := range []string{HeaderID, HeaderTimestamp, HeaderSignature} {
		if v := h[name]; len(v) != 1 || v[0] == "" {
			return "", "", false
		}
	}
	id, stamp = h[HeaderID][0], h[HeaderTimestamp][0]
	return id, stamp, len(id) <= maxIDLength && len(stamp) <= 12 && len(h[HeaderSignature][0]) <= 4096
}

// Sign returns the three headers of a delivery. The engine signs what it sends; this is for tests of receivers.
func Sign(secret, id string, at time.Time, body []byte) (http.Header, error) {
	key, err := decode(secret)
	if err != nil {
		return nil, err
	}
	stamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		HeaderID:        {id},
		HeaderTimestamp: {stamp},
		HeaderSignature: {"v1," + base64.StdEncoding.EncodeToString(mac(nil, key, id, stamp, body))},
	}, nil
}

func mac(dst, key []byte, id, stamp string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	head := make([]byte, 0, 96)
	head = append(append(append(append(head, id...), '.'), stamp...), '.')
	h.Write(head)
	h.Write(body)
	return h.Sum(dst)
}

// decode reads a secret as it is shown to people: base64 after whsec_, 24 to 64 bytes.
func decode(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, ErrSecret
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, ErrSecret
	}
	return key, nil
}
