package api

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/msgctl/msgctl/delivery"
	"github.com/msgctl/msgctl/store"
)

// keyLife is how long an idempotency key is remembered.
const keyLife = 72 * time.Hour

// idempotencyKey reads the Idempotency-Key header: the key itself, or an RFC 8941 string, as the IETF draft for the
// header asks. "" = there is none. "a b" bare and quoted are the same key.
func (c *call) idempotencyKey() (string, error) {
	given, ok := c.r.Header["Idempotency-Key"]
	if !ok {
		return "", nil
	}
	const rule = "use 1 to 255 printable ASCII characters, bare or in double quotes"
	if len(given) != 1 {
		return "", fail("invalid_idempotency_key", "the Idempotency-Key is given %d times; %s", len(given), rule)
	}
	key := given[0]
	if strings.HasPrefix(key, `"`) {
		if key, ok = unquote(key); !ok {
			return "", fail("invalid_idempotency_key", "the quotes of the Idempotency-Key do not fit; %s", rule)
		}
	}
	if key == "" || len(key) > 255 {
		return "", fail("invalid_idempotency_key", "the Idempotency-Key has %d characters; %s", len(key), rule)
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return "", fail("invalid_idempotency_key", "the Idempotency-Key has a character that is not printable ASCII; %s",
				rule)
		}
	}
	return key, nil
}

// unquote reads an sf-string (RFC 8941 §3.3.3): only \" and \\ are escapes.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// fingerprint is the SHA-256 of a JSON value in its canonical form (RFC 8785): two bodies that differ in spaces, in the
// order of names or in how a number is written are the same request. body is overwritten.
func fingerprint(body []byte) [32]byte {
	v := jsontext.Value(body)
	if err := v.Canonicalize(); err != nil {
		v = body // it is no JSON: the bytes themselves
	}
	return sha256.Sum256(v)
}

// inFlight holds back a request while another one with the same key runs, so that the second finds the first one's
// result. Which of them was first is decided by the store; this only keeps them apart in time.
type inFlight struct {
	mu   sync.Mutex
	runs map[flight]chan struct{} // closed when the run ends
}

type flight struct {
	tenant     delivery.TenantID
	route, key string
}

func newInFlight() *inFlight { return &inFlight{runs: map[flight]chan struct{}{}} }

// enter waits until no other request with the same key runs, at most wait, and returns what must be called at the end.
func (in *inFlight) enter(ctx context.Context, f flight, wait time.Duration) (leave func(), err error) {
	var timeout <-chan time.Time
	for {
		in.mu.Lock()
		running, busy := in.runs[f]
		if !busy {
			done := make(chan struct{})
			in.runs[f] = done
			in.mu.Unlock()
			return func() {
				in.mu.Lock()
				delete(in.runs, f)
				in.mu.Unlock()
				close(done)
			}, nil
		}
		in.mu.Unlock()
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-running:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout:
			p := fail("request_in_progress", "a request with the same Idempotency-Key is still running")
			p.RetryAfter = time.Second
			return nil, p
		}
	}
}

// replay asks for the first results of a request that cannot be accepted again, such as one whose send_at has passed
// meanwhile. The error is store.ErrNotFound when there are none, or when the store has no way to tell.
func (a *api) replay(ctx context.Context, t delivery.TenantID, key *store.IdempotencyKey) (store.Accepted, error) {
	if key == nil {
		return store.Accepted{}, store.ErrNotFound
	}
	for _, from := range []any{a.Accept, a.Store} {
		if r, ok := from.(store.Replayer); ok {
			return r.Replay(ctx, t, *key, a.Now())
		}
	}
	return store.Accepted{}, store.ErrNotFound
}
