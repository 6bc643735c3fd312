package templates

import (
	"html"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// textFilter makes a filter of a function over text whose result is at most growth times as long, and 0 if it builds
// nothing. Upper and lower case may grow a little: three bytes for two at most.
func textFilter(growth int, fn func(string) string) filterFunc {
	return func(r *run, _ *call, in value, _ []value) value {
		s := r.text(in)
		if !r.memory(growth*len(s)+growth*len(s)/2) || !r.work(len(s)) {
			return value{}
		}
		return textValue(fn(s))
	}
}

func trimLeft(s string) string  { return strings.TrimLeftFunc(s, unicode.IsSpace) }
func trimRight(s string) string { return strings.TrimRightFunc(s, unicode.IsSpace) }

// capitalize makes the first letter a capital and the others small, as Liquid does.
func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

func stripNewlines(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\r' {
			return -1
		}
		return c
	}, s)
}

func urlEncode(s string) string { return url.QueryEscape(s) }

func filterURLDecode(r *run, f *call, in value, _ []value) value {
	s := r.text(in)
	if !r.memory(len(s)) {
		return value{}
	}
	out, err := url.QueryUnescape(s)
	if err != nil || !utf8.ValidString(out) {
		r.fail(CodeType, "the input of %s is not URL-encoded", f.name)
		return value{}
	}
	return textValue(out)
}

func filterEscape(r *run, _ *call, in value, _ []value) value {
	s := r.text(in)
	extra := 0
	for i := range len(s) {
		switch s[i] {
		case '<', '>', '&', '"', '\'', 0:
			extra += 4
		}
	}
	if !r.work(len(s)) || extra > 0 && !r.memory(2*(len(s)+extra)) { // as bytes, then as text
		return value{}
	}
	if extra > 0 {
		s = string(appendHTML(make([]byte, 0, len(s)+extra), s))
	}
	return value{kind: kindText, s: s, safe: true}
}

func filterEscapeOnce(r *run, f *call, in value, args []value) value {
	s := r.text(in)
	if !r.memory(len(s)) {
		return value{}
	}
	return filterEscape(r, f, textValue(html.UnescapeString(s)), args)
}

// filterNewlineToBr escapes first where values are escaped: its result is HTML.
func filterNewlineToBr(r *run, f *call, in value, args []value) value {
	s, safe := r.text(in), in.safe
	if r.t.mode == HTML && !safe {
		s = filterEscape(r, f, textValue(s), args).s
	}
	if !r.memory(2*len(s) + 6*strings.Count(s, "\n")) {
		return value{}
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return value{kind: kindText, s: strings.ReplaceAll(s, "\n", "<br />\n"), safe: r.t.mode == HTML}
}

func (r *run) join(a, b string) value {
	if !r.memory(len(a) + len(b)) {
		return value{}
	}
	return textValue(a + b)
}

func filterAppend(r *run, _ *call, in value, args []value) value {
	return r.join(r.text(in), r.text(args[0]))
}

func filterPrepend(r *run, _ *call, in value, args []value) value {
	return r.join(r.text(args[0]), r.text(in))
}

// replacer replaces n times, or as often as it finds something with n < 0; the last one with last.
func replacer(n int, last bool) filterFunc {
	return func(r *run, _ *call, in value, args []value) value {
		s, old, with := r.text(in), r.text(args[0]), ""
		if len(args) > 1 {
			with = r.text(args[1])
		}
		if !r.work(len(s) + len(old)) {
			return value{}
		}
		if last {
			i := strings.LastIndex(s, old)
			if i < 0 {
				return textValue(s)
			}
			if !r.memory(len(s) + len(with)) {
				return value{}
			}
			return textValue(s[:i] + with + s[i+len(old):])
		}
		found := 1
		if n < 0 {
			found = strings.Count(s, old)
		}
		// Two factors of at most 2^28 each: no overflow.
		if !r.memory(len(s)+found*len(with)) || !r.step(found/8) {
			return value{}
		}
		return textValue(strings.Replace(s, old, with, n))
	}
}

// filterTruncate cuts to a number of characters, those of the ellipsis counted.
func filterTruncate(r *run, _ *call, in value, args []value) value {
	s, most, ellipsis := r.text(in), int64(50), "..."
	if len(args) > 0 {
		most = max(0, r.integer(args[0], "the length"))
	}
	if len(args) > 1 {
		ellipsis = r.text(args[1])
	}
	if !r.work(len(s) + len(ellipsis)) {
		return value{}
	}
	if int64(len(s)) <= most || int64(runeCount(s)) <= most {
		return textValue(s)
	}
	keep := max(0, most-int64(runeCount(ellipsis)))
	return r.join(s[:runeOffset(s, int(keep))], ellipsis)
}

// runeOffset is where the nth character of s begins.
func runeOffset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func filterTruncateWords(r *run, _ *call, in value, args []value) value {
	s, most, ellipsis := r.text(in), int64(15), "..."
	if len(args) > 0 {
		most = max(1, r.integer(args[0], "the number of words"))
	}
	if len(args) > 1 {
		ellipsis = r.text(args[1])
	}
	if !r.work(2 * len(s)) {
		return value{}
	}
	var words int64
	end, inWord := 0, false
	for i, c := range s {
		space := unicode.IsSpace(c)
		if !space && !inWord {
			if words++; words > most {
				return r.collapse(s[:end], ellipsis)
			}
		}
		inWord = !space
		if inWord {
			end = i + utf8.RuneLen(c)
		}
	}
	return textValue(s)
}

// collapse joins words by single spaces.
func (r *run) collapse(s, end string) value {
	if !r.memory(18*len(s) + len(end)) { // the words as a list, then the text
		return value{}
	}
	return textValue(strings.Join(strings.Fields(s), " ") + end)
}

func filterSplit(r *run, _ *call, in value, args []value) value {
	s, sep := r.text(in), r.text(args[0])
	if s == "" || r.err != nil {
		return arrayValue([]any{})
	}
	if !r.work(len(s)) {
		return value{}
	}
	n := strings.Count(s, sep) + 1
	if !r.memory(48 * n) { // twice a header of 16 bytes, and the box of an any
		return value{}
	}
	if sep == " " { // as in Ruby: by any space, and without empty pieces
		return arrayValue(boxed(strings.Fields(s)))
	}
	parts := strings.Split(s, sep)
	for len(parts) > 0 && parts[len(parts)-1] == "" { // Ruby drops empty pieces at the end
		parts = parts[:len(parts)-1]
	}
	return arrayValue(boxed(parts))
}

func boxed(parts []string) []any {
	a := make([]any, len(parts))
	for i, p := range parts {
		a[i] = p
	}
	return a
}

// filterSlice takes characters or items from an offset on, one if no length is given. A negative offset counts from the
// end.
func filterSlice(r *run, _ *call, in value, args []value) value {
	offset, count := r.integer(args[0], "the offset"), int64(1)
	if len(args) > 1 {
		count = r.integer(args[1], "the length")
	}
	var s string
	var a []any
	n := int64(0)
	if in.kind == kindArray || in.kind == kindRange {
		a = r.items(in)
		n = int64(len(a))
	} else {
		s = r.text(in)
		r.work(len(s))
		n = int64(runeCount(s))
	}
	if offset < 0 {
		offset += n
	}
	if r.err != nil || offset < 0 || offset >= n || count <= 0 {
		if a != nil {
			return arrayValue([]any{})
		}
		return textValue("")
	}
	end := offset + min(count, n-offset)
	if a != nil {
		return arrayValue(a[offset:end:end])
	}
	from := runeOffset(s, int(offset))
	return textValue(s[from : from+runeOffset(s[from:], int(end-offset))])
}
