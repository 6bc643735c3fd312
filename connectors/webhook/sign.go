package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strings"
	"sync"
)

// signer makes v1 signatures with one secret. A keyed HMAC costs two blocks of SHA-256 to set up, as much as a short
// body, so the keyed states are kept and reset.
type signer struct{ pool sync.Pool }

// state is one HMAC with room for its input and result.
type state struct {
	mac hash.Hash
	buf []byte
}

// newSigner reads a secret as people see it: whsec_ and base64 of 24 to 64 bytes (specification, "Signature scheme").
func newSigner(secret string) (*signer, bool) {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return nil, false
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 24 || len(key) > 64 {
		return nil, false
	}
	s := &signer{}
	s.pool.New = func() any { return &state{mac: hmac.New(sha256.New, key), buf: make([]byte, 0, 96)} }
	return s, true
}

// append adds the base64 signature over id.stamp.body to dst. It is safe for concurrent use.
func (s *signer) append(dst []byte, id, stamp string, body []byte) []byte {
	st := s.pool.Get().(*state)
	st.mac.Reset()
	st.buf = append(append(append(append(st.buf[:0], id...), '.'), stamp...), '.')
	st.mac.Write(st.buf)
	st.mac.Write(body)
	st.buf = st.mac.Sum(st.buf[:0])
	dst = base64.StdEncoding.AppendEncode(dst, st.buf)
	s.pool.Put(st)
	return dst
}
