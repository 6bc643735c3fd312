package templates

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is a piece of what stands between {{ and }}, or between {% and %}.
type token struct {
	kind tokenKind
	text string // the name, the digits, the text without its quotes, or the sign
	pos  int
}

type tokenKind uint8

const (
	tokEnd    tokenKind = iota // the closing braces
	tokName                    // a name, which may have hyphens
	tokNumber                  // -1, 2.5
	tokText                    // 'a' or "a"; Liquid has no escapes inside
	tokSign                    // . .. [ ] ( ) | : , == != <> < > <= >= =
)

// scanner cuts the inside of one pair of braces into tokens. It runs ahead by one token.
type scanner struct {
	src    string
	pos    int
	end    string // "}}" or "%}"
	open   int    // where the braces open
	trim   bool   // the closing braces have a hyphen; valid after tokEnd
	tok    token  // the current one
	count  int    // tokens so far
	failed *Error
}

// signs is longest first. It is only read.
var signs = []string{
	"..", "==", "!=", "<>", "<=", ">=", "<", ">", "=", ".", "[", "]", "(", ")", "|", ":", ",",
}

// fail keeps the first error and ends the tokens.
func (s *scanner) fail(pos int, code, format string, args ...any) {
	if s.failed == nil {
		s.failed = errorAt(s.src, pos, code, format, args...)
	}
	s.tok = token{kind: tokEnd, pos: pos}
}

// next moves to the next token. After the closing braces, pos stands behind them.
func (s *scanner) next() {
	if s.failed != nil {
		return
	}
	for s.pos < len(s.src) && isSpace(s.src[s.pos]) {
		s.pos++
	}
	rest := s.src[s.pos:]
	start := s.pos
	if rest == "" {
		s.fail(s.open, CodeSyntax, "this %s is never closed with %s", s.src[s.open:s.open+2], s.end)
		return
	}
	if strings.HasPrefix(rest, s.end) || rest[0] == '-' && strings.HasPrefix(rest[1:], s.end) {
		s.trim = rest[0] == '-'
		s.pos += len(s.end)
		if s.trim {
			s.pos++
		}
		s.tok = token{kind: tokEnd, pos: start}
		return
	}
	switch c := rest[0]; {
	case c == '"' || c == '\'':
		n := strings.IndexByte(rest[1:], c)
		if n < 0 {
			s.fail(start, CodeSyntax, "this quote is never closed")
			return
		}
		s.emit(tokText, n+2)
		s.tok.text = rest[1 : n+1]
	case isDigit(c) || c == '-' && len(rest) > 1 && isDigit(rest[1]):
		n := 1
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		if n+1 < len(rest) && rest[n] == '.' && isDigit(rest[n+1]) {
			for n++; n < len(rest) && isDigit(rest[n]); n++ {
			}
		}
		s.emit(tokNumber, n)
	default:
		if n := s.nameLength(rest); n > 0 {
			s.emit(tokName, n)
			return
		}
		for _, sign := range signs {
			if strings.HasPrefix(rest, sign) {
				s.emit(tokSign, len(sign))
				return
			}
		}
		if strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, "}") || strings.HasPrefix(rest, "%") {
			s.fail(s.open, CodeSyntax, "this %s is not closed with %s", s.src[s.open:s.open+2], s.end)
			return
		}
		r, _ := utf8.DecodeRuneInString(rest)
		s.fail(start, CodeSyntax, "%q does not belong here", r)
	}
}

func (s *scanner) emit(k tokenKind, n int) {
	s.count++
	s.tok = token{kind: k, text: s.src[s.pos : s.pos+n], pos: s.pos}
	s.pos += n
}

// nameLength measures a name: a letter or _, then letters, digits, _ and -, and perhaps a ? at its end. A hyphen that
// belongs to the closing braces is left to them.
func (s *scanner) nameLength(rest string) int {
	n := 0
	for n < len(rest) {
		r, size := utf8.DecodeRuneInString(rest[n:])
		switch {
		case r == '_' || unicode.IsLetter(r):
		case n > 0 && (unicode.IsDigit(r) || unicode.IsMark(r)):
		case n > 0 && r == '-' && !strings.HasPrefix(rest[n+1:], s.end):
		case n > 0 && r == '?':
			return n + 1
		default:
			return n
		}
		n += size
	}
	return n
}

// is reports whether the current token is this sign or name.
func (s *scanner) is(text string) bool {
	return (s.tok.kind == tokSign || s.tok.kind == tokName) && s.tok.text == text
}

// accept moves on when the current token is this sign or name.
func (s *scanner) accept(text string) bool {
	if s.is(text) {
		s.next()
		return true
	}
	return false
}

// want moves on over this sign, or fails.
func (s *scanner) want(text string) {
	if !s.accept(text) {
		s.fail(s.tok.pos, CodeSyntax, "expected %s here", text)
	}
}

// name returns the current token, which must be a name, and moves on.
func (s *scanner) name(what string) token {
	t := s.tok
	if t.kind != tokName {
		s.fail(t.pos, CodeSyntax, "expected %s here", what)
		return t
	}
	s.next()
	return t
}

// done fails when something stands before the closing braces.
func (s *scanner) done() {
	if s.failed == nil && s.tok.kind != tokEnd {
		s.fail(s.tok.pos, CodeSyntax, "%s does not belong here", quoted(s.tok.text))
	}
}

// quoted shows a piece of the template's source in an error, shortened.
func quoted(s string) string {
	const most = 40
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return "“" + s + "”"
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
