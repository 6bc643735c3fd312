// Package apikey makes and reads API keys.
//
// A key is a prefix that says its mode, 32 random base62 characters (190 bits) and a checksum of six characters. The
// checksum lets a typing mistake, a cut-off paste or a guess be refused without a look-up, and lets secret scanners
// tell a key from a word. It proves nothing: only the stored hash does.
package apikey

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
)

// Mode says what a key is for.
type Mode string

// The modes.
const (
	Live Mode = "live"
	Test Mode = "test"
)

const (
	secretLen   = 32
	checksumLen = 6 // 62^6 is above 2^32
	prefixLen   = len("mk_live_")

	// Len is the length of every key in characters.
	Len = prefixLen + secretLen + checksumLen

	alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrMalformed is what Parse returns for text that cannot be a key. It never repeats the text.
var ErrMalformed = errors.New("not an API key")

// Key is an API key in clear. It hides itself from fmt, encoding/json and log/slog: only Reveal gives it away. The zero
// Key is no key.
type Key struct{ text string }

// New makes a key from crypto/rand. It panics for a mode that does not exist.
func New(mode Mode) Key {
	if mode != Live && mode != Test {
		panic(fmt.Sprintf("apikey: mode %q does not exist", mode))
	}
	b := make([]byte, 0, Len)
	b = append(b, "mk_"...)
	b = append(b, mode...)
	b = append(b, '_')
	b = appendRandom(b)
	return Key{string(appendChecksum(b))}
}

// appendRandom appends secretLen characters, each of the 62 with the same chance: bytes from 248 up are thrown away.
func appendRandom(b []byte) []byte {
	var rnd [64]byte
	for n := 0; n < secretLen; {
		_, _ = rand.Read(rnd[:]) // it never fails: it stops the program instead
		for _, c := range rnd {
			if c < 248 && n < secretLen {
				b = append(b, alphabet[c%62])
				n++
			}
		}
	}
	return b
}

// appendChecksum appends the CRC-32 (IEEE) of b in base62, most significant character first.
func appendChecksum(b []byte) []byte {
	var out [checksumLen]byte
	sum := crc32.ChecksumIEEE(b)
	for i := checksumLen - 1; i >= 0; i-- {
		out[i] = alphabet[sum%62]
		sum /= 62
	}
	return append(b, out[:]...)
}

// Parse reads a key. It checks form and checksum only; every error is ErrMalformed.
func Parse(s string) (Key, error) {
	if len(s) != Len || !strings.HasPrefix(s, "mk_live_") && !strings.HasPrefix(s, "mk_test_") {
		return Key{}, ErrMalformed
	}
	for i := prefixLen; i < len(s); i++ {
		if strings.IndexByte(alphabet, s[i]) < 0 {
			return Key{}, ErrMalformed
		}
	}
	var buf [Len]byte
	n := copy(buf[:], s[:Len-checksumLen])
	if string(appendChecksum(buf[:n:n])) != s {
		return Key{}, ErrMalformed
	}
	return Key{s}, nil
}

// Reveal returns the key in clear. It is shown to a person once, when it is made.
func (k Key) Reveal() string { return k.text }

// Mode returns what the key is for.
func (k Key) Mode() Mode {
	if strings.HasPrefix(k.text, "mk_live_") {
		return Live
	}
	return Test
}

// Hint returns the last four characters, by which people tell their keys apart. They are part of the checksum.
func (k Key) Hint() string { return k.text[len(k.text)-min(4, len(k.text)):] }

// String hides the key.
func (k Key) String() string {
	if k.text == "" {
		return "no key"
	}
	return k.text[:prefixLen] + "…" + k.Hint()
}

// GoString hides the key from %#v.
func (k Key) GoString() string { return "apikey.Key(" + k.String() + ")" }

// Format hides the key from every verb.
func (k Key) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = f.Write([]byte(k.GoString()))
		return
	}
	_, _ = f.Write([]byte(k.String()))
}

// MarshalText hides the key from encoding/json and its like.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// LogValue hides the key from log/slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Hash returns what is stored of a key: its HMAC-SHA-256 under the pepper, a secret that is not kept in the store. A
// stolen store alone can therefore not even confirm a guess.
func Hash(pepper []byte, k Key) [32]byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte(k.text))
	var out [32]byte
	mac.Sum(out[:0])
	return out
}
