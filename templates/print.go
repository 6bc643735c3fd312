package templates

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// print appends a value to the output, escaped for its place.
func (r *run) print(v value, esc escaping) {
	if esc == escJSONValue {
		if v.safe { // the filter json, or raw
			esc = escNone
		} else {
			r.printJSON(v, 0)
			return
		}
	}
	switch v.kind {
	case kindNil, kindMissing, kindEmpty, kindBlank, kindLoop:
		return
	case kindText:
		r.printText(v.s, v.safe, esc)
		return
	case kindArray, kindMap:
		r.printText(r.text(v), false, esc)
		return
	}
	if r.room(32) {
		r.out = appendScalar(r.out, v)
	}
}

func (r *run) printText(s string, safe bool, esc escaping) {
	if !r.room(len(s)) || !r.work(len(s)) {
		return
	}
	before := len(r.out)
	switch {
	case esc == escURL && !safeURL(s):
		r.fail(CodeUnsafe, "this link may only begin with https:, http:, mailto:, tel: or sms:")
		return
	case (esc == escHTML || esc == escURL) && !safe:
		r.out = appendHTML(r.out, s)
	case esc == escJSONString: // safe means safe for HTML, or whole JSON: neither is the inside of a string
		r.out = appendJSONText(r.out, s)
	default:
		r.out = append(r.out, s...)
	}
	r.grown(len(r.out) - before - len(s))
}

// grown checks what escaping added. That is after the fact, but at most five bytes for each one that had room.
func (r *run) grown(n int) {
	if r.capturing > 0 {
		r.memory(n)
	} else {
		r.room(0)
	}
}

// appendHTML escapes what could end a text or an attribute's value.
func appendHTML(dst []byte, s string) []byte {
	from := 0
	for i := range len(s) {
		var e string
		switch s[i] {
		case '<':
			e = "&lt;"
		case '>':
			e = "&gt;"
		case '&':
			e = "&amp;"
		case '"':
			e = "&#34;"
		case '\'':
			e = "&#39;"
		case 0:
			e = "\uFFFD"
		default:
			continue
		}
		dst = append(dst, s[from:i]...)
		dst = append(dst, e...)
		from = i + 1
	}
	return append(dst, s[from:]...)
}

// safeURL reports whether a text that begins a link has a scheme that runs nothing. Browsers drop spaces and controls
// in front of and inside of a scheme.
func safeURL(s string) bool {
	n := strings.IndexAny(s, ":/?#&")
	if n < 0 || s[n] != ':' && s[n] != '&' {
		return true
	}
	if s[n] == '&' { // an entity could spell a colon
		return false
	}
	switch strings.ToLower(s[:n]) {
	case "https", "http", "mailto", "tel", "sms":
		return true
	}
	return false
}

// appendJSONText escapes the inside of a JSON string (RFC 8259 §7), and what HTML or a script around it could misread.
func appendJSONText(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, "\uFFFD"...)
			case r == '\u2028' || r == '\u2029':
				dst = append(dst, `\u202`...)
				dst = append(dst, hex[r&15])
			default:
				dst = append(dst, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c < 0x20 || c == '<' || c == '>' || c == '&' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst
}

// printJSON appends a value as JSON.
func (r *run) printJSON(v value, depth int) {
	if depth > MaxDepth {
		r.fail(CodeBudget, "the value is nested more than %d deep", MaxDepth)
	}
	if !r.step(1) || !r.room(32) {
		return
	}
	switch v.kind {
	case kindText:
		if !r.room(len(v.s)+2) || !r.work(len(v.s)) {
			return
		}
		before := len(r.out)
		r.out = append(r.out, '"')
		r.out = append(appendJSONText(r.out, v.s), '"')
		r.grown(len(r.out) - before - len(v.s))
	case kindArray:
		r.out = append(r.out, '[')
		for i, x := range v.array() {
			if i > 0 {
				r.out = append(r.out, ',')
			}
			if r.printJSON(r.in(x), depth+1); r.err != nil {
				return
			}
		}
		r.out = append(r.out, ']')
	case kindMap:
		m := v.mapped()
		r.out = append(r.out, '{')
		for i, k := range r.sortedKeys(m) {
			if i > 0 {
				r.out = append(r.out, ',')
			}
			r.printJSON(textValue(k), depth+1)
			r.out = append(r.out, ':')
			if r.printJSON(r.in(m[k]), depth+1); r.err != nil {
				return
			}
		}
		r.out = append(r.out, '}')
	case kindRange:
		r.out = append(r.out, '[')
		for i := range rangeLength(v) {
			if i > 0 {
				r.out = append(r.out, ',')
			}
			if !r.step(1) || !r.room(24) {
				return
			}
			r.out = strconv.AppendInt(r.out, v.n+int64(i), 10)
		}
		r.out = append(r.out, ']')
	case kindTime:
		r.out = append(r.out, '"')
		r.out = append(appendScalar(r.out, v), '"')
	case kindFloat:
		if v.f == math.Trunc(v.f) {
			r.out = strconv.AppendFloat(r.out, v.f, 'f', 0, 64)
			return
		}
		r.out = appendScalar(r.out, v)
	case kindInt, kindBool:
		r.out = appendScalar(r.out, v)
	default:
		r.out = append(r.out, "null"...)
	}
}
