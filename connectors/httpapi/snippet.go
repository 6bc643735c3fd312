package httpapi

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The sizes of what is shown of a provider's answer, in bytes.
const (
	MaxSnippet = 2048 // in a log
	MaxDetail  = 200  // in Failure.Detail and Sent.Detail
)

// Snippet makes one line of at most limit bytes of text that a provider sent. Providers repeat in their answers what
// they were sent, so it takes out what must not be shown: the given secrets, long tokens, mailboxes and runs of seven
// digits or more, which are phone numbers as often as not.
func Snippet(text string, limit int, secrets ...string) string {
	// Secrets first, over the whole text: a cut could leave the first half of one.
	for _, s := range secrets {
		if len(s) >= 4 {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	// Taking out shortens, hence the room; a huge answer is not worth a walk.
	if len(text) > 2*limit+512 {
		text = text[:2*limit+512]
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	var b strings.Builder
	for text != "" {
		n := strings.IndexFunc(text, func(r rune) bool { return !wordRune(r) })
		if n < 0 {
			n = len(text)
		}
		b.WriteString(redactWord(text[:n]))
		text = text[n:]
		if text == "" {
			break
		}
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case !unicode.IsPrint(r), r == ' ':
			if s := b.String(); s != "" && !strings.HasSuffix(s, " ") {
				b.WriteByte(' ')
			}
		default:
			b.WriteRune(r)
		}
		text = text[size:]
		if b.Len() > limit+64 {
			break
		}
	}
	return cut(strings.TrimSpace(b.String()), limit)
}

// wordRune reports the characters that tokens, mailboxes and phone numbers are made of.
func wordRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("@._+-/=~%", r)
}

func redactWord(w string) string {
	digits, run, longest := 0, 0, 0
	for i := range len(w) {
		if w[i] >= '0' && w[i] <= '9' {
			digits++
			run++
			longest = max(longest, run)
		} else if w[i] != '-' && w[i] != '.' { // separators inside a phone number
			run = 0
		}
	}
	switch at := strings.IndexByte(w, '@'); {
	case at > 0 && at < len(w)-1:
		return "[address]"
	case longest >= 7:
		return "[number]"
	case len(w) >= 24 && digits > 0 && digits < len(w):
		return "[token]"
	}
	return w
}

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := limit - len("…")
	if n < 0 {
		return ""
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
