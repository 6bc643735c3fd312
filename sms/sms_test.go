package sms_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/msgctl/msgctl/sms"
)

func TestCount(t *testing.T) {
	t.Parallel()
	emoji := "\U0001F600"
	for _, tc := range []struct {
		name     string
		text     string
		segments int
		enc      sms.Encoding
	}{
		{"empty", "", 1, sms.GSM7},
		{"160 septets", strings.Repeat("a", 160), 1, sms.GSM7},
		{"161 septets", strings.Repeat("a", 161), 2, sms.GSM7},
		{"306 septets", strings.Repeat("a", 306), 2, sms.GSM7},
		{"307 septets", strings.Repeat("a", 307), 3, sms.GSM7},
		{"80 euro signs", strings.Repeat("€", 80), 1, sms.GSM7},
		{"81 euro signs", strings.Repeat("€", 81), 2, sms.GSM7},
		{"an escape pair does not cross the end of a part", strings.Repeat("a", 152) + strings.Repeat("€", 77), 3, sms.GSM7},
		{"the same length without pairs", strings.Repeat("a", 306), 2, sms.GSM7},
		{"70 units", strings.Repeat("я", 70), 1, sms.UCS2},
		{"71 units", strings.Repeat("я", 71), 2, sms.UCS2},
		{"134 units", strings.Repeat("я", 134), 2, sms.UCS2},
		{"135 units", strings.Repeat("я", 135), 3, sms.UCS2},
		{"35 emoji", strings.Repeat(emoji, 35), 1, sms.UCS2},
		{"36 emoji", strings.Repeat(emoji, 36), 2, sms.UCS2},
		{"67 emoji need three parts: 33 fit into 67 units", strings.Repeat(emoji, 67), 3, sms.UCS2},
		{"one typographic quote costs the whole text", strings.Repeat("a", 100) + "’", 2, sms.UCS2},
		{"every GSM letter with an accent", "èéùìòÇØøÅåÆæßÉÄÖÑÜäöñüà§¿¡¤£¥ΔΦΓΛΩΠΨΣΘΞ", 1, sms.GSM7},
		{"small c with cedilla is not one", "ç", 1, sms.UCS2},
		{"back-tick is not one", "`", 1, sms.UCS2},
		{"tab is not one", "\t", 1, sms.UCS2},
		{"the escape itself is not one", "\x1b", 1, sms.UCS2},
		{"NUL is not one", "\x00", 1, sms.UCS2},
		{"line feed, carriage return, form feed", "\n\r\f", 1, sms.GSM7},
		{"not UTF-8", "\xff", 1, sms.UCS2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, enc := sms.Count(tc.text)
			require.Equal(t, tc.segments, n)
			require.Equal(t, tc.enc, enc)
		})
	}
}

// The whole alphabet by code, against the table of 3GPP TS 23.038 §6.2.1 written out a second time by Unicode number.
func TestAlphabet(t *testing.T) {
	t.Parallel()
	low := []rune{
		0x40, 0xA3, 0x24, 0xA5, 0xE8, 0xE9, 0xF9, 0xEC, 0xF2, 0xC7, 0x0A, 0xD8, 0xF8, 0x0D, 0xC5, 0xE5,
		0x394, 0x5F, 0x3A6, 0x393, 0x39B, 0x3A9, 0x3A0, 0x3A8, 0x3A3, 0x398, 0x39E, 0, 0xC6, 0xE6, 0xDF, 0xC9,
	}
	odd := map[byte]rune{
		0x24: 0xA4, 0x40: 0xA1, 0x5B: 0xC4, 0x5C: 0xD6, 0x5D: 0xD1, 0x5E: 0xDC, 0x5F: 0xA7,
		0x60: 0xBF, 0x7B: 0xE4, 0x7C: 0xF6, 0x7D: 0xF1, 0x7E: 0xFC, 0x7F: 0xE0,
	}
	for code := range byte(128) {
		want := rune(code)
		if code < 32 {
			want = low[code]
		} else if r, ok := odd[code]; ok {
			want = r
		}
		if code == 0x1B {
			continue
		}
		require.Equal(t, string(want), sms.Decode([]byte{code}, sms.GSM7), "code %#x", code)
		b, err := sms.Encode(string(want), sms.GSM7)
		require.NoError(t, err, "code %#x", code)
		require.Equal(t, []byte{code}, b)
	}
	for code, want := range map[byte]rune{
		0x0A: '\f', 0x14: '^', 0x28: '{', 0x29: '}', 0x2F: '\\', 0x3C: '[', 0x3D: '~', 0x3E: ']', 0x40: '|', 0x65: '€',
	} {
		require.Equal(t, string(want), sms.Decode([]byte{0x1B, code}, sms.GSM7))
		b, err := sms.Encode(string(want), sms.GSM7)
		require.NoError(t, err)
		require.Equal(t, []byte{0x1B, code}, b)
	}
}

func TestDecodeWhatNobodyShouldSend(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		b    []byte
		enc  sms.Encoding
		want string
	}{
		{"octet above 127", []byte{'a', 0x80, 'b'}, sms.GSM7, "a\ufffdb"},
		{"escape at the end", []byte{'a', 0x1B}, sms.GSM7, "a\ufffd"},
		{"escape before a code without an extension", []byte{0x1B, 'a'}, sms.GSM7, "a"},
		{"two escapes", []byte{0x1B, 0x1B, 'a'}, sms.GSM7, " a"},
		{"escape before an octet above 127", []byte{0x1B, 0xFF}, sms.GSM7, "\ufffd"},
		{"odd octet", []byte{0, 'a', 0}, sms.UCS2, "a\ufffd"},
		{"high surrogate alone", []byte{0xD8, 0x3D, 0, 'a'}, sms.UCS2, "\ufffda"},
		{"low surrogate alone", []byte{0xDE, 0, 0, 'a'}, sms.UCS2, "\ufffda"},
		{"high surrogate at the end", []byte{0xD8, 0x3D}, sms.UCS2, "\ufffd"},
		{"pair", []byte{0xD8, 0x3D, 0xDE, 0x00}, sms.UCS2, "\U0001F600"},
		{"unknown encoding", []byte{'a'}, 7, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tc.want, sms.Decode(tc.b, tc.enc))
		})
	}
	_, err := sms.Encode("я", sms.GSM7)
	require.ErrorIs(t, err, sms.ErrNotGSM7)
	_, err = sms.Encode("a", 9)
	require.ErrorIs(t, err, sms.ErrEncoding)
	kept, err := sms.Append([]byte("x"), "ab`", sms.GSM7)
	require.Error(t, err)
	require.Equal(t, "x", string(kept))
}

func TestForced(t *testing.T) {
	t.Parallel()
	p := sms.Split("é’s 12 ✓")
	require.Equal(t, []sms.Forced{{'’', 1}, {'✓', 7}}, p.Forced)
	require.Equal(t, 8, p.Units)
	require.Len(t, sms.Split(strings.Repeat("я", 500)).Forced, 20)
	require.Empty(t, sms.Split("plain").Forced)
}

func TestTransliterate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want, left string }{
		{"nothing to do", "Grüße für 5 €", "Grüße für 5 €", ""},
		{"quotes, dash, ellipsis, space", "“It’s” – wait…\u00a0now", "\"It's\" - wait... now", ""},
		{"letters without a code", "Łódź, Čeština, São", "Lodz, Cestina, Sao", ""},
		{"letters with a code stay", "señor €, ça", "señor €, ca", ""},
		{"accent after its letter, in the alphabet", "cafe\u0301 \u2013", "café -", ""},
		{"accent after its letter, outside", "s\u030ca", "sa", ""},
		{"two accents on a letter", "a\u0302\u0301", "a", ""},
		{"Greek capitals", "ΑΘΗΝΑ", "AΘHNA", ""},
		{"unseen characters vanish", "a\u200bb\ufeff", "ab", ""},
		{"no replacement", "да ’", "да '", "да"},
		{"accent alone", "\u0301a", "\u0301a", "\u0301"},
		{"accent on nothing of ours", "я\u0301", "я\u0301", "я\u0301"},
		{"NUL stays", "a\x00b", "a\x00b", "\x00"},
		{"not UTF-8", "a\xff", "a\ufffd", "\ufffd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, left := sms.Transliterate(tc.in)
			require.Equal(t, tc.want, got)
			var runes strings.Builder
			for _, f := range left {
				runes.WriteRune(f.Rune)
				require.Equal(t, f.Rune, []rune(tc.in)[f.Offset])
			}
			require.Equal(t, tc.left, runes.String())
		})
	}
}

func TestCountDoesNotAllocate(t *testing.T) {
	text := strings.Repeat("Grüße ’ €", 100)
	require.Zero(t, testing.AllocsPerRun(100, func() { sms.Count(text) }))
}

// check is what holds for every text.
func check(t require.TestingT, text string) {
	p := sms.Split(text)
	n, enc := sms.Count(text)
	require.Len(t, p.Segments, n)
	require.Equal(t, enc, p.Encoding)
	alone, part := enc.Limits()
	var joined strings.Builder
	total := 0
	for i, s := range p.Segments {
		joined.WriteString(s.Text)
		total += s.Units
		limit := part
		if n == 1 {
			limit = alone
		}
		require.LessOrEqual(t, s.Units, limit)
		b, err := sms.Encode(s.Text, enc)
		require.NoError(t, err)
		if enc == sms.UCS2 {
			require.Len(t, b, 2*s.Units)
		} else {
			require.Len(t, b, s.Units)
		}
		if i > 0 { // greedy: what starts a part would not have fit into the part before
			r, size := utf8.DecodeRuneInString(s.Text)
			head := s.Text[:size]
			if r == utf8.RuneError {
				head = "\ufffd"
			}
			first, err := sms.Encode(head, enc)
			require.NoError(t, err)
			cost := len(first)
			if enc == sms.UCS2 {
				cost /= 2
			}
			require.Greater(t, p.Segments[i-1].Units+cost, part)
		}
		if utf8.ValidString(s.Text) {
			require.Equal(t, s.Text, sms.Decode(b, enc))
		}
	}
	require.Equal(t, text, joined.String())
	require.Equal(t, total, p.Units)
	require.Equal(t, enc == sms.UCS2, len(p.Forced) > 0)

	plain, left := sms.Transliterate(text)
	_, plainEnc := sms.Count(plain)
	require.Equal(t, plainEnc == sms.UCS2, len(left) > 0)
	if enc == sms.GSM7 {
		require.Equal(t, text, plain)
	}
}

func TestEveryText(t *testing.T) {
	t.Parallel()
	gsm := rapid.StringOf(rapid.SampledFrom([]rune("abc @£$€{}[]~|^\\\nåÄ§")))
	mixed := rapid.StringOf(rapid.SampledFrom([]rune("ab€я’\u0301é\U0001F600{`\x00")))
	long := rapid.StringOfN(rapid.SampledFrom([]rune("a€")), 100, 600, -1)
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.OneOf(gsm, mixed, long, rapid.String()).Draw(t, "text"))
	})
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"", "a", "€", "\xff\xfe", "я", "\U0001F600", strings.Repeat("€", 90), "e\u0301’", "\x1b\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) { check(t, text) })
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("hello\x1b\x65"))
	f.Add([]byte{0xD8, 0x3D, 0xDE, 0x00})
	f.Add([]byte{0x1B})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, enc := range []sms.Encoding{sms.GSM7, sms.UCS2} {
			text := sms.Decode(b, enc)
			require.True(t, utf8.ValidString(text))
			again, err := sms.Encode(text, sms.UCS2)
			require.NoError(t, err)
			require.Equal(t, text, sms.Decode(again, sms.UCS2))
		}
	})
}

func BenchmarkCount(b *testing.B) {
	text := strings.Repeat("Your code is 123456. Do not share it.", 4)
	b.ReportAllocs()
	for b.Loop() {
		sms.Count(text)
	}
}
