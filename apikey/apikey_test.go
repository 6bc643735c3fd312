package apikey

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNew(t *testing.T) {
	seen := map[string]bool{}
	for _, mode := range []Mode{Live, Test} {
		for range 200 {
			k := New(mode)
			require.Len(t, k.Reveal(), Len)
			require.True(t, strings.HasPrefix(k.Reveal(), "mk_"+string(mode)+"_"))
			require.Equal(t, mode, k.Mode())
			require.False(t, seen[k.Reveal()], "a key came twice")
			seen[k.Reveal()] = true
			again, err := Parse(k.Reveal())
			require.NoError(t, err)
			require.Equal(t, k, again)
		}
	}
	require.Panics(t, func() { New("prod") })
}

func TestEveryCharacterIsUsed(t *testing.T) {
	used := map[rune]bool{}
	for range 200 {
		for _, c := range New(Live).Reveal()[prefixLen : Len-checksumLen] {
			used[c] = true
		}
	}
	require.Len(t, used, 62)
}

func TestParseRefuses(t *testing.T) {
	good := New(Live).Reveal()
	for name, s := range map[string]string{
		"empty":           "",
		"prefix alone":    "mk_live_",
		"too long":        good + "a",
		"too short":       good[:len(good)-1],
		"other mode":      "mk_test_" + good[prefixLen:],
		"unknown mode":    "mk_prod_" + good[prefixLen:],
		"no base62":       good[:20] + "-" + good[21:],
		"space":           " " + good[1:],
		"not ASCII":       good[:Len-2] + "é",
		"upper-case head": strings.ToUpper(good[:3]) + good[3:],
	} {
		_, err := Parse(s)
		require.ErrorIs(t, err, ErrMalformed, name)
	}
}

// A CRC-32 finds every single change: a key with one other character is never taken.
func TestOneWrongCharacter(t *testing.T) {
	good := []byte(New(Test).Reveal())
	for i := prefixLen; i < Len; i++ {
		for _, c := range []byte(alphabet) {
			if c == good[i] {
				continue
			}
			bad := bytes.Clone(good)
			bad[i] = c
			_, err := Parse(string(bad))
			require.ErrorIs(t, err, ErrMalformed)
		}
	}
}

func TestKeyHidesItself(t *testing.T) {
	k := New(Live)
	secret := k.Reveal()[prefixLen : Len-checksumLen]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "in", struct{ K Key }{k})
	inJSON, err := json.Marshal(map[string]any{"key": k, "ptr": &k, "in": struct{ K Key }{k}})
	require.NoError(t, err)
	for _, out := range []string{
		k.String(), k.GoString(), log.String(), string(inJSON),
		fmt.Sprintf("%v %+v %#v %s %q %x %d", k, k, k, k, k, k, k), fmt.Sprint(&k, []Key{k}, struct{ K Key }{k}),
	} {
		require.NotContains(t, out, secret)
		require.NotContains(t, out, fmt.Sprintf("%x", secret))
	}
	require.Contains(t, k.String(), k.Hint())
	require.Equal(t, "no key", Key{}.String())
	require.Empty(t, Key{}.Hint())
}

func TestHash(t *testing.T) {
	a, b := New(Live), New(Live)
	require.Equal(t, Hash([]byte("p"), a), Hash([]byte("p"), a))
	require.NotEqual(t, Hash([]byte("p"), a), Hash([]byte("p"), b))
	require.NotEqual(t, Hash([]byte("p"), a), Hash([]byte("q"), a))
}

func FuzzParse(f *testing.F) {
	f.Add(New(Live).Reveal())
	f.Add(New(Test).Reveal())
	f.Add("mk_live_")
	f.Add("")
	f.Add(strings.Repeat("0", Len))
	f.Fuzz(func(t *testing.T, s string) {
		k, err := Parse(s)
		if err != nil {
			require.Zero(t, k)
			return
		}
		require.Equal(t, s, k.Reveal())
		require.Contains(t, []Mode{Live, Test}, k.Mode())
		require.NotContains(t, k.String(), s)
	})
}

func BenchmarkParseAndHash(b *testing.B) {
	s, pepper := New(Live).Reveal(), make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		k, _ := Parse(s)
		_ = Hash(pepper, k)
	}
}
