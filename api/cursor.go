package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// cursors makes and reads the opaque places in lists. A cursor carries where a page ended and a MAC over that, the
// tenant and the route: it works only for whom and where it was made.
type cursors struct{ key [32]byte }

const cursorMAC = 16

func (cu cursors) mac(c *call, place string) []byte {
	m := hmac.New(sha256.New, cu.key[:])
	for _, part := range []string{string(c.tenant), c.route.path, c.vars[0], place} {
		m.Write([]byte{byte(len(part) >> 8), byte(len(part))})
		m.Write([]byte(part))
	}
	return m.Sum(nil)[:cursorMAC]
}

func (cu cursors) seal(c *call, place string) string {
	return base64.RawURLEncoding.EncodeToString(append(cu.mac(c, place), place...))
}

func (cu cursors) open(c *call, cursor string) (string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(clip(cursor, 4096))
	if err == nil && len(raw) >= cursorMAC {
		place := string(raw[cursorMAC:])
		if hmac.Equal(raw[:cursorMAC], cu.mac(c, place)) {
			return place, nil
		}
	}
	return "", failAt("cursor", "invalid_parameter", "the cursor is not one of this list: start again without it")
}
