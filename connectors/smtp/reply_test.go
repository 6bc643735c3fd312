package smtp

import (
	"bufio"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func parse(t testing.TB, s string) reply {
	t.Helper()
	r, err := readReply(bufio.NewReaderSize(strings.NewReader(s), maxReplyLine), true)
	require.NoError(t, err)
	return r
}

func TestReadReply(t *testing.T) {
	for _, tt := range []struct {
		in, status, text string
	}{
		{"250 ok\r\n", "250", "ok"},
		{"250\r\n", "250", ""},
		{"250 \n", "250", ""},
		{"550 5.1.1 no such user\r\n", "550 5.1.1", "no such user"},
		{"550-5.7.26 first\r\n550 5.7.26 second\r\n", "550 5.7.26", "first\nsecond"},
		{"550 5.1.1\r\n", "550 5.1.1", ""},
		{"550 4.1.1 class that differs\r\n", "550", "4.1.1 class that differs"},
		{"550 5.1 short\r\n", "550", "5.1 short"},
		{"550 5.1.1x\r\n", "550", "5.1.1x"},
		{"550 5.1234.1 long\r\n", "550", "5.1234.1 long"},
		{"250 caf\xe9\r\n", "250", "caf\xe9"},
		{"250 " + strings.Repeat("x", maxReplyLine-6) + "\r\n", "250", strings.Repeat("x", maxReplyLine-6)},
	} {
		r := parse(t, tt.in)
		require.Equal(t, tt.status, r.status(), tt.in)
		require.Equal(t, tt.text, r.text, tt.in)
	}
	for name, in := range map[string]string{
		"empty":        "\r\n",
		"no code":      "hello\r\n",
		"short":        "25\r\n",
		"class 1":      "150 ok\r\n",
		"class 6":      "650 ok\r\n",
		"separator":    "250_ok\r\n",
		"codes":        "250-a\r\n251 b\r\n",
		"bare CR":      "250 a\rb\r\n",
		"NUL":          "250 \x00\r\n",
		"DEL":          "250 \x7f\r\n",
		"line":         "250 " + strings.Repeat("x", maxReplyLine) + "\r\n",
		"lines":        strings.Repeat("250-x\r\n", maxReplyLines) + "250 x\r\n",
		"second line":  "250-a\r\n\r\n",
		"no separator": "2500 x\r\n",
	} {
		_, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine), false)
		require.ErrorIs(t, err, errMalformed, name)
	}
}

func TestReplySafe(t *testing.T) {
	for in, want := range map[string]string{
		"550 5.1.1 <Anna@example.test>: unknown":               "550 5.1.1 <address> unknown",
		"550 user anna unknown":                                "550 user <address> unknown",
		"550 user (ANNA) unknown, see https://x.test/?r=a@b.c": "550 user <address> unknown, see <address>",
		"250 tab\there":                                        "250 tab here",
		"250 caf\xe9":                                          "250 caf?",
		"250 " + strings.Repeat("é", 300):                      "250 " + strings.Repeat("é", 88),
	} {
		got := parse(t, in+"\r\n").safe("anna@example.test")
		require.Equal(t, want, got)
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "550-5.1.1 a\r\n550 5.1.1 b\r\n", "250-\r\n", "\x00", "421 4.7.0\n", "250 é\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		br := bufio.NewReaderSize(strings.NewReader(s), maxReplyLine)
		r, err := readReply(br, true)
		if err != nil {
			return
		}
		require.True(t, r.code >= 200 && r.code <= 599)
		require.LessOrEqual(t, len(r.lines), maxReplyLines)
		safe := r.safe("anna@example.test")
		require.LessOrEqual(t, len(safe), maxDetail)
		require.True(t, utf8.ValidString(safe))
		require.NotContains(t, safe, "@")
		require.False(t, hasControl(safe))
	})
}
